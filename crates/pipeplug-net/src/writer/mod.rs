//! Sends chunks: queues them, and decides which thread writes them.
//!
//! A thread that has something to send writes it itself, directly from its own memory, if nothing
//! else waits. While one thread writes, the others leave their chunks in the queue and return, and
//! the writing thread takes all of them in one write (group commit). What the pipe does not take
//! now is written by the event loop's thread when it does.
//!
//! The writer knows no connection. It registers its descriptor with the event loop, and returns
//! what its owner has to do next ([`Next`]).

mod classic;
mod flush;
mod queue;
mod room;
mod unflushed;

use std::borrow::Cow;
use std::num::NonZeroUsize;
use std::sync::{Arc, Weak};
use std::time::Duration;

use pipeplug_wire::{Direction, EncodeError, Format, Header, command};

use crate::clock::{first_to_look_at, has_passed};
use crate::error::CloseReason;
use crate::event_loop::thread_pool::{self, BlockedOn};
use crate::event_loop::{EventLoop, Source};
use crate::options::Options;
use crate::postmortem::ChunkHead;
use crate::protocol::context::RequestContext;
use crate::protocol::flow::{Credit, weight};
use crate::recording::tap::Tap;
use crate::sync::lock::{lock, wait_until};
use crate::sync::{Condvar, Instant, Mutex, MutexGuard};
use crate::sys::Stream;
use flush::WriteFailure;
use queue::{Ending, WriteQueue};
pub(crate) use room::{PermitPoll, RoomWait};

/// Queued bytes from which a delayed chunk is written at once: half of a pipe of the usual size.
const ENOUGH: usize = 32 << 10;
/// Time that a sender waits for credit before that is logged.
const CREDIT_NOTICE: Duration = Duration::from_secs(5);

/// Kind of chunk, which decides what its sender waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SendClass {
    /// A request or one-way: waits for room in the queue and in the peer's window.
    FlowControlled(WaitPolicy),
    /// A request that the peer's reading thread answers itself: waits for nothing but the format,
    /// so that a ping detects a peer that reads no more.
    Uncounted(WaitPolicy),
    /// A handler's response: waits for room in the queue.
    Reply,
    /// A part of a stream: waits for room in the queue, until a deadline.
    Part { deadline: Option<Instant> },
    /// A part of a stream whose sender has waited for room: never waits.
    Admitted,
    /// A chunk of the reading thread, or a `cmd.*`: never waits.
    Control,
}

/// How long a sender waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct WaitPolicy {
    pub(crate) blocking: Blocking,
    /// Latest time to wait until. Sent to a peer that negotiated `context`.
    pub(crate) deadline: Option<Instant>,
}

impl WaitPolicy {
    pub(crate) const WAIT: Self = Self { blocking: Blocking::Allowed, deadline: None };
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Blocking {
    Allowed,
    Never,
}

/// When a chunk is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flush {
    Now,
    /// At once, unless this sender sends chunk after chunk: then together with the next chunk, or
    /// by the event loop.
    Soon,
    /// Together with the next chunk, or when the sender flushes, which it does soon.
    Later,
}

/// Next step for the owner of the writer.
#[derive(Debug)]
#[must_use]
pub(crate) enum Next {
    Nothing,
    /// Nothing writes the queue: flush it soon.
    Flush,
    /// The chunk was sent, and a later one could not be: end the connection for this reason.
    End(CloseReason),
}

/// Reason that a chunk was not sent.
#[derive(Debug)]
pub(crate) enum SendError {
    Closed(Arc<CloseReason>),
    Encode(EncodeError),
    WouldBlock,
    /// The deadline passed while the sender waited, for the peer's credit if it is given.
    Late(Option<Credit>),
    /// The sender wants it sent no more.
    GivenUp,
    /// The connection has to end for this reason.
    Fatal(CloseReason),
}

/// Writing half of a connection.
pub(crate) struct Writer {
    queue: Mutex<WriteQueue>,
    /// Notified when a sender that waits may go on.
    room: Condvar,
    events: EventLoop,
    /// The owner, which gets the readiness of the descriptor.
    source: Weak<dyn Source>,
    /// Name of the connection, for the log.
    name: String,
    /// Limit of queued bytes past which senders wait.
    outgoing: usize,
    /// Limit of queued bytes of responses that no thread can wait for.
    unread: usize,
    transfer: NonZeroUsize,
    /// Recording of the chunks.
    pub(crate) tap: Option<Arc<Tap>>,
}

