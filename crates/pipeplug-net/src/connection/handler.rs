//! Handlers: called for what the other side asks.

use std::any::Any;
use std::error::Error;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use pipeplug_wire::{ChunkRef, Direction};

use crate::clock::{has_passed, time_until};
use crate::connection::Connection;
use crate::connection::cancellation::{self, CancelToken, Cancellation, WorkerSlot};
use crate::connection::progress::Reporter;
use crate::connection::read::dispatch::unknown_command;
pub use crate::connection::reply::Reply;
use crate::connection::responder::Responder;
use crate::connection::serve::job::{Buffer, Job};
use crate::connection::shared::Shared;
use crate::connection::stream::error::StreamError;
use crate::connection::stream::receive::Parts;
use crate::connection::stream::send::PartSender;
use crate::connection::stream::{CallStream, Origin, StreamKey};
use crate::connection::turn::Turn;
use crate::error::CloseReason;
use crate::escape::Escaped;
use crate::protocol::context::{InheritValues, RequestContext};
use crate::protocol::deadline::Inherit;
use crate::protocol::failure::{Failure, failure_code};
use crate::sync::Instant;
use crate::sync::lock::{guarded, lock};
use crate::writer::Flush;

/// Error of a handler. Its message, with those of its sources, is sent to the caller. An error that
/// is a [`Failure`], or has one as a source, is sent with its code and data.
pub type HandlerError = Box<dyn Error + Send + Sync>;

/// Target of the `tracing` event for a one-way whose handler failed.
pub const FAILED_ONE_WAYS: &str = module_path!();

/// Answers the other side's requests and takes its one-ways.
///
/// Each method runs on a thread of the event loop's handler pool. It may block, call back, and
/// panic: a panic becomes an error reply and a log line.
///
/// **Handlers run concurrently**, those of one command and of one caller too. They start in about
/// the order in which requests and one-ways came, overtake each other, and finish in any order: a
/// file that many calls append to is corrupted. [`Options::order`](crate::Options::order) has some
/// commands, or all, handled one at a time, in the order in which they were sent. The parts of a
/// stream ([`Request::parts`]) are in order always.
///
/// A closure `Fn(&mut Request) -> Result<Reply, HandlerError>` is a handler.
pub trait Handler: Any + Send + Sync {
    /// Answers a request, or takes a one-way. The reply to a one-way is dropped, and an error is
    /// logged.
    ///
    /// # Errors
    /// Any error is sent to the caller with its message, and a [`Failure`] with its code and data.
    fn handle(&self, request: &mut Request) -> Result<Reply, HandlerError>;

    /// Called once when the other side sends `cmd.stop`: finish and leave.
    fn stop(&self, connection: &Connection) {
        let _ = connection;
    }

    /// Takes the level that the other side sets for the log of this side (`cmd.log_level`). Returns
    /// false if it cannot be taken.
    ///
    /// Called on the thread that reads, in order. It must not wait for anything.
    #[doc(hidden)]
    fn log_level(&self, level: &str) -> bool {
        let _ = level;
        false
    }

    /// Describes the other side when the connection is about to end. The description is part of the
    /// errors that calls end with ([`Postmortem::owner`](crate::Postmortem::owner)).
    ///
    /// Called once, on the thread that reads. It must not wait for anything.
    fn explain(&self) -> Option<Arc<dyn Error + Send + Sync>> {
        None
    }

    /// Called when nothing comes from the other side any more. Open calls have failed, and handlers
    /// may still run and answer.
    fn ended(&self, reason: &Arc<CloseReason>) {
        let _ = reason;
    }

    /// Called at the end of the connection: nothing comes any more, and every handler has returned.
    /// `connection` is `None` if its last handle was dropped.
    fn closed(&self, reason: &Arc<CloseReason>, connection: Option<&Connection>) {
        let _ = (reason, connection);
    }
}

impl<F> Handler for F
where
    F: Fn(&mut Request) -> Result<Reply, HandlerError> + Send + Sync + 'static,
{
    fn handle(&self, request: &mut Request) -> Result<Reply, HandlerError> {
        self(request)
    }
}

/// Handler of a side that answers nothing: requests get an error, and one-ways are logged.
#[derive(Debug, Clone, Copy, Default)]
pub struct Refuse;

impl Handler for Refuse {
    fn handle(&self, request: &mut Request) -> Result<Reply, HandlerError> {
        request.unknown()
    }
}

/// A request or one-way from the other side.
#[derive(Debug)]
pub struct Request {
    connection: Connection,
    job: Job,
    place: RequestPlace,
    context: RequestContext,
    /// True while the handler's result is to be sent.
    answerable: bool,
    parts_taken: bool,
    /// Made by the first report of progress that the caller wants.
    reporter: OnceLock<Arc<Reporter>>,
    reply_parts_taken: bool,
    /// Parts of a one-way that a task handles. Dropped with it, they tell the sender that they are
    /// not wanted.
    unused_parts: Option<Box<Parts>>,
}

