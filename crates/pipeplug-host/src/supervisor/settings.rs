//! Settings of a supervisor.

use std::sync::Arc;
use std::time::Duration;

use pipeplug_net::EventLoop;

use super::event::{Event, OnEvent};
use super::state::Shared;
use super::{Handle, Supervisor};
use crate::plugin::{PluginBuilder, StartError, StartErrorKind};

/// Back-off of restarts: the wait is `initial` after the first failure, `factor` times as long
/// after each further one, up to `max`.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct Backoff {
    /// After the first failure. Default: 100 ms.
    pub initial: Duration,
    /// The longest wait, without its jitter. Default: 30 seconds.
    pub max: Duration,
    /// Factor from one wait to the next, 1.0 or more. Default: 2.0.
    pub factor: f64,
    /// Random share of a wait, 0.0 to 1.0, so that plugins that failed together do not restart
    /// together. Default: 0.2, a wait of 80 % to 120 %.
    pub jitter: f64,
    /// A plugin that ran for so long before it failed is waited for as after a first failure.
    /// Default: 10 seconds.
    pub reset_after: Duration,
}

impl Backoff {
    /// Waits from `initial` to `max`, the rest as by default.
    #[must_use]
    pub fn new(initial: Duration, max: Duration) -> Self {
        Self { initial, max, ..Self::default() }
    }

    /// The wait after that many failures in a row; `chance` is from 0.0 to 1.0.
    pub(super) fn delay(&self, failures: u32, chance: f64) -> Duration {
        let exponent = i32::try_from(failures.saturating_sub(1)).unwrap_or(i32::MAX);
        let grown = self.initial.as_secs_f64() * self.factor.max(1.0).powi(exponent);
        // An overflow is infinite, and the smaller one then is `max`.
        let wait = grown.min(self.max.as_secs_f64());
        let jitter = self.jitter.clamp(0.0, 1.0) * (2.0 * chance - 1.0);
        Duration::try_from_secs_f64(wait * (1.0 + jitter)).unwrap_or(self.max)
    }
}

impl Default for Backoff {
    fn default() -> Self {
        Self {
            initial: Duration::from_millis(100),
            max: Duration::from_secs(30),
            factor: 2.0,
            jitter: 0.2,
            reset_after: Duration::from_secs(10),
        }
    }
}

/// Circuit breaker: the number of failures at which a supervisor gives a plugin up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Breaker {
    /// Number of failures, 1 or more. With 1 the plugin is never restarted. Default: 10.
    pub failures: usize,
    /// Within this time. Default: 5 minutes.
    pub within: Duration,
}

impl Breaker {
    /// Gives up at the `failures`th failure within that time.
    #[must_use]
    pub fn new(failures: usize, within: Duration) -> Self {
        Self { failures, within }
    }

    /// Never gives up, however often the plugin fails. What a restart cannot heal is given up all
    /// the same.
    #[must_use]
    pub fn never() -> Self {
        Self { failures: usize::MAX, within: Duration::ZERO }
    }
}

impl Default for Breaker {
    fn default() -> Self {
        Self { failures: 10, within: Duration::from_secs(300) }
    }
}

/// Health check of a supervisor: detects a plugin that hangs.
///
/// A plugin answers a ping on its reading thread, however busy its handlers are. One that pings
/// find silent is killed and started anew: the timeout has to be longer than any time for which it
/// may rightly read nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct HealthCheck {
    /// From one ping to the next. Default: 10 seconds.
    pub interval: Duration,
    /// Time to answer a ping. If it is longer than the interval, the next ping comes after it.
    /// Default: 5 seconds.
    pub timeout: Duration,
}

impl HealthCheck {
    /// Pings each `interval`, and takes a plugin that does not answer within `timeout` for hung.
    #[must_use]
    pub fn new(interval: Duration, timeout: Duration) -> Self {
        Self { interval, timeout }
    }
}

impl Default for HealthCheck {
    fn default() -> Self {
        Self { interval: Duration::from_secs(10), timeout: Duration::from_secs(5) }
    }
}

/// The settings, as they are once there is a supervisor.
#[derive(Debug, Clone, Copy)]
pub(super) struct Settings {
    pub(super) backoff: Backoff,
    pub(super) breaker: Breaker,
    pub(super) health_check: Option<HealthCheck>,
    pub(super) idle_timeout: Option<Duration>,
    pub(super) ready_timeout: Duration,
    pub(super) drain_timeout: Duration,
    pub(super) upgrade_timeout: Duration,
    pub(super) shutdown_wait: Duration,
    pub(super) retries: u32,
}

/// A supervisor before it supervises.
#[derive(Clone)]
#[must_use = "a builder does nothing until it builds"]
pub struct SupervisorBuilder {
    pub(super) plugin: PluginBuilder,
    settings: Settings,
    on_event: Option<OnEvent>,
}

impl SupervisorBuilder {
    pub(super) fn new(plugin: PluginBuilder) -> Self {
        Self {
            plugin,
            settings: Settings {
                backoff: Backoff::default(),
                breaker: Breaker::default(),
                health_check: None,
                idle_timeout: None,
                ready_timeout: Duration::from_secs(10),
                drain_timeout: Duration::from_secs(30),
                upgrade_timeout: Duration::from_secs(30),
                shutdown_wait: Duration::from_millis(500),
                retries: 2,
            },
            on_event: None,
        }
    }

