//! Blocking work on a thread of the loop, as a future.

use std::any::Any;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use super::EventLoop;
use crate::sync::Mutex;
use crate::sync::lock::{guarded, lock, renew};

/// Result of work that runs on another thread.
///
/// Dropping it does not end the work. Its result is dropped on the thread of the work then.
#[must_use = "a future does nothing unless it is awaited"]
#[derive(Debug)]
pub struct Offloaded<T>(Arc<Mutex<Outcome<T>>>);

#[derive(Debug)]
enum Outcome<T> {
    Running,
    Awaited(Waker),
    Done(Result<T, Box<dyn Any + Send>>),
    /// The result was taken, or nothing waits for it any more.
    Closed,
}

impl EventLoop {
    /// Runs a function that may block on a thread that no handler takes, as
    /// [`spawn`](EventLoop::spawn) does. A panic goes on in the task that awaits the result.
    #[doc(hidden)] // for pipeplug-host and pipeplug-guest: see internal.rs
    pub fn offload<T: Send + 'static>(
        &self,
        run: impl FnOnce() -> T + Send + 'static,
    ) -> Offloaded<T> {
        let outcome = Arc::new(Mutex::new(Outcome::Running));
        let place = Arc::clone(&outcome);
        self.spawn(move || {
            let done = catch_unwind(AssertUnwindSafe(run));
            let mut outcome = lock(&place);
            match std::mem::replace(&mut *outcome, Outcome::Closed) {
                Outcome::Closed => {
                    drop(outcome);
                    drop(done); // not under the lock: this may take long
                }
                Outcome::Awaited(waker) => {
                    *outcome = Outcome::Done(done);
                    drop(outcome);
                    guarded("a waker", || waker.wake());
                }
                Outcome::Running | Outcome::Done(_) => *outcome = Outcome::Done(done),
            }
        });
        Offloaded(outcome)
    }
}

impl<T> Future for Offloaded<T> {
    type Output = T;

    /// # Panics
    /// When the work panicked, and when it is polled again after it was ready.
    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        let mut outcome = lock(&self.0);
        match &mut *outcome {
            Outcome::Running => *outcome = Outcome::Awaited(context.waker().clone()),
            Outcome::Awaited(kept) => {
                let earlier = renew(kept, context.waker());
                drop(outcome);
                drop(earlier); // not under the lock: a waker's drop is code of the user
            }
            Outcome::Done(_) => {
                let Outcome::Done(done) = std::mem::replace(&mut *outcome, Outcome::Closed) else {
                    unreachable!("it was matched above, under the same lock")
                };
                drop(outcome);
                return Poll::Ready(done.unwrap_or_else(|panic| resume_unwind(panic)));
            }
            Outcome::Closed => panic!("it was polled after it was ready"),
        }
        Poll::Pending
    }
}

impl<T> Drop for Offloaded<T> {
    fn drop(&mut self) {
        let outcome = std::mem::replace(&mut *lock(&self.0), Outcome::Closed);
        drop(outcome); // not under the lock: it may be a waker, or a result
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::thread;
    use std::time::Duration;

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn a_result_comes_and_a_panic_goes_on_in_the_task() {
        let events = EventLoop::new().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        assert_eq!(runtime.block_on(events.offload(|| 7)), 7);
        let panics = events.offload(|| std::panic::panic_any(8));
        let panic = catch_unwind(AssertUnwindSafe(|| runtime.block_on(panics))).unwrap_err();
        assert_eq!(panic.downcast_ref(), Some(&8));
    }

    #[test]
    fn a_result_without_a_task_is_dropped_where_it_was_made() {
        struct Tells(mpsc::Sender<thread::ThreadId>);
        impl Drop for Tells {
            fn drop(&mut self) {
                self.0.send(thread::current().id()).unwrap();
            }
        }
        let events = EventLoop::new().unwrap();
        let ((tell, told), (go, goes)) = (mpsc::channel(), mpsc::channel());
        let work = events.offload(move || {
            goes.recv_timeout(LONG).unwrap();
            Tells(tell)
        });
        drop(work);
        go.send(()).unwrap();
        assert_ne!(told.recv_timeout(LONG).unwrap(), thread::current().id());
    }
}
