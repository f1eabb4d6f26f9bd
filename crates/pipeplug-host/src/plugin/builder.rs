//! Builder of a plugin: the program, and how to start it.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use pipeplug_net::internal::handshake::InterfaceVersions;
use pipeplug_net::{
    Escaped, EventLoop, HandlerError, HandlerFuture, Options, Recording, Reply, Request,
    connection_settings, handler_trait,
};
use serde::Serialize;

#[cfg(feature = "verify")]
use crate::integrity::Sha256;
use crate::launcher::{Exec, Launcher, Started};
#[cfg(feature = "sandbox")]
use crate::permissions::Allowed;
use crate::plugin::awaited;
use crate::plugin::config::{Config, ConfigError};
use crate::plugin::output::{OnLine, Output};
use crate::plugin::ready::OnReady;
use crate::plugin::{Grace, LogLevel, Plugin, StartError};
use crate::process::{Channel, Launch, OnHostExit, Stdin, Stdout};
#[cfg(feature = "sandbox")]
use crate::sandbox::Sandbox;
use crate::services::Services;
use crate::status::Publish;

handler_trait! {
    /// Call-back that answers a plugin's requests and takes its one-ways. It runs on threads of a
    /// pool, and may block and call back.
    ///
    /// **It runs concurrently**: calls and one-ways overtake each other, those of one caller too.
    /// A call-back for which the order counts, such as one that appends to a file, needs `in_order`
    /// or `in_order_for` of the builder, or one call with a stream.
    ///
    /// A closure `Fn(&Plugin, &mut Request) -> Result<Reply, HandlerError>`; the plugin is the one
    /// that asks.
    pub trait Handler(plugin: Plugin);
}

/// Call-back for a plugin whose process has just been started.
pub(crate) type OnSpawn = Arc<dyn Fn(&Plugin) + Send + Sync>;

/// Call-back for the end of a plugin's connection. Does not run on the loop's thread.
pub(crate) type OnEnd = Arc<dyn Fn() + Send + Sync>;

/// A plugin before it runs. One builder can start any number of times.
#[derive(Clone)]
#[must_use = "a builder does nothing until it starts"]
pub struct PluginBuilder {
    pub(crate) launch: Launch,
    pub(crate) launcher: Arc<dyn Launcher>,
    pub(crate) options: Options,
    pub(crate) handshake: Duration,
    pub(crate) grace: Grace,
    /// True if dropping the last handle never blocks.
    pub(crate) stops_in_background: bool,
    pub(crate) handler: Arc<dyn Handler>,
    /// Every command, if there is none.
    pub(crate) allowed: Option<BTreeSet<String>>,
    pub(crate) on_line: Option<OnLine>,
    pub(crate) on_spawn: Option<OnSpawn>,
    pub(crate) on_ready: Option<OnReady>,
    pub(crate) on_end: Option<OnEnd>,
    pub(crate) stderr_tail: usize,
    pub(crate) metadata: BTreeMap<String, String>,
    pub(crate) config: Option<Config>,
    pub(crate) interface_versions: InterfaceVersions,
    pub(crate) services: Services,
    pub(crate) log_level: Option<LogLevel>,
    pub(crate) events: Option<EventLoop>,
    pub(crate) publish: Publish,
    #[cfg(feature = "sandbox")]
    sandbox_by: SandboxBy,
    /// The permissions that the plugin is confined to.
    #[cfg(feature = "sandbox")]
    pub(crate) permissions: Option<Allowed>,
}

/// The origin of the choice of a sandbox, or of none.
#[cfg(feature = "sandbox")]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SandboxBy {
    Host,
    /// [`PluginBuilder::untrusted`], until the host says otherwise.
    Default,
}

