//! Every language as host with every language as guest, by their samples: who calls whom, over which way.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::bail;

use super::samples::{self, Place, Samples};
use super::table::{Cell, Table};
use super::{Language, ends, soak};
use crate::project::Project;
use crate::samples::bounded::{self, Ended};
use crate::samples::indent;

/// How long one pair may take before it is killed.
const TIME_LIMIT: Duration = Duration::from_secs(30);

const GREETINGS: &str = "guten Tag, Ann\nhello, Ann\nbonjour, Ann\nnot in tlh\n";

/// Ways that host and guest talk, by the options of the host.
const WAYS: [(&str, &[&str]); 3] = [
    ("greeter, descriptors 3 and 4", &[]),
    ("greeter, stdin and stdout", &["--stdio"]),
    ("greeter, stdin and stdout, classic format", &["--stdio", "--classic"]),
];

const NO_WAY: &str = "a host in shell starts plugins on descriptors, in the standard format";
const SLOW: &str =
    "a guest in shell takes 12 s for 5,000 calls both ways; sdk/sh/check.sh has those of Rust";

/// Builds the samples, runs every pair, and prints the tables. Gives the parts that were skipped because a runtime
/// is missing.
///
/// # Errors
/// Pairs failed; the error has the command and the output of each. Or a runtime is missing and `CI=true`.
pub(super) fn run(
    project: &Project,
    pipeplug: &Path,
    languages: &[Language],
) -> anyhow::Result<Vec<String>> {
    let place = Place::new(project, pipeplug)?;
    let started = Instant::now();
    let all = samples::build_all(&place, pipeplug, languages)?;
    println!("matrix: samples built in {:.1} s", started.elapsed().as_secs_f64());

    let started = Instant::now();
    let mut tables: Vec<Table> = Vec::new();
    let mut begun = started;
    let mut show = |table: Table| {
        println!("\n{table}  ({:.1} s)", begun.elapsed().as_secs_f64());
        begun = Instant::now();
        tables.push(table);
    };
    for (title, options) in WAYS {
        show(pairs(title, &all, |host, guest| {
            if host.language == "sh" && !options.is_empty() {
                return Cell::Skipped(NO_WAY.to_owned());
            }
            greet(&place, options, host, guest)
        }));
    }
    show(pairs("sample1: calls in both directions at once", &all, |host, guest| {
        if guest.language == "sh" && host.language != "sh" {
            return Cell::Skipped(SLOW.to_owned());
        }
        sample1(&place, host, guest)
    }));
    show(soak::guests(&place, pipeplug, &all));
    show(ends::guests(&place, &all));
    show(ends::hosts(&place, &all)?);
    show(ends::lost_hosts(&place, &all)?);

    let passed: usize = tables.iter().map(Table::passed).sum();
    let failures: Vec<String> = tables.iter().flat_map(Table::failures).collect();
    println!(
        "\nmatrix: {passed} passed, {} failed in {:.1} s",
        failures.len(),
        started.elapsed().as_secs_f64()
    );
    if !failures.is_empty() {
        bail!("the matrix has {} that failed\n{}", failures.len(), failures.join("\n"));
    }
    Ok(all
        .iter()
        .filter_map(|samples| {
            samples.missing().map(|line| format!("matrix, {}: {line}", samples.language))
        })
        .collect())
}

/// A table with hosts as rows and guests as columns.
pub(super) fn pairs(
    title: &str,
    all: &[Samples],
    run: impl Fn(&Samples, &Samples) -> Cell,
) -> Table {
    let names: Vec<&str> = all.iter().map(|samples| samples.language.as_str()).collect();
    let mut table = Table::new(&format!("{title}: hosts by row, guests by column"), &names);
    for host in all {
        let cell = |guest: &Samples| {
            let missing = host.missing().or(guest.missing());
            missing.map_or_else(|| run(host, guest), |why| Cell::Skipped(why.to_owned()))
        };
        table.push(&host.language, all.iter().map(cell).collect());
    }
    table
}

fn greet(place: &Place, options: &[&str], host: &Samples, guest: &Samples) -> Cell {
    let (host, guest) = match (host.program("greeter-host"), guest.program("greeter-plugin")) {
        (Ok(host), Ok(guest)) => (host, guest),
        (Err(why), _) | (_, Err(why)) => return Cell::Skipped(why.to_owned()),
    };
    let mut command = place.command(&host);
    command.args(options).arg(guest).arg("Ann");
    prints(place, &mut command, GREETINGS)
}

fn sample1(place: &Place, host: &Samples, guest: &Samples) -> Cell {
    // A host in shell makes one call after the other.
    let calls = if host.language == "sh" { 100 } else { 5000 };
    let (host, guest) = match (host.program("sample1-host"), guest.program("sample1-plugin")) {
        (Ok(host), Ok(guest)) => (host, guest),
        (Err(why), _) | (_, Err(why)) => return Cell::Skipped(why.to_owned()),
    };
    let mut command = place.command(&host);
    command.arg(guest);
    let expected = format!(
        "sample1: {calls} Echo, {calls} Repeat, docker host unix:///var/run/docker.sock, done\n"
    );
    prints(place, &mut command, &expected)
}

/// Runs a host that has to succeed, and to print this and nothing else on stdout.
fn prints(place: &Place, command: &mut Command, expected: &str) -> Cell {
    run_host(place, command, |ended| {
        if !ended.status.is_some_and(|status| status.success()) {
            return Some("expected exit status 0".to_owned());
        }
        (ended.stdout != expected.as_bytes())
            .then(|| format!("expected on stdout, and nothing else:\n{}", indent(expected)))
    })
}

/// Runs a host, and has `complain` say what is wrong with its end. A process that is left behind is always wrong.
pub(super) fn run_host(
    place: &Place,
    command: &mut Command,
    complain: impl FnOnce(&Ended) -> Option<String>,
) -> Cell {
    run_host_within(TIME_LIMIT, place, command, complain)
}

/// As [`run_host`], with another time limit.
pub(super) fn run_host_within(
    limit: Duration,
    place: &Place,
    command: &mut Command,
    complain: impl FnOnce(&Ended) -> Option<String>,
) -> Cell {
    let ended = match bounded::run(command, None, limit) {
        Ok(ended) => ended,
        Err(error) => {
            return Cell::Failed(format!("$ {}\ncannot run: {error}", place.line(command)));
        }
    };
    let complaint = if ended.status.is_none() {
        Some(format!("expected its end within {} s", limit.as_secs()))
    } else if ended.left_behind {
        Some("expected no process of it to live on with its stdout or stderr".to_owned())
    } else {
        complain(&ended)
    };
    complaint.map_or(Cell::Passed, |complaint| {
        Cell::Failed(format!(
            "$ {}\n{complaint}\ngot {}; on stdout:\n{}\non stderr:\n{}",
            place.line(command),
            ended.status.map_or_else(|| "no end".to_owned(), |status| status.to_string()),
            indent(&String::from_utf8_lossy(&ended.stdout)),
            indent(&String::from_utf8_lossy(&ended.stderr))
        ))
    })
}
