//! Which pictures there are, and what they show.

use super::panel::{Curves, Dots, Series, Value, WIDTH, round};
use super::svg::{Canvas, Tone};
use crate::figures::{Document, Row};
use crate::plan::DEFAULT;

/// A picture.
#[derive(Debug)]
pub(super) struct Chart {
    /// Name of the file, without the extension.
    pub(super) name: &'static str,
    pub(super) title: &'static str,
    pub(super) svg: String,
}

/// The pictures that the run has figures for.
pub(super) fn all(document: &Document) -> Vec<Chart> {
    let dots =
        |title, metric, situation, parameter| dots(document, title, metric, situation, parameter);
    let curves =
        |title, across, metric, situation| curves(document, title, across, metric, situation);
    let mut pictures = vec![
        (
            "latency",
            "One call at a time",
            vec![
                dots("p50 of a call on two CPUs, µs", "sequential.p50", "split", 64),
                dots("CPU time of a call on two CPUs, µs", "sequential.cpu", "split", 64),
                dots("p50 of a call on one CPU, µs", "sequential.p50", "same", 64),
                dots("p50 of a call while the other CPU is busy, µs", "sequential.p50", "busy", 64),
            ],
        ),
        (
            "throughput",
            "Many at once",
            vec![
                dots("calls a second of 64 blocking callers", "callers.rate", "free", 64),
                dots("calls a second of 64 asynchronous callers", "tasks.rate", "free", 64),
                dots("calls a second, 10,000 in flight", "flight.rate", "free", 10_000),
                dots(
                    "messages a second, 10,000 in flight on a stream",
                    "stream.rate",
                    "free",
                    10_000,
                ),
                dots("one-ways a second", "oneway.rate", "free", 64),
            ],
        ),
        (
            "bulk-and-start",
            "Large buffers, and starting",
            vec![
                dots("echo of 1 MiB, GB/s", "bulk.rate", "free", 1 << 20),
                dots("echo of 64 MiB, GB/s", "bulk.rate", "free", 64 << 20),
                dots("start to first reply, µs", "spawn.p50", "free", 64),
                dots("memory of the host with 64 callers, KiB", "callers.host_memory", "free", 64),
            ],
        ),
        (
            "callers",
            "Callers at once",
            vec![
                curves("calls a second, blocking", "callers", "callers.rate", "free"),
                curves("calls a second, asynchronous", "callers", "tasks.rate", "free"),
            ],
        ),
        (
            "window-and-payload",
            "Calls in flight, and sizes",
            vec![
                curves("calls a second from one thread", "calls in flight", "flight.rate", "free"),
                curves("p50 of an echo, µs", "bytes", "bulk.p50", "free"),
            ],
        ),
        (
            "handlers",
            "Handlers that take their time",
            vec![
                curves("p50 of a call, µs", "time of the handler, µs", "handler.p50", "split"),
                curves("CPU time of a call, µs", "time of the handler, µs", "handler.cpu", "split"),
            ],
        ),
        (
            "crowds",
            "Beside much that lies there",
            vec![
                curves("p50 of a call, µs", "idle plugins on the same loop", "idle.p50", "split"),
                curves("p50 of a call, µs", "open calls to the same plugin", "open.p50", "split"),
            ],
        ),
    ];
    pictures.retain_mut(|(_, _, panels)| {
        panels.retain(Option::is_some);
        !panels.is_empty()
    });
    let draw = |(name, title, panels)| Chart { name, title, svg: page(title, panels) };
    pictures.into_iter().map(draw).collect()
}

enum Panel {
    Dots(Dots),
    Curves(Curves),
}

/// Panels in two columns.
fn page(title: &str, panels: Vec<Option<Panel>>) -> String {
    const MARGIN: f64 = 16.0;
    let drawn: Vec<(f64, Canvas)> = panels
        .into_iter()
        .flatten()
        .map(|panel| match panel {
            Panel::Dots(dots) => (dots.height(), dots.draw()),
            Panel::Curves(curves) => (curves.height(), curves.draw()),
        })
        .collect();
    let mut page = Canvas::default();
    let mut y = MARGIN;
    for row in drawn.chunks(2) {
        for (index, (_, panel)) in row.iter().enumerate() {
            page.place((MARGIN + index as f64 * (WIDTH + MARGIN), y), panel);
        }
        y += row.iter().map(|(height, _)| *height).fold(0.0, f64::max) + MARGIN;
    }
    page.file(title, 2.0 * WIDTH + 3.0 * MARGIN, y)
}

