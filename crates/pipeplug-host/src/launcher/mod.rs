//! Launchers: start a plugin on this machine, in a container, or on another machine.
//!
//! A [`Launcher`] takes a [`Launch`], which says what to start, and gives a [`Started`]: a
//! [`Process`] to wait for and to signal, and the host's ends of the pipes. [`Exec`] is the
//! default. Most others have a program of this machine, say an `ssh`, carry the plugin's standard
//! input and output to wherever it runs; that program is the process then.
//!
//! ```no_run
//! use pipeplug_host::Plugin;
//! use pipeplug_host::launcher::CommandPrefix;
//!
//! let plugin = Plugin::builder("./plugin").launcher(CommandPrefix::new(["nice", "-n", "10"])).start()?;
//! # Ok::<(), pipeplug_host::StartError>(())
//! ```

#[cfg(target_os = "linux")]
mod attach;
#[cfg(any(feature = "containers", feature = "kubectl"))]
mod cleanup;
mod client;
mod command_prefix;
#[cfg(feature = "containers")]
mod container;
#[cfg(feature = "kubectl")]
mod kubectl;
mod settings;
#[cfg(feature = "ssh")]
mod ssh;

use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

#[cfg(target_os = "linux")]
pub use attach::Attach;
pub use command_prefix::CommandPrefix;
#[cfg(feature = "containers")]
pub use container::{Container, Engine};
#[cfg(feature = "pack")]
pub use container::{PackError, pack};
#[cfg(feature = "kubectl")]
pub use kubectl::{Kubectl, PullPolicy};
#[cfg(feature = "ssh")]
pub use ssh::Ssh;

use crate::process::{
    Child, Delivery, Launch, Leftovers, Pid, Signal, SpawnError, Spawned, WaitStatus,
    poll_readable, spawn,
};

/// Starts plugins, here or elsewhere.
pub trait Launcher: fmt::Debug + Send + Sync + 'static {
    /// Starts a plugin. The plugin need not have answered yet: the host asks for its metadata next.
    ///
    /// # Errors
    /// The plugin was not started, and nothing is left of the attempt. The message says what is
    /// wrong and what to do; [`SpawnError::launcher`] makes one.
    ///
    /// # Blocking
    /// May block on the start.
    fn start(&self, launch: &Launch) -> Result<Started, SpawnError>;

    /// Describes the place in messages, behind the plugin's name: `in a container of "image"`.
    /// `None` for a process of this machine.
    fn describe(&self) -> Option<String>;

    /// Tells whether [`start`](Self::start) enforces [`Launch::sha256`], [`Launch::lock_file`] and
    /// [`Launch::sandbox`]. If it does not, a start that demands one of them fails.
    fn enforces_demands(&self) -> bool {
        false
    }

    /// Explains an end before the plugin has answered the host's first request, where that is not
    /// the plugin's own: the lines are the last ones of its standard error.
    fn diagnose(&self, status: WaitStatus, stderr: &[String]) -> Option<Diagnosis> {
        let _ = (status, stderr);
        None
    }

    /// Explains an end after the plugin has answered, as [`diagnose`](Self::diagnose) does before.
    /// Statuses that say that it could not run mean nothing of the kind then. Default: what
    /// `diagnose` says.
    fn diagnose_end(&self, status: WaitStatus, stderr: &[String]) -> Option<Diagnosis> {
        self.diagnose(status, stderr)
    }

    /// Explains an answer to the host's first request that is no message, where something other
    /// than the plugin wrote it.
    ///
    /// # Blocking
    /// May block on a question to the system that runs the plugin.
    fn diagnose_output(&self) -> Option<Diagnosis> {
        None
    }
}

/// A plugin that has been started.
#[derive(Debug)]
#[non_exhaustive]
pub struct Started {
    /// Process that is waited for and signalled.
    pub process: Box<dyn Process>,
    /// The host's end of the pipe to the plugin. The host sets `O_NONBLOCK` on it, so no other
    /// process may share it.
    pub to_guest: OwnedFd,
    /// The host's end of the pipe from the plugin; as for [`to_guest`](Self::to_guest).
    pub from_guest: OwnedFd,
    /// Standard error of the plugin, if it comes here.
    pub stderr: Option<OwnedFd>,
    /// Standard output of the plugin, if it is logged.
    pub stdout: Option<OwnedFd>,
}

impl Started {
    /// Makes a started plugin without streams of its own.
    #[must_use]
    pub fn new(process: impl Process, to_guest: OwnedFd, from_guest: OwnedFd) -> Self {
        Self { process: Box::new(process), to_guest, from_guest, stderr: None, stdout: None }
    }
}

impl From<Spawned> for Started {
    fn from(spawned: Spawned) -> Self {
        let Spawned { child, to_guest, from_guest, stderr, stdout } = spawned;
        Self { process: Box::new(child), to_guest, from_guest, stderr: Some(stderr), stdout }
    }
}

