//! A call that waits for its reply.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use pipeplug_wire::{Chunk, Direction, EncodeError, SkipReason, ThreadId};
use smol_str::SmolStr;

use crate::connection::Connection;
use crate::connection::read::last_look::{EACH, LONGEST, Look};
use crate::error::CloseReason;
use crate::escape::Escaped;
use crate::event_loop::thread_pool::{self, Awaits};
use crate::event_loop::timers::Alarm;
use crate::postmortem::Postmortem;
use crate::protocol::deadline::{Deadline, sooner};
use crate::protocol::flow::Credit;
use crate::sync::clock::coarse_now;
use crate::sync::lock::{guarded, lock, renew, wait_until};
use crate::sync::{Condvar, Instant, Mutex};

/// Why a call brought no reply.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum CallError {
    /// The other side answered with an error (`cmd.error`); the message is its own.
    #[error("{command}: {}", Escaped(message))]
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
    /// No reply came in time, which is that of the call, of whoever waited for it, or of the request whose handler made it.
    /// The call is given up, and its late reply will be dropped.
    #[error("{command}: no reply within {}", Rounded(*.after))]
    TimedOut {
        /// The command that was called.
        command: String,
        /// How long it was waited for.
        after: Duration,
    },
    /// The time was over before the call was sent, while the other side was behind with what was sent earlier, or from
    /// the start: nothing of it reached the other side.
    #[error("{command}: {}", not_sent(*.after, *.credit))]
    NotSent {
        /// The command that was called.
        command: String,
        /// How long it waited to be sent; 0 where its deadline had passed when it was made.
        after: Duration,
        /// The credit that it waited for, where that is what it waited for.
        credit: Option<Credit>,
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

fn not_sent(after: Duration, credit: Option<Credit>) -> String {
    if after.is_zero() {
        return "not sent: its deadline, or that of the request whose handler made it, had passed already"
            .into();
    }
    let after = Rounded(after);
    match credit {
        Some(credit) => format!("not sent within {after}: {credit}"),
        None => format!("not sent within {after}: the other side is behind with what was sent before"),
    }
}

/// A time as a reader wants it: to the millisecond, where it is longer than one.
struct Rounded(Duration);

impl std::fmt::Display for Rounded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match u64::try_from(self.0.as_nanos().div_ceil(1_000_000)) {
            Ok(millis @ 2..) => write!(f, "{:?}", Duration::from_millis(millis)),
            _ => write!(f, "{:?}", self.0),
        }
    }
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
    /// The other side answered for the call's deadline.
    Late,
    Skipped(SkipReason),
    Overrun {
        held: usize,
        limit: usize,
    },
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
    /// By when it has to be over.
    pub(crate) deadline: Option<Instant>,
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
    pub(crate) fn new(command: &str, deadline: Option<Instant>) -> Arc<Self> {
        Arc::new(Self {
            command: command.into(),
            begun: coarse_now(),
            deadline,
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

    /// Sleeps until the outcome is there, without taking it, or `deadline` has come; whether it is there.
    pub(crate) fn wait_done(&self, deadline: Option<Instant>) -> bool {
        let mut state = lock(&self.state);
        loop {
            if matches!(*state, SlotState::Done(_) | SlotState::Taken) {
                return true;
            }
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                return false;
            }
            *state = SlotState::Sleeping;
            state = wait_until(&self.done, state, deadline);
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
/// any executor. Dropping it gives the call up, as [`cancel`](PendingCall::cancel) does.
#[must_use = "dropping a pending call gives it up"]
pub struct PendingCall {
    connection: Connection,
    id: ThreadId,
    slot: Arc<Slot>,
    /// Apart, so that the others, of which there may be many, stay small.
    timed: Option<Box<Timed>>,
    taken: bool,
    /// Whether a waker waits for it.
    polled: bool,
}

/// What a call with a deadline has besides.
struct Timed {
    deadline: Deadline,
    /// Wakes the task that awaits it when the deadline comes.
    alarm: Option<Alarm>,
    /// When the first look into the pipe was that did not see it through.
    looks_since: Option<Instant>,
}

impl PendingCall {
    pub(crate) fn new(
        connection: Connection,
        id: ThreadId,
        slot: Arc<Slot>,
        deadline: Option<Deadline>,
    ) -> Self {
        let timed = deadline.map(|deadline| Box::new(Timed { deadline, alarm: None, looks_since: None }));
        Self { connection, id, slot, timed, taken: false, polled: false }
    }

    /// The thread id that the request went out with.
    #[must_use]
    pub fn thread_id(&self) -> ThreadId {
        self.id
    }

    /// Waits for the bytes of the reply.
    ///
    /// # Errors
    /// Where the other side answered with an error, or the connection ended; [`CallError::TimedOut`] for a call with a
    /// deadline.
    ///
    /// # Blocking
    /// Until the reply is there, the call's deadline passes, or the connection ends. Meanwhile this thread may read for the
    /// connection.
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

    /// Waits for the reply for at most `timeout`, and gives the call up then. The other side is not told of this deadline
    /// ahead, as it is with [`begin_call_within`](Connection::begin_call_within).
    ///
    /// # Errors
    /// As for [`wait`](PendingCall::wait), and [`CallError::TimedOut`].
    ///
    /// # Blocking
    /// As for [`wait`](PendingCall::wait), at most for `timeout`.
    pub fn wait_timeout(mut self, timeout: Duration) -> Result<Vec<u8>, CallError> {
        // A time so far off that it cannot be named is none.
        let until = Instant::now().checked_add(timeout);
        let deadline = self.deadline();
        match self.wait_until(sooner(until, deadline.map(|deadline| deadline.at))) {
            Some(outcome) => Ok(self.finish(outcome)?.buffer),
            None => Err(match deadline {
                Some(deadline) if until.is_none_or(|until| deadline.at < until) => {
                    self.timed_out(deadline.within)
                }
                _ => self.timed_out(timeout),
            }),
        }
    }

    /// Gives the call up: its reply, should there be one, is counted ([`Stats::late_replies`](crate::Stats)) and dropped.
    /// Where both sides negotiated `cancel` the other side's handler is told
    /// ([`Incoming::cancellation`](crate::Incoming::cancellation)), and where none has begun yet none will.
    pub fn cancel(self) {
        drop(self);
    }

    fn deadline(&self) -> Option<Deadline> {
        self.timed.as_ref().map(|timed| timed.deadline)
    }

    fn timed_out(&self, after: Duration) -> CallError {
        CallError::TimedOut { command: self.slot.command.to_string(), after }
    }

    fn wait_for_reply(&mut self) -> Result<Replied, CallError> {
        let deadline = self.deadline();
        match (self.wait_until(deadline.map(|deadline| deadline.at)), deadline) {
            (Some(outcome), _) => self.finish(outcome),
            (None, Some(deadline)) => Err(self.timed_out(deadline.within)),
            (None, None) => unreachable!("a wait without a deadline ends with an outcome"),
        }
    }

    fn wait_until(&mut self, deadline: Option<Instant>) -> Option<Outcome> {
        let core = self.connection.core();
        if let Some(outcome) = self.slot.take() {
            core.end_leading_ahead();
            return Some(outcome);
        }
        thread_pool::while_blocked(Awaits::Peer, || {
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
            outcome.or_else(|| {
                core.look_until_through(&self.slot);
                self.slot.take()
            })
        })
    }

    /// Nobody wants the reply any more, if it has not been taken.
    fn give_up(&mut self) {
        if !std::mem::replace(&mut self.taken, true) {
            self.connection.core().forget(self.id);
        }
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
            Outcome::Late => {
                let within = self.deadline().map_or(Duration::ZERO, |deadline| deadline.within);
                Err(self.timed_out(within))
            }
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
        let (outcome, earlier) = {
            let mut state = lock(&self.slot.state);
            let outcome = Slot::take_from(&mut state);
            let earlier = match &mut *state {
                _ if outcome.is_some() => None,
                SlotState::Polled(waker) => renew(waker, context.waker()),
                other => {
                    *other = SlotState::Polled(context.waker().clone());
                    None
                }
            };
            (outcome, earlier)
        };
        drop(earlier); // outside of the lock: it is somebody's code
        if let Some(outcome) = outcome {
            return Poll::Ready(self.finish(outcome).map(|replied| replied.buffer));
        }
        let this = &mut *self;
        if let Some(timed) = &mut this.timed {
            let deadline = timed.deadline;
            let (core, waker) = (this.connection.core(), context.waker());
            let now = Instant::now();
            if now >= deadline.at {
                let look = core.look();
                if let Some(outcome) = this.slot.take() {
                    return Poll::Ready(this.finish(outcome).map(|replied| replied.buffer));
                }
                let since = *timed.looks_since.get_or_insert(now);
                if look == Look::Through || now.saturating_duration_since(since) >= LONGEST {
                    this.give_up();
                    return Poll::Ready(Err(this.timed_out(deadline.within)));
                }
                timed.alarm = Some(Alarm::set(core, now + EACH, waker.clone()));
            } else {
                match &timed.alarm {
                    Some(alarm) => alarm.renew(waker),
                    None => timed.alarm = Some(Alarm::set(core, deadline.at, waker.clone())),
                }
            }
        }
        if !std::mem::replace(&mut self.polled, true) {
            self.connection.core().wait_begins();
        }
        Poll::Pending
    }
}

impl Drop for PendingCall {
    fn drop(&mut self) {
        self.give_up();
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
