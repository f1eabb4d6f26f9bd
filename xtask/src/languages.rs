//! `cargo xtask languages`: the libraries for other languages, each by its own `sdk/<language>/check.sh`.
//!
//! A check knows its linter, tests, package and runtime. It takes the program `pipeplug` from `$PIPEPLUG`, and
//! exits with 0 if all is well, with [`MISSING`] and a line that says what is missing and how to get it, or with
//! another status and the name of what failed.
//!
//! Then the matrix: the samples of every language as host with those of every language as guest, Rust among them, and a
//! soak of each guest. How they are built is known to `sdk/<language>/samples.sh FOLDER`, which ends as a check does.

mod ends;
mod matrix;
mod samples;
mod soak;
mod table;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::Instant;

use anyhow::{Context as _, bail};
use clap::Args;

use crate::no_std::executables;
use crate::process::{self, display, status_and_last_lines, stdout_of};
use crate::project::Project;
use crate::steps::cargo_in;
use crate::tools::{self, Presence, StepOutcome};

/// Check the libraries for other languages.
#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(crate) struct LanguagesArgs {
    /// The languages to check, by folder of sdk/ [default: every one]
    #[arg(value_name = "LANGUAGE")]
    names: Vec<String>,
    /// Leave out the checks of each library, and run the matrix of who calls whom
    #[arg(long)]
    matrix: bool,
    /// Path of a `pipeplug` to check with, which has the samples in Rust beside it [default: both are built]
    #[arg(long, value_name = "PATH")]
    pipeplug: Option<PathBuf>,
}

const HELP: &str = "\
Runs sdk/LANGUAGE/check.sh for each: linter, tests, package, conformance as guest and as host. Then the samples of every
language as host with those of every language as guest, Rust among them, 10,000 random calls of a host in Rust to a
guest of each, with cancellations and kills (seed: $SEED, or 1), and how guests and hosts end. What lacks its tools is
skipped and says how to get them; with CI=true it fails.

Examples:
  cargo xtask languages                every language
  cargo xtask languages python go      two of them, and Rust
  cargo xtask languages --matrix       only who calls whom";

/// Exit status of a check that lacks a tool.
const MISSING: i32 = 77;
const CLI: &str = "pipeplug";
/// Package of the program that calls guests at random.
const TESTS: &str = "pipeplug-tests";
/// Samples in Rust that the checks call, and are called by. They are in the folder of `pipeplug`.
const SAMPLES: [&str; 3] = ["echo", "sample1", "greeter"];

/// A library with a check.
#[derive(Debug, PartialEq, Eq)]
struct Language {
    name: String,
    check: PathBuf,
}

/// The step of `cargo xtask ci`: every language.
pub(crate) fn check(project: &Project) -> anyhow::Result<StepOutcome> {
    run(project, &LanguagesArgs { names: Vec::new(), matrix: false, pipeplug: None })
}

pub(crate) fn run(project: &Project, args: &LanguagesArgs) -> anyhow::Result<StepOutcome> {
    let languages = select(find(&project.root.join("sdk"))?, &args.names)?;
    let pipeplug = match &args.pipeplug {
        Some(path) => fs::canonicalize(path)
            .with_context(|| format!("cannot find the pipeplug {}", path.display()))?,
        None => build(project)?,
    };

    let (mut failures, mut skipped_parts) = (Vec::new(), Vec::new());
    if !args.matrix {
        check_each(project, &pipeplug, &languages, &mut failures, &mut skipped_parts);
    }
    println!("\nmatrix: every language as host with every language as guest");
    match matrix::run(project, &pipeplug, &languages) {
        Ok(skipped) => skipped_parts.extend(skipped),
        Err(error) => failures.push(("matrix", error)),
    }
    if !failures.is_empty() {
        let names: Vec<&str> = failures.iter().map(|(name, _)| *name).collect();
        let reports: String =
            failures.iter().map(|(name, error)| format!("\n--- {name}: {error:#}")).collect();
        bail!("languages that failed: {}{reports}", names.join(", "));
    }
    Ok(StepOutcome::Done { skipped_parts })
}

/// Runs the check of each language.
fn check_each<'a>(
    project: &Project,
    pipeplug: &Path,
    languages: &'a [Language],
    failures: &mut Vec<(&'a str, anyhow::Error)>,
    skipped_parts: &mut Vec<String>,
) {
    let mut passed = 0_u32;
    for Language { name, check } in languages {
        let mut command = Command::new(check);
        command.current_dir(&project.root).env("PIPEPLUG", pipeplug);
        println!("\n{name}: $ {}", display(&command));
        let started = Instant::now();
        let result =
            status_and_last_lines(&mut command).and_then(|(status, last)| judge(status, &last));
        let took = started.elapsed().as_secs_f64();
        match result {
            Ok(Presence::Here) => {
                passed += 1;
                println!("{name}: ok in {took:.1} s");
            }
            Ok(Presence::Missing(line)) => {
                println!("{name}: skipped: {line}");
                skipped_parts.push(format!("{name}: {line}"));
            }
            Err(error) => {
                println!("{name}: FAILED in {took:.1} s");
                failures.push((name.as_str(), error));
            }
        }
    }
    println!(
        "\nlanguages: {passed} passed, {} failed, {} skipped",
        failures.len(),
        skipped_parts.len()
    );
}