/// Place where a cancel finds a request.
#[derive(Debug)]
pub(crate) enum RequestPlace {
    /// Slot of the worker that runs its handler.
    Worker(WorkerSlot),
    /// Answered later, by a task.
    Later,
    /// A one-way that a task handles.
    OneWay(Arc<CancelToken>),
}

impl Request {
    pub(crate) fn new(
        connection: Connection,
        job: Job,
        slot: WorkerSlot,
        context: RequestContext,
    ) -> Self {
        let answerable = job.direction == Direction::Request;
        Self {
            connection,
            job,
            place: RequestPlace::Worker(slot),
            context,
            answerable,
            parts_taken: false,
            reply_parts_taken: false,
            unused_parts: None,
            reporter: OnceLock::new(),
        }
    }

    /// The command.
    #[must_use]
    pub fn command(&self) -> &str {
        &self.job.command
    }

    /// The bytes.
    #[must_use]
    pub fn buffer(&self) -> &[u8] {
        &self.job.buffer
    }

    /// Takes the bytes, without copying large ones. None are left.
    #[must_use]
    pub fn take_buffer(&mut self) -> Vec<u8> {
        self.job.buffer.take()
    }

    /// The bytes as text.
    ///
    /// # Errors
    /// The bytes are no UTF-8.
    pub fn text(&self) -> Result<&str, std::str::Utf8Error> {
        std::str::from_utf8(&self.job.buffer)
    }

