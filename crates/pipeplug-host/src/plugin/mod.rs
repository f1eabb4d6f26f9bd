//! The host's handle.

mod allow_list;
mod awaited;
mod builder;
mod config;
mod crash;
mod examine;
mod handshake;
mod log_level;
mod log_line;
pub(crate) mod metadata;
mod missing_command;
mod output;
mod ready;
mod requests;
mod start_error;
mod start_hint;
mod stop;
mod stopper;
mod terminal;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use pipeplug_net::internal::Watch;
use pipeplug_net::wire::Chunk;
use pipeplug_net::{
    CallError, Caller, Connection, Endpoint, EventLoop, Hold, NotifyError, OutgoingRequest,
    PartSender, Payload, PendingCall, Recording, Reply, StreamCall, StreamSides,
    awaited_by_connection, caller_methods,
};

pub use builder::{Handler, PluginBuilder};
pub use config::ConfigError;
pub use crash::{Crash, Ended};
pub use log_level::{LogLevel, LogLevelError, ParseLogLevelError};
pub use log_line::LogLine;
pub use metadata::Metadata;
pub use output::Output;
pub use ready::NotReady;
pub use start_error::{StartError, StartErrorKind};
pub use stop::{Grace, StopError, StopErrorKind, Stopped, StoppedBy};

use crate::launcher::{Diagnosis, ExitFd, Launcher, Process, Started};
use crate::process::{Pid, SpawnErrorKind, WaitStatus};
use crate::status::{Publish, Published, Row};
use allow_list::AllowList;
use crash::Panic;
use handshake::{HandshakeFailure, Introduced};
use output::Lines;
use requests::PluginRequests;
use start_hint::StartPipe;
use stop::LastStep;

/// Time that the open calls of a plugin that closed its pipe wait for its exit status: the kernel
/// closes a process's descriptors some time before its end, with a core dump in between.
const REASON_TIMEOUT: Duration = Duration::from_millis(50);

/// A plugin that runs.
///
/// This is a handle: cloning it is cheap, and dropping the last one stops the plugin as
/// [`stop`](Plugin::stop) does.
///
/// # Dropping the last handle
/// - It **blocks** if nothing of the plugin was ever awaited: until the plugin has ended, at most for
///   all grace times together ([`Grace`], 8 s by default) and the moment that the system takes to end
///   a killed process. Then the plugin is gone, as a program without a runtime expects.
/// - It **does not block**, and the stop goes on in the background, if anything of the plugin was
///   awaited, such as its start, a call or a part of a stream: the thread may be one of a runtime. The
///   same holds with an [`async_handler`](PluginBuilder::async_handler), and with
///   [`stop_in_background`](PluginBuilder::stop_in_background) in any case.
///
/// A process that ends before its plugins have ended, in the middle of a stop in the background for example,
/// or by [`std::process::exit`], which drops nothing, has them killed, unless
/// [`OnHostExit`](crate::OnHostExit) says otherwise. [`stop`](Plugin::stop) or
/// [`stop_async`](Plugin::stop_async) at its end gives them their grace times.
///
/// ```no_run
/// use pipeplug_host::Plugin;
///
/// let plugin = Plugin::start("./target/debug/echo")?;
/// assert_eq!(plugin.call("echo", "hello")?, "hello");
/// plugin.stop()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Plugin(Arc<Inner>);

struct Inner {
    path: PathBuf,
    connection: Connection,
    launcher: Arc<dyn Launcher>,
    process: Arc<dyn Process>,
    /// Standard error, and standard output if it is logged.
    lines: Vec<Arc<Lines>>,
    grace: Grace,
    begun: Instant,
    /// File that the chunks are recorded in.
    recording: Option<PathBuf>,
    metadata: OnceLock<Metadata>,
    /// Version of the application's interface, if one was negotiated.
    interface_version: OnceLock<u32>,
    /// Its status, if that is published.
    status: Option<Arc<Row>>,
    /// Publishes the status until the plugin is stopped; a supervisor does so for its plugins.
    published: Option<Arc<Published>>,
    /// True once it was said that something holds its streams open.
    is_held_told: Arc<AtomicBool>,
    /// The step that has ended it, if this host has.
    last_step: Arc<LastStep>,
}

impl Plugin {
    /// A plugin to start: the file at `path`, which is relative to the working directory; `PATH` is
    /// not searched.
    pub fn builder(path: impl Into<PathBuf>) -> PluginBuilder {
        PluginBuilder::new(path)
    }