/// Lock of the queue, held by a sender that need not wait.
pub(crate) struct SendPermit<'a> {
    writer: &'a Writer,
    queue: MutexGuard<'a, WriteQueue>,
    class: SendClass,
}

impl Writer {
    pub(crate) fn new(
        stream: Stream,
        events: EventLoop,
        source: Weak<dyn Source>,
        options: &Options,
        tap: Option<Arc<Tap>>,
    ) -> Self {
        Self {
            queue: Mutex::new(WriteQueue::new(stream, options.format, tap.clone())),
            room: Condvar::new(),
            events,
            source,
            name: options.name.clone(),
            outgoing: options.outgoing.max(1),
            unread: options.unread,
            transfer: options.transfer,
            tap,
        }
    }

    /// Returns the permit to send a chunk of this class, or `None` if the sender has to wait for
    /// it.
    #[inline]
    pub(crate) fn try_permit(&self, class: SendClass) -> Result<Option<SendPermit<'_>>, SendError> {
        let queue = lock(&self.queue);
        let must_wait = self.must_wait(&queue, class)?;
        Ok((!must_wait).then_some(SendPermit { writer: self, queue, class }))
    }

    /// Waits until a chunk of this class may be sent, or `is_given_up` returns true. It is called
    /// under the lock of the queue, and again after each [`wake_senders`](Writer::wake_senders).
    ///
    /// # Blocking
    /// As the class says, on the peer. If this thread is a worker, another one takes its place
    /// where that helps.
    #[cold]
    pub(crate) fn wait_for_permit(
        &self,
        class: SendClass,
        is_given_up: &dyn Fn() -> bool,
    ) -> Result<SendPermit<'_>, SendError> {
        let policy = match class {
            SendClass::FlowControlled(policy) | SendClass::Uncounted(policy) => policy,
            SendClass::Part { deadline } => WaitPolicy { deadline, ..WaitPolicy::WAIT },
            SendClass::Reply | SendClass::Admitted | SendClass::Control => WaitPolicy::WAIT,
        };
        let begun = Instant::now();
        let mut queue = lock(&self.queue);
        while self.must_wait(&queue, class)? {
            if policy.blocking == Blocking::Never {
                return Err(SendError::WouldBlock);
            }
            if policy.deadline.is_some_and(has_passed) {
                return Err(SendError::Late(queue.awaited_credit(class)));
            }
            if is_given_up() {
                return Err(SendError::GivenUp);
            }
            // A sender without a deadline gets no error that would name the cause of the wait.
            let notice = self.log_missing_credit(&mut queue, class, begun);
            queue.senders_waiting += 1;
            // Counted before the lock is released: a thread that makes room from here on notifies.
            // The lock is not held across `while_blocked`, which takes that of the serve queue,
            // starts threads and sends refusals.
            drop(queue);
            let wait = || {
                let queue = lock(&self.queue);
                // Between the two locks the condition may have changed, and the notification was
                // lost then.
                match self.must_wait(&queue, class) {
                    Ok(true) if !is_given_up() => {
                        wait_until(&self.room, queue, first_to_look_at(policy.deadline, notice))
                    }
                    Ok(_) | Err(_) => queue,
                }
            };
            queue = match class {
                SendClass::FlowControlled(_) | SendClass::Uncounted(_) => {
                    thread_pool::while_blocked(BlockedOn::Peer, wait)
                }
                SendClass::Part { .. }
                | SendClass::Reply
                | SendClass::Admitted
                | SendClass::Control => thread_pool::while_unread(wait),
            };
            // The condition is looked at again: all waiters are notified, and another one may have
            // taken the room.
            queue.senders_waiting -= 1;
        }
        Ok(SendPermit { writer: self, queue, class })
    }

    /// Has threads that wait to send look whether they still want to.
    pub(crate) fn wake_senders(&self) {
        // Under the lock, under which a sender looks before it sleeps.
        let queue = lock(&self.queue);
        if queue.senders_waiting > 0 {
            self.room.notify_all();
        }
    }

    #[inline]
    fn must_wait(&self, queue: &WriteQueue, class: SendClass) -> Result<bool, SendError> {
        let is_counted = matches!(class, SendClass::FlowControlled(_));
        let is_new = is_counted || matches!(class, SendClass::Uncounted(_));
        match &queue.ending {
            Ending::Ended(reason) => return Err(SendError::Closed(Arc::clone(reason))),
            Ending::AfterFlush if is_new => {
                return Err(SendError::Closed(Arc::new(CloseReason::Local)));
            }
            Ending::AfterFlush | Ending::No => {}
        }
        let must_wait = queue.format.is_none()
            || (matches!(
                class,
                SendClass::FlowControlled(_) | SendClass::Reply | SendClass::Part { .. }
            ) && queue.queued >= self.outgoing)
            || (is_counted && !queue.window.is_open());
        match &queue.silent {
            Some(reason) if must_wait && is_new => Err(SendError::Closed(Arc::clone(reason))),
            _ => Ok(must_wait),
        }
    }

    /// Logs once that a sender has waited for credit for [`CREDIT_NOTICE`] since `begun`. Returns
    /// the time of that while it is still to come.
    fn log_missing_credit(
        &self,
        queue: &mut WriteQueue,
        class: SendClass,
        begun: Instant,
    ) -> Option<Instant> {
        let credit = queue.awaited_credit(class).filter(|_| queue.logs_missing_credit)?;
        let at = begun.checked_add(CREDIT_NOTICE)?;
        if Instant::now() < at {
            return Some(at);
        }
        queue.logs_missing_credit = false; // until there is some
        tracing::warn!(peer = %self.name, "what is sent has waited for {CREDIT_NOTICE:?}: {credit}");
        None
    }

    /// Sets the format, which the peer's first chunk has told.
    pub(crate) fn set_format(&self, format: Format) {
        let mut queue = lock(&self.queue);
        if queue.format.is_none() {
            queue.format = Some(format);
            self.notify_room(&mut queue);
        }
    }

    /// Sends contexts from now on: the peer negotiated `context`.
    pub(crate) fn tell_contexts(&self) {
        lock(&self.queue).tells_contexts = true;
    }

    /// Returns true if contexts are sent.
    pub(crate) fn tells_contexts(&self) -> bool {
        lock(&self.queue).tells_contexts
    }

    /// Applies the peer's window from now on: the peer negotiated `flow`.
    pub(crate) fn negotiated(&self, window: u64) {
        lock(&self.queue).window.negotiated(window);
    }

    /// Notes that the peer's handlers have taken `total` bytes of weight. Returns false if that
    /// cannot be.
    pub(crate) fn credit(&self, total: u64) -> bool {
        let mut queue = lock(&self.queue);
        let valid = queue.window.credit(total);
        queue.logs_missing_credit |= valid;
        if valid && queue.has_waiting() {
            self.notify_room(&mut queue);
        }
        valid
    }

    /// Accepts nothing more but responses, and closes the descriptor when everything is written.
    pub(crate) fn close_after_flush(&self) -> Result<(), CloseReason> {
        let mut queue = lock(&self.queue);
        if let Ending::No = queue.ending {
            queue.ending = Ending::AfterFlush;
        }
        if queue.has_waiting() {
            self.notify_room(&mut queue);
        }
        drop(queue);
        self.flush()
    }

    /// Drops what is queued and closes the descriptor.
    pub(crate) fn end(&self, reason: &Arc<CloseReason>) {
        let mut queue = lock(&self.queue);
        if !matches!(queue.ending, Ending::Ended(_)) {
            queue.ending = Ending::Ended(Arc::clone(reason));
        }
        queue.discard();
        // Without the descriptor a thread writes at this moment. It looks at `ending` under this
        // lock after each write, and closes the descriptor itself.
        if let Some(stream) = queue.stream.take() {
            queue.close(stream);
        }
        self.notify_room(&mut queue);
    }

    /// Fails the senders that would have to wait for the peer: no chunk will tell the format any
    /// more, and no credit will come.
    pub(crate) fn reading_ended(&self, reason: &Arc<CloseReason>) {
        let mut queue = lock(&self.queue);
        if queue.format.is_none() {
            queue.ending = Ending::Ended(Arc::clone(reason));
        }
        queue.silent = Some(Arc::clone(reason));
        self.notify_room(&mut queue);
    }

    /// Waits until the queue is empty and no thread writes.
    pub(crate) fn wait_written(&self, deadline: Option<Instant>) -> bool {
        let mut queue = lock(&self.queue);
        while queue.queued > 0
            || (queue.stream.is_none() && !matches!(queue.ending, Ending::Ended(_)))
        {
            if deadline.is_some_and(has_passed) {
                return false;
            }
            queue.senders_waiting += 1;
            queue = wait_until(&self.room, queue, deadline);
            queue.senders_waiting -= 1;
        }
        true
    }

    /// The credit that a sender waits for, if one does.
    pub(crate) fn awaited_credit(&self) -> Option<Credit> {
        let queue = lock(&self.queue);
        queue.window.missing().filter(|_| queue.has_waiting())
    }

    /// Number of queued bytes.
    pub(crate) fn queued(&self) -> usize {
        lock(&self.queue).queued
    }

    /// Headers of the last chunks that were sent.
    pub(crate) fn recent(&self) -> Vec<ChunkHead> {
        let queue = lock(&self.queue);
        queue.recent.heads_sent(queue.sent())
    }
}

