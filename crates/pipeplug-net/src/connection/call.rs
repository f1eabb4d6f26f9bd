//! A call that waits for its reply.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use pipeplug_wire::{Chunk, Direction, SkipReason, ThreadId};
use smol_str::SmolStr;

use super::Connection;
use super::call_error::{CallError, Sent};
use super::call_times::CallTimes;
use super::caller::PendingReply;
use super::cancel_handle::{CancelHandle, CancelTarget};
use super::handler::Reply;
use super::read::final_read::{FinalRead, LONGEST, RETRY};
use crate::clock::{has_passed, has_passed_at};
use crate::error::CloseReason;
use crate::event_loop::thread_pool::{self, BlockedOn};
use crate::event_loop::timers::Timer;
use crate::postmortem::Postmortem;
use crate::protocol::deadline::{Deadline, sooner};
use crate::protocol::failure::Failure;
use crate::sync::clock::{coarse_now, exact_now};
use crate::sync::lock::{guarded, lock, renew, wait_until};
use crate::sync::{Condvar, Instant, Mutex};

/// How a call ended, without its command.
#[derive(Debug)]
pub(crate) enum CallOutcome {
    Reply(ReplyParts),
    Refused(Box<Failure>),
    /// The other side answered because of the call's deadline.
    Late,
    Skipped(SkipReason),
    Overrun {
        held: usize,
        limit: usize,
    },
    Closed(Arc<CloseReason>, Arc<Postmortem>),
    /// Given up through a [`CancelHandle`].
    Cancelled,
}

#[derive(Debug)]
pub(crate) struct ReplyParts {
    pub(crate) buffer: Vec<u8>,
    /// `None` if it is the request's.
    pub(crate) command: Option<Box<str>>,
}

/// Place for the outcome of a call, where it is waited for.
#[derive(Debug)]
pub(crate) struct CallSlot {
    pub(crate) command: SmolStr,
    /// Time of the call, by the [coarse clock](coarse_now), or by the
    /// [exact one](exact_now) if calls are measured.
    pub(crate) begun: Duration,
    pub(crate) deadline: Option<Instant>,
    state: Mutex<SlotState>,
    done: Condvar,
}

#[derive(Debug, Default)]
enum SlotState {
    /// No thread sleeps, and no task waits.
    #[default]
    Waiting,
    /// A thread sleeps on `done`. Kept apart from `Waiting`, since a notification costs a system
    /// call even if no thread sleeps.
    Sleeping,
    Polled(Waker),
    Done(CallOutcome),
    Taken,
}

impl CallSlot {
    pub(crate) fn new(
        command: &str,
        deadline: Option<Deadline>,
        times: Option<&CallTimes>,
    ) -> Arc<Self> {
        Arc::new(Self {
            command: command.into(),
            begun: if times.is_some() { exact_now() } else { coarse_now() },
            deadline: deadline.map(|deadline| deadline.at),
            state: Mutex::default(),
            done: Condvar::new(),
        })
    }

    /// Ends the call. Only the first outcome counts.
    pub(crate) fn complete(&self, outcome: CallOutcome) {
        let mut state = lock(&self.state);
        // The sleeper looks at the state under this lock before it sleeps. So it is notified after
        // the lock is released, and does not wake up only to wait for it.
        match std::mem::replace(&mut *state, SlotState::Done(outcome)) {
            SlotState::Waiting => {}
            SlotState::Sleeping => {
                drop(state);
                self.done.notify_one();
            }
            SlotState::Polled(waker) => {
                drop(state);
                // Code of the user, on the thread that reads.
                guarded("a waker", || waker.wake());
            }
            earlier @ (SlotState::Done(_) | SlotState::Taken) => *state = earlier,
        }
    }

    pub(crate) fn is_done(&self) -> bool {
        matches!(*lock(&self.state), SlotState::Done(_) | SlotState::Taken)
    }

    fn take(&self) -> Option<CallOutcome> {
        Self::take_from(&mut lock(&self.state))
    }

    fn take_from(state: &mut SlotState) -> Option<CallOutcome> {
        match std::mem::replace(state, SlotState::Taken) {
            SlotState::Done(outcome) => Some(outcome),
            other => {
                *state = other;
                None
            }
        }
    }

