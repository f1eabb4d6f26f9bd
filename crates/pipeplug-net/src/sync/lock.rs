//! Locks that a panic does not break, and calls of user code that may panic.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::PoisonError;
use std::task::Waker;

use crate::clock::time_to_wait;
use crate::sync::{Condvar, Instant, Mutex, MutexGuard};

/// Locks a mutex, poisoned or not.
///
/// A value is consistent even if a thread panicked with the lock, since user code runs under a lock
/// of this crate only where its panic is caught (wakers and `Handler::explain` under the lock of the
/// reader, the call-back of a watched descriptor), or before the value is changed (`clone` and
/// `will_wake` of a waker). A subscriber of `tracing` may run under a lock, too; one that panics is
/// not provided for.
pub(crate) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits for a notification, at most until `deadline` has passed by its clock. There may be spurious wake-ups.
pub(crate) fn wait_until<'a, T>(
    condvar: &Condvar,
    guard: MutexGuard<'a, T>,
    deadline: Option<Instant>,
) -> MutexGuard<'a, T> {
    match deadline {
        None => condvar.wait(guard).unwrap_or_else(PoisonError::into_inner),
        Some(deadline) => {
            condvar
                .wait_timeout(guard, time_to_wait(deadline))
                .unwrap_or_else(PoisonError::into_inner)
                .0
        }
    }
}

/// Replaces the kept waker if it wakes another task than `waker`. Returns the old one, which the
/// caller drops after it has released its lock: it may own a task whose drop takes the same lock.
pub(crate) fn renew(kept: &mut Waker, waker: &Waker) -> Option<Waker> {
    (!kept.will_wake(waker)).then(|| std::mem::replace(kept, waker.clone()))
}

/// Runs user code. A panic in it is logged, and has no other effect.
pub(crate) fn guarded(what: &str, run: impl FnOnce()) {
    if catch_unwind(AssertUnwindSafe(run)).is_err() {
        tracing::error!("{what} panicked");
    }
}
