//! `cargo xtask instructions`: how many instructions the codec takes, against budgets.
//!
//! Times differ from run to run and from machine to machine; the instructions that callgrind counts
//! do not, as long as compiler and target are the same. So those are written down next to the
//! budgets.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail};
use clap::Args;
use serde::{Deserialize, Serialize};

use crate::no_std::executables;
use crate::process::stdout_of;
use crate::project::Project;
use crate::steps::cargo_in;
use crate::tools::{self, Presence, StepOutcome, Tool};

/// Count the codec's instructions and compare them with their budgets.
#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(crate) struct InstructionsArgs {
    /// Make the counts of now the budgets
    #[arg(long)]
    update: bool,
}

const HELP: &str = "\
Needs valgrind, and the compiler that the budgets were counted with. They stand, with their tolerance, in
crates/pipeplug-wire/benches/instructions.json; a count that is clearly above or below its budget fails.

Examples:
  cargo xtask instructions             compare
  cargo xtask instructions --update    after a change that is worth its instructions, or saves some";

const BUDGETS: &str = "crates/pipeplug-wire/benches/instructions.json";
const UPDATE: &str = "cargo xtask instructions --update";
/// Enough that the loop around a round does not show in its count.
const ROUNDS: u64 = 1000;
/// The function of the benchmarks that is counted, with all that it calls; mangled or not.
const COUNTED: &str = "*instructions*counted*";
/// The C library picks its memcpy and its like by the processor; without these it takes the one for
/// every x86-64.
const TUNABLES: &str = "glibc.cpu.hwcaps=-AVX,-AVX2,-AVX_Fast_Unaligned_Load,-ERMS,-FSRM,-SSSE3";

/// The file of budgets.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Budgets {
    #[serde(flatten)]
    compiler: Compiler,
    tolerance_percent: u64,
    /// For a round of each benchmark.
    instructions: BTreeMap<String, u64>,
}

/// Compiler and target. They decide which instructions there are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Compiler {
    rustc: String,
    target: String,
}

/// Fault of a benchmark's count.
#[derive(Debug, PartialEq, Eq)]
enum Finding {
    Above { name: String, count: u64, budget: u64 },
    Below { name: String, count: u64, budget: u64 },
    NoBudget { name: String, count: u64 },
    NoBenchmark { name: String },
}

pub(crate) fn run(project: &Project, args: &InstructionsArgs) -> anyhow::Result<StepOutcome> {
    if !args.update {
        return check(project);
    }
    if let Presence::Missing(why) = tools::require(&[Tool::Valgrind])? {
        bail!(why);
    }
    let file = project.root.join(BUDGETS);
    let budgets = Budgets {
        compiler: Compiler::current()?,
        tolerance_percent: Budgets::read(&file)?.tolerance_percent,
        instructions: count_all(project)?,
    };
    let json =
        serde_json::to_string_pretty(&budgets).context("cannot write the budgets as JSON")?;
    fs::write(&file, json + "\n").with_context(|| format!("cannot write {}", file.display()))?;
    println!("{BUDGETS} holds {} budgets", budgets.instructions.len());
    Ok(StepOutcome::done())
}

/// The step of `cargo xtask ci`.
///
/// # Errors
/// A count is not within the tolerance of its budget, or something could not be run.
pub(crate) fn check(project: &Project) -> anyhow::Result<StepOutcome> {
    let budgets = Budgets::read(&project.root.join(BUDGETS))?;
    let current = Compiler::current()?;
    let mut present = tools::require(&[Tool::Valgrind])?;
    if present == Presence::Here && current != budgets.compiler {
        let Compiler { rustc, target } = &budgets.compiler;
        present = tools::missing(format!(
            "the budgets are for rustc {rustc} on {target}, this is {current} \
             (rustup run {rustc} cargo xtask instructions, or new budgets: {UPDATE})"
        ))?;
    }
    if let Presence::Missing(why) = present {
        return Ok(StepOutcome::Skipped { why });
    }
    let counts = count_all(project)?;
    println!("{}", budgets.table(&counts));
    let findings = budgets.compare(&counts);
    if findings.is_empty() {
        return Ok(StepOutcome::done());
    }
    let lines: Vec<String> = findings.iter().map(|finding| format!("\n    {finding}")).collect();
    bail!(
        "{} of {} counts are off their budgets, if that is as it should be: {UPDATE}{}",
        findings.len(),
        counts.len(),
        lines.concat()
    );
}

