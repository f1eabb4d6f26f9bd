//! The order of a start: the host's metadata, then the start call-back, then the request call-back.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Interval at which a wait for the host checks whether the host asks something else instead.
const LOOK: Duration = Duration::from_millis(20);
/// Time to wait for the host's metadata once it has asked something else. Its first request may
/// still be on its way to a thread.
const TIMEOUT: Duration = Duration::from_millis(200);

/// Progress of registering.
#[derive(Debug, Default)]
pub(crate) struct Startup {
    state: Mutex<StartupState>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct StartupState {
    /// True once the host has said what it is, or nothing comes from it any more.
    is_introduced: bool,
    /// True until the start call-back returns.
    is_starting: bool,
}

/// Ends the start when it is dropped, whatever became of it.
pub(crate) struct Starting<'a>(&'a Startup);

impl Startup {
    /// The host has said what it is, or will not.
    pub(crate) fn introduced(&self) {
        self.lock().is_introduced = true;
        self.changed.notify_all();
    }

    /// Startup of a plugin with a start call-back, which is still to run.
    pub(crate) fn with_start() -> Self {
        Self {
            state: Mutex::new(StartupState { is_introduced: false, is_starting: true }),
            changed: Condvar::new(),
        }
    }

    /// Ends the start when what it gives is dropped.
    pub(crate) fn starting(&self) -> Starting<'_> {
        Starting(self)
    }

    /// Waits until the host has said what it is, which it does first of all. One that does not,
    /// which shows by what it asks in place of that, is waited for no longer.
    pub(crate) fn wait_introduced(&self, asks_something_else: impl Fn() -> bool) {
        let mut state = self.lock();
        let mut until = None;
        while !state.is_introduced && until.is_none_or(|until| Instant::now() < until) {
            let waited = self.changed.wait_timeout(state, LOOK);
            state = waited.map_or_else(|poisoned| poisoned.into_inner().0, |(state, _)| state);
            if until.is_none() && asks_something_else() {
                until = Instant::now().checked_add(TIMEOUT);
            }
        }
    }

    /// Waits until the start call-back has returned.
    pub(crate) fn wait_started(&self) {
        let mut state = self.lock();
        while state.is_starting {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn lock(&self) -> MutexGuard<'_, StartupState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Starting<'_> {
    fn drop(&mut self) {
        self.0.lock().is_starting = false;
        self.0.changed.notify_all();
    }
}
