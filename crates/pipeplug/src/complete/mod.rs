//! Completion of command lines by shells: `COMPLETE=bash pipeplug` writes what a shell has to source.
//!
//! **Invariant:** completion starts no program and no plugin, and asks none. A key press must neither
//! run what nobody asked for nor wait for it. What a plugin offers is known from before:
//! [`remembered`], a lock file, or this program.

mod line;
mod plugins;
pub(crate) mod remembered;
mod shells;

use std::ffi::OsString;
use std::io::{self, Write as _};
use std::process::ExitCode;

use clap::{Command, ValueHint};
use clap_complete::engine::{ArgValueCompleter, CompletionCandidate};
use clap_complete::env::{CompleteEnv, EnvCompleter, Shells};

use self::line::Line;
use self::shells::{Bash, Fish, Zsh};
use crate::exit;

/// Variable that asks for the script of a shell, or for candidates.
pub(crate) const VARIABLE: &str = "COMPLETE";

/// Program that is completed.
const PROGRAM: &str = "pipeplug";

/// Answers a shell, if the environment asks for that. `None` if it does not.
pub(crate) fn of_environment(args: &[OsString], command: fn() -> Command) -> Option<ExitCode> {
    let shell = std::env::var_os(VARIABLE).filter(|shell| !shell.is_empty() && shell != "0")?;
    // With anything else the variable is another program's.
    let line = match args {
        [_] => None,
        [_, dashes, words @ ..] if dashes == "--" => Some(Line::of(words)),
        _ => return None,
    };
    let is_request = line.is_some();
    let dir = std::env::current_dir().ok();
    let done = CompleteEnv::with_factory(|| match &line {
        Some(line) => completing(command(), line),
        None => command(),
    })
    .var(VARIABLE)
    .bin(PROGRAM)
    .shells(Shells(&[&Bash, &Zsh, &Fish]))
    .try_complete(args.to_vec(), dir.as_deref());
    Some(match done {
        Ok(_) => ExitCode::from(exit::SUCCESS),
        // A message would appear in the middle of the line that is typed.
        Err(_) if is_request => ExitCode::from(exit::FAILED),
        Err(_) => {
            let shell = shell.to_string_lossy();
            let shell = crate::output::text::Escaped(&shell);
            // If the write fails, the exit status still reports the error.
            let _ = writeln!(
                io::stderr(),
                "pipeplug: {VARIABLE}={shell}: no completion for this shell; there is one for bash, \
                 zsh and fish, as in {VARIABLE}=bash pipeplug"
            );
            ExitCode::from(exit::USAGE)
        }
    })
}

/// Scripts for the shells, by the names of files that they look for.
pub(crate) fn scripts() -> io::Result<Vec<(&'static str, Vec<u8>)>> {
    let write = |(name, shell): (_, &dyn EnvCompleter)| {
        let mut script = Vec::new();
        shell.write_registration(VARIABLE, PROGRAM, PROGRAM, PROGRAM, &mut script)?;
        Ok((name, script))
    };
    shells::SCRIPTS.into_iter().map(write).collect()
}

/// The definition of the command line, with candidates for its values.
fn completing(command: Command, line: &Line) -> Command {
    // Options are offered where one begins; else they would bury the rest.
    let hides_options = !line.current.as_encoded_bytes().starts_with(b"-");
    let with_values = |arg: clap::Arg| {
        let names = arg.get_value_names().unwrap_or_default();
        let is_named = |start: &str| names.iter().any(|name| name.starts_with(start));
        let is_option = !arg.is_positional();
        let arg = match arg.get_id().as_str() {
            "plugin" | "plugins" | "names" | "vs" | "old" | "new" => {
                let line = line.clone();
                let candidates = move |current: &_| plugins::candidates(&line, current);
                arg.add(ArgValueCompleter::new(candidates))
            }
            "call" | "notify" | "slow" | "redact" => {
                let line = line.clone();
                arg.add(ArgValueCompleter::new(OfCommand(line)))
            }
            _ if is_named("FILE") => arg.value_hint(ValueHint::FilePath),
            _ => arg,
        };
        arg.hide(is_option && hides_options)
    };
    let global = |arg: clap::Arg| {
        let is_option = !arg.is_positional();
        arg.hide(is_option && hides_options)
    };
    command
        .disable_help_flag(hides_options)
        .disable_version_flag(hides_options)
        .mut_args(global)
        .mut_subcommands(move |it| it.disable_help_flag(hides_options).mut_args(with_values))
}

/// Completes `CMD [DATA]`.
struct OfCommand(Line);

impl clap_complete::engine::ValueCompleter for OfCommand {
    fn complete(&self, current: &std::ffi::OsStr) -> Vec<CompletionCandidate> {
        self.0.commands(current)
    }

    fn complete_at(&self, index: usize, current: &std::ffi::OsStr) -> Vec<CompletionCandidate> {
        if index == 0 { self.0.commands(current) } else { plugins::data_files(current) }
    }
}
