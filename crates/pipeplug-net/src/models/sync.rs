//! Replacements for the system's threads, locks, waits and clock in a model.
//!
//! All threads of a model are run in turn by one real thread, so that nothing may block that one: a
//! wait on descriptors is a look at them for each step of the others. The time follows from the
//! steps taken, so that a schedule that is run again brings the same.

use std::io;
use std::ops::{Add, AddAssign, Sub};
use std::sync::LockResult;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use mio::{Events, Registry};
use nix::libc::c_int;
use nix::poll::{PollFd, PollTimeout};
use nix::sys::time::TimeSpec;
use nix::time::ClockId;
use shuttle::rand::Rng as _;
pub(crate) use shuttle::sync::{Mutex, MutexGuard, WaitTimeoutResult, atomic};
pub(crate) use shuttle::thread;

/// Time that passes with each step of a thread.
const STEP: Duration = Duration::from_micros(1);
/// Longest wait that is counted step by step. A longer one ends, if at all, all at once, since
/// counting would take too many steps.
const FAR: Duration = Duration::from_millis(100);
/// One wait above [`FAR`] in so many ends.
const RARE: u32 = 4;
/// Most steps of other threads until a wait above [`FAR`] ends.
const DELAY: u32 = 40;

shuttle::lazy_static! {
    /// Nanoseconds that passed all at once.
    static ref LEAPT: AtomicU64 = AtomicU64::new(0);
    /// At how many steps the clock stopped, if it has, and how many it has stood still for.
    static ref STOPPED_AT: AtomicUsize = AtomicUsize::new(usize::MAX);
    static ref STOOD: AtomicUsize = AtomicUsize::new(0);
    /// Lets another thread run before each system call, as before each operation of an atomic.
    static ref CALLS: atomic::AtomicBool = atomic::AtomicBool::new(false);
}

pub(crate) fn step() {
    CALLS.load(Ordering::SeqCst);
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Instant(Duration);

impl Instant {
    pub(crate) fn now() -> Self {
        let steps = match STOPPED_AT.load(Ordering::Relaxed) {
            usize::MAX => shuttle::current::context_switches() - STOOD.load(Ordering::Relaxed),
            stopped => stopped,
        };
        let steps = u32::try_from(steps).expect("a model ends long before");
        Self(STEP * steps + Duration::from_nanos(LEAPT.load(Ordering::Relaxed)))
    }

    pub(crate) fn elapsed(self) -> Duration {
        Self::now() - self
    }

    pub(crate) fn checked_add(self, duration: Duration) -> Option<Self> {
        self.0.checked_add(duration).map(Self)
    }

    pub(crate) fn saturating_duration_since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }

    /// Has it be this late.
    fn leap(self) {
        let left = self.saturating_duration_since(Self::now());
        LEAPT.fetch_add(u64::try_from(left.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}

/// The time stands still until this is dropped.
pub(crate) struct StoppedClock(());

impl StoppedClock {
    pub(crate) fn new() -> Self {
        STOPPED_AT.store(
            shuttle::current::context_switches() - STOOD.load(Ordering::Relaxed),
            Ordering::Relaxed,
        );
        Self(())
    }
}

impl Drop for StoppedClock {
    fn drop(&mut self) {
        let stopped_at = STOPPED_AT.swap(usize::MAX, Ordering::Relaxed);
        STOOD.store(shuttle::current::context_switches() - stopped_at, Ordering::Relaxed);
    }
}

impl Add<Duration> for Instant {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        Self(self.0 + duration)
    }
}

impl AddAssign<Duration> for Instant {
    fn add_assign(&mut self, duration: Duration) {
        self.0 += duration;
    }
}

impl Sub for Instant {
    type Output = Duration;

    fn sub(self, earlier: Self) -> Duration {
        self.saturating_duration_since(earlier)
    }
}

pub(crate) fn clock_gettime(_: ClockId) -> nix::Result<TimeSpec> {
    Ok(Instant::now().0.into())
}

/// Shuttle's knows no time-outs.
#[derive(Debug, Default)]
pub(crate) struct Condvar(shuttle::sync::Condvar);

impl Condvar {
    pub(crate) const fn new() -> Self {
        Self(shuttle::sync::Condvar::new())
    }

    pub(crate) fn notify_one(&self) {
        self.0.notify_one();
    }

    pub(crate) fn notify_all(&self) {
        self.0.notify_all();
    }

    pub(crate) fn wait<'a, T>(&self, guard: MutexGuard<'a, T>) -> LockResult<MutexGuard<'a, T>> {
        self.0.wait(guard)
    }

    pub(crate) fn wait_timeout<'a, T>(
        &self,
        guard: MutexGuard<'a, T>,
        timeout: Duration,
    ) -> LockResult<(MutexGuard<'a, T>, WaitTimeoutResult)> {
        let deadline = Instant::now() + timeout;
        let is_far = timeout > FAR;
        if is_far && !shuttle::rand::thread_rng().gen_ratio(1, RARE) {
            return self.0.wait_timeout(guard, timeout);
        }
        let delay = shuttle::rand::thread_rng().gen_range(0..DELAY);
        let is_over = AtomicBool::new(false);
        // The waiter must not wake without one notification or the other. It would find a change
        // that no thread told it of.
        thread::scope(|scope| {
            scope.spawn(|| {
                let mut reads = 0..delay;
                let mut waits =
                    || if is_far { reads.next().is_some() } else { Instant::now() < deadline };
                while !is_over.load(Ordering::Relaxed) && waits() {
                    thread::yield_now();
                }
                if !is_over.load(Ordering::Relaxed) {
                    deadline.leap();
                    self.0.notify_all();
                }
            });
            let result = self.0.wait_timeout(guard, timeout);
            is_over.store(true, Ordering::Relaxed);
            result
        })
    }
}

