//! Calls with values.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use pipeplug_net::{
    Caller, CancelHandle, OutgoingRequest, ProgressReports, ProgressSender, Reply, StreamCall,
    StreamSides, failure_code,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::METHOD_ERROR;
use crate::codec::{Body, Codec, DecodeError, Json};
use crate::error::ServiceError;
use crate::interface::Interface;
use crate::stream::{PendingResult, StreamItems, StreamSender};
use crate::transport::{CallFailed, Transport};

/// Options of the calls of a [`Channel`] or client.
#[derive(Debug, Clone, Default)]
pub struct CallOptions {
    timeout: Option<Duration>,
    is_idempotent: bool,
    context: Vec<(String, String)>,
    progress: Option<ProgressSender>,
    cancel: Option<CancelHandle>,
}

impl CallOptions {
    /// No limit of time, not idempotent, nothing in the context.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Gives each call up if there is no reply within this time from its begin; see
    /// [`RequestBuilder::timeout`](pipeplug_net::RequestBuilder::timeout).
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Declares that the calls do no harm when they are made twice; see
    /// [`RequestBuilder::idempotent`](pipeplug_net::RequestBuilder::idempotent).
    #[must_use]
    pub fn idempotent(mut self) -> Self {
        self.is_idempotent = true;
        self
    }

    /// Adds a value to the context of each call; see
    /// [`RequestBuilder::context`](pipeplug_net::RequestBuilder::context).
    #[must_use]
    pub fn context(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.context.push((key.into(), value.into()));
        self
    }

    /// Asks for the progress of the calls. The reports of all of them come through one
    /// [`ProgressReports`], which ends when the options and their channels are dropped.
    #[must_use]
    pub fn progress(mut self) -> (Self, ProgressReports) {
        let (sender, reports) = pipeplug_net::internal::progress_channel();
        self.progress = Some(sender);
        (self, reports)
    }

    /// Lets a handle give the calls up; see
    /// [`RequestBuilder::cancel_by`](pipeplug_net::RequestBuilder::cancel_by).
    #[must_use]
    pub fn cancel_by(mut self, handle: &CancelHandle) -> Self {
        self.cancel = Some(handle.clone());
        self
    }

    fn request<'a>(&'a self, command: &'a str, bytes: Vec<u8>) -> OutgoingRequest<'a> {
        let mut request = OutgoingRequest::new(command, bytes.into());
        request.timeout = self.timeout;
        request.is_idempotent = self.is_idempotent;
        request.values =
            self.context.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        request.progress.clone_from(&self.progress);
        request.cancel = self.cancel.as_ref();
        request
    }
}

/// Makes calls with values, over anything that can be called: a plugin, the host, a supervisor, a
/// pool, or a connection of a test. Cloning it is cheap.
///
/// ```no_run
/// use std::time::Duration;
/// use pipeplug_service::{CallOptions, Channel, Json, ServiceError};
///
/// # fn example(plugin: pipeplug_net::Connection) -> Result<(), ServiceError> {
/// let channel = Channel::new(plugin);
/// let sum: i64 = channel.call("add", Json((2, 3)))?;
/// let fast = channel.with(CallOptions::new().timeout(Duration::from_millis(100)));
/// let sum: i64 = fast.call("add", Json((2, 3)))?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Channel {
    transport: Arc<dyn Transport>,
    options: Arc<CallOptions>,
}

impl Channel {
    /// Makes a channel over a caller, with default options.
    pub fn new(caller: impl Caller + Send + Sync + 'static) -> Self {
        Self { transport: Arc::new(caller), options: Arc::default() }
    }

    /// Returns the channel with these options instead of its own.
    #[must_use]
    pub fn with(&self, options: CallOptions) -> Self {
        Self { transport: Arc::clone(&self.transport), options: Arc::new(options) }
    }

    /// Options of its calls.
    #[must_use]
    pub fn options(&self) -> &CallOptions {
        &self.options
    }

    /// Calls a command. The reply is decoded as the argument is encoded.
    ///
    /// # Errors
    /// The argument cannot be encoded, the call fails, or the reply does not fit the type.
    ///
    /// # Blocking
    /// As [`RequestBuilder::wait`](pipeplug_net::RequestBuilder::wait).
    pub fn call<T: DeserializeOwned, B>(&self, command: &str, body: B) -> Result<T, ServiceError>
    where
        B: Body<Value: Serialize>,
    {
        let bytes = encode::<B::Codec, _, _>(command, body.value())?;
        let reply = self.request(command, bytes)?;
        decode::<B::Codec, _, _>(command, &reply)
    }

