//! Builder of a plugin's side: settings, call-backs, registration.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use pipeplug_net::internal::handshake::InterfaceVersions;
use pipeplug_net::wire::command;
use pipeplug_net::{
    EventLoop, HandlerError, HandlerFuture, Hold, Options, Reading, Reply, Request,
    connection_settings,
};

use crate::descriptors::Plan;
use crate::exit::{Exit, OnEnd};
use crate::listen::{self, NoPath};
use crate::main_handle::{Handler, Main, OnStop, Shared};
use crate::metadata::Own;
use crate::permissions::Permissions;
use crate::register_error::RegisterError;
use crate::services::Services;
use crate::startup::Startup;
use crate::stopping::Stop;

/// Registers this process as a plugin: `handler` is called for what the host asks, `start` once
/// before; `()` for none.
///
/// Short for [`Guest::new`] with both. It gives the handle to the host at once; end `main` with
/// [`Main::wait`].
///
/// A plugin that is started by hand or in a debugger waits for a host at a socket where its
/// arguments begin with `--pipeplug-listen PATH`; it prints how to attach one.
///
/// A plugin that has no host cannot do anything. If it was started by hand, it says so on standard
/// error, with the command to type (`pipeplug run ./plugin`), and exits with 2: in a terminal, without
/// stdin (`</dev/null`, a service), or if stdin ends before a host has sent anything. It also exits
/// with 2 if the descriptors that it was told cannot be used, and with 1 if `start` fails.
/// [`Guest::try_register`] gives these as errors, except for a stdin that ends, which ends the process
/// or [`Main::wait`].
///
/// # Blocking
/// While `start` runs. With `--pipeplug-listen PATH` as the first arguments, until a host has
/// attached before that.
pub fn register(start: impl Start, handler: impl Handler) -> Main {
    Guest::new().start(start).handler(handler).register()
}

/// Start call-back. Runs once at the end of registering, after the host has sent its metadata
/// ([`Main::host`]) and before any message reaches the request call-back. The host's start waits for
/// it, at most for the time that the host has for a start (`PluginBuilder::handshake_timeout` of
/// `pipeplug-host`, 10 seconds by default): long work belongs on a thread. It may call the host.
///
/// A closure `FnOnce(&Main) -> Result<(), HandlerError>`, or `()` for nothing.
pub trait Start {
    /// Runs it.
    ///
    /// # Errors
    /// Any error ends the plugin, and fails the host's start.
    fn start(self, main: &Main) -> Result<(), HandlerError>;

    /// Tells that it does nothing, so that no message has to wait for it.
    #[doc(hidden)]
    fn is_nothing(&self) -> bool {
        false
    }
}

impl Start for () {
    fn start(self, _main: &Main) -> Result<(), HandlerError> {
        Ok(())
    }

    fn is_nothing(&self) -> bool {
        true
    }
}

impl<F: FnOnce(&Main) -> Result<(), HandlerError>> Start for F {
    fn start(self, main: &Main) -> Result<(), HandlerError> {
        self(main)
    }
}

/// A plugin before it registers.
///
/// ```no_run
/// # fn main() -> std::process::ExitCode {
/// let main = pipeplug_guest::Guest::new()
///     .name("greeter")
///     .metadata("Help", "greets whom it is told")
///     .start(|main: &pipeplug_guest::Main| Ok(main.notify("log", "here I am")?))
///     .handler(|_main: &_, request: &mut pipeplug_guest::Request| {
///         Ok(format!("hello, {}", request.text()?).into())
///     })
///     .register();
/// main.wait()
/// # }
/// ```
#[must_use = "a guest does nothing until it registers"]
pub struct Guest<S = (), R = ()> {
    start: S,
    handler: R,
    args: Option<Vec<OsString>>,
    pub(crate) own: Own,
    options: Options,
    grace: Duration,
    on_end: OnEnd,
    on_stop: Option<OnStop>,
}

