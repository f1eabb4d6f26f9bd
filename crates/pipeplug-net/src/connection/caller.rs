//! Calls and one-ways, for everything that can be called.

use std::error::Error;
use std::future::{Future, IntoFuture};
use std::time::Duration;

use pipeplug_wire::Chunk;

use super::call_error::{CallError, CallFailure};
use super::cancel_handle::CancelHandle;
use super::handler::Reply;
use super::progress::{self, ProgressReports, ProgressSender};
use super::stream::reply_parts::ReplyParts;
use super::stream::send::PartSender;
use super::stream::stream_call::StreamCall;
use crate::caller_doc;
use crate::payload::Payload;
use crate::sync::Instant;

/// Something that can be called: a connection, a plugin, the host, a supervisor or a pool.
///
/// Each of these has the methods of this trait as its own, so that the trait is needed only in code
/// that is generic over them:
///
/// ```
/// use pipeplug_net::{CallError, Caller};
///
/// fn version<C: Caller>(caller: &C) -> Result<String, C::CallError> {
///     caller.call("version", "")
/// }
/// ```
pub trait Caller: Sized {
    /// Error of a call.
    type CallError: CallFailure;
    /// Error of a one-way.
    type NotifyError: Error + Send + Sync + 'static;
    /// A call that waits for its reply.
    type Pending: PendingReply<Error = Self::CallError>;
    /// Future of a call; see [`await_request`](Caller::await_request).
    type CallFuture<'a>: Future<Output = Result<Reply, Self::CallError>> + Send
    where
        Self: 'a;

    /// Sends a request; see [`RequestBuilder::begin`].
    ///
    /// # Errors
    /// The request was not sent.
    ///
    /// # Blocking
    /// As for [`RequestBuilder::begin`].
    fn begin_request(&self, request: OutgoingRequest<'_>)
    -> Result<Self::Pending, Self::CallError>;

    /// Sends a request and waits for its reply; see [`RequestBuilder::wait`].
    ///
    /// # Errors
    /// As for [`RequestBuilder::wait`].
    ///
    /// # Blocking
    /// As for [`RequestBuilder::wait`].
    fn wait_for_request(&self, request: OutgoingRequest<'_>) -> Result<Reply, Self::CallError> {
        self.begin_request(request)?.wait()
    }

    /// Returns the future of a call, which sends the request when it is polled first; see
    /// [`RequestBuilder`].
    fn await_request<'a>(&'a self, request: OutgoingRequest<'a>) -> Self::CallFuture<'a>;

    /// Sends a request; see [`RequestBuilder::begin_async`].
    ///
    /// # Errors
    /// The request was not sent.
    fn begin_request_async(
        &self,
        request: OutgoingRequest<'_>,
    ) -> impl Future<Output = Result<Self::Pending, Self::CallError>> + Send;

    /// Sends a request with a stream; see [`RequestBuilder::stream_async`].
    ///
    /// # Errors
    /// As for [`RequestBuilder::stream`].
    fn open_stream_async(
        &self,
        request: OutgoingRequest<'_>,
        sides: StreamSides,
    ) -> impl Future<Output = Result<StreamCall, Self::CallError>> + Send;

    /// Sends a one-way; see [`notify_async`](Caller::notify_async).
    ///
    /// # Errors
    /// As for [`notify`](Caller::notify).
    fn send_one_way_async(
        &self,
        command: &str,
        payload: Payload<'_>,
    ) -> impl Future<Output = Result<(), Self::NotifyError>> + Send;

    /// Sends a one-way with a stream; see [`notify_stream_async`](Caller::notify_stream_async).
    ///
    /// # Errors
    /// As for [`notify_stream`](Caller::notify_stream).
    fn open_one_way_stream_async(
        &self,
        command: &str,
        payload: Payload<'_>,
    ) -> impl Future<Output = Result<PartSender, Self::NotifyError>> + Send;

    /// Sends a one-way; see [`notify`](Caller::notify).
    ///
    /// # Errors
    /// The one-way was not sent.
    ///
    /// # Blocking
    /// As for [`notify`](Caller::notify).
    fn send_one_way(&self, command: &str, payload: Payload<'_>) -> Result<(), Self::NotifyError>;

    /// Sends a request with a stream; see [`RequestBuilder::stream`].
    ///
    /// # Errors
    /// As for [`RequestBuilder::stream`].
    ///
    /// # Blocking
    /// As for [`RequestBuilder::begin`].
    fn open_stream(
        &self,
        request: OutgoingRequest<'_>,
        sides: StreamSides,
    ) -> Result<StreamCall, Self::CallError>;

    /// Sends a one-way with a stream; see [`notify_stream`](Caller::notify_stream).
    ///
    /// # Errors
    /// As for [`notify_stream`](Caller::notify_stream).
    ///
    /// # Blocking
    /// As for [`notify`](Caller::notify).
    fn open_one_way_stream(
        &self,
        command: &str,
        payload: Payload<'_>,
    ) -> Result<PartSender, Self::NotifyError>;

    #[doc = caller_doc!(call)]
    fn call<'a>(
        &self,
        command: &str,
        payload: impl Into<Payload<'a>>,
    ) -> Result<String, Self::CallError> {
        self.wait_for_request(OutgoingRequest::new(command, payload.into()))?
            .into_text_of(command)
            .map_err(Self::CallError::from)
    }

    #[doc = caller_doc!(call_bytes)]
    fn call_bytes<'a>(
        &self,
        command: &str,
        payload: impl Into<Payload<'a>>,
    ) -> Result<Vec<u8>, Self::CallError> {
        self.wait_for_request(OutgoingRequest::new(command, payload.into())).map(Reply::into_bytes)
    }

