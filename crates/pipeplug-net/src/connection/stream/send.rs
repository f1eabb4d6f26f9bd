//! The sending half of a stream.

use std::any::Any;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use pipeplug_wire::{Header, command};

use super::CallStream;
use super::error::StreamError;
use super::receive::{Kept, Waiter};
use crate::clock::has_passed;
use crate::connection::cancel_handle::{CancelHandle, CancelTarget};
use crate::connection::shared::Shared;
use crate::event_loop::timers::Timer;
use crate::payload::Payload;
use crate::protocol::flow::{SendWindow, weight};
use crate::sync::lock::{lock, wait_until};
use crate::sync::{Instant, MutexGuard};
use crate::writer::{Flush, RoomWait, SendClass, SendError};

/// Largest part that [`io::Write`] and `AsyncWrite` make, in bytes.
const WRITE_MAX: usize = 128 << 10;

/// Credit of the parts that are sent.
#[derive(Debug)]
pub(crate) struct Sending {
    window: SendWindow,
    /// Reason that nothing more is sent.
    end: Option<StreamError>,
    /// Reason of the receiver to take no more parts, also if all were sent before.
    refusal: Option<String>,
    waiter: Waiter,
}

impl Sending {
    pub(super) fn new(window: u64, sends: bool) -> Self {
        let mut sending = SendWindow::default();
        sending.negotiated(window);
        let end = (!sends).then_some(StreamError::NotTaken);
        Self { window: sending, end, refusal: None, waiter: Waiter::None }
    }

    pub(super) fn fail(&mut self, error: StreamError) {
        self.end = Some(error);
    }

    fn is_ready(&self) -> bool {
        self.window.is_open() || self.end.is_some()
    }

    fn take_waiter_if_ready(&mut self) -> Waiter {
        if self.is_ready() { std::mem::take(&mut self.waiter) } else { Waiter::None }
    }
}

impl CallStream {
    /// Notes that the receiver has taken `total` bytes of weight. Returns false if that cannot be.
    pub(super) fn credited(&self, total: u64) -> bool {
        let mut sending = lock(&self.sending);
        let is_valid = sending.window.credit(total);
        let waiter = sending.take_waiter_if_ready();
        drop(sending);
        waiter.wake(&self.may_send);
        is_valid
    }

    /// Sets the window of a stream that was opened before it was negotiated.
    pub(super) fn window_negotiated(&self, window: u64) {
        let mut sending = lock(&self.sending);
        sending.window.negotiated(window);
        let waiter = sending.take_waiter_if_ready();
        drop(sending);
        waiter.wake(&self.may_send);
    }

    /// Ends sending: the receiver takes no more parts.
    pub(super) fn refused(&self, reason: String) {
        lock(&self.sending).refusal = Some(reason.clone());
        self.end_sending(StreamError::Enough { reason });
    }

    /// Reason of the receiver to take no more parts. `None` if it has not said so.
    pub(super) fn refusal(&self) -> Option<String> {
        lock(&self.sending).refusal.clone()
    }

    /// Ends sending, unless it has ended.
    pub(super) fn end_sending(&self, end: StreamError) {
        let mut sending = lock(&self.sending);
        sending.end.get_or_insert(end);
        let waiter = std::mem::take(&mut sending.waiter);
        drop(sending);
        waiter.wake(&self.may_send);
    }

    /// Returns true once no more parts are to be sent.
    pub(super) fn is_sending_over(&self) -> bool {
        lock(&self.sending).end.is_some()
    }

    /// Sleeps until a part may be sent or `deadline` passes.
    fn sleep_for_credit(&self, deadline: Option<Instant>) {
        let mut sending = lock(&self.sending);
        while !sending.is_ready() && !deadline.is_some_and(has_passed) {
            sending.waiter = Waiter::Thread;
            sending = wait_until(&self.may_send, sending, deadline);
        }
        sending.waiter = Waiter::None;
    }
}