impl Default for Guest {
    fn default() -> Self {
        Self::new()
    }
}

impl Guest {
    /// A plugin that answers nothing yet.
    pub fn new() -> Self {
        let mut options = Options::default();
        options.name = "host".into();
        options.format = None;
        options.reading = Reading::Dedicated;
        Self {
            start: (),
            handler: (),
            args: None,
            own: Own {
                name: program().name,
                metadata: BTreeMap::new(),
                interface_versions: InterfaceVersions::default(),
                services: Services::default(),
            },
            options,
            grace: Duration::from_secs(5),
            on_end: OnEnd::default(),
            on_stop: None,
        }
    }
}

impl<S: Start, R: Handler> Guest<S, R> {
    /// Sets the call-back that runs at the end of registering.
    pub fn start<T: Start>(self, start: T) -> Guest<T, R> {
        let Self { start: _, handler, args, own, options, grace, on_end, on_stop } = self;
        Guest { start, handler, args, own, options, grace, on_end, on_stop }
    }

    /// Sets the call-back that answers the host.
    pub fn handler<T: Handler>(self, handler: T) -> Guest<S, T> {
        let Self { start, handler: _, args, own, options, grace, on_end, on_stop } = self;
        Guest { start, handler, args, own, options, grace, on_end, on_stop }
    }

    /// Sets an asynchronous call-back that answers the host. `spawner` gets the future of each
    /// request, and has a runtime run it. No thread waits meanwhile; see [`Request::spawn`].
    ///
    /// It is not asked for metadata: give those with [`metadata`](Guest::metadata).
    ///
    /// ```no_run
    /// use pipeplug_guest::{Guest, HandlerError, Main, Reply, Request};
    ///
    /// async fn answer(_: Main, request: Request) -> Result<Reply, HandlerError> {
    ///     tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    ///     Ok(request.text()?.to_uppercase().into())
    /// }
    ///
    /// fn main() -> std::process::ExitCode {
    ///     let runtime = tokio::runtime::Runtime::new().expect("the system gives threads");
    ///     let tasks = runtime.handle().clone();
    ///     Guest::new().async_handler(move |future| tasks.spawn(future), answer).register().wait()
    /// }
    /// ```
    pub fn async_handler<T, F>(
        self,
        spawner: impl Fn(HandlerFuture) -> T + Send + Sync + 'static,
        handler: impl Fn(Main, Request) -> F + Send + Sync + 'static,
    ) -> Guest<S, impl Handler>
    where
        F: Future<Output = Result<Reply, HandlerError>> + Send + 'static,
    {
        let handler = Arc::new(handler);
        self.handler(move |main: &Main, request: &mut Request| {
            if request.command() == command::GET_METADATA && !request.is_one_way() {
                return request.unknown();
            }
            let (main, handler) = (main.clone(), Arc::clone(&handler));
            request.spawn(&spawner, move |request| async move {
                let one_way = request.is_one_way().then(|| request.command().to_owned());
                let answer = handler(main.clone(), request).await;
                if let (Err(error), Some(command)) = (&answer, one_way) {
                    main.shared().tell_failure(&command, error);
                }
                answer
            })
        })
    }

