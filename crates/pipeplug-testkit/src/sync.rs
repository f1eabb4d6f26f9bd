//! What keeps tests from sleeping, and from hanging.

use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// Longer than anything in a test takes, 30 seconds; reached only where something hangs.
pub const LONG: Duration = Duration::from_secs(30);

/// Shut at first; who waits goes on once it is open. Clones are the same gate.
#[derive(Debug, Clone, Default)]
pub struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl Gate {
    /// Lets everybody pass, now and later.
    pub fn open(&self) {
        *self.0.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.0.1.notify_all();
    }

    /// Waits until it is open.
    ///
    /// # Blocking
    /// Until then.
    pub fn pass(&self) {
        let is_open = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        drop(
            self.0
                .1
                .wait_while(is_open, |is_open| !*is_open)
                .unwrap_or_else(PoisonError::into_inner),
        );
    }
}

/// Aborts the process when it is not dropped in time: a test that hangs fails, and says so.
#[derive(Debug)]
#[must_use = "it watches until it is dropped"]
pub struct Watchdog {
    /// Dropping it ends the thread.
    _alive: mpsc::Sender<()>,
}

impl Watchdog {
    /// Watches over the thread that calls this, whose name is the test's.
    ///
    /// # Panics
    /// Where the system gives no thread.
    pub fn new(limit: Duration) -> Self {
        let name = thread::current().name().unwrap_or("a test").to_owned();
        Self::with(limit, move || eprintln!("{name} hangs: it did not end within {limit:?}"))
    }

    /// As [`Watchdog::new`], and `tell` says what hangs, on standard error for instance, ahead of
    /// the abort.
    ///
    /// # Panics
    /// Where the system gives no thread.
    pub fn with(limit: Duration, tell: impl FnOnce() + Send + 'static) -> Self {
        let (alive, watched) = mpsc::channel::<()>();
        let watch = move || {
            if watched.recv_timeout(limit) == Err(RecvTimeoutError::Timeout) {
                tell();
                std::process::abort();
            }
        };
        let started = thread::Builder::new().name("testkit-watchdog".into()).spawn(watch);
        drop(started.expect("the system has a thread for the watchdog"));
        Self { _alive: alive }
    }
}

/// Looks again and again until it is so: for what cannot be waited for.
///
/// # Panics
/// Where it is not within [`LONG`].
#[track_caller]
pub fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + LONG;
    while !is_so() {
        assert!(Instant::now() < deadline, "not within {LONG:?}: {what}");
        thread::park_timeout(Duration::from_micros(200));
    }
}