    #[doc = caller_doc!(call_chunk)]
    fn call_chunk(&self, chunk: Chunk) -> Result<Chunk, Self::CallError> {
        let Chunk { command, buffer, .. } = chunk;
        let pending = self.begin_request(OutgoingRequest::new(&command, buffer.into()))?;
        pending.wait_chunk()
    }

    #[doc = caller_doc!(request)]
    fn request<'a>(
        &'a self,
        command: &'a str,
        payload: impl Into<Payload<'a>>,
    ) -> RequestBuilder<'a, Self> {
        RequestBuilder { caller: self, request: OutgoingRequest::new(command, payload.into()) }
    }

    #[doc = caller_doc!(notify)]
    fn notify<'a>(
        &self,
        command: &str,
        payload: impl Into<Payload<'a>>,
    ) -> Result<(), Self::NotifyError> {
        self.send_one_way(command, payload.into())
    }

    #[doc = caller_doc!(notify_stream)]
    fn notify_stream<'a>(
        &self,
        command: &str,
        payload: impl Into<Payload<'a>>,
    ) -> Result<PartSender, Self::NotifyError> {
        self.open_one_way_stream(command, payload.into())
    }

    #[doc = caller_doc!(call_async)]
    fn call_async<'a>(
        &'a self,
        command: &'a str,
        payload: impl Into<Payload<'a>>,
    ) -> impl Future<Output = Result<String, Self::CallError>> + Send {
        let reply = self.await_request(OutgoingRequest::new(command, payload.into()));
        text_of(reply, command)
    }

    #[doc = caller_doc!(call_bytes_async)]
    fn call_bytes_async<'a>(
        &'a self,
        command: &'a str,
        payload: impl Into<Payload<'a>>,
    ) -> impl Future<Output = Result<Vec<u8>, Self::CallError>> + Send {
        let reply = self.await_request(OutgoingRequest::new(command, payload.into()));
        bytes_of(reply)
    }

    #[doc = caller_doc!(notify_async)]
    fn notify_async<'a>(
        &'a self,
        command: &'a str,
        payload: impl Into<Payload<'a>>,
    ) -> impl Future<Output = Result<(), Self::NotifyError>> + Send {
        self.send_one_way_async(command, payload.into())
    }

    #[doc = caller_doc!(notify_stream_async)]
    fn notify_stream_async<'a>(
        &'a self,
        command: &'a str,
        payload: impl Into<Payload<'a>>,
    ) -> impl Future<Output = Result<PartSender, Self::NotifyError>> + Send {
        self.open_one_way_stream_async(command, payload.into())
    }

    #[doc = caller_doc!(notify_chunk)]
    fn notify_chunk(&self, chunk: Chunk) -> Result<(), Self::NotifyError> {
        self.send_one_way(&chunk.command, chunk.buffer.into())
    }
}