    /// Sleeps until the outcome is there, without taking it, or `deadline` has passed. Returns true
    /// if it is there.
    pub(crate) fn wait_done(&self, deadline: Option<Instant>) -> bool {
        let mut state = lock(&self.state);
        loop {
            if matches!(*state, SlotState::Done(_) | SlotState::Taken) {
                return true;
            }
            if deadline.is_some_and(has_passed) {
                return false;
            }
            *state = SlotState::Sleeping;
            state = wait_until(&self.done, state, deadline);
        }
    }

    /// Sleeps until the outcome is there or `deadline` has passed.
    fn wait(&self, deadline: Option<Instant>) -> Option<CallOutcome> {
        let mut state = lock(&self.state);
        loop {
            if let Some(outcome) = Self::take_from(&mut state) {
                return Some(outcome);
            }
            if deadline.is_some_and(has_passed) {
                return None;
            }
            // The waker of an earlier poll is dropped: this thread waits now.
            *state = SlotState::Sleeping;
            state = wait_until(&self.done, state, deadline);
        }
    }
}

/// A call whose reply has not been taken yet.
///
/// Wait for it with [`wait`](PendingCall::wait) or [`wait_timeout`](PendingCall::wait_timeout), or
/// `.await` it in any executor. Dropping it gives the call up, as [`cancel`](PendingCall::cancel)
/// does.
#[must_use = "dropping a pending call gives it up"]
pub struct PendingCall {
    connection: Connection,
    id: ThreadId,
    slot: Arc<CallSlot>,
    /// Boxed, so that calls without a deadline, of which there may be many, stay small.
    timed: Option<Box<TimedCall>>,
    taken: bool,
    /// True while a waker waits for it.
    polled: bool,
}

/// Additional state of a call with a deadline.
struct TimedCall {
    deadline: Deadline,
    /// Wakes the task that awaits the call when the deadline passes.
    timer: Option<Timer>,
    /// Time of the first last read that was not complete.
    final_read_since: Option<Instant>,
}

impl PendingCall {
    pub(crate) fn new(
        connection: Connection,
        id: ThreadId,
        slot: Arc<CallSlot>,
        deadline: Option<Deadline>,
    ) -> Self {
        let timed = deadline
            .map(|deadline| Box::new(TimedCall { deadline, timer: None, final_read_since: None }));
        Self { connection, id, slot, timed, taken: false, polled: false }
    }

    /// Thread id of the request.
    #[must_use]
    pub fn thread_id(&self) -> ThreadId {
        self.id
    }

    /// Waits for the reply.
    ///
    /// # Errors
    /// The other side answered with an error, or the connection ended. [`CallError::TimedOut`] for
    /// a call with a deadline.
    ///
    /// # Blocking
    /// Until the reply is there, the call's deadline passes, or the connection ends. Meanwhile this
    /// thread may read for the connection.
    pub fn wait(mut self) -> Result<Reply, CallError> {
        Ok(Reply(self.wait_for_reply()?.buffer))
    }

    /// Waits for the reply as text.
    ///
    /// # Errors
    /// As for [`wait`](PendingCall::wait), and [`CallError::NotText`] for bytes that are no UTF-8.
    ///
    /// # Blocking
    /// As for [`wait`](PendingCall::wait).
    pub fn wait_text(mut self) -> Result<String, CallError> {
        let reply = Reply(self.wait_for_reply()?.buffer);
        reply.into_text_of(&self.slot.command)
    }

    /// Awaits the reply as text.
    ///
    /// # Errors
    /// As for [`wait_text`](PendingCall::wait_text).
    ///
    /// # Cancellation
    /// Dropping the future gives the call up.
    pub async fn wait_text_async(mut self) -> Result<String, CallError> {
        let reply = (&mut self).await?;
        reply.into_text_of(&self.slot.command)
    }

    /// Waits for the reply as a chunk.
    ///
    /// # Errors
    /// As for [`wait`](PendingCall::wait).
    ///
    /// # Blocking
    /// As for [`wait`](PendingCall::wait).
    pub fn wait_chunk(mut self) -> Result<Chunk, CallError> {
        let ReplyParts { buffer, command } = self.wait_for_reply()?;
        let command = command.map_or_else(|| self.slot.command.to_string(), String::from);
        Ok(Chunk { thread_id: self.id, direction: Direction::Response, command, buffer })
    }

