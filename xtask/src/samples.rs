//! `cargo xtask samples`: builds the samples, runs each, and checks what it prints.
//!
//! A sample is a folder `samples/<name>/` with a package whose manifest says how to run it; the
//! fields are those of [`RunSpec`].

pub(crate) mod bounded;
mod spec;

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use clap::Args;

use self::bounded::Ended;
use self::spec::{Places, RunSpec};
use crate::no_std::executables;
use crate::process::{display, stdout_of};
use crate::project::{Package, Project};
use crate::steps::cargo_in;
use crate::tools::{self, Presence, StepOutcome};

/// Build the samples, run them, and check what they print.
#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(crate) struct SamplesArgs {
    /// The samples to run, by folder [default: every one]
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    /// How often each run is repeated
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    repeat: u32,
}

const HELP: &str = "\
Examples:
  cargo xtask samples                       every sample once
  cargo xtask samples echo --repeat 100     one sample, a hundred times";

/// How long one run may take before it is killed.
const TIME_LIMIT: Duration = Duration::from_secs(60);

const CLI: &str = "pipeplug";

/// A sample and how to run it.
#[derive(Debug)]
struct Sample {
    name: String,
    package: String,
    dir: PathBuf,
    runs: Vec<RunSpec>,
}

/// The step of `cargo xtask ci`: every sample once.
pub(crate) fn check(project: &Project) -> anyhow::Result<StepOutcome> {
    run(project, &SamplesArgs { names: Vec::new(), repeat: 1 })
}

pub(crate) fn run(project: &Project, args: &SamplesArgs) -> anyhow::Result<StepOutcome> {
    let samples = select(find(project)?, &args.names)?;
    let places = build(project, &samples)?;

    let (mut passed, mut failed, mut skipped_parts) = (0_u32, Vec::new(), Vec::new());
    for sample in &samples {
        for (index, spec) in sample.runs.iter().enumerate() {
            let title = format!("{} [{}/{}]", sample.name, index + 1, sample.runs.len());
            let result = match tools::require(&spec.needs) {
                Ok(Presence::Missing(line)) => {
                    println!("{title}: skipped: {line}");
                    skipped_parts.push(format!("{title}: {line}"));
                    continue;
                }
                Ok(Presence::Here) => run_repeatedly(
                    project,
                    &places.of_sample(&sample.dir),
                    spec,
                    args.repeat,
                    &title,
                ),
                Err(error) => Err(error),
            };
            match result {
                Ok(()) => passed += 1,
                Err(error) => {
                    println!("{title}: FAILED\n{error:#}");
                    failed.push(title);
                }
            }
        }
    }
    println!("samples: {passed} passed, {} failed, {} skipped", failed.len(), skipped_parts.len());
    if !failed.is_empty() {
        bail!("runs that failed: {}", failed.join(", "));
    }
    Ok(StepOutcome::Done { skipped_parts })
}

/// The samples in the order of their names.
///
/// # Errors
/// There is none, or one that is no workspace member, has no runs, or runs that cannot be read.
fn find(project: &Project) -> anyhow::Result<Vec<Sample>> {
    let root = project.root.join("samples");
    let mut dirs = Vec::new();
    for entry in fs::read_dir(&root).with_context(|| format!("cannot list {}", root.display()))? {
        let entry = entry.with_context(|| format!("cannot list {}", root.display()))?;
        if entry
            .file_type()
            .with_context(|| format!("cannot look at {}", entry.path().display()))?
            .is_dir()
        {
            dirs.push(entry.path());
        }
    }
    dirs.sort();
    if dirs.is_empty() {
        bail!("there is no sample in {}", root.display());
    }
    dirs.into_iter()
        .map(|dir| {
            let package = project.packages.iter().find(|package| package.dir() == dir);
            let package = package.with_context(|| {
                format!("{} is no member of the workspace", project.relative(&dir).display())
            })?;
            Sample::of(package)
        })
        .collect()
}

