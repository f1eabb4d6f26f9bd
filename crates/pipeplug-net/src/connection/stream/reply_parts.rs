//! Parts of a reply, and the reply behind them.

use std::any::Any;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use super::CallStream;
use super::error::StreamError;
use super::part::Part;
use super::receive::{Bytes, Kept, Next, PartReader, read_as_bytes};
use crate::clock::has_passed;
use crate::connection::call::PendingCall;
use crate::connection::call_error::CallError;
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
/// # Blocking
/// `next` and `read` block until a part comes or the call ends. Meanwhile this thread may read for
/// the connection.
#[derive(Debug)]
pub struct ReplyParts {
    reader: PartReader,
    call: Option<PendingCall>,
    /// Outcome of the call, behind the parts.
    outcome: Option<Result<Reply, CallError>>,
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
            has_ended: false,
            bytes: Bytes::default(),
            kept: Kept::default(),
        }
    }

    /// Takes no more parts, and tells the handler the reason. The reply still comes.
    pub fn enough(&self, reason: &str) {
        self.reader.enough(reason);
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
            let command = self.call.as_ref().map(|call| call.command().to_owned());
            let command = command.unwrap_or_default();
            self.outcome = Some(Err(CallError::Stream { command, error }));
            self.call = None;
        } else if let Some(call) = self.call.take() {
            self.outcome = Some(call.wait());
        }
        self.finish()
    }
}

impl ReplyParts {
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
            match self.reader.next(None) {
                Next::Part(part) => return Some(Ok(part)),
                Next::Ended(end) => return self.ended(end),
                Next::Nothing => {}
            }
            let Some(call) = &self.call else { return self.finish() };
            let deadline = call.deadline_at();
            if deadline.is_some_and(has_passed) {
                // Deals with what has arrived in time, and gives the call up if that is not all.
                self.outcome = self.call.take().map(PendingCall::wait);
            } else {
                self.reader.wait(deadline);
            }
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
            match this.reader.next(Some(context.waker())) {
                Next::Part(part) => return Poll::Ready(Some(Ok(part))),
                Next::Ended(Err(error)) => return Poll::Ready(this.ended(Err(error))),
                Next::Ended(Ok(())) | Next::Nothing => {}
            }
            // What came before the outcome was received before it.
            let Some(call) = &mut this.call else { return Poll::Ready(this.finish()) };
            match Pin::new(call).poll(context) {
                Poll::Ready(outcome) => {
                    this.outcome = Some(outcome);
                    this.call = None;
                }
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}

read_as_bytes!(ReplyParts);