    /// The plugin's name. Default: that of the program.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.own.name = name.into();
        self
    }

    /// Adds an entry to the plugin's metadata, such as `Cmd`, `Help` or `Description`.
    ///
    /// With none at all the request call-back is asked `GetMetadata`, and answers a JSON object, or
    /// an error for none.
    pub fn metadata(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.own.metadata.insert(key.into(), value.into());
        self
    }

    /// Declares what the plugin needs of the machine and of its host, which `pipeplug add` shows and
    /// asks for. A host that confines plugins to their permissions grants what was allowed, and nothing
    /// else. docs/security.md of the project ("Permissions") has more.
    ///
    /// As an entry of the [`metadata`](Self::metadata), it has the request call-back not be asked.
    ///
    /// ```no_run
    /// use pipeplug_guest::{Guest, Permissions};
    ///
    /// let wanted = Permissions::new().read("{plugin}/words").connect(443).command("log");
    /// let main = Guest::new().permissions(wanted).register();
    /// ```
    pub fn permissions(self, permissions: Permissions) -> Self {
        self.metadata(Permissions::KEY, permissions.into_json())
    }

    /// Adds versions of the application's own interface that the plugin speaks: the commands, and
    /// what is in their buffers. The highest one that the host names as well is chosen at the start,
    /// for both sides: [`Main::interface_version`]. Where one side names none, nothing is negotiated.
    ///
    /// With no common version neither the start call-back nor [`register`](Self::register) succeeds:
    /// [`RegisterError::InterfaceVersions`]. The host's start fails likewise.
    ///
    /// ```no_run
    /// use pipeplug_guest::{Guest, Main, Request};
    ///
    /// let answer = |main: &Main, request: &mut Request| match request.command() {
    ///     "list" if main.interface_version() >= Some(3) => Ok(r#"["a","b"]"#.into()),
    ///     "list" => Ok("a b".into()),
    ///     _ => request.unknown(),
    /// };
    /// let main = Guest::new().interface_versions([2, 3]).handler(answer).register();
    /// ```
    pub fn interface_versions(mut self, versions: impl IntoIterator<Item = u32>) -> Self {
        self.own.interface_versions.extend(versions);
        self
    }

    /// Time for handlers that still run once the host said stop or is gone. Default: 5 seconds.
    ///
    /// A host that is gone without having said stop has most often had the system kill the plugin
    /// (`OnHostExit` of `pipeplug-host`), which then gets no time at all.
    pub fn grace(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self
    }

    /// Sets what happens to the process at the end of the connection. Default: the process exits.
    pub fn on_end(mut self, on_end: OnEnd) -> Self {
        self.on_end = on_end;
        self
    }

    /// Runs once, on a thread of its own, when the plugin is to end: to wake what handlers wait
    /// for. They have the grace time from then on; [`Main::stopping`] tells them the same.
    ///
    /// ```no_run
    /// use pipeplug_guest::{Guest, Stop};
    ///
    /// let main = Guest::new()
    ///     .on_stop(|why: Stop| eprintln!("the plugin ends: {why:?}"))
    ///     .register();
    /// ```
    pub fn on_stop(mut self, on_stop: impl Fn(Stop) + Send + Sync + 'static) -> Self {
        self.on_stop = Some(Arc::new(on_stop));
        self
    }

    /// The command line to read, without the program's name. Default: that of the process.
    pub fn args(mut self, args: impl IntoIterator<Item = impl Into<OsString>>) -> Self {
        self.args = Some(args.into_iter().map(Into::into).collect());
        self
    }

    /// Like [`try_register`](Guest::try_register). On failure, writes the reason to standard error
    /// and exits.
    ///
    /// # Blocking
    /// As [`try_register`](Guest::try_register).
    pub fn register(self) -> Main {
        let name = self.own.name.clone();
        self.try_register().unwrap_or_else(|error| {
            match error {
                RegisterError::ByHand { .. } => eprintln!("{error}"),
                _ => eprintln!("{name}: {error}"),
            }
            std::process::exit(error.exit_code().into())
        })
    }

    /// Registers: takes the descriptors, starts the event loop, runs the start call-back, lets
    /// requests in.
    ///
    /// # Errors
    /// There is no host, a descriptor cannot be used, host and plugin have no common
    /// [interface version](Self::interface_versions), or the start call-back failed.
    ///
    /// # Blocking
    /// While the start call-back runs. Before that, until the host has asked for the metadata,
    /// which it does at once. With `--pipeplug-listen PATH` as the first arguments, until a host
    /// has attached.
    pub fn try_register(self) -> Result<Main, RegisterError> {
        let mut args = self.args.unwrap_or_else(|| std::env::args_os().skip(1).collect());
        let path = listen::path_in(&mut args).map_err(|NoPath| RegisterError::NoListenPath)?;
        let by_hand = || RegisterError::ByHand {
            name: self.own.name.clone(),
            path: program().path_to_type(),
        };
        let mut may_be_by_hand = None;
        let (reader, writer, args) = match path {
            Some(path) => {
                let (reader, writer) = listen::wait_for_host(&path, &self.own.name)
                    .map_err(|reason| RegisterError::Listen { path, reason })?;
                (reader, writer, args)
            }
            None => {
                let plan = Plan::from_args(args);
                if plan.is_by_hand() {
                    return Err(by_hand());
                }
                may_be_by_hand = (!plan.told).then(by_hand);
                let (reader, writer) = plan.take()?;
                (reader, writer, plan.args)
            }
        };
        // Most often its thread is the one that is in `Main::wait`.
        let events = EventLoop::on_demand().map_err(RegisterError::EventLoop)?;
        let mut options = self.options;
        let is_awaited = !self.start.is_nothing() || !self.own.interface_versions.is_empty();
        options.hold = if is_awaited {
            // What the host says of itself comes with it, and the start call-back may want to know.
            // The answer waits for the call-back.
            Hold::AllBut(vec![command::GET_METADATA.into()])
        } else {
            Hold::Nothing
        };
        let grace = self.grace;
        let startup = if is_awaited { Startup::with_start() } else { Startup::default() };
        let exit = Exit::new(self.own.name.clone(), self.grace, self.on_end, events.clone())
            .with_by_hand(may_be_by_hand.as_ref());
        let shared = Shared::new(args, self.own, exit, self.handler, startup, self.on_stop);
        let main = Main::connect(&events, reader, writer, options, shared)
            .map_err(RegisterError::Connect)?;
        let startup = &main.shared().startup;
        // Whatever becomes of it: until then `GetMetadata` is not answered.
        let started = startup.starting();
        if is_awaited {
            startup.wait_introduced(|| main.connection().stats().held > 0);
        }
        if let Some(error) = main.shared().mismatch() {
            drop(started);
            // The host has the answer first, and says the same of both. What it asks in spite of it
            // is refused.
            main.connection().release();
            let _ = main.connection().wait_idle(grace);
            let _ = main.connection().wait_written(grace);
            main.connection().close();
            return Err(error);
        }
        if let Err(error) = self.start.start(&main) {
            // Closed before the end of the start: a plugin that does not start answers nothing.
            main.connection().close();
            return Err(RegisterError::Start(error));
        }
        drop(started);
        main.connection().release();
        Ok(main)
    }
}

connection_settings! {
    impl[S: Start, R: Handler] Guest<S, R>;
    /// The format to speak. Default: that of the host's first chunk.
    format;
    waits_for "the host's requests";
    keeps name, format, reading, order;
}

struct Program {
    name: String,
    path: PathBuf,
}

impl Program {
    /// A path that leads to the program from any command: a shell that found it through PATH has
    /// told its name only.
    fn path_to_type(self) -> PathBuf {
        if self.path.as_os_str().as_encoded_bytes().contains(&b'/') {
            return self.path;
        }
        std::env::current_exe().unwrap_or(self.path)
    }
}

/// Command that started this process.
fn program() -> Program {
    let path = PathBuf::from(std::env::args_os().next().unwrap_or_else(|| "plugin".into()));
    let name = path
        .file_name()
        .map_or_else(|| "plugin".into(), |name| name.to_string_lossy().into_owned());
    Program { name, path }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_outlives_other_settings() {
        let guest = Guest::new().in_order().options(Options::default()).start(());
        assert_eq!(guest.options.order, pipeplug_net::Order::InOrder);
    }
}