impl Budgets {
    fn read(file: &Path) -> anyhow::Result<Self> {
        let json =
            fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
        serde_json::from_str(&json)
            .with_context(|| format!("{} is no file of budgets", file.display()))
    }

    fn compare(&self, counts: &BTreeMap<String, u64>) -> Vec<Finding> {
        let judged = counts.iter().filter_map(|(name, &count)| {
            let name = name.clone();
            let Some(&budget) = self.instructions.get(&name) else {
                return Some(Finding::NoBudget { name, count });
            };
            if count.abs_diff(budget) * 100 <= budget * self.tolerance_percent {
                None
            } else if count > budget {
                Some(Finding::Above { name, count, budget })
            } else {
                Some(Finding::Below { name, count, budget })
            }
        });
        let gone = self.instructions.keys().filter(|name| !counts.contains_key(*name));
        judged.chain(gone.map(|name| Finding::NoBenchmark { name: name.clone() })).collect()
    }

    fn table(&self, counts: &BTreeMap<String, u64>) -> String {
        let mut lines =
            vec![format!("{:<28}{:>8}{:>8}  change", "instructions", "count", "budget")];
        for (name, &count) in counts {
            let Some(&budget) = self.instructions.get(name) else { continue };
            lines.push(format!("{name:<28}{count:>8}{budget:>8}  {}", change(count, budget)));
        }
        lines.join("\n")
    }
}

impl Compiler {
    /// The one that cargo runs in this environment.
    fn current() -> anyhow::Result<Self> {
        let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
        Self::parse(&stdout_of(Command::new(rustc).arg("-vV"))?)
    }

    fn parse(version: &str) -> anyhow::Result<Self> {
        let field = |name: &str| {
            let value =
                version.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
            value.map(str::to_owned).with_context(|| format!("`rustc -vV` prints no {name}"))
        };
        Ok(Self { rustc: field("release")?, target: field("host")? })
    }
}

/// Counts the instructions of a round of each benchmark.
fn count_all(project: &Project) -> anyhow::Result<BTreeMap<String, u64>> {
    let program = build(project)?;
    let names = stdout_of(Command::new(&program).arg("--list"))?;
    names.lines().map(|name| Ok((name.to_owned(), count(project, &program, name)?))).collect()
}

fn build(project: &Project) -> anyhow::Result<PathBuf> {
    let mut cargo = cargo_in(project);
    cargo.args(["bench", "--package", "pipeplug-wire", "--bench", "instructions", "--no-run"]);
    cargo.arg("--message-format=json-render-diagnostics");
    // Flags of the user's make other instructions.
    cargo.env_remove("RUSTFLAGS").env_remove("CARGO_ENCODED_RUSTFLAGS");
    let built = executables(&stdout_of(&mut cargo)?)?;
    let program = built.into_iter().find(|program| program.name == "instructions");
    Ok(program.context("cargo built no program called instructions")?.path)
}

fn count(project: &Project, program: &Path, name: &str) -> anyhow::Result<u64> {
    let profile = project.target_dir.join(format!("callgrind.{name}"));
    let mut valgrind = Command::new("valgrind");
    valgrind.args(["-q", "--tool=callgrind"]).arg(format!("--toggle-collect={COUNTED}"));
    valgrind.arg(format!("--callgrind-out-file={}", profile.display()));
    valgrind.arg(program).arg(name).arg(ROUNDS.to_string());
    stdout_of(valgrind.env("GLIBC_TUNABLES", TUNABLES))?;
    let text = fs::read_to_string(&profile)
        .with_context(|| format!("cannot read {}", profile.display()))?;
    let total = total(&text).with_context(|| format!("{} holds no total", profile.display()))?;
    if total < ROUNDS {
        bail!("callgrind counted {total} instructions of {name}: it does not see {COUNTED}");
    }
    Ok((total + ROUNDS / 2) / ROUNDS)
}

