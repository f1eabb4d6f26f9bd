//! Streams of values.

use std::any::type_name;
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_core::Stream;
use pipeplug_net::{
    CallError, Failure, HandlerError, PartSender, Parts, Reply, ReplyParts, Request, StreamError,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::INVALID_ARGUMENT;
use crate::channel::{decode_error, method_error};
use crate::codec::{Codec, EncodeError, Json};
use crate::error::ServiceError;
use crate::transport::CallFailed;

/// Items that a method's caller sends: an argument of a method.
///
/// Iterate over it, or await it ([`Stream`]). After an error there are no more. Dropping it tells
/// the caller that no more items are wanted.
///
/// # Blocking
/// `next` blocks as that of [`Parts`].
#[derive(Debug)]
pub struct StreamIn<T>(Parts, PhantomData<fn() -> T>);

impl<T: DeserializeOwned> StreamIn<T> {
    /// Takes the items of a request.
    #[must_use]
    pub fn of(request: &mut Request) -> Self {
        Self(request.parts(), PhantomData)
    }

    /// Takes no more items, and gives the caller the reason.
    pub fn enough(self, reason: &str) {
        self.0.enough(reason);
    }

    fn decode(part: Result<pipeplug_net::Part, StreamError>) -> Result<T, HandlerError> {
        Json::decode(&part?).map_err(|error| invalid(&error).into())
    }
}

/// The failure of a request with an argument or item that does not fit.
pub(crate) fn invalid(error: &crate::codec::DecodeError) -> Failure {
    let failure = Failure::new(INVALID_ARGUMENT, error.to_string());
    match error.field() {
        Some(field) => failure.data(serde_json::json!({ "field": field })),
        None => failure,
    }
}

impl<T: DeserializeOwned> Iterator for StreamIn<T> {
    type Item = Result<T, HandlerError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next().map(Self::decode)
    }
}

impl<T: DeserializeOwned> Stream for StreamIn<T> {
    type Item = Result<T, HandlerError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        Pin::new(&mut self.0).poll_next(context).map(|part| part.map(Self::decode))
    }
}

/// Items that are a method's result. They are sent after the method has returned, as they are made.
///
/// ```
/// use pipeplug_service::{StreamIn, StreamOut};
///
/// /// Lengths of lines, as the lines come.
/// fn lengths(lines: StreamIn<String>) -> StreamOut<usize> {
///     StreamOut::new(lines.map(|line| line.map(|line| line.len())))
/// }
/// ```
pub struct StreamOut<T>(Box<dyn SendItems<T>>);

type SendResult = Result<(), HandlerError>;

trait SendItems<T>: FnOnce(&mut StreamSender<T>) -> SendResult + Send {}

impl<T, F: FnOnce(&mut StreamSender<T>) -> SendResult + Send> SendItems<T> for F {}

impl<T: Serialize> StreamOut<T> {
    /// Sends what an iterator gives. An error ends the stream, and is the caller's.
    ///
    /// The iterator runs on the thread of the handler, may block, and ends early if the caller takes
    /// no more items.
    pub fn new<I, E>(items: I) -> Self
    where
        I: IntoIterator<Item = Result<T, E>, IntoIter: Send> + 'static,
        I::IntoIter: 'static,
        E: Into<HandlerError>,
    {
        let items = items.into_iter();
        Self::sending(move |sender| {
            for item in items {
                sender.send(&item.map_err(Into::into)?)?;
            }
            Ok(())
        })
    }

    /// Sends what an iterator gives that does not fail.
    pub fn of<I>(items: I) -> Self
    where
        I: IntoIterator<Item = T>,
        I::IntoIter: Send + 'static,
    {
        let items = items.into_iter();
        Self::sending(move |sender| {
            for item in items {
                sender.send(&item)?;
            }
            Ok(())
        })
    }

    /// Runs a function that sends the items. Its error ends the stream, and is the caller's.
    pub fn sending(
        send: impl FnOnce(&mut StreamSender<T>) -> Result<(), HandlerError> + Send + 'static,
    ) -> Self {
        Self(Box::new(send))
    }

    /// Sends the items as parts of the reply to `request`.
    ///
    /// # Errors
    /// The caller takes no items, or the error of the items.
    pub(crate) fn send(self, request: &mut Request) -> Result<Reply, HandlerError> {
        let mut sender = StreamSender::new(request.reply_parts()?);
        match (self.0)(&mut sender) {
            // The caller has what it wants.
            Err(error) if is_enough(&error) => Ok(Reply::empty()),
            Err(error) => Err(error),
            Ok(()) => Ok(Reply::empty()),
        }
    }
}

fn is_enough(error: &HandlerError) -> bool {
    let sent = error.downcast_ref().and_then(SendError::stream_error);
    matches!(sent.or_else(|| error.downcast_ref()), Some(StreamError::Enough { .. }))
}

impl<T> std::fmt::Debug for StreamOut<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("StreamOut").field(&type_name::<T>()).finish()
    }
}

/// Sends items: those that a method takes, or those of its result.
///
/// [`finish`](StreamSender::finish) completes the items that a method takes. Dropping it before that
/// ends the stream with an error for the method.
#[derive(Debug)]
pub struct StreamSender<T>(PartSender, PhantomData<fn(T)>);

impl<T: Serialize> StreamSender<T> {
    pub(crate) fn new(sender: PartSender) -> Self {
        Self(sender, PhantomData)
    }

