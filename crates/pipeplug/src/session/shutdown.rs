//! Shutdown of a run from outside: by Ctrl-C, SIGTERM, a closed terminal, or a closed output pipe.

use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, JoinHandle, Thread};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use pipeplug_host::process::Pid;
use pipeplug_host::{Grace, Plugin, PluginBuilder, StoppedBy};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::exit::{CommandError, ExitReason};
use crate::output::stream::{self, Stream, WriteError};
use crate::output::text::Escaped;

/// Time for a run to end by itself after the second signal. Then the process exits at once.
const KILL_TIMEOUT: Duration = Duration::from_secs(2);

/// Time after the first signal in which further signals belong to it: timeout(1) signals its child
/// and then its process group, and npm forwards a Ctrl-C that the terminal has sent to the whole
/// group.
const ONE_STOP: Duration = Duration::from_millis(150);

/// Shutdown of all plugins of this process. Clones are handles to the same shutdown. Ending a
/// plugin also wakes the threads that wait for it.
#[derive(Clone, Default)]
pub(crate) struct Shutdown(Arc<Inner>);

#[derive(Default)]
struct Inner {
    cause: OnceLock<Cause>,
    plugins: Mutex<Vec<Registered>>,
    /// Threads that end plugins: each may take as long as the grace time.
    ending: Mutex<Vec<JoinHandle<StoppedBy>>>,
    /// Threads that wait for a call, to be woken.
    waiting: Mutex<Vec<Thread>>,
    /// Grace time of the plugins.
    grace: OnceLock<Duration>,
    /// A signal ends the process at once.
    exits_at_once: AtomicBool,
}

struct Registered {
    plugin: Plugin,
    phase: Phase,
}

/// Effect of a signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Signalled {
    Stop,
    Kill,
}

/// Use of a SIGINT.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Interrupt {
    /// It ended something else, or nothing.
    Used,
    /// It stops the plugins.
    Stops,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Starting,
    Running,
}

/// Cause of a shutdown.
#[derive(Debug)]
enum Cause {
    Signal(i32),
    /// Output could not be written.
    Output(Stream, WriteError),
}

impl Shutdown {
    /// Handles SIGINT, SIGTERM and SIGHUP from now on: the first signal stops the plugins, and one
    /// that comes more than [`ONE_STOP`] later kills them. `told` is called with each step. An
    /// ignored signal stays ignored: shells ignore SIGINT in background jobs of a script (POSIX,
    /// sh(1p), Asynchronous Lists), and nohup(1) ignores SIGHUP.
    ///
    /// Plugins lead their own process groups, unless they inherit stdin. Ctrl-C in a terminal
    /// therefore reaches only this process.
    pub(crate) fn on_signals(
        &self,
        told: impl Fn(Signalled) + Send + 'static,
    ) -> anyhow::Result<()> {
        self.on_signals_but(|| Interrupt::Stops, told)
    }

    /// Handles signals as [`on_signals`](Self::on_signals) does, but for a SIGINT that `interrupt` has
    /// a use for.
    pub(crate) fn on_signals_but(
        &self,
        interrupt: impl Fn() -> Interrupt + Send + 'static,
        told: impl Fn(Signalled) + Send + 'static,
    ) -> anyhow::Result<()> {
        let handled = [SIGINT, SIGTERM, SIGHUP].into_iter().filter(|signal| !is_ignored(*signal));
        let mut signals = Signals::new(handled).context("cannot handle signals")?;
        let shutdown = self.clone();
        thread::Builder::new()
            .name("signals".into())
            .spawn(move || {
                let mut first: Option<Instant> = None;
                for signal in signals.forever() {
                    if signal == SIGINT && first.is_none() && interrupt() == Interrupt::Used {
                        continue;
                    }
                    if shutdown.cause().is_none() {
                        first = Some(Instant::now());
                        shutdown.begin(Cause::Signal(signal));
                        told(Signalled::Stop);
                    } else if first.is_none_or(|first| first.elapsed() > ONE_STOP) {
                        told(Signalled::Kill);
                        shutdown.each(|_| EndMode::Kill);
                        stream::give_up();
                        shutdown.exit_after(KILL_TIMEOUT, signal);
                    }
                }
            })
            .context(
                "cannot start the thread that handles signals: a limit of processes is reached \
                 (ulimit -u, or pids.max of the cgroup)",
            )?;
        Ok(())
    }

