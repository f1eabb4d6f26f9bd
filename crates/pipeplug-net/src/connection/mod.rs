//! The same on both sides: calls, one-ways, and the end.

pub(crate) mod call;
pub(crate) mod call_error;
pub(crate) mod cancellation;
pub(crate) mod close;
pub(crate) mod handler;
pub(crate) mod read;
pub(crate) mod serve;
pub(crate) mod shared;

use std::any::Any;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use pipeplug_wire::{Chunk, command};

use crate::error::CloseReason;
use crate::escape::Escaped;
use crate::event_loop::EventLoop;
use crate::options::Options;
use crate::payload::Body;
use crate::postmortem::Postmortem;
use crate::protocol::deadline::{self, Deadline};
use crate::protocol::flow::{self, Credit};
use crate::sync::Instant;
use crate::sync::lock::lock;
use crate::sys::{Half, Stream};
use crate::writer::{Blocking, Flush};
use call::PendingCall;
use call_error::{CallError, NotifyError};
use handler::Handler;
use read::Reader;
use shared::Shared;

/// The version of the protocol that this crate speaks.
const PROTOCOL: &str = "1";
const KEY_PROTOCOL: &str = "pipeplug.protocol";
const KEY_FEATURES: &str = "pipeplug.features";
const KEY_WINDOW: &str = "pipeplug.window";

/// A connection to the other side, whichever that is.
///
/// A handle: cloning it is cheap. When the last one is dropped the connection is closed as by
/// [`close`](Connection::close).
///
/// ```
/// use std::io::pipe;
/// use pipeplug_net::{Connection, Endpoint, EventLoop, Incoming, Options, Refuse};
///
/// let events = EventLoop::new()?;
/// let ((host_in, guest_out), (guest_in, host_out)) = (pipe()?, pipe()?);
/// let echo = |incoming: &mut Incoming| Ok(incoming.take_buffer().into());
/// let _guest = events.connect(
///     Endpoint::exclusive(guest_in), Endpoint::exclusive(guest_out), Options::default(), echo)?;
/// let host = events.connect(
///     Endpoint::exclusive(host_in), Endpoint::exclusive(host_out), Options::default(), Refuse)?;
/// assert_eq!(host.call("echo", "hello")?, "hello");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Connection(Arc<Handle>);

/// What the owners of a connection hold; see [`Shared::connection`].
pub(crate) struct Handle {
    shared: Arc<Shared>,
}

/// A descriptor for a connection, and whether somebody else uses its open file description too.
#[derive(Debug)]
pub struct Endpoint {
    fd: OwnedFd,
    sharing: Sharing,
}

#[derive(Debug)]
enum Sharing {
    Exclusive,
    Shared,
}

/// Why two descriptors did not become a connection.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// A descriptor cannot be used.
    #[error("the {half} descriptor of {name} cannot be used: {error}")]
    Descriptor {
        /// The connection's name.
        name: String,
        /// "reading" or "writing".
        half: &'static str,
        /// What the system said.
        error: io::Error,
    },
}

/// What a connection has counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Calls of ours that wait for a reply.
    pub open_calls: usize,
    /// Replies to calls that had been given up; they were dropped.
    pub late_replies: u64,
    /// Replies that nobody had asked for; they were dropped.
    pub unknown_replies: u64,
    /// Chunks of an unknown direction, or over a limit.
    pub skipped: u64,
    /// One-ways of the protocol's own that made no sense.
    pub unexpected: u64,
    /// Weight of requests and one-ways that wait for a handler, in bytes; see [`Options::window`].
    pub held: usize,
    /// Bytes that wait to be written.
    pub queued: usize,
    /// The credit that a call or a one-way of ours waits for ahead of being sent; `None` where none does.
    pub credit: Option<Credit>,
}

impl Endpoint {
    /// A descriptor that this process alone uses, such as an end of a pipe made for this connection. `O_NONBLOCK` is
    /// set on it.
    pub fn exclusive(fd: impl Into<OwnedFd>) -> Self {
        Self { fd: fd.into(), sharing: Sharing::Exclusive }
    }

    /// A descriptor that was inherited and that others may share, such as standard input. None of its flags is touched;
    /// terminals, regular files and `/dev/null` are taken too.
    pub fn shared(fd: impl Into<OwnedFd>) -> Self {
        Self { fd: fd.into(), sharing: Sharing::Shared }
    }

    fn into_stream(self, name: &str, half: Half) -> Result<Stream, ConnectError> {
        match self.sharing {
            Sharing::Exclusive => Stream::exclusive(self.fd, half),
            Sharing::Shared => Stream::shared(self.fd, half),
        }
        .map_err(|error| ConnectError::Descriptor {
            name: name.to_owned(),
            half: half.name(),
            error,
        })
    }
}

