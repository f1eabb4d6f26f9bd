//! Figures of a measurement: latencies, errors by code, and their course in time.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;
use pipeplug_host::CallError;
use serde_json::{Value, json};

/// Longest latency that is told from longer ones.
const LONGEST: Duration = Duration::from_secs(3600);
/// Significant digits of a latency.
const DIGITS: u8 = 3;
/// Number of points of a timeline, at most.
const POINTS: u32 = 100;
/// Shortest time of a point.
const SHORTEST_POINT: Duration = Duration::from_millis(20);

/// Code of a call that had no reply at the end of the measurement.
pub(super) const UNANSWERED: &str = "unanswered";
/// Code of a call that was due and could not be sent: too many were in flight.
pub(super) const UNSENT: &str = "unsent";
/// Code of a failure without one.
const NO_CODE: &str = "without a code";

/// Quantiles of the table, of the JSON and of the page.
pub(super) const QUANTILES: [(&str, f64); 4] =
    [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999)];

/// Figures of one or more rounds.
#[derive(Debug, Clone)]
pub(super) struct Figures {
    /// Latencies of the calls that succeeded, in nanoseconds.
    pub(super) latency: Histogram<u64>,
    pub(super) errors: BTreeMap<String, Errors>,
    /// Calls that succeeded within the time of the measurement.
    in_time: u64,
    /// Bytes of requests and replies of those calls.
    bytes: u64,
    /// Time of the measurement, without the warm-up.
    pub(super) time: Duration,
    pub(super) timeline: Vec<Point>,
}

/// Errors with the same code.
#[derive(Debug, Clone)]
pub(super) struct Errors {
    pub(super) count: u64,
    /// Message of the first of them.
    pub(super) first: String,
}

/// One interval of a timeline.
#[derive(Debug, Clone)]
pub(super) struct Point {
    /// Begin, from the begin of the measurement.
    pub(super) at: Duration,
    pub(super) time: Duration,
    pub(super) calls: u64,
    pub(super) errors: u64,
    pub(super) p50: Duration,
    pub(super) p99: Duration,
    pub(super) max: Duration,
}

/// Recorder of the calls of one round.
#[derive(Debug)]
pub(super) struct Recorder {
    figures: Figures,
    /// Time of one point of the timeline.
    interval: Duration,
    /// Number of the point that is recorded.
    point: u32,
    in_point: Histogram<u64>,
    errors_in_point: u64,
}

impl Figures {
    fn new() -> Self {
        Self {
            latency: histogram(),
            errors: BTreeMap::new(),
            in_time: 0,
            bytes: 0,
            time: Duration::ZERO,
            timeline: Vec::new(),
        }
    }

    /// Calls that succeeded.
    pub(super) fn calls(&self) -> u64 {
        self.latency.len()
    }

    /// Calls that failed.
    pub(super) fn failed(&self) -> u64 {
        self.errors.values().map(|errors| errors.count).sum()
    }

    /// Successful calls a second.
    pub(super) fn rate(&self) -> f64 {
        per_second(self.in_time, self.time)
    }

    /// Bytes of requests and replies a second.
    pub(super) fn bytes_rate(&self) -> f64 {
        per_second(self.bytes, self.time)
    }

    pub(super) fn quantile(&self, quantile: f64) -> Duration {
        Duration::from_nanos(self.latency.value_at_quantile(quantile))
    }

    pub(super) fn min(&self) -> Duration {
        Duration::from_nanos(self.latency.min())
    }

    pub(super) fn max(&self) -> Duration {
        Duration::from_nanos(self.latency.max())
    }

    /// Adds a later round.
    pub(super) fn add(&mut self, round: &Self) {
        // Both have the same bounds.
        let _ = self.latency.add(&round.latency);
        for (code, Errors { count, first }) in &round.errors {
            let errors = self.errors.entry(code.clone());
            errors.or_insert_with(|| Errors { count: 0, first: first.clone() }).count += count;
        }
        let begin = self.time;
        let points = round.timeline.iter().cloned();
        self.timeline.extend(points.map(|point| Point { at: begin + point.at, ..point }));
        self.in_time += round.in_time;
        self.bytes += round.bytes;
        self.time += round.time;
    }

    pub(super) fn to_json(&self) -> Value {
        let mut latency = json!({ "min": self.min().as_secs_f64() });
        for (name, quantile) in QUANTILES {
            latency[name] = self.quantile(quantile).as_secs_f64().into();
        }
        latency["max"] = self.max().as_secs_f64().into();
        latency["mean"] = (self.latency.mean() / 1e9).into();
        let errors: Vec<_> = self
            .errors
            .iter()
            .map(|(code, errors)| {
                json!({ "code": code, "count": errors.count, "first": errors.first })
            })
            .collect();
        json!({
            "calls": self.calls(),
            "failed": self.failed(),
            "seconds": self.time.as_secs_f64(),
            "calls_per_second": self.rate(),
            "bytes_per_second": self.bytes_rate(),
            "latency_seconds": latency,
            "errors": errors,
        })
    }
}