    /// Calls a command as [`call`](Self::call) does, and awaits the reply. Dropping the future
    /// gives the call up.
    ///
    /// # Errors
    /// As for [`call`](Self::call).
    pub async fn call_async<T: DeserializeOwned, B>(
        &self,
        command: &str,
        body: B,
    ) -> Result<T, ServiceError>
    where
        B: Body<Value: Serialize>,
    {
        let bytes = encode::<B::Codec, _, _>(command, body.value())?;
        drop(body);
        let reply = self.request_async(command, bytes).await?;
        decode::<B::Codec, _, _>(command, &reply)
    }

    /// Sends a one-way.
    ///
    /// # Errors
    /// The argument cannot be encoded, or the one-way was not sent.
    ///
    /// # Blocking
    /// As [`Caller::notify`].
    pub fn notify<B: Body<Value: Serialize>>(
        &self,
        command: &str,
        body: B,
    ) -> Result<(), ServiceError> {
        let bytes = encode::<B::Codec, _, _>(command, body.value())?;
        self.transport.notify(command, bytes.into()).map_err(ServiceError::Call)
    }

    /// Sends a one-way as [`notify`](Self::notify) does, and awaits that it is sent.
    ///
    /// # Errors
    /// As for [`notify`](Self::notify).
    pub async fn notify_async<B: Body<Value: Serialize>>(
        &self,
        command: &str,
        body: B,
    ) -> Result<(), ServiceError> {
        let bytes = encode::<B::Codec, _, _>(command, body.value())?;
        drop(body);
        self.transport.notify_async(command, bytes.into()).await.map_err(ServiceError::Call)
    }

    fn request<E>(&self, command: &str, bytes: Vec<u8>) -> Result<Reply, ServiceError<E>> {
        let request = self.options.request(command, bytes);
        self.transport.call(request).map_err(ServiceError::Call)
    }

    async fn request_async<E>(
        &self,
        command: &str,
        bytes: Vec<u8>,
    ) -> Result<Reply, ServiceError<E>> {
        let request = self.options.request(command, bytes);
        self.transport.call_async(request).await.map_err(ServiceError::Call)
    }
}

impl std::fmt::Debug for Channel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Channel").field("options", &self.options).finish_non_exhaustive()
    }
}

fn encode<C: Codec, A: Serialize + ?Sized, E>(
    command: &str,
    arguments: &A,
) -> Result<Vec<u8>, ServiceError<E>> {
    C::encode(arguments).map_err(|error| ServiceError::Encode { command: command.into(), error })
}

fn decode<C: Codec, T: DeserializeOwned, E>(
    command: &str,
    bytes: &[u8],
) -> Result<T, ServiceError<E>> {
    C::decode(bytes).map_err(|error| decode_error(command, error))
}

pub(crate) fn decode_error<E>(command: &str, error: DecodeError) -> ServiceError<E> {
    ServiceError::Decode { command: command.into(), error }
}

/// Finds the method's own error in that of a call.
pub(crate) fn method_error<E: DeserializeOwned>(error: CallFailed) -> ServiceError<E> {
    let data = error.call_error().and_then(pipeplug_net::CallError::data);
    match data.filter(|_| error.code() == Some(METHOD_ERROR)) {
        Some(data) => E::deserialize(data)
            .map_or_else(|_| ServiceError::Call(error.clone()), ServiceError::Method),
        None => ServiceError::Call(error),
    }
}

/// Calls the methods of a service, for its generated clients.
///
/// A service with a codec other than JSON has each method under two commands: one for JSON, and one
/// that names the codec and a sum of the interface. The latter is known only to a peer that was
/// built with the same interface; the first one is used with others. One-ways and streams are JSON
/// always.
#[derive(Debug, Clone)]
pub struct MethodCaller {
    channel: Channel,
    /// Part of a command that names codec and interface. `None` for JSON.
    suffix: Option<&'static str>,
    /// True once the peer was seen not to know commands with the suffix.
    needs_json: Arc<AtomicBool>,
}

impl MethodCaller {
    /// Makes a caller over a channel.
    #[must_use]
    pub fn new(channel: Channel, interface: &'static Interface) -> Self {
        let suffix = interface.suffix();
        Self { channel, suffix, needs_json: Arc::default() }
    }

    /// Makes a caller over a channel, for a service whose only codec is JSON.
    #[must_use]
    pub fn json(channel: Channel) -> Self {
        Self { channel, suffix: None, needs_json: Arc::default() }
    }

    /// Returns the caller with these options instead of its own.
    #[must_use]
    pub fn with(&self, options: CallOptions) -> Self {
        let Self { channel, suffix, needs_json } = self;
        let needs_json = Arc::clone(needs_json);
        Self { channel: channel.with(options), suffix: *suffix, needs_json }
    }

    /// Returns the caller for a method that does no harm when it is called twice.
    #[must_use]
    pub fn idempotent(&self) -> Self {
        self.with(self.channel.options().clone().idempotent())
    }