/// Sends parts: those of a request or one-way, or those of a reply.
///
/// Send part by part, write bytes ([`io::Write`]), or await ([`Sink`](futures_sink::Sink),
/// [`AsyncWrite`](futures_io::AsyncWrite)). The parts arrive in the order in which they were sent.
/// [`finish`](PartSender::finish) completes the parts of a request or one-way; those of a reply are
/// complete when the handler returns. Dropping it before that ends the stream with an error for the
/// receiver.
#[derive(Debug)]
pub struct PartSender {
    pub(super) shared: Arc<Shared>,
    pub(super) stream: Arc<CallStream>,
    pub(super) deadline: Option<Instant>,
    timer: Option<Timer>,
    room: RoomWait,
    is_finished: bool,
    kept: Kept,
}

impl PartSender {
    /// Keeps a value for as long as this sends.
    #[doc(hidden)]
    pub fn keep(&mut self, value: impl Any + Send + Sync) {
        self.kept = Kept(Some(Box::new(value)));
    }

    pub(crate) fn new(
        shared: Arc<Shared>,
        stream: Arc<CallStream>,
        deadline: Option<Instant>,
    ) -> Self {
        Self {
            shared,
            stream,
            deadline,
            timer: None,
            room: RoomWait::default(),
            is_finished: false,
            kept: Kept::default(),
        }
    }