impl Recorder {
    /// Makes a recorder for a measurement of this time.
    pub(super) fn new(time: Duration) -> Self {
        Self {
            figures: Figures::new(),
            interval: (time / POINTS).max(SHORTEST_POINT),
            point: 0,
            in_point: histogram(),
            errors_in_point: 0,
        }
    }

    /// Records a call that succeeded, and that ended `at` from the begin. `bytes` is the size of
    /// its request and reply.
    pub(super) fn succeeded(&mut self, at: Duration, took: Duration, bytes: u64, in_time: bool) {
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.figures.latency.saturating_record(nanos);
        if in_time {
            self.figures.in_time += 1;
            self.figures.bytes += bytes;
            self.go_to(at);
            self.in_point.saturating_record(nanos);
        }
    }

    /// Records a call that failed.
    pub(super) fn failed(&mut self, at: Duration, error: &CallError) {
        self.go_to(at);
        self.errors_in_point += 1;
        self.count(error.code().unwrap_or(NO_CODE), 1, || error.to_string());
    }

    /// Records calls without a reply.
    pub(super) fn count(&mut self, code: &str, count: u64, message: impl FnOnce() -> String) {
        if count == 0 {
            return;
        }
        match self.figures.errors.get_mut(code) {
            Some(errors) => errors.count += count,
            None => {
                let errors = Errors { count, first: message() };
                self.figures.errors.insert(code.to_owned(), errors);
            }
        }
    }

    /// Ends the recording. `time` is that of the measurement.
    pub(super) fn finish(mut self, time: Duration) -> Figures {
        self.go_to(time.saturating_sub(Duration::from_nanos(1)));
        self.end_point(time);
        self.figures.time = time;
        self.figures
    }

    /// Ends the points before this time.
    fn go_to(&mut self, at: Duration) {
        let point = at.as_nanos() / self.interval.as_nanos();
        // A wake-up may be seen after a later one.
        while u128::from(self.point) < point {
            self.end_point(self.interval * (self.point + 1));
            self.point += 1;
        }
    }

    fn end_point(&mut self, end: Duration) {
        let quantile = |quantile| Duration::from_nanos(self.in_point.value_at_quantile(quantile));
        let at = self.interval * self.point;
        self.figures.timeline.push(Point {
            at,
            time: end.saturating_sub(at),
            calls: self.in_point.len(),
            errors: self.errors_in_point,
            p50: quantile(0.5),
            p99: quantile(0.99),
            max: Duration::from_nanos(self.in_point.max()),
        });
        self.in_point.reset();
        self.errors_in_point = 0;
    }
}

fn histogram() -> Histogram<u64> {
    let longest = u64::try_from(LONGEST.as_nanos()).expect("an hour has fewer nanoseconds");
    Histogram::new_with_bounds(1, longest, DIGITS).expect("the bounds are in order")
}

fn per_second(count: u64, time: Duration) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "a rate has few digits")]
    let count = count as f64;
    if time.is_zero() { 0.0 } else { count / time.as_secs_f64() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn quantiles_are_those_of_the_calls() {
        let mut recorder = Recorder::new(1000 * MS);
        for millis in 1..=1000 {
            recorder.succeeded(millis * MS, millis * MS, 10, millis <= 500);
        }
        let figures = recorder.finish(500 * MS);
        assert_eq!(figures.calls(), 1000, "also those that were late");
        assert!((figures.rate() - 1000.0).abs() < 1e-9, "500 in half a second");
        assert!((figures.bytes_rate() - 10_000.0).abs() < 1e-9);
        for (quantile, millis) in [(0.5, 500), (0.9, 900), (0.99, 990), (1.0, 1000)] {
            let (found, expected) = (figures.quantile(quantile), millis * MS);
            assert!(found.abs_diff(expected) < expected / 500, "{quantile}: {found:?}");
        }
    }

    #[test]
    fn the_timeline_has_every_interval() {
        let mut recorder = Recorder::new(1000 * MS);
        recorder.succeeded(5 * MS, MS, 0, true);
        recorder.succeeded(105 * MS, 2 * MS, 0, true);
        recorder.succeeded(99 * MS, 2 * MS, 0, true);
        let figures = recorder.finish(200 * MS);
        let calls: Vec<_> = figures.timeline.iter().map(|point| point.calls).collect();
        assert_eq!(calls, [1, 0, 0, 0, 0, 2, 0, 0, 0, 0]);
        let time: Duration = figures.timeline.iter().map(|point| point.time).sum();
        assert_eq!(time, 200 * MS);
    }

    #[test]
    fn rounds_add_up() {
        let round = || {
            let mut recorder = Recorder::new(1000 * MS);
            recorder.succeeded(5 * MS, MS, 7, true);
            recorder.count(UNSENT, 3, || "why".to_owned());
            recorder.finish(20 * MS)
        };
        let mut all = round();
        all.add(&round());
        assert_eq!((all.calls(), all.failed(), all.time), (2, 6, 40 * MS));
        assert_eq!(all.timeline[1].at, 20 * MS);
        assert!((all.rate() - 50.0).abs() < 1e-9);
    }
}