impl SendPermit<'_> {
    /// Sends a chunk: writes it, or leaves it in the queue. `context` is what is told of it in
    /// addition to its deadline.
    #[inline]
    pub(crate) fn send(
        self,
        header: &Header<'_>,
        payload: Cow<'_, [u8]>,
        context: Option<&RequestContext>,
        flush: Flush,
    ) -> Result<Next, SendError> {
        let Self { writer, mut queue, class } = self;
        let format = queue.format.unwrap_or_default();
        let weight = match class {
            SendClass::FlowControlled(_) => weight(header.command.len(), payload.len()),
            _ => 0,
        };
        let before = queue.queued;
        if let SendClass::FlowControlled(WaitPolicy { deadline, .. }) = class
            && (deadline.is_some() || context.is_some())
            && queue.tells_contexts
        {
            // Under one lock with its request: nothing may come in between.
            header.check(format).map_err(SendError::Encode)?;
            queue.append_context(format, header, context, deadline)?;
        }
        queue.append(format, header, payload).map_err(SendError::Encode)?;
        queue.window.sent(weight);
        // The number of these grows with what the peer sends. That of cancels and stops is up to
        // this side.
        let is_asked_for = header.direction == Direction::Response
            || matches!(header.command, command::CREDIT | command::PART_CREDIT);
        if class == SendClass::Control && is_asked_for {
            let len = queue.queued - before;
            queue.unflushed.answered(len);
            let (queued, limit) = (queue.unflushed.bytes(), writer.unread);
            if queued > limit {
                return Err(SendError::Fatal(CloseReason::Unread { queued, limit }));
            }
        }
        writer.flush_appended(queue, before, flush)
    }

    /// Sends small parts of a stream, with one look at the queue. `header` has their id and
    /// direction.
    pub(crate) fn send_parts(
        self,
        header: &Header<'_>,
        parts: &[&[u8]],
    ) -> Result<Next, SendError> {
        let Self { writer, mut queue, .. } = self;
        let format = queue.format.unwrap_or_default();
        let before = queue.queued;
        for part in parts {
            let header = Header { buffer_len: part.len() as u64, ..*header };
            queue.append(format, &header, Cow::Borrowed(part)).map_err(SendError::Encode)?;
        }
        writer.flush_appended(queue, before, Flush::Soon)
    }
}

