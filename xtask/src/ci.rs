//! `cargo xtask ci`: everything that a change has to pass.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};

use crate::project::Project;
use crate::tools::StepOutcome;
use crate::{
    chaos, dist, fuzz, instructions, languages, models, no_std, platforms, samples, sanitize,
    steps, tidy,
};

/// Run the checks that a change has to pass, all of them or those that are named.
#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(crate) struct CiArgs {
    /// The steps to run, in this order [default: all, cheap ones first]
    #[arg(value_name = "STEP", value_enum)]
    steps: Vec<CiStep>,
    /// Stop at the first step that fails
    #[arg(long)]
    fail_fast: bool,
}

const HELP: &str = "\
A step that needs a tool which is missing here is skipped and says how to get it; with CI=true it fails.
Exits 1 when a step failed. The last line counts the steps: `N passed, N failed, N skipped`.

Examples:
  cargo xtask ci                    every step
  cargo xtask ci fmt tidy clippy    what to run before a commit
  cargo xtask ci --fail-fast        stop at the first failure";

/// A check, with what it runs. The order is that of a full run: cheap ones first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum CiStep {
    /// cargo fmt --check
    Fmt,
    /// cargo xtask tidy: file sizes, links, what is left to do
    Tidy,
    /// cargo deny: layers, licences and sources of dependencies
    Deny,
    /// cargo clippy, warnings are errors
    Clippy,
    /// cargo xtask dist --check: completions and manual pages are current
    Dist,
    /// cargo doc, warnings are errors
    Docs,
    /// cargo clippy for pipeplug-host without its features, with each alone, and without one of the
    /// heavy ones, and for pipeplug-guest without its features
    Features,
    /// cargo clippy for macOS and FreeBSD
    OtherSystems,
    /// cargo check with the Rust of rust-version
    OldestRust,
    /// pipeplug-wire without std and without an allocator
    NoStd,
    /// All tests and doctests (cargo-nextest where it is installed)
    Test,
    /// cargo xtask models: hand-overs between threads, some schedules of each
    Models,
    /// cargo xtask samples
    Samples,
    /// cargo xtask languages: the libraries for other languages
    Languages,
    /// cargo xtask instructions: what the codec takes, under valgrind
    Instructions,
    /// 300 cycles of cargo xtask chaos
    Chaos,
    /// The tests of net, host and guest on their portable Unix code
    Portable,
    /// The tests of net under the thread sanitizer
    Tsan,
    /// Ten seconds of each fuzz target
    Fuzz,
}

/// How a step ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Passed,
    Failed,
    Skipped,
}

/// A row of the summary.
#[derive(Debug)]
struct Row {
    step: CiStep,
    verdict: Verdict,
    took: Duration,
    why: String,
}

