//! State that the halves of a connection share, and sending.

use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use pipeplug_wire::{Calls, Direction, Header, OpenError, ThreadId, command};

use super::call::{CallOutcome, CallSlot};
use super::call_error::{CallError, Sent};
use super::cancel_handle::CancelHandle;
use super::close::Close;
use super::handler::Handler;
use super::progress::{ProgressFeeds, ProgressSender};
use super::read::Reader;
use super::read::leader::Leader;
use super::serve::queue::ServeQueue;
use super::stream::error::StreamError;
use super::stream::{CallStream, Origin, StreamKey, Streams};
use super::{Connection, Handle};
use crate::event_loop::timers::Timers;
use crate::event_loop::{EventLoop, Ready, Source};
use crate::options::Options;
use crate::payload::Payload;
use crate::protocol::context::{RequestContext, StreamMode};
use crate::protocol::deadline::Deadline;
use crate::sync::Instant;
use crate::sync::lock::lock;
use crate::sync::{
    Mutex,
    atomic::{AtomicBool, AtomicU64, Ordering},
};
use crate::sys::Stream;
use crate::writer::{Blocking, Flush, Next, SendClass, SendError, SendPermit, WaitPolicy, Writer};

// Order of locks. A thread that holds one takes only those to the right of it.
//
//   leader.reader -+-> queue of the writer -+-> serve_queue --> state of the thread pool
//                  |                        +-> state of the event loop
//                  +-> close.phase ---------+-> serve_queue
//                  +-> leader.dedicated_lock -> leader.registered -> state of the event loop
//
// The lock of a reporter of progress is taken before all of them: it sends under it.
//
// The table of calls, the slots of calls, the table of streams, both halves of a stream, cancel
// tokens, the slots of progress, timers, the wake pipe and the reasons in `close` are taken last:
// no other lock is taken under them. The writer's queue comes before the
// serve queue, since a sender that has waited for room holds it when it counts as a running worker
// again (`thread_pool::while_blocked`). So nothing is sent under the lock of the serve queue.

/// A connection, without the user's handle.
pub(crate) struct Shared {
    pub(crate) options: Options,
    pub(crate) events: EventLoop,
    pub(crate) handler: Arc<dyn Handler>,
    /// The user's handle. Dangling once the user has dropped the connection.
    pub(crate) handle: OnceLock<Weak<Handle>>,
    pub(crate) calls: Mutex<Calls<Arc<CallSlot>>>,
    pub(crate) call_times: Option<super::call_times::CallTimes>,
    pub(crate) peer: PeerFeatures,
    pub(crate) streams: Streams,
    pub(crate) progress: ProgressFeeds,
    /// Timers of awaited calls and cancellations.
    pub(crate) timers: Arc<Timers>,
    pub(crate) leader: Leader,
    pub(crate) serve_queue: Mutex<ServeQueue>,
    /// True once one-ways have come that no call may be opened for. Set under the lock of the serve
    /// queue.
    pub(crate) is_overrun: AtomicBool,
    pub(crate) writer: Writer,
    pub(crate) close: Close,
    pub(crate) counters: Counters,
    /// True once a task has waited for something of this connection.
    pub(crate) is_awaited: AtomicBool,
}

/// Features that the peer has named.
#[derive(Debug)]
pub(crate) struct PeerFeatures {
    /// True if the peer is told of calls that are given up.
    pub(crate) takes_cancels: AtomicBool,
    /// True once the peer has named its features, without `context`.
    ///
    /// Until then it may be about to name it: its first request can be read before its metadata is
    /// accepted.
    pub(crate) ignores_contexts: AtomicBool,
    /// True if streams may be opened.
    pub(crate) takes_streams: AtomicBool,
    /// True if the peer may be asked for progress.
    pub(crate) reports_progress: AtomicBool,
    /// True if errors are sent with their codes.
    pub(crate) takes_failures: AtomicBool,
    /// True while the peer does not know the window of this side for streams. It then sends one part
    /// after the other, each when the one before was taken.
    pub(crate) lacks_stream_window: AtomicBool,
    /// How much the peer holds of the parts of one stream, in bytes.
    pub(crate) stream_window: AtomicU64,
}