impl PluginBuilder {
    pub(crate) fn new(path: impl Into<PathBuf>) -> Self {
        let launch = Launch::new(path);
        let mut options = Options::default();
        options.name = name_of(&launch.program);
        Self {
            launch,
            launcher: Arc::new(Exec),
            options,
            handshake: Duration::from_secs(10),
            grace: Grace::default(),
            stops_in_background: false,
            handler: Arc::new(()),
            allowed: None,
            on_line: None,
            on_spawn: None,
            on_ready: None,
            on_end: None,
            stderr_tail: 20,
            metadata: BTreeMap::new(),
            config: None,
            interface_versions: InterfaceVersions::default(),
            services: Services::default(),
            log_level: None,
            events: None,
            publish: Publish::No,
            #[cfg(feature = "sandbox")]
            sandbox_by: SandboxBy::Host,
            #[cfg(feature = "sandbox")]
            permissions: None,
        }
    }

    pub(crate) fn preinstalled(name: impl Into<PathBuf>) -> Self {
        let mut builder = Self::new(name);
        builder.launch.is_preinstalled = true;
        builder
    }

    /// Sets where the plugin runs. Default: on this machine ([`Exec`]).
    pub fn launcher(mut self, launcher: impl Launcher) -> Self {
        self.launcher = Arc::new(launcher);
        self
    }