    /// Builder of a plugin that is installed where it runs, such as the entry point of an image, so
    /// that it takes no path. `name` is its name in logs and errors. Where it runs is the builder's
    /// [`launcher`](PluginBuilder::launcher).
    pub fn preinstalled(name: impl Into<PathBuf>) -> PluginBuilder {
        PluginBuilder::preinstalled(name)
    }

    /// Starts the file at `path` with every setting at its default.
    ///
    /// # Errors
    /// As [`PluginBuilder::start`].
    ///
    /// # Blocking
    /// As [`PluginBuilder::start`].
    pub fn start(path: impl Into<PathBuf>) -> Result<Self, StartError> {
        Self::builder(path).start()
    }

    /// Starts the process of a plugin, and does not talk to it.
    pub(crate) fn spawn(builder: &PluginBuilder) -> Result<Started, StartError> {
        let failed =
            |kind| StartError::new(&builder.launch.program, builder.launcher.describe(), kind);
        if let Some(demand) = builder.launch.demands()
            && !builder.launcher.enforces_demands()
        {
            let launcher =
                builder.launcher.describe().unwrap_or_else(|| "by its launcher".to_owned());
            let kind = SpawnErrorKind::NotEnforced { launcher, demand };
            return Err(failed(StartErrorKind::Spawn(kind)));
        }
        builder
            .launcher
            .start(&builder.launch)
            .map_err(|error| StartError::from(error).with_launcher(builder.launcher.describe()))
    }

    pub(crate) fn launch(builder: &PluginBuilder) -> Result<Self, StartError> {
        let builder = &*builder.permitted()?;
        let path = builder.launch.program.clone();
        let failed = |kind| StartError::new(&path, builder.launcher.describe(), kind);
        let system = |error| failed(StartErrorKind::System { error });
        let events = builder.events.clone().map_or_else(EventLoop::shared, Ok).map_err(system)?;
        if let Some(recording) = &builder.options.recording {
            recording.open().map_err(|error| failed(StartErrorKind::Recording { error }))?;
        }
        let begun = Instant::now();
        let started = Self::spawn(builder)?;
        let name = &builder.options.name;
        let lines = |fd, output, tail| {
            Lines::read(&events, fd, output, name, tail, builder.on_line.clone()).map_err(system)
        };
        let of_stderr = started.stderr.map(|fd| (fd, Output::Stderr, builder.stderr_tail));
        let of_stdout = started.stdout.map(|fd| (fd, Output::Stdout, 0));
        let streams = of_stderr.into_iter().chain(of_stdout);
        let of_plugin =
            streams.map(|(fd, output, tail)| lines(fd, output, tail)).collect::<Result<_, _>>()?;
        let pipe = Arc::new(StartPipe::new(&started.from_guest).map_err(system)?);
        // Nothing is handed to the handler before there is a plugin to hand along.
        let mut options = builder.options.clone();
        options.hold = Hold::AllBut(Vec::new());
        options.times_calls |= builder.publish != Publish::No;
        options.reason_timeout = started.process.end_timeout().max(REASON_TIMEOUT);
        options.recording = options.recording.map(|recording| {
            let recording = recording
                .describe("side", "host")
                .describe("path", path.to_string_lossy())
                .describe("pid", started.process.pid().as_raw());
            match builder.launcher.describe() {
                Some(launcher) => recording.describe("launcher", launcher),
                None => recording,
            }
        });
        let recording = options.recording.as_ref();
        let recording = recording.and_then(Recording::path).map(Path::to_owned);
        let inner = Arc::new(OnceLock::new());
        let answer = PluginRequests {
            inner: Arc::clone(&inner),
            handler: Arc::clone(&builder.handler),
            services: builder.services.clone(),
            allow_list: builder.allowed.clone().map(AllowList::new),
            on_end: builder.on_end.clone(),
        };
        let connection = events
            .connect(
                Endpoint::exclusive(started.from_guest),
                Endpoint::exclusive(started.to_guest),
                options,
                answer,
            )
            .map_err(|error| failed(StartErrorKind::Connect { error }))?;
        let (status, published) = Row::begin(builder, started.process.pid(), begun, &connection);
        let plugin = Self(Arc::new(Inner {
            path: path.clone(),
            connection,
            launcher: Arc::clone(&builder.launcher),
            process: started.process.into(),
            lines: of_plugin,
            grace: builder.grace,
            begun,
            recording,
            status,
            published: published.map(Arc::new),
            metadata: OnceLock::new(),
            is_held_told: Arc::default(),
            last_step: Arc::default(),
            interface_version: OnceLock::new(),
        }));
        if inner.set(Arc::downgrade(&plugin.0)).is_err() {
            unreachable!("it was made above");
        }
        plugin.watch_exit(&events, Arc::clone(&pipe)).map_err(system)?;
        if builder.stops_in_background {
            plugin.connection().note_awaited();
        }
        if let Some(on_spawn) = &builder.on_spawn {
            on_spawn(&plugin);
        }
        plugin.connection().release();
        let asked = Instant::now();
        match handshake::exchange(&plugin, builder) {
            Ok(Introduced { metadata, interface_version }) => {
                pipe.close();
                plugin.check_launcher(builder)?;
                // Both are set once, here.
                let _ = plugin.0.metadata.set(metadata);
                let _ = interface_version.map(|version| plugin.0.interface_version.set(version));
            }
            Err(failure) => return Err(plugin.failed(failure, begun, builder, &pipe)),
        }
        if let Some(on_ready) = &builder.on_ready {
            let left = builder.handshake.saturating_sub(asked.elapsed());
            ready::run(on_ready, &plugin, left).map_err(|kind| plugin.not_ready(builder, kind))?;
        }
        plugin.0.status.iter().for_each(|status| status.is_ready());
        Ok(plugin)
    }