/// Context and progress of a request that is sent, and the handle that gives it up.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Extras<'a> {
    pub(crate) context: Option<&'a RequestContext>,
    pub(crate) progress: Option<&'a ProgressSender>,
    pub(crate) cancel: Option<&'a CancelHandle>,
}

/// A call that was sent.
pub(crate) struct Begun {
    pub(crate) id: ThreadId,
    pub(crate) slot: Arc<CallSlot>,
    pub(crate) stream: Option<Arc<CallStream>>,
}

impl Default for PeerFeatures {
    fn default() -> Self {
        Self {
            takes_cancels: AtomicBool::new(false),
            ignores_contexts: AtomicBool::new(false),
            takes_streams: AtomicBool::new(false),
            reports_progress: AtomicBool::new(false),
            takes_failures: AtomicBool::new(false),
            lacks_stream_window: AtomicBool::new(false),
            // A guest may open streams before its own metadata is accepted. One part fits in any
            // window.
            stream_window: AtomicU64::new(1),
        }
    }
}

/// Faults of the peer that are logged.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    /// Chunks that were skipped.
    pub(crate) skipped: Count,
    /// One-ways of the protocol that made no sense.
    pub(crate) unexpected: Count,
    /// One-ways whose handler failed.
    pub(crate) failed: Count,
    /// Times that more came than the window that was agreed on.
    pub(crate) exceeded: Count,
}

/// Counter of something that a peer may do as often as it likes.
#[derive(Debug, Default)]
pub(crate) struct Count(AtomicU64);

impl Count {
    /// Counts once more. Returns the number if it is to be logged, which it is for powers of two: a
    /// peer must not fill the host's log.
    pub(crate) fn count(&self) -> Option<u64> {
        Some(self.0.fetch_add(1, Ordering::Relaxed) + 1).filter(|times| times.is_power_of_two())
    }

