//! Clocks, among them one that a test advances by hand.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use crate::wire::WakePipe;

/// Clock for a [`Wire`](crate::Wire) and for code under test: the system's clock, or one that a
/// test advances ([`ManualClock`]).
///
/// The connection itself always uses the system's clock, for instance in
/// `PendingCall::wait_timeout` and for pings. So does any code that does not take its time from
/// this clock.
#[derive(Debug, Clone, Default)]
pub struct Clock(Option<Arc<Manual>>);

/// Clock that stands still until a test advances it.
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
    /// Wake pipes of the wires that wait for a time.
    wake_pipes: Vec<Weak<WakePipe>>,
}

impl Default for Manual {
    fn default() -> Self {
        Self { start: Instant::now(), state: Mutex::default(), changed: Condvar::new() }
    }
}

impl Clock {
    /// The system's clock.
    #[must_use]
    pub const fn system() -> Self {
        Self(None)
    }

    /// Current time.
    #[must_use]
    pub fn now(&self) -> Instant {
        match &self.0 {
            None => Instant::now(),
            Some(manual) => manual.start + manual.lock().passed,
        }
    }

    /// Sleeps for this duration by this clock.
    ///
    /// # Blocking
    /// Until then. With a [`ManualClock`], until it was advanced that far.
    pub fn sleep(&self, time: Duration) {
        match &self.0 {
            None => std::thread::sleep(time),
            Some(manual) => manual.sleep(time),
        }
    }

    /// Time until `due` by the system's clock. `None` for a manual clock, which uses the wake pipe.
    pub(crate) fn real_time_until(&self, due: Instant) -> Option<Duration> {
        self.0.is_none().then(|| due.saturating_duration_since(Instant::now()))
    }

    /// Registers a wake pipe for each advance of the clock.
    pub(crate) fn wake_on_advance(&self, wake_pipe: &Arc<WakePipe>) {
        if let Some(manual) = &self.0 {
            manual.lock().wake_pipes.push(Arc::downgrade(wake_pipe));
        }
    }
}

impl ManualClock {
    /// Makes a clock that stands at the current time.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Handle for code under test or for a [`Setup`](crate::Setup).
    #[must_use]
    pub fn clock(&self) -> Clock {
        Clock(Some(Arc::clone(&self.0)))
    }

    /// Advances the clock. Threads whose sleep is over wake, and wires pass on what is due.
    pub fn advance(&self, time: Duration) {
        let mut state = self.0.lock();
        state.passed += time;
        state
            .wake_pipes
            .retain(|wake_pipe| wake_pipe.upgrade().map(|wake_pipe| wake_pipe.wake()).is_some());
        self.0.changed.notify_all();
    }

    /// Waits until this number of threads are in [`Clock::sleep`].
    ///
    /// # Panics
    /// If there are fewer after [`LONG`](crate::LONG).
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
