//! Connections: calls, one-ways, and the end. Both sides are the same.

pub(crate) mod async_handler;
pub(crate) mod awaited;
pub(crate) mod call;
pub(crate) mod call_error;
pub(crate) mod call_times;
pub(crate) mod caller;
mod caller_methods;
pub(crate) mod cancel_handle;
pub(crate) mod cancellation;
pub(crate) mod close;
mod endpoint;
pub(crate) mod handler;
pub(crate) mod handshake;
pub(crate) mod one_way;
pub(crate) mod progress;
pub(crate) mod read;
mod reply;
mod reserved;
pub(crate) mod responder;
pub(crate) mod serve;
pub(crate) mod shared;
pub(crate) mod stream;
pub(crate) mod turn;

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use pipeplug_wire::{Chunk, ThreadId};

use crate::caller_methods;
use crate::clock::Clock;
use crate::error::CloseReason;
use crate::escape::Escaped;
use crate::event_loop::EventLoop;
use crate::options::Options;
use crate::payload::Payload;
use crate::postmortem::Postmortem;
use crate::protocol::context::{self, RequestContext, StreamMode};
use crate::protocol::deadline::Deadline;
use crate::protocol::flow::Credit;
use crate::sync::Instant;
use crate::sync::atomic::Ordering;
use crate::sync::lock::lock;
use crate::sys::Half;
use crate::writer::{Blocking, Flush};
use awaited::{AwaitedCall, SendingCall};
use call::PendingCall;
use call_error::{CallError, NotifyError};
use call_times::Gauge;
use caller::{Caller, OutgoingRequest, StreamSides};
use cancel_handle::CancelHandle;
pub use endpoint::{ConnectError, Endpoint};
use handler::{Handler, Reply};
use progress::ProgressSender;
use read::Reader;
use shared::{Begun, Extras, Shared};
use stream::reply_parts::ReplyParts;
use stream::send::PartSender;
use stream::stream_call::StreamCall;
use stream::{CallStream, Origin, StreamKey};

/// A connection to the other side, whichever that is.
///
/// This is a handle: cloning it is cheap. When the last one is dropped the connection is closed as
/// by [`close`](Connection::close).
///
/// ```
/// use std::io::pipe;
/// use pipeplug_net::{Connection, Endpoint, EventLoop, Options, Refuse, Request};
///
/// let events = EventLoop::new()?;
/// let ((host_in, guest_out), (guest_in, host_out)) = (pipe()?, pipe()?);
/// let echo = |request: &mut Request| Ok(request.take_buffer().into());
/// let _guest = events.connect(
///     Endpoint::exclusive(guest_in), Endpoint::exclusive(guest_out), Options::default(), echo)?;
/// let host = events.connect(
///     Endpoint::exclusive(host_in), Endpoint::exclusive(host_out), Options::default(), Refuse)?;
/// assert_eq!(host.call("echo", "hello")?, "hello");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Connection(Arc<Handle>);

/// The user's handle of a connection; see [`Shared::connection`].
pub(crate) struct Handle {
    shared: Arc<Shared>,
}

/// Counters of a connection.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Open calls of this side.
    pub open_calls: usize,
    /// Open streams of both sides, with the calls that have parts.
    pub open_streams: usize,
    /// Replies to calls that had been given up. They were dropped.
    pub late_replies: u64,
    /// Replies to no request. They were dropped.
    pub unknown_replies: u64,
    /// Chunks of an unknown direction or over a limit.
    pub skipped: u64,
    /// One-ways of the protocol that made no sense.
    pub unexpected: u64,
    /// Weight of requests and one-ways that wait for a handler, in bytes; see [`Options::window`].
    pub held: usize,
    /// Bytes that wait to be written.
    pub queued: usize,
    /// Credit that a call or one-way of this side waits for before it is sent, if one does.
    pub credit: Option<Credit>,
}

