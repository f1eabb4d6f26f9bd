//! Goals, as ratios within one run, and whether they are met.

use std::fmt::Write as _;

use crate::figures::Document;
use crate::plan::DEFAULT;
use crate::print::short;

const NO_SPIN: &str = "pipeplug-nospin";
const STREAMS: &str = "pipeplug-streams";
const STATIC: &str = "pipeplug-static";
const BLOCK: &str = "raw-block";

/// One figure to reach.
struct Goal {
    what: String,
    /// `None` where something that it is computed from was not measured.
    figure: Option<f64>,
    bound: Bound,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Bound {
    AtMost(f64),
    AtLeast(f64),
}

impl Bound {
    fn is_met(self, figure: f64) -> bool {
        match self {
            Self::AtMost(most) => figure <= most,
            Self::AtLeast(least) => figure >= least,
        }
    }

    fn shown(self) -> String {
        match self {
            Self::AtMost(most) => format!("≤ {}", plain(most)),
            Self::AtLeast(least) => format!("≥ {}", plain(least)),
        }
    }
}

/// All goals, a row each.
pub(super) fn table(document: &Document) -> String {
    let goals = goals(document);
    let mut text = "| what | figure | goal | |\n| --- | --- | --- | --- |\n".to_owned();
    for goal in &goals {
        let (figure, verdict) = match goal.figure {
            None => ("–".to_owned(), "not measured"),
            Some(figure) if goal.bound.is_met(figure) => (short(figure), "met"),
            Some(figure) => (short(figure), "**not met**"),
        };
        // Writing to a string does not fail.
        let _ = writeln!(text, "| {} | {figure} | {} | {verdict} |", goal.what, goal.bound.shown());
    }
    text
}

/// Where a figure stands: metric, situation, parameter.
type Place<'a> = (&'a str, &'a str, u64);

struct Of<'a>(&'a Document);

impl Of<'_> {
    fn median(&self, subject: &str, (metric, situation, parameter): Place<'_>) -> Option<f64> {
        self.0.row(subject, metric, situation, parameter)?.median
    }

    /// The default's to another's.
    fn ratio(&self, to: &str, place: Place<'_>) -> Option<f64> {
        Some(self.median(DEFAULT, place)? / self.median(to, place)?)
    }

    /// Those that are neither limits nor ours.
    fn peers(&self, place: Place<'_>) -> impl Iterator<Item = f64> {
        let peers = self
            .0
            .subjects()
            .into_iter()
            .filter(|name| !name.starts_with("raw-") && !name.starts_with(DEFAULT));
        peers.filter_map(move |name| self.median(name, place))
    }

    /// The largest of those whose name begins so.
    fn best_called(&self, start: &str, place: Place<'_>) -> Option<f64> {
        let named = self.0.subjects().into_iter().filter(|name| name.starts_with(start));
        named.filter_map(|name| self.median(name, place)).max_by(f64::total_cmp)
    }

    /// The default's to the largest of the peers'.
    fn to_best(&self, place: Place<'_>) -> Option<f64> {
        Some(self.median(DEFAULT, place)? / self.peers(place).max_by(f64::total_cmp)?)
    }
}

fn goals(document: &Document) -> Vec<Goal> {
    let of = Of(document);
    let mut goals = alone(&of);
    goals.extend(placed(&of));
    goals.extend(many(&of));
    goals.extend(large(&of));
    goals.extend(crowds(&of));
    goals.extend(typed(&of));
    goals
}

fn at_most(most: f64, what: impl Into<String>, figure: Option<f64>) -> Goal {
    Goal { what: what.into(), figure, bound: Bound::AtMost(most) }
}

fn at_least(least: f64, what: impl Into<String>, figure: Option<f64>) -> Goal {
    Goal { what: what.into(), figure, bound: Bound::AtLeast(least) }
}

