//! Lines that a host writes for the driver.

use std::borrow::Cow;
use std::fmt;
use std::io::{self, Write as _};
use std::mem;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use hdrhistogram::Histogram;

/// Why a peer has no such thing as was asked for; not an error of the measurement.
#[derive(Debug)]
pub(crate) struct NotAvailable(Cow<'static, str>);

impl fmt::Display for NotAvailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for NotAvailable {}

impl NotAvailable {
    /// For that reason.
    pub(crate) const fn new(why: &'static str) -> Self {
        Self(Cow::Borrowed(why))
    }

    /// Payloads have to be smaller.
    pub(crate) fn too_large(size: usize, limit: usize) -> Self {
        Self(Cow::Owned(format!(
            "a payload has to be smaller than {limit} bytes, {size} are asked for"
        )))
    }
}

/// Tells the driver how it went, and waits for it to let the host go.
pub(crate) fn conclude(measured: Result<Measured>) -> Result<()> {
    match measured {
        Ok(measured) => say(format_args!("END {measured}"))?,
        Err(error) => match error.downcast_ref::<NotAvailable>() {
            Some(why) => say(format_args!("NA {why}"))?,
            None => return Err(error),
        },
    }
    loop {
        let line = read_line()?;
        if line.is_empty() || line.trim_end() == "quit" {
            return Ok(());
        }
    }
}

/// Tells the driver that all is warm, and waits until it says go.
///
/// # Errors
/// It went away instead.
pub(crate) fn begin(plugin: u32) -> Result<()> {
    say(format_args!("BEGIN {plugin}"))?;
    if read_line()?.is_empty() {
        bail!("the driver went away after BEGIN");
    }
    Ok(())
}

fn say(line: fmt::Arguments<'_>) -> Result<()> {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{line}").and_then(|()| stdout.flush()).context("cannot write to the driver")
}

fn read_line() -> Result<String> {
    let mut line = String::new();
    io::stdin().read_line(&mut line).context("cannot read from the driver")?;
    Ok(line)
}

/// The timed part, in numbers.
pub(crate) struct Measured {
    pub(crate) time: Duration,
    pub(crate) count: usize,
    /// How long each took, where that was asked for.
    pub(crate) latencies: Option<Latencies>,
}

impl fmt::Display for Measured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, r#"{{"seconds":{:.9},"count":{}"#, self.time.as_secs_f64(), self.count)?;
        if let Some(latencies) = &self.latencies {
            let nanos = latencies.nanos.lock().unwrap_or_else(PoisonError::into_inner);
            for (name, quantile) in
                [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p999", 0.999), ("max", 1.0)]
            {
                write!(f, r#","{name}":{:.3}"#, nanos.value_at_quantile(quantile) as f64 / 1e3)?;
            }
        }
        f.write_str("}")
    }
}

/// How long calls took; clones count into the same histogram.
#[derive(Clone)]
pub(crate) struct Latencies {
    nanos: Arc<Mutex<Histogram<u64>>>,
}

impl Latencies {
    pub(crate) fn new() -> Self {
        let nanos = Histogram::new(3).expect("three significant digits are fewer than five");
        Self { nanos: Arc::new(Mutex::new(nanos)) }
    }

    /// A clock for one caller.
    pub(crate) fn clock(&self) -> Clock {
        Clock {
            last: Instant::now(),
            nanos: Vec::with_capacity(Clock::KEPT),
            latencies: self.clone(),
        }
    }

    fn add(&self, nanos: &[u64]) {
        let mut histogram = self.nanos.lock().unwrap_or_else(PoisonError::into_inner);
        for nanos in nanos {
            // A histogram that resizes takes every value there is.
            histogram.record(*nanos).expect("the histogram grows");
        }
    }
}

/// Times the calls of one caller, back to back, with one reading of the clock each.
///
/// Keeps a few at a time: a histogram for each of a thousand callers would be most of the host's
/// memory.
pub(crate) struct Clock {
    last: Instant,
    nanos: Vec<u64>,
    latencies: Latencies,
}

impl Clock {
    const KEPT: usize = 128;

    /// From here on.
    pub(crate) fn start(&mut self) {
        self.last = Instant::now();
    }

    /// A call ended, and the next begins.
    pub(crate) fn lap(&mut self) {
        let now = Instant::now();
        let took = now - mem::replace(&mut self.last, now);
        self.nanos.push(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
        if self.nanos.len() == Self::KEPT {
            self.flush();
        }
    }

    fn flush(&mut self) {
        self.latencies.add(&self.nanos);
        self.nanos.clear();
    }
}

impl Drop for Clock {
    fn drop(&mut self) {
        self.flush();
    }
}

/// How many of `calls` fall to that one of `callers`.
pub(crate) fn share(calls: usize, callers: usize, caller: usize) -> usize {
    calls / callers + usize::from(caller < calls % callers)
}

/// How many calls warm up for that many.
pub(crate) fn warmup(calls: usize) -> usize {
    (calls / 20).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_add_up() {
        for (calls, callers) in [(10, 3), (3, 10), (64, 64), (200_000, 1000)] {
            assert_eq!(
                (0..callers).map(|caller| share(calls, callers, caller)).sum::<usize>(),
                calls
            );
        }
    }

    #[test]
    fn percentiles_are_in_microseconds() {
        let latencies = Latencies::new();
        latencies.add(&[1_000, 2_000, 3_000]);
        let measured =
            Measured { time: Duration::from_micros(6), count: 3, latencies: Some(latencies) };
        let text = measured.to_string();
        assert!(text.starts_with(r#"{"seconds":0.000006000,"count":3,"p50":2.0"#), "{text}");
        assert!(text.contains(r#""max":3.0"#) && text.ends_with('}'), "{text}");
    }

    #[test]
    fn what_a_clock_still_keeps_counts_when_it_goes() {
        let latencies = Latencies::new();
        let mut clock = latencies.clock();
        (0..Clock::KEPT + 1).for_each(|_| clock.lap());
        drop(clock);
        assert_eq!(latencies.nanos.lock().unwrap().len(), Clock::KEPT as u64 + 1);
    }
}