    /// Its status, if that is published.
    pub(crate) fn status_row(&self) -> Option<&Arc<Row>> {
        self.0.status.as_ref()
    }

    /// Version of the application's interface that both sides speak: the highest common one of
    /// [`PluginBuilder::interface_versions`] and the plugin's. `None` if one side has named none.
    #[must_use]
    pub fn interface_version(&self) -> Option<u32> {
        self.0.interface_version.get().copied()
    }

    /// Metadata of the plugin. Empty while the plugin starts, and for plugins that send none.
    #[must_use]
    pub fn metadata(&self) -> &Metadata {
        static NONE: OnceLock<Metadata> = OnceLock::new();
        self.0.metadata.get().unwrap_or_else(|| NONE.get_or_init(Metadata::default))
    }

    /// Name of the plugin in logs and errors.
    #[must_use]
    pub fn name(&self) -> &str {
        self.0.connection.name()
    }

    /// The connection to the plugin: its counters, and waits for its parts.
    #[must_use]
    pub fn connection(&self) -> &Connection {
        &self.0.connection
    }

    /// Path of the file that was executed. For a preinstalled plugin, its name.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// Process id of the plugin, which is also the id of its process group. For a plugin that runs
    /// elsewhere, that of the client that carries its pipes.
    #[must_use]
    pub fn pid(&self) -> Pid {
        self.0.process.pid()
    }

    /// Exit status; `None` while the plugin runs.
    #[must_use]
    pub fn status(&self) -> Option<WaitStatus> {
        // What can fail here has no known cause for a child of this process; what another
        // launcher's says is told by `wait`.
        self.0.process.reap().ok().flatten()
    }

    /// The number of the signal that has stopped it, and that `SIGCONT` has not followed; `None`
    /// while it is not stopped.
    ///
    /// One that is stopped answers nothing, and its calls wait. `SIGTTIN` and `SIGTTOU` stop a
    /// plugin that reads from the terminal, or sets it: [`Stdin::Inherit`](crate::Stdin::Inherit)
    /// lets it do so.
    #[must_use]
    pub fn stopped_by(&self) -> Option<i32> {
        self.0.process.stopped_by()
    }

    /// Waits for it to end, at most for `timeout`; `None` then.
    ///
    /// # Errors
    /// What the system says; none is known for a child of this process.
    ///
    /// # Blocking
    /// At most for `timeout`.
    pub fn wait(&self, timeout: Duration) -> io::Result<Option<WaitStatus>> {
        self.0.process.wait_timeout(timeout)
    }

    /// The last lines of its standard error; how many is [`PluginBuilder::stderr_tail`].
    #[must_use]
    pub fn stderr_tail(&self) -> Vec<String> {
        self.0.of_stderr().map(Lines::tail).unwrap_or_default()
    }

    /// Report on the end of the connection, once it has ended. The errors of calls carry the same
    /// report.
    #[must_use]
    pub fn crash(&self) -> Option<Crash> {
        self.0.connection.postmortem().as_deref().and_then(Crash::in_postmortem).cloned()
    }