    /// Waits for the reply for at most `timeout`, and then gives the call up. The other side does
    /// not know of this limit, as it does with
    /// [`RequestBuilder::timeout`](crate::RequestBuilder::timeout).
    ///
    /// # Errors
    /// As for [`wait`](PendingCall::wait), and [`CallError::TimedOut`].
    ///
    /// # Blocking
    /// As for [`wait`](PendingCall::wait), at most for `timeout`.
    pub fn wait_timeout(mut self, timeout: Duration) -> Result<Reply, CallError> {
        // A time that no `Instant` can hold is no limit.
        let until = self.connection.shared().options.clock.now().checked_add(timeout);
        let deadline = self.deadline();
        match self.wait_until(sooner(until, deadline.map(|deadline| deadline.at))) {
            Some(outcome) => Ok(Reply(self.finish(outcome)?.buffer)),
            None => Err(match deadline {
                Some(deadline) if until.is_none_or(|until| deadline.at < until) => {
                    self.timed_out(deadline.within)
                }
                _ => self.timed_out(timeout),
            }),
        }
    }

    /// Gives the call up. A reply that still comes is counted
    /// ([`Stats::late_replies`](crate::Stats)) and dropped.
    ///
    /// If both sides negotiated `cancel`, the other side's handler learns of it
    /// ([`Request::cancellation`](crate::Request::cancellation)). A handler that has not begun yet
    /// will not begin.
    pub fn cancel(self) {
        drop(self);
    }

    /// Returns a handle with which another thread can give the call up while this one waits, or
    /// while a task awaits it. [`RequestBuilder::cancel_by`](crate::RequestBuilder::cancel_by)
    /// takes one that is there before the call is sent.
    #[must_use]
    pub fn cancel_handle(&self) -> CancelHandle {
        CancelHandle::of(self.cancel_target())
    }

    /// Has a handle give the call up that was made before.
    #[inline]
    pub(crate) fn cancelled_by(self, handle: Option<&CancelHandle>) -> Self {
        if let Some(handle) = handle {
            handle.attach(self.cancel_target());
        }
        self
    }

    fn cancel_target(&self) -> CancelTarget {
        CancelTarget::Call {
            shared: Arc::downgrade(self.connection.shared()),
            id: self.id,
            slot: Arc::downgrade(&self.slot),
        }
    }

    pub(crate) fn command(&self) -> &str {
        &self.slot.command
    }

    /// Time at which the call is given up.
    pub(crate) fn deadline_at(&self) -> Option<Instant> {
        self.slot.deadline
    }

    fn deadline(&self) -> Option<Deadline> {
        self.timed.as_ref().map(|timed| timed.deadline)
    }

    fn timed_out(&self, after: Duration) -> CallError {
        CallError::TimedOut { command: self.slot.command.to_string(), after }
    }

    fn wait_for_reply(&mut self) -> Result<ReplyParts, CallError> {
        let deadline = self.deadline();
        match (self.wait_until(deadline.map(|deadline| deadline.at)), deadline) {
            (Some(outcome), _) => self.finish(outcome),
            (None, Some(deadline)) => Err(self.timed_out(deadline.within)),
            (None, None) => unreachable!("a wait without a deadline ends with an outcome"),
        }
    }

    fn wait_until(&mut self, deadline: Option<Instant>) -> Option<CallOutcome> {
        let shared = self.connection.shared();
        if let Some(outcome) = self.slot.take() {
            // Nothing is left to wait for: the role goes back, if this thread took it for the call.
            shared.end_early_lead();
            return Some(outcome);
        }
        thread_pool::while_blocked(BlockedOn::Peer, || {
            // Cheapest first: yield to other callers, lead, sleep. The slot is looked at after
            // each, since another thread may read the reply at any time.
            if shared.has_other_callers() {
                shared.yield_to_callers(&self.slot, deadline);
                if let Some(outcome) = self.slot.take() {
                    return Some(outcome);
                }
            }
            // Other calls, and maybe this one, were left in the queue to be written together.
            shared.flush();
            shared.lead_until_done(|| self.slot.is_done(), deadline, false);
            if let Some(outcome) = self.slot.take() {
                return Some(outcome);
            }
            // Counted first. A thread that leaves the role vacant from here on sees a sleeper and
            // returns the role to the loop, or a yielding caller reads: this thread's reply is read
            // while it sleeps.
            shared.sleep_begins();
            let outcome = self.slot.wait(deadline);
            shared.leader.sleep_ends();
            outcome.or_else(|| {
                shared.final_read_blocking(&self.slot);
                self.slot.take()
            })
        })
    }

    /// Gives the call up, unless its outcome was taken.
    fn give_up(&mut self) {
        if !std::mem::replace(&mut self.taken, true) {
            self.connection.shared().forget(self.id);
        }
    }

