//! Requests and one-ways that wait to be sent without a thread: the futures of calls.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

use pipeplug_wire::{Direction, Header, ThreadId};

use super::call::PendingCall;
use super::call_error::{CallError, NotifyError};
use super::caller::OutgoingRequest;
use super::cancel_handle::{CancelHandle, CancelWatch};
use super::handler::Reply;
use super::one_way::{OneWayFailed, one_way_class};
use super::shared::{Begun, Shared, request_class};
use super::stream::CallStream;
use super::{Connection, Prepared, reserved};
use crate::event_loop::timers::Timer;
use crate::payload::Payload;
use crate::protocol::context::{RequestContext, StreamMode};
use crate::protocol::deadline::Deadline;
use crate::sync::Instant;
use crate::writer::{Blocking, Flush, PermitPoll, RoomWait, SendClass, SendError};

/// A call that is awaited: it is sent when it is polled first, waits until it may be sent, and
/// then for its reply.
///
/// Dropping it gives the call up. A request that was not sent yet will not be sent.
#[must_use = "a future does nothing unless it is awaited"]
pub struct AwaitedCall<'a>(AwaitedState<'a>);

enum AwaitedState<'a> {
    Sending(SendingCall<'a>),
    Sent(PendingCall),
}

impl<'a> AwaitedCall<'a> {
    pub(crate) fn new(connection: &'a Connection, request: OutgoingRequest<'a>) -> Self {
        Self(AwaitedState::Sending(SendingCall::new(connection, request, None)))
    }
}

impl Future for AwaitedCall<'_> {
    type Output = Result<Reply, CallError>;

    /// # Blocking
    /// Never; see [`PendingCall`].
    ///
    /// # Panics
    /// When it is polled again after it was ready.
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if let AwaitedState::Sending(sending) = &mut self.0 {
            let (call, _) = ready!(sending.poll_sent(context))?;
            self.0 = AwaitedState::Sent(call);
        }
        let AwaitedState::Sent(call) = &mut self.0 else { unreachable!("it was set above") };
        Pin::new(call).poll(context)
    }
}

impl std::fmt::Debug for AwaitedCall<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AwaitedCall").finish_non_exhaustive()
    }
}

/// A call whose request was sent, and its stream, if it has one.
type SentCall = (PendingCall, Option<Arc<CallStream>>);

/// A call whose request is sent when it is polled first, or as soon as it may be.
pub(crate) enum SendingCall<'a> {
    Unsent(&'a Connection, OutgoingRequest<'a>, Option<StreamMode>),
    /// Boxed: most calls need not wait, and there may be many futures.
    Waiting(Box<OpenedCall<'a>>),
    Done,
}

/// A call that is open, and whose request is not sent yet.
///
/// It is open while it waits, as that of a thread is: a peer whose replies are read only while a
/// call is open could not make room otherwise.
pub(crate) struct OpenedCall<'a> {
    connection: &'a Connection,
    /// `None` once the request was sent, or has failed.
    begun: Option<Begun>,
    deadline: Option<Deadline>,
    is_nonblocking: bool,
    cancel: Option<CancelWatch<'a>>,
    send: PendingSend<'a>,
}

impl<'a> SendingCall<'a> {
    pub(crate) fn new(
        connection: &'a Connection,
        request: OutgoingRequest<'a>,
        stream: Option<StreamMode>,
    ) -> Self {
        Self::Unsent(connection, request, stream)
    }

    /// Sends the request, and returns the call and its stream.
    pub(crate) fn poll_sent(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Result<SentCall, CallError>> {
        match std::mem::replace(self, Self::Done) {
            Self::Unsent(connection, request, stream) => {
                let mut opened = OpenedCall::open(connection, request, stream)?;
                let polled = opened.poll_sent(context);
                if polled.is_pending() {
                    *self = Self::Waiting(Box::new(opened));
                }
                polled
            }
            Self::Waiting(mut opened) => {
                let polled = opened.poll_sent(context);
                if polled.is_pending() {
                    *self = Self::Waiting(opened);
                }
                polled
            }
            Self::Done => panic!("a call was polled after it had failed"),
        }
    }

    /// Sends the request.
    pub(crate) async fn sent(mut self) -> Result<SentCall, CallError> {
        poll_fn(|context| self.poll_sent(context)).await
    }
}

impl<'a> OpenedCall<'a> {
    fn open(
        connection: &'a Connection,
        request: OutgoingRequest<'a>,
        stream: Option<StreamMode>,
    ) -> Result<Self, CallError> {
        reserved::refuse_call(request.command)?;
        let Prepared { command, payload, deadline, context, blocking, progress, cancel } =
            connection.prepare(request, stream)?;
        let shared = connection.shared();
        shared.note_awaited();
        let begun = shared.open_call(command, deadline, stream, progress.as_ref())?;
        let send = PendingSend {
            shared,
            class: request_class(command, blocking, deadline),
            id: begun.id,
            direction: Direction::Request,
            command,
            payload,
            context,
            wait: RoomWait::default(),
            timer: None,
            flush: Flush::Soon,
            is_sleeper: false,
        };
        let is_nonblocking = blocking == Blocking::Never;
        let cancel = cancel.map(CancelHandle::watch);
        Ok(Self { connection, begun: Some(begun), deadline, is_nonblocking, cancel, send })
    }

