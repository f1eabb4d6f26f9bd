//! `cargo xtask models`: the hand-overs between threads of pipeplug-net, under one schedule after
//! the other.

use std::fs;
use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;

use crate::process;
use crate::project::Project;
use crate::steps::cargo_with;

/// Run the models of the hand-overs between threads, each under many schedules.
#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(crate) struct ModelsArgs {
    /// Only those whose name contains this [default: every one]
    model: Option<String>,
    /// Under how many schedules each model runs
    #[arg(long, value_name = "N", default_value_t = 5000, value_parser = clap::value_parser!(u32).range(2..))]
    iterations: u32,
    /// Run a model once, under the schedule in this file
    #[arg(long, value_name = "FILE", requires = "model", conflicts_with = "iterations")]
    replay: Option<PathBuf>,
}

const HELP: &str = "\
A schedule under which a model fails is kept in target/models/failures, to be given to --replay. It holds for
as long as the code stays the same.

Examples:
  cargo xtask models                                   5,000 schedules of each model
  cargo xtask models outbox --iterations 100000        many more of some
  cargo xtask models MODEL --replay FILE               what failed, once more";

const CI_ITERATIONS: u32 = 500;

pub(crate) fn run(project: &Project, args: &ModelsArgs) -> anyhow::Result<()> {
    models(project, args)
}

/// The step of `cargo xtask ci`: some schedules of every model.
pub(crate) fn check(project: &Project) -> anyhow::Result<()> {
    models(project, &ModelsArgs { model: None, iterations: CI_ITERATIONS, replay: None })
}

fn models(project: &Project, args: &ModelsArgs) -> anyhow::Result<()> {
    let failures = project.target_dir.join("models/failures");
    fs::create_dir_all(&failures).with_context(|| format!("cannot make {}", failures.display()))?;
    let mut command = cargo_with(project, "--cfg shuttle", "models");
    // Ten times as many schedules in the same time, with overflows and assertions checked still.
    command.env("CARGO_PROFILE_DEV_OPT_LEVEL", "1");
    command.env("PIPEPLUG_MODEL_FAILURES", &failures);
    command.env("PIPEPLUG_MODEL_ITERATIONS", args.iterations.to_string());
    if let Some(file) = &args.replay {
        let file =
            fs::canonicalize(file).with_context(|| format!("cannot read {}", file.display()))?;
        command.env("PIPEPLUG_MODEL_SCHEDULE", file);
    }
    command.args(["test", "--package", "pipeplug-net", "--lib", "--"]);
    // Of several filters the test runner takes what any of them names.
    match &args.model {
        Some(model) => command.arg(model).args(["--skip", "::tests::"]),
        None => command.arg("models::"),
    };
    process::run(&mut command)
}