    fn finish(&mut self, outcome: CallOutcome) -> Result<ReplyParts, CallError> {
        self.taken = true;
        if std::mem::take(&mut self.polled) {
            self.connection.shared().leader.sleep_ends();
        }
        let command = || self.slot.command.to_string();
        match outcome {
            CallOutcome::Reply(reply) => Ok(reply),
            CallOutcome::Refused(failure) => {
                let Failure { code, message, data } = *failure;
                let code = (!code.is_empty()).then(|| code.into());
                let data = data.map(Box::new);
                Err(CallError::Remote { command: command(), code, message, data })
            }
            CallOutcome::Late => {
                let within = self.deadline().map_or(Duration::ZERO, |deadline| deadline.within);
                Err(self.timed_out(within))
            }
            CallOutcome::Skipped(reason) => {
                Err(CallError::ReplyTooLarge { command: command(), reason })
            }
            CallOutcome::Overrun { held, limit } => {
                Err(CallError::Overrun { command: command(), held, limit, sent: Sent::Maybe })
            }
            CallOutcome::Closed(reason, postmortem) => {
                let sent = Sent::Maybe;
                Err(CallError::Closed { command: command(), sent, reason, postmortem })
            }
            CallOutcome::Cancelled => {
                Err(CallError::Cancelled { command: command(), sent: Sent::Maybe })
            }
        }
    }
}

impl PendingReply for PendingCall {
    type Error = CallError;

    fn cancel_handle(&self) -> CancelHandle {
        self.cancel_handle()
    }

    fn wait(self) -> Result<Reply, CallError> {
        self.wait()
    }

    fn wait_text(self) -> Result<String, CallError> {
        self.wait_text()
    }

    fn wait_text_async(self) -> impl Future<Output = Result<String, CallError>> + Send {
        self.wait_text_async()
    }

    fn wait_chunk(self) -> Result<Chunk, CallError> {
        self.wait_chunk()
    }

    fn wait_timeout(self, timeout: Duration) -> Result<Reply, CallError> {
        self.wait_timeout(timeout)
    }
}

impl Future for PendingCall {
    type Output = Result<Reply, CallError>;

    /// # Blocking
    /// Never. The waker is woken on the thread that reads for the connection. It must not wait for
    /// anything of this event loop; of the calls only
    /// [`nonblocking`](crate::RequestBuilder::nonblocking) ones never do.
    ///
    /// # Panics
    /// When it is polled again after it was ready.
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        assert!(!self.taken, "a pending call was polled after it had given its reply");
        self.connection.shared().note_awaited();
        let (outcome, earlier) = {
            // The outcome is looked for and the waker is stored under one lock: a reply comes
            // before, and is taken here, or after, and wakes the task.
            let mut state = lock(&self.slot.state);
            let outcome = CallSlot::take_from(&mut state);
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
        drop(earlier); // not under the lock: a waker's drop is code of the user
        if let Some(outcome) = outcome {
            return Poll::Ready(self.finish(outcome).map(|reply| Reply(reply.buffer)));
        }
        let this = &mut *self;
        if let Some(timed) = &mut this.timed {
            let deadline = timed.deadline;
            let (shared, waker) = (this.connection.shared(), context.waker());
            // The waker is in the slot by now. A reply that comes during the last read wakes the
            // task once more at worst.
            let now = Instant::now();
            if has_passed_at(deadline.at, now) {
                let final_read = shared.final_read();
                if let Some(outcome) = this.slot.take() {
                    return Poll::Ready(this.finish(outcome).map(|reply| Reply(reply.buffer)));
                }
                let since = *timed.final_read_since.get_or_insert(now);
                if final_read == FinalRead::Complete
                    || now.saturating_duration_since(since) >= LONGEST
                {
                    this.give_up();
                    return Poll::Ready(Err(this.timed_out(deadline.within)));
                }
                timed.timer = Some(shared.timers.set(now + RETRY, waker.clone()));
            } else {
                match &timed.timer {
                    Some(timer) => timer.renew(waker),
                    None => timed.timer = Some(shared.timers.set(deadline.at, waker.clone())),
                }
            }
        }
        // A task counts as a sleeper from its first poll to its end: no thread of its own will read
        // for it.
        if !std::mem::replace(&mut self.polled, true) {
            self.connection.shared().sleep_begins();
        }
        Poll::Pending
    }
}

impl Drop for PendingCall {
    fn drop(&mut self) {
        self.give_up();
        if self.polled {
            self.connection.shared().leader.sleep_ends();
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