    /// Report on the plugin as it is now, whether or not the connection has ended.
    pub(crate) fn autopsy(&self) -> Crash {
        self.0.crash()
    }

    /// Ends it: `cmd.stop`, then the end of file on its pipe, then SIGTERM, then SIGKILL, each
    /// after the step before had its [`Grace`]. Requests that it is working on are answered within
    /// the first step.
    ///
    /// It can be called more than once and from several threads.
    ///
    /// # Errors
    /// SIGKILL did not end the plugin, or a system call failed.
    ///
    /// # Blocking
    /// Until it has ended; at the most for all grace times together. In a handler of a request of
    /// its own that takes the whole first step, since the plugin waits for the answer: another
    /// thread is to do it there.
    pub fn stop(&self) -> Result<Stopped, StopError> {
        self.stop_within(self.0.grace)
    }

    /// As [`stop`](Plugin::stop), with other grace times.
    ///
    /// # Errors
    /// As [`stop`](Plugin::stop).
    ///
    /// # Blocking
    /// As [`stop`](Plugin::stop).
    pub fn stop_within(&self, grace: Grace) -> Result<Stopped, StopError> {
        self.0.stop(grace)
    }

    /// Ends it at once, with SIGKILL to its process group and to itself.
    ///
    /// # Errors
    /// As [`stop`](Plugin::stop).
    ///
    /// # Blocking
    /// Until the system has taken the process down.
    pub fn kill(&self) -> Result<Stopped, StopError> {
        self.0.stopper().kill()
    }

    /// Takes notice of the end of the process, and reaps it.
    fn watch_exit(&self, events: &EventLoop, pipe: Arc<StartPipe>) -> io::Result<()> {
        let inner = Arc::downgrade(&self.0);
        let process = Arc::clone(&self.0.process);
        events.watch(ExitFd(Arc::clone(&process)), move |_| {
            if matches!(process.peek(), Ok(Some(_))) {
                pipe.look();
            }
            match process.reap() {
                Ok(None) => return Watch::Continue,
                Ok(Some(status)) => {
                    if let Some(inner) = inner.upgrade() {
                        inner.exited(status);
                        Inner::let_go(inner);
                    }
                }
                Err(error) => {
                    tracing::error!(pid = %process.pid(), %error, "the state of the plugin's \
                                                            process cannot be read")
                }
            }
            Watch::End
        })?;
        Ok(())
    }

    /// Ends a plugin whose launcher does not meet a demand.
    fn check_launcher(&self, builder: &PluginBuilder) -> Result<(), StartError> {
        let head = self.0.of_stderr().map(Lines::head).unwrap_or_default();
        let Some(Diagnosis { problem, is_permanent }) = self.0.process.unmet(&head) else {
            return Ok(());
        };
        let status = match self.kill() {
            Ok(stopped) => stopped.status,
            Err(error) => {
                tracing::error!(plugin = %self.name(), %error, "a plugin that was refused is still \
                                                            there");
                WaitStatus::Unknown
            }
        };
        let kind = StartErrorKind::Launcher { problem, is_permanent, status };
        Err(StartError::new(self.path(), builder.launcher.describe(), kind).with_stderr(head))
    }

    /// Asks the launcher for the meaning of an exit status.
    pub(crate) fn diagnose(&self, status: WaitStatus, stderr: &[String]) -> Option<Diagnosis> {
        self.0.diagnose(status, stderr)
    }

    /// How long its end may take to be known.
    pub(crate) fn end_timeout(&self) -> Duration {
        self.0.process.end_timeout()
    }

    /// Stops a plugin that the host's own call-back has not found ready.
    fn not_ready(&self, builder: &PluginBuilder, kind: StartErrorKind) -> StartError {
        let is_late = matches!(kind, StartErrorKind::NotReady { why: NotReady::TimedOut(_), .. });
        let stopped = if is_late { self.kill() } else { self.stop() };
        if let Err(error) = stopped {
            tracing::error!(plugin = %self.name(), %error, "a plugin that was not ready is still \
                                                            there");
        }
        StartError::new(self.path(), builder.launcher.describe(), kind)
            .with_stderr(self.stderr_tail())
    }

