//! `cargo xtask sanitize`: the tests under a sanitizer of the compiler.

use std::process::Command;

use anyhow::Context as _;
use clap::{Args, ValueEnum};

use crate::process;
use crate::project::Project;
use crate::steps::set_flags;
use crate::tools::{self, Presence, StepOutcome, Tool};

/// Run the tests of net, host and guest under a sanitizer.
#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(crate) struct SanitizeArgs {
    /// Which one
    #[arg(value_enum)]
    sanitizer: Sanitizer,
    /// Only tests whose name contains this [default: every one]
    test: Option<String>,
}

const HELP: &str = "\
Needs nightly Rust, and `thread` its rust-src component too: the standard library is built anew, since the sanitizer
has to see its locks.

Examples:
  cargo xtask sanitize address                 every test
  cargo xtask sanitize thread descriptors      those whose name contains it";

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Sanitizer {
    /// Accesses to memory that is not there, or not any more, and memory that nothing refers to
    Address,
    /// Accesses of two threads to the same memory that nothing orders
    Thread,
}

/// The packages that hold `unsafe` or hand over between threads.
const PACKAGES: [&str; 3] = [NET, "pipeplug-host", "pipeplug-guest"];
const NET: &str = "pipeplug-net";

pub(crate) fn run(project: &Project, args: &SanitizeArgs) -> anyhow::Result<StepOutcome> {
    match tools::require(args.sanitizer.tools())? {
        Presence::Missing(why) => return Ok(StepOutcome::Skipped { why }),
        Presence::Here => {}
    }
    process::run(&mut args.sanitizer.command(project, &host()?, &PACKAGES, args.test.as_deref()))?;
    Ok(StepOutcome::done())
}

/// The step of `cargo xtask ci`: the threads of net, where the hand-overs are. A mirror that has no
/// sources of the standard library is a reason to do without, also with `CI=true`.
pub(crate) fn check(project: &Project) -> anyhow::Result<StepOutcome> {
    let sanitizer = Sanitizer::Thread;
    if let Presence::Missing(why) = tools::look_for(sanitizer.tools()) {
        return Ok(StepOutcome::Skipped { why });
    }
    process::run(&mut sanitizer.command(project, &host()?, &[NET], None))?;
    Ok(StepOutcome::done())
}

impl Sanitizer {
    fn tools(self) -> &'static [Tool] {
        match self {
            Self::Address => &[Tool::Nightly],
            Self::Thread => &[Tool::Nightly, Tool::RustSrc],
        }
    }

    fn command(
        self,
        project: &Project,
        host: &str,
        packages: &[&str],
        test: Option<&str>,
    ) -> Command {
        let (flags, target) = match self {
            Self::Address => ("-Zsanitizer=address", "sanitize-address"),
            Self::Thread => ("-Zsanitizer=thread", "sanitize-thread"),
        };
        // Through rustup, for `cargo +nightly` works only where `cargo` is rustup's proxy.
        let mut command = Command::new("rustup");
        command.current_dir(&project.root);
        set_flags(&mut command, project, flags, target);
        command.args([
            "run",
            "nightly",
            "cargo",
            "test",
            "--no-fail-fast",
            "--lib",
            "--bins",
            "--tests",
        ]);
        // With a target the flags are for what runs there, and not for build scripts and macros.
        command.args(["--target", host]);
        if self == Self::Thread {
            // Some tests panic on purpose. Their backtraces take longer than the time limits of calls.
            command.env("RUST_BACKTRACE", "0");
            command.arg("-Zbuild-std");
        }
        command.args(packages.iter().flat_map(|package| ["--package", package]));
        command.args(test.iter().flat_map(|test| ["--", test]));
        command
    }
}

/// This machine, in rustc's words.
fn host() -> anyhow::Result<String> {
    let version =
        process::stdout_of(Command::new("rustup").args(["run", "nightly", "rustc", "-vV"]))?;
    host_in(&version).with_context(|| format!("`rustc -vV` names no host:\n{version}"))
}

fn host_in(version: &str) -> Option<String> {
    version.lines().find_map(|line| line.strip_prefix("host: ")).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_is_found_in_what_the_compiler_says() {
        let version =
            "rustc 1.95.0\nbinary: rustc\nhost: x86_64-unknown-linux-gnu\nrelease: 1.95.0\n";
        assert_eq!(host_in(version).unwrap(), "x86_64-unknown-linux-gnu");
        assert_eq!(host_in("rustc 1.95.0\n"), None);
    }
}
