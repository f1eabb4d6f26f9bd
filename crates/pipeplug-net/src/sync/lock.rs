//! Keeping a panic where it happened: locks that it does not break, and code of others that may panic.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::PoisonError;
use std::task::Waker;

use crate::sync::{Condvar, Instant, Mutex, MutexGuard};

/// Locks; a poisoned lock is taken as it is: no user code runs while this crate holds one, so that what it
/// guards is whole.
pub(crate) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits for a notification, at most until `deadline`; spurious wake-ups are the caller's to expect.
pub(crate) fn wait_until<'a, T>(
    condvar: &Condvar,
    guard: MutexGuard<'a, T>,
    deadline: Option<Instant>,
) -> MutexGuard<'a, T> {
    match deadline {
        None => condvar.wait(guard).unwrap_or_else(PoisonError::into_inner),
        Some(deadline) => {
            let left = deadline.saturating_duration_since(Instant::now());
            condvar.wait_timeout(guard, left).unwrap_or_else(PoisonError::into_inner).0
        }
    }
}

/// Keeps `waker` in place of the one that is kept, where that wakes another task; gives that, to be dropped behind the
/// lock that this is called under: it may be what holds a task, and that whatever takes the lock when it is dropped.
pub(crate) fn renew(kept: &mut Waker, waker: &Waker) -> Option<Waker> {
    (!kept.will_wake(waker)).then(|| std::mem::replace(kept, waker.clone()))
}

/// Runs code of somebody else's; a panic in it is logged and ends nothing else.
pub(crate) fn guarded(what: &str, run: impl FnOnce()) {
    if catch_unwind(AssertUnwindSafe(run)).is_err() {
        tracing::error!("{what} panicked");
    }
}