/// One call at a time, on two CPUs.
fn alone(of: &Of<'_>) -> Vec<Goal> {
    const P50: Place<'_> = ("sequential.p50", "split", 64);
    const CPU: Place<'_> = ("sequential.cpu", "split", 64);
    let ours = of.median(DEFAULT, P50);
    let quickest = of.peers(P50).min_by(f64::total_cmp);
    let to_block = |place| Some(of.median(NO_SPIN, place)? / of.median(BLOCK, place)?);
    vec![
        at_most(3.0, "a call: p50, to raw-spin", of.ratio("raw-spin", P50)),
        at_most(
            0.1,
            "a call: p50, to the quickest peer",
            ours.zip(quickest).map(|(ours, peer)| ours / peer),
        ),
        at_most(0.25, "a call: CPU, to raw-block", of.ratio(BLOCK, CPU)),
        at_most(1.15, "a call without spinning: p50, to raw-block", to_block(P50)),
        at_most(1.3, "a call without spinning: CPU, to raw-block", to_block(CPU)),
    ]
}

/// Where spinning does not help.
fn placed(of: &Of<'_>) -> Vec<Goal> {
    let mut goals = Vec::new();
    let mut three = |what: &str, metric: &str, situation: &str, parameter: u64| {
        let [p50, cpu] = ["p50", "cpu"].map(|figure| format!("{metric}.{figure}"));
        let p50 = (p50.as_str(), situation, parameter);
        goals.push(at_most(1.6, format!("{what}: p50, to raw-block"), of.ratio(BLOCK, p50)));
        goals.push(at_most(1.2, format!("{what}: p50, to spinning off"), of.ratio(NO_SPIN, p50)));
        let cpu = (cpu.as_str(), situation, parameter);
        goals.push(at_most(1.1, format!("{what}: CPU, to spinning off"), of.ratio(NO_SPIN, cpu)));
    };
    three("one CPU for both", "sequential", "same", 64);
    three("other CPU busy", "sequential", "busy", 64);
    three("handler of 100 µs", "handler", "split", 100);
    three("handler of 1,000 µs", "handler", "split", 1000);
    goals.push(at_most(
        0.0,
        "idle connection: CPU µs a second",
        of.median(DEFAULT, ("quiet.cpu", "free", 0)),
    ));
    let switches = of.median(DEFAULT, ("quiet.switches", "free", 0));
    goals.push(at_most(0.0, "idle connection: context switches a second", switches));
    goals
}

/// Calls and one-ways in numbers.
fn many(of: &Of<'_>) -> Vec<Goal> {
    const CALLERS: Place<'_> = ("callers.rate", "free", 64);
    const TASKS: Place<'_> = ("tasks.rate", "free", 64);
    const FLIGHT: Place<'_> = ("flight.rate", "free", 10_000);
    const STREAM: Place<'_> = ("stream.rate", "free", 10_000);
    const ONE_WAYS: Place<'_> = ("oneway.rate", "free", 64);
    let tasks = of.median(DEFAULT, TASKS);
    let to = |ours: Option<f64>, other: Option<f64>| Some(ours? / other?);
    let best_stream = of.peers(STREAM).max_by(f64::total_cmp);
    vec![
        at_least(1.5, "64 callers: rate, to raw-block's 64 threads", of.ratio(BLOCK, CALLERS)),
        at_least(
            1.5,
            "64 tasks: rate, to raw-block's 64 threads",
            to(tasks, of.median(BLOCK, CALLERS)),
        ),
        at_least(3.0, "64 tasks: rate, to tarpc's", to(tasks, of.best_called("tarpc", TASKS))),
        at_least(
            12.0,
            "64 callers: rate, to go-plugin's",
            to(of.median(DEFAULT, CALLERS), of.best_called("go-plugin", CALLERS)),
        ),
        at_least(8.0, "10,000 in flight: rate, to the best peer's calls", of.to_best(FLIGHT)),
        at_least(
            1.0,
            "10,000 in flight on a stream: rate, to the best peer's stream",
            to(of.median(DEFAULT, STREAM), best_stream),
        ),
        at_least(
            1.0,
            "one-way stream: rate, to the best peer's one-ways",
            to(of.median(STREAMS, ONE_WAYS), of.peers(ONE_WAYS).max_by(f64::total_cmp)),
        ),
        at_least(0.8, "one-ways: rate, to the best peer's", of.to_best(ONE_WAYS)),
        at_least(0.5, "one-ways: rate, to raw-stream", of.ratio("raw-stream", ONE_WAYS)),
    ]
}

