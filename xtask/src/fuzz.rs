//! `cargo xtask fuzz`: the fuzz targets of the packages that have some.

use std::fs;
use std::process::Command;

use anyhow::{Context as _, bail};
use clap::Args;

use crate::process;
use crate::project::Project;
use crate::tools::{self, Presence, StepOutcome, Tool};

/// Fuzz the codec and whole connections, each target for a while.
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
that crashes in fuzz/artifacts of its package.

Examples:
  cargo xtask fuzz                          ten minutes for each target
  cargo xtask fuzz TARGET --seconds 60      one target for a minute";

/// The packages that have fuzz targets.
const FUZZED: [&str; 2] = ["crates/pipeplug-wire", "crates/pipeplug-net"];
const CI_SECONDS: u32 = 10;

pub(crate) fn run(project: &Project, args: &FuzzArgs) -> anyhow::Result<StepOutcome> {
    fuzz(project, args.target.as_deref(), args.seconds)
}

/// The step of `cargo xtask ci`: a short run of every target.
pub(crate) fn check(project: &Project) -> anyhow::Result<StepOutcome> {
    fuzz(project, None, CI_SECONDS)
}

fn fuzz(project: &Project, only: Option<&str>, seconds: u32) -> anyhow::Result<StepOutcome> {
    let targets = select(targets(project)?, only)?;
    match tools::require(&[Tool::Nightly, Tool::CargoFuzz, Tool::Cxx])? {
        Presence::Missing(why) => return Ok(StepOutcome::Skipped { why }),
        Presence::Here => {}
    }
    let mut failed = Vec::new();
    for target in targets {
        if let Err(error) = fuzz_target(project, &target, seconds) {
            println!("{}: {error:#}", target.name);
            failed.push(target.name);
        }
    }
    if !failed.is_empty() {
        bail!("fuzz targets that failed: {}", failed.join(", "));
    }
    Ok(StepOutcome::done())
}

/// A fuzz target and its package's folder.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Target {
    package: &'static str,
    name: String,
}

fn fuzz_target(
    project: &Project,
    Target { package, name }: &Target,
    seconds: u32,
) -> anyhow::Result<()> {
    // libFuzzer writes new inputs into the first folder and only reads the others: the seeds in the
    // repository stay as they are.
    let corpus = project.target_dir.join("fuzz-corpus").join(name);
    fs::create_dir_all(&corpus).with_context(|| format!("cannot make {}", corpus.display()))?;
    let seeds = project.root.join(package).join("fuzz/corpus").join(name);

    // Through rustup, for `cargo +nightly` works only where `cargo` is rustup's proxy.
    let mut command = Command::new("rustup");
    command.current_dir(project.root.join(package));
    command.args(["run", "nightly", "cargo", "fuzz", "run"]);
    // The address sanitizer finds next to nothing where there is next to no `unsafe`, and halves
    // the speed.
    command.args(["--sanitizer", "none"]);
    command.arg("--target-dir").arg(project.target_dir.join("fuzz"));
    command.arg(name).arg(&corpus);
    if seeds.is_dir() {
        command.arg(&seeds);
    }
    command.arg("--").arg(format!("-max_total_time={seconds}"));
    process::run(&mut command)
}

/// The targets that the fuzz packages declare.
fn targets(project: &Project) -> anyhow::Result<Vec<Target>> {
    let mut targets = Vec::new();
    for package in FUZZED {
        let fuzz = Project::at(&project.root.join(package).join("fuzz/Cargo.toml"))?;
        let before = targets.len();
        let bins = fuzz.packages.iter().flat_map(|package| package.bins());
        targets.extend(bins.map(|bin| Target { package, name: bin.name.clone() }));
        if targets.len() == before {
            bail!("{package}/fuzz/Cargo.toml declares no fuzz target");
        }
    }
    Ok(targets)
}

fn select(mut targets: Vec<Target>, only: Option<&str>) -> anyhow::Result<Vec<Target>> {
    let Some(only) = only else { return Ok(targets) };
    let names: Vec<_> = targets.iter().map(|target| target.name.clone()).collect();
    targets.retain(|target| target.name == only);
    if targets.is_empty() {
        bail!("there is no fuzz target {only}, only {}", names.join(", "));
    }
    Ok(targets)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn targets() -> Vec<Target> {
        let target = |(package, name): (_, &str)| Target { package, name: name.to_owned() };
        [(FUZZED[0], "decode"), (FUZZED[1], "round_trip")].map(target).to_vec()
    }

    #[test]
    fn a_target_is_selected_by_name() {
        assert_eq!(select(targets(), Some("decode")).unwrap(), targets()[..1]);
        assert_eq!(select(targets(), None).unwrap(), targets());
    }

    #[test]
    fn an_unknown_target_is_an_error_that_lists_those_there_are() {
        let error = select(targets(), Some("x")).unwrap_err().to_string();
        assert!(error.contains("decode, round_trip"), "{error}");
    }
}
