//! Parts of a reply, and the reply behind them.

use std::any::Any;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use super::CallStream;
use super::error::StreamError;
use super::part::Part;
use super::receive::{Bytes, Kept, Next, PartReader, read_as_bytes};
use crate::clock::has_passed;
use crate::connection::call::PendingCall;
use crate::connection::call_error::CallError;
use crate::connection::cancel_handle::CancelHandle;
use crate::connection::handler::Reply;
use crate::connection::shared::Shared;

/// Parts of a reply, for its caller.
///
/// Iterate over it, read it as bytes ([`Read`](std::io::Read)), or await it
/// ([`Stream`](futures_core::Stream)). The parts come in the order in which they were sent. A call
/// that fails ends them with its error, so that parts that end without one are complete.
/// [`reply`](ReplyParts::reply) has the reply that follows the parts. Dropping it gives the call
/// up.
///
/// After the deadline of the call, the parts that were received are still given, and then
/// [`CallError::TimedOut`], unless the reply has come in time.
///
/// # Blocking
/// `next` and `read` block until a part comes or the call ends. Meanwhile this thread may read for
/// the connection.
#[derive(Debug)]
pub struct ReplyParts {
    reader: PartReader,
    call: Option<PendingCall>,
    /// Outcome of the call, behind the parts.
    outcome: Option<Result<Reply, CallError>>,
    /// Command of the call, once the outcome is known while parts are left.
    command: String,
    has_ended: bool,
    bytes: Bytes,
    kept: Kept,
}

impl ReplyParts {
    pub(crate) fn keep(&mut self, value: impl Any + Send + Sync) {
        self.kept = Kept(Some(Box::new(value)));
    }

    pub(crate) fn new(shared: Arc<Shared>, stream: Arc<CallStream>, call: PendingCall) -> Self {
        Self {
            reader: PartReader::new(shared, stream),
            call: Some(call),
            outcome: None,
            command: String::new(),
            has_ended: false,
            bytes: Bytes::default(),
            kept: Kept::default(),
        }
    }

    /// Returns a handle with which another thread can give the call up, while this one takes parts
    /// or sends them. Both halves end.
    #[must_use]
    pub fn cancel_handle(&self) -> CancelHandle {
        match &self.call {
            Some(call) => call.cancel_handle(),
            None => CancelHandle::new(), // nothing is left to give up
        }
    }

    /// Takes no more parts, and tells the handler the reason. The reply still comes.
    pub fn enough(&self, reason: &str) {
        self.reader.enough(reason);
    }

    /// Reason of the handler to take no more parts of the request. Empty if it gave none, and `None`
    /// if it has not said so.
    ///
    /// [`PartSender::send`](crate::PartSender::send) fails with the same reason
    /// ([`StreamError::Enough`]). This also tells the caller that had sent everything before: once
    /// the parts of the reply have ended, it says if the handler has ignored the stream.
    #[must_use]
    pub fn refusal(&self) -> Option<String> {
        self.reader.stream.refusal()
    }

    /// Waits for the reply that follows the parts. Parts that were not taken are dropped.
    ///
    /// # Errors
    /// As for [`RequestBuilder::wait`](crate::RequestBuilder::wait).
    ///
    /// # Blocking
    /// As for `next`.
    pub fn reply(mut self) -> Result<Reply, CallError> {
        for part in self.by_ref() {
            part?;
        }
        // The error was returned by `next`, now or before.
        self.outcome.take().unwrap_or_else(|| Ok(Reply::empty()))
    }

    /// Awaits the reply that follows the parts, as [`reply`](ReplyParts::reply) waits for it.
    ///
    /// # Errors
    /// As for [`reply`](ReplyParts::reply).
    ///
    /// # Cancellation
    /// Dropping the future gives the call up.
    pub async fn reply_async(mut self) -> Result<Reply, CallError> {
        while let Some(part) = self.next_async().await {
            part?;
        }
        self.outcome.take().unwrap_or_else(|| Ok(Reply::empty()))
    }

    pub(super) fn with_those_here(&mut self, first: Part) -> Vec<Part> {
        self.reader.with_those_here(first)
    }

    fn finish(&mut self) -> Option<Result<Part, CallError>> {
        self.has_ended = true;
        match self.outcome.take() {
            Some(Err(error)) => Some(Err(error)),
            outcome => {
                self.outcome = outcome;
                None
            }
        }
    }

    fn ended(&mut self, end: Result<(), StreamError>) -> Option<Result<Part, CallError>> {
        if let Err(error) = end {
            // The error of the call itself comes first.
            if !matches!(self.outcome, Some(Err(_))) {
                let settled = std::mem::take(&mut self.command);
                let command = self.call.as_ref().map_or(settled, |call| call.command().to_owned());
                self.outcome = Some(Err(CallError::Stream { command, error }));
            }
            self.call = None;
        } else if let Some(call) = self.call.take() {
            self.outcome = Some(call.wait());
        }
        self.finish()
    }
}

impl ReplyParts {
    fn is_late(&self) -> bool {
        let deadline = self.call.as_ref().and_then(PendingCall::deadline_at);
        deadline.is_some_and(has_passed)
    }

    /// Ends the call at its deadline: deals with what has arrived in time, and gives the call up if
    /// that is not all. No more parts come then.
    fn end_late(&mut self) {
        if let Some(call) = self.call.take() {
            call.command().clone_into(&mut self.command);
            self.outcome = Some(call.wait());
        }
    }

    /// Asks for the outcome of the call.
    fn poll_outcome(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if let Some(call) = &mut self.call {
            self.outcome = Some(ready!(Pin::new(&mut *call).poll(context)));
            call.command().clone_into(&mut self.command);
            self.call = None;
        }
        Poll::Ready(())
    }

    /// Takes the next part as `next` does, and awaits it. `None` at the end.
    ///
    /// # Errors
    /// As for `next`.
    ///
    /// # Cancellation
    /// Dropping the future loses no part.
    pub async fn next_async(&mut self) -> Option<Result<Part, CallError>> {
        poll_fn(|context| futures_core::Stream::poll_next(Pin::new(&mut *self), context)).await
    }
}

impl Iterator for ReplyParts {
    type Item = Result<Part, CallError>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.has_ended {
            if let Some(part) = self.reader.next_here() {
                return Some(Ok(part));
            }
            if self.is_late() {
                // Before the next look: a handler that goes on would be listened to for ever.
                self.end_late();
            }
            match self.reader.next(None) {
                Next::Part(part) => return Some(Ok(part)),
                Next::Ended(end) => return self.ended(end),
                Next::Nothing => {}
            }
            let Some(call) = &self.call else { return self.finish() };
            self.reader.wait(call.deadline_at());
        }
        None
    }
}

impl futures_core::Stream for ReplyParts {
    type Item = Result<Part, CallError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        if this.has_ended {
            return Poll::Ready(None);
        }
        loop {
            if let Some(part) = this.reader.next_here() {
                return Poll::Ready(Some(Ok(part)));
            }
            if this.is_late() {
                // As in `next`.
                ready!(this.poll_outcome(context));
            }
            match this.reader.next(Some(context.waker())) {
                Next::Part(part) => return Poll::Ready(Some(Ok(part))),
                Next::Ended(Err(error)) => return Poll::Ready(this.ended(Err(error))),
                Next::Ended(Ok(())) | Next::Nothing => {}
            }
            // What came before the outcome was received before it.
            if this.call.is_none() {
                return Poll::Ready(this.finish());
            }
            ready!(this.poll_outcome(context));
        }
    }
}

read_as_bytes!(ReplyParts);