    pub(crate) fn total(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Shared {
    pub(crate) fn new(
        events: EventLoop,
        reader: Reader,
        writer: Stream,
        options: Options,
        handler: Arc<dyn Handler>,
    ) -> Arc<Self> {
        Arc::new_cyclic(|this: &Weak<Self>| {
            let source: Weak<dyn Source> = Weak::<Self>::clone(this);
            Self {
                handler,
                handle: OnceLock::new(),
                calls: Mutex::new(Calls::new(options.calls)),
                call_times: options.times_calls.then(Default::default),
                peer: PeerFeatures::default(),
                streams: Streams::default(),
                progress: ProgressFeeds::default(),
                timers: Timers::new(&events),
                writer: Writer::new(writer, events.clone(), source, &options, reader.tap.clone()),
                leader: Leader::new(reader),
                serve_queue: Mutex::new(ServeQueue::new(&options)),
                is_overrun: AtomicBool::new(false),
                close: Close::new(),
                counters: Counters::default(),
                is_awaited: AtomicBool::new(false),
                events,
                options,
            }
        })
    }

    /// The user's connection, unless the user has dropped it.
    pub(crate) fn connection(&self) -> Option<Connection> {
        self.handle.get().and_then(Weak::upgrade).map(Connection::from)
    }

    /// Sends a request and opens the call. The reply will come to the slot.
    pub(crate) fn begin(
        self: &Arc<Self>,
        command: &str,
        payload: Payload<'_>,
        blocking: Blocking,
        deadline: Option<Deadline>,
        Extras { context, progress, cancel }: Extras<'_>,
        flush: Flush,
    ) -> Result<Begun, CallError> {
        let begun = self.open_call(
            command,
            deadline,
            context.and_then(|context| context.stream),
            progress,
        )?;
        let header = Header {
            thread_id: begun.id,
            direction: Direction::Request,
            command,
            buffer_len: payload.0.len() as u64,
        };
        let class = request_class(command, blocking, deadline);
        let sent = self
            .permit(class, |shared| shared.wait_to_send_request(class, cancel))
            .and_then(|permit| self.send_permitted(permit, &header, payload, context, flush));
        self.request_sent(sent, begun, command, deadline)
    }

    /// Opens a call whose request is sent next.
    pub(crate) fn open_call(
        self: &Arc<Self>,
        command: &str,
        deadline: Option<Deadline>,
        stream: Option<StreamMode>,
        progress: Option<&ProgressSender>,
    ) -> Result<Begun, CallError> {
        let owned = || command.to_owned();
        if deadline.is_some_and(|deadline| deadline.is_over()) {
            return Err(CallError::NotSent {
                command: owned(),
                after: Duration::ZERO,
                credit: None,
            });
        }
        let slot = CallSlot::new(command, deadline, self.call_times.as_ref());
        if let Some(held) = self.overrun_by_now() {
            let (limit, sent) = (self.options.overrun, Sent::No);
            return Err(CallError::Overrun { command: owned(), held, limit, sent });
        }
        // Opened before the request is sent: the reply may be read by another thread before `send`
        // returns. The end of the connection closes the table after it has set its reason
        // (`reading_ended`), so a call is either in the table then, and is failed, or is refused
        // here with that reason.
        let id = match lock(&self.calls).open(Arc::clone(&slot)) {
            Ok(id) => id,
            Err(OpenError::TooMany { limit, .. }) => {
                return Err(CallError::TooManyCalls { command: owned(), limit });
            }
            Err(OpenError::Closed { .. }) => {
                return Err(self.closed(owned(), Sent::No));
            }
        };
        // Before the request is sent: its response ends the stream.
        let stream = stream.and_then(|mode| {
            let key = StreamKey { origin: Origin::Own, id };
            let stream = self.streams.open(key, mode, false, &self.peer, &self.options);
            // After it was put there: the end of the connection sets `ended` before it looks for
            // streams, so that one of the two sees the other.
            if self.close.ended().is_some() {
                self.end_own_stream(id);
            }
            stream
        });
        if let Some(progress) = progress {
            self.follow_progress(id, progress, deadline.map(|deadline| deadline.at));
        }
        if (stream.is_some() || progress.is_some()) && slot.is_done() {
            // Given up by `give_up_calls`, which may have looked before they were there.
            self.end_own_stream(id);
        }
        // A leader that suspends reading because no call is open stores that first and looks at the
        // calls then. This looks at the role after the call is open: one of the two sees the other.
        self.resume_reading();
        Ok(Begun { id, slot, stream })
    }

    /// Gives up a call whose request was not sent.
    pub(crate) fn close_unsent(self: &Arc<Self>, id: ThreadId) {
        // The slot is dropped after the lock is released.
        let slot = lock(&self.calls).cancel(id);
        drop(slot);
        self.end_own_stream(id);
    }

    /// Returns the call if its request was sent, else its error.
    pub(crate) fn request_sent(
        self: &Arc<Self>,
        sent: Result<(), SendError>,
        begun: Begun,
        command: &str,
        deadline: Option<Deadline>,
    ) -> Result<Begun, CallError> {
        let owned = || command.to_owned();
        match sent {
            Ok(()) => Ok(begun),
            // The call fails with the others, and with their reason, once the owner has said why
            // the peer is gone.
            Err(SendError::Fatal(reason)) if !self.options.reason_timeout.is_zero() => {
                self.end_after_reading(reason);
                Ok(begun)
            }
            Err(error) => {
                // No reply comes for a request that was not sent. The end of the connection may
                // have completed the slot meanwhile: that outcome is dropped for this error.
                self.close_unsent(begun.id);
                Err(match error {
                    SendError::Encode(error) => CallError::Encode { command: owned(), error },
                    SendError::WouldBlock => CallError::WouldBlock { command: owned() },
                    SendError::GivenUp => CallError::Cancelled { command: owned(), sent: Sent::No },
                    SendError::Late(credit) => {
                        let after = deadline.map_or(Duration::ZERO, |deadline| deadline.within);
                        CallError::NotSent { command: owned(), after, credit }
                    }
                    SendError::Closed(reason) => CallError::Closed {
                        command: owned(),
                        sent: Sent::No,
                        reason: self.close.reason_or(reason),
                        postmortem: self.close.postmortem(),
                    },
                    SendError::Fatal(reason) => {
                        self.end_after_reading(reason);
                        // A part of it may have been written, or all of it.
                        self.closed(owned(), Sent::Maybe)
                    }
                })
            }
        }
    }

    fn closed(&self, command: String, sent: Sent) -> CallError {
        CallError::Closed {
            command,
            sent,
            reason: self.close.reason(),
            postmortem: self.close.postmortem(),
        }
    }

    /// Sends a handler's response. Does nothing if the connection has ended: the caller waits no
    /// more.
    pub(crate) fn respond(
        self: &Arc<Self>,
        id: ThreadId,
        command: &str,
        buffer: Vec<u8>,
        flush: Flush,
    ) {
        self.end_peers_stream(id);
        self.send_or_log(SendClass::Reply, id, Direction::Response, command, buffer, flush);
    }

    /// Sends a chunk without waiting for room. Called by the thread that reads.
    pub(crate) fn send_control(
        self: &Arc<Self>,
        id: ThreadId,
        direction: Direction,
        command: &str,
        buffer: Vec<u8>,
    ) {
        self.send_or_log(SendClass::Control, id, direction, command, buffer, Flush::Now);
    }

    /// Tells a peer that negotiated `cancel` that this side has given the call up.
    pub(super) fn send_cancel(self: &Arc<Self>, id: ThreadId) {
        // Relaxed: the flag publishes nothing else. A cancel that is not sent costs the peer a
        // handler's time.
        if self.peer.takes_cancels.load(Ordering::Relaxed) {
            let (direction, buffer) = (Direction::OneWay, Vec::new());
            self.send_or_log(
                SendClass::Control,
                id,
                direction,
                command::CANCEL,
                buffer,
                Flush::Soon,
            );
        }
    }

    pub(crate) fn send_credit(self: &Arc<Self>, total: u64) {
        let buffer = total.to_string().into_bytes();
        self.send_control(ThreadId::new(0), Direction::OneWay, command::CREDIT, buffer);
    }

    pub(super) fn send_or_log(
        self: &Arc<Self>,
        class: SendClass,
        thread_id: ThreadId,
        direction: Direction,
        command: &str,
        buffer: Vec<u8>,
        flush: Flush,
    ) {
        let header = Header { thread_id, direction, command, buffer_len: buffer.len() as u64 };
        let sent = self.send(class, &header, buffer.into(), None, flush);
        self.sent_or_log(sent);
    }

    /// Deals with the error of a chunk that no caller waits for.
    pub(crate) fn sent_or_log(self: &Arc<Self>, sent: Result<(), SendError>) {
        match sent {
            Ok(()) | Err(SendError::Closed(_)) => {}
            Err(SendError::Fatal(reason)) => self.end_after_reading(reason),
            Err(
                error @ (SendError::Encode(_)
                | SendError::WouldBlock
                | SendError::Late(_)
                | SendError::GivenUp),
            ) => {
                // Cannot happen: the command was received or is our own, so that it can be encoded,
                // and these wait.
                tracing::error!(peer = %self.options.name, ?error, "an answer could not be sent");
            }
        }
    }

    /// Sends a chunk: writes it, or leaves it in the queue.
    #[inline]
    pub(super) fn send(
        self: &Arc<Self>,
        class: SendClass,
        header: &Header<'_>,
        payload: Payload<'_>,
        context: Option<&RequestContext>,
        flush: Flush,
    ) -> Result<(), SendError> {
        let permit =
            self.permit(class, |shared| shared.writer.wait_for_permit(class, &|| false))?;
        self.send_permitted(permit, header, payload, context, flush)
    }

    /// Returns the permit to send a chunk of this class. Calls `wait` if the sender has to wait for
    /// it.
    #[inline]
    pub(super) fn permit<'a>(
        self: &'a Arc<Self>,
        class: SendClass,
        wait: impl FnOnce(&'a Arc<Self>) -> Result<SendPermit<'a>, SendError>,
    ) -> Result<SendPermit<'a>, SendError> {
        match self.writer.try_permit(class)? {
            Some(permit) => Ok(permit),
            None => {
                // A thread has to read while this one waits.
                self.end_early_lead();
                wait(self)
            }
        }
    }

    /// Sends a chunk whose sender need not wait.
    #[inline]
    pub(super) fn send_permitted(
        self: &Arc<Self>,
        permit: SendPermit<'_>,
        header: &Header<'_>,
        payload: Payload<'_>,
        context: Option<&RequestContext>,
        flush: Flush,
    ) -> Result<(), SendError> {
        self.after_sending(permit.send(header, payload.0, context, flush)?);
        Ok(())
    }

    /// Does what is left to do once a chunk was sent.
    #[inline]
    pub(super) fn after_sending(self: &Arc<Self>, next: Next) {
        match next {
            Next::Nothing => {}
            // Between two calls the caller flushes when it waits, and the tick of the event loop if
            // it does not.
            Next::Flush if self.is_between_calls() => {}
            Next::Flush => self.flush_on_loop(),
            Next::End(reason) => self.end_after_reading(reason),
        }
    }

    /// Sends small parts of a stream.
    pub(super) fn send_parts(
        self: &Arc<Self>,
        header: &Header<'_>,
        parts: &[&[u8]],
        deadline: Option<Instant>,
        is_given_up: &dyn Fn() -> bool,
    ) -> Result<(), SendError> {
        let class = SendClass::Part { deadline };
        let permit =
            self.permit(class, |shared| shared.writer.wait_for_permit(class, is_given_up))?;
        self.after_sending(permit.send_parts(header, parts)?);
        Ok(())
    }

    /// Has the event loop's thread flush soon.
    fn flush_on_loop(self: &Arc<Self>) {
        // Not registered any more: reading has ended, and the loop would not call this connection.
        if !self.leader.mark_ready(Ready::Writable) {
            self.flush();
        }
    }

    /// Notes that a task waits for something of this connection.
    #[inline]
    pub(crate) fn note_awaited(&self) {
        // The load first: a store each time would take the cache line from the other CPUs. Relaxed:
        // it publishes nothing else.
        if !self.is_awaited.load(Ordering::Relaxed) {
            self.is_awaited.store(true, Ordering::Relaxed);
        }
    }

    /// Writes what is queued.
    pub(crate) fn flush(self: &Arc<Self>) {
        if let Err(reason) = self.writer.flush() {
            self.end_after_reading(reason);
        }
    }

    /// Gives a call up: no one waits for it any more.
    pub(crate) fn forget(self: &Arc<Self>, id: ThreadId) {
        // The slot is dropped after the lock is released: it may hold a waker, which is code of the
        // user.
        let slot = lock(&self.calls).cancel(id);
        if slot.is_some() {
            self.give_up_own_stream(id);
            self.send_cancel(id);
        }
    }

    /// Fails every open call: reading on for their replies would hold more than the limit.
    pub(crate) fn give_up_calls(self: &Arc<Self>, held: usize, limit: usize) {
        let open: Vec<_> = {
            // Taken out under one lock, so that no reply completes one of them in between, and
            // completed after it: a waker is code of the user.
            let mut calls = lock(&self.calls);
            let ids: Vec<_> = calls.iter().map(|(id, _)| id).collect();
            ids.into_iter().filter_map(|id| Some((id, calls.cancel(id)?))).collect()
        };
        let streams = self.streams.take_all();
        if open.is_empty() && streams.is_empty() {
            return;
        }
        tracing::warn!(peer = %self.options.name, held, limit, calls = open.len(), streams = streams.len(),
            "calls and streams are given up: too many one-ways wait for handlers");
        for (id, slot) in open {
            slot.complete(CallOutcome::Overrun { held, limit });
            self.send_cancel(id);
        }
        for stream in streams {
            self.give_up_stream(&stream, &StreamError::Overrun { held, limit });
        }
    }
}

/// Class of a request with this command.
pub(crate) fn request_class(
    command: &str,
    blocking: Blocking,
    deadline: Option<Deadline>,
) -> SendClass {
    let policy = WaitPolicy { blocking, deadline: deadline.map(|deadline| deadline.at) };
    if command::is_reserved(command) {
        SendClass::Uncounted(policy)
    } else {
        SendClass::FlowControlled(policy)
    }
}

/// Counts a deferred answer as given when it is dropped, whatever panicked.
pub(crate) struct DeferredGuard(pub(crate) Arc<Shared>);

impl Drop for DeferredGuard {
    fn drop(&mut self) {
        self.0.deferred_done();
    }
}

impl Source for Shared {
    fn ready(self: Arc<Self>, what: Ready) {
        if what != Ready::Writable {
            self.read_on_loop();
        }
        if what != Ready::Readable
            && let Err(reason) = self.writer.writable()
        {
            self.end_after_reading(reason);
        }
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("name", &self.options.name).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn powers_of_two_are_logged() {
        let count = Count::default();
        let logged: Vec<_> = (0..20).filter_map(|_| count.count()).collect();
        assert_eq!((logged.as_slice(), count.total()), (&[1, 2, 4, 8, 16][..], 20));
    }
}
