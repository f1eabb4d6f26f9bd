//! Time that a test moves on by hand.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use crate::wire::WakePipe;

/// The time, for a [`Wire`](crate::Wire) and for code under test that takes it from here: the
/// system's, or one that a test moves on ([`ManualClock`]).
///
/// What it cannot control: the connection's own time, such as that of `PendingCall::wait_timeout`
/// or of a ping, and every sleep of code that does not ask this clock. Those go by the system's
/// clock always.
#[derive(Debug, Clone, Default)]
pub struct Clock(Option<Arc<Manual>>);

/// A clock that stands still until it is moved on.
///
/// ```
/// use std::time::Duration;
/// use pipeplug_testkit::ManualClock;
///
/// let manual = ManualClock::new();
/// let clock = manual.clock();
/// let begun = clock.now();
/// let sleeper = std::thread::spawn(move || clock.sleep(Duration::from_secs(3600)));
/// manual.wait_for_sleepers(1);
/// manual.advance(Duration::from_secs(3600));
/// sleeper.join().unwrap();
/// assert_eq!(manual.clock().now() - begun, Duration::from_secs(3600));
/// ```
#[derive(Debug, Default)]
pub struct ManualClock(Arc<Manual>);

#[derive(Debug)]
struct Manual {
    start: Instant,
    state: Mutex<ClockState>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct ClockState {
    passed: Duration,
    sleepers: usize,
    /// Wires that wait for something to be due.
    wake_pipes: Vec<Weak<WakePipe>>,
}

impl Default for Manual {
    fn default() -> Self {
        Self { start: Instant::now(), state: Mutex::default(), changed: Condvar::new() }
    }
}

impl Clock {
    /// The system's.
    #[must_use]
    pub const fn system() -> Self {
        Self(None)
    }

    /// What time it is.
    #[must_use]
    pub fn now(&self) -> Instant {
        match &self.0 {
            None => Instant::now(),
            Some(manual) => manual.start + manual.lock().passed,
        }
    }

    /// Sleeps for so long by this clock.
    ///
    /// # Blocking
    /// Until then; with a [`ManualClock`] until it was moved on that far.
    pub fn sleep(&self, time: Duration) {
        match &self.0 {
            None => std::thread::sleep(time),
            Some(manual) => manual.sleep(time),
        }
    }

    /// How long to wait for `due` by the system's clock; `None` where the bell is rung instead.
    pub(crate) fn real_time_until(&self, due: Instant) -> Option<Duration> {
        self.0.is_none().then(|| due.saturating_duration_since(Instant::now()))
    }

    /// Rings the bell whenever the time is moved on.
    pub(crate) fn wake_on_advance(&self, wake_pipe: &Arc<WakePipe>) {
        if let Some(manual) = &self.0 {
            manual.lock().wake_pipes.push(Arc::downgrade(wake_pipe));
        }
    }
}

impl ManualClock {
    /// A clock that shows the time at which it was made.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// What code under test, or a [`Setup`](crate::Setup), takes.
    #[must_use]
    pub fn clock(&self) -> Clock {
        Clock(Some(Arc::clone(&self.0)))
    }

    /// Moves the time on; who sleeps until then wakes, what is due by then is handed on.
    pub fn advance(&self, time: Duration) {
        let mut state = self.0.lock();
        state.passed += time;
        state
            .wake_pipes
            .retain(|wake_pipe| wake_pipe.upgrade().map(|wake_pipe| wake_pipe.wake()).is_some());
        self.0.changed.notify_all();
    }

    /// Waits until so many threads are in [`Clock::sleep`].
    ///
    /// # Panics
    /// Where they are not within [`LONG`](crate::LONG).
    #[track_caller]
    pub fn wait_for_sleepers(&self, count: usize) {
        let too_few = |state: &mut ClockState| state.sleepers < count;
        let waited = self.0.changed.wait_timeout_while(self.0.lock(), crate::LONG, too_few);
        let sleepers = waited.unwrap_or_else(PoisonError::into_inner).0.sleepers;
        assert!(sleepers >= count, "{sleepers} threads sleep by this clock, expected {count}");
    }
}

impl Manual {
    fn sleep(&self, time: Duration) {
        let mut state = self.lock();
        let end = state.passed + time;
        state.sleepers += 1;
        self.changed.notify_all();
        state = self
            .changed
            .wait_while(state, |state| state.passed < end)
            .unwrap_or_else(PoisonError::into_inner);
        state.sleepers -= 1;
    }

    fn lock(&self) -> MutexGuard<'_, ClockState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