impl Sample {
    fn of(package: &Package) -> anyhow::Result<Self> {
        let dir = package.dir().to_owned();
        let name = dir
            .file_name()
            .map_or_else(|| package.name.clone(), |name| name.to_string_lossy().into_owned());
        let runs = spec::runs(&package.metadata).with_context(|| {
            format!("{}: [package.metadata.sample]", package.manifest_path.display())
        })?;
        Ok(Self { name, package: package.name.clone(), dir, runs })
    }
}

fn select(mut samples: Vec<Sample>, names: &[String]) -> anyhow::Result<Vec<Sample>> {
    if let Some(unknown) =
        names.iter().find(|name| !samples.iter().any(|sample| sample.name == **name))
    {
        let known: Vec<&str> = samples.iter().map(|sample| sample.name.as_str()).collect();
        bail!("there is no sample {unknown}, only {}", known.join(", "));
    }
    samples.retain(|sample| names.is_empty() || names.contains(&sample.name));
    Ok(samples)
}

/// Builds the CLI and the samples, all at once, and says where the programs are.
fn build(project: &Project, samples: &[Sample]) -> anyhow::Result<Places> {
    let mut command = cargo_in(project);
    command.args(["build", "--message-format=json-render-diagnostics", "-p", CLI]);
    for sample in samples {
        command.args(["-p", &sample.package]);
    }
    println!("$ {}", display(&command));
    let built = executables(&stdout_of(&mut command)?)?;
    let bins: BTreeMap<String, PathBuf> =
        built.into_iter().map(|bin| (bin.name, bin.path)).collect();
    let cli = bins.get(CLI).with_context(|| format!("cargo built no program {CLI}"))?;
    let bin_dir =
        cli.parent().with_context(|| format!("{} is in no folder", cli.display()))?.to_owned();
    Ok(Places { bins, bin_dir, dir: PathBuf::new() })
}

fn run_repeatedly(
    project: &Project,
    places: &Places,
    spec: &RunSpec,
    repeat: u32,
    title: &str,
) -> anyhow::Result<()> {
    let spec = spec.expand(places)?;
    let program = places.bin(&spec.bin)?;
    let line = std::iter::once(&spec.bin)
        .chain(&spec.args)
        .map(String::as_str)
        .collect::<Vec<_>>()
        .join(" ");
    let started = Instant::now();
    for round in 1..=repeat {
        let mut command = Command::new(program);
        command.args(&spec.args).current_dir(&project.root);
        // What is expected must not depend on who runs it.
        for (name, _) in env::vars_os() {
            if name == "RUST_LOG" || name.to_string_lossy().starts_with("PIPEPLUG_") {
                command.env_remove(name);
            }
        }
        command.envs(&spec.env);
        let ended =
            bounded::run(&mut command, spec.stdin.as_deref().map(str::as_bytes), TIME_LIMIT)
                .with_context(|| format!("cannot run {}", program.display()))?;
        if let Some(complaint) = judge(&spec, &ended) {
            bail!("$ {line}\n(round {round} of {repeat})\n{complaint}");
        }
    }
    let times = if repeat == 1 { String::new() } else { format!(" {repeat} times") };
    println!("{title}: ok{times} in {:.2} s: {line}", started.elapsed().as_secs_f64());
    Ok(())
}

