//! What ends a run from outside: Ctrl-C, SIGTERM, a terminal or a reader of our output that went
//! away.

use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, JoinHandle, Thread};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use pipeplug_host::process::Pid;
use pipeplug_host::{Grace, Plugin, PluginBuilder, StoppedBy};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::exit::{Failure, Outcome};
use crate::output::{self, Stream, WriteError};

/// How long a run may take to end by itself after the second signal; past that the process exits at
/// once.
const KILL_PATIENCE: Duration = Duration::from_secs(2);

/// Signals within this time of the first one belong to it: timeout(1) signals its child and then its
/// process group, and npm forwards a Ctrl-C that the terminal has sent to the whole group.
const ONE_STOP: Duration = Duration::from_millis(150);

/// Ends the plugins, which wakes whoever waits for them.
#[derive(Clone, Default)]
pub(crate) struct Halt(Arc<Inner>);

#[derive(Default)]
struct Inner {
    cause: OnceLock<Cause>,
    plugins: Mutex<Vec<Watched>>,
    /// What ends them, on threads of their own: it may take as long as the grace time.
    ending: Mutex<Vec<JoinHandle<StoppedBy>>>,
    /// The thread that waits for a call, which is cancelled.
    waiting: Mutex<Option<Thread>>,
    /// How long the plugins may take to answer and leave.
    grace: OnceLock<Duration>,
}

struct Watched {
    plugin: Plugin,
    phase: Phase,
}

/// What a signal brings about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Signalled {
    Stop,
    Kill,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Starting,
    Running,
}

/// Why everything ends.
#[derive(Debug)]
enum Cause {
    Signal(i32),
    /// The output cannot be written.
    Output(Stream, WriteError),
}

impl Halt {
    /// Handles SIGINT, SIGTERM and SIGHUP from here on: the first one stops the plugins, and one
    /// that comes more than [`ONE_STOP`] later kills them. `told` is called with each step. Those that are ignored stay so, as a shell sets SIGINT for the background
    /// jobs of a script (POSIX, sh(1p), Asynchronous Lists) and nohup(1) SIGHUP.
    ///
    /// Unless they have its stdin they lead process groups of their own, so a terminal's Ctrl-C
    /// reaches only this process.
    pub(crate) fn on_signals(
        &self,
        told: impl Fn(Signalled) + Send + 'static,
    ) -> anyhow::Result<()> {
        let handled = [SIGINT, SIGTERM, SIGHUP].into_iter().filter(|signal| !is_ignored(*signal));
        let mut signals = Signals::new(handled).context("signals cannot be handled")?;
        let halt = self.clone();
        thread::Builder::new()
            .name("signals".into())
            .spawn(move || {
                let mut first: Option<Instant> = None;
                for signal in signals.forever() {
                    if halt.cause().is_none() {
                        first = Some(Instant::now());
                        halt.stop(Cause::Signal(signal));
                        told(Signalled::Stop);
                    } else if first.is_none_or(|first| first.elapsed() > ONE_STOP) {
                        told(Signalled::Kill);
                        halt.each(|_| End::Kill);
                        output::over();
                        halt.exit_after(KILL_PATIENCE, signal);
                    }
                }
            })
            .context(
                "no thread to handle signals: a limit of processes is reached (ulimit -u, or pids.max of the cgroup)",
            )?;
        Ok(())
    }

    /// How the run ends because of this; `None` while nothing happened.
    pub(crate) fn failure(&self) -> Option<Failure> {
        self.cause().map(|cause| match cause {
            Cause::Signal(signal) => Failure::silent(outcome_of(*signal)),
            Cause::Output(stream, error) => Failure::of_output(*stream, error),
        })
    }

    /// Looks whether a signal ends everything.
    pub(crate) fn is_interrupted(&self) -> bool {
        matches!(self.cause(), Some(Cause::Signal(_)))
    }

    /// How a call ends that was open when everything was to end; `None` while nothing happened.
    pub(crate) fn cancelled(&self, command: &str) -> Option<Failure> {
        let Cause::Signal(signal) = self.cause()? else { return self.failure() };
        let name = match *signal {
            SIGHUP => "SIGHUP",
            SIGTERM => "SIGTERM",
            _ => "SIGINT",
        };
        let message = format!("{command}: cancelled by {name}");
        Some(Failure::message(outcome_of(*signal), message).of_command(command))
    }