    /// The plugin's name in logs and errors, [`Escaped`] for terminals. Default: its file's name.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.options.name = Escaped(&name.into()).to_string();
        self
    }

    /// Adds an argument.
    pub fn arg(mut self, arg: impl Into<OsString>) -> Self {
        self.launch.args.push(arg.into());
        self
    }

    /// More arguments of the plugin's own.
    pub fn args(mut self, args: impl IntoIterator<Item = impl Into<OsString>>) -> Self {
        self.launch.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Sets a variable of the plugin's environment. Of the host's it gets only what
    /// [`EnvPlan::PASSED`](crate::process::EnvPlan::PASSED) lists, and what begins with `LC_`,
    /// unless [`env_pass`](Self::env_pass) or [`env_inherit`](Self::env_inherit) says more.
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.launch.env.set(name, value);
        self
    }

    /// Lets one more variable of the host's environment through, if it is set.
    pub fn env_pass(mut self, name: impl Into<OsString>) -> Self {
        self.launch.env.pass(name);
        self
    }

    /// Lets all of the host's environment through, with every secret in it.
    pub fn env_inherit(mut self) -> Self {
        self.launch.env = self.launch.env.with_all();
        self
    }

    /// Leaves a variable of the host's environment out.
    pub fn env_remove(mut self, name: impl Into<OsString>) -> Self {
        self.launch.env.remove(name);
        self
    }

    /// The plugin's working directory. Default: the host's.
    pub fn current_dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.launch.cwd = Some(dir.into());
        self
    }

    /// The plugin's `argv[0]`. Default: its path.
    pub fn arg0(mut self, arg0: impl Into<OsString>) -> Self {
        self.launch.arg0 = Some(arg0.into());
        self
    }

    /// Talks over the plugin's standard input and output, for plugins that know no other
    /// descriptors. Default: descriptors 3 and 4.
    pub fn stdio(mut self) -> Self {
        self.launch.channel = Channel::Stdio;
        self
    }

    /// Talks over descriptors 3 and 4, and has the plugin's standard output go where this says.
    /// Default: the host's.
    pub fn stdout(mut self, stdout: Stdout) -> Self {
        let (stdin, _) = self.standard();
        self.launch.channel = Channel::Pipes { stdin, stdout };
        self
    }

    /// Talks over descriptors 3 and 4, and has the plugin's standard input be what this says:
    /// [`Stdin::Inherit`] is for plugins that need the terminal, and what that means for Ctrl-C
    /// stands there. Default: nothing.
    pub fn stdin(mut self, stdin: Stdin) -> Self {
        let (_, stdout) = self.standard();
        self.launch.channel = Channel::Pipes { stdin, stdout };
        self
    }

    fn standard(&self) -> (Stdin, Stdout) {
        match self.launch.channel {
            Channel::Pipes { stdin, stdout } => (stdin, stdout),
            Channel::Stdio => Default::default(),
        }
    }

    /// Sets what happens to the plugin when this process ends without having stopped it. Default:
    /// the plugin is killed, with the processes of its group.
    pub fn on_host_exit(mut self, on_host_exit: OnHostExit) -> Self {
        self.launch.on_host_exit = on_host_exit;
        self
    }

    /// The SHA-256 sum that the plugin's file has to have: what is executed is what was checked,
    /// however the file is swapped meanwhile. [`Launch::sha256`] tells what is different for the
    /// plugin then.
    #[cfg(feature = "verify")]
    pub fn sha256(mut self, sum: Sha256) -> Self {
        self.launch.sha256 = Some(sum);
        self
    }

    /// The [`LockFile`](crate::LockFile) that has to have the sum of the plugin's file; it is read
    /// at each start.
    #[cfg(feature = "verify")]
    pub fn lock_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.launch.lock_file = Some(path.into());
        self
    }

    /// Confines the plugin. Default: the plugin may do what the host may.
    #[cfg(feature = "sandbox")]
    pub fn sandbox(mut self, sandbox: Sandbox) -> Self {
        self.launch.sandbox = Some(sandbox);
        self.sandbox_by = SandboxBy::Host;
        self
    }

    /// Takes a sandbox off that was set before, as the one of a
    /// [`Catalog`](crate::discovery::Catalog): the plugin may do whatever the host may.
    #[cfg(feature = "sandbox")]
    pub fn no_sandbox(mut self) -> Self {
        self.launch.sandbox = None;
        self.sandbox_by = SandboxBy::Host;
        self
    }

    /// Sets the strict sandbox, on systems that have one, for an unknown plugin.
    #[cfg(feature = "discovery")]
    pub(crate) fn untrusted(mut self) -> Self {
        self.launch.sandbox = cfg!(linux_native).then(Sandbox::strict);
        self.sandbox_by = SandboxBy::Default;
        self
    }

    /// Takes the default of [`untrusted`](Self::untrusted) off where the launcher would be refused
    /// because of it: what runs elsewhere is confined there. A sandbox that the host demanded
    /// stays.
    #[cfg(feature = "discovery")]
    pub(crate) fn without_default_sandbox_elsewhere(mut self) -> Self {
        if self.sandbox_by == SandboxBy::Default && !self.launcher.enforces_demands() {
            self.launch.sandbox = None;
        }
        self
    }

    /// Adds commands that the plugin may send. Any other request is refused with an error before
    /// the handler sees it. Any other one-way is dropped with a warning in the log. Further calls
    /// allow more. Default: all commands reach the handler.
    pub fn allow(mut self, commands: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.allowed.get_or_insert_default().extend(commands.into_iter().map(Into::into));
        self
    }

    /// Sets the call-back that answers the plugin. Default: each request gets an error.
    pub fn handler(mut self, handler: impl Handler) -> Self {
        self.handler = Arc::new(handler);
        self
    }

    /// Sets an asynchronous call-back that answers the plugin. `spawner` gets the future of each
    /// request, and has a runtime run it. No thread waits meanwhile; see [`Request::spawn`].
    ///
    /// ```no_run
    /// use pipeplug_host::{HandlerError, Plugin, Reply, Request};
    ///
    /// async fn answer(_: Plugin, request: Request) -> Result<Reply, HandlerError> {
    ///     tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    ///     Ok(request.text()?.to_uppercase().into())
    /// }
    ///
    /// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// let runtime = tokio::runtime::Handle::current();
    /// let plugin = Plugin::builder("./target/debug/spell")
    ///     .async_handler(move |future| runtime.spawn(future), answer)
    ///     .start_async()
    ///     .await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn async_handler<T, F>(
        self,
        spawner: impl Fn(HandlerFuture) -> T + Send + Sync + 'static,
        handler: impl Fn(Plugin, Request) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = Result<Reply, HandlerError>> + Send + 'static,
    {
        let handler = Arc::new(handler);
        // A task may drop the last handle to the plugin.
        self.stop_in_background().handler(move |plugin: &Plugin, request: &mut Request| {
            let (plugin, handler) = (plugin.clone(), Arc::clone(&handler));
            request.spawn(&spawner, move |request| handler(plugin, request))
        })
    }

    /// Called with each line of the plugin's standard error (and output, with [`Stdout::Log`]), in
    /// order, on a thread of its own; beside the `tracing` events with target `pipeplug::stderr`
    /// (`pipeplug::stdout`) that there are anyway.
    ///
    /// The event of a line has the level that the line tells of: as JSON of a usual logging library
    /// (tracing-subscriber, hclog, slog, pino, structlog), as `level=warn …`, or by its first word,
    /// as in `ERROR …`, `[WARN] …` or `error: …`. Target and fields are `log.target` and
    /// `log.fields` (JSON) of that event; the time is left out. The level of any other line is INFO.
    ///
    /// A host that has neither this nor a `tracing` subscriber sees the lines on its own standard
    /// error, behind the plugin's name. `on_line(|_, _| {})` switches that off.
    pub fn on_line(mut self, on_line: impl Fn(Output, &str) + Send + Sync + 'static) -> Self {
        self.on_line = Some(Arc::new(on_line));
        self
    }

    /// Sets a call-back for the moment when the process runs, before the exchange of metadata. It
    /// is called on the thread that starts the plugin. With this handle another thread can end a
    /// start that takes too long, by [`Plugin::kill`].
    pub fn on_spawn(mut self, on_spawn: impl Fn(&Plugin) + Send + Sync + 'static) -> Self {
        self.on_spawn = Some(Arc::new(on_spawn));
        self
    }

    /// Sets a call-back that prepares the plugin after each start, and each restart by a
    /// `Supervisor` or `Pool`: it signs in, sends what the plugin is to know, checks it. No call of
    /// the host's comes before it, since [`start`](Self::start) returns after it, and it may call
    /// the plugin itself. Its failure is that of the start ([`StartErrorKind::NotReady`]), and the
    /// plugin is stopped.
    ///
    /// It has what is left of the [time for the start](Self::handshake_timeout). It runs on a thread
    /// of its own, for which `start` waits. When the time is over the plugin is killed and `start`
    /// returns, while the thread goes on until the call-back returns: its calls fail by then.
    ///
    /// Requests of the plugin reach the [`handler`](Self::handler) meanwhile. Another thread can end
    /// the start by [`Plugin::kill`], with the handle of [`on_spawn`](Self::on_spawn).
    ///
    /// [`StartErrorKind::NotReady`]: crate::StartErrorKind::NotReady
    ///
    /// ```no_run
    /// use pipeplug_host::Plugin;
    ///
    /// let plugin = Plugin::builder("./plugin")
    ///     .on_ready(|plugin| {
    ///         plugin.call("open", "words.db")?;
    ///         Ok(())
    ///     })
    ///     .start()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn on_ready(
        mut self,
        on_ready: impl Fn(&Plugin) -> Result<(), HandlerError> + Send + Sync + 'static,
    ) -> Self {
        self.on_ready = Some(Arc::new(on_ready));
        self
    }

    /// Number of last lines of standard error that are kept for errors. Default: 20.
    pub fn stderr_tail(mut self, lines: usize) -> Self {
        self.stderr_tail = lines;
        self
    }

    /// Time from the plugin's start to its answer to `GetMetadata`, and to the end of
    /// [`on_ready`](Self::on_ready). A plugin of `pipeplug-guest` answers when its start call-back
    /// has succeeded. Default: 10 seconds.
    pub fn handshake_timeout(mut self, timeout: Duration) -> Self {
        self.handshake = timeout;
        self
    }

    /// Time for each step of stopping.
    pub fn grace(mut self, grace: Grace) -> Self {
        self.grace = grace;
        self
    }

    /// Has the drop of the last handle never block: the stop goes on in the background. For a host
    /// with a runtime that starts and calls the plugin only on threads that may block, as with
    /// `spawn_blocking`, and drops it elsewhere. Without it, a plugin of which nothing was awaited
    /// has ended when the drop returns; see [`Plugin`].
    ///
    /// A process that ends meanwhile has the plugin killed. End it with [`Plugin::stop`] or
    /// [`Plugin::stop_async`] if it needs its grace times.
    pub fn stop_in_background(mut self) -> Self {
        self.stops_in_background = true;
        self
    }

    /// Adds an entry to the host's metadata, which the plugin gets with the first request.
    pub fn metadata(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.metadata.insert(key.into(), value.into());
        self
    }

    /// Sets the configuration of the plugin, which it has before its start call-back runs, at each
    /// start: `Main::config` of `pipeplug-guest` gives it there. It travels as JSON over the pipe.
    ///
    /// Neither logs nor errors of the host show it, so it may hold secrets: arguments and variables
    /// of the environment can be read by other processes. The limit is 1 MiB of JSON.
    ///
    /// A plugin that cannot take a configuration does not start
    /// ([`StartErrorKind::NoConfig`](crate::StartErrorKind::NoConfig)).
    ///
    /// # Errors
    /// The value cannot be written as JSON, or is too large.
    ///
    /// ```no_run
    /// use pipeplug_host::Plugin;
    /// use serde::Serialize;
    ///
    /// #[derive(Serialize)]
    /// struct Settings {
    ///     url: String,
    ///     retries: u32,
    /// }
    ///
    /// let settings = Settings { url: "https://example.org".into(), retries: 3 };
    /// let plugin = Plugin::builder("./plugin").config(&settings)?.start()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn config<T: Serialize + ?Sized>(mut self, config: &T) -> Result<Self, ConfigError> {
        self.config = Some(Config::new(config)?);
        Ok(self)
    }

    /// Adds versions of the application's own interface that the host speaks: the commands, and
    /// what is in their buffers. The highest one that the plugin names as well is chosen at the
    /// start, for both sides: [`Plugin::interface_version`]. With no common version the start fails
    /// ([`StartErrorKind::InterfaceVersions`](crate::StartErrorKind::InterfaceVersions)). Where one
    /// side names none, nothing is negotiated.
    ///
    /// ```no_run
    /// use pipeplug_host::Plugin;
    ///
    /// let plugin = Plugin::builder("./plugin").interface_versions([2, 3]).start()?;
    /// match plugin.interface_version() {
    ///     Some(3) => plugin.call("open", r#"{"path":"words.db"}"#)?,
    ///     _ => plugin.call("open", "words.db")?,
    /// };
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn interface_versions(mut self, versions: impl IntoIterator<Item = u32>) -> Self {
        self.interface_versions.extend(versions);
        self
    }

    /// Sets the level of the plugin's own log at each start. [`Plugin::set_log_level`] changes it
    /// later. For plugins that log by `logging` of `pipeplug-guest`, or name the feature `log`;
    /// others set their level by themselves ([`Plugin::takes_log_level`]). Default: the plugin's.
    pub fn log_level(mut self, level: LogLevel) -> Self {
        self.log_level = Some(level);
        self
    }

    /// Records every chunk, like a flight recorder: time, direction, command and length, and with
    /// [`Recording::with_data`] the data. Default: nothing is recorded.
    ///
    /// All processes that this builder starts, one after the other by a
    /// [`Supervisor`](crate::Supervisor) or at once by a [`Pool`](crate::Pool), go to the same file.
    /// [`Crash::recording`](crate::Crash::recording) names it. `pipeplug trace FILE` shows it.
    ///
    /// ```no_run
    /// use pipeplug_host::{Plugin, Recording};
    ///
    /// let recording = Recording::to("spell.rec").limit(16 << 20).redact(["log_in"]);
    /// let plugin = Plugin::builder("./target/debug/spell").record(recording).start()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn record(mut self, recording: Recording) -> Self {
        self.options.recording = Some(recording);
        self
    }

    /// The loop that serves the plugin. Default: the one that the process shares.
    pub fn event_loop(mut self, events: EventLoop) -> Self {
        self.events = Some(events);
        self
    }

    /// Path of the file to execute. For a preinstalled plugin, its name.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.launch.program
    }

    /// Starts the plugin and exchanges metadata with it.
    ///
    /// # Errors
    /// Each says what was wrong and what to do; nothing is left of the attempt.
    ///
    /// # Blocking
    /// Until the plugin has answered and [`on_ready`](Self::on_ready) has returned, at most for the
    /// handshake timeout. The handler may be called meanwhile.
    pub fn start(&self) -> Result<Plugin, StartError> {
        Plugin::launch(self)
    }

    /// Starts the process of the plugin, and leaves its pipes to the caller: for programs that write
    /// and read chunks by themselves, such as a check of the protocol. Nothing is sent, and of the
    /// builder only the options of the process and the launcher apply. Dropping the process ends it.
    ///
    /// # Errors
    /// If the process cannot be started.
    ///
    /// # Blocking
    /// Until the program is loaded, or the launcher has started it.
    pub fn start_process(&self) -> Result<Started, StartError> {
        Plugin::spawn(&*self.permitted()?)
    }

    /// True if the plugin is a process of this machine, which no launcher starts.
    #[must_use]
    pub fn is_local(&self) -> bool {
        self.launcher.describe().is_none()
    }

    /// Starts the plugin as [`start`](PluginBuilder::start) does, and awaits that it runs. It is
    /// started on a thread of the event loop, when the future is polled first.
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// use pipeplug_host::Plugin;
    ///
    /// let plugin = Plugin::builder("./target/debug/echo").start_async().await?;
    /// assert_eq!(plugin.call_async("echo", "hello").await?, "hello");
    /// plugin.stop_async().await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As for [`start`](PluginBuilder::start).
    ///
    /// # Cancellation
    /// If the future is dropped before it is ready, the plugin is killed and reaped in the
    /// background.
    pub fn start_async(&self) -> impl Future<Output = Result<Plugin, StartError>> + Send + use<> {
        awaited::start(self.clone())
    }
}

