//! What ends a run from outside: Ctrl-C, SIGTERM, a terminal or a reader of our output that went away.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::{self, JoinHandle};

use anyhow::Context as _;
use pipeplug_host::process::Pid;
use pipeplug_host::{Builder, Plugin, StoppedBy};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::exit::{Failure, Outcome};

/// Ends the plugins, which wakes whoever waits for them.
#[derive(Clone, Default)]
pub(crate) struct Halt(Arc<Inner>);

#[derive(Default)]
struct Inner {
    cause: OnceLock<Cause>,
    plugins: Mutex<Vec<Watched>>,
    /// What ends them, on threads of their own: it may take as long as the grace time.
    ending: Mutex<Vec<JoinHandle<StoppedBy>>>,
}

struct Watched {
    plugin: Plugin,
    phase: Phase,
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
    /// Standard output cannot be written.
    Output(io::Error),
}

impl Halt {
    /// Handles SIGINT, SIGTERM and SIGHUP from here on: the first one stops the plugins, the next one kills them.
    ///
    /// Unless they have its stdin they lead process groups of their own, so a terminal's Ctrl-C reaches only this process.
    pub(crate) fn on_signals(&self, on_first: impl Fn() + Send + 'static) -> anyhow::Result<()> {
        let hang_up = (!is_ignored(SIGHUP)).then_some(SIGHUP);
        let mut signals = Signals::new([SIGINT, SIGTERM].into_iter().chain(hang_up))
            .context("signals cannot be handled")?;
        let halt = self.clone();
        thread::Builder::new()
            .name("signals".into())
            .spawn(move || {
                for signal in signals.forever() {
                    if halt.cause().is_none() {
                        on_first();
                        halt.stop(Cause::Signal(signal));
                    } else {
                        halt.each(|_| End::Kill);
                    }
                }
            })
            .context("no thread to handle signals")?;
        Ok(())
    }

    /// How the run ends because of this; `None` while nothing happened.
    pub(crate) fn failure(&self) -> Option<Failure> {
        self.cause().map(|cause| match cause {
            Cause::Signal(SIGHUP) => Failure::silent(Outcome::HungUp),
            Cause::Signal(SIGTERM) => Failure::silent(Outcome::Terminated),
            Cause::Signal(_) => Failure::silent(Outcome::Interrupted),
            Cause::Output(error) => Failure::of_stdout(error),
        })
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
        for watched in lock(&self.0.plugins).iter_mut().filter(|watched| watched.plugin.pid() == pid) {
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
        ending.into_iter().filter_map(|thread| thread.join().ok()).max().unwrap_or(StoppedBy::Itself)
    }

    /// Ends everything, since standard output is gone.
    pub(crate) fn output_failed(&self, error: io::Error) {
        self.stop(Cause::Output(error));
    }

    fn stop(&self, cause: Cause) {
        // Only the first cause counts.
        if self.0.cause.set(cause).is_ok() {
            self.each(|phase| match phase {
                Phase::Starting => End::Kill,
                Phase::Running => End::Stop,
            });
        }
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
pub(crate) fn halting(halt: &Halt) -> impl Fn(Builder) -> Builder + Send + Sync + 'static {
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

/// Whether whoever started this program wants it to ignore that signal, as nohup(1) does; where there is no `/proc`, that
/// is not known.
fn is_ignored(signal: i32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    mask >> (signal - 1) & 1 == 1
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
