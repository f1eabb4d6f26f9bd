//! Handlers of commands, by name.

use std::collections::HashMap;
use std::sync::Arc;

use pipeplug_net::{Escaped, Failure, Handler, HandlerError, Reply, Request, failure_code};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::codec::{Body, Codec};
use crate::stream::invalid;

type Route = Arc<dyn Fn(&mut Request) -> Result<Reply, HandlerError> + Send + Sync>;

/// Handlers of commands, each with the type of its argument.
///
/// It is a handler itself: of a connection, and with [`into_handler`](Router::into_handler) of a
/// plugin or host. Handlers run concurrently, as all handlers do.
///
/// ```
/// use pipeplug_service::{Json, Reply, Request, Router};
///
/// let router = Router::new()
///     .on("add", |_: &mut Request, Json((a, b)): Json<(i64, i64)>| Json(a + b))
///     .on("half", |_: &mut Request, Json(n): Json<i64>| match n % 2 {
///         0 => Ok(Json(n / 2)),
///         _ => Err(format!("{n} is odd")),
///     })
///     .on_bytes("reverse", |request: &mut Request| {
///         let mut bytes = request.take_buffer();
///         bytes.reverse();
///         Ok(bytes.into())
///     });
/// assert_eq!(router.commands(), ["add", "half", "reverse"]);
/// ```
#[derive(Clone, Default)]
#[must_use = "a router does nothing until it is a handler"]
pub struct Router(HashMap<String, Route>);

/// Result of a handler of a [`Router`].
pub trait Answer {
    /// Makes a reply.
    ///
    /// # Errors
    /// The error of the handler, or the value cannot be encoded.
    fn into_reply(self) -> Result<Reply, HandlerError>;
}

impl<B: Body<Value: Serialize>> Answer for B {
    fn into_reply(self) -> Result<Reply, HandlerError> {
        Ok(B::Codec::encode(self.value())?.into())
    }
}

impl Answer for Reply {
    fn into_reply(self) -> Result<Reply, HandlerError> {
        Ok(self)
    }
}

impl Answer for () {
    fn into_reply(self) -> Result<Reply, HandlerError> {
        Ok(Reply::empty())
    }
}

impl<A: Answer, E: Into<HandlerError>> Answer for Result<A, E> {
    fn into_reply(self) -> Result<Reply, HandlerError> {
        self.map_err(Into::into)?.into_reply()
    }
}

impl Router {
    /// Makes a router without handlers.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a handler, which is called with the request and its decoded buffer. A buffer that does
    /// not fit is answered with the code [`INVALID_ARGUMENT`](crate::INVALID_ARGUMENT).
    ///
    /// # Panics
    /// The command has a handler already.
    pub fn on<B, A, F>(self, command: impl Into<String>, handler: F) -> Self
    where
        B: Body<Value: DeserializeOwned>,
        A: Answer,
        F: Fn(&mut Request, B) -> A + Send + Sync + 'static,
    {
        self.on_bytes(command, move |request| {
            let value = decode::<B::Codec, _>(request)?;
            handler(request, B::new(value)).into_reply()
        })
    }

    /// Adds a handler that reads the request itself.
    ///
    /// # Panics
    /// The command has a handler already.
    pub fn on_bytes<F>(mut self, command: impl Into<String>, handler: F) -> Self
    where
        F: Fn(&mut Request) -> Result<Reply, HandlerError> + Send + Sync + 'static,
    {
        let command = command.into();
        let earlier = self.0.insert(command.clone(), Arc::new(handler));
        assert!(earlier.is_none(), "the command {command:?} has two handlers");
        self
    }

    /// Commands that have a handler, sorted.
    #[must_use]
    pub fn commands(&self) -> Vec<&str> {
        let mut commands: Vec<_> = self.0.keys().map(String::as_str).collect();
        commands.sort_unstable();
        commands
    }

    /// Answers a request, if its command has a handler.
    pub fn handle(&self, request: &mut Request) -> Option<Result<Reply, HandlerError>> {
        let route = self.0.get(request.command())?;
        Some(route(request))
    }

    /// Answers that the command is unknown, and names the nearest one.
    pub(crate) fn unknown(&self, command: &str) -> HandlerError {
        let nearest = nearest(command, self.0.keys().map(String::as_str));
        let hint = nearest
            .map(|name| format!("; did you mean \"{}\"?", Escaped(name)))
            .unwrap_or_default();
        let message = format!("unknown command \"{}\"{hint}", Escaped(command));
        Failure::new(failure_code::UNKNOWN_COMMAND, message).into()
    }

    /// Makes the call-back of a plugin or host, which ignores the handle that it gets.
    pub fn into_handler<P>(
        self,
    ) -> impl Fn(&P, &mut Request) -> Result<Reply, HandlerError> + Send + Sync + 'static {
        move |_: &P, request: &mut Request| Handler::handle(&self, request)
    }
}

impl Handler for Router {
    fn handle(&self, request: &mut Request) -> Result<Reply, HandlerError> {
        self.handle(request).unwrap_or_else(|| Err(self.unknown(request.command())))
    }
}

impl std::fmt::Debug for Router {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Router").field(&self.commands()).finish()
    }
}

/// Decodes the buffer of a request.
pub(crate) fn decode<C: Codec, T: DeserializeOwned>(request: &Request) -> Result<T, HandlerError> {
    C::decode(request.buffer()).map_err(|error| invalid(&error).into())
}

/// The name that a mistyped one was most likely meant to be.
pub(crate) fn nearest<'a>(name: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let distance = |other: &str| strsim::damerau_levenshtein(name, other);
    let limit = name.chars().count().div_ceil(3).max(1);
    names
        .map(|other| (distance(other), other))
        .filter(|(distance, _)| *distance <= limit)
        .min()
        .map(|(_, other)| other)
}