/// Large buffers, and the start.
fn large(of: &Of<'_>) -> Vec<Goal> {
    let mut goals = Vec::new();
    for (name, size) in [("64 MiB", 64 << 20), ("1 MiB", 1 << 20)] {
        let rate = ("bulk.rate", "free", size);
        let limit = match of.median(DEFAULT, ("bulk.carrier", "free", size)) {
            Some(0.0) => "raw-socket",
            Some(bytes) if bytes > 512.0 * 1024.0 => "raw-pipe-1m",
            _ => BLOCK,
        };
        goals.push(at_least(
            0.9,
            format!("echo of {name}: rate, to {limit}"),
            of.ratio(limit, rate),
        ));
        goals.push(at_least(
            2.0,
            format!("echo of {name}: rate, to the best peer's"),
            of.to_best(rate),
        ));
    }
    let bulk = ("bulk.rate", "free", 64 << 20);
    let streamed = of.median(STREAMS, bulk).zip(of.median("raw-pipe-1m", bulk));
    goals.push(at_least(
        0.9,
        "echo of 64 MiB in parts of a stream: rate, to raw-pipe-1m",
        streamed.map(|(ours, raw)| ours / raw),
    ));
    let start = ("spawn.p50", "free", 64);
    let linked_alike = of.median(STATIC, start).zip(of.median("raw-static", start));
    goals.push(at_most(
        1.6,
        "start to first reply, both plugins linked statically: to raw-static",
        linked_alike.map(|(ours, raw)| ours / raw),
    ));
    goals.push(at_most(
        1.6,
        "start to first reply, both linked dynamically: to raw-block",
        of.ratio(BLOCK, start),
    ));
    goals
}

/// Much that lies there, and memory.
fn crowds(of: &Of<'_>) -> Vec<Goal> {
    const PLUGINS: u64 = 1000;
    const CALLS: u64 = 1_000_000;
    const THREE_MIB: f64 = 3.0 * 1024.0;
    let ours = |metric, parameter| of.median(DEFAULT, (metric, "split", parameter));
    let grown = |metric, most| Some(ours(metric, most)? / ours(metric, 0)?);
    let memory = |metric| of.median(DEFAULT, (metric, "free", 64));
    vec![
        at_most(2.0, "1,000 idle plugins: the host's threads", ours("idle.threads", PLUGINS)),
        at_most(
            4.0,
            "1,000 idle plugins: descriptors each",
            ours("idle.descriptors_each", PLUGINS),
        ),
        at_most(16_384.0, "1,000 idle plugins: bytes each", ours("idle.bytes_each", PLUGINS)),
        at_most(1.1, "a call beside 1,000 idle plugins: p50, to alone", grown("idle.p50", PLUGINS)),
        at_most(200.0, "1,000,000 open calls: bytes each", ours("open.bytes_each", CALLS)),
        at_most(1.2, "a call beside 1,000,000 open ones: p50, to alone", grown("open.p50", CALLS)),
        at_most(THREE_MIB, "64 callers: the host's KiB", memory("callers.host_memory")),
        at_most(THREE_MIB, "64 callers: the plugin's KiB", memory("callers.plugin_memory")),
    ]
}