impl EventLoop {
    /// Makes a connection of two descriptors: `reader` brings the peer's chunks, `writer` takes
    /// ours.
    ///
    /// # Errors
    /// A descriptor is closed, of the wrong direction, or cannot be watched.
    pub fn connect(
        &self,
        reader: Endpoint,
        writer: Endpoint,
        mut options: Options,
        handler: impl Handler,
    ) -> Result<Connection, ConnectError> {
        // The name is in every message from here on.
        options.name = Escaped(&options.name).to_string();
        let reader = reader.into_stream(&options.name, Half::Reading)?;
        let writer = writer.into_stream(&options.name, Half::Writing)?;
        let tap = options.recording.as_ref().map(|recording| recording.tap(&options.name));
        let tap = tap.transpose()?;
        let reader = Reader::new(reader, &options, tap);
        let shared = Shared::new(self.clone(), reader, writer, options, Arc::new(handler));
        let handle = Arc::new(Handle { shared: Arc::clone(&shared) });
        // Before reading starts: a handler gets the connection from here.
        if shared.handle.set(Arc::downgrade(&handle)).is_err() {
            unreachable!("the value was created above");
        }
        shared.start_reading().map_err(|error| ConnectError::Descriptor {
            name: shared.options.name.clone(),
            half: Half::Reading.name(),
            error,
        })?;
        Ok(Connection(handle))
    }
}

caller_methods!(Connection, CallError, NotifyError);

impl Caller for Connection {
    type CallError = CallError;
    type NotifyError = NotifyError;
    type Pending = PendingCall;
    type CallFuture<'a> = AwaitedCall<'a>;

    fn await_request<'a>(&'a self, request: OutgoingRequest<'a>) -> AwaitedCall<'a> {
        AwaitedCall::new(self, request)
    }

    async fn begin_request_async(
        &self,
        request: OutgoingRequest<'_>,
    ) -> Result<PendingCall, CallError> {
        SendingCall::new(self, request, None).sent().await.map(|(call, _)| call)
    }

    async fn open_stream_async(
        &self,
        request: OutgoingRequest<'_>,
        sides: StreamSides,
    ) -> Result<StreamCall, CallError> {
        let (call, stream) = SendingCall::new(self, request, Some(mode_of(sides))).sent().await?;
        Ok(self.stream_call(call, stream))
    }

    async fn send_one_way_async(
        &self,
        command: &str,
        payload: Payload<'_>,
    ) -> Result<(), NotifyError> {
        reserved::refuse_one_way(command)?;
        let (id, context) = self.prepare_one_way();
        self.shared().notify_async(command, payload, id, context).await
    }

    async fn open_one_way_stream_async(
        &self,
        command: &str,
        payload: Payload<'_>,
    ) -> Result<PartSender, NotifyError> {
        let (id, context, sender) = self.prepare_one_way_stream(command)?;
        // The sender removes the stream if this fails, or is dropped.
        self.shared().notify_async(command, payload, id, Some(context)).await?;
        Ok(sender)
    }

    fn begin_request(&self, request: OutgoingRequest<'_>) -> Result<PendingCall, CallError> {
        self.begin(request, None, Flush::Soon).map(|(call, _)| call)
    }

    fn open_stream(
        &self,
        request: OutgoingRequest<'_>,
        sides: StreamSides,
    ) -> Result<StreamCall, CallError> {
        let (call, stream) = self.begin(request, Some(mode_of(sides)), Flush::Soon)?;
        Ok(self.stream_call(call, stream))
    }

    fn wait_for_request(&self, request: OutgoingRequest<'_>) -> Result<Reply, CallError> {
        self.begin_and_lead(request)?.wait()
    }

    fn call_chunk(&self, chunk: Chunk) -> Result<Chunk, CallError> {
        let Chunk { command, buffer, .. } = chunk;
        self.begin_and_lead(OutgoingRequest::new(&command, buffer.into()))?.wait_chunk()
    }