    /// Error that the shutdown gives the run. `None` if there is no shutdown.
    pub(crate) fn failure(&self) -> Option<CommandError> {
        self.cause().map(|cause| match cause {
            Cause::Signal(signal) => CommandError::silent(reason_of(*signal)),
            Cause::Output(stream, error) => CommandError::of_output(*stream, error),
        })
    }

    /// True if output that cannot be written began a shutdown.
    pub(crate) fn has_failed_output(&self) -> bool {
        matches!(self.cause(), Some(Cause::Output(..)))
    }

    /// True if a shutdown has begun.
    pub(crate) fn is_begun(&self) -> bool {
        self.cause().is_some()
    }

    /// True if a signal began a shutdown.
    pub(crate) fn is_interrupted(&self) -> bool {
        matches!(self.cause(), Some(Cause::Signal(_)))
    }

    /// Error that the shutdown gives an open call. `None` if there is no shutdown.
    pub(crate) fn cancelled(&self, command: &str) -> Option<CommandError> {
        let Cause::Signal(signal) = self.cause()? else { return self.failure() };
        let name = match *signal {
            SIGHUP => "SIGHUP",
            SIGTERM => "SIGTERM",
            _ => "SIGINT",
        };
        let message = format!("{}: cancelled by {name}", Escaped(command));
        Some(CommandError::message(reason_of(*signal), message).of_command(command))
    }

    /// Sets the grace time of the plugins.
    pub(crate) fn set_grace(&self, grace: Duration) {
        // The command sets it only once.
        let _ = self.0.grace.set(grace);
    }

    /// Computes something, which a signal ends together with the process. No plugin may run, and
    /// nothing may be half written.
    ///
    /// # Errors
    /// A shutdown has begun before.
    pub(crate) fn exiting_at_once<T>(
        &self,
        compute: impl FnOnce() -> T,
    ) -> Result<T, CommandError> {
        // A signal sees the mark, or has left its cause before this looks for one.
        self.0.exits_at_once.store(true, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        let computed = self.failure().map_or_else(|| Ok(compute()), Err);
        self.0.exits_at_once.store(false, Ordering::SeqCst);
        computed
    }

    /// Waits for a future on this thread. `None` if a shutdown begins first.
    pub(crate) fn wait_for<F: Future>(&self, future: F) -> Option<F::Output> {
        let mut future = pin!(future);
        let waker = Waker::from(Arc::new(Unpark(thread::current())));
        let mut context = Context::from_waker(&waker);
        lock(&self.0.waiting).push(thread::current());
        let output = loop {
            // An unpark between these checks and the park makes the park return
            // (std::thread::park).
            if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
                break Some(output);
            }
            if self.cause().is_some() {
                break None;
            }
            thread::park();
        };
        let mut waiting = lock(&self.0.waiting);
        if let Some(at) = waiting.iter().position(|other| other.id() == thread::current().id()) {
            waiting.swap_remove(at);
        }
        drop(waiting);
        output
    }

    /// Registers a plugin whose process has just been started.
    pub(crate) fn starting(&self, plugin: &Plugin) {
        lock(&self.0.plugins).push(Registered { plugin: plugin.clone(), phase: Phase::Starting });
        // A shutdown that began before the push has not seen this plugin.
        if self.cause().is_some() {
            self.end(plugin.clone(), EndMode::Kill);
        }
    }

    /// Marks a plugin as started: a shutdown then sends it a stop request before it kills it.
    pub(crate) fn started(&self, pid: Pid) {
        for registered in
            lock(&self.0.plugins).iter_mut().filter(|registered| registered.plugin.pid() == pid)
        {
            registered.phase = Phase::Running;
        }
    }

