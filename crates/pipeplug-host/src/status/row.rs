//! One process of a plugin, as it is published.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use pipeplug_net::Connection;
use pipeplug_net::internal::{CallTimesRead, Gauge};

use super::{PluginStatus, Publish, Published, process, publish};
use crate::plugin::PluginBuilder;
use crate::process::Pid;

/// Shortest time that a rate is measured over.
const SHORTEST: Duration = Duration::from_millis(500);

/// A process and its connection. Keeps neither alive.
#[derive(Debug)]
pub(crate) struct Row {
    name: String,
    pid: Pid,
    started: Option<u64>,
    launcher: Option<String>,
    begun: Instant,
    gauge: Gauge,
    /// True once the plugin may be called.
    is_ready: AtomicBool,
    window: Mutex<Window>,
}

/// The last time span that calls were measured over.
#[derive(Debug)]
struct Window {
    end: Instant,
    /// All calls up to its end.
    times: CallTimesRead,
    calls_per_s: f64,
    p50: Option<Duration>,
    p99: Option<Duration>,
}

impl Row {
    fn new(name: &str, pid: Pid, launcher: Option<String>, begun: Instant, gauge: Gauge) -> Self {
        let times = CallTimesRead::default();
        Self {
            name: name.to_owned(),
            pid,
            started: process::started(pid.as_raw()),
            launcher,
            begun,
            gauge,
            is_ready: AtomicBool::new(false),
            window: Mutex::new(Window {
                end: begun,
                times,
                calls_per_s: 0.0,
                p50: None,
                p99: None,
            }),
        }
    }

    /// The row of a process that has just been started, if the builder has it published, and what
    /// publishes it, unless a supervisor does.
    pub(crate) fn begin(
        builder: &PluginBuilder,
        pid: Pid,
        begun: Instant,
        connection: &Connection,
    ) -> (Option<Arc<Self>>, Option<Published>) {
        if builder.publish == Publish::No {
            return (None, None);
        }
        let (launcher, gauge) = (builder.launcher.describe(), connection.gauge());
        let row = Arc::new(Self::new(connection.name(), pid, launcher, begun, gauge));
        let published = (builder.publish == Publish::Yes).then(|| {
            let row = Arc::clone(&row);
            publish(connection.events(), move || Some(row.look()))
        });
        (Some(row), published)
    }

    pub(crate) fn is_ready(&self) {
        // Relaxed: the flag is only shown.
        self.is_ready.store(true, Ordering::Relaxed);
    }

    /// The state now. The rates are those since the last look, if it was not a moment ago.
    pub(crate) fn look(&self) -> PluginStatus {
        let state = self.gauge.read();
        let (in_flight, has_ended) =
            state.as_ref().map_or((0, true), |state| (state.open_calls, state.has_ended));
        let is_ready = self.is_ready.load(Ordering::Relaxed);
        let mut window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(state) = state {
            window.advance(Instant::now(), state.times);
        }
        let micros = |time: Option<Duration>| time.map(|time| time.as_nanos() as f64 / 1e3);
        PluginStatus {
            name: self.name.clone(),
            pid: Some(self.pid.as_raw()),
            started: self.started,
            state: match (has_ended, is_ready) {
                (true, _) => "ended",
                (false, false) => "starting",
                (false, true) => "running",
            }
            .to_owned(),
            in_flight: if has_ended { 0 } else { in_flight as u64 },
            calls: window.times.total(),
            calls_per_s: if has_ended { 0.0 } else { window.calls_per_s },
            p50_us: micros(window.p50),
            p99_us: micros(window.p99),
            restarts: 0,
            uptime_s: self.begun.elapsed().as_secs_f64(),
            launcher: self.launcher.clone(),
            memory: None,
        }
    }
}

impl Window {
    fn advance(&mut self, now: Instant, times: CallTimesRead) {
        let passed = now.saturating_duration_since(self.end);
        if passed < SHORTEST {
            return;
        }
        let since = times.since(&self.times);
        self.calls_per_s = since.total() as f64 / passed.as_secs_f64();
        if since.total() > 0 {
            (self.p50, self.p99) = (since.quantile(0.5), since.quantile(0.99));
        }
        (self.end, self.times) = (now, times);
    }
}
