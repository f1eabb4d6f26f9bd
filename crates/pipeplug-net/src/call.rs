//! A call that waits for its reply.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use pipeplug_wire::{Chunk, Direction, EncodeError, SkipReason, ThreadId};
use smol_str::SmolStr;

use crate::clock::coarse_now;
use crate::connection::Connection;
use crate::error::CloseReason;
use crate::lock::{guarded, lock, wait_until};
use crate::pool;
use crate::postmortem::Postmortem;
use crate::sync::{Condvar, Instant, Mutex};

/// Why a call brought no reply.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum CallError {
    /// The other side answered with an error (`cmd.error`); the message is its own.
    #[error("{command}: {message}")]
    Remote {
        /// The command that was called.
        command: String,
        /// What the other side said.
        message: String,
    },
    /// The connection ended before the reply came, or ahead of the call.
    ///
    /// It reads as up to three lines: this one and those of the [`Postmortem`].
    #[error("{command}: no reply, {reason}{postmortem}")]
    Closed {
        /// The command that was called.
        command: String,
        /// Why the connection ended.
        reason: Arc<CloseReason>,
        /// What was going on then.
        postmortem: Arc<Postmortem>,
    },
    /// No reply came in time; the call is forgotten, its late reply will be dropped.
    #[error("{command}: no reply within {after:?}")]
    TimedOut {
        /// The command that was called.
        command: String,
        /// How long it was waited for.
        after: Duration,
    },
    /// As many calls as [`Options::calls`](crate::Options) allows are open.
    #[error("{command}: {limit} calls wait for a reply already, the limit is {limit}")]
    TooManyCalls {
        /// The command that was called.
        command: String,
        /// How many may be open.
        limit: usize,
    },
    /// The reply is larger than [`Options::limits`](crate::Options) allows and was skipped.
    #[error("{command}: the reply was skipped: {reason}")]
    ReplyTooLarge {
        /// The command that was called.
        command: String,
        /// Both numbers.
        reason: SkipReason,
    },
    /// The reply is no UTF-8 text, which `call` promises; `call_bytes` takes any.
    #[error("{command}: the reply is no UTF-8 text ({source}); call_bytes takes any bytes")]
    NotText {
        /// The command that was called.
        command: String,
        /// Where it is not.
        source: std::str::Utf8Error,
    },
    /// The command cannot be sent in the connection's format.
    #[error("{command}: {error}")]
    Encode {
        /// The command that was called.
        command: String,
        /// What it holds that it may not.
        error: EncodeError,
    },
    /// More one-ways from the other side wait for handlers than [`Options::overrun`](crate::Options) allows, so
    /// that its replies, which come behind them, cannot be read.
    #[error(
        "{command}: given up, since {held} bytes of one-ways from the other side wait for handlers, the limit is {limit}"
    )]
    Overrun {
        /// The command that was called.
        command: String,
        /// Weight that waits for a handler.
        held: usize,
        /// How much may.
        limit: usize,
    },
    /// The call would have had to wait ahead of being sent, and was asked not to.
    #[error("{command}: the other side is behind, sending would have to wait")]
    WouldBlock {
        /// The command that was called.
        command: String,
    },
}

/// Why a one-way was not sent.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum NotifyError {
    /// The connection has ended.
    ///
    /// It reads as up to three lines: this one and those of the [`Postmortem`].
    #[error("{command}: not sent, {reason}{postmortem}")]
    Closed {
        /// The command.
        command: String,
        /// Why the connection ended.
        reason: Arc<CloseReason>,
        /// What was going on then.
        postmortem: Arc<Postmortem>,
    },
    /// The command cannot be sent in the connection's format.
    #[error("{command}: {error}")]
    Encode {
        /// The command.
        command: String,
        /// What it holds that it may not.
        error: EncodeError,
    },
}

/// How a call ended, in the words of those who have no command at hand.
#[derive(Debug)]
pub(crate) enum Outcome {
    Reply(Replied),
    Refused(String),
    Skipped(SkipReason),
    Overrun { held: usize, limit: usize },
    Closed(Arc<CloseReason>, Arc<Postmortem>),
}