/// Runs the steps and prints the summary; a step that fails is in the exit code, not an error.
pub(crate) fn run(project: &Project, args: &CiArgs) -> anyhow::Result<ExitCode> {
    let steps = if args.steps.is_empty() { CiStep::value_variants() } else { &args.steps };
    let mut rows: Vec<Row> = Vec::new();
    for &step in steps {
        let failed = rows.iter().any(|row| row.verdict == Verdict::Failed);
        rows.push(if args.fail_fast && failed {
            Row::not_run(step)
        } else {
            run_step(project, step)
        });
    }
    for row in rows.iter().filter(|row| row.verdict == Verdict::Failed) {
        println!("\n=== {}: failed ===\n{}", row.step, row.why);
    }
    println!("\n{}", table(&rows));
    println!("{}", counts(&rows));
    let failed = rows.iter().any(|row| row.verdict == Verdict::Failed);
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn run_step(project: &Project, step: CiStep) -> Row {
    println!("\n=== {step} ===");
    let started = Instant::now();
    let row = Row::new(step, step.run(project), started.elapsed());
    println!("--- {step}: {} in {:.1} s", row.verdict, row.took.as_secs_f64());
    if let Some(why) = row.why.lines().next() {
        println!("    {why}");
    }
    row
}

impl CiStep {
    fn run(self, project: &Project) -> anyhow::Result<StepOutcome> {
        match self {
            Self::Fmt => steps::fmt(project)?,
            Self::Tidy => tidy::check(project)?,
            Self::Clippy => steps::clippy(project)?,
            Self::Dist => dist::check(project)?,
            Self::Docs => steps::docs(project)?,
            Self::Test => steps::test(project)?,
            Self::Chaos => chaos::check(project)?,
            Self::Portable => steps::portable(project)?,
            Self::Models => models::check(project)?,
            Self::Features => steps::features(project)?,
            Self::Deny => return steps::deny(project),
            Self::OtherSystems => return platforms::other_systems(project),
            Self::OldestRust => return platforms::oldest_rust(project),
            Self::NoStd => return no_std::check(project),
            Self::Samples => return samples::check(project),
            Self::Languages => return languages::check(project),
            Self::Instructions => return instructions::check(project),
            Self::Tsan => return sanitize::check(project),
            Self::Fuzz => return fuzz::check(project),
        }
        Ok(StepOutcome::done())
    }
}

impl Row {
    fn new(step: CiStep, outcome: anyhow::Result<StepOutcome>, took: Duration) -> Self {
        let (verdict, why) = match outcome {
            Ok(StepOutcome::Done { skipped_parts }) if skipped_parts.is_empty() => {
                (Verdict::Passed, String::new())
            }
            Ok(StepOutcome::Done { skipped_parts }) => {
                (Verdict::Passed, format!("skipped in part: {}", skipped_parts.join("; ")))
            }
            Ok(StepOutcome::Skipped { why }) => (Verdict::Skipped, why),
            Err(error) => (Verdict::Failed, format!("{error:#}")),
        };
        Self { step, verdict, took, why }
    }

    fn not_run(step: CiStep) -> Self {
        let why = "an earlier step failed (--fail-fast)".to_owned();
        Self { step, verdict: Verdict::Skipped, took: Duration::ZERO, why }
    }
}

fn table(rows: &[Row]) -> String {
    let mut lines = vec![
        format!("{:<15}{:<9}{:>8}  {}", "step", "result", "seconds", "why").trim_end().to_owned(),
    ];
    for row in rows {
        // The reason may have lines of its own; the first one is the summary of it.
        let why = row.why.lines().next().unwrap_or_default();
        let (step, verdict) = (row.step.to_string(), row.verdict.to_string());
        let line = format!("{step:<15}{verdict:<9}{:>8.1}  {why}", row.took.as_secs_f64());
        lines.push(line.trim_end().to_owned());
    }
    lines.join("\n")
}

fn counts(rows: &[Row]) -> String {
    let count = |verdict| rows.iter().filter(|row| row.verdict == verdict).count();
    format!(
        "{} passed, {} failed, {} skipped",
        count(Verdict::Passed),
        count(Verdict::Failed),
        count(Verdict::Skipped)
    )
}

impl std::fmt::Display for CiStep {
    /// The name that the command line takes.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let value = self.to_possible_value().expect("no step is hidden from the command line");
        f.write_str(value.get_name())
    }
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Passed => "ok",
            Self::Failed => "failed",
            Self::Skipped => "skipped",
        })
    }
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::*;

    fn rows() -> Vec<Row> {
        let second = Duration::from_millis(1250);
        vec![
            Row::new(CiStep::Fmt, Ok(StepOutcome::done()), second),
            Row::new(
                CiStep::NoStd,
                Ok(StepOutcome::Done { skipped_parts: vec!["missing: nm".to_owned()] }),
                second,
            ),
            Row::new(
                CiStep::Fuzz,
                Ok(StepOutcome::Skipped { why: "missing: cargo-fuzz".to_owned() }),
                second,
            ),
            Row::new(
                CiStep::Test,
                Err(anyhow!("two lines\nof reason").context("it broke")),
                second,
            ),
        ]
    }

    #[test]
    fn the_table_has_a_line_for_each_step() {
        let expected = "\
step           result    seconds  why
fmt            ok            1.2
no-std         ok            1.2  skipped in part: missing: nm
fuzz           skipped       1.2  missing: cargo-fuzz
test           failed        1.2  it broke: two lines";
        assert_eq!(table(&rows()), expected);
    }

    #[test]
    fn steps_are_counted_by_how_they_ended() {
        assert_eq!(counts(&rows()), "2 passed, 1 failed, 1 skipped");
        assert_eq!(counts(&[Row::not_run(CiStep::Docs)]), "0 passed, 0 failed, 1 skipped");
    }
}