    /// Sends a part: a string or bytes. Owned bytes above 4 KiB are not copied.
    ///
    /// # Errors
    /// The receiver wants no more parts, the call has ended, its deadline has passed, or the
    /// connection has ended. The part was not sent.
    ///
    /// # Blocking
    /// While the receiver is behind by more than its window, and while
    /// [`Options::outgoing`](crate::Options::outgoing) bytes wait to be written.
    pub fn send<'a>(&mut self, part: impl Into<Payload<'a>>) -> Result<(), StreamError> {
        let part = part.into();
        while !self.reserve(&part)? {
            self.wait_for_credit();
        }
        self.send_reserved(part, SendClass::Part { deadline: self.deadline })
    }

    /// Sends each part.
    ///
    /// # Errors
    /// As for [`send`](PartSender::send).
    ///
    /// # Blocking
    /// As for [`send`](PartSender::send).
    pub fn send_all<'a, P: Into<Payload<'a>>>(
        &mut self,
        parts: impl IntoIterator<Item = P>,
    ) -> Result<(), StreamError> {
        parts.into_iter().try_for_each(|part| self.send(part))
    }

    /// Completes the stream: no more parts come.
    ///
    /// # Errors
    /// As for [`send`](PartSender::send).
    pub fn finish(mut self) -> Result<(), StreamError> {
        self.finish_ref()
    }

    /// Ends the stream before it is complete. The receiver gets the reason.
    pub fn abort(mut self, reason: &str) {
        // The receiver tells an early end by its reason.
        self.end(if reason.is_empty() { "no reason is given" } else { reason });
    }

    /// Returns a handle with which another thread can end the stream while this one sends, or waits
    /// until it may. Of the parts of a request the whole call is given up. Those of a one-way end
    /// early for the receiver. Those of a reply cannot be sent any more, and their handler decides
    /// how it answers.
    #[must_use]
    pub fn cancel_handle(&self) -> CancelHandle {
        CancelHandle::of(CancelTarget::Stream {
            shared: Arc::downgrade(&self.shared),
            stream: Arc::downgrade(&self.stream),
        })
    }

    /// Returns the error that the next part would fail with, once there is one.
    #[must_use]
    pub fn error(&self) -> Option<StreamError> {
        lock(&self.stream.sending).end.clone()
    }

    /// Waits until there may be credit.
    pub(super) fn wait_for_credit(&self) {
        let (stream, deadline) = (&self.stream, self.deadline);
        self.shared.wait_for_peer(
            deadline,
            || lock(&stream.sending).is_ready(),
            || stream.sleep_for_credit(deadline),
        );
    }

    /// Counts parts of these lengths as sent, as far as there is credit for them. Returns their
    /// number.
    pub(super) fn reserve_many(&self, parts: &[&[u8]]) -> Result<usize, StreamError> {
        let mut sending = self.lock_to_send()?;
        let mut count = 0;
        while count < parts.len() && sending.window.is_open() {
            sending.window.sent(weight(command::PART.len(), parts[count].len()));
            count += 1;
        }
        Ok(count)
    }

    /// Locks the stream to send a part, unless it has ended or the deadline has passed. A sender that
    /// never has to wait would not notice the deadline otherwise.
    fn lock_to_send(&self) -> Result<MutexGuard<'_, Sending>, StreamError> {
        let mut sending = lock(&self.stream.sending);
        if sending.end.is_none() && self.is_late() {
            sending.end = Some(StreamError::DeadlinePassed);
        }
        match &sending.end {
            Some(end) => Err(end.clone()),
            None => Ok(sending),
        }
    }

    fn is_late(&self) -> bool {
        self.deadline.is_some_and(has_passed)
    }

    fn finish_ref(&mut self) -> Result<(), StreamError> {
        if self.is_finished {
            return Ok(()); // the first time told of an error
        }
        // After the deadline the receiver gets no end, which would say that the parts are complete.
        let error = self.lock_to_send().err();
        self.end("");
        error.map_or(Ok(()), Err)
    }

    /// Counts a part as sent, if there is credit for it.
    fn reserve(&self, part: &Payload<'_>) -> Result<bool, StreamError> {
        let mut sending = self.lock_to_send()?;
        let is_open = sending.window.is_open();
        if is_open {
            sending.window.sent(weight(command::PART.len(), part.0.len()));
        }
        Ok(is_open)
    }

    fn send_reserved(&self, part: Payload<'_>, class: SendClass) -> Result<(), StreamError> {
        let key = self.stream.key;
        let header = Header {
            thread_id: key.id,
            direction: key.direction(),
            command: command::PART,
            buffer_len: part.0.len() as u64,
        };
        let shared = &self.shared;
        let is_over = || self.stream.is_sending_over();
        shared
            .permit(class, |shared| shared.writer.wait_for_permit(class, &is_over))
            .and_then(|permit| shared.send_permitted(permit, &header, part, None, Flush::Soon))
            .map_err(|error| self.failed(error))
    }

    /// The error of a part that could not be sent.
    pub(super) fn failed(&self, error: SendError) -> StreamError {
        match error {
            SendError::Closed(reason) => StreamError::Closed {
                reason: self.shared.close.reason_or(reason),
                postmortem: self.shared.close.postmortem(),
            },
            SendError::Fatal(reason) => {
                self.shared.end_after_reading(reason);
                StreamError::Closed {
                    reason: self.shared.close.reason(),
                    postmortem: self.shared.close.postmortem(),
                }
            }
            SendError::Late(_) => {
                // The part counts as sent: none may follow it.
                let end = StreamError::DeadlinePassed;
                lock(&self.stream.sending).end.get_or_insert(end.clone());
                end
            }
            SendError::GivenUp => self.error().unwrap_or(StreamError::Cancelled),
            SendError::WouldBlock | SendError::Encode(_) => {
                unreachable!("a part may wait, and can be encoded")
            }
        }
    }

    /// Ends the stream, complete if `reason` is empty. Does nothing the second time.
    fn end(&mut self, reason: &str) {
        if std::mem::replace(&mut self.is_finished, true) {
            return;
        }
        let key = self.stream.key;
        let is_over = {
            let mut sending = lock(&self.stream.sending);
            let end = StreamError::Enough { reason: "the sender has ended the stream".into() };
            sending.end.replace(end).is_some()
        };
        let is_own = key.origin == super::Origin::Own;
        if is_own && !is_over {
            self.shared.send_control(key.id, key.direction(), command::END, reason.into());
        }
        if is_own && self.stream.is_one_way {
            self.shared.streams.remove(key);
        }
    }

    /// Sends a part as [`send`](PartSender::send) does, and awaits that it may be sent.
    ///
    /// # Errors
    /// As for [`send`](PartSender::send).
    ///
    /// # Cancellation
    /// If the future is dropped before it is ready, the part was not sent.
    pub async fn send_async<'a>(
        &mut self,
        part: impl Into<Payload<'a>> + Send,
    ) -> Result<(), StreamError> {
        let part = part.into();
        loop {
            poll_fn(|context| self.poll_permit(context)).await?;
            // Another thread may have ended the stream since, but none has used its credit.
            if self.reserve(&part)? {
                return self.send_reserved(part, SendClass::Admitted);
            }
        }
    }

    /// Waits for credit and for room.
    fn poll_permit(&mut self, context: &mut Context<'_>) -> Poll<Result<(), StreamError>> {
        self.shared.note_awaited();
        let earlier = {
            let mut sending = lock(&self.stream.sending);
            if let Some(end) = &sending.end {
                return Poll::Ready(Err(end.clone()));
            }
            if sending.window.is_open() {
                drop(sending);
                if self.shared.writer.poll_room(&mut self.room, context.waker()) {
                    return Poll::Ready(Ok(()));
                }
                // The end of the stream wakes it too.
                let mut sending = lock(&self.stream.sending);
                if let Some(end) = &sending.end {
                    return Poll::Ready(Err(end.clone()));
                }
                sending.waiter.set_task(context.waker())
            } else {
                sending.waiter.set_task(context.waker())
            }
        };
        drop(earlier); // not under the lock: a waker's drop is code of the user
        if self.is_late() {
            return Poll::Ready(Err(StreamError::DeadlinePassed));
        }
        if let Some(deadline) = self.deadline {
            match &self.timer {
                Some(timer) => timer.renew(context.waker()),
                None => {
                    self.timer = Some(self.shared.timers.set(deadline, context.waker().clone()));
                }
            }
        }
        Poll::Pending
    }
}

