//! Times of calls in a histogram, and a look at a connection that does not keep it open.

use std::sync::{Arc, Weak};
use std::time::Duration;

use super::shared::Shared;
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::clock::exact_now;
use crate::sync::lock::lock;

/// Buckets of each power of two, as a power of two: a bucket is at most an eighth wide.
const FINE: u32 = 3;
/// Power of two that limits the times, in nanoseconds: 18 minutes. Longer ones count as this.
const MOST: u32 = 40;
const BUCKETS: usize = (((MOST - FINE) as usize) << FINE) + (1 << FINE);

/// Numbers of calls by the time from their beginning to their reply.
#[derive(Debug)]
pub(crate) struct CallTimes(Box<[AtomicU64]>);

impl Default for CallTimes {
    fn default() -> Self {
        Self((0..BUCKETS).map(|_| AtomicU64::new(0)).collect())
    }
}

impl CallTimes {
    /// Counts a call that began at this [time](exact_now) and has its reply now.
    pub(crate) fn replied(&self, begun: Duration) {
        let took = exact_now().saturating_sub(begun);
        // Relaxed: a count orders nothing else.
        self.0[bucket_of(took)].fetch_add(1, Ordering::Relaxed);
    }

    fn counts(&self) -> Vec<u64> {
        self.0.iter().map(|count| count.load(Ordering::Relaxed)).collect()
    }
}

/// Numbers of calls by time, as they were at a moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CallTimesRead(Vec<u64>);

impl CallTimesRead {
    /// The calls that came after an earlier look at the same connection.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let before = earlier.0.iter().copied().chain(std::iter::repeat(0));
        Self(self.0.iter().zip(before).map(|(now, before)| now.saturating_sub(before)).collect())
    }

    /// Number of the calls.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    /// Time within which this part of the calls, between 0 and 1, had their replies; an eighth of
    /// it is uncertain. `None` without a call.
    #[must_use]
    pub fn quantile(&self, part: f64) -> Option<Duration> {
        let total = self.total();
        // The rank of the call, from 1. A count is far below 2^52.
        let rank = ((total as f64 * part).ceil() as u64).clamp(1, total.max(1));
        let mut seen = 0;
        let bucket = self.0.iter().position(|count| {
            seen += count;
            seen >= rank
        })?;
        Some(middle_of(bucket))
    }
}

fn bucket_of(took: Duration) -> usize {
    let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX).min((1 << MOST) - 1);
    let shift = (nanos.max(1).ilog2()).saturating_sub(FINE);
    // Above 2^FINE the first digit is always 1, so that each power of two follows the one before.
    ((shift as usize) << FINE) + (nanos >> shift) as usize
}

fn middle_of(bucket: usize) -> Duration {
    let shift = (bucket >> FINE).saturating_sub(1);
    let low = ((bucket - (shift << FINE)) as u64) << shift;
    Duration::from_nanos(low + ((1 << shift) >> 1))
}

/// Look at a connection, which does not keep it open.
#[derive(Debug, Clone)]
pub struct Gauge(Weak<Shared>);

/// State of a connection at a moment.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct GaugeRead {
    /// Open calls of this side.
    pub open_calls: usize,
    /// Times of the calls that had replies, those of the protocol left out. Empty without
    /// [`Options::times_calls`](crate::Options::times_calls).
    pub times: CallTimesRead,
    /// True once the connection has ended.
    pub has_ended: bool,
}

impl Gauge {
    pub(crate) fn of(shared: &Arc<Shared>) -> Self {
        Self(Arc::downgrade(shared))
    }

    /// Reads the state. `None` once the connection is gone.
    #[must_use]
    pub fn read(&self) -> Option<GaugeRead> {
        let shared = self.0.upgrade()?;
        let open_calls = lock(&shared.calls).len();
        let times = shared.call_times.as_ref().map(CallTimes::counts).unwrap_or_default();
        let has_ended = shared.close.ended().is_some();
        Some(GaugeRead { open_calls, times: CallTimesRead(times), has_ended })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_comes_back_within_an_eighth() {
        let mut last = 0;
        for nanos in (0..100).chain((7..40).flat_map(|power| {
            let base = 1_u64 << power;
            [base - 1, base, base + base / 3, base * 2 - 1]
        })) {
            let bucket = bucket_of(Duration::from_nanos(nanos));
            assert!(bucket < BUCKETS && bucket >= last.min(bucket), "{nanos}");
            last = bucket;
            let middle = middle_of(bucket).as_nanos() as u64;
            assert!(middle.abs_diff(nanos) <= nanos / 8, "{nanos} came back as {middle}");
        }
        assert_eq!(bucket_of(Duration::MAX), BUCKETS - 1);
    }

    #[test]
    fn quantiles_are_those_of_the_calls_since_the_last_look() {
        let times = CallTimes::default();
        assert_eq!(CallTimesRead(times.counts()).quantile(0.5), None);
        let count = |micros, calls| {
            let bucket = bucket_of(Duration::from_micros(micros));
            times.0[bucket].fetch_add(calls, Ordering::Relaxed);
        };
        count(5_000_000, 1000);
        let before = CallTimesRead(times.counts());
        count(100, 98);
        count(4000, 2);
        let since = CallTimesRead(times.counts()).since(&before);
        let near = |part, micros: u64| {
            let found = since.quantile(part).unwrap().as_micros() as u64;
            assert!(found.abs_diff(micros) <= micros / 8, "{part}: {found}");
        };
        assert_eq!(since.total(), 100);
        near(0.0, 100);
        near(0.5, 100);
        near(0.98, 100);
        near(0.99, 4000);
        near(1.0, 4000);
        assert_eq!(before.since(&CallTimesRead::default()), before);
    }
}