    /// The channel.
    #[must_use]
    pub fn channel(&self) -> &Channel {
        &self.channel
    }

    /// The suffix, unless JSON is to be used.
    fn suffix(&self) -> Option<&'static str> {
        // Relaxed: at worst one more call is made in vain.
        self.suffix.filter(|_| !self.needs_json.load(Ordering::Relaxed))
    }

    /// Returns true if the call is to be made again as JSON: the peer does not know the command.
    fn turns_to_json<E>(&self, result: &Result<Reply, ServiceError<E>>) -> bool {
        let Err(ServiceError::Call(error)) = result else { return false };
        let is_unknown = match error.code() {
            Some(code) => code == failure_code::UNKNOWN_COMMAND,
            // A peer without codes is none that knows such commands.
            None => error.call_error().is_some_and(pipeplug_net::CallError::is_answer),
        };
        if is_unknown {
            self.needs_json.store(true, Ordering::Relaxed);
        }
        is_unknown
    }

    /// Calls a method.
    ///
    /// # Errors
    /// The method's own error, or the call has failed.
    ///
    /// # Blocking
    /// As [`RequestBuilder::wait`](pipeplug_net::RequestBuilder::wait).
    pub fn call<C: Codec, A: Serialize, T: DeserializeOwned, E: DeserializeOwned>(
        &self,
        command: &str,
        arguments: A,
    ) -> Result<T, ServiceError<E>> {
        if let Some(suffix) = self.suffix() {
            let bytes = encode::<C, _, _>(command, &arguments)?;
            let result = self.channel.request(&[command, suffix].concat(), bytes);
            if !self.turns_to_json(&result) {
                return decode::<C, _, _>(command, &result.map_err(own_error)?);
            }
        }
        let bytes = encode::<Json, _, _>(command, &arguments)?;
        let reply = self.channel.request(command, bytes).map_err(own_error)?;
        decode::<Json, _, _>(command, &reply)
    }

    /// Calls a method as [`call`](Self::call) does, and awaits its result. Dropping the future
    /// gives the call up.
    ///
    /// # Errors
    /// As for [`call`](Self::call).
    pub async fn call_async<C: Codec, A: Serialize, T: DeserializeOwned, E: DeserializeOwned>(
        &self,
        command: &str,
        arguments: A,
    ) -> Result<T, ServiceError<E>> {
        if let Some(suffix) = self.suffix() {
            let bytes = encode::<C, _, _>(command, &arguments)?;
            let result = self.channel.request_async(&[command, suffix].concat(), bytes).await;
            if !self.turns_to_json(&result) {
                return decode::<C, _, _>(command, &result.map_err(own_error)?);
            }
        }
        let bytes = encode::<Json, _, _>(command, &arguments)?;
        drop(arguments);
        let reply = self.channel.request_async(command, bytes).await.map_err(own_error)?;
        decode::<Json, _, _>(command, &reply)
    }

    /// Sends a one-way.
    ///
    /// # Errors
    /// It was not sent.
    ///
    /// # Blocking
    /// As [`Caller::notify`].
    pub fn notify<A: Serialize>(&self, command: &str, arguments: A) -> Result<(), ServiceError> {
        self.channel.notify(command, Json(arguments))
    }

    /// Sends a one-way, and awaits that it is sent.
    ///
    /// # Errors
    /// As for [`notify`](Self::notify).
    pub async fn notify_async<A: Serialize>(
        &self,
        command: &str,
        arguments: A,
    ) -> Result<(), ServiceError> {
        self.channel.notify_async(command, Json(arguments)).await
    }

    /// Sends a one-way with items.
    ///
    /// # Errors
    /// It was not sent.
    ///
    /// # Blocking
    /// As [`Caller::notify`].
    pub fn notify_items<A: Serialize, In: Serialize>(
        &self,
        command: &str,
        arguments: A,
    ) -> Result<StreamSender<In>, ServiceError> {
        let bytes = encode::<Json, _, _>(command, &arguments)?;
        let sender = self.channel.transport.open_one_way(command, bytes.into());
        sender.map(StreamSender::new).map_err(ServiceError::Call)
    }

    /// Sends a one-way with items, and awaits that it is sent.
    ///
    /// # Errors
    /// As for [`notify_items`](Self::notify_items).
    pub async fn notify_items_async<A: Serialize, In: Serialize>(
        &self,
        command: &str,
        arguments: A,
    ) -> Result<StreamSender<In>, ServiceError> {
        let bytes = encode::<Json, _, _>(command, &arguments)?;
        drop(arguments);
        let sender = self.channel.transport.open_one_way_async(command, bytes.into()).await;
        sender.map(StreamSender::new).map_err(ServiceError::Call)
    }

    /// Calls a method that takes items.
    ///
    /// # Errors
    /// The call was not sent.
    ///
    /// # Blocking
    /// While the peer is behind with what was sent.
    #[expect(clippy::type_complexity, reason = "the generated methods show it in full")]
    pub fn send_items<A: Serialize, In: Serialize, T: DeserializeOwned, E: DeserializeOwned>(
        &self,
        command: &str,
        arguments: A,
    ) -> Result<(StreamSender<In>, PendingResult<T, E>), ServiceError<E>> {
        let (sender, parts) = self.open(command, &arguments, StreamSides::Both)?.split();
        Ok((StreamSender::new(sender), PendingResult::new(command, parts)))
    }

    /// Calls a method that takes items, and awaits that the call is sent.
    ///
    /// # Errors
    /// As for [`send_items`](Self::send_items).
    pub async fn send_items_async<A: Serialize, In: Serialize, T, E: DeserializeOwned>(
        &self,
        command: &str,
        arguments: A,
    ) -> Result<(StreamSender<In>, PendingResult<T, E>), ServiceError<E>>
    where
        T: DeserializeOwned,
    {
        let call = self.open_async(command, arguments, StreamSides::Both).await?;
        let (sender, parts) = call.split();
        Ok((StreamSender::new(sender), PendingResult::new(command, parts)))
    }

    /// Calls a method whose result is items.
    ///
    /// # Errors
    /// The call was not sent.
    ///
    /// # Blocking
    /// While the peer is behind with what was sent.
    pub fn receive_items<A: Serialize, Out: DeserializeOwned, E: DeserializeOwned>(
        &self,
        command: &str,
        arguments: A,
    ) -> Result<StreamItems<Out, E>, ServiceError<E>> {
        let (_, parts) = self.open(command, &arguments, StreamSides::Receive)?.split();
        Ok(StreamItems::new(command, parts))
    }

    /// Calls a method whose result is items, and awaits that the call is sent.
    ///
    /// # Errors
    /// As for [`receive_items`](Self::receive_items).
    pub async fn receive_items_async<A: Serialize, Out: DeserializeOwned, E: DeserializeOwned>(
        &self,
        command: &str,
        arguments: A,
    ) -> Result<StreamItems<Out, E>, ServiceError<E>> {
        let (_, parts) = self.open_async(command, arguments, StreamSides::Receive).await?.split();
        Ok(StreamItems::new(command, parts))
    }

    /// Calls a method that takes items, and whose result is items.
    ///
    /// # Errors
    /// The call was not sent.
    ///
    /// # Blocking
    /// While the peer is behind with what was sent.
    #[expect(clippy::type_complexity, reason = "the generated methods show it in full")]
    pub fn exchange_items<A: Serialize, In: Serialize, Out, E: DeserializeOwned>(
        &self,
        command: &str,
        arguments: A,
    ) -> Result<(StreamSender<In>, StreamItems<Out, E>), ServiceError<E>>
    where
        Out: DeserializeOwned,
    {
        let (sender, parts) = self.open(command, &arguments, StreamSides::Both)?.split();
        Ok((StreamSender::new(sender), StreamItems::new(command, parts)))
    }

    /// Calls a method that takes items, and whose result is items. Awaits that the call is sent.
    ///
    /// # Errors
    /// As for [`exchange_items`](Self::exchange_items).
    pub async fn exchange_items_async<A: Serialize, In: Serialize, Out, E: DeserializeOwned>(
        &self,
        command: &str,
        arguments: A,
    ) -> Result<(StreamSender<In>, StreamItems<Out, E>), ServiceError<E>>
    where
        Out: DeserializeOwned,
    {
        let call = self.open_async(command, arguments, StreamSides::Both).await?;
        let (sender, parts) = call.split();
        Ok((StreamSender::new(sender), StreamItems::new(command, parts)))
    }

    fn open<A: Serialize, E>(
        &self,
        command: &str,
        arguments: &A,
        sides: StreamSides,
    ) -> Result<StreamCall, ServiceError<E>> {
        let bytes = encode::<Json, _, _>(command, arguments)?;
        let Channel { transport, options } = &self.channel;
        transport.open(options.request(command, bytes), sides).map_err(ServiceError::Call)
    }

    async fn open_async<A: Serialize, E>(
        &self,
        command: &str,
        arguments: A,
        sides: StreamSides,
    ) -> Result<StreamCall, ServiceError<E>> {
        let bytes = encode::<Json, _, _>(command, &arguments)?;
        drop(arguments);
        let Channel { transport, options } = &self.channel;
        let opened = transport.open_async(options.request(command, bytes), sides);
        opened.await.map_err(ServiceError::Call)
    }
}

fn own_error<E: DeserializeOwned>(error: ServiceError<E>) -> ServiceError<E> {
    match error {
        ServiceError::Call(error) => method_error(error),
        other => other,
    }
}
