//! The guest's handle.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use pipeplug_net::internal::FAILED_ONE_WAYS;
use pipeplug_net::internal::handshake::{self, InterfaceVersions};
use pipeplug_net::wire::{Chunk, command};
use pipeplug_net::{
    CallError, Caller, CloseReason, ConnectError, Connection, Endpoint, Escaped, EventLoop,
    HandlerError, NotifyError, Options, OutgoingRequest, PartSender, Payload, PendingCall, Reply,
    Request, StreamCall, StreamSides, awaited_by_connection, caller_methods, handler_trait,
};

use serde::de::DeserializeOwned;

use crate::config::{self, ConfigError};
use crate::exit::Exit;
use crate::logging;
use crate::metadata::{Own, parse_host};
use crate::register_error::RegisterError;
use crate::startup::Startup;
use crate::stopping::{Stop, Stopping};

/// The plugin's own hook for its end.
pub(crate) type OnStop = Arc<dyn Fn(Stop) + Send + Sync>;

/// The plugin's handle to its host: calls and notifies it, and waits for the end. Cloning it is
/// cheap.
#[derive(Clone)]
#[must_use = "a plugin whose main returns ends: call wait()"]
pub struct Main(Connection);

handler_trait! {
    /// Call-back that answers the host's requests and takes its one-ways. It runs on threads of a
    /// pool, and may block and call back.
    ///
    /// **It runs concurrently**: calls and one-ways overtake each other, those of one caller too.
    /// A call-back for which the order counts, such as one that appends to a file, needs `in_order`
    /// or `in_order_for` of the builder, or one call with a stream.
    ///
    /// A closure `Fn(&Main, &mut Request) -> Result<Reply, HandlerError>`.
    pub trait Handler(main: Main);
}

/// State that all handles share, and the call-backs of the connection.
pub(crate) struct Shared {
    args: Vec<OsString>,
    own: Own,
    exit: Arc<Exit>,
    handler: Box<dyn Handler>,
    host: OnceLock<Host>,
    pub(crate) startup: Startup,
    stopping: Stopping,
    on_stop: Option<OnStop>,
    failed_one_ways: AtomicU64,
    /// True once a host that has not described itself has asked something else.
    is_asked_else: AtomicBool,
}

/// The host, as its first request has described it.
struct Host {
    /// Without the configuration, which may hold secrets.
    metadata: BTreeMap<String, String>,
    /// JSON text.
    config: Option<String>,
    /// The version of the application's interface, if both sides name versions; an error if they
    /// have none in common.
    interface_version: Result<Option<u32>, InterfaceVersions>,
}

/// Number of failed one-ways that are logged one by one. Later ones are logged each time that their
/// number has doubled, so that a host that sends many does not fill its log.
const FAILURES_TOLD: u64 = 16;

impl Shared {
    pub(crate) fn new(
        args: Vec<OsString>,
        own: Own,
        exit: Exit,
        handler: impl Handler,
        startup: Startup,
        on_stop: Option<OnStop>,
    ) -> Self {
        Self {
            args,
            own,
            exit: Arc::new(exit),
            handler: Box::new(handler),
            host: OnceLock::new(),
            startup,
            stopping: Stopping::default(),
            on_stop,
            failed_one_ways: AtomicU64::new(0),
            is_asked_else: AtomicBool::new(false),
        }
    }

    /// Tells handlers that run, and the plugin's own hook.
    fn tell_stop(&self, why: Stop) {
        if self.stopping.stop(why)
            && let Some(on_stop) = self.on_stop.clone()
        {
            // Not here: the grace time begins now, however long the hook takes.
            let hook = std::thread::Builder::new().name("pipeplug-stop".into());
            if hook.spawn(move || on_stop(why)).is_err() {
                self.exit.say("no thread is left to run what was to run at a stop");
            }
        }
    }

    /// A one-way has no answer that could tell of a failure, so standard error does, unless the
    /// plugin's own subscriber of `tracing` is told of it by the connection: that one mostly writes
    /// there too.
    pub(crate) fn tell_failure(&self, command: &str, error: &HandlerError) {
        if tracing::enabled!(target: FAILED_ONE_WAYS, tracing::Level::WARN) {
            return;
        }
        let times = self.failed_one_ways.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        if times <= FAILURES_TOLD || times.is_power_of_two() {
            let counted = if times > FAILURES_TOLD {
                format!(" ({times} have failed)")
            } else {
                String::new()
            };
            let error = error.to_string();
            self.exit.say(&format!(
                "one-way \"{}\" failed: {}{counted}",
                Escaped(command),
                Escaped(&error)
            ));
        }
    }

