//! Callers of any kind, behind one type.

use std::error::Error;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use pipeplug_net::{
    CallError, CallFailure, Caller, NotifyError, OutgoingRequest, PartSender, Payload, Reply,
    Retry, Sent, StreamCall, StreamSides,
};

/// A future that is boxed, since the caller's type is not known.
pub(crate) type Boxed<'a, T> = Pin<Box<dyn Future<Output = Result<T, CallFailed>> + Send + 'a>>;

fn boxed<'a, T, E: 'a>(
    future: impl Future<Output = Result<T, E>> + Send + 'a,
    failed: fn(E) -> CallFailed,
) -> Boxed<'a, T> {
    Box::pin(async move { future.await.map_err(failed) })
}

/// A [`Caller`] that can be a trait object.
pub(crate) trait Transport: Send + Sync {
    fn call(&self, request: OutgoingRequest<'_>) -> Result<Reply, CallFailed>;
    fn call_async<'a>(&'a self, request: OutgoingRequest<'a>) -> Boxed<'a, Reply>;
    fn notify(&self, command: &str, payload: Payload<'_>) -> Result<(), CallFailed>;
    fn notify_async<'a>(&'a self, command: &'a str, payload: Payload<'a>) -> Boxed<'a, ()>;
    fn open(
        &self,
        request: OutgoingRequest<'_>,
        sides: StreamSides,
    ) -> Result<StreamCall, CallFailed>;
    fn open_async<'a>(
        &'a self,
        request: OutgoingRequest<'a>,
        sides: StreamSides,
    ) -> Boxed<'a, StreamCall>;
    fn open_one_way(&self, command: &str, payload: Payload<'_>) -> Result<PartSender, CallFailed>;
    fn open_one_way_async<'a>(
        &'a self,
        command: &'a str,
        payload: Payload<'a>,
    ) -> Boxed<'a, PartSender>;
}

impl<C: Caller + Send + Sync> Transport for C {
    fn call(&self, request: OutgoingRequest<'_>) -> Result<Reply, CallFailed> {
        self.wait_for_request(request).map_err(CallFailed::new)
    }

    fn call_async<'a>(&'a self, request: OutgoingRequest<'a>) -> Boxed<'a, Reply> {
        let reply = self.await_request(request);
        boxed(reply, CallFailed::new)
    }

    fn notify(&self, command: &str, payload: Payload<'_>) -> Result<(), CallFailed> {
        self.send_one_way(command, payload).map_err(CallFailed::not_sent)
    }

    fn notify_async<'a>(&'a self, command: &'a str, payload: Payload<'a>) -> Boxed<'a, ()> {
        let sent = self.send_one_way_async(command, payload);
        boxed(sent, CallFailed::not_sent)
    }

    fn open(
        &self,
        request: OutgoingRequest<'_>,
        sides: StreamSides,
    ) -> Result<StreamCall, CallFailed> {
        self.open_stream(request, sides).map_err(CallFailed::new)
    }

    fn open_async<'a>(
        &'a self,
        request: OutgoingRequest<'a>,
        sides: StreamSides,
    ) -> Boxed<'a, StreamCall> {
        let opened = self.open_stream_async(request, sides);
        boxed(opened, CallFailed::new)
    }

    fn open_one_way(&self, command: &str, payload: Payload<'_>) -> Result<PartSender, CallFailed> {
        self.open_one_way_stream(command, payload).map_err(CallFailed::not_sent)
    }

    fn open_one_way_async<'a>(
        &'a self,
        command: &'a str,
        payload: Payload<'a>,
    ) -> Boxed<'a, PartSender> {
        let opened = self.open_one_way_stream_async(command, payload);
        boxed(opened, CallFailed::not_sent)
    }
}

/// Error of a call or one-way of a [`Channel`](crate::Channel), whatever it calls.
#[derive(Clone)]
pub struct CallFailed(Arc<Failed>);

enum Failed {
    Call(Box<dyn AnyFailure>),
    /// Of a one-way.
    NotSent(Box<dyn Error + Send + Sync>),
}

/// A [`CallFailure`] that can be a trait object.
trait AnyFailure: Error + Send + Sync {
    fn any_call_error(&self) -> Option<&CallError>;
    fn any_code(&self) -> Option<&str>;
    fn any_sent(&self) -> Sent;
    fn any_retry(&self) -> Retry;
}

impl<F: CallFailure> AnyFailure for F {
    fn any_call_error(&self) -> Option<&CallError> {
        self.call_error()
    }

    fn any_code(&self) -> Option<&str> {
        self.code()
    }

    fn any_sent(&self) -> Sent {
        self.sent()
    }

    fn any_retry(&self) -> Retry {
        self.retry()
    }
}

impl CallFailed {
    pub(crate) fn new(error: impl CallFailure) -> Self {
        Self(Arc::new(Failed::Call(Box::new(error))))
    }

    fn not_sent(error: impl Error + Send + Sync + 'static) -> Self {
        Self(Arc::new(Failed::NotSent(Box::new(error))))
    }

    /// The error of the call. `None` for a one-way, and if there was no plugin to call.
    #[must_use]
    pub fn call_error(&self) -> Option<&CallError> {
        match &*self.0 {
            Failed::Call(error) => error.any_call_error(),
            Failed::NotSent(_) => None,
        }
    }

    /// Code of the error; see [`CallError::code`].
    #[must_use]
    pub fn code(&self) -> Option<&str> {
        match &*self.0 {
            Failed::Call(error) => error.any_code(),
            Failed::NotSent(_) => None,
        }
    }

    /// Tells whether the request was sent.
    #[must_use]
    pub fn sent(&self) -> Sent {
        match &*self.0 {
            Failed::Call(error) => error.any_sent(),
            Failed::NotSent(_) => Sent::No,
        }
    }

    /// Tells whether the same call may be made again.
    #[must_use]
    pub fn retry(&self) -> Retry {
        match &*self.0 {
            Failed::Call(error) => error.any_retry(),
            // The connection may be another one later.
            Failed::NotSent(error) => match error.downcast_ref() {
                Some(NotifyError::Encode { .. } | NotifyError::Unsupported { .. }) => Retry::No,
                _ => Retry::Yes,
            },
        }
    }

    fn error(&self) -> &(dyn Error + 'static) {
        match &*self.0 {
            Failed::Call(error) => &**error,
            Failed::NotSent(error) => &**error,
        }
    }
}

impl From<CallError> for CallFailed {
    fn from(error: CallError) -> Self {
        Self::new(error)
    }
}

impl fmt::Display for CallFailed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self.error(), f)
    }
}

impl fmt::Debug for CallFailed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.error(), f)
    }
}

impl Error for CallFailed {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.error().source()
    }
}