impl EventLoop {
    /// Makes a connection of two descriptors: `reader` brings the peer's chunks, `writer` takes ours.
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
        let reader = Reader::new(reader, &options);
        let shared = Shared::new(self.clone(), reader, writer, options, Arc::new(handler));
        let handle = Arc::new(Handle { shared: Arc::clone(&shared) });
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

impl Connection {
    /// Calls the other side and waits for its reply as text; `buffer` is a string or bytes.
    ///
    /// # Errors
    /// Where the other side answered with an error or with bytes that are no UTF-8, or the connection ended.
    ///
    /// # Blocking
    /// While the other side is behind with what was sent, and until the reply is there or the connection ends.
    pub fn call<'a>(&self, command: &str, buffer: impl Into<Body<'a>>) -> Result<String, CallError> {
        text_of(command, self.call_bytes(command, buffer)?)
    }

    /// As [`call`](Connection::call), and gives the call up where there is no reply within `timeout`.
    ///
    /// The other side is told of the deadline with the request, and of the call's being given up, as far as it negotiated
    /// `context` and `cancel`: its handler sees [`Incoming::deadline`](crate::Incoming::deadline) and
    /// [`Incoming::cancellation`](crate::Incoming::cancellation), and the calls that it makes inherit the deadline. With any
    /// other peer the time is over on this side alone. Within a handler the deadline of its own request counts too, whichever
    /// is sooner, in every call.
    ///
    /// # Errors
    /// [`CallError::TimedOut`], [`CallError::NotSent`], or as for [`call`](Connection::call).
    ///
    /// # Blocking
    /// As for [`call`](Connection::call), at most for `timeout`.
    pub fn call_within<'a>(
        &self,
        timeout: Duration,
        command: &str,
        buffer: impl Into<Body<'a>>,
    ) -> Result<String, CallError> {
        text_of(command, self.request(Deadline::of_call(Some(timeout)), command, buffer.into())?.wait()?)
    }

    /// As [`call_within`](Connection::call_within), with a time that has run since `begun`: for a caller that did something
    /// else for the call first.
    ///
    /// # Errors
    /// As for [`call_within`](Connection::call_within).
    ///
    /// # Blocking
    /// As for [`call`](Connection::call), at most for what is left of `timeout`.
    pub fn call_since<'a>(
        &self,
        begun: Instant,
        timeout: Duration,
        command: &str,
        buffer: impl Into<Body<'a>>,
    ) -> Result<String, CallError> {
        let deadline = Deadline::of_call_since(begun, timeout);
        text_of(command, self.request(deadline, command, buffer.into())?.wait()?)
    }

    /// Calls the other side and waits for its reply, whatever its bytes.
    ///
    /// # Errors
    /// Where the other side answered with an error, or the connection ended.
    ///
    /// # Blocking
    /// As for [`call`](Connection::call).
    pub fn call_bytes<'a>(&self, command: &str, buffer: impl Into<Body<'a>>) -> Result<Vec<u8>, CallError> {
        self.request(Deadline::of_call(None), command, buffer.into())?.wait()
    }

    /// Sends the chunk's command and buffer as a request and waits for the response chunk. The chunk's thread id and
    /// direction are not used: the connection gives its own.
    ///
    /// # Errors
    /// As for [`call_bytes`](Connection::call_bytes).
    ///
    /// # Blocking
    /// As for [`call`](Connection::call).
    pub fn call_chunk(&self, chunk: Chunk) -> Result<Chunk, CallError> {
        self.request(Deadline::of_call(None), &chunk.command, chunk.buffer.into())?.wait_chunk()
    }

    /// Calls the other side and gives what to wait on, or to `.await`; docs/async.md of the project is about that.
    ///
    /// # Errors
    /// Where the call could not be sent.
    ///
    /// # Blocking
    /// While the other side is behind with what was sent; see [`try_begin_call`](Connection::try_begin_call).
    pub fn begin_call<'a>(
        &self,
        command: &str,
        buffer: impl Into<Body<'a>>,
    ) -> Result<PendingCall, CallError> {
        self.begin(None, command, buffer.into(), Blocking::Allowed, Flush::Soon)
    }

    /// As [`begin_call`](Connection::begin_call), for a call that is given up where there is no reply within `timeout` from
    /// now, however it is waited for; see [`call_within`](Connection::call_within).
    ///
    /// # Errors
    /// Where the call could not be sent.
    ///
    /// # Blocking
    /// As for [`begin_call`](Connection::begin_call), at most for `timeout`.
    pub fn begin_call_within<'a>(
        &self,
        timeout: Duration,
        command: &str,
        buffer: impl Into<Body<'a>>,
    ) -> Result<PendingCall, CallError> {
        self.begin(Some(timeout), command, buffer.into(), Blocking::Allowed, Flush::Soon)
    }

    /// As [`begin_call_within`](Connection::begin_call_within), with a time that has run since `begun`: for a
    /// caller that did something else for the call first.
    ///
    /// # Errors
    /// Where the call could not be sent.
    ///
    /// # Blocking
    /// As for [`begin_call`](Connection::begin_call), at most for what is left of `timeout`.
    pub fn begin_call_since<'a>(
        &self,
        begun: Instant,
        timeout: Duration,
        command: &str,
        buffer: impl Into<Body<'a>>,
    ) -> Result<PendingCall, CallError> {
        let deadline = Deadline::of_call_since(begun, timeout);
        self.begin_by(deadline, command, buffer.into(), Blocking::Allowed, Flush::Soon)
    }

    /// As [`begin_call`](Connection::begin_call), but never waits.
    ///
    /// # Errors
    /// [`CallError::WouldBlock`] where it would have to; nothing was sent then.
    pub fn try_begin_call<'a>(
        &self,
        command: &str,
        buffer: impl Into<Body<'a>>,
    ) -> Result<PendingCall, CallError> {
        self.begin(None, command, buffer.into(), Blocking::Never, Flush::Soon)
    }

    /// Begins a call that is waited for next.
    fn request(
        &self,
        deadline: Option<Deadline>,
        command: &str,
        buffer: Body<'_>,
    ) -> Result<PendingCall, CallError> {
        self.shared().lead_early();
        // Among many callers, one write for some of them is worth more than a write at once.
        let flush = if self.shared().has_other_callers() { Flush::Later } else { Flush::Now };
        let pending = self.begin_by(deadline, command, buffer, Blocking::Allowed, flush);
        if pending.is_err() {
            self.shared().end_early_lead();
        }
        pending
    }

    fn begin(
        &self,
        timeout: Option<Duration>,
        command: &str,
        buffer: Body<'_>,
        blocking: Blocking,
        flush: Flush,
    ) -> Result<PendingCall, CallError> {
        self.begin_by(Deadline::of_call(timeout), command, buffer, blocking, flush)
    }

    fn begin_by(
        &self,
        deadline: Option<Deadline>,
        command: &str,
        buffer: Body<'_>,
        blocking: Blocking,
        flush: Flush,
    ) -> Result<PendingCall, CallError> {
        let (id, slot) = self.shared().begin(command, buffer, blocking, deadline, flush)?;
        Ok(PendingCall::new(self.clone(), id, slot, deadline))
    }

    /// Sends a one-way: nobody answers; `buffer` is a string or bytes.
    ///
    /// One-ways arrive in the order in which they are sent, and start to be handled in it. Where one is to be done ahead
    /// of the next, make it a call.
    ///
    /// # Errors
    /// Where the connection has ended. That it was sent does not say that it was handled.
    ///
    /// # Blocking
    /// While the other side is behind with what was sent.
    pub fn notify<'a>(&self, command: &str, buffer: impl Into<Body<'a>>) -> Result<(), NotifyError> {
        self.shared().notify(command, buffer.into())
    }

    /// Sends the chunk's command and buffer as a one-way; its thread id and direction are not used.
    ///
    /// # Errors
    /// As for [`notify`](Connection::notify).
    ///
    /// # Blocking
    /// As for [`notify`](Connection::notify).
    pub fn notify_chunk(&self, chunk: Chunk) -> Result<(), NotifyError> {
        self.shared().notify(&chunk.command, chunk.buffer.into())
    }

    /// Asks the other side for a sign of life, which its reading thread gives, handlers or not, and gives the time
    /// that it took; a call that was forgotten where `timeout` came first.
    ///
    /// # Errors
    /// [`CallError::TimedOut`], or as for [`call`](Connection::call).
    ///
    /// # Blocking
    /// At most for `timeout`, however far behind the other side is; on the side that does not speak first, also until it
    /// was spoken to.
    pub fn ping(&self, timeout: Duration) -> Result<Duration, CallError> {
        let start = Instant::now();
        self.begin_call(command::PING, [])?.wait_timeout(timeout)?;
        Ok(start.elapsed())
    }

    /// What this side tells the other one of itself in the exchange of metadata: keys and values.
    #[must_use]
    pub fn offer(&self) -> [(&'static str, String); 3] {
        [
            (KEY_PROTOCOL, PROTOCOL.to_owned()),
            (KEY_FEATURES, [flow::FEATURE, deadline::FEATURE, cancellation::FEATURE].join(" ")),
            (KEY_WINDOW, self.shared().options.window.to_string()),
        ]
    }

    /// Takes what the other side offered, looked up by key; what both sides name is used from here on.
    pub fn accept<'a>(&self, offered: impl Fn(&str) -> Option<&'a str>) {
        let features = offered(KEY_FEATURES).unwrap_or_default();
        let has = |feature| features.split(' ').any(|name| name == feature);
        if has(deadline::FEATURE) {
            self.shared().writer.tell_deadlines();
        } else {
            self.shared().peer.ignores_contexts.store(true, Ordering::Relaxed);
        }
        if has(cancellation::FEATURE) {
            self.shared().peer.takes_cancels.store(true, Ordering::Relaxed);
        }
        if has(flow::FEATURE) {
            self.shared().count_received();
            self.shared().writer.negotiated(flow::window(offered(KEY_WINDOW)));
        }
    }

    /// Lets handlers run, where [`Options::hold`] held them back.
    pub fn release(&self) {
        self.shared().release();
    }

    /// Accepts no further calls; what was accepted is still written, and then the other side sees its end of file.
    ///
    /// What comes from the other side is taken until it closes too.
    pub fn close(&self) {
        self.shared().close_writer();
    }

    /// Ends the connection with the reason given: what has come already is still read, then every open call fails.
    pub fn end(&self, reason: impl Into<String>) {
        self.shared().end_after_reading(CloseReason::Ended(reason.into()));
    }

    /// Why nothing is read any more; `None` while the connection is open.
    #[must_use]
    pub fn close_reason(&self) -> Option<Arc<CloseReason>> {
        self.shared().close.ended().cloned()
    }

    /// What was going on when it ended; `None` while the connection is open.
    #[must_use]
    pub fn postmortem(&self) -> Option<Arc<Postmortem>> {
        self.shared().close.ended().map(|_| self.shared().close.postmortem())
    }

    /// Waits until nothing comes from the other side any more, for at most `timeout`; `None` then.
    ///
    /// # Blocking
    /// At most for `timeout`. Handlers may call it: it does not wait for them.
    #[must_use]
    pub fn wait_ended(&self, timeout: Duration) -> Option<Arc<CloseReason>> {
        self.shared().close.wait_ended(Instant::now().checked_add(timeout))
    }

    /// Waits until the connection has ended and every handler has returned, for at most `timeout`; `None` then.
    ///
    /// # Blocking
    /// At most for `timeout`. Never call it from a handler of the same connection: it waits for that one too.
    #[must_use]
    pub fn wait_closed(&self, timeout: Duration) -> Option<Arc<CloseReason>> {
        self.shared().close.wait_finished(Instant::now().checked_add(timeout))
    }

    /// Waits until no request or one-way of the other side waits or is being handled, for at most `timeout`; `false` then.
    /// Their answers may still wait to be written: see [`wait_written`](Connection::wait_written).
    ///
    /// # Blocking
    /// At most for `timeout`. Never call it from a handler of the same connection: it waits for that one too.
    #[must_use]
    pub fn wait_idle(&self, timeout: Duration) -> bool {
        self.shared().wait_idle(Instant::now().checked_add(timeout))
    }

    /// Waits until everything that was sent is written, for at most `timeout`; `false` then. Whether the other side has read
    /// it is another matter.
    ///
    /// # Blocking
    /// At most for `timeout`.
    #[must_use]
    pub fn wait_written(&self, timeout: Duration) -> bool {
        self.shared().writer.wait_written(Instant::now().checked_add(timeout))
    }

    /// The loop that serves it.
    #[must_use]
    pub fn events(&self) -> &EventLoop {
        &self.shared().events
    }

    /// What it is called in logs and errors.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.shared().options.name
    }

    /// What it has counted.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let shared = self.shared();
        let (open_calls, late_replies, unknown_replies) = {
            let calls = lock(&shared.calls);
            (calls.len(), calls.late(), calls.unknown())
        };
        Stats {
            open_calls,
            late_replies,
            unknown_replies,
            skipped: shared.counters.skipped.total(),
            unexpected: shared.counters.unexpected.total(),
            held: shared.held(),
            queued: shared.writer.queued(),
            credit: shared.writer.awaited_credit(),
        }
    }

    /// The handler that the connection was made with, if it is of this type.
    #[must_use]
    pub fn handler<H: Handler>(&self) -> Option<&H> {
        let handler: &dyn Any = &*self.shared().handler;
        handler.downcast_ref()
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.0.shared
    }
}

fn text_of(command: &str, reply: Vec<u8>) -> Result<String, CallError> {
    String::from_utf8(reply)
        .map_err(|error| CallError::NotText { command: command.to_owned(), source: error.utf8_error() })
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
        f.debug_struct("Connection").field("name", &self.name()).field("stats", &self.stats()).finish()
    }
}