/// Awaits a reply as bytes.
async fn bytes_of<E>(reply: impl Future<Output = Result<Reply, E>>) -> Result<Vec<u8>, E> {
    reply.await.map(Reply::into_bytes)
}

/// Awaits a reply as text.
async fn text_of<E: From<CallError>>(
    reply: impl Future<Output = Result<Reply, E>>,
    command: &str,
) -> Result<String, E> {
    reply.await?.into_text_of(command).map_err(E::from)
}

/// A call that waits for its reply: wait for it, or `.await` it in any executor. Dropping it gives
/// the call up.
pub trait PendingReply: Future<Output = Result<Reply, Self::Error>> + Unpin {
    /// Error of the call.
    type Error;

    /// Returns a handle with which another thread can give the call up; see
    /// [`PendingCall::cancel_handle`](crate::PendingCall::cancel_handle).
    fn cancel_handle(&self) -> CancelHandle;

    /// Waits for the reply.
    ///
    /// # Errors
    /// The call brought no reply.
    ///
    /// # Blocking
    /// Until the reply is there, the call's time is over, or the connection ends.
    fn wait(self) -> Result<Reply, Self::Error>;

    /// Waits for the reply as text.
    ///
    /// # Errors
    /// As for [`wait`](PendingReply::wait), and [`CallError::NotText`].
    ///
    /// # Blocking
    /// As for [`wait`](PendingReply::wait).
    fn wait_text(self) -> Result<String, Self::Error>;

    /// Awaits the reply as text.
    ///
    /// # Errors
    /// As for [`wait_text`](PendingReply::wait_text).
    fn wait_text_async(self) -> impl Future<Output = Result<String, Self::Error>> + Send;

    /// Waits for the reply as a chunk.
    ///
    /// # Errors
    /// As for [`wait`](PendingReply::wait).
    ///
    /// # Blocking
    /// As for [`wait`](PendingReply::wait).
    fn wait_chunk(self) -> Result<Chunk, Self::Error>;

    /// Waits for the reply for at most `timeout`, and then gives the call up.
    ///
    /// # Errors
    /// As for [`wait`](PendingReply::wait), and [`CallError::TimedOut`].
    ///
    /// # Blocking
    /// At most for `timeout`.
    fn wait_timeout(self, timeout: Duration) -> Result<Reply, Self::Error>;
}

/// A request and its options.
#[derive(Debug, Clone)]
pub struct OutgoingRequest<'a> {
    /// The command.
    pub command: &'a str,
    /// The bytes.
    pub payload: Payload<'a>,
    /// Time after which the call is given up. `None` for no limit.
    pub timeout: Option<Duration>,
    /// Begin of that time. `None` for the time at which the request is sent or has to wait to be
    /// sent.
    pub begun: Option<Instant>,
    /// True if the call does no harm when it is made twice.
    pub is_idempotent: bool,
    /// True if sending must not block.
    pub is_nonblocking: bool,
    /// Values of its context, in addition to those that it inherits.
    pub values: Vec<(&'a str, &'a str)>,
    /// Destination of the reports of its progress, if they are wanted.
    pub progress: Option<ProgressSender>,
    /// Handle that gives the call up.
    pub cancel: Option<&'a CancelHandle>,
}

/// Sides of a stream that send parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamSides {
    /// The caller and the handler.
    Both,
    /// The handler.
    Receive,
}

impl<'a> OutgoingRequest<'a> {
    /// Makes a request without options.
    #[must_use]
    pub fn new(command: &'a str, payload: Payload<'a>) -> Self {
        let (timeout, begun) = (None, None);
        let (is_idempotent, is_nonblocking, values) = (false, false, Vec::new());
        let (progress, cancel) = (None, None);
        Self {
            command,
            payload,
            timeout,
            begun,
            is_idempotent,
            is_nonblocking,
            values,
            progress,
            cancel,
        }
    }
}

