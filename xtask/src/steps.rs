//! The steps of `cargo xtask ci` that are a cargo command or two.

use std::collections::BTreeMap;
use std::env;
use std::process::Command;

use anyhow::Context as _;

use crate::process::{cargo, run};
use crate::project::Project;
use crate::tools::{self, Presence, StepOutcome, Tool};

/// The packages that have a second implementation behind `--cfg pipeplug_portable`.
const PORTABLE: [&str; 3] = ["pipeplug-net", "pipeplug-host", "pipeplug-guest"];

/// Features of pipeplug-host that hosts leave out for their weight, with all others on.
const HEAVY: [&str; 2] = ["sandbox", "verify"];

/// The packages with a `Cargo.toml` of their own that the workspace excludes.
pub(crate) const EXCLUDED: [&str; 4] = [
    "crates/pipeplug-bench/peers/rust",
    "crates/pipeplug-net/fuzz",
    "crates/pipeplug-wire/fuzz",
    "crates/pipeplug-wire/no-std-proof",
];

pub(crate) fn fmt(project: &Project) -> anyhow::Result<()> {
    run(cargo_in(project).args(["fmt", "--all", "--", "--check"]))?;
    for dir in EXCLUDED {
        let manifest = format!("{dir}/Cargo.toml");
        run(cargo_in(project).args([
            "fmt",
            "--all",
            "--manifest-path",
            &manifest,
            "--",
            "--check",
        ]))?;
    }
    Ok(())
}

pub(crate) fn clippy(project: &Project) -> anyhow::Result<()> {
    run(cargo_in(project).args([
        "clippy",
        "--workspace",
        "--all-targets",
        "--all-features",
        "--",
        "-D",
        "warnings",
    ]))
}

/// Dependencies, by the rules of `deny.toml`. Advisories are no part of it: they need the network.
pub(crate) fn deny(project: &Project) -> anyhow::Result<StepOutcome> {
    if let Presence::Missing(why) = tools::require(&[Tool::CargoDeny])? {
        return Ok(StepOutcome::Skipped { why });
    }
    run(cargo_in(project).args(["deny", "check", "bans", "licenses", "sources"]))?;
    Ok(StepOutcome::done())
}

/// pipeplug-host without its features, with each of them alone, and with all but one of the
/// heavy ones and what needs that; pipeplug-guest without its features.
pub(crate) fn features(project: &Project) -> anyhow::Result<()> {
    let host = "pipeplug-host";
    let package = project.package(host).with_context(|| format!("{host} is no member"))?;
    let features = || package.features.keys().filter(|name| *name != "default");
    let mut sets: Vec<String> = [String::new()].into_iter().chain(features().cloned()).collect();
    for left_out in HEAVY {
        package.features.get(left_out).with_context(|| format!("{host} has no {left_out}"))?;
        let without = |name: &&String| !enables(&package.features, name, left_out);
        sets.push(features().filter(without).cloned().collect::<Vec<_>>().join(","));
    }
    for set in sets {
        let args = ["clippy", "-p", host, "--no-default-features", "--features", &set];
        run(cargo_in(project).args(args).args(["--", "-D", "warnings"]))?;
    }
    // All other steps have it with its features.
    let guest = ["clippy", "-p", "pipeplug-guest", "--no-default-features"];
    run(cargo_in(project).args(guest).args(["--", "-D", "warnings"]))?;
    Ok(())
}

/// Tells whether a feature is another one, or enables it.
fn enables(features: &BTreeMap<String, Vec<String>>, name: &str, other: &str) -> bool {
    name == other
        || features
            .get(name)
            .is_some_and(|enabled| enabled.iter().any(|it| enables(features, it, other)))
}

pub(crate) fn docs(project: &Project) -> anyhow::Result<()> {
    run(cargo_in(project).env("RUSTDOCFLAGS", "-D warnings").args([
        "doc",
        "--workspace",
        "--no-deps",
    ]))
}

pub(crate) fn test(project: &Project) -> anyhow::Result<()> {
    if !tools::has_nextest() {
        // Runs the doctests as well.
        return run(cargo_in(project).args([
            "test",
            "--workspace",
            "--all-features",
            "--no-fail-fast",
        ]));
    }
    let args = ["--workspace", "--all-features", "--no-fail-fast"];
    let tests = run(cargo_in(project).args(["nextest", "run"]).args(args));
    let doctests = run(cargo_in(project).args(["test", "--doc"]).args(args));
    tests.and(doctests)
}

pub(crate) fn portable(project: &Project) -> anyhow::Result<()> {
    let mut command = cargo_with(project, "--cfg pipeplug_portable", "portable");
    if tools::has_nextest() {
        command.args(["nextest", "run"]);
    } else {
        command.args(["test"]);
    }
    command.arg("--no-fail-fast");
    for package in PORTABLE {
        command.args(["-p", package]);
    }
    run(&mut command)
}

/// Cargo, in the project's root, with flags for the compiler and a folder of its own in the target
/// directory: else every change between two sets of flags would build everything anew.
pub(crate) fn cargo_with(project: &Project, flags: &str, target: &str) -> Command {
    let mut command = cargo_in(project);
    set_flags(&mut command, project, flags, target);
    command
}

/// As for [`cargo_with`], where it is another cargo.
pub(crate) fn set_flags(command: &mut Command, project: &Project, flags: &str, target: &str) {
    command.env("RUSTFLAGS", rustflags(env::var("RUSTFLAGS").ok().as_deref(), flags));
    // Where it is set, cargo reads it in place of RUSTFLAGS.
    command.env_remove("CARGO_ENCODED_RUSTFLAGS");
    command.env("CARGO_TARGET_DIR", project.target_dir.join(target));
}

/// Cargo, in the project's root.
pub(crate) fn cargo_in(project: &Project) -> Command {
    let mut command = cargo();
    command.current_dir(&project.root);
    command
}

fn rustflags(inherited: Option<&str>, ours: &str) -> String {
    match inherited {
        Some(inherited) if !inherited.trim().is_empty() => format!("{inherited} {ours}"),
        _ => ours.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_that_the_user_set_stay() {
        assert_eq!(
            rustflags(Some("-C target-cpu=native"), "--cfg x"),
            "-C target-cpu=native --cfg x"
        );
        assert_eq!(rustflags(Some(" "), "--cfg x"), "--cfg x");
        assert_eq!(rustflags(None, "--cfg x"), "--cfg x");
    }
}
