//! Ctrl-C in the shell: ends what runs, and not the shell.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, Thread};

use pipeplug_host::CancelHandle;

use crate::session::shutdown::{Interrupt, Shutdown};

/// Use of Ctrl-C now.
#[derive(Clone)]
pub(super) struct Interrupts(Arc<Mutex<State>>);

enum State {
    /// The first start of the plugin, its last stop, or a script: Ctrl-C ends the shell.
    Ends,
    /// A restart, which Ctrl-C ends, and whether it has.
    Restarting { is_ended: bool },
    /// The shell does nothing.
    Idle,
    /// Something runs that can be given up, on this thread.
    Running(CancelHandle, Thread),
}

impl Interrupts {
    pub(super) fn new() -> Self {
        Self(Arc::new(Mutex::new(State::Ends)))
    }

    /// Ctrl-C no longer ends the shell.
    pub(super) fn begin(&self) {
        *self.state() = State::Idle;
    }

    /// Ctrl-C ends the shell again.
    pub(super) fn end(&self) {
        *self.state() = State::Ends;
    }

    /// Has Ctrl-C end what runs on this thread.
    pub(super) fn while_running<T>(&self, cancel: &CancelHandle, run: impl FnOnce() -> T) -> T {
        self.during(State::Running(cancel.clone(), thread::current()), run)
    }

    /// Has Ctrl-C end the restart. Returns also true if it has.
    pub(super) fn while_restarting<T>(&self, run: impl FnOnce() -> T) -> (T, bool) {
        let (interrupts, mut is_ended) = (self.clone(), false);
        let result = self.during(State::Restarting { is_ended }, || {
            let result = run();
            is_ended = matches!(*interrupts.state(), State::Restarting { is_ended: true });
            result
        });
        (result, is_ended)
    }

    fn during<T>(&self, state: State, run: impl FnOnce() -> T) -> T {
        let ends = matches!(*self.state(), State::Ends);
        if ends {
            return run();
        }
        *self.state() = state;
        let result = run();
        *self.state() = State::Idle;
        result
    }

    /// Uses a Ctrl-C.
    pub(super) fn interrupt(&self, shutdown: &Shutdown) -> Interrupt {
        match &mut *self.state() {
            State::Ends => return Interrupt::Stops,
            State::Restarting { is_ended } => {
                *is_ended = true;
                shutdown.kill_starting();
            }
            State::Idle => {}
            State::Running(cancel, thread) => {
                cancel.cancel();
                thread.unpark();
            }
        }
        Interrupt::Used
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
