//! A host for tests, which ends without stopping its plugin: `lonely-host [<how>] <end> <plugin>
//! [its arguments…]` starts the plugin, prints its process id, and ends as it is told once its
//! standard input does. How to launch it is one of `--via COMMAND`, `--attach SOCKET`, `--kubectl
//! PROGRAM` and `--sandbox LEVEL`.

use std::ffi::OsStr;
use std::io::{self, Read};
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};
use std::thread;

use pipeplug_host::launcher::{Attach, CommandPrefix, Kubectl};
use pipeplug_host::{OnHostExit, Plugin, Sandbox};

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1).peekable();
    let how = args.next_if(|arg| arg.as_encoded_bytes().starts_with(b"--"));
    let what = how.as_ref().and_then(|_| args.next()).unwrap_or_default();
    let (Some(end), Some(path)) = (args.next(), args.next()) else {
        eprintln!("lonely-host: how to end, and which plugin?");
        return ExitCode::from(2);
    };
    let end = end.to_string_lossy().into_owned();
    let mut builder = Plugin::builder(path).args(args);
    if end == "leaves" {
        builder = builder.on_host_exit(OnHostExit::EndOfFile);
    }
    builder = match how.as_deref().and_then(OsStr::to_str) {
        Some("--via") => {
            builder.launcher(CommandPrefix::new(what.to_string_lossy().split_whitespace()))
        }
        Some("--attach") => builder.launcher(Attach::new(what)),
        Some("--kubectl") => builder.launcher(Kubectl::new("image").program(what)),
        Some("--sandbox") => builder.sandbox(match what.to_str() {
            Some("strict") => Sandbox::strict(),
            _ => Sandbox::basic(),
        }),
        _ => builder,
    };
    let plugin = match builder.start() {
        Ok(plugin) => plugin,
        Err(error) => {
            eprintln!("lonely-host: {error}");
            return ExitCode::FAILURE;
        }
    };
    println!("{}", plugin.pid());
    // Only the end of the input counts.
    let _ = io::stdin().read_to_end(&mut Vec::new());
    match end.as_str() {
        "exits" => std::process::exit(0),
        "aborts" => std::process::abort(),
        "becomes-another" => {
            eprintln!("lonely-host: {}", Command::new("sleep").arg("1000").exec());
            ExitCode::FAILURE
        }
        // Waits to be killed.
        _ => loop {
            thread::park();
        },
    }
}
