//! The clock that a test advances by hand.

use std::time::Duration;

use pipeplug_net::Clock;

/// Clock that stands still until a test advances it, so that a deadline passes without a wait.
///
/// A [`Pair`](crate::Pair) goes by it on both sides ([`Setup::clock`](crate::Setup::clock)), as do
/// a plugin and its host (`InProcess::clock`):
///
/// - the time-outs and deadlines of calls and their streams, blocking or awaited, whether they wait
///   to be sent or for the reply, and those that handlers inherit;
/// - the heartbeats of a supervisor whose builder has this clock: advance by the interval, make a
///   call if the plugin is to be found alive, and advance by the time-out;
/// - what handlers see of them: [`Request::remaining`](pipeplug_net::Request::remaining),
///   [`Cancellation`](pipeplug_net::Cancellation) and its `wait_timeout`;
/// - the delays of wires, and code under test that takes its time from [`Clock::now`] and
///   [`Clock::sleep`].
///
/// Not by it, but by the system's clock: starts, stops and restarts of plugins, waits for the end of
/// a connection, the intervals of progress, and code that reads the time itself. A time of this
/// clock, such as [`Request::deadline`](pipeplug_net::Request::deadline), lies far from those of the
/// system's clock: compare it with [`Clock::now`].
///
/// ```
/// use std::time::Duration;
/// use pipeplug_testkit::net::{CallError, Refuse, Reply, Request};
/// use pipeplug_testkit::{Gate, ManualClock, Pair};
///
/// let clock = ManualClock::new();
/// let asked = Gate::default();
/// let handler = asked.clone();
/// let pair = Pair::setup().clock(&clock).connect(Refuse, move |request: &mut Request| {
///     assert_eq!(request.remaining(), Some(Duration::from_secs(30)));
///     handler.open();
///     let is_late = request.cancellation().wait_timeout(Duration::from_secs(3600));
///     Ok(Reply::from(format!("late: {is_late}")))
/// })?;
/// let call = pair.host.request("index", "all").timeout(Duration::from_secs(30)).begin()?;
/// asked.pass();
/// clock.advance(Duration::from_secs(30));
/// assert!(matches!(call.wait(), Err(CallError::TimedOut { .. })));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct ManualClock(Clock);

impl ManualClock {
    /// Makes a clock. Its times are its own: no other clock shows them.
    #[must_use]
    pub fn new() -> Self {
        Self(Clock::manual())
    }

    /// Handle for code under test, for a [`Setup`](crate::Setup), or for
    /// [`Options::clock`](pipeplug_net::Options::clock).
    #[must_use]
    pub fn clock(&self) -> Clock {
        self.0.clone()
    }

    /// Advances the clock. Deadlines up to the new time have passed when it returns. Tasks that
    /// wait for one are woken, and threads notice within a millisecond.
    pub fn advance(&self, time: Duration) {
        self.0.advance(time);
    }

    /// Waits until this number of threads are in [`Clock::sleep`].
    ///
    /// # Panics
    /// If there are fewer after [`LONG`](crate::LONG).
    #[track_caller]
    pub fn wait_for_sleepers(&self, count: usize) {
        let sleepers = self.0.wait_for_sleepers(count, crate::LONG);
        assert!(sleepers >= count, "{sleepers} threads sleep by this clock, expected {count}");
    }
}

impl Default for ManualClock {
    fn default() -> Self {
        Self::new()
    }
}

impl From<&ManualClock> for Clock {
    fn from(manual: &ManualClock) -> Self {
        manual.clock()
    }
}