    fn poll_sent(&mut self, context: &mut Context<'_>) -> Poll<Result<SentCall, CallError>> {
        let is_cancelled = |watch: &CancelWatch<'_>| watch.handle().is_cancelled();
        let sent = if self.cancel.as_ref().is_some_and(is_cancelled) {
            Err(SendError::GivenUp)
        } else {
            match self.send.poll(context) {
                Poll::Ready(sent) => sent,
                Poll::Pending if self.is_nonblocking => Err(SendError::WouldBlock),
                Poll::Pending => {
                    let watch = self.cancel.as_mut();
                    if !watch.is_some_and(|watch| watch.poll(context.waker())) {
                        return Poll::Pending;
                    }
                    Err(SendError::GivenUp)
                }
            }
        };
        let begun = self.begun.take().expect("a call is sent once");
        let shared = self.connection.shared();
        let Begun { id, slot, stream } =
            shared.request_sent(sent, begun, self.send.command, self.deadline)?;
        let call = PendingCall::new(self.connection.clone(), id, slot, self.deadline)
            .cancelled_by(self.cancel.as_ref().map(CancelWatch::handle));
        Poll::Ready(Ok((call, stream)))
    }
}

impl Drop for OpenedCall<'_> {
    fn drop(&mut self) {
        if let Some(begun) = self.begun.take() {
            self.connection.shared().close_unsent(begun.id);
        }
    }
}

/// A chunk that waits until it may be sent.
struct PendingSend<'a> {
    shared: &'a Arc<Shared>,
    class: SendClass,
    id: ThreadId,
    direction: Direction,
    command: &'a str,
    payload: Payload<'a>,
    context: Option<RequestContext>,
    wait: RoomWait,
    timer: Option<(Instant, Timer)>,
    flush: Flush,
    /// True while it counts as a sleeper: no thread of its own reads for it.
    is_sleeper: bool,
}

impl PendingSend<'_> {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Result<(), SendError>> {
        let waker = context.waker();
        match self.shared.writer.poll_permit(self.class, &mut self.wait, waker) {
            Err(error) => Poll::Ready(Err(error)),
            Ok(PermitPoll::Granted(permit)) => {
                let payload = std::mem::take(&mut self.payload);
                let header = Header {
                    thread_id: self.id,
                    direction: self.direction,
                    command: self.command,
                    buffer_len: payload.0.len() as u64,
                };
                let context = self.context.as_ref();
                Poll::Ready(
                    self.shared.send_permitted(permit, &header, payload, context, self.flush),
                )
            }
            Ok(PermitPoll::Pending(until)) => {
                self.set_timer(until, waker);
                if !std::mem::replace(&mut self.is_sleeper, true) {
                    self.shared.sleep_begins();
                }
                Poll::Pending
            }
        }
    }

    fn set_timer(&mut self, until: Option<Instant>, waker: &Waker) {
        self.timer = match (self.timer.take(), until) {
            (Some((at, timer)), Some(until)) if at == until => {
                timer.renew(waker);
                Some((at, timer))
            }
            (_, until) => until.map(|at| (at, self.shared.timers.set(at, waker.clone()))),
        };
    }
}

impl Drop for PendingSend<'_> {
    fn drop(&mut self) {
        self.shared.writer.end_wait(&mut self.wait);
        if self.is_sleeper {
            self.shared.leader.sleep_ends();
        }
    }
}

impl Shared {
    /// Sends a one-way as soon as it may be sent. `id` is 0, or that of its stream.
    pub(crate) async fn notify_async(
        self: &Arc<Self>,
        command: &str,
        payload: Payload<'_>,
        id: ThreadId,
        context: Option<RequestContext>,
    ) -> Result<(), NotifyError> {
        self.note_awaited();
        let mut send = PendingSend {
            shared: self,
            class: one_way_class(command),
            id,
            direction: Direction::OneWay,
            command,
            payload,
            context,
            wait: RoomWait::default(),
            timer: None,
            flush: Flush::Soon,
            is_sleeper: false,
        };
        let Err(error) = poll_fn(|context| send.poll(context)).await else { return Ok(()) };
        drop(send);
        Err(match self.one_way_failed(error, command) {
            OneWayFailed::Now(error) => error,
            OneWayFailed::WithReason => {
                let (shared, command) = (Arc::clone(self), command.to_owned());
                self.events.offload(move || shared.wait_for_reason(&command)).await
            }
        })
    }

    /// Sends a response as soon as there is room.
    pub(crate) async fn respond_async(
        self: &Arc<Self>,
        id: ThreadId,
        command: &str,
        buffer: Vec<u8>,
    ) {
        self.end_peers_stream(id);
        let mut send = PendingSend {
            shared: self,
            class: SendClass::Reply,
            id,
            direction: Direction::Response,
            command,
            payload: buffer.into(),
            context: None,
            wait: RoomWait::default(),
            timer: None,
            flush: Flush::Now,
            is_sleeper: false,
        };
        let sent = poll_fn(|context| send.poll(context)).await;
        self.sent_or_log(sent);
    }
}
