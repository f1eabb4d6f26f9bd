//! A host for tests of sandboxes, to be run as any user: `sandbox-host [<options>] <level>
//! <plugin>` starts the plugin and has it do what the lines of its standard input say, a command, a
//! tab and the data; each answer is a line of its standard error. At the end of its input it stops
//! the plugin.
//!
//! Options: `--read PATH`, `--write PATH`, `--connect PORT`, `--bind PORT`, `--scratch BYTES`,
//! `--permissions JSON`, `--best-effort`, `--leave`, `--inherit-stdout`, `--without-namespaces`, which has the kernel
//! refuse them to this process, as a container engine does, and `--without-landlock`, which has it
//! seem to have none; `--landlock ABI`, which has it seem to have that version; `--log`, which has
//! warnings in the standard error too.

use std::io::{self, BufRead as _, Write as _};
use std::process::ExitCode;

use pipeplug_host::{OnHostExit, Permissions, Plugin, Sandbox, Stdout};

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("sandbox-host: {problem}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let mut next = || args.next().ok_or("something is missing on the command line");
    let mut changes: Vec<Box<dyn FnOnce(Sandbox) -> Sandbox>> = Vec::new();
    let (mut stdout, mut on_host_exit) = (Stdout::Null, OnHostExit::Kill);
    let mut permissions = None;
    let level = loop {
        match next()?.as_str() {
            "--read" => {
                let path = next()?;
                changes.push(Box::new(|sandbox| sandbox.read(path)));
            }
            "--write" => {
                let path = next()?;
                changes.push(Box::new(|sandbox| sandbox.write(path)));
            }
            "--connect" => {
                let port = next()?.parse()?;
                changes.push(Box::new(move |sandbox| sandbox.connect(port)));
            }
            "--bind" => {
                let port = next()?.parse()?;
                changes.push(Box::new(move |sandbox| sandbox.bind(port)));
            }
            "--scratch" => {
                let bytes = next()?.parse()?;
                changes.push(Box::new(move |sandbox| sandbox.scratch(bytes)));
            }
            "--permissions" => permissions = Some(next()?.parse::<Permissions>()?),
            "--best-effort" => changes.push(Box::new(Sandbox::best_effort)),
            "--leave" => on_host_exit = OnHostExit::EndOfFile,
            "--inherit-stdout" => stdout = Stdout::Inherit,
            "--without-landlock" => pipeplug_tests::refuse_landlock()?,
            "--landlock" => pipeplug_tests::seem_to_have_landlock(next()?.parse()?)?,
            "--log" => tracing_subscriber::fmt().with_writer(io::stderr).with_ansi(false).init(),
            "--without-namespaces" => pipeplug_tests::refuse_namespaces()?,
            level => break level.to_owned(),
        }
    };
    let plugin = next()?;
    // Its own standard error is for the answers.
    let mut builder =
        Plugin::builder(plugin).on_line(|_, _| {}).stdout(stdout).on_host_exit(on_host_exit);
    let sandbox = match level.as_str() {
        "none" => None,
        "basic" => Some(Sandbox::basic()),
        "strict" => Some(Sandbox::strict()),
        other => return Err(format!("there is no level {other}").into()),
    };
    if let Some(sandbox) = sandbox {
        builder =
            builder.sandbox(changes.into_iter().fold(sandbox, |sandbox, change| change(sandbox)));
    }
    if let Some(permissions) = permissions {
        builder = builder.permissions(permissions);
    }
    let plugin = builder.start()?;
    let mut answers = io::stderr();
    writeln!(answers, "started {}", plugin.pid())?;
    for line in io::stdin().lock().lines() {
        let line = line?;
        let (command, data) = line.split_once('\t').unwrap_or((&line, ""));
        let answer = plugin
            .call(command, data.to_owned())
            .map_or_else(|error| error.to_string(), |it| it.to_string());
        writeln!(answers, "{}", answer.replace('\n', " "))?;
    }
    plugin.stop()?;
    Ok(())
}
