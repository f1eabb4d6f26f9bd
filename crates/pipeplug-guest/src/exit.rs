//! The end of the process: who says it, and when.

use std::io::Write;
use std::process::ExitCode;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::register_error::{EXIT_USAGE, RegisterError};
use pipeplug_net::{CloseReason, Connection, EventLoop};

/// Time that the end waits for `main` to call [`Main::wait`](crate::Main::wait): a host may be gone
/// before it is there, and what `main` holds wants to be dropped.
const COMING: Duration = Duration::from_millis(50);

/// End of the process when the connection has ended and no thread is in
/// [`Main::wait`](crate::Main::wait).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum OnEnd {
    /// The process exits: 0 after the host said stop, 1 after the host was lost, 2 if there was none.
    #[default]
    Exit,
    /// The process goes on, unless the host has the system kill it at that time.
    Stay,
}

/// End of the grace time; `None` if it is too far off to be represented, which means never.
#[derive(Debug, Clone, Copy)]
struct Deadline(Option<Instant>);

impl Deadline {
    fn left(self) -> Duration {
        self.0.map_or(Duration::MAX, |at| at.saturating_duration_since(Instant::now()))
    }
}

/// End of the connection: its cause, and the threads that wait for it.
pub(crate) struct Exit {
    name: String,
    grace: Duration,
    on_end: OnEnd,
    /// Message of a plugin that nothing was sent to, so that no host has started it. `None` if one
    /// has told it its descriptors.
    by_hand: Option<String>,
    events: EventLoop,
    state: Mutex<ExitState>,
    changed: Condvar,
}

#[derive(Default)]
struct ExitState {
    /// The host said stop.
    stopping: bool,
    /// Deadline of handlers that still run, once it is known.
    deadline: Option<Deadline>,
    /// The process's exit code, once it is decided.
    code: Option<u8>,
    /// Threads in [`Exit::wait`].
    waiting: usize,
}

impl Exit {
    pub(crate) fn new(name: String, grace: Duration, on_end: OnEnd, events: EventLoop) -> Self {
        let (by_hand, state, changed) = (None, Mutex::default(), Condvar::new());
        Self { name, grace, on_end, by_hand, events, state, changed }
    }

    /// Sets the message for an end before anything came from a host.
    pub(crate) fn with_by_hand(mut self, error: Option<&RegisterError>) -> Self {
        self.by_hand = error.map(ToString::to_string);
        self
    }

    /// The host said stop: answers what it has asked, then closes.
    pub(crate) fn stop(&self, connection: &Connection) {
        let mut state = self.lock();
        if std::mem::replace(&mut state.stopping, true) {
            return;
        }
        let deadline = self.set_deadline(&mut state);
        drop(state);
        if !connection.wait_idle(deadline.left()) {
            self.say(&format!("stopped with handlers still at work after {:?}", self.grace));
        }
        connection.close();
        // Until it is written. Not until the host closes its side in answer: what it runs for this
        // plugin, which keeps it from closing, may be what waits for this process to end.
        let _ = connection.wait_written(deadline.left());
        self.finish(0);
    }

    /// Begins the end: nothing comes from the host any more, and handlers that still run have the
    /// grace time to end.
    ///
    /// # Blocking
    /// For the grace time, unless the end comes before.
    pub(crate) fn ended(&self) {
        let mut state = self.lock();
        let deadline = self.set_deadline(&mut state);
        while state.code.is_none() {
            let left = deadline.left();
            if left.is_zero() {
                let code = u8::from(!state.stopping);
                drop(state);
                self.say(&format!(
                    "handlers were still at work {:?} after the host was gone",
                    self.grace
                ));
                return self.finish(code);
            }
            state =
                self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Completes the end: every handler has returned. The host may still read their answers, as the
    /// end of a pipeline does.
    ///
    /// # Blocking
    /// Until those are written, at most for what is left of the grace time.
    pub(crate) fn closed(&self, reason: &CloseReason, connection: Option<&Connection>) {
        let (stopping, deadline) = {
            let mut state = self.lock();
            (state.stopping, self.set_deadline(&mut state))
        };
        if let Some(connection) = connection {
            // Where the time is over there is nothing to be done.
            let _ = connection.wait_written(deadline.left());
        }
        if stopping {
            return self.finish(0);
        }
        let was_called = connection
            .and_then(Connection::postmortem)
            .is_none_or(|postmortem| !postmortem.received.is_empty());
        let by_hand = self.by_hand.as_ref().filter(|_| !was_called);
        if let (Some(by_hand), CloseReason::EndOfFile) = (by_hand, reason) {
            self.write(by_hand);
            return self.finish(EXIT_USAGE);
        }
        self.say(&format!("the host is gone: {reason}"));
        if let (Some(by_hand), CloseReason::Broken { .. }) = (by_hand, reason) {
            // A host with a fault, or no host.
            self.write(by_hand);
        }
        self.finish(1);
    }

    /// Waits for the end. Meanwhile this thread is the loop's, if that has none yet: starting one
    /// would hold up the answer to the host's first question.
    pub(crate) fn wait(&self) -> ExitCode {
        self.lock().waiting += 1;
        self.changed.notify_all();
        self.events.serve_until(|| self.lock().code.is_some());
        let mut state = self.lock();
        let code = loop {
            if let Some(code) = state.code {
                break code;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        };
        state.waiting -= 1;
        ExitCode::from(code)
    }

    fn set_deadline(&self, state: &mut ExitState) -> Deadline {
        *state.deadline.get_or_insert_with(|| Deadline(Instant::now().checked_add(self.grace)))
    }

    fn finish(&self, code: u8) {
        let mut state = self.lock();
        if state.code.is_some() {
            return;
        }
        state.code = Some(code);
        self.changed.notify_all();
        if state.waiting == 0 && self.on_end == OnEnd::Exit {
            let none_waits = |state: &mut ExitState| state.waiting == 0;
            let waited = self.changed.wait_timeout_while(state, COMING, none_waits);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        let waiting = state.waiting;
        drop(state);
        if waiting > 0 {
            // One of them may be in the loop.
            self.events.after(Duration::ZERO, || ());
        } else if self.on_end == OnEnd::Exit {
            // `main` does not wait for the host, and the process has no use without one.
            std::process::exit(i32::from(code));
        }
    }

    pub(crate) fn say(&self, message: &str) {
        self.write(&format!("{}: {message}", self.name));
    }

    fn write(&self, line: &str) {
        // In one write: the process may be killed between two, which would leave half a line.
        let line = format!("{line}\n");
        // Standard error may be gone together with the host.
        let _ = std::io::stderr().write_all(line.as_bytes());
    }

    fn lock(&self) -> MutexGuard<'_, ExitState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
