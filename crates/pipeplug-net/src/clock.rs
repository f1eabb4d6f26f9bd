//! Clocks of connections: the system's, and those that a test advances.
//!
//! A time of a manual clock lies thousands of years in the future, in a range that belongs to its
//! clock. So an [`Instant`] tells which clock it is by: deadlines pass through all code, slots and
//! other connections as plain instants, and only [`has_passed`] and the functions beside it know
//! more. Without a manual clock they read the system's clock and compare.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::task::Waker;
use std::time::Duration;

use crate::event_loop::EventLoop;
use crate::sync::Instant;
use crate::sync::lock::{guarded, renew};

/// Clock of the deadlines and timeouts of a connection: the system's, unless a test has set one
/// that it advances by hand (`ManualClock` of pipeplug-testkit).
///
/// See [`Options::clock`](crate::Options::clock) for what goes by it.
#[derive(Debug, Clone, Default)]
pub struct Clock(Option<Arc<Manual>>);

/// Length of the range of times of one manual clock: some 2,000 years.
const RANGE: Duration = Duration::from_secs(1 << 36);
/// Least distance from the system's time to that of a manual clock: some 30,000 years.
const FAR: Duration = Duration::from_secs(1 << 40);
/// Longest wait of a thread between two looks at a manual clock. Threads wait in many places,
/// which `advance` does not know.
const LOOK: Duration = Duration::from_millis(1);

/// Manual clocks of this process. The first range begins [`FAR`] after `origin`.
#[derive(Debug)]
struct ManualClocks {
    origin: Instant,
    all: Mutex<Vec<Weak<Manual>>>,
}

/// Unset as long as there was no manual clock.
static MANUAL_CLOCKS: OnceLock<ManualClocks> = OnceLock::new();

#[derive(Debug)]
pub(crate) struct Manual {
    /// Begin of its range.
    start: Instant,
    state: Mutex<ManualState>,
    changed: Condvar,
}

#[derive(Default)]
struct ManualState {
    passed: Duration,
    sleepers: usize,
    alarms: BTreeMap<AlarmKey, Alarm>,
    next: u64,
    /// Called at each advance, until they return false.
    listeners: Vec<Box<dyn FnMut() -> bool + Send>>,
}

/// The time, and a number that keeps alarms of the same time apart.
type AlarmKey = (Instant, u64);

enum Alarm {
    Wake(Waker),
    Run(Box<dyn FnOnce() + Send>),
}

impl Clock {
    /// The system's clock.
    #[must_use]
    pub const fn system() -> Self {
        Self(None)
    }

    /// Current time. Times of different clocks cannot be compared.
    #[must_use]
    pub fn now(&self) -> Instant {
        match &self.0 {
            None => Instant::now(),
            Some(manual) => manual.now(),
        }
    }

    /// Sleeps for this duration by this clock.
    ///
    /// # Blocking
    /// Until then. With a manual clock, until it was advanced that far.
    pub fn sleep(&self, time: Duration) {
        match &self.0 {
            None => std::thread::sleep(time),
            Some(manual) => manual.sleep(time),
        }
    }

    /// Makes a clock that stands still until it is advanced.
    #[doc(hidden)] // for pipeplug-testkit: see internal.rs
    #[must_use]
    pub fn manual() -> Self {
        let clocks = MANUAL_CLOCKS
            .get_or_init(|| ManualClocks { origin: Instant::now(), all: Mutex::default() });
        let mut all = clocks.all.lock().unwrap_or_else(PoisonError::into_inner);
        let start = u32::try_from(all.len())
            .ok()
            .and_then(|number| RANGE.checked_mul(number))
            .and_then(|before| clocks.origin.checked_add(FAR + FAR)?.checked_add(before))
            .expect("a process has fewer than 16 million manual clocks");
        let (state, changed) = (Mutex::default(), Condvar::new());
        let manual = Arc::new(Manual { start, state, changed });
        all.push(Arc::downgrade(&manual));
        Self(Some(manual))
    }

    /// Returns true unless it is the system's.
    #[doc(hidden)] // for pipeplug-testkit: see internal.rs
    #[must_use]
    pub fn is_manual(&self) -> bool {
        self.0.is_some()
    }

    /// Advances a manual clock, and wakes what waits for a time that has come.
    #[doc(hidden)] // for pipeplug-testkit: see internal.rs
    pub fn advance(&self, time: Duration) {
        if let Some(manual) = &self.0 {
            manual.advance(time);
        }
    }

    /// Waits until this number of threads are in [`Clock::sleep`] of a manual clock, at most for
    /// `longest`, and returns how many there are.
    #[doc(hidden)] // for pipeplug-testkit: see internal.rs
    #[must_use]
    pub fn wait_for_sleepers(&self, count: usize, longest: Duration) -> usize {
        let Some(manual) = &self.0 else { return 0 };
        let too_few = |state: &mut ManualState| state.sleepers < count;
        let waited = manual.changed.wait_timeout_while(manual.lock(), longest, too_few);
        waited.unwrap_or_else(PoisonError::into_inner).0.sleepers
    }

    /// Has a manual clock call `listener` at each advance, until it returns false. It must not use
    /// the clock.
    #[doc(hidden)] // for pipeplug-testkit: see internal.rs
    pub fn on_advance(&self, listener: impl FnMut() -> bool + Send + 'static) {
        if let Some(manual) = &self.0 {
            manual.lock().listeners.push(Box::new(listener));
        }
    }