#[derive(Debug)]
pub(crate) struct Replied {
    pub(crate) buffer: Vec<u8>,
    /// `None`: that of the request.
    pub(crate) command: Option<Box<str>>,
}

/// Where a reply is put and waited for.
#[derive(Debug)]
pub(crate) struct Slot {
    /// What was called.
    pub(crate) command: SmolStr,
    /// When, by the [coarse clock](coarse_now).
    pub(crate) begun: Duration,
    state: Mutex<SlotState>,
    done: Condvar,
}

#[derive(Debug, Default)]
enum SlotState {
    /// Nobody sleeps for it.
    #[default]
    Waiting,
    /// A thread sleeps on `done`. Told apart, since waking nobody costs a system call too.
    Sleeping,
    Polled(Waker),
    Done(Outcome),
    Taken,
}

impl Slot {
    pub(crate) fn new(command: &str) -> Arc<Self> {
        Arc::new(Self {
            command: command.into(),
            begun: coarse_now(),
            state: Mutex::default(),
            done: Condvar::new(),
        })
    }

    /// Ends the call; only the first outcome counts.
    pub(crate) fn complete(&self, outcome: Outcome) {
        let mut state = lock(&self.state);
        match std::mem::replace(&mut *state, SlotState::Done(outcome)) {
            SlotState::Waiting => {}
            SlotState::Sleeping => {
                drop(state);
                self.done.notify_one();
            }
            SlotState::Polled(waker) => {
                drop(state);
                // It is somebody's code, on the thread that reads.
                guarded("a waker", || waker.wake());
            }
            earlier @ (SlotState::Done(_) | SlotState::Taken) => *state = earlier,
        }
    }

    pub(crate) fn is_done(&self) -> bool {
        matches!(*lock(&self.state), SlotState::Done(_) | SlotState::Taken)
    }

    fn take(&self) -> Option<Outcome> {
        Self::take_from(&mut lock(&self.state))
    }

    fn take_from(state: &mut SlotState) -> Option<Outcome> {
        match std::mem::replace(state, SlotState::Taken) {
            SlotState::Done(outcome) => Some(outcome),
            other => {
                *state = other;
                None
            }
        }
    }

    /// Sleeps until the outcome is there or `deadline` has come.
    fn wait(&self, deadline: Option<Instant>) -> Option<Outcome> {
        let mut state = lock(&self.state);
        loop {
            if let Some(outcome) = Self::take_from(&mut state) {
                return Some(outcome);
            }
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                return None;
            }
            // Who polled it before waits for it here now.
            *state = SlotState::Sleeping;
            state = wait_until(&self.done, state, deadline);
        }
    }
}

/// A call whose reply has not been taken yet.
///
/// Wait for it with [`wait`](PendingCall::wait) or [`wait_timeout`](PendingCall::wait_timeout), or `.await` it from
/// any executor. Dropping it forgets the call: its reply is counted ([`Stats::late_replies`](crate::Stats)) and dropped.
#[must_use = "dropping a pending call forgets its reply"]
pub struct PendingCall {
    connection: Connection,
    id: ThreadId,
    slot: Arc<Slot>,
    taken: bool,
    /// Whether a waker waits for it.
    polled: bool,
}

impl PendingCall {
    pub(crate) fn new(connection: Connection, id: ThreadId, slot: Arc<Slot>) -> Self {
        Self { connection, id, slot, taken: false, polled: false }
    }

    /// The thread id that the request went out with.
    #[must_use]
    pub fn thread_id(&self) -> ThreadId {
        self.id
    }

    /// Waits for the bytes of the reply.
    ///
    /// # Errors
    /// Where the other side answered with an error, or the connection ended.
    ///
    /// # Blocking
    /// Until the reply is there or the connection ends. Meanwhile this thread may read for the connection.
    pub fn wait(mut self) -> Result<Vec<u8>, CallError> {
        Ok(self.wait_for_reply()?.buffer)
    }

    /// Waits for the reply as a chunk.
    ///
    /// # Errors
    /// As for [`wait`](PendingCall::wait).
    ///
    /// # Blocking
    /// As for [`wait`](PendingCall::wait).
    pub fn wait_chunk(mut self) -> Result<Chunk, CallError> {
        let Replied { buffer, command } = self.wait_for_reply()?;
        let command = command.map_or_else(|| self.slot.command.to_string(), String::from);
        Ok(Chunk { thread_id: self.id, direction: Direction::Response, command, buffer })
    }

