//! Times of calls, kept as histograms.

use std::collections::BTreeMap;
use std::sync::mpsc::channel;
use std::sync::{PoisonError, RwLock};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow};

use crate::histogram::Histogram;
use crate::order::{Driver, Figures};

/// How many calls took how long.
#[derive(Debug)]
pub struct Latency(Histogram);

impl Latency {
    /// With an error of half a part in a thousand, for one caller.
    pub fn fine() -> Self {
        Self(Histogram::new(10))
    }

    /// With an error of one part in sixty, for each of many: what measures should not be what takes
    /// the memory.
    pub fn coarse() -> Self {
        Self(Histogram::new(5))
    }

    /// Takes one more call in.
    pub fn record(&mut self, took: Duration) {
        self.0.record(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
    }

    /// Takes all calls of another in, which was made the same way.
    pub fn add(&mut self, other: &Self) {
        self.0.add(&other.0);
    }

    /// The percentiles in microseconds.
    #[must_use]
    pub fn percentiles(&self) -> BTreeMap<&'static str, f64> {
        let at = |share| self.0.at(share) / 1e3;
        let max = self.0.max() as f64 / 1e3;
        BTreeMap::from([
            ("p50", at(0.5)),
            ("p90", at(0.9)),
            ("p99", at(0.99)),
            ("p999", at(0.999)),
            ("max", max),
        ])
    }
}

/// Makes `warm_up` calls, then `calls` that count, one at a time.
///
/// # Errors
/// A call fails, or the driver has left.
pub fn one_at_a_time(
    driver: &mut Driver,
    plugin: u32,
    [warm_up, calls]: [u64; 2],
    mut call: impl FnMut() -> Result<()>,
) -> Result<Figures> {
    for _ in 0..warm_up {
        call()?;
    }
    let mut latency = Latency::fine();
    driver.begin(plugin)?;
    let begun = Instant::now();
    let mut last = begun;
    for _ in 0..calls {
        call()?;
        let now = Instant::now();
        latency.record(now - last);
        last = now;
    }
    Ok(Figures { seconds: (last - begun).as_secs_f64(), count: calls, more: latency.percentiles() })
}

/// The same over threads: `callers` holds one call for each, `calls` are shared out among them.
///
/// # Errors
/// A call fails, a thread cannot be started, or the driver has left.
pub fn on_threads<C>(
    driver: &mut Driver,
    plugin: u32,
    calls: u64,
    callers: Vec<C>,
) -> Result<Figures>
where
    C: FnMut() -> Result<()> + Send,
{
    const STACK: usize = 64 << 10;
    let each = calls.div_ceil(callers.len() as u64).max(1);
    let count = each * callers.len() as u64;
    let gate = RwLock::new(());
    let closed = gate.write().unwrap_or_else(PoisonError::into_inner);
    let (is_warm, warm) = channel();
    std::thread::scope(|scope| {
        // Dropped where a thread cannot be started, which lets the others go too.
        let closed = closed;
        let mut threads = Vec::with_capacity(callers.len());
        for mut call in callers {
            let (gate, is_warm) = (&gate, is_warm.clone());
            let mut latency = Latency::coarse();
            let thread =
                std::thread::Builder::new().stack_size(STACK).spawn_scoped(scope, move || {
                    let warmed = call();
                    // It can only fail where this measurement is given up.
                    let _ = is_warm.send(());
                    drop(gate.read());
                    warmed?;
                    let mut last = Instant::now();
                    for _ in 0..each {
                        call()?;
                        let now = Instant::now();
                        latency.record(now - last);
                        last = now;
                    }
                    anyhow::Ok(latency)
                });
            threads.push(
                thread.with_context(|| format!("thread {} cannot be started", threads.len()))?,
            );
        }
        warm.iter().take(threads.len()).for_each(drop);
        driver.begin(plugin)?;
        let begun = Instant::now();
        drop(closed);
        let mut all = Latency::coarse();
        for thread in threads {
            all.add(&thread.join().map_err(|_| anyhow!("a caller panicked"))??);
        }
        let seconds = begun.elapsed().as_secs_f64();
        Ok(Figures { seconds, count, more: all.percentiles() })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_in_microseconds() {
        let mut latency = Latency::fine();
        for micros in 1..=1000 {
            latency.record(Duration::from_micros(micros));
        }
        let percentiles = latency.percentiles();
        for (name, expected) in [("p50", 500.0), ("p99", 990.0), ("max", 1000.0)] {
            let found = percentiles[name];
            assert!((found / expected - 1.0).abs() < 0.001, "{name}: {found}, not {expected}");
        }
    }
}
