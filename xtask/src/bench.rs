//! `cargo xtask bench`: the benchmark, in release mode.

use anyhow::bail;
use clap::Args;

use crate::process;
use crate::project::Project;
use crate::steps::cargo_in;

const PACKAGE: &str = "pipeplug-bench";

/// The plugins whose start is measured: the one that does nothing else than to answer, and
/// pipeplug's.
const STATIC: [&str; 2] = ["bench-answer", "bench-guest-static"];

/// Run the benchmarks; all arguments go to them.
#[derive(Debug, Args)]
#[command(disable_help_flag = true)]
pub(crate) struct BenchArgs {
    /// Arguments of the benchmarks; --help shows them
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) args: Vec<String>,
}

pub(crate) fn run(project: &Project, args: &BenchArgs) -> anyhow::Result<()> {
    if project.package(PACKAGE).is_none() {
        bail!("the workspace has no package {PACKAGE}, so there is nothing to measure");
    }
    let package = ["--release", "--package", PACKAGE];
    process::run(cargo_in(project).arg("build").args(package).arg("--bins"))?;
    for name in STATIC {
        // The least that a process costs has no dynamic linker in it.
        let linked_statically = ["--bin", name, "--", "-C", "target-feature=+crt-static"];
        process::run(cargo_in(project).arg("rustc").args(package).args(linked_statically))?;
    }
    let driver = project.target_dir.join("release").join(PACKAGE);
    process::run(std::process::Command::new(driver).current_dir(&project.root).args(&args.args))
}