    /// Answers `GetMetadata`, once the start call-back has succeeded. One that fails closes the
    /// connection, so that no answer goes out, and the host's start fails.
    fn metadata(&self, main: &Main, request: &mut Request) -> Reply {
        let mut metadata = parse_host(request.buffer());
        let config = metadata.remove(handshake::KEY_CONFIG);
        let is_first = self.host.get().is_none();
        let of_host = |key: &str| metadata.get(key).map(String::as_str);
        if is_first {
            // Once: a later question, such as one by hand, takes nothing back.
            handshake::accept_before_answer(&main.0, of_host);
        }
        let interface_version =
            self.own.interface_versions.choose(of_host(handshake::KEY_INTERFACE_VERSIONS));
        if let Some(level) = of_host(handshake::KEY_LOG_LEVEL) {
            // A level that is unknown here leaves the log as it is.
            let _ = logging::set_level(level);
        }
        // A host that asks twice says the same.
        let _ = self.host.set(Host { metadata: metadata.clone(), config, interface_version });
        self.startup.introduced();
        self.startup.wait_started();
        if is_first {
            // Not before: the host gives no credit until it has the answer, and the start call-back
            // may send more than a window.
            handshake::accept_with_answer(&main.0, |key| metadata.get(key).map(String::as_str));
        }
        let answered = if self.own.metadata.is_empty() {
            // A call-back that does not know the question has no metadata of its own.
            self.handler.handle(main, request).ok().map(Reply::into_bytes)
        } else {
            None
        };
        self.own.reply(&main.0, answered).into()
    }
}

impl Shared {
    /// The host, once it has described itself. `None` if it asks something else first, or is gone.
    fn introduced_host(&self, connection: &Connection) -> Option<&Host> {
        if self.host.get().is_none() {
            self.startup.wait_introduced(|| {
                self.is_asked_else.load(Ordering::Relaxed) || connection.stats().held > 0
            });
        }
        self.host.get()
    }

    /// Versions of the interface, if the two sides have none in common.
    pub(crate) fn mismatch(&self) -> Option<RegisterError> {
        let of_host = self.host.get()?.interface_version.as_ref().err()?;
        let plugin = self.own.interface_versions.clone().into_vec();
        Some(RegisterError::InterfaceVersions { plugin, host: of_host.clone().into_vec() })
    }
}

impl Main {
    pub(crate) fn connect(
        events: &EventLoop,
        reader: Endpoint,
        writer: Endpoint,
        options: Options,
        shared: Shared,
    ) -> Result<Self, ConnectError> {
        events.connect(reader, writer, options, shared).map(Self)
    }

    pub(crate) fn shared(&self) -> &Shared {
        self.0.handler().expect("a plugin's connection is made with what its handles share")
    }

    /// The connection to the host: its counters, and waits for its parts.
    #[must_use]
    pub fn connection(&self) -> &Connection {
        &self.0
    }

    /// The plugin's own arguments: those behind the descriptors' numbers.
    #[must_use]
    pub fn args(&self) -> &[OsString] {
        &self.shared().args
    }

    /// Metadata of the host (`pipeplug.protocol`, …). Complete once the start call-back or a
    /// handler runs. Empty for hosts that send none. Without a start call-back, empty until the
    /// host's first request, which asks for the plugin's metadata.
    #[must_use]
    pub fn host(&self) -> BTreeMap<String, String> {
        self.shared().host.get().map(|host| host.metadata.clone()).unwrap_or_default()
    }

    /// Configuration that the host has for the plugin (`PluginBuilder::config` of `pipeplug-host`);
    /// `None` if it has none. It is there before the start call-back runs, and is the same for as
    /// long as the process runs.
    ///
    /// # Errors
    /// The configuration does not fit the type `T`. The message names the field.
    ///
    /// # Blocking
    /// Not in the start call-back and in handlers. In a plugin without a start call-back, until the
    /// host has sent its first request.
    ///
    /// ```no_run
    /// use pipeplug_guest::{Guest, Main};
    /// use serde::Deserialize;
    ///
    /// #[derive(Deserialize)]
    /// struct Settings {
    ///     url: String,
    ///     retries: u32,
    /// }
    ///
    /// let start = |main: &Main| {
    ///     let settings: Settings = main.config()?.ok_or("this plugin needs a configuration")?;
    ///     eprintln!("connecting to {}, {} retries", settings.url, settings.retries);
    ///     Ok(())
    /// };
    /// let main = Guest::new().start(start).register();
    /// ```
    pub fn config<T: DeserializeOwned>(&self) -> Result<Option<T>, ConfigError> {
        let host = self.shared().introduced_host(&self.0);
        host.and_then(|host| host.config.as_deref()).map(config::parse).transpose()
    }