connection_settings! {
    impl[] PluginBuilder;
    /// The format to speak: the host speaks first, so it has to know. Default: standard.
    format;
    waits_for "the plugin's reply";
    keeps name, format, order, recording;
}

impl std::fmt::Debug for PluginBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PluginBuilder")
            .field("launch", &self.launch)
            .field("launcher", &self.launcher)
            .field("options", &self.options)
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

fn name_of(path: &Path) -> String {
    Escaped(&path.file_name().unwrap_or(path.as_os_str()).to_string_lossy()).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(all(feature = "discovery", feature = "ssh"))]
    #[test]
    fn a_default_sandbox_is_for_this_machine_and_a_demanded_one_for_all() {
        let is_sandboxed = |builder: PluginBuilder| {
            builder.without_default_sandbox_elsewhere().launch.sandbox.is_some()
        };
        let here = PluginBuilder::new("x").untrusted();
        let elsewhere = here.clone().launcher(crate::launcher::Ssh::new("host"));
        assert_eq!(is_sandboxed(here.clone()), cfg!(linux_native));
        assert!(!is_sandboxed(here.no_sandbox()));
        assert!(!is_sandboxed(elsewhere.clone()));
        assert!(is_sandboxed(elsewhere.sandbox(Sandbox::strict())));
    }

    #[test]
    fn an_order_outlives_other_options() {
        let builder = PluginBuilder::new("x").in_order_for(["append", "cut"]).in_order_for(["log"]);
        let options = builder.options(Options::default()).options;
        let sequences = [["append", "cut"].map(String::from).to_vec(), vec!["log".to_owned()]];
        assert_eq!(options.order, pipeplug_net::Order::InOrderFor(sequences.into()));
        let all = PluginBuilder::new("x").in_order().in_order_for(["log"]).options.order;
        assert_eq!(all, pipeplug_net::Order::InOrder);
    }

    #[test]
    fn a_name_is_fit_for_every_message() {
        let builder = PluginBuilder::new("/plugins/a\x1b[2J");
        assert_eq!(builder.options.name, "a\\u{1b}[2J");
        assert_eq!(builder.path(), Path::new("/plugins/a\x1b[2J"));
        assert_eq!(builder.name("b\n").options.name, "b\\n");
        assert_eq!(PluginBuilder::new("/").options.name, "/");
    }
}