    /// The chunk.
    #[must_use]
    pub fn chunk(&self) -> ChunkRef<'_> {
        ChunkRef {
            thread_id: self.job.thread_id,
            direction: self.job.direction,
            command: &self.job.command,
            buffer: &self.job.buffer,
        }
    }

    /// Returns true for a one-way, which has no answer.
    #[must_use]
    pub fn is_one_way(&self) -> bool {
        self.job.direction == Direction::OneWay
    }

    /// The connection that it came over, for calls back.
    #[must_use]
    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Deadline of the caller. `None` if the caller has none, or did not negotiate `context`.
    ///
    /// Calls that the handler makes on its own thread, over any connection, inherit it: they fail
    /// with [`CallError::TimedOut`](crate::CallError) when it passes. Calls of other threads do
    /// not. Give them what is left of it with
    /// [`RequestBuilder::timeout`](crate::RequestBuilder::timeout). A request whose deadline passes
    /// while it is queued is refused without a call of the handler.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.context.deadline
    }

    /// Time that is left until the [deadline](Request::deadline), by the connection's
    /// [clock](crate::Options::clock). Zero once it has passed.
    #[must_use]
    pub fn remaining(&self) -> Option<Duration> {
        self.context.deadline.map(time_until)
    }

    /// Value of the context that the caller sent, such as `traceparent`; see
    /// [`RequestBuilder::context`](crate::RequestBuilder::context). `None` if there is none, or the
    /// caller did not negotiate `context`.
    ///
    /// Calls and one-ways that the handler sends on its own thread, over any connection, inherit
    /// the context.
    #[must_use]
    pub fn context(&self, key: &str) -> Option<&str> {
        self.context.values.as_ref()?.get(key).map(String::as_str)
    }

    /// Keys and values of the context, sorted by key.
    pub fn contexts(&self) -> impl Iterator<Item = (&str, &str)> {
        let values = self.context.values.iter().flat_map(|values| values.iter());
        values.map(|(key, value)| (key.as_str(), value.as_str()))
    }

    /// Returns the cancellation, which tells now and later whether the request is still wanted. For
    /// a one-way it tells whether the connection is still open.
    pub fn cancellation(&self) -> Cancellation {
        let shared = self.connection.shared();
        let token = match &self.place {
            RequestPlace::Worker(slot) => {
                lock(&shared.serve_queue).active.token(*slot, self.job.request_id())
            }
            RequestPlace::Later => {
                lock(&shared.serve_queue).active.token_of_later(self.job.thread_id)
            }
            RequestPlace::OneWay(token) => Arc::clone(token),
        };
        Cancellation::new(shared, token, self.context.deadline)
    }

    /// Returns true if the caller wants to know of progress.
    #[must_use]
    pub fn wants_progress(&self) -> bool {
        self.context.wants_progress && !self.is_one_way()
    }

    /// Reports progress: how much is done, of how much if that is known, in any unit, and what is
    /// being done now, for people. An empty message is none, and one of more than 512 bytes is cut.
    ///
    /// It costs next to nothing if the caller does not want to know. The first report is sent at
    /// once, and then the latest every 50 ms, so a loop may report each of its steps. The last one
    /// is sent before the answer.
    ///
    /// ```
    /// use pipeplug_net::{HandlerError, Reply, Request};
    ///
    /// fn index(request: &mut Request) -> Result<Reply, HandlerError> {
    ///     let files = ["a", "b", "c"];
    ///     for (done, file) in (0..).zip(files) {
    ///         request.progress(done, Some(files.len() as u64), file);
    ///     }
    ///     Ok("indexed".into())
    /// }
    /// ```
    ///
    /// # Blocking
    /// Never. A report for which there is no room waits for the next.
    pub fn progress(&self, done: u64, total: Option<u64>, message: &str) {
        if let Some(reporter) = self.reporter() {
            reporter.report(done, total, message);
        }
    }

    fn reporter(&self) -> Option<&Arc<Reporter>> {
        let shared = self.connection.shared();
        self.wants_progress()
            .then(|| self.reporter.get_or_init(|| Reporter::new(shared, self.job.thread_id)))
    }

    /// Returns true if the request has a stream: parts follow it, or its caller takes parts of the
    /// reply.
    #[must_use]
    pub fn has_stream(&self) -> bool {
        self.context.stream.is_some()
    }

    /// Takes the parts that follow the request. There are none without a stream, and the second
    /// time.
    pub fn parts(&mut self) -> Parts {
        if let Some(parts) = self.unused_parts.take() {
            return parts.taken();
        }
        let is_first = !std::mem::replace(&mut self.parts_taken, true);
        let shared = self.connection.shared();
        let stream = match self.stream() {
            Some(stream) if is_first => {
                stream.taken();
                stream
            }
            _ => CallStream::detached(self.stream_key(), Ok(())),
        };
        Parts::new(Arc::clone(shared), stream, self.context.deadline)
    }

    /// Takes the right to send parts of the reply. They are complete when the handler returns, or
    /// when the [`Responder`] answers.
    ///
    /// # Errors
    /// [`StreamError::NotTaken`] if the caller takes no parts, [`StreamError::AlreadyTaken`] the
    /// second time.
    pub fn reply_parts(&mut self) -> Result<PartSender, StreamError> {
        if !self.context.stream.is_some_and(|mode| mode.receives) || self.is_one_way() {
            return Err(StreamError::NotTaken);
        }
        let stream = self.stream().ok_or(StreamError::NotTaken)?;
        // One sender at a time waits for credit.
        if std::mem::replace(&mut self.reply_parts_taken, true) {
            return Err(StreamError::AlreadyTaken);
        }
        let shared = Arc::clone(self.connection.shared());
        Ok(PartSender::new(shared, stream, self.context.deadline))
    }

    fn stream_key(&self) -> StreamKey {
        StreamKey { origin: Origin::Peer, id: self.job.thread_id }
    }

    /// The stream of the request, if it has one.
    fn stream(&self) -> Option<Arc<CallStream>> {
        self.context.stream?;
        let shared = self.connection.shared();
        Some(shared.streams.get(self.stream_key()).unwrap_or_else(|| {
            // It has ended with the connection, or with the answer.
            let error = match shared.close.ended() {
                Some(reason) => StreamError::Closed {
                    reason: Arc::clone(reason),
                    postmortem: shared.close.postmortem(),
                },
                None => StreamError::Cancelled,
            };
            CallStream::detached(self.stream_key(), Err(error))
        }))
    }

    /// Tells the sender of a one-way whose parts the handler has not taken that they are not
    /// wanted. The answer of a request does so itself.
    fn end_unused_stream(&mut self) {
        if self.context.stream.is_some() && self.is_one_way() && !self.parts_taken {
            drop(self.parts().ignored());
        }
    }

    /// Keeps the turn of a request or one-way that is handled in order
    /// ([`Options::order`](crate::Options::order)): the next one starts when the [`Turn`] is
    /// dropped, and not when the handler returns. Does nothing for others, and the second time.
    pub fn keep_turn(&mut self) -> Turn {
        let RequestPlace::Worker(slot) = self.place else { return Turn::none() };
        Turn::keep(self.connection.shared(), slot)
    }

    /// Takes the right to answer, to use it later and from any thread. The handler's result is then
    /// not sent. `None` for a one-way, the second time, and for the request of a task
    /// ([`spawn`](Request::spawn)), whose result is the answer.
    ///
    /// Of requests that are handled in order, the next one starts when the handler returns, answered
    /// or not. [`keep_turn`](Request::keep_turn) has it wait for longer.
    #[must_use]
    pub fn responder(&mut self) -> Option<Responder> {
        let RequestPlace::Worker(slot) = self.place else { return None };
        std::mem::take(&mut self.answerable).then(|| {
            let shared = Arc::clone(self.connection.shared());
            shared.answer_later(slot);
            let command = self.job.command.as_str().into();
            let reporter = self.reporter().cloned();
            Responder::new(shared, self.job.thread_id, command, self.context.deadline, reporter)
        })
    }

    /// Takes the request out of its handler, for a task. Leaves its command and no bytes.
    pub(super) fn detach(&mut self, place: RequestPlace) -> Self {
        let takes_parts = self.is_one_way() && self.has_stream() && !self.parts_taken;
        let unused_parts = takes_parts.then(|| Box::new(self.parts().ignored()));
        let Job { thread_id, direction, ref command, ref mut buffer, is_cancelled } = self.job;
        // The bytes are its own: a task may take long, and must not keep the whole input.
        let (command, buffer) = (command.clone(), Buffer::Own(buffer.take()));
        Self {
            connection: self.connection.clone(),
            job: Job { thread_id, direction, command, buffer, is_cancelled },
            place,
            context: self.context.clone(),
            answerable: false,
            parts_taken: std::mem::replace(&mut self.parts_taken, true),
            reply_parts_taken: self.reply_parts_taken,
            unused_parts,
            reporter: self.reporter.clone(),
        }
    }

    pub(super) fn place(&self) -> &RequestPlace {
        &self.place
    }

    /// Limits and values that calls for this request inherit.
    pub(super) fn request_context(&self) -> &RequestContext {
        &self.context
    }

    /// Answers that the command is unknown.
    ///
    /// # Errors
    /// Always.
    pub fn unknown(&self) -> Result<Reply, HandlerError> {
        Err(Failure::new(failure_code::UNKNOWN_COMMAND, unknown_command(self.command())).into())
    }

    /// Runs the handler and sends its answer. Returns the connection.
    pub(crate) fn run(mut self, handler: &dyn Handler, flush: Flush) -> Connection {
        if let Some(why) = self.unwanted() {
            if self.answerable {
                self.connection.shared().respond_failure(self.job.thread_id, &why, flush);
            }
            self.end_unused_stream();
            return self.connection;
        }
        let inherited = self.context.deadline.map(Inherit::from);
        let inherited_values = self.context.values.clone().map(InheritValues::from);
        let tap = self.connection.shared().writer.tap.as_ref();
        let handled = tap.map(|tap| tap.handles(self.job.thread_id));
        // Inside, since the error's `Display` is code of the user too.
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            handler.handle(&mut self).map_err(|error| Failure::of(&*error))
        }));
        drop((inherited, inherited_values, handled));
        self.end_unused_stream();
        let peer = self.connection.name();
        let command = self.job.command.as_str();
        let result = match result {
            Ok(result) => result,
            Err(panic) => Err(log_panic(peer, command, panic)),
        };
        if self.answerable
            && let Some(reporter) = self.reporter.get()
        {
            reporter.close();
        }
        let shared = self.connection.shared();
        match result {
            Ok(reply) if self.answerable => {
                shared.tell_ignored(self.job.thread_id);
                shared.respond(self.job.thread_id, command, reply.0, flush)
            }
            Err(failure) if self.answerable => {
                shared.respond_failure(self.job.thread_id, &failure, flush);
            }
            Err(error) => log_failed_one_way(shared, command, &error.message),
            Ok(_) => {}
        }
        self.connection
    }

    /// Reason not to call the handler.
    fn unwanted(&self) -> Option<Failure> {
        if self.job.is_cancelled {
            return Some(Failure::new(failure_code::CANCELLED, cancellation::CANCELLED));
        }
        let is_over = self.context.deadline.is_some_and(has_passed);
        is_over.then(|| {
            let message = "not handled: its deadline had passed before its turn came";
            Failure::new(failure_code::DEADLINE, message)
        })
    }
}

/// Logs that a handler panicked. Returns the failure for the caller.
pub(super) fn log_panic(peer: &str, command: &str, panic: Box<dyn Any + Send>) -> Failure {
    let message = format!("the handler of {command:?} panicked: {}", panic_message(&*panic));
    tracing::error!(%peer, "{message}");
    guarded("what a handler panicked with", || drop(panic));
    Failure::new(failure_code::PANICKED, message)
}

/// Logs that the handler of a one-way failed.
pub(super) fn log_failed_one_way(shared: &Shared, command: &str, error: &str) {
    if let Some(times) = shared.counters.failed.count() {
        let (peer, command) = (&shared.options.name, Escaped(command));
        tracing::warn!(target: FAILED_ONE_WAYS, %peer, %command, %error, times, "a handler of a one-way failed");
    }
}

fn panic_message(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("with no message")
}
