//! `cargo xtask bench`: the benchmarks, in release mode.

use anyhow::bail;
use clap::Args;

use crate::process;
use crate::project::Project;
use crate::steps::cargo_in;

const PACKAGE: &str = "pipeplug-bench";

/// Run the benchmarks; all arguments go to them.
#[derive(Debug, Args)]
#[command(disable_help_flag = true)]
pub(crate) struct BenchArgs {
    /// What the benchmarks take; --help shows it
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) args: Vec<String>,
}

pub(crate) fn run(project: &Project, args: &BenchArgs) -> anyhow::Result<()> {
    if project.package(PACKAGE).is_none() {
        bail!("the workspace has no package {PACKAGE}, so there is nothing to measure");
    }
    let fixed = ["run", "--release", "--package", PACKAGE, "--"];
    process::run(cargo_in(project).args(fixed).args(&args.args))
}
