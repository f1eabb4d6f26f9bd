//! Measures pipeplug against the raw pipe and against what its users would take instead, in one
//! run.
//!
//! Each figure comes from two real processes, started for it alone by this driver: a subject
//! (`bench-raw`, `bench-subject` and the programs below `peers`) and its plugin. All subjects take
//! turns within a round, in an order that changes, so that a drift of the machine's speed hits all
//! alike; what counts are ratios within one run.

#![forbid(unsafe_code)]

mod driver;
mod figures;
mod machine;
mod peers;
mod plan;
mod print;
mod report;
mod rounds;
mod stats;
mod subjects;
mod work;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::{Args, Parser, Subcommand};

/// Measure pipeplug, the raw pipe, and other plugin and RPC systems, in one run.
#[derive(Debug, Parser)]
#[command(args_conflicts_with_subcommands = true, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    run: RunArgs,
}

const EXAMPLES: &str = "\
Examples:
  cargo xtask bench --quick                      a little of each
  cargo xtask bench --subjects 'pipeplug*,raw-*' --metrics sequential --rounds 3
  cargo xtask bench report                       docs/performance.md, from the last run
  printf 'sequential 0 1000 64\\ngo\\nquit\\n' | strace -f -c bench-subject host pipeplug";

#[derive(Debug, Subcommand)]
enum Command {
    /// Measure, print a table, and write JSON (the default)
    Run(RunArgs),
    /// Write the tables and charts of docs/performance.md from a run's JSON
    Report {
        /// File that `run --out` wrote [default: pipeplug-bench.json in the target directory]
        json: Option<PathBuf>,
        /// The folder with performance.md
        #[arg(long, default_value = "docs")]
        docs: PathBuf,
    },
    /// Keep one CPU busy until killed; started by the benchmark
    #[command(hide = true)]
    Burn,
}

#[derive(Debug, Args)]
struct RunArgs {
    /// A little of each, in under two minutes
    #[arg(long)]
    quick: bool,
    /// How often everything is measured; medians count [default: 5, with --quick 2]
    #[arg(long)]
    rounds: Option<u32>,
    /// Only these subjects; a name may end in * [default: all]
    #[arg(long, value_delimiter = ',')]
    subjects: Vec<String>,
    /// Only these metrics, by the word before the dot; a name may end in * [default: all]
    #[arg(long, value_delimiter = ',')]
    metrics: Vec<String>,
    /// The order of the subjects within the rounds follows from this number [default: the clock]
    #[arg(long)]
    seed: Option<u64>,
    /// Where the figures go [default: pipeplug-bench.json in the target directory]
    #[arg(long)]
    out: Option<PathBuf>,
}

impl RunArgs {
    /// The command that measures the same: where the figures go is no part of it.
    fn command(&self) -> String {
        let mut command = "cargo xtask bench".to_owned();
        if self.quick {
            command.push_str(" --quick");
        }
        if let Some(rounds) = self.rounds {
            command.push_str(&format!(" --rounds {rounds}"));
        }
        for (name, values) in [("subjects", &self.subjects), ("metrics", &self.metrics)] {
            if !values.is_empty() {
                command.push_str(&format!(" --{name} {}", values.join(",")));
            }
        }
        command
    }
}

fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> Result<()> {
    match cli.command {
        None => measure(cli.run),
        Some(Command::Run(args)) => measure(args),
        Some(Command::Report { json, docs }) => {
            report::write(&json.map_or_else(default_json, Ok)?, &docs)
        }
        Some(Command::Burn) => driver::burn(),
    }
}

fn measure(args: RunArgs) -> Result<()> {
    let command = args.command();
    let document = rounds::run(&rounds::Request {
        command,
        size: if args.quick { plan::Size::Quick } else { plan::Size::Full },
        rounds: args.rounds,
        subjects: args.subjects,
        metrics: args.metrics,
        seed: args.seed,
    })?;
    print::table(&document);
    let path = args.out.map_or_else(default_json, Ok)?;
    std::fs::write(&path, document.to_json()?)
        .with_context(|| format!("cannot write {}", path.display()))?;
    println!("written: {}", path.display());
    Ok(())
}

/// In the target directory, which is two levels above this program.
fn default_json() -> Result<PathBuf> {
    let this = std::env::current_exe().context("where is this program?")?;
    let target =
        this.ancestors().nth(2).with_context(|| format!("{} is in no folder", this.display()))?;
    Ok(target.join("pipeplug-bench.json"))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn run_is_what_is_meant_where_nothing_is_said() {
        let cli = Cli::try_parse_from(["pipeplug-bench", "--quick", "--subjects", "a,b"]).unwrap();
        assert!(cli.command.is_none() && cli.run.quick);
        assert_eq!(cli.run.subjects, ["a", "b"]);
        assert_eq!(cli.run.command(), "cargo xtask bench --quick --subjects a,b");
    }
}