/// Returns what is wrong with how a run ended, with everything that it printed, or nothing.
fn judge(spec: &RunSpec, ended: &Ended) -> Option<String> {
    let mut complaints = Vec::new();
    let (stdout, stderr) =
        (String::from_utf8_lossy(&ended.stdout), String::from_utf8_lossy(&ended.stderr));
    match ended.status {
        None => complaints
            .push(format!("did not end within {} s and was killed", ended.limit.as_secs_f64())),
        Some(status) if status.code() != Some(spec.exit) => {
            complaints.push(format!("expected exit status {}, got {status}", spec.exit));
        }
        Some(_) if ended.left_behind => {
            complaints.push(
                "ended, but a process that it started lives on and holds its stdout or stderr"
                    .to_owned(),
            );
        }
        Some(_) => {}
    }
    if let Some(expected) = spec.stdout.as_deref().filter(|expected| *expected != stdout) {
        complaints
            .push(format!("expected this on stdout, and nothing else:\n{}", indent(expected)));
    }
    for (name, expected, got) in
        [("stdout", &spec.stdout_contains, &stdout), ("stderr", &spec.stderr_contains, &stderr)]
    {
        for part in expected.iter().filter(|part| !got.contains(part.as_str())) {
            complaints.push(format!("expected this somewhere on {name}:\n{}", indent(part)));
        }
    }
    if complaints.is_empty() {
        return None;
    }
    complaints.push(format!(
        "got on stdout:\n{}\ngot on stderr:\n{}",
        indent(&stdout),
        indent(&stderr)
    ));
    Some(complaints.join("\n"))
}

/// The text as it is shown in a report.
pub(crate) fn indent(text: &str) -> String {
    if text.is_empty() {
        return "  (nothing)".to_owned();
    }
    let lines: Vec<String> = text.lines().map(|line| format!("  | {line}")).collect();
    let end = if text.ends_with('\n') { "" } else { "\n  (no newline at the end)" };
    format!("{}{end}", lines.join("\n"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn spec(json: serde_json::Value) -> RunSpec {
        spec::runs(&json!({ "sample": { "runs": [json] } })).unwrap().remove(0)
    }

    fn ended(script: &str) -> Ended {
        bounded::run(Command::new("sh").args(["-c", script]), None, TIME_LIMIT).unwrap()
    }

    #[test]
    fn a_run_that_does_what_is_expected_passes() {
        let spec = spec(json!({ "args": [], "stdout": "a\nb\n", "stdout-contains": ["b"],
            "stderr-contains": ["warn"], "exit": 3 }));
        assert_eq!(judge(&spec, &ended("echo a; echo b; echo warning >&2; exit 3")), None);
    }

    #[test]
    fn another_exit_status_is_a_failure() {
        let complaint = judge(&spec(json!({ "args": [] })), &ended("exit 3")).unwrap();
        assert!(complaint.starts_with("expected exit status 0, got exit status: 3"), "{complaint}");
        let complaint = judge(&spec(json!({ "args": [] })), &ended("kill -KILL $$")).unwrap();
        assert!(complaint.contains("signal: 9"), "{complaint}");
    }

    #[test]
    fn a_missing_newline_is_a_failure_that_can_be_seen() {
        let complaint =
            judge(&spec(json!({ "args": [], "stdout": "a\n" })), &ended("printf a")).unwrap();
        assert!(complaint.contains("no newline at the end"), "{complaint}");
    }

    #[test]
    fn what_is_not_said_is_a_failure_that_shows_both() {
        let spec = spec(json!({ "args": [], "stdout-contains": ["x"], "stderr-contains": ["y"] }));
        let complaint = judge(&spec, &ended("echo out; echo err >&2")).unwrap();
        for part in ["somewhere on stdout:\n  | x", "somewhere on stderr:\n  | y", "| out", "| err"]
        {
            assert!(complaint.contains(part), "{part} is missing in: {complaint}");
        }
    }

    #[test]
    fn samples_are_selected_by_folder() {
        let sample = |name: &str| Sample {
            name: name.to_owned(),
            package: format!("sample-{name}"),
            dir: PathBuf::new(),
            runs: Vec::new(),
        };
        let both = || vec![sample("a"), sample("b")];
        assert_eq!(select(both(), &[]).unwrap().len(), 2);
        assert_eq!(select(both(), &["b".to_owned()]).unwrap()[0].name, "b");
        assert!(select(both(), &["c".to_owned()]).unwrap_err().to_string().contains("only a, b"));
    }
}