    fn send_one_way(&self, command: &str, payload: Payload<'_>) -> Result<(), NotifyError> {
        reserved::refuse_one_way(command)?;
        self.notify_by_protocol(command, payload)
    }

    fn open_one_way_stream(
        &self,
        command: &str,
        payload: Payload<'_>,
    ) -> Result<PartSender, NotifyError> {
        let (id, context, sender) = self.prepare_one_way_stream(command)?;
        // The sender removes the stream if this fails.
        self.shared().notify(command, payload, id, Some(&context))?;
        Ok(sender)
    }
}

/// A request that is ready to be sent.
pub(crate) struct Prepared<'a> {
    command: &'a str,
    payload: Payload<'a>,
    deadline: Option<Deadline>,
    context: Option<RequestContext>,
    blocking: Blocking,
    progress: Option<ProgressSender>,
    cancel: Option<&'a CancelHandle>,
}

impl Connection {
    /// Id and context of a one-way.
    fn prepare_one_way(&self) -> (ThreadId, Option<RequestContext>) {
        let context = context::inherited_values()
            .map(|values| RequestContext { values: Some(values), ..RequestContext::default() });
        let id = match context {
            Some(_) => lock(&self.shared().calls).reserve(),
            None => ThreadId::new(0),
        };
        (id, context)
    }

    /// Opens the stream of a one-way, which is sent next.
    fn prepare_one_way_stream(
        &self,
        command: &str,
    ) -> Result<(ThreadId, RequestContext, PartSender), NotifyError> {
        reserved::refuse_one_way(command)?;
        let shared = self.shared();
        if !shared.peer.takes_streams.load(Ordering::Acquire) {
            let command = command.to_owned();
            return Err(NotifyError::Unsupported { command, feature: stream::FEATURE });
        }
        let mode = StreamMode { sends: true, receives: false };
        let context = RequestContext {
            stream: Some(mode),
            values: context::inherited_values(),
            ..RequestContext::default()
        };
        let key = StreamKey { origin: Origin::Own, id: lock(&shared.calls).reserve() };
        let stream = shared.streams.open(key, mode, true, &shared.peer, &shared.options);
        let stream = stream.expect("the id was not used before");
        if shared.close.ended().is_some() {
            shared.end_own_stream(key.id); // as for a call, in `Shared::begin`
        }
        // Suspended reading goes on, as for a call: the credit has to be read. While more is queued
        // than may be it waits for handlers, since each stream would have a little more read.
        if shared.overrun_by_now().is_none() {
            shared.resume_reading();
        }
        let sender = PartSender::new(Arc::clone(shared), stream, None);
        Ok((key.id, context, sender))
    }

    /// A call whose stream was opened with it.
    fn stream_call(&self, call: PendingCall, stream: Option<Arc<CallStream>>) -> StreamCall {
        let stream = stream.expect("a stream was opened with the call");
        let shared = Arc::clone(self.shared());
        let sender = PartSender::new(Arc::clone(&shared), Arc::clone(&stream), call.deadline_at());
        StreamCall::new(sender, ReplyParts::new(shared, stream, call))
    }

    /// Sends a request that this thread waits for next.
    fn begin_and_lead(&self, request: OutgoingRequest<'_>) -> Result<PendingCall, CallError> {
        self.shared().lead_early();
        // Among many callers, one write for several of them is worth more than a write at once.
        let flush = if self.shared().has_other_callers() { Flush::Later } else { Flush::Now };
        let begun = self.begin(request, None, flush);
        begun.map(|(call, _)| call).inspect_err(|_| self.shared().end_early_lead())
    }

    fn begin(
        &self,
        request: OutgoingRequest<'_>,
        stream: Option<StreamMode>,
        flush: Flush,
    ) -> Result<(PendingCall, Option<Arc<CallStream>>), CallError> {
        reserved::refuse_call(request.command)?;
        self.begin_any(request, stream, flush)
    }