/// A plugin's process on this machine: the plugin itself, or the client that carries its pipes to
/// where it runs.
///
/// All methods may be called from any thread, at the same time. Dropping it ends the plugin, if it
/// is the host's to end.
pub trait Process: fmt::Debug + Send + Sync + 'static {
    /// Process id.
    fn pid(&self) -> Pid;

    /// A descriptor that becomes readable once the process has ended, and stays so. The host polls
    /// it, and never reads from it.
    fn exit_fd(&self) -> BorrowedFd<'_>;

    /// Exit status; `None` while the process runs. A process that the host has let go of
    /// ([`Delivery::NotOurs`]) counts as ended. Does not block, and does not reap: signals still
    /// reach the rest of the group.
    ///
    /// # Errors
    /// A system call failed.
    fn peek(&self) -> io::Result<Option<WaitStatus>>;

    /// Like [`peek`](Process::peek), and releases what the system keeps of the process. No signal
    /// reaches it any more.
    ///
    /// # Errors
    /// A system call failed.
    fn reap(&self) -> io::Result<Option<WaitStatus>>;

    /// Sends a signal to the process and to what it started.
    ///
    /// # Errors
    /// A system call failed. A process that is gone is no error.
    ///
    /// # Blocking
    /// On the system that runs the plugin elsewhere, at most 15 seconds.
    fn signal(&self, signal: Signal) -> io::Result<Delivery>;

    /// Number of the signal that has stopped the process, until a `SIGCONT` follows. `None` if it
    /// is not stopped, or if that is not known here.
    fn stopped_by(&self) -> Option<i32> {
        None
    }

    /// Extra time until the exit status is known, after the end of the pipe. Open calls wait that
    /// long before they fail, so that their error has the status. Default: none.
    fn end_timeout(&self) -> Duration {
        Duration::ZERO
    }

    /// Meaning of the exit status, for a process that knows more than [`Launcher::diagnose`] is
    /// told. `stderr` has the last lines of standard error. Called once the process has ended; does
    /// not block.
    fn diagnose(&self, status: WaitStatus, stderr: &[String]) -> Option<Diagnosis> {
        let _ = (status, stderr);
        None
    }

    /// Finds a demand of the host that is not met where the plugin runs. It fails the start.
    /// `stderr` has the first lines of standard error. Called once the plugin has answered; does
    /// not block.
    fn unmet(&self, stderr: &[String]) -> Option<Diagnosis> {
        let _ = stderr;
        None
    }

    /// Records the processes that the plugin has started, for [`left`](Process::left). Called when
    /// its stop begins.
    fn note_descendants(&self) {}

    /// Recorded processes that still run after the end of the plugin, out of reach.
    ///
    /// # Blocking
    /// Some milliseconds.
    fn left(&self) -> Vec<Pid> {
        Vec::new()
    }

    /// Waits for the end of the process and reaps it. `None` after `timeout`.
    ///
    /// # Errors
    /// A system call failed.
    ///
    /// # Blocking
    /// At most `timeout`.
    fn wait_timeout(&self, timeout: Duration) -> io::Result<Option<WaitStatus>> {
        if poll_readable(self.exit_fd(), timeout)? { self.reap() } else { Ok(None) }
    }
}

impl Process for Child {
    fn pid(&self) -> Pid {
        Self::pid(self)
    }

    fn exit_fd(&self) -> BorrowedFd<'_> {
        Self::exit_fd(self)
    }

    fn peek(&self) -> io::Result<Option<WaitStatus>> {
        Self::peek(self)
    }

    fn reap(&self) -> io::Result<Option<WaitStatus>> {
        Self::reap(self, Leftovers::Kill)
    }

    fn signal(&self, signal: Signal) -> io::Result<Delivery> {
        let delivery = self.signal_group(signal);
        if signal == Signal::Terminate {
            // A stopped process takes no notice before it goes on, and then of this first:
            // signal(7). Where the first one was not sent, this is not either.
            let _ = self.signal_group(Signal::Continue);
        }
        delivery
    }

    fn stopped_by(&self) -> Option<i32> {
        Self::stopped_by(self)
    }

    fn note_descendants(&self) {
        Self::note_descendants(self);
    }

    fn left(&self) -> Vec<Pid> {
        Self::left(self)
    }
}

/// Meaning of a plugin's exit status, as its launcher knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Diagnosis {
    /// The problem and what to do. The text follows a colon.
    pub problem: String,
    /// True if another start would fail the same way.
    pub is_permanent: bool,
}

impl Diagnosis {
    /// Diagnosis of a problem that has to be repaired before another start.
    pub fn permanent(problem: impl Into<String>) -> Self {
        Self { problem: problem.into(), is_permanent: true }
    }

    /// Diagnosis of a problem that may pass.
    pub fn passing(problem: impl Into<String>) -> Self {
        Self { problem: problem.into(), is_permanent: false }
    }
}

/// Runs a plugin as a process of this machine: the default.
#[derive(Debug, Clone, Copy, Default)]
pub struct Exec;

impl Launcher for Exec {
    fn start(&self, launch: &Launch) -> Result<Started, SpawnError> {
        spawn(launch).map(Started::from)
    }

    fn describe(&self) -> Option<String> {
        None
    }

    fn enforces_demands(&self) -> bool {
        true
    }
}

/// A process as a descriptor to watch.
pub(crate) struct ExitFd(pub(crate) std::sync::Arc<dyn Process>);

impl AsFd for ExitFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.exit_fd()
    }
}