/// The languages in the order of their names.
///
/// # Errors
/// The folder cannot be read, or has no language with a check.
fn find(root: &Path) -> anyhow::Result<Vec<Language>> {
    let cannot = || format!("cannot list {}", root.display());
    let mut languages = Vec::new();
    for entry in fs::read_dir(root).with_context(cannot)? {
        let entry = entry.with_context(cannot)?;
        let check = entry.path().join("check.sh");
        if check.is_file() {
            languages
                .push(Language { name: entry.file_name().to_string_lossy().into_owned(), check });
        }
    }
    if languages.is_empty() {
        bail!("no folder in {} has a check.sh", root.display());
    }
    languages.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(languages)
}

fn select(mut languages: Vec<Language>, names: &[String]) -> anyhow::Result<Vec<Language>> {
    if let Some(unknown) =
        names.iter().find(|name| !languages.iter().any(|language| language.name == **name))
    {
        let known: Vec<&str> = languages.iter().map(|language| language.name.as_str()).collect();
        bail!("there is no language {unknown}, only {}", known.join(", "));
    }
    languages.retain(|language| names.is_empty() || names.contains(&language.name));
    Ok(languages)
}

/// Builds the CLI, the samples and the soak beside it, and says where the CLI is.
fn build(project: &Project) -> anyhow::Result<PathBuf> {
    let mut command = cargo_in(project);
    command.args(["build", "--message-format=json-render-diagnostics", "-p", CLI]);
    for sample in SAMPLES {
        command.args(["-p", sample]);
    }
    println!("$ {}", display(&command));
    let built = executables(&stdout_of(&mut command)?)?;
    // `--bin` goes for all packages of a command.
    process::run(cargo_in(project).args(["build", "-p", TESTS, "--bin", soak::PROGRAM]))?;
    let cli = built.into_iter().find(|program| program.name == CLI);
    Ok(cli.with_context(|| format!("cargo built no program {CLI}"))?.path)
}

/// Tells how a check ended.
///
/// # Errors
/// It failed, or lacks a tool and `CI=true`.
fn judge(status: ExitStatus, last: &[String]) -> anyhow::Result<Presence> {
    match status.code() {
        Some(0) => Ok(Presence::Here),
        Some(MISSING) => {
            let line = last.iter().rev().find(|line| !line.is_empty());
            tools::missing(
                line.map_or("a tool, and the check does not say which", String::as_str).to_owned(),
            )
        }
        _ => bail!("its check ended with {status}\n{}", last.join("\n")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::LAST_LINES;

    fn ended(script: &str) -> (ExitStatus, Vec<String>) {
        status_and_last_lines(Command::new("sh").args(["-c", script])).unwrap()
    }

    #[test]
    fn a_check_that_fails_is_an_error_with_what_it_printed_last() {
        let (status, last) =
            ended("for i in $(seq 200); do echo $i; done; echo vectors >&2; exit 1");
        let error = judge(status, &last).unwrap_err().to_string();
        assert!(error.contains("exit status: 1") && error.ends_with("\n200\nvectors"), "{error}");
        assert_eq!(last.len(), LAST_LINES);
    }

    #[test]
    fn a_check_without_its_tools_says_what_is_missing() {
        let (status, last) =
            ended("echo trying; echo 'missing: go (apt-get install golang-go)'; echo; exit 77");
        match judge(status, &last) {
            Ok(Presence::Missing(line)) => {
                assert_eq!(line, "missing: go (apt-get install golang-go)")
            }
            // With CI=true.
            other => assert!(other.unwrap_err().to_string().starts_with("missing: go")),
        }
    }

    #[test]
    fn languages_are_folders_with_a_check() {
        let dir = std::env::temp_dir().join(format!("pipeplug-languages-{}", std::process::id()));
        for name in ["go", "c", "empty"] {
            fs::create_dir_all(dir.join(name)).unwrap();
        }
        for name in ["go", "c"] {
            fs::write(dir.join(name).join("check.sh"), "").unwrap();
        }
        let found = find(&dir).unwrap();
        let names: Vec<&str> = found.iter().map(|language| language.name.as_str()).collect();
        assert_eq!(names, ["c", "go"]);
        assert_eq!(select(find(&dir).unwrap(), &["go".to_owned()]).unwrap()[0].name, "go");
        let unknown = select(found, &["java".to_owned()]).unwrap_err().to_string();
        assert!(unknown.contains("no language java, only c, go"), "{unknown}");
        fs::remove_dir_all(&dir).unwrap();
    }
}