    fn begin_any(
        &self,
        request: OutgoingRequest<'_>,
        stream: Option<StreamMode>,
        flush: Flush,
    ) -> Result<(PendingCall, Option<Arc<CallStream>>), CallError> {
        let Prepared { command, payload, deadline, context, blocking, progress, cancel } =
            self.prepare(request, stream)?;
        let shared = self.shared();
        let extras = Extras { context: context.as_ref(), progress: progress.as_ref(), cancel };
        let Begun { id, slot, stream } =
            shared.begin(command, payload, blocking, deadline, extras, flush)?;
        Ok((PendingCall::new(self.clone(), id, slot, deadline).cancelled_by(cancel), stream))
    }

    /// Starts the clock of a request and collects its context.
    #[inline]
    pub(crate) fn prepare<'a>(
        &self,
        request: OutgoingRequest<'a>,
        stream: Option<StreamMode>,
    ) -> Result<Prepared<'a>, CallError> {
        let OutgoingRequest {
            command,
            payload,
            timeout,
            begun,
            is_nonblocking,
            values,
            progress,
            cancel,
            ..
        } = request;
        CancelHandle::check(cancel, command)?;
        // Relaxed: the flag publishes nothing else.
        let progress =
            progress.filter(|_| self.shared().peer.reports_progress.load(Ordering::Relaxed));
        let deadline = match (timeout, begun) {
            (Some(timeout), Some(begun)) => Deadline::of_call_since(begun, timeout, self.clock()),
            (timeout, _) => Deadline::of_call(timeout, self.clock()),
        };
        let blocking = if is_nonblocking { Blocking::Never } else { Blocking::Allowed };
        let context = context_of(command, &values, progress.is_some(), stream)?;
        if stream.is_some() && !self.shared().peer.takes_streams.load(Ordering::Acquire) {
            let command = command.to_owned();
            return Err(CallError::Unsupported { command, feature: stream::FEATURE });
        }
        Ok(Prepared { command, payload, deadline, context, blocking, progress, cancel })
    }

    /// Returns true once a task has waited for something of this connection.
    #[doc(hidden)] // for pipeplug-host: see internal.rs
    #[must_use]
    pub fn is_awaited(&self) -> bool {
        self.shared().is_awaited.load(Ordering::Relaxed)
    }

    /// Notes that a task waits for something of this connection.
    #[doc(hidden)] // for pipeplug-host: see internal.rs
    pub fn note_awaited(&self) {
        self.shared().note_awaited();
    }

    /// Clock of its deadlines; see [`Options::clock`].
    #[must_use]
    pub fn clock(&self) -> &Clock {
        &self.shared().options.clock
    }

    /// Lets handlers run that [`Options::hold`] has held back.
    pub fn release(&self) {
        self.shared().release();
    }

    /// Accepts no further calls. What was accepted is still written, and then the other side sees
    /// the end of the file.
    ///
    /// Requests and one-ways of the other side are handled until it closes too.
    pub fn close(&self) {
        self.shared().close_writer();
    }

    /// Ends the connection with a reason: what has arrived is still read, then every open call
    /// fails with it.
    pub fn end(&self, reason: impl Into<String>) {
        self.shared().end_after_reading(CloseReason::Ended(reason.into()));
    }

    /// Reason that nothing is read any more. `None` while the connection is open.
    #[must_use]
    pub fn close_reason(&self) -> Option<Arc<CloseReason>> {
        self.shared().close.ended().cloned()
    }

    /// State of the connection at its end. `None` while it is open.
    #[must_use]
    pub fn postmortem(&self) -> Option<Arc<Postmortem>> {
        self.shared().close.ended().map(|_| self.shared().close.postmortem())
    }

    /// Waits until nothing comes from the other side any more. `None` after `timeout`.
    ///
    /// # Blocking
    /// At most for `timeout`. A handler may call it: it does not wait for handlers.
    #[must_use]
    pub fn wait_ended(&self, timeout: Duration) -> Option<Arc<CloseReason>> {
        self.shared().close.wait_ended(Instant::now().checked_add(timeout))
    }

    /// Waits until the connection has ended and every handler has returned. `None` after `timeout`.
    ///
    /// # Blocking
    /// At most for `timeout`. Not in a handler of the same connection, for which it would wait too.
    #[must_use]
    pub fn wait_closed(&self, timeout: Duration) -> Option<Arc<CloseReason>> {
        self.shared().close.wait_finished(Instant::now().checked_add(timeout))
    }

    /// Waits until no request or one-way of the other side is queued or being handled. Returns
    /// false after `timeout`. Their answers may still wait to be written; see
    /// [`wait_written`](Connection::wait_written).
    ///
    /// # Blocking
    /// At most for `timeout`. Not in a handler of the same connection, for which it would wait too.
    #[must_use]
    pub fn wait_idle(&self, timeout: Duration) -> bool {
        self.shared().wait_idle(Instant::now().checked_add(timeout))
    }

    /// Waits until everything that was sent is written. Returns false after `timeout`. The other
    /// side may not have read it yet.
    ///
    /// # Blocking
    /// At most for `timeout`.
    #[must_use]
    pub fn wait_written(&self, timeout: Duration) -> bool {
        self.shared().writer.wait_written(Instant::now().checked_add(timeout))
    }

    /// The event loop that serves the connection.
    #[must_use]
    pub fn events(&self) -> &EventLoop {
        &self.shared().events
    }

    /// Name of the connection in logs and errors.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.shared().options.name
    }

    /// Counters of the connection.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let shared = self.shared();
        let (open_calls, late_replies, unknown_replies) = {
            let calls = lock(&shared.calls);
            (calls.len(), calls.late(), calls.unknown())
        };
        Stats {
            open_calls,
            open_streams: shared.streams.len(),
            late_replies,
            unknown_replies,
            skipped: shared.counters.skipped.total(),
            unexpected: shared.counters.unexpected.total(),
            held: shared.held(),
            queued: shared.writer.queued(),
            credit: shared.writer.awaited_credit(),
        }
    }

    /// A look at the connection for as long as it is there.
    #[doc(hidden)] // for pipeplug-host: see internal.rs
    #[must_use]
    pub fn gauge(&self) -> Gauge {
        Gauge::of(self.shared())
    }

    /// The handler that the connection was made with, if it is of this type.
    #[doc(hidden)] // for pipeplug-guest: see internal.rs
    #[must_use]
    pub fn handler<H: Handler>(&self) -> Option<&H> {
        let handler: &dyn Any = &*self.shared().handler;
        handler.downcast_ref()
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.0.shared
    }
}

fn mode_of(sides: StreamSides) -> StreamMode {
    StreamMode { sends: sides != StreamSides::Receive, receives: true }
}

/// Context of a request: its own values, and those that it inherits.
fn context_of(
    command: &str,
    own: &[(&str, &str)],
    wants_progress: bool,
    stream: Option<StreamMode>,
) -> Result<Option<RequestContext>, CallError> {
    let mut values = context::inherited_values();
    if !own.is_empty() {
        let mut all = values.as_deref().cloned().unwrap_or_default();
        all.extend(own.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())));
        if let Some(len) = context::too_large(&all) {
            let (command, limit) = (command.to_owned(), context::VALUES_MAX);
            return Err(CallError::ContextTooLarge { command, len, limit });
        }
        values = Some(Arc::new(all));
    }
    let context = RequestContext { deadline: None, stream, wants_progress, values };
    Ok((!context.is_empty()).then_some(context))
}

impl From<Arc<Handle>> for Connection {
    fn from(handle: Arc<Handle>) -> Self {
        Self(handle)
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.close_writer();
        // The user can no longer release what is held back, and `Handler::closed` waits for it.
        self.shared.release();
    }
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection")
            .field("name", &self.name())
            .field("stats", &self.stats())
            .finish()
    }
}