    /// Version of the application's interface that both sides speak: the highest common one of
    /// [`Guest::interface_versions`](crate::Guest::interface_versions) and the host's. `None` if one
    /// side has named none.
    ///
    /// # Blocking
    /// As [`config`](Self::config).
    #[must_use]
    pub fn interface_version(&self) -> Option<u32> {
        let host = self.shared().introduced_host(&self.0)?;
        host.interface_version.as_ref().ok().copied().flatten()
    }

    /// Tells handlers that run long whether the plugin has to end: the host said stop, or is gone.
    #[must_use]
    pub fn stopping(&self) -> Stopping {
        self.shared().stopping.clone()
    }

    /// Waits for the end, and gives what `main` returns: success after the host said stop, failure
    /// after it was lost.
    ///
    /// # Blocking
    /// Until the host says stop or closes the pipe, and its last requests are answered or the grace
    /// time is over.
    #[must_use = "return it from main"]
    pub fn wait(&self) -> ExitCode {
        self.shared().exit.wait()
    }
}

caller_methods!(Main, CallError, NotifyError);

impl Caller for Main {
    type CallError = CallError;
    type NotifyError = NotifyError;
    type Pending = PendingCall;

    awaited_by_connection!();

    fn begin_request(&self, request: OutgoingRequest<'_>) -> Result<PendingCall, CallError> {
        self.0.begin_request(request)
    }

    fn wait_for_request(&self, request: OutgoingRequest<'_>) -> Result<Reply, CallError> {
        self.0.wait_for_request(request)
    }

    fn call_chunk(&self, chunk: Chunk) -> Result<Chunk, CallError> {
        self.0.call_chunk(chunk)
    }

    fn open_stream(
        &self,
        request: OutgoingRequest<'_>,
        sides: StreamSides,
    ) -> Result<StreamCall, CallError> {
        self.0.open_stream(request, sides)
    }

    fn open_one_way_stream(
        &self,
        command: &str,
        payload: Payload<'_>,
    ) -> Result<PartSender, NotifyError> {
        self.0.open_one_way_stream(command, payload)
    }

    fn send_one_way(&self, command: &str, payload: Payload<'_>) -> Result<(), NotifyError> {
        self.0.send_one_way(command, payload)
    }
}

impl std::fmt::Debug for Main {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Main").field(&self.0).finish()
    }
}

impl pipeplug_net::Handler for Shared {
    fn handle(&self, request: &mut Request) -> Result<Reply, HandlerError> {
        let main = Main(request.connection().clone());
        if request.command() == command::GET_METADATA && !request.is_one_way() {
            return Ok(self.metadata(&main, request));
        }
        match self.host.get() {
            // Relaxed: it publishes nothing else.
            None => self.is_asked_else.store(true, Ordering::Relaxed),
            Some(Host { interface_version: Err(_), .. }) => {
                return Err(self.mismatch().map_or_else(|| "not started".into(), Into::into));
            }
            Some(_) => {}
        }
        let answer = (self.own.services.handle(request))
            .unwrap_or_else(|| self.handler.handle(&main, request));
        if let Err(error) = &answer
            && request.is_one_way()
        {
            self.tell_failure(request.command(), error);
        }
        answer
    }

    fn log_level(&self, level: &str) -> bool {
        logging::set_level(level)
    }

    fn stop(&self, connection: &Connection) {
        self.tell_stop(Stop::Asked);
        self.exit.stop(connection);
    }

    fn ended(&self, _reason: &Arc<CloseReason>) {
        self.startup.introduced();
        self.tell_stop(Stop::HostGone);
        // A thread of its own: `closed` is told only after this has returned.
        let exit = Arc::clone(&self.exit);
        let watch = std::thread::Builder::new().name("pipeplug-exit".into());
        if watch.spawn(move || exit.ended()).is_err() {
            // No thread could be started: the handlers' time has no limit then, and `closed` still
            // comes after them.
        }
    }

    fn closed(&self, reason: &Arc<CloseReason>, connection: Option<&Connection>) {
        self.exit.closed(reason, connection);
    }
}