/// All instructions in a profile of callgrind's.
fn total(profile: &str) -> Option<u64> {
    profile.lines().find_map(|line| line.strip_prefix("totals:")?.trim().parse().ok())
}

/// In per cent, signed.
fn change(count: u64, budget: u64) -> String {
    // Counts are far below what an f64 holds exactly.
    format!("{:+.1} %", (count as f64 / budget as f64 - 1.0) * 100.0)
}

impl fmt::Display for Compiler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rustc {} on {}", self.rustc, self.target)
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Above { name, count, budget } => {
                let change = change(*count, *budget);
                write!(f, "{name} takes {count} instructions, its budget is {budget} ({change})")
            }
            Self::Below { name, count, budget } => {
                let change = change(*count, *budget);
                write!(
                    f,
                    "{name} takes only {count} instructions, its budget is {budget} ({change}) and \
                     can be lowered"
                )
            }
            Self::NoBudget { name, count } => {
                write!(f, "{name} takes {count} instructions and has no budget")
            }
            Self::NoBenchmark { name } => {
                write!(f, "{name} has a budget, but there is no such benchmark")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(of: &[(&str, u64)]) -> BTreeMap<String, u64> {
        of.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect()
    }

    fn budgets(of: &[(&str, u64)]) -> Budgets {
        let compiler =
            Compiler { rustc: "1.95.0".to_owned(), target: "x86_64-unknown-linux-gnu".to_owned() };
        Budgets { compiler, tolerance_percent: 3, instructions: counts(of) }
    }

    #[test]
    fn what_is_within_the_tolerance_passes() {
        let budgets = budgets(&[("a", 200), ("b", 200), ("c", 200)]);
        assert_eq!(budgets.compare(&counts(&[("a", 200), ("b", 206), ("c", 194)])), []);
    }

    #[test]
    fn both_directions_are_told_with_both_counts() {
        let findings =
            budgets(&[("a", 200), ("b", 200)]).compare(&counts(&[("a", 207), ("b", 193)]));
        let lines: Vec<String> = findings.iter().map(Finding::to_string).collect();
        let expected = [
            "a takes 207 instructions, its budget is 200 (+3.5 %)",
            "b takes only 193 instructions, its budget is 200 (-3.5 %) and can be lowered",
        ];
        assert_eq!(lines, expected);
    }

    #[test]
    fn a_benchmark_without_a_budget_is_found_and_the_other_way_round() {
        let findings = budgets(&[("old", 200)]).compare(&counts(&[("new", 100)]));
        let expected = [
            Finding::NoBudget { name: "new".to_owned(), count: 100 },
            Finding::NoBenchmark { name: "old".to_owned() },
        ];
        assert_eq!(findings, expected);
    }

    #[test]
    fn the_total_of_a_profile_is_found() {
        assert_eq!(total("events: Ir\nsummary: 7\nfn=(1)\n1 41\n\ntotals: 42\n"), Some(42));
        assert_eq!(total("events: Ir\n"), None);
    }

    #[test]
    fn the_compiler_is_known_by_release_and_target() {
        let version = "rustc 1.95.0 (59807616e 2026-04-14)\nhost: \
                       x86_64-unknown-linux-gnu\nrelease: 1.95.0\n";
        assert_eq!(Compiler::parse(version).unwrap(), budgets(&[]).compiler);
        assert!(Compiler::parse("rustc 1.95.0").is_err());
    }

    #[test]
    fn the_file_of_budgets_is_read_as_it_is_written() {
        let budgets = budgets(&[("a", 200)]);
        let json = serde_json::to_string(&budgets).unwrap();
        assert_eq!(serde_json::from_str::<Budgets>(&json).unwrap(), budgets);
    }
}