    /// Waits for the reply for at most `timeout`, and forgets the call then.
    ///
    /// # Errors
    /// As for [`wait`](PendingCall::wait), and [`CallError::TimedOut`].
    ///
    /// # Blocking
    /// As for [`wait`](PendingCall::wait), at most for `timeout`.
    pub fn wait_timeout(mut self, timeout: Duration) -> Result<Vec<u8>, CallError> {
        // A time so far off that it cannot be named is none.
        match self.wait_until(Instant::now().checked_add(timeout)) {
            Some(outcome) => Ok(self.finish(outcome)?.buffer),
            None => Err(CallError::TimedOut { command: self.slot.command.to_string(), after: timeout }),
        }
    }

    fn wait_for_reply(&mut self) -> Result<Replied, CallError> {
        match self.wait_until(None) {
            Some(outcome) => self.finish(outcome),
            None => unreachable!("a wait without a deadline ends with an outcome"),
        }
    }

    fn wait_until(&mut self, deadline: Option<Instant>) -> Option<Outcome> {
        let core = self.connection.core();
        if let Some(outcome) = self.slot.take() {
            core.end_leading_ahead();
            return Some(outcome);
        }
        pool::while_blocked(|| {
            if core.is_crowded() {
                core.give_way(&self.slot, deadline);
                if let Some(outcome) = self.slot.take() {
                    return Some(outcome);
                }
            }
            // What other calls left to be sent together, and maybe this one.
            core.flush();
            core.lead_for(&self.slot, deadline);
            if let Some(outcome) = self.slot.take() {
                return Some(outcome);
            }
            core.wait_begins();
            let outcome = self.slot.wait(deadline);
            core.wait_ends();
            outcome
        })
    }

    fn finish(&mut self, outcome: Outcome) -> Result<Replied, CallError> {
        self.taken = true;
        if std::mem::take(&mut self.polled) {
            self.connection.core().wait_ends();
        }
        let asked = || self.slot.command.to_string();
        match outcome {
            Outcome::Reply(replied) => Ok(replied),
            Outcome::Refused(message) => Err(CallError::Remote { command: asked(), message }),
            Outcome::Skipped(reason) => Err(CallError::ReplyTooLarge { command: asked(), reason }),
            Outcome::Overrun { held, limit } => Err(CallError::Overrun { command: asked(), held, limit }),
            Outcome::Closed(reason, postmortem) => {
                Err(CallError::Closed { command: asked(), reason, postmortem })
            }
        }
    }
}

impl Future for PendingCall {
    type Output = Result<Vec<u8>, CallError>;

    /// # Blocking
    /// Never. The waker is woken on the thread that reads for the connection, and must not wait for anything of this
    /// loop: of the calls only [`try_begin_call`](Connection::try_begin_call) never does.
    ///
    /// # Panics
    /// When it is polled again after it was ready.
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        assert!(!self.taken, "a pending call was polled after it had given its reply");
        let outcome = {
            let mut state = lock(&self.slot.state);
            let outcome = Slot::take_from(&mut state);
            if outcome.is_none() {
                match &mut *state {
                    SlotState::Polled(waker) => waker.clone_from(context.waker()),
                    other => *other = SlotState::Polled(context.waker().clone()),
                }
            }
            outcome
        };
        match outcome {
            Some(outcome) => Poll::Ready(self.finish(outcome).map(|replied| replied.buffer)),
            None => {
                if !std::mem::replace(&mut self.polled, true) {
                    self.connection.core().wait_begins();
                }
                Poll::Pending
            }
        }
    }
}

impl Drop for PendingCall {
    fn drop(&mut self) {
        if !self.taken {
            self.connection.core().forget(self.id);
        }
        if self.polled {
            self.connection.core().wait_ends();
        }
    }
}

impl std::fmt::Debug for PendingCall {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PendingCall")
            .field("id", &self.id)
            .field("command", &self.slot.command)
            .finish_non_exhaustive()
    }
}