    /// Sets how long the plugins may take to answer and leave once they are stopped.
    pub(crate) fn set_grace(&self, grace: Duration) {
        // Set once, by the command.
        let _ = self.0.grace.set(grace);
    }

    /// Waits for a future on this thread; `None` where everything is to end first.
    pub(crate) fn wait_for<F: Future>(&self, future: F) -> Option<F::Output> {
        let mut future = pin!(future);
        let waker = Waker::from(Arc::new(Unpark(thread::current())));
        let mut context = Context::from_waker(&waker);
        *lock(&self.0.waiting) = Some(thread::current());
        let output = loop {
            // A wake-up between these looks and the park is kept for the park (std::thread::park).
            if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
                break Some(output);
            }
            if self.cause().is_some() {
                break None;
            }
            thread::park();
        };
        *lock(&self.0.waiting) = None;
        output
    }

    /// Takes a plugin along whose process has just been started.
    pub(crate) fn starting(&self, plugin: &Plugin) {
        lock(&self.0.plugins).push(Watched { plugin: plugin.clone(), phase: Phase::Starting });
        // It may have come between the two.
        if self.cause().is_some() {
            self.end(plugin.clone(), End::Kill);
        }
    }

    /// It has started: from now on it is asked to stop first.
    pub(crate) fn started(&self, pid: Pid) {
        for watched in
            lock(&self.0.plugins).iter_mut().filter(|watched| watched.plugin.pid() == pid)
        {
            watched.phase = Phase::Running;
        }
    }

    /// Lets go of all plugins, which have ended, and tells what that took here.
    ///
    /// # Blocking
    /// On the threads that end plugins, which notice that those have ended.
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

    /// Ends everything, since the output is not read any more.
    pub(crate) fn output_failed(&self, stream: Stream, error: WriteError) {
        self.stop(Cause::Output(stream, error));
    }

    fn stop(&self, cause: Cause) {
        // Only the first cause counts.
        if self.0.cause.set(cause).is_ok() {
            output::ending(self.0.grace.get().copied().unwrap_or(Grace::default().stop));
            if let Some(thread) = &*lock(&self.0.waiting) {
                thread.unpark();
            }
            self.each(|phase| match phase {
                Phase::Starting => End::Kill,
                Phase::Running => End::Stop,
            });
        }
    }

    /// Ends the process where the run has not ended by then: something of it waits for what does
    /// not come, such as room in a pipe that another process has filled.
    fn exit_after(&self, patience: Duration, signal: i32) {
        let failure = self.failure();
        thread::sleep(patience);
        let outcome = failure.map_or(outcome_of(signal), |failure| failure.outcome);
        std::process::exit(outcome.code().into());
    }

    fn each(&self, how: impl Fn(Phase) -> End) {
        for watched in lock(&self.0.plugins).iter() {
            self.end(watched.plugin.clone(), how(watched.phase));
        }
    }

    fn cause(&self) -> Option<&Cause> {
        self.0.cause.get()
    }

    fn end(&self, plugin: Plugin, how: End) {
        let run = move || {
            let ended = match how {
                End::Stop => plugin.stop(),
                End::Kill => plugin.kill(),
            };
            match ended {
                Ok(stopped) => stopped.by,
                Err(error) => {
                    tracing::error!(plugin = %plugin.name(), %error, "the plugin could not be ended");
                    StoppedBy::Itself
                }
            }
        };
        match thread::Builder::new().name("end".into()).spawn(run) {
            Ok(thread) => lock(&self.0.ending).push(thread),
            Err(error) => tracing::error!(%error, "no thread to end the plugin"),
        }
    }
}

/// What has plugins that are asked what they are end with everything else.
pub(crate) fn halting(
    halt: &Halt,
) -> impl Fn(PluginBuilder) -> PluginBuilder + Send + Sync + 'static {
    let halt = halt.clone();
    move |builder| {
        let halt = halt.clone();
        builder.on_spawn(move |plugin| halt.starting(plugin))
    }
}

#[derive(Debug, Clone, Copy)]
enum End {
    Stop,
    Kill,
}

/// Wakes a thread that waits for a future.
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

fn outcome_of(signal: i32) -> Outcome {
    match signal {
        SIGHUP => Outcome::HungUp,
        SIGTERM => Outcome::Terminated,
        _ => Outcome::Interrupted,
    }
}

/// Whether whoever started this program wants it to ignore that signal, as nohup(1) does; where
/// there is no `/proc`, that is not known.
fn is_ignored(signal: i32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    mask >> (signal - 1) & 1 == 1
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