    /// Kills the plugins that have not started yet.
    pub(crate) fn kill_starting(&self) {
        for registered in lock(&self.0.plugins).iter() {
            if registered.phase == Phase::Starting {
                self.end(registered.plugin.clone(), EndMode::Kill);
            }
        }
    }

    /// Forgets all plugins, which have ended. Returns the strongest means that ended one here.
    ///
    /// # Blocking
    /// On the threads that end plugins. They return once the plugins have ended.
    pub(crate) fn forget(&self) -> StoppedBy {
        let forgotten = std::mem::take(&mut *lock(&self.0.plugins));
        drop(forgotten); // outside of the lock: a last handle stops its plugin
        let ending = std::mem::take(&mut *lock(&self.0.ending));
        ending
            .into_iter()
            .filter_map(|thread| thread.join().ok())
            .max()
            .unwrap_or(StoppedBy::Itself)
    }

    /// Begins a shutdown because the output cannot be written.
    pub(crate) fn output_failed(&self, stream: Stream, error: WriteError) {
        self.begin(Cause::Output(stream, error));
    }

    fn begin(&self, cause: Cause) {
        // Only the first cause counts.
        if self.0.cause.set(cause).is_ok() {
            fence(Ordering::SeqCst);
            if self.0.exits_at_once.load(Ordering::SeqCst)
                && let Some(Cause::Signal(signal)) = self.cause()
            {
                std::process::exit(reason_of(*signal).code().into());
            }
            stream::begin_shutdown(self.0.grace.get().copied().unwrap_or(Grace::default().stop));
            lock(&self.0.waiting).iter().for_each(Thread::unpark);
            self.each(|phase| match phase {
                Phase::Starting => EndMode::Kill,
                Phase::Running => EndMode::Stop,
            });
        }
    }

    /// Exits the process if the run has not ended by then. Something may block it, such as a pipe
    /// that another process has filled.
    fn exit_after(&self, timeout: Duration, signal: i32) {
        let failure = self.failure();
        thread::sleep(timeout);
        let reason = failure.map_or(reason_of(signal), |failure| failure.reason);
        std::process::exit(reason.code().into());
    }

    fn each(&self, how: impl Fn(Phase) -> EndMode) {
        for registered in lock(&self.0.plugins).iter() {
            self.end(registered.plugin.clone(), how(registered.phase));
        }
    }

    fn cause(&self) -> Option<&Cause> {
        self.0.cause.get()
    }

    fn end(&self, plugin: Plugin, how: EndMode) {
        let run = move || {
            let ended = match how {
                EndMode::Stop => plugin.stop(),
                EndMode::Kill => plugin.kill(),
            };
            match ended {
                Ok(stopped) => stopped.by,
                Err(error) => {
                    tracing::error!(plugin = %plugin.name(), %error, "the plugin could not be \
                                                            ended");
                    StoppedBy::Itself
                }
            }
        };
        match thread::Builder::new().name("end".into()).spawn(run) {
            Ok(thread) => lock(&self.0.ending).push(thread),
            Err(error) => tracing::error!(%error, "cannot start the thread that ends the plugin"),
        }
    }
}

/// Returns a function that makes a builder register its plugin here, so that a shutdown ends it.
pub(crate) fn registering(
    shutdown: &Shutdown,
) -> impl Fn(PluginBuilder) -> PluginBuilder + Send + Sync + 'static {
    let shutdown = shutdown.clone();
    move |builder| {
        let shutdown = shutdown.clone();
        builder.on_spawn(move |plugin| shutdown.starting(plugin))
    }
}

#[derive(Debug, Clone, Copy)]
enum EndMode {
    Stop,
    Kill,
}

/// Waker for a thread that waits for a future.
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

fn reason_of(signal: i32) -> ExitReason {
    match signal {
        SIGHUP => ExitReason::HungUp,
        SIGTERM => ExitReason::Terminated,
        _ => ExitReason::Interrupted,
    }
}

/// True if this process ignores the signal since its start, as with nohup(1). Without `/proc` the
/// answer is always false.
fn is_ignored(signal: i32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    mask >> (signal - 1) & 1 == 1
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
