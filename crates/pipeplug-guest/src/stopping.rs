//! Notice to running handlers that the plugin has to end.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

/// Reason why a plugin ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Stop {
    /// The host said stop (`cmd.stop`). Answers still reach it within the grace time.
    Asked,
    /// The host is gone, or has closed the pipe.
    HostGone,
}

/// Tells whether the plugin has to end: [`Main::stopping`](crate::Main::stopping).
///
/// A handler that works for long looks at it now and then, waits for it in place of sleeping, or
/// awaits it: it is a [`Future`] of the reason. Its clones say the same.
///
/// ```no_run
/// # use std::time::Duration;
/// # use pipeplug_guest::{HandlerError, Request, Main, Reply};
/// fn watch(main: &Main, _asked: &mut Request) -> Result<Reply, HandlerError> {
///     let stopping = main.stopping();
///     while stopping.wait_timeout(Duration::from_secs(1)).is_none() {
///         main.notify("tick", "")?;
///     }
///     Ok("stopped".into())
/// }
/// ```
#[derive(Clone, Default)]
pub struct Stopping(Arc<Shared>);

#[derive(Default)]
struct Shared {
    state: Mutex<StopState>,
    told: Condvar,
}

#[derive(Default)]
struct StopState {
    stop: Option<Stop>,
    wakers: Vec<Waker>,
}

impl Stopping {
    /// The reason, once the plugin is to end. `None` until then.
    #[must_use]
    pub fn reason(&self) -> Option<Stop> {
        self.lock().stop
    }

    /// Waits until the plugin is to end, at most for `timeout`; `None` then.
    ///
    /// # Blocking
    /// At most for `timeout`.
    pub fn wait_timeout(&self, timeout: Duration) -> Option<Stop> {
        // A time so far off that it cannot be named is none.
        let until = Instant::now().checked_add(timeout);
        let mut state = self.lock();
        loop {
            if state.stop.is_some() {
                return state.stop;
            }
            let left = until
                .map_or(Duration::MAX, |until| until.saturating_duration_since(Instant::now()));
            if left.is_zero() {
                return None;
            }
            state = self.0.told.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Tells all that wait; returns whether it is the first time.
    pub(crate) fn stop(&self, why: Stop) -> bool {
        let mut state = self.lock();
        if state.stop.is_some() {
            return false;
        }
        state.stop = Some(why);
        let wakers = std::mem::take(&mut state.wakers);
        drop(state);
        self.0.told.notify_all();
        // Outside of the lock: a waker is code of the plugin's own.
        wakers.into_iter().for_each(Waker::wake);
        true
    }

    fn lock(&self) -> MutexGuard<'_, StopState> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Future for Stopping {
    type Output = Stop;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Stop> {
        let mut state = self.lock();
        if let Some(stop) = state.stop {
            return Poll::Ready(stop);
        }
        if !state.wakers.iter().any(|waker| waker.will_wake(context.waker())) {
            state.wakers.push(context.waker().clone());
        }
        Poll::Pending
    }
}

impl fmt::Debug for Stopping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Stopping").field(&self.reason()).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::task::Wake;
    use std::thread;

    use super::*;

    struct Count(AtomicU32);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn all_that_wait_are_told_once() {
        let stopping = Stopping::default();
        assert_eq!(stopping.wait_timeout(Duration::ZERO), None);
        let count = Arc::new(Count(AtomicU32::new(0)));
        let waker = Waker::from(Arc::clone(&count));
        let mut future = stopping.clone();
        let mut poll = || Pin::new(&mut future).poll(&mut Context::from_waker(&waker));
        assert_eq!(poll(), Poll::Pending);
        assert_eq!(poll(), Poll::Pending);
        let waiting = stopping.clone();
        let thread = thread::spawn(move || waiting.wait_timeout(Duration::MAX));
        assert!(stopping.stop(Stop::Asked));
        assert!(!stopping.stop(Stop::HostGone), "the first reason stays");
        assert_eq!(thread.join().unwrap(), Some(Stop::Asked));
        assert_eq!(poll(), Poll::Ready(Stop::Asked));
        assert_eq!(count.0.load(Ordering::SeqCst), 1, "one task has one waker");
        assert_eq!(stopping.reason(), Some(Stop::Asked));
    }
}
