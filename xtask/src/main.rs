//! The project's own commands, started with `cargo xtask`.
//!
//! One file a command; what several of them need stands in `project` (what `cargo metadata` says),
//! `process` (child processes) and `tools` (what happens when a tool is missing).

#![forbid(unsafe_code)]

mod bench;
mod chaos;
mod ci;
mod dist;
mod fuzz;
mod instructions;
mod languages;
mod models;
mod no_std;
mod platforms;
mod process;
mod project;
mod samples;
mod sanitize;
mod steps;
mod tidy;
mod tools;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::project::Project;

/// The project's own commands.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Examples:
  cargo xtask ci                            everything that a change has to pass
  cargo xtask ci fmt clippy tidy            three steps of it
  cargo xtask dist                          new completions and manual pages
  cargo xtask samples echo --repeat 50      one sample, fifty times
  cargo xtask languages python              the library for a language
  cargo xtask chaos --cycles 10000          what is lost or left where processes break
  cargo xtask fuzz --seconds 3600           an hour for every fuzz target
  cargo xtask models                        thousands of schedules of each model
  cargo xtask sanitize address              the tests, with each access to memory checked
  cargo xtask instructions --update         new budgets for the codec's instructions
  cargo xtask bench -- --help               what the benchmarks take";

#[derive(Debug, Subcommand)]
enum Command {
    Ci(ci::CiArgs),
    Tidy(tidy::TidyArgs),
    Dist(dist::DistArgs),
    Samples(samples::SamplesArgs),
    Languages(languages::LanguagesArgs),
    Chaos(chaos::ChaosArgs),
    Fuzz(fuzz::FuzzArgs),
    Models(models::ModelsArgs),
    Sanitize(sanitize::SanitizeArgs),
    Instructions(instructions::InstructionsArgs),
    Bench(bench::BenchArgs),
}

fn main() -> ExitCode {
    match dispatch(Cli::parse().command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn dispatch(command: Command) -> anyhow::Result<ExitCode> {
    let project = Project::load()?;
    match command {
        Command::Ci(args) => return ci::run(&project, &args),
        Command::Tidy(_) => tidy::check(&project)?,
        Command::Dist(args) => dist::run_command(&project, &args)?,
        Command::Samples(args) => samples::run(&project, &args)?.report(),
        Command::Languages(args) => languages::run(&project, &args)?.report(),
        Command::Chaos(args) => chaos::run(&project, &args)?,
        Command::Fuzz(args) => fuzz::run(&project, &args)?.report(),
        Command::Models(args) => models::run(&project, &args)?,
        Command::Sanitize(args) => sanitize::run(&project, &args)?.report(),
        Command::Instructions(args) => instructions::run(&project, &args)?.report(),
        Command::Bench(args) => bench::run(&project, &args)?,
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn bench_takes_flags_that_are_not_ours() {
        let cli = Cli::try_parse_from(["cargo xtask", "bench", "--", "--rounds", "3"]).unwrap();
        let Command::Bench(args) = cli.command else {
            panic!("expected bench, got {:?}", cli.command)
        };
        assert_eq!(args.args, ["--rounds", "3"]);
    }

    #[test]
    fn chaos_takes_its_flags_as_they_are() {
        let cli =
            Cli::try_parse_from(["cargo xtask", "chaos", "--cycles", "10", "--seed", "7"]).unwrap();
        let Command::Chaos(args) = cli.command else {
            panic!("expected chaos, got {:?}", cli.command)
        };
        assert_eq!(args.args, ["--cycles", "10", "--seed", "7"]);
    }
}
