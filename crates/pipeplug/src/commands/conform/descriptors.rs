//! Descriptors of other numbers: a script starts this program in a hidden mode, which moves the pipes and
//! becomes the plugin.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, ExitCode};

use nix::fcntl::{FcntlArg, fcntl};
use nix::unistd::close;
use pipeplug_guest::internal::copy_descriptor;

/// First argument of this program in the hidden mode.
const SUBCOMMAND: &str = "__descriptors";

/// Script that starts the plugin on descriptors of these numbers. Its first two arguments are the numbers
/// that the host has chosen.
pub(super) fn script(program: &Path, [input, output]: [u8; 2]) -> io::Result<String> {
    let own = std::env::current_exe()?;
    let (own, program) = (quoted(own.as_os_str())?, quoted(program.as_os_str())?);
    Ok(format!("#!/bin/sh\nexec {own} {SUBCOMMAND} {input} {output} {program} \"$@\"\n"))
}

/// A word of a shell's command.
pub(super) fn quoted(word: &OsStr) -> io::Result<String> {
    let word = word.to_str().ok_or_else(|| io::Error::other("a path is not UTF-8"))?;
    shlex::try_quote(word).map(String::from).map_err(io::Error::other)
}

/// Becomes the plugin of a script, if it has started this process.
pub(super) fn of_command_line(args: &[OsString]) -> Option<ExitCode> {
    let [_, subcommand, input, output, program, from_host, to_host, own @ ..] = args else {
        return None;
    };
    if subcommand != SUBCOMMAND {
        return None;
    }
    let number = |word: &OsStr| word.to_str()?.parse::<i32>().ok();
    let numbers = [number(input)?, number(output)?];
    let given = [number(from_host)?, number(to_host)?];
    #[expect(
        clippy::disallowed_methods,
        reason = "this process becomes the plugin and starts none"
    )]
    let mut plugin = Command::new(program);
    let error = match moved(given, numbers) {
        Ok(()) => plugin.args([input, output]).args(own).exec(),
        Err(error) => error,
    };
    eprintln!("conform: cannot start {} on other descriptors: {error}", program.display());
    Some(ExitCode::FAILURE)
}

/// Gives the pipes other numbers, which are free.
fn moved(given: [i32; 2], numbers: [i32; 2]) -> io::Result<()> {
    for (from, to) in given.into_iter().zip(numbers) {
        let pipe = copy_descriptor(from)?;
        let number = fcntl(&pipe, FcntlArg::F_DUPFD(to))?;
        if number != to {
            return Err(io::Error::other(format!("the descriptor {to} is in use")));
        }
        close(from)?;
    }
    Ok(())
}