    /// Sends an item.
    ///
    /// # Errors
    /// The item cannot be encoded, or as for [`PartSender::send`].
    ///
    /// # Blocking
    /// As [`PartSender::send`].
    pub fn send(&mut self, item: &T) -> Result<(), SendError> {
        Ok(self.0.send(Json::encode(item)?)?)
    }

    /// Sends an item as [`send`](Self::send) does, and awaits that it may be sent.
    ///
    /// # Errors
    /// As for [`send`](Self::send).
    ///
    /// # Cancellation
    /// If the future is dropped before it is ready, the item was not sent.
    pub async fn send_async(&mut self, item: T) -> Result<(), SendError> {
        let bytes = Json::encode(&item)?;
        drop(item);
        Ok(self.0.send_async(bytes).await?)
    }

    /// Completes the stream: no more items come.
    ///
    /// # Errors
    /// As for [`PartSender::finish`].
    pub fn finish(self) -> Result<(), StreamError> {
        self.0.finish()
    }

    /// Ends the stream before it is complete. The receiver gets the reason.
    pub fn abort(self, reason: &str) {
        self.0.abort(reason);
    }
}

/// Reason that an item was not sent.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// The item cannot be encoded. The stream goes on.
    #[error("the item cannot be encoded: {0}")]
    Encode(#[from] EncodeError),
    /// The stream has ended.
    #[error(transparent)]
    Stream(#[from] StreamError),
}

impl SendError {
    /// Reason that the stream has ended. `None` if it goes on.
    #[must_use]
    pub fn stream_error(&self) -> Option<&StreamError> {
        match self {
            Self::Encode(_) => None,
            Self::Stream(error) => Some(error),
        }
    }
}

/// Items that are the result of a method, for its caller.
///
/// Iterate over it, or await it ([`Stream`]). A call that fails ends them with its error, so that
/// items that end without one are complete. Dropping it gives the call up.
///
/// # Blocking
/// `next` blocks as that of [`ReplyParts`].
#[derive(Debug)]
pub struct StreamItems<T, E = crate::Never> {
    command: String,
    parts: ReplyParts,
    has_failed: bool,
    value: PhantomData<fn() -> (T, E)>,
}

impl<T: DeserializeOwned, E: DeserializeOwned> StreamItems<T, E> {
    pub(crate) fn new(command: &str, parts: ReplyParts) -> Self {
        Self { command: command.into(), parts, has_failed: false, value: PhantomData }
    }

    fn decode(
        &mut self,
        part: Result<pipeplug_net::Part, CallError>,
    ) -> Result<T, ServiceError<E>> {
        let item = match part {
            Ok(part) => Json::decode(&part).map_err(|error| decode_error(&self.command, error)),
            Err(error) => Err(method_error(CallFailed::new(error))),
        };
        if item.is_err() {
            self.has_failed = true;
            self.parts.enough("an item does not fit");
        }
        item
    }

    /// Takes the next item as `next` does, and awaits it. `None` at the end.
    ///
    /// # Errors
    /// As for `next`.
    ///
    /// # Cancellation
    /// Dropping the future loses no item.
    pub async fn next_async(&mut self) -> Option<Result<T, ServiceError<E>>> {
        std::future::poll_fn(|context| Pin::new(&mut *self).poll_next(context)).await
    }
}

impl<T: DeserializeOwned, E: DeserializeOwned> Iterator for StreamItems<T, E> {
    type Item = Result<T, ServiceError<E>>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.has_failed {
            return None;
        }
        let part = self.parts.next()?;
        Some(self.decode(part))
    }
}

impl<T: DeserializeOwned, E: DeserializeOwned> Stream for StreamItems<T, E> {
    type Item = Result<T, ServiceError<E>>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.has_failed {
            return Poll::Ready(None);
        }
        let part = std::task::ready!(Pin::new(&mut self.parts).poll_next(context));
        Poll::Ready(part.map(|part| self.decode(part)))
    }
}

/// Result of a method that takes items, which follows the items. Dropping it gives the call up.
#[derive(Debug)]
#[must_use = "dropping it gives the call up"]
pub struct PendingResult<T, E = crate::Never> {
    command: String,
    parts: ReplyParts,
    value: PhantomData<fn() -> (T, E)>,
}

impl<T: DeserializeOwned, E: DeserializeOwned> PendingResult<T, E> {
    pub(crate) fn new(command: &str, parts: ReplyParts) -> Self {
        Self { command: command.into(), parts, value: PhantomData }
    }

    /// Waits for the result.
    ///
    /// # Errors
    /// The method's own error, or the call has failed.
    ///
    /// # Blocking
    /// Until the method has returned, the time of the call is over, or the connection ends.
    pub fn wait(self) -> Result<T, ServiceError<E>> {
        let reply = self.parts.reply().map_err(|error| method_error(CallFailed::new(error)))?;
        Json::decode(&reply).map_err(|error| decode_error(&self.command, error))
    }

    /// Awaits the result. Dropping the future gives the call up.
    ///
    /// # Errors
    /// As for [`wait`](Self::wait).
    pub async fn wait_async(mut self) -> Result<T, ServiceError<E>> {
        while let Some(part) = self.parts.next_async().await {
            part.map_err(|error| method_error(CallFailed::new(error)))?;
        }
        // Nothing is waited for any more.
        self.wait()
    }
}
