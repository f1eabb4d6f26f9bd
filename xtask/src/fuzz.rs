//! `cargo xtask fuzz`: the fuzz targets of pipeplug-wire.

use std::fs;
use std::process::Command;

use anyhow::{Context as _, bail};
use clap::Args;

use crate::process;
use crate::project::Project;
use crate::tools::{self, Outcome, Presence, Tool};

/// Fuzz the codec, each target for a while.
#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(crate) struct FuzzArgs {
    /// The only target to run [default: every one]
    target: Option<String>,
    /// How long each target runs
    #[arg(long, value_name = "N", default_value_t = 600, value_parser = clap::value_parser!(u32).range(1..))]
    seconds: u32,
}

const HELP: &str = "\
Needs nightly Rust, cargo-fuzz and a C++ compiler. New inputs are kept in target/fuzz-corpus, an input
that crashes in crates/pipeplug-wire/fuzz/artifacts.

Examples:
  cargo xtask fuzz                          ten minutes for each target
  cargo xtask fuzz TARGET --seconds 60      one target for a minute";

const WIRE: &str = "crates/pipeplug-wire";
const CI_SECONDS: u32 = 10;

pub(crate) fn run(project: &Project, args: &FuzzArgs) -> anyhow::Result<Outcome> {
    fuzz(project, args.target.as_deref(), args.seconds)
}

/// The step of `cargo xtask ci`: a short run of every target.
pub(crate) fn check(project: &Project) -> anyhow::Result<Outcome> {
    fuzz(project, None, CI_SECONDS)
}

fn fuzz(project: &Project, only: Option<&str>, seconds: u32) -> anyhow::Result<Outcome> {
    let targets = select(targets(project)?, only)?;
    match tools::require(&[Tool::Nightly, Tool::CargoFuzz, Tool::Cxx])? {
        Presence::Missing(why) => return Ok(Outcome::Skipped { why }),
        Presence::Here => {}
    }
    let mut failed = Vec::new();
    for target in targets {
        if let Err(error) = fuzz_target(project, &target, seconds) {
            println!("{target}: {error:#}");
            failed.push(target);
        }
    }
    if !failed.is_empty() {
        bail!("fuzz targets that failed: {}", failed.join(", "));
    }
    Ok(Outcome::done())
}

fn fuzz_target(project: &Project, target: &str, seconds: u32) -> anyhow::Result<()> {
    // libFuzzer writes new inputs into the first folder and only reads the others: the seeds in the
    // repository stay as they are.
    let corpus = project.target_dir.join("fuzz-corpus").join(target);
    fs::create_dir_all(&corpus).with_context(|| format!("cannot make {}", corpus.display()))?;
    let seeds = project.root.join(WIRE).join("fuzz/corpus").join(target);

    // Through rustup, for `cargo +nightly` works only where `cargo` is rustup's proxy.
    let mut command = Command::new("rustup");
    command.current_dir(project.root.join(WIRE));
    command.args(["run", "nightly", "cargo", "fuzz", "run"]);
    // The address sanitizer finds nothing in code that forbids `unsafe`, and halves the speed.
    command.args(["--sanitizer", "none"]);
    command.arg("--target-dir").arg(project.target_dir.join("fuzz"));
    command.arg(target).arg(&corpus);
    if seeds.is_dir() {
        command.arg(&seeds);
    }
    command.arg("--").arg(format!("-max_total_time={seconds}"));
    process::run(&mut command)
}

/// The targets that the fuzz package declares.
fn targets(project: &Project) -> anyhow::Result<Vec<String>> {
    let fuzz = Project::at(&project.root.join(WIRE).join("fuzz/Cargo.toml"))?;
    Ok(fuzz.packages.iter().flat_map(|package| package.bins()).map(|bin| bin.name.clone()).collect())
}

fn select(targets: Vec<String>, only: Option<&str>) -> anyhow::Result<Vec<String>> {
    if targets.is_empty() {
        bail!("{WIRE}/fuzz/Cargo.toml declares no fuzz target");
    }
    match only {
        None => Ok(targets),
        Some(name) if targets.iter().any(|target| target == name) => Ok(vec![name.to_owned()]),
        Some(name) => bail!("there is no fuzz target {name}, only {}", targets.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn targets() -> Vec<String> {
        vec!["decode".to_owned(), "round_trip".to_owned()]
    }

    #[test]
    fn a_target_is_selected_by_name() {
        assert_eq!(select(targets(), Some("decode")).unwrap(), ["decode"]);
        assert_eq!(select(targets(), None).unwrap(), targets());
    }

    #[test]
    fn an_unknown_target_is_an_error_that_lists_those_there_are() {
        let error = select(targets(), Some("x")).unwrap_err().to_string();
        assert!(error.contains("decode, round_trip"), "{error}");
        assert!(select(Vec::new(), None).is_err());
    }
}