fn dots(
    document: &Document,
    title: &'static str,
    metric: &str,
    situation: &str,
    parameter: u64,
) -> Option<Panel> {
    let subjects = document.subjects();
    let row = |subject: &&str| {
        let row = document.row(subject, metric, situation, parameter)?;
        Some(((*subject).to_owned(), tone(&subjects, subject), value(row)?))
    };
    let mut rows: Vec<_> = subjects.iter().filter_map(row).collect();
    rows.sort_by(|(_, _, a), (_, _, b)| a.median.total_cmp(&b.median));
    // The best stands on top.
    if metric.ends_with(".rate") {
        rows.reverse();
    }
    (!rows.is_empty()).then_some(Panel::Dots(Dots { title, rows }))
}

fn curves(
    document: &Document,
    title: &'static str,
    across: &'static str,
    metric: &str,
    situation: &str,
) -> Option<Panel> {
    let subjects = document.subjects();
    let series = |subject: &&str| {
        let rows = document.rows.iter().filter(|row| {
            row.subject == **subject && row.metric == metric && row.situation == situation
        });
        let mut points: Vec<(f64, Value)> =
            rows.filter_map(|row| Some((row.parameter as f64, value(row)?))).collect();
        points.sort_by(|(a, _), (b, _)| a.total_cmp(b));
        // One point is no curve.
        let is_curve = points.len() > 2;
        is_curve.then(|| Series {
            name: (*subject).to_owned(),
            tone: tone(&subjects, subject),
            points,
        })
    };
    let series: Vec<Series> = subjects.iter().filter_map(series).collect();
    let number = if across == "bytes" { bytes } else { round };
    (!series.is_empty()).then_some(Panel::Curves(Curves { title, across, series, number }))
}

fn tone(subjects: &[&str], subject: &str) -> Tone {
    if subject == DEFAULT {
        Tone::Ours
    } else if subject.starts_with(DEFAULT) {
        Tone::OursToo
    } else if subject.starts_with("raw-") {
        Tone::Raw
    } else {
        // One in another setting has the colour of the one that it is.
        let plain = |name: &str| name.trim_end_matches("-one-worker").to_owned();
        let others = [DEFAULT, "raw-", "typed-"];
        let is_peer = |name: &&&str| others.iter().all(|other| !name.starts_with(other));
        let mut peers: Vec<String> =
            subjects.iter().filter(is_peer).map(|name| plain(name)).collect();
        peers.dedup();
        Tone::Peer(peers.iter().position(|name| *name == plain(subject)).unwrap_or(0))
    }
}

fn value(row: &Row) -> Option<Value> {
    // A logarithm of 0 has no place.
    let median = row.median.filter(|median| *median > 0.0)?;
    Some(Value { median, min: row.min.unwrap_or(median), max: row.max.unwrap_or(median) })
}

fn bytes(value: f64) -> String {
    match value {
        value if value >= 1024.0 * 1024.0 => format!("{:.0} MiB", value / 1024.0 / 1024.0),
        value if value >= 1024.0 => format!("{:.0} KiB", value / 1024.0),
        value => format!("{value:.0}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figures::sample;

    #[test]
    fn there_is_a_picture_of_what_was_measured_and_of_nothing_else() {
        let document = sample(&[
            ("pipeplug", "sequential.p50", "split", 64, &[2.0, 3.0]),
            ("tarpc", "sequential.p50", "split", 64, &[100.0]),
            ("tonic", "sequential.p50", "split", 64, &[]),
        ]);
        let pictures = all(&document);
        assert_eq!(pictures.len(), 1);
        let Chart { name, svg, .. } = &pictures[0];
        assert_eq!(*name, "latency");
        assert!(svg.contains(">tarpc</text>") && !svg.contains(">tonic</text>"), "{svg}");
    }

    #[test]
    fn a_curve_needs_points() {
        let rows: Vec<(&str, &str, &str, u64, &[f64])> = vec![
            ("pipeplug", "idle.p50", "split", 0, &[2.0]),
            ("pipeplug", "idle.p50", "split", 1, &[2.0]),
        ];
        assert!(all(&sample(&rows)).is_empty());
        let more = [rows, vec![("pipeplug", "idle.p50", "split", 10, &[2.0])]].concat();
        assert_eq!(all(&sample(&more))[0].name, "crowds");
    }

    #[test]
    fn sizes_are_shown_in_their_unit() {
        assert_eq!([bytes(16.0), bytes(4096.0), bytes(67_108_864.0)], ["16", "4 KiB", "64 MiB"]);
    }
}