impl Writer {
    /// Writes what was appended to a queue of `before` bytes, or leaves it.
    #[inline]
    fn flush_appended(
        &self,
        mut queue: MutexGuard<'_, WriteQueue>,
        before: usize,
        flush: Flush,
    ) -> Result<Next, SendError> {
        let writer = self;
        if queue.is_full || queue.stream.is_none() {
            // The event loop waits for the pipe, or another thread writes and takes this chunk
            // along: it puts the descriptor back under this lock, and only if it finds the queue
            // empty (`write_queue`).
            return Ok(Next::Nothing);
        }
        let was_empty = before == 0;
        let is_left = match flush {
            Flush::Now => false,
            Flush::Later => true,
            Flush::Soon if was_empty => queue.burst.is_on(Instant::now()),
            // The sender of what is queued has arranged for the flush.
            Flush::Soon => true,
        };
        if is_left && queue.queued < ENOUGH.min(writer.outgoing) {
            return Ok(if flush == Flush::Soon && was_empty { Next::Flush } else { Next::Nothing });
        }
        // From here to the end of `write_queue` this thread writes what all others queue.
        let Some(stream) = queue.stream.take() else { unreachable!("it was there above") };
        let end = queue.unflushed.total();
        match writer.write_queue(queue, stream) {
            Ok(()) => Ok(Next::Nothing),
            // A later chunk, of another thread, could not be written.
            Err(WriteFailure { reason, written }) if written >= end => Ok(Next::End(reason)),
            Err(WriteFailure { reason, .. }) => Err(SendError::Fatal(reason)),
        }
    }
}
