//! Settings of a supervisor: back-off, circuit breaker, health check.

use std::time::Duration;

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
