//! The steps for what this machine is not: other systems, and the oldest Rust.

use std::path::Path;
use std::process::Command;

use anyhow::Context as _;

use crate::process::{run, stdout_of, succeeds};
use crate::project::Project;
use crate::steps::cargo_in;
use crate::tools::StepOutcome;

/// Systems without a runner of their own everywhere. Their code is type-checked.
const TARGETS: [&str; 2] = ["aarch64-apple-darwin", "x86_64-unknown-freebsd"];

/// Packages that use system calls which only Linux has.
const ONLY_LINUX: [&str; 2] = ["pipeplug-tests", "pipeplug-bench"];

/// Checks the workspace for the other systems. A target that cannot be obtained is left out, also
/// with `CI=true`: a mirror may lack it.
pub(crate) fn other_systems(project: &Project) -> anyhow::Result<StepOutcome> {
    let mut skipped_parts = Vec::new();
    for target in TARGETS {
        if !has_target(project, target) && !add_target(project, target) {
            let get = format!("rustup target add {target}");
            skipped_parts.push(format!("missing: the target {target} ({get})"));
            continue;
        }
        let mut command = cargo_in(project);
        command.args(["clippy", "--workspace", "--target", target]);
        for package in ONLY_LINUX {
            command.args(["--exclude", package]);
        }
        run(command.args(["--", "-D", "warnings"]))?;
    }
    Ok(StepOutcome::Done { skipped_parts })
}

fn has_target(project: &Project, target: &str) -> bool {
    let mut rustc = Command::new("rustc");
    rustc.args(["--print", "target-libdir", "--target", target]).current_dir(&project.root);
    stdout_of(&mut rustc).is_ok_and(|dir| Path::new(dir.trim()).is_dir())
}

fn add_target(project: &Project, target: &str) -> bool {
    let mut rustup = Command::new("rustup");
    rustup.args(["target", "add", target]).current_dir(&project.root);
    run(&mut rustup).is_ok()
}

/// Checks the workspace with the Rust that `rust-version` promises, whose standard library clippy
/// knows and whose language it does not. Where that Rust cannot be obtained, the step is skipped,
/// also with `CI=true`: a mirror may lack it.
pub(crate) fn oldest_rust(project: &Project) -> anyhow::Result<StepOutcome> {
    let first = project.packages.first().and_then(|package| package.rust_version.as_deref());
    let version = first.context("the workspace has no rust-version")?;
    let rustup = |args: &[&str]| {
        let mut rustup = Command::new("rustup");
        rustup.args(args).current_dir(&project.root);
        // Cargo sets them for what it starts, and they would overrule rustup.
        for name in ["CARGO", "RUSTC", "RUSTDOC", "RUSTUP_TOOLCHAIN"] {
            rustup.env_remove(name);
        }
        rustup
    };
    let install = ["toolchain", "install", version, "--profile", "minimal", "--no-self-update"];
    if !succeeds(&mut rustup(&["run", version, "rustc", "--version"]))
        && run(&mut rustup(&install)).is_err()
    {
        return Ok(StepOutcome::Skipped { why: format!("missing: Rust {version}") });
    }
    let check = ["run", version, "cargo", "check", "--workspace", "--all-targets", "--locked"];
    run(rustup(&check).env("CARGO_TARGET_DIR", project.target_dir.join("oldest-rust")))?;
    Ok(StepOutcome::done())
}
