//! Measures a sequential call against a ping-pong over raw blocking pipes, between two processes, in one run.
//!
//! The two take turns, so that a drift of the machine's speed hits both alike; what counts is their ratio.

mod measure;
mod pipeplug;
mod raw;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand, ValueEnum};

use crate::measure::{Placement, Row, median};

#[derive(Parser)]
#[command(about = "Measures pipeplug's sequential calls against the raw pipe")]
struct Cli {
    #[command(subcommand)]
    role: Option<Role>,
    /// Calls in each round.
    #[arg(long, default_value_t = 20_000)]
    calls: u32,
    /// Rounds of each; the median round counts.
    #[arg(long, default_value_t = 5)]
    rounds: u32,
    /// Bytes that each call carries in each direction.
    #[arg(long, default_value_t = 64)]
    size: usize,
    /// Where the processes run; all three in turn where it is left out.
    #[arg(long)]
    placement: Option<Placement>,
    /// A short run.
    #[arg(long)]
    quick: bool,
    /// Instead of measuring, make that many calls over pipeplug and nothing else, for strace(1) and perf(1).
    #[arg(long)]
    only: Option<u32>,
}

#[derive(Subcommand)]
enum Role {
    /// The other side of the raw pipes; started by the benchmark.
    #[command(hide = true)]
    RawGuest { size: usize },
}

fn main() -> Result<ExitCode> {
    if pipeplug::is_guest() {
        return Ok(pipeplug::guest());
    }
    let cli = Cli::parse();
    if let Some(Role::RawGuest { size }) = cli.role {
        raw::guest(size)?;
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(calls) = cli.only {
        pipeplug::Host::start()?.round(calls, cli.size)?;
        return Ok(ExitCode::SUCCESS);
    }
    let (calls, rounds) = if cli.quick { (2_000, 3) } else { (cli.calls, cli.rounds) };
    println!("sequential calls of {} bytes, {calls} a round, medians of {rounds} rounds, in turns", cli.size);
    println!("{:<10}{:<24}{:>10}{:>10}{:>16}", "CPUs", "", "p50 µs", "p99 µs", "CPU µs a call");
    let placements = cli.placement.map_or_else(|| Placement::value_variants().to_vec(), |one| vec![one]);
    for placement in placements {
        compare(placement, calls, rounds, cli.size)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn compare(placement: Placement, calls: u32, rounds: u32, size: usize) -> Result<()> {
    let mut raw = raw::Host::start(size)?;
    let plugin = pipeplug::Host::start()?;
    let (mut of_raw, mut of_plugin) = (Vec::new(), Vec::new());
    // The first round of each warms up.
    for round in 0..=rounds {
        placement.apply(raw.guest_pid())?;
        let one = raw.round(calls)?;
        placement.apply(plugin.guest_pid())?;
        let other = plugin.round(calls, size)?;
        if round > 0 {
            of_raw.push(one);
            of_plugin.push(other);
        }
    }
    let (raw, plugin) = (median(&of_raw), median(&of_plugin));
    let ratio = Row { p50: plugin.p50 / raw.p50, p99: plugin.p99 / raw.p99, cpu: plugin.cpu / raw.cpu };
    let at = placement.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default();
    for (name, row) in [("raw blocking pipes", raw), ("pipeplug", plugin), ("ratio", ratio)] {
        println!("{at:<10}{name:<24}{:>10.2}{:>10.2}{:>16.2}", row.p50, row.p99, row.cpu);
    }
    Ok(())
}