pub(crate) fn poll(fds: &mut [PollFd<'_>], timeout: PollTimeout) -> nix::Result<c_int> {
    let deadline = (timeout != PollTimeout::NONE).then(|| {
        Instant::now() + Duration::from_millis(timeout.as_millis().unwrap_or_default().into())
    });
    loop {
        let count = nix::poll::poll(fds, PollTimeout::ZERO)?;
        if count != 0 || deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            return Ok(count);
        }
        thread::yield_now();
    }
}

pub(crate) struct Poll(mio::Poll);

impl Poll {
    pub(crate) fn new() -> io::Result<Self> {
        mio::Poll::new().map(Self)
    }

    pub(crate) fn registry(&self) -> &Registry {
        self.0.registry()
    }

    pub(crate) fn poll(
        &mut self,
        events: &mut Events,
        timeout: Option<Duration>,
    ) -> io::Result<()> {
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        loop {
            self.0.poll(events, Some(Duration::ZERO))?;
            if !events.is_empty() || deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                return Ok(());
            }
            thread::yield_now();
        }
    }
}

/// As the standard library's, with what it has beyond shuttle's.
pub(crate) struct LocalKey<T: 'static>(pub(crate) thread::LocalKey<T>);

impl<T: 'static> LocalKey<T> {
    pub(crate) fn with<R>(&'static self, with: impl FnOnce(&T) -> R) -> R {
        self.0.with(with)
    }
}

impl<T: 'static> LocalKey<std::cell::Cell<T>> {
    pub(crate) fn set(&'static self, value: T) {
        self.with(|cell| cell.set(value));
    }

    pub(crate) fn get(&'static self) -> T
    where
        T: Copy,
    {
        self.with(std::cell::Cell::get)
    }

    pub(crate) fn replace(&'static self, value: T) -> T {
        self.with(|cell| cell.replace(value))
    }

    pub(crate) fn take(&'static self) -> T
    where
        T: Default,
    {
        self.with(std::cell::Cell::take)
    }
}

impl<T: 'static> LocalKey<std::cell::RefCell<T>> {
    pub(crate) fn set(&'static self, value: T) {
        drop(self.replace(value));
    }

    pub(crate) fn replace(&'static self, value: T) -> T {
        self.with(|cell| cell.replace(value))
    }

    pub(crate) fn with_borrow<R>(&'static self, with: impl FnOnce(&T) -> R) -> R {
        self.with(|cell| with(&cell.borrow()))
    }
}

macro_rules! model_local {
    ($($(#[$attribute:meta])* static $name:ident: $type:ty = const { $init:expr };)*) => {
        $($(#[$attribute])* static $name: $crate::sync::LocalKey<$type> = $crate::sync::LocalKey(
            shuttle::thread::LocalKey { init: || $init, _p: std::marker::PhantomData },
        );)*
    };
}
pub(crate) use model_local as thread_local;
