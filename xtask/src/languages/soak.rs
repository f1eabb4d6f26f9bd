//! Guests of every language that a host in Rust calls at random, gives calls up, and kills: nothing may be lost.

use std::env;
use std::path::Path;
use std::time::Duration;

use super::matrix::run_host_within;
use super::samples::{Place, Samples};
use super::table::{Cell, Table};

/// Program of `pipeplug-tests`, in the folder of `pipeplug`.
pub(super) const PROGRAM: &str = "soak";

/// How long one language may take before it is killed. The program itself ends before that.
const TIME_LIMIT: Duration = Duration::from_secs(300);

/// Calls and kills of a guest. One in shell takes some milliseconds for a call.
const WORK: [&str; 4] = ["--calls", "10000", "--kills", "10"];
const WORK_OF_SHELL: [&str; 4] = ["--calls", "1000", "--kills", "2"];

pub(super) fn guests(place: &Place, pipeplug: &Path, all: &[Samples]) -> Table {
    let names: Vec<&str> = all.iter().map(|samples| samples.language.as_str()).collect();
    let seed = env::var("SEED").unwrap_or_else(|_| "1".to_owned());
    let title = format!("soak: calls, cancellations and kills, seed {seed}");
    let mut table = Table::new(&title, &names);
    let cells = all.iter().map(|samples| soak(place, pipeplug, &seed, samples));
    table.push("a host in Rust", cells.collect());
    table
}

fn soak(place: &Place, pipeplug: &Path, seed: &str, samples: &Samples) -> Cell {
    let guest = match samples.program("echo") {
        Ok(guest) => guest,
        Err(why) => return Cell::Skipped(why.to_owned()),
    };
    let program = pipeplug.with_file_name(PROGRAM);
    if !program.is_file() {
        return Cell::Skipped(format!(
            "{} is missing: cargo build -p pipeplug-tests --bin {PROGRAM}",
            program.display()
        ));
    }
    let work = if samples.language == "sh" { WORK_OF_SHELL } else { WORK };
    let mut command = place.command(&program);
    command.args(["--seed", seed]).args(work).arg(guest);
    run_host_within(TIME_LIMIT, place, &mut command, |ended| {
        if !ended.status.is_some_and(|status| status.success()) {
            return Some("expected exit status 0".to_owned());
        }
        let printed = String::from_utf8_lossy(&ended.stdout);
        println!("  {}: {}", samples.language, printed.lines().last().unwrap_or_default());
        None
    })
}
