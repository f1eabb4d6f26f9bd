//! The tables of docs/performance.md.

use std::fmt::Write as _;

use crate::figures::{Document, Row};
use crate::plan::DEFAULT;
use crate::print::short;

/// A heading, and the rows that the column is made of.
struct Column {
    heading: &'static str,
    metric: &'static str,
    situation: &'static str,
    parameter: u64,
    better: Better,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Better {
    Less,
    More,
}

const fn less(
    heading: &'static str,
    metric: &'static str,
    situation: &'static str,
    parameter: u64,
) -> Column {
    Column { heading, metric, situation, parameter, better: Better::Less }
}

const fn more(heading: &'static str, metric: &'static str, parameter: u64) -> Column {
    Column { heading, metric, situation: "free", parameter, better: Better::More }
}

pub(super) fn latency(document: &Document) -> String {
    let columns = [
        less("two CPUs: p50 µs", "sequential.p50", "split", 64),
        less("CPU µs", "sequential.cpu", "split", 64),
        less("left alone: p50 µs", "sequential.p50", "free", 64),
        less("CPU µs", "sequential.cpu", "free", 64),
        less("one CPU: p50 µs", "sequential.p50", "same", 64),
        less("CPU µs", "sequential.cpu", "same", 64),
        less("other CPU busy: p50 µs", "sequential.p50", "busy", 64),
        less("CPU µs", "sequential.cpu", "busy", 64),
    ];
    table(document, &columns)
}

pub(super) fn tails(document: &Document) -> String {
    let columns = [
        less("two CPUs: p90 µs", "sequential.p90", "split", 64),
        less("p99 µs", "sequential.p99", "split", 64),
        less("p99.9 µs", "sequential.p999", "split", 64),
        less("one CPU: p99 µs", "sequential.p99", "same", 64),
        less("other CPU busy: p99 µs", "sequential.p99", "busy", 64),
        less("64 callers: p99 µs", "callers.p99", "free", 64),
        less("64 tasks: p99 µs", "tasks.p99", "free", 64),
    ];
    table(document, &columns)
}

pub(super) fn throughput(document: &Document) -> String {
    let columns = [
        more("64 callers: calls/s", "callers.rate", 64),
        more("64 tasks: calls/s", "tasks.rate", 64),
        more("10,000 in flight: calls/s", "flight.rate", 10_000),
        more("10,000 in flight on a stream: messages/s", "stream.rate", 10_000),
        more("one-ways/s", "oneway.rate", 64),
    ];
    let spent = [
        less("64 callers: CPU µs a call", "callers.cpu", "free", 64),
        less("64 tasks", "tasks.cpu", "free", 64),
        less("10,000 in flight", "flight.cpu", "free", 10_000),
        less("stream", "stream.cpu", "free", 10_000),
        less("one-ways", "oneway.cpu", "free", 64),
    ];
    format!("{}\n{}", table(document, &columns), table(document, &spent))
}

pub(super) fn crowded(document: &Document) -> String {
    let columns = [
        more("1,000 callers: calls/s", "callers.rate", 1000),
        less("p99 µs", "callers.p99", "free", 1000),
        less("host KiB", "callers.host_memory", "free", 1000),
        less("plugin KiB", "callers.plugin_memory", "free", 1000),
        more("1,000 tasks: calls/s", "tasks.rate", 1000),
        less("p99 µs", "tasks.p99", "free", 1000),
        less("host KiB", "tasks.host_memory", "free", 1000),
        less("plugin KiB", "tasks.plugin_memory", "free", 1000),
    ];
    table(document, &columns)
}

pub(super) fn bulk(document: &Document) -> String {
    let columns = [
        more("1 MiB: GB/s", "bulk.rate", 1 << 20),
        less("p50 µs", "bulk.p50", "free", 1 << 20),
        more("64 MiB: GB/s", "bulk.rate", 64 << 20),
        less("host KiB", "bulk.host_memory", "free", 64 << 20),
        less("plugin KiB", "bulk.plugin_memory", "free", 64 << 20),
    ];
    table(document, &columns)
}

pub(super) fn start(document: &Document) -> String {
    table(
        document,
        &[less("p50 µs", "spawn.p50", "free", 64), less("slowest µs", "spawn.max", "free", 64)],
    )
}

pub(super) fn memory(document: &Document) -> String {
    let columns = [
        less("one caller: host KiB", "sequential.host_memory", "free", 64),
        less("plugin KiB", "sequential.plugin_memory", "free", 64),
        less("64 callers: host KiB", "callers.host_memory", "free", 64),
        less("plugin KiB", "callers.plugin_memory", "free", 64),
        less("host's threads", "callers.host_threads", "free", 64),
        less("plugin's threads", "callers.plugin_threads", "free", 64),
    ];
    table(document, &columns)
}

pub(super) fn quiet(document: &Document) -> String {
    let columns = [
        less("CPU µs a second", "quiet.cpu", "free", 0),
        less("context switches a second", "quiet.switches", "free", 0),
    ];
    table(document, &columns)
}

pub(super) fn handlers(document: &Document) -> String {
    let columns = [
        less("0 µs: p50 µs", "handler.p50", "split", 0),
        less("CPU µs", "handler.cpu", "split", 0),
        less("10 µs: p50 µs", "handler.p50", "split", 10),
        less("CPU µs", "handler.cpu", "split", 10),
        less("100 µs: p50 µs", "handler.p50", "split", 100),
        less("CPU µs", "handler.cpu", "split", 100),
        less("1,000 µs: p50 µs", "handler.p50", "split", 1000),
        less("CPU µs", "handler.cpu", "split", 1000),
    ];
    table(document, &columns)
}

pub(super) fn idle(document: &Document) -> String {
    let columns = [
        ("p50 µs", "idle.p50"),
        ("CPU µs", "idle.cpu"),
        ("bytes each, in the host", "idle.bytes_each"),
        ("descriptors each", "idle.descriptors_each"),
        ("the host's threads", "idle.threads"),
    ];
    grown(document, "idle plugins", &columns)
}

pub(super) fn open(document: &Document) -> String {
    let columns = [
        ("p50 µs", "open.p50"),
        ("CPU µs", "open.cpu"),
        ("bytes each, in the host", "open.bytes_each"),
        ("bytes each, in the plugin", "open.plugin_bytes_each"),
    ];
    grown(document, "open calls", &columns)
}

/// Calls of a typed service.
pub(super) fn typed(document: &Document) -> String {
    let columns = [
        less("one caller: p50 µs", "typed.p50", "split", 64),
        less("CPU µs", "typed.cpu", "split", 64),
        more("64 tasks: calls/s", "typed-tasks.rate", 64),
        less("CPU µs a call", "typed-tasks.cpu", "free", 64),
    ];
    table(document, &columns)
}

/// The system calls of each subject, most frequent first.
pub(super) fn syscalls(document: &Document) -> String {
    let mut text =
        "| | the host, for each call | the plugin, for each call |\n| --- | --- | --- |\n"
            .to_owned();
    for subject in document.subjects() {
        let side = |side: &str| {
            let start = format!("syscalls.{side}.");
            let rows = document.rows.iter().filter(|row| row.subject == subject);
            let mut calls: Vec<(&str, f64)> = rows
                .filter_map(|row| Some((row.metric.strip_prefix(&start)?, row.median?)))
                .collect();
            calls.sort_by(|(_, a), (_, b)| b.total_cmp(a));
            let calls: Vec<String> =
                calls.into_iter().map(|(name, times)| format!("{} {name}", short(times))).collect();
            calls.join(", ")
        };
        let (host, plugin) = (side("host"), side("plugin"));
        if !host.is_empty() || !plugin.is_empty() {
            // Writing to a string does not fail.
            let _ = writeln!(text, "| {} | {host} | {plugin} |", shown(subject));
        }
    }
    text
}

/// Describes the run and its machine.
pub(super) fn run(document: &Document) -> String {
    let machine = &document.machine;
    let virtualised = match machine.virtualised {
        false => "not virtualised".to_owned(),
        true => {
            format!("virtualised, {:.1} % of the CPUs' time stolen during the run", machine.stolen)
        }
    };
    let mut text = format!(
        "`{}` on {}, {} minutes, {} rounds, seed {}. {} × {}, {} MiB of memory, Linux {}, \
         {virtualised}.\n\n",
        document.command,
        date(document.began),
        document.took.div_ceil(60),
        document.rounds,
        document.seed,
        machine.cpus,
        machine.cpu,
        machine.memory_mib,
        machine.kernel,
    );
    let versions: Vec<String> = document
        .versions
        .iter()
        .map(|version| format!("{} {}", version.name, version.version))
        .collect();
    text.push_str(&versions.join(", "));
    text.push_str(".\n");
    let failed: Vec<&Row> = document.rows.iter().filter(|row| row.error.is_some()).collect();
    if !failed.is_empty() {
        text.push_str("\nWhat failed, in all rounds or in some:\n\n");
    }
    for row in failed {
        let (rounds, error) = (row.values.len(), row.error.as_deref().unwrap_or_default());
        // Writing to a string does not fail.
        let _ = writeln!(
            text,
            "- {}, {} {} ({}): measured in {rounds} of {} rounds; {error}",
            row.subject, row.metric, row.parameter, row.situation, document.rounds
        );
    }
    text
}

/// Table of the peers and the versions that were measured.
pub(super) fn peers(document: &Document) -> String {
    let mut text = "| | what it is | version |\n| --- | --- | --- |\n".to_owned();
    for peer in &document.peers {
        // Writing to a string does not fail.
        let _ = writeln!(text, "| {} | {} | {} |", peer.subject, peer.what, peer.version);
    }
    for absent in &document.absent {
        // Writing to a string does not fail.
        let _ = writeln!(text, "| {} | not measured: {} | – |", absent.subject, absent.why);
    }
    text
}

/// Subjects below each other, columns beside each other; subjects without any of these figures are
/// left out.
fn table(document: &Document, columns: &[Column]) -> String {
    let mut text = String::from("|");
    columns.iter().for_each(|column| text.extend([" | ", column.heading]));
    text.push_str(" |\n|");
    text.push_str(&" --- |".repeat(columns.len() + 1));
    text.push('\n');
    let best: Vec<Option<f64>> = columns.iter().map(|column| best(document, column)).collect();
    for subject in document.subjects() {
        let of = |column: &Column| {
            document.row(subject, column.metric, column.situation, column.parameter)
        };
        if columns.iter().all(|column| of(column).is_none()) {
            continue;
        }
        text.extend(["| ", &shown(subject)]);
        for (column, best) in columns.iter().zip(&best) {
            let is_best = is_taken(subject) && of(column).is_some_and(|row| row.median == *best);
            text.extend([" | ", &cell(of(column), is_best)]);
        }
        text.push_str(" |\n");
    }
    text
}

/// The parameter downwards, for ours at its defaults.
fn grown(document: &Document, first: &str, columns: &[(&str, &str)]) -> String {
    let mut text = format!("| {first}");
    columns.iter().for_each(|(heading, _)| text.extend([" | ", heading]));
    text.push_str(" |\n|");
    text.push_str(&" --- |".repeat(columns.len() + 1));
    text.push('\n');
    let (_, main) = columns[0];
    let mut parameters: Vec<u64> =
        document.rows.iter().filter(|row| row.metric == main).map(|row| row.parameter).collect();
    parameters.sort_unstable();
    parameters.dedup();
    for parameter in parameters {
        // Writing to a string does not fail.
        let _ = write!(text, "| {parameter}");
        for (_, metric) in columns {
            // What each takes of none is no figure.
            let is_none = parameter == 0 && metric.ends_with("_each");
            let row = document.row(DEFAULT, metric, "split", parameter).filter(|_| !is_none);
            text.extend([" | ", &cell(row, false)]);
        }
        text.push_str(" |\n");
    }
    text
}

fn cell(row: Option<&Row>, is_best: bool) -> String {
    let Some(row) = row else { return "–".into() };
    let Some(median) = row.median else { return "fails".into() };
    let figure = if is_best { format!("**{}**", short(median)) } else { short(median) };
    match row.min.zip(row.max) {
        Some((min, max)) if row.values.len() > 1 => {
            format!("{figure} ({} … {})", short(min), short(max))
        }
        _ => figure,
    }
}

/// The best of those that a user can take.
fn best(document: &Document, column: &Column) -> Option<f64> {
    let rows = document.rows.iter().filter(|row| {
        row.metric == column.metric
            && row.situation == column.situation
            && row.parameter == column.parameter
            && is_taken(&row.subject)
    });
    let medians = rows.filter_map(|row| row.median);
    match column.better {
        Better::Less => medians.min_by(f64::total_cmp),
        Better::More => medians.max_by(f64::total_cmp),
    }
}

fn is_taken(subject: &str) -> bool {
    !subject.starts_with("raw-") && subject != "typed-bytes"
}

fn shown(subject: &str) -> String {
    let is_ours = subject.starts_with(DEFAULT)
        || ["typed-bytes", "typed-json", "typed-postcard"].contains(&subject);
    if is_ours { format!("**{subject}**") } else { subject.to_owned() }
}

/// The day, from seconds since 1970 (Hinnant's days_from_civil, the other way round).
fn date(seconds: u64) -> String {
    let days = seconds / 86_400 + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!("{year}-{month:02}-{day:02}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figures::sample;

    #[test]
    fn the_best_that_can_be_had_is_bold_and_who_has_nothing_is_left_out() {
        let document = sample(&[
            ("raw-static", "spawn.p50", "free", 64, &[500.0]),
            ("pipeplug", "spawn.p50", "free", 64, &[900.0, 800.0, 1000.0]),
            ("tarpc", "spawn.p50", "free", 64, &[]),
            ("tonic", "oneway.rate", "free", 64, &[1.0]),
        ]);
        let expected = "\
| | p50 µs | slowest µs |
| --- | --- | --- |
| raw-static | 500 | – |
| **pipeplug** | **900** (800 … 1000) | – |
| tarpc | fails | – |
";
        assert_eq!(start(&document), expected);
    }

    #[test]
    fn a_day_is_counted_from_1970() {
        for (seconds, day) in
            [(0, "1970-01-01"), (951_782_400, "2000-02-29"), (1_767_225_599, "2025-12-31")]
        {
            assert_eq!(date(seconds), day);
        }
    }

    #[test]
    fn system_calls_are_shown_most_frequent_first() {
        let document = sample(&[
            ("pipeplug", "syscalls.host.read", "split", 64, &[1.0]),
            ("pipeplug", "syscalls.host.write", "split", 64, &[2.0]),
        ]);
        assert!(syscalls(&document).contains("| **pipeplug** | 2 write, 1 read |  |"));
    }
}