impl Drop for PartSender {
    fn drop(&mut self) {
        self.shared.writer.end_wait(&mut self.room);
        self.end("the sender was dropped before the stream was complete");
    }
}

/// Each write is a part, of at most 128 KiB.
impl io::Write for PartSender {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.is_empty() {
            return Ok(0);
        }
        let part = &bytes[..bytes.len().min(WRITE_MAX)];
        self.send(part)?;
        Ok(part.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.shared.flush();
        Ok(())
    }
}

impl<'a, P: Into<Payload<'a>>> futures_sink::Sink<P> for PartSender {
    type Error = StreamError;

    fn poll_ready(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Result<(), StreamError>> {
        self.poll_permit(context)
    }

    fn start_send(self: Pin<&mut Self>, part: P) -> Result<(), StreamError> {
        let part = part.into();
        if self.reserve(&part)? {
            self.send_reserved(part, SendClass::Admitted)
        } else {
            Err(StreamError::WouldBlock)
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<(), StreamError>> {
        self.shared.flush();
        Poll::Ready(Ok(()))
    }

    fn poll_close(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<(), StreamError>> {
        Poll::Ready(self.finish_ref())
    }
}

/// Each write is a part, of at most 128 KiB.
impl futures_io::AsyncWrite for PartSender {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        ready!(self.poll_permit(context))?;
        let part = Payload::from(&bytes[..bytes.len().min(WRITE_MAX)]);
        let len = part.0.len();
        if !self.reserve(&part)? {
            return Poll::Ready(Err(StreamError::WouldBlock.into()));
        }
        self.send_reserved(part, SendClass::Admitted)?;
        Poll::Ready(Ok(len))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.shared.flush();
        Poll::Ready(Ok(()))
    }

    fn poll_close(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.finish_ref().map_err(Into::into))
    }
}
