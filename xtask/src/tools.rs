//! Tools that the steps need beyond stable Rust and a linker, and what happens without them.
//!
//! On a developer's machine the step, or the part of it, is skipped with a line that says how to
//! get the tool. With `CI=true` it fails: a check that silently does not run is no check.

use std::env;
use std::fmt;
use std::path::Path;
use std::process::Command;

use anyhow::bail;
use serde::Deserialize;

use crate::process;

/// Something that not every machine has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Tool {
    Nightly,
    RustSrc,
    CargoFuzz,
    CargoDeny,
    Cxx,
    Nm,
    Valgrind,
    Docker,
    Ssh,
    Python3,
}

/// Policy for a missing tool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WhenMissing {
    Skip,
    Fail,
}

/// Presence of everything that was asked for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Presence {
    Here,
    /// The line that says what is missing and how to get it.
    Missing(String),
}

/// How a step ended that did not fail.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum StepOutcome {
    /// The step ran. Each part that was skipped has a line that says why.
    Done {
        skipped_parts: Vec<String>,
    },
    Skipped {
        why: String,
    },
}

/// Checks for the tools, with the policy of this environment.
///
/// # Errors
/// One is missing and `CI=true`.
pub(crate) fn require(tools: &[Tool]) -> anyhow::Result<Presence> {
    judge(tools, WhenMissing::here(), Tool::is_here)
}

/// Looks for the tools, with no policy.
pub(crate) fn look_for(tools: &[Tool]) -> Presence {
    let missing = missing_of(tools, Tool::is_here);
    missing.map_or(Presence::Here, Presence::Missing)
}

/// Applies the policy of this environment to the lack of something else than a tool. `line` states
/// what is missing.
///
/// # Errors
/// `CI=true`.
pub(crate) fn missing(line: String) -> anyhow::Result<Presence> {
    WhenMissing::here().applied(line)
}

/// Returns true in a run with `CI=true`.
pub(crate) fn in_ci() -> bool {
    WhenMissing::here() == WhenMissing::Fail
}

/// Returns true if cargo-nextest is installed. Being only a faster runner, it needs no policy.
pub(crate) fn has_nextest() -> bool {
    process::succeeds(process::cargo().args(["nextest", "--version"]))
}

fn judge(
    tools: &[Tool],
    when_missing: WhenMissing,
    is_here: impl Fn(&Tool) -> bool,
) -> anyhow::Result<Presence> {
    missing_of(tools, is_here).map_or(Ok(Presence::Here), |line| when_missing.applied(line))
}

/// The line that says which of the tools are missing, if any is.
fn missing_of(tools: &[Tool], is_here: impl Fn(&Tool) -> bool) -> Option<String> {
    let missing: Vec<String> =
        tools.iter().filter(|tool| !is_here(tool)).map(Tool::to_string).collect();
    (!missing.is_empty()).then(|| format!("missing: {}", missing.join("; ")))
}

impl WhenMissing {
    fn here() -> Self {
        Self::of_ci(env::var("CI").ok().as_deref())
    }

    fn of_ci(value: Option<&str>) -> Self {
        match value {
            Some("true" | "1") => Self::Fail,
            _ => Self::Skip,
        }
    }

    fn applied(self, line: String) -> anyhow::Result<Presence> {
        match self {
            Self::Skip => Ok(Presence::Missing(line)),
            Self::Fail => bail!("{line}; with CI=true nothing may be left out"),
        }
    }
}

impl Tool {
    fn is_here(&self) -> bool {
        let mut command = match self {
            Self::Nightly => {
                let mut rustup = Command::new("rustup");
                rustup.args(["run", "nightly", "rustc", "--version"]);
                rustup
            }
            Self::RustSrc => return has_rust_src(),
            Self::CargoFuzz => {
                let mut cargo = process::cargo();
                cargo.args(["fuzz", "--version"]);
                cargo
            }
            Self::CargoDeny => {
                let mut cargo = process::cargo();
                cargo.args(["deny", "--version"]);
                cargo
            }
            Self::Cxx => program("c++", "--version"),
            Self::Nm => program("nm", "--version"),
            Self::Valgrind => program("valgrind", "--version"),
            // `version` asks the daemon too; a client without one is of no use.
            Self::Docker => program("docker", "version"),
            Self::Ssh => program("ssh", "-V"),
            Self::Python3 => program("python3", "--version"),
        };
        process::succeeds(&mut command)
    }
}

/// Returns true if nightly has the sources of its standard library.
fn has_rust_src() -> bool {
    let mut rustc = Command::new("rustup");
    rustc.args(["run", "nightly", "rustc", "--print", "sysroot"]);
    process::stdout_of(&mut rustc)
        .is_ok_and(|root| Path::new(root.trim()).join("lib/rustlib/src/rust/library/std").is_dir())
}

fn program(name: &str, arg: &str) -> Command {
    let mut command = Command::new(name);
    command.arg(arg);
    command
}

impl fmt::Display for Tool {
    /// Writes the name of the tool and, in brackets, how to get it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nightly => "nightly Rust (rustup toolchain install nightly --profile minimal)",
            Self::RustSrc => {
                "the sources of nightly's std (rustup component add rust-src --toolchain nightly)"
            }
            Self::CargoFuzz => "cargo-fuzz (cargo install --locked cargo-fuzz)",
            Self::CargoDeny => "cargo-deny (cargo install --locked cargo-deny)",
            Self::Cxx => "c++ (Debian: apt-get install g++)",
            Self::Nm => "nm (Debian: apt-get install binutils)",
            Self::Valgrind => "valgrind (Debian: apt-get install valgrind)",
            Self::Docker => "docker with a daemon that answers (Debian: apt-get install docker.io)",
            Self::Ssh => "ssh (Debian: apt-get install openssh-client)",
            Self::Python3 => "python3 (Debian: apt-get install python3)",
        })
    }
}

impl StepOutcome {
    pub(crate) fn done() -> Self {
        Self::Done { skipped_parts: Vec::new() }
    }

    /// Prints what was left out.
    pub(crate) fn report(&self) {
        match self {
            Self::Done { skipped_parts } => {
                skipped_parts.iter().for_each(|part| println!("skipped in part: {part}"));
            }
            Self::Skipped { why } => println!("skipped: {why}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_is_no_matter() {
        let presence = judge(&[Tool::Nm, Tool::Ssh], WhenMissing::Fail, |_| true).unwrap();
        assert_eq!(presence, Presence::Here);
    }

    #[test]
    fn a_missing_tool_skips_and_says_how_to_get_it() {
        let presence =
            judge(&[Tool::Nm, Tool::CargoFuzz], WhenMissing::Skip, |tool| *tool == Tool::Nm);
        let Presence::Missing(line) = presence.unwrap() else { panic!("nothing is missing") };
        assert_eq!(line, "missing: cargo-fuzz (cargo install --locked cargo-fuzz)");
    }

    #[test]
    fn a_missing_tool_fails_in_ci() {
        let error = judge(&[Tool::Nm], WhenMissing::of_ci(Some("true")), |_| false).unwrap_err();
        assert!(error.to_string().starts_with("missing: nm"), "{error}");
    }

    #[test]
    fn only_a_ci_that_says_so_is_one() {
        assert_eq!(WhenMissing::of_ci(None), WhenMissing::Skip);
        assert_eq!(WhenMissing::of_ci(Some("")), WhenMissing::Skip);
        assert_eq!(WhenMissing::of_ci(Some("false")), WhenMissing::Skip);
    }
}
