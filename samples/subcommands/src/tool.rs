//! `tool NAME …` runs the plugin `tool-NAME` beside this program. The plugin has this terminal, and
//! its exit code is that of this program.

use std::env;
use std::process::ExitCode;

use pipeplug_host::{CallError, Plugin, Stdin, WaitStatus};

/// Exit codes of shells, for a command that does not exist and for one that cannot be run.
const NOT_FOUND: u8 = 127;
const NOT_RUN: u8 = 126;

fn main() -> ExitCode {
    let mut args = env::args_os().skip(1);
    let Some(name) = args.next() else {
        eprintln!("usage: tool NAME [ARG]...");
        return ExitCode::from(2);
    };
    let name = name.to_string_lossy().into_owned();
    let Ok(exe) = env::current_exe() else { return ExitCode::from(NOT_RUN) };
    let path = exe.with_file_name(format!("tool-{name}"));
    if !path.exists() {
        eprintln!("tool: there is no subcommand {name}");
        return ExitCode::from(NOT_FOUND);
    }
    // Standard output and error are this program's in any case.
    let started = Plugin::builder(path)
        .args(args)
        .stdin(Stdin::Inherit)
        .on_line(|_, line| eprintln!("{line}"))
        .start();
    let plugin = match started {
        Ok(plugin) => plugin,
        Err(error) => {
            eprintln!("tool: {error}");
            return ExitCode::from(NOT_RUN);
        }
    };
    let code = match plugin.call("run", "") {
        Ok(code) => code.parse().unwrap_or(1),
        Err(CallError::Remote { message, .. }) => {
            eprintln!("tool {name}: {message}");
            2
        }
        Err(error) => {
            eprintln!("tool {name}: {error}");
            // As a shell has it: 128 and the number of the signal.
            return ExitCode::from(match plugin.status() {
                Some(WaitStatus::Signaled { signal, .. }) => {
                    128 | u8::try_from(signal).unwrap_or(0)
                }
                Some(status) => status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1),
                None => 1,
            });
        }
    };
    if let Err(error) = plugin.stop() {
        eprintln!("tool {name}: {error}");
    }
    ExitCode::from(code)
}