    /// Ends what did not start, and says why.
    fn failed(
        self,
        failure: HandshakeFailure,
        begun: Instant,
        builder: &PluginBuilder,
        pipe: &StartPipe,
    ) -> StartError {
        let error = handshake::explain(failure, &self, begun, builder, pipe);
        if let Err(error) = self.kill() {
            tracing::error!(plugin = %self.name(), %error, "a plugin that did not start is still \
                                                            there");
        }
        error
    }
}

impl Inner {
    fn crash(&self) -> Crash {
        let of_stderr = self.of_stderr();
        let stderr = of_stderr.map(Lines::tail).unwrap_or_default();
        let status = self.process.peek().ok().flatten();
        let diagnosis = status.and_then(|status| self.diagnose(status, &stderr));
        let panic = of_stderr.and_then(|lines| lines.panic());
        Crash {
            plugin: self.connection.name().to_owned(),
            path: self.path.clone(),
            launcher: self.launcher.describe(),
            pid: self.process.pid(),
            status,
            diagnosis: diagnosis.map(|diagnosis| diagnosis.problem),
            ran: self.begun.elapsed(),
            recording: self.recording.clone(),
            panic: panic.filter(|text| Panic::explains(text, status, &stderr)),
            stderr,
        }
    }

    /// Has the process or its launcher explain an end.
    fn diagnose(&self, status: WaitStatus, stderr: &[String]) -> Option<Diagnosis> {
        let of_process = self.process.diagnose(status, stderr);
        if of_process.is_some() {
            of_process
        } else if self.metadata.get().is_some() {
            self.launcher.diagnose_end(status, stderr)
        } else {
            self.launcher.diagnose(status, stderr)
        }
    }

    fn of_stderr(&self) -> Option<&Arc<Lines>> {
        self.lines.iter().find(|lines| lines.output() == Output::Stderr)
    }

    fn exited(&self, status: WaitStatus) {
        tracing::debug!(plugin = %self.connection.name(), %status, "the plugin has ended");
        // Some process of its own may hold the pipe open: what it left there is read, and then it
        // is over.
        let stderr = self.of_stderr().map(Lines::tail).unwrap_or_default();
        let diagnosis = self.diagnose(status, &stderr);
        let diagnosis = diagnosis.map(|it| format!(", {}", it.problem)).unwrap_or_default();
        let by = match self.last_step.ended_by() {
            StoppedBy::Itself => "has ended",
            _ => "was stopped by this host",
        };
        self.connection.end(format!("{} {by}: {status}{diagnosis}", self.connection.name()));
    }

    /// Gives a handle up. Where it was the last one, that stops the plugin and waits for it, on
    /// another thread: neither the loop nor an answer that is yet to be sent may wait for that.
    fn let_go(handle: Arc<Self>) {
        if let Some(inner) = Arc::into_inner(handle) {
            inner.connection.events().clone().spawn(move || drop(inner));
        }
    }

    fn stop(&self, grace: Grace) -> Result<Stopped, StopError> {
        self.stopper().stop(grace)
    }
}

caller_methods!(Plugin, CallError, NotifyError);

impl Caller for Plugin {
    type CallError = CallError;
    type NotifyError = NotifyError;
    type Pending = PendingCall;

    awaited_by_connection!();

    fn begin_request(&self, request: OutgoingRequest<'_>) -> Result<PendingCall, CallError> {
        self.0.connection.begin_request(request)
    }

    fn wait_for_request(&self, request: OutgoingRequest<'_>) -> Result<Reply, CallError> {
        self.0.connection.wait_for_request(request)
    }

    fn call_chunk(&self, chunk: Chunk) -> Result<Chunk, CallError> {
        self.0.connection.call_chunk(chunk)
    }

    fn open_stream(
        &self,
        request: OutgoingRequest<'_>,
        sides: StreamSides,
    ) -> Result<StreamCall, CallError> {
        self.0.connection.open_stream(request, sides)
    }

    fn open_one_way_stream(
        &self,
        command: &str,
        payload: Payload<'_>,
    ) -> Result<PartSender, NotifyError> {
        self.0.connection.open_one_way_stream(command, payload)
    }

    fn send_one_way(&self, command: &str, payload: Payload<'_>) -> Result<(), NotifyError> {
        self.0.connection.send_one_way(command, payload)
    }
}

impl std::fmt::Debug for Plugin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let inner = &*self.0;
        f.debug_struct("Plugin")
            .field("path", &inner.path)
            .field("connection", &inner.connection)
            .finish_non_exhaustive()
    }
}
