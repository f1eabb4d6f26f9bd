//! Synchronisation for tests that neither sleep nor hang.

use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// Time limit for waits in tests: 30 seconds, reached only if something hangs.
pub const LONG: Duration = Duration::from_secs(30);

/// Gate that is closed at first. Threads wait at it until it is opened. Clones are the same gate.
#[derive(Debug, Clone, Default)]
pub struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl Gate {
    /// Opens the gate for all threads, now and later.
    pub fn open(&self) {
        *self.0.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.0.1.notify_all();
    }

    /// Waits until the gate is open.
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

/// Aborts the process unless it is dropped in time: a test that hangs fails with a message.
#[derive(Debug)]
#[must_use = "it watches until it is dropped"]
pub struct Watchdog {
    /// Dropping it ends the thread.
    _alive: mpsc::Sender<()>,
}

impl Watchdog {
    /// Makes a watchdog for the calling thread, whose name is that of the test.
    ///
    /// # Panics
    /// If the system provides no thread.
    pub fn new(limit: Duration) -> Self {
        let name = thread::current().name().unwrap_or("a test").to_owned();
        Self::with(limit, move || eprintln!("{name} hangs: it did not end within {limit:?}"))
    }

    /// Makes a watchdog that calls `tell` before the abort, to say on standard error what hangs.
    ///
    /// # Panics
    /// If the system provides no thread.
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

/// Polls a condition until it is true, for conditions that cannot be waited for.
///
/// # Panics
/// If the condition is not true within [`LONG`].
#[track_caller]
pub fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + LONG;
    while !is_so() {
        assert!(Instant::now() < deadline, "not within {LONG:?}: {what}");
        thread::park_timeout(Duration::from_micros(200));
    }
}