    /// Sets the wait before each restart.
    pub fn backoff(mut self, backoff: Backoff) -> Self {
        self.settings.backoff = backoff;
        self
    }

    /// After how many failures to give up.
    pub fn breaker(mut self, breaker: Breaker) -> Self {
        self.settings.breaker = breaker;
        self
    }

    /// Pings the plugin while it runs, and replaces one that hangs. Default: no pings.
    pub fn health_check(mut self, check: HealthCheck) -> Self {
        self.settings.health_check = Some(check);
        self
    }

    /// Stops the plugin once no call has been open for so long; the next call starts it. One-ways
    /// count as calls that are over once they are sent. Default: never.
    pub fn idle_timeout(mut self, timeout: Duration) -> Self {
        self.settings.idle_timeout = Some(timeout);
        self
    }

    /// Maximum time that a call waits for a start by another call, or for a restart to be due; with
    /// 0 it fails at once. A start that the call itself begins has its own limit
    /// ([`PluginBuilder::handshake_timeout`]). Default: 10 seconds.
    pub fn ready_timeout(mut self, timeout: Duration) -> Self {
        self.settings.ready_timeout = timeout;
        self
    }

    /// Time for open calls to end when the plugin is [replaced](Supervisor::replace). The old
    /// process is stopped after it in any case. Default: 30 seconds.
    pub fn drain_timeout(mut self, timeout: Duration) -> Self {
        self.settings.drain_timeout = timeout;
        self
    }

    /// How long the file of a plugin that has run may be away, not executable, not whole or open
    /// for writing, as in the middle of an upgrade: for so long its start is tried again after each
    /// [backoff](Self::backoff), and no such failure counts for the [breaker](Self::breaker). 0 has
    /// it given up at once. Default: 30 seconds.
    pub fn upgrade_timeout(mut self, timeout: Duration) -> Self {
        self.settings.upgrade_timeout = timeout;
        self
    }

    /// The shortest wait before the restart of a plugin that was ended by SIGTERM, SIGINT or
    /// SIGHUP, none of which its supervisor had sent: a service manager sends these to all
    /// processes of a service, and the host is about to [stop](Supervisor::stop) too. A longer
    /// [`backoff`](Self::backoff) stays what it is. 0 has such an end treated as any other.
    /// Default: 500 ms.
    pub fn shutdown_wait(mut self, wait: Duration) -> Self {
        self.settings.shutdown_wait = wait;
        self
    }

    /// Maximum number of repetitions of a call that its caller marked as idempotent. Other calls
    /// are not repeated. A failed start that the call waited for counts as an attempt. Default: 2,
    /// so three attempts.
    pub fn retries(mut self, retries: u32) -> Self {
        self.settings.retries = retries;
        self
    }

    /// Called with the plugin's name and each event of its life, in their order and one at a time,
    /// on a thread that no handler takes; beside the `tracing` events that there are anyway. It may
    /// block and use the supervisor; the next event waits for it, the supervisor does not: of more
    /// than 128 that wait the oldest are left out, with a warning. What holds a handle to the
    /// supervisor itself keeps it from being dropped.
    pub fn on_event(mut self, on_event: impl Fn(&str, &Event) + Send + Sync + 'static) -> Self {
        self.on_event = Some(Arc::new(on_event));
        self
    }

    /// A supervisor, whose plugin is started by the first call, or by [`Supervisor::start`].
    ///
    /// # Errors
    /// The system cannot make an event loop.
    pub fn build(self) -> Result<Supervisor, StartError> {
        let events = match &self.plugin.events {
            Some(events) => events.clone(),
            None => EventLoop::shared().map_err(|error| {
                StartError::new(self.plugin.path(), None, StartErrorKind::System { error })
            })?,
        };
        let shared = Shared::new(self.plugin, self.settings, events, self.on_event);
        Ok(Supervisor(Arc::new(Handle { shared })))
    }
}

impl std::fmt::Debug for SupervisorBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SupervisorBuilder")
            .field("plugin", &self.plugin)
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::Backoff;

    const MIDDLE: f64 = 0.5;

    #[test]
    fn waits_grow_up_to_the_longest() {
        let backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1));
        let waits: Vec<_> = (1..=6).map(|n| backoff.delay(n, MIDDLE).as_millis()).collect();
        assert_eq!(waits, [100, 200, 400, 800, 1000, 1000]);
        assert_eq!(backoff.delay(u32::MAX, MIDDLE), Duration::from_secs(1));
    }

    #[test]
    fn chance_moves_a_wait_by_its_share_and_no_more() {
        let backoff = Backoff::new(Duration::from_millis(1000), Duration::from_secs(9));
        assert_eq!(backoff.delay(1, 0.0), Duration::from_millis(800));
        assert_eq!(backoff.delay(1, 1.0), Duration::from_millis(1200));
        let none = Backoff { jitter: 0.0, ..backoff };
        assert_eq!(none.delay(1, 0.0), Duration::from_millis(1000));
    }

    #[test]
    fn no_setting_panics() {
        let absurd = Backoff {
            initial: Duration::MAX,
            max: Duration::MAX,
            factor: f64::NAN,
            jitter: f64::INFINITY,
            reset_after: Duration::MAX,
        };
        assert_eq!(absurd.delay(7, 1.0), Duration::MAX);
    }
}