/// Time that a typed call takes more than a call of bytes.
fn typed(of: &Of<'_>) -> Vec<Goal> {
    const P50: Place<'_> = ("typed.p50", "split", 64);
    let more = |subject| Some(of.median(subject, P50)? - of.median("typed-bytes", P50)?);
    vec![
        at_most(1.5, "a typed call, JSON: p50 µs more than of bytes", more("typed-json")),
        at_most(0.5, "a typed call, postcard: p50 µs more than of bytes", more("typed-postcard")),
    ]
}

fn plain(value: f64) -> String {
    if value >= 1000.0 { format!("{value:.0}") } else { value.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figures::sample;

    #[test]
    fn a_goal_is_met_not_met_or_not_measured() {
        let document = sample(&[
            ("raw-spin", "sequential.p50", "split", 64, &[1.0]),
            ("raw-block", "sequential.p50", "split", 64, &[40.0]),
            ("pipeplug", "sequential.p50", "split", 64, &[2.5]),
            ("pipeplug-nospin", "sequential.p50", "split", 64, &[60.0]),
            ("tarpc", "sequential.p50", "split", 64, &[100.0]),
        ]);
        let table = table(&document);
        assert!(table.contains("| a call: p50, to raw-spin | 2.50 | ≤ 3 | met |"), "{table}");
        assert!(
            table.contains("| a call: p50, to the quickest peer | 0.03 | ≤ 0.1 | met |"),
            "{table}"
        );
        assert!(table.contains("p50, to raw-block | 1.50 | ≤ 1.15 | **not met** |"), "{table}");
        assert!(
            table.contains("| a call: CPU, to raw-block | – | ≤ 0.25 | not measured |"),
            "{table}"
        );
    }

    #[test]
    fn a_typed_call_is_compared_with_one_of_bytes() {
        let table = table(&sample(&[
            ("typed-bytes", "typed.p50", "split", 64, &[3.0]),
            ("typed-json", "typed.p50", "split", 64, &[4.0]),
            ("typed-postcard", "typed.p50", "split", 64, &[3.75]),
        ]));
        assert!(table.contains("JSON: p50 µs more than of bytes | 1 | ≤ 1.5 | met |"), "{table}");
        assert!(
            table.contains("postcard: p50 µs more than of bytes | 0.75 | ≤ 0.5 | **not met** |"),
            "{table}"
        );
    }

    #[test]
    fn a_start_is_compared_with_what_is_linked_alike() {
        let table = table(&sample(&[
            ("raw-block", "spawn.p50", "free", 64, &[1000.0]),
            ("raw-static", "spawn.p50", "free", 64, &[500.0]),
            ("pipeplug", "spawn.p50", "free", 64, &[1500.0]),
            ("pipeplug-static", "spawn.p50", "free", 64, &[1000.0]),
        ]));
        assert!(
            table.contains("linked statically: to raw-static | 2 | ≤ 1.6 | **not met** |"),
            "{table}"
        );
        assert!(
            table.contains("linked dynamically: to raw-block | 1.50 | ≤ 1.6 | met |"),
            "{table}"
        );
    }

    #[test]
    fn the_limit_of_a_large_buffer_is_that_of_its_carrier() {
        let with = |carrier: f64| {
            table(&sample(&[
                ("raw-block", "bulk.rate", "free", 1 << 20, &[1.0]),
                ("raw-socket", "bulk.rate", "free", 1 << 20, &[5.0]),
                ("pipeplug", "bulk.rate", "free", 1 << 20, &[2.0]),
                ("pipeplug", "bulk.carrier", "free", 1 << 20, &[carrier]),
            ]))
        };
        assert!(with(65_536.0).contains("echo of 1 MiB: rate, to raw-block | 2 | ≥ 0.9 | met |"));
        assert!(
            with(0.0).contains("echo of 1 MiB: rate, to raw-socket | 0.40 | ≥ 0.9 | **not met** |")
        );
    }
}
