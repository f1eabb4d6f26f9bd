//! `cargo xtask chaos`: host and guest at work while processes and connections break.

use std::process::Command;

use clap::Args;

use crate::process;
use crate::project::Project;
use crate::steps::cargo_in;

const PACKAGE: &str = "pipeplug-tests";
const PROGRAM: &str = "chaos";

/// So many take some 20 seconds.
const CI_CYCLES: &str = "300";

/// Kill, stop and stall host and guest at work, and look for what is lost or left; all arguments go
/// to that program.
#[derive(Debug, Args)]
#[command(disable_help_flag = true)]
pub(crate) struct ChaosArgs {
    /// Arguments of that program, as `--cycles N` and `--seed S`; --help shows them
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) args: Vec<String>,
}

pub(crate) fn run(project: &Project, args: &ChaosArgs) -> anyhow::Result<()> {
    chaos(project, args.args.iter().map(String::as_str))
}

/// The step of `cargo xtask ci`, each time with another seed, which is printed.
pub(crate) fn check(project: &Project) -> anyhow::Result<()> {
    chaos(project, ["--cycles", CI_CYCLES])
}

fn chaos<'a>(project: &Project, args: impl IntoIterator<Item = &'a str>) -> anyhow::Result<()> {
    process::run(cargo_in(project).args(["build", "--package", PACKAGE, "--bin", PROGRAM]))?;
    let program = project.target_dir.join("debug").join(PROGRAM);
    process::run(Command::new(program).current_dir(&project.root).args(args))
}