/// A request that is not sent yet; see [`Caller::request`].
///
/// ```
/// # use pipeplug_net::{CallError, Connection};
/// # async fn example(connection: Connection) -> Result<(), CallError> {
/// use std::time::Duration;
///
/// let reply = connection.request("suggest", "teh").timeout(Duration::from_secs(1)).wait()?;
/// let reply = connection.request("suggest", "teh").timeout(Duration::from_secs(1)).await?;
/// // Many at once: begin them, and wait afterwards.
/// let first = connection.request("suggest", "teh").begin()?;
/// let second = connection.request("suggest", "adn").begin()?;
/// println!("{:?} {:?}", first.wait()?, second.wait()?);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[must_use = "a request is not sent before it is waited for, begun or awaited"]
pub struct RequestBuilder<'a, C> {
    caller: &'a C,
    request: OutgoingRequest<'a>,
}

impl<'a, C: Caller> RequestBuilder<'a, C> {
    /// Gives the call up if there is no reply within `timeout` from the time that it is sent or has
    /// to wait to be sent. A time that no `Instant` can hold is no limit.
    ///
    /// The time holds however the reply is waited for. If both sides negotiated `context`, the
    /// other side's handler knows it ([`Request::deadline`](crate::Request::deadline)), and the
    /// calls that it makes inherit it. If both negotiated `cancel`, the handler learns when the
    /// call is given up ([`Request::cancellation`](crate::Request::cancellation)). In a handler the
    /// deadline of its own request counts for every call too, whichever is sooner.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.request.timeout = Some(timeout);
        self
    }

    /// Counts the time-out from `begun`, for a caller that did something else for the call before.
    pub fn since(mut self, begun: Instant) -> Self {
        self.request.begun = Some(begun);
        self
    }

    /// Declares that the call does no harm when it is made twice. A supervisor or pool makes it
    /// again if the plugin ends before it has answered, in [`wait`](RequestBuilder::wait),
    /// [`wait_text`](RequestBuilder::wait_text) and `.await`. A request that is begun is sent once.
    /// Other callers ignore it.
    pub fn idempotent(mut self) -> Self {
        self.request.is_idempotent = true;
        self
    }

    /// Fails with [`CallError::WouldBlock`] instead of waiting to be sent.
    pub fn nonblocking(mut self) -> Self {
        self.request.is_nonblocking = true;
        self
    }

    /// Has this handle give the call up, from another thread and wherever the call waits: to be
    /// sent, for the start or restart of a supervised plugin, for its reply, or for parts. It then
    /// fails with [`CallError::Cancelled`], and is not made again.
    pub fn cancel_by(mut self, handle: &'a CancelHandle) -> Self {
        self.request.cancel = Some(handle);
        self
    }

    /// Adds a value to the context of the call, such as `traceparent` or the id of a user. The
    /// handler reads it ([`Request::context`](crate::Request::context)), and the calls that it
    /// makes inherit it. If the other side has not negotiated `context`, it is not sent.
    ///
    /// The values of a context have at most 3,968 bytes as JSON.
    pub fn context(mut self, key: &'a str, value: &'a str) -> Self {
        self.request.values.push((key, value));
        self
    }

    /// Asks for the progress of the call, and returns what gives the reports of its handler
    /// ([`Request::progress`](crate::Request::progress)).
    pub fn progress(mut self) -> (Self, ProgressReports) {
        let (sender, reports) = progress::channel();
        self.request.progress = Some(sender);
        (self, reports)
    }

    /// Sends the request, with parts that follow it, and parts of the reply. The handler takes and
    /// sends them with [`Request::parts`](crate::Request::parts) and
    /// [`Request::reply_parts`](crate::Request::reply_parts).
    ///
    /// The time-out is that of the whole call.
    ///
    /// # Errors
    /// As for [`begin`](RequestBuilder::begin), and [`CallError::Unsupported`] if the other side
    /// has not negotiated `stream`.
    ///
    /// # Blocking
    /// As for [`begin`](RequestBuilder::begin).
    pub fn stream(self) -> Result<StreamCall, C::CallError> {
        self.caller.open_stream(self.request, StreamSides::Both)
    }

    /// Sends the request as [`stream`](RequestBuilder::stream) does, and awaits that it is sent.
    ///
    /// # Errors
    /// As for [`stream`](RequestBuilder::stream).
    ///
    /// # Cancellation
    /// If the future is dropped before it is ready, the request was not sent.
    pub async fn stream_async(self) -> Result<StreamCall, C::CallError>
    where
        C: Sync,
    {
        self.caller.open_stream_async(self.request, StreamSides::Both).await
    }

    /// Sends the request as [`receive_parts`](RequestBuilder::receive_parts) does, and awaits that
    /// it is sent.
    ///
    /// # Errors
    /// As for [`stream`](RequestBuilder::stream).
    ///
    /// # Cancellation
    /// If the future is dropped before it is ready, the request was not sent.
    pub async fn receive_parts_async(self) -> Result<ReplyParts, C::CallError>
    where
        C: Sync,
    {
        let opened = self.caller.open_stream_async(self.request, StreamSides::Receive);
        let StreamCall { sender, parts } = opened.await?;
        drop(sender);
        Ok(parts)
    }

    /// Sends the request and takes the parts of its reply.
    ///
    /// # Errors
    /// As for [`stream`](RequestBuilder::stream).
    ///
    /// # Blocking
    /// As for [`begin`](RequestBuilder::begin).
    pub fn receive_parts(self) -> Result<ReplyParts, C::CallError> {
        let StreamCall { sender, parts } =
            self.caller.open_stream(self.request, StreamSides::Receive)?;
        drop(sender);
        Ok(parts)
    }

    /// Sends the request and waits for its reply.
    ///
    /// # Errors
    /// The request was not sent, the other side answered with an error, or the connection ended;
    /// [`CallError::TimedOut`] or [`CallError::NotSent`] for a request with a time-out.
    ///
    /// # Blocking
    /// While the other side is behind with what was sent, and until the reply is there, the time is
    /// over, or the connection ends. Meanwhile this thread may read for the connection.
    pub fn wait(self) -> Result<Reply, C::CallError> {
        self.caller.wait_for_request(self.request)
    }

    /// Sends the request and waits for its reply as text.
    ///
    /// # Errors
    /// As for [`wait`](RequestBuilder::wait), and [`CallError::NotText`] for bytes that are no
    /// UTF-8.
    ///
    /// # Blocking
    /// As for [`wait`](RequestBuilder::wait).
    pub fn wait_text(self) -> Result<String, C::CallError> {
        let command = self.request.command;
        self.wait()?.into_text_of(command).map_err(C::CallError::from)
    }

    /// Sends the request as `.await` does, and awaits its reply as text.
    ///
    /// # Errors
    /// As for [`wait_text`](RequestBuilder::wait_text).
    ///
    /// # Cancellation
    /// Dropping the future gives the call up.
    pub fn wait_text_async(
        self,
    ) -> impl Future<Output = Result<String, C::CallError>> + Send + use<'a, C> {
        let command = self.request.command;
        text_of(self.into_future(), command)
    }

    /// Sends the request. The result is waited for or awaited later.
    ///
    /// # Errors
    /// The request was not sent.
    ///
    /// # Blocking
    /// While the other side is behind with what was sent, at most for the time-out, and not at all
    /// with [`nonblocking`](RequestBuilder::nonblocking).
    pub fn begin(self) -> Result<C::Pending, C::CallError> {
        self.caller.begin_request(self.request)
    }

    /// Sends the request as [`begin`](RequestBuilder::begin) does, and awaits that it is sent.
    ///
    /// # Errors
    /// The request was not sent.
    ///
    /// # Cancellation
    /// If the future is dropped before it is ready, the request was not sent.
    pub async fn begin_async(self) -> Result<C::Pending, C::CallError>
    where
        C: Sync,
    {
        self.caller.begin_request_async(self.request).await
    }
}

impl<'a, C: Caller> IntoFuture for RequestBuilder<'a, C> {
    type Output = Result<Reply, C::CallError>;
    type IntoFuture = C::CallFuture<'a>;

    /// Returns the call as a future: it sends the request when it is polled first, waits until the
    /// request may be sent, and then for the reply. A time-out counts from the first poll. Dropping
    /// it gives the call up.
    fn into_future(self) -> C::CallFuture<'a> {
        self.caller.await_request(self.request)
    }
}