    /// Runs a call-back once `delay` has passed: on the event loop's thread, or on the one that
    /// advances a manual clock. It must not block.
    #[doc(hidden)] // for pipeplug-host: see internal.rs
    pub fn after(
        &self,
        events: &EventLoop,
        delay: Duration,
        call_back: impl FnOnce() + Send + 'static,
    ) {
        match &self.0 {
            None => events.after(delay, call_back),
            // Not on this thread, which may hold locks.
            Some(_) if delay.is_zero() => events.spawn(call_back),
            Some(manual) => {
                // A time that no `Instant` can hold never comes.
                if let Some(at) = manual.now().checked_add(delay) {
                    manual.set(at, Alarm::Run(Box::new(call_back)));
                }
            }
        }
    }

    /// The same moment by this clock as `time` by the system's, for a call that began before it had
    /// a connection. A manual clock stands still meanwhile.
    pub(crate) fn moment_of(&self, time: Instant) -> Instant {
        match &self.0 {
            Some(manual) if Manual::of(time).is_none() => manual.now(),
            _ => time,
        }
    }
}

/// Returns true if a time has come, by its clock.
#[inline]
pub(crate) fn has_passed(at: Instant) -> bool {
    has_passed_at(at, Instant::now())
}

/// As [`has_passed`], where the system's time was read before.
#[inline]
pub(crate) fn has_passed_at(at: Instant, system_now: Instant) -> bool {
    let left = at.saturating_duration_since(system_now);
    left.is_zero() || (left >= FAR && Manual::of(at).is_some_and(|manual| manual.now() >= at))
}

/// Time until `at`, by its clock.
pub(crate) fn time_until(at: Instant) -> Duration {
    let left = at.saturating_duration_since(Instant::now());
    match manual_of(at, left) {
        None => left,
        Some(manual) => at.saturating_duration_since(manual.now()),
    }
}

/// Time to wait for `at` before the next look at its clock.
pub(crate) fn time_to_wait(at: Instant) -> Duration {
    let left = at.saturating_duration_since(Instant::now());
    match manual_of(at, left) {
        None => left,
        Some(manual) => at.saturating_duration_since(manual.now()).min(LOOK),
    }
}

/// Time since `at`, by its clock. `None` if that is manual.
pub(crate) fn system_time_since(at: Instant, system_now: Instant) -> Option<Duration> {
    match manual_of(at, at.saturating_duration_since(system_now)) {
        None => Some(system_now.saturating_duration_since(at)),
        Some(_) => None,
    }
}

/// The time to look again at: the sooner one, or the deadline if it is by a manual clock, which
/// says nothing about when that is.
pub(crate) fn first_to_look_at(
    deadline: Option<Instant>,
    notice: Option<Instant>,
) -> Option<Instant> {
    match (deadline, notice) {
        (Some(deadline), Some(notice)) if deadline.saturating_duration_since(notice) < FAR => {
            Some(deadline.min(notice))
        }
        _ => deadline.or(notice),
    }
}

#[inline]
fn manual_of(at: Instant, left: Duration) -> Option<Arc<Manual>> {
    if left < FAR { None } else { Manual::of(at) }
}

impl Manual {
    /// Clock of this time. `None` for the system's.
    #[cold]
    pub(crate) fn of(at: Instant) -> Option<Arc<Self>> {
        let clocks = MANUAL_CLOCKS.get()?;
        let since = at.saturating_duration_since(clocks.origin).checked_sub(FAR + FAR)?;
        let number = usize::try_from(since.as_secs() / RANGE.as_secs()).ok()?;
        let all = clocks.all.lock().unwrap_or_else(PoisonError::into_inner);
        all.get(number)?.upgrade()
    }

    fn now(&self) -> Instant {
        self.start + self.lock().passed
    }

    fn advance(&self, time: Duration) {
        let due = {
            let mut state = self.lock();
            state.passed += time;
            let now = self.start + state.passed;
            let later = state.alarms.split_off(&(now, u64::MAX));
            state.listeners.retain_mut(|listener| listener());
            self.changed.notify_all();
            std::mem::replace(&mut state.alarms, later)
        };
        due.into_values().for_each(Alarm::go_off);
    }

    /// Sets an alarm, which goes off at once if its time has come.
    fn set(&self, at: Instant, alarm: Alarm) -> AlarmKey {
        let mut state = self.lock();
        let key = (at, state.next);
        state.next += 1;
        if self.start + state.passed >= at {
            drop(state);
            alarm.go_off();
        } else {
            state.alarms.insert(key, alarm);
        }
        key
    }

    /// Has a task woken at `at`.
    pub(crate) fn wake_at(&self, at: Instant, waker: Waker) -> AlarmKey {
        self.set(at, Alarm::Wake(waker))
    }

    pub(crate) fn renew(&self, key: &AlarmKey, waker: &Waker) {
        let earlier = match self.lock().alarms.get_mut(key) {
            Some(Alarm::Wake(kept)) => renew(kept, waker),
            Some(Alarm::Run(_)) | None => None,
        };
        drop(earlier); // not under the lock: a waker's drop is code of the user
    }

    pub(crate) fn remove(&self, key: &AlarmKey) {
        let alarm = self.lock().alarms.remove(key);
        drop(alarm); // not under the lock: a waker's drop is code of the user
    }

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

    fn lock(&self) -> MutexGuard<'_, ManualState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Alarm {
    fn go_off(self) {
        match self {
            Self::Wake(waker) => guarded("a waker", || waker.wake()),
            Self::Run(run) => guarded("a call-back", run),
        }
    }
}

impl std::fmt::Debug for ManualState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ManualState")
            .field("passed", &self.passed)
            .field("sleepers", &self.sleepers)
            .field("alarms", &self.alarms.len())
            .finish_non_exhaustive()
    }
}
