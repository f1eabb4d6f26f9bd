//! Where a plugin runs: on this machine, in a container, on another one.
//!
//! A [`Launcher`] takes a [`Launch`], which says what to start, and gives a [`Started`]: a
//! [`Process`] to wait for and to signal, and the host's ends of the pipes. [`Exec`] is the
//! default. Most others have a program of this machine, say an `ssh`, carry the plugin's standard
//! input and output to wherever it runs; that program is the process then.
//!
//! ```no_run
//! use pipeplug_host::Plugin;
//! use pipeplug_host::launcher::Via;
//!
//! let plugin = Plugin::builder("./plugin").launcher(Via::new(["nice", "-n", "10"])).start()?;
//! # Ok::<(), pipeplug_host::StartError>(())
//! ```

#[cfg(target_os = "linux")]
mod attach;
mod carrier;
#[cfg(feature = "containers")]
mod container;
#[cfg(any(feature = "containers", feature = "kubectl"))]
mod guard;
#[cfg(feature = "kubectl")]
mod kubectl;
mod settings;
#[cfg(feature = "ssh")]
mod ssh;
mod via;

use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

#[cfg(target_os = "linux")]
pub use attach::Attach;
#[cfg(feature = "containers")]
pub use container::{Container, Engine};
#[cfg(feature = "pack")]
pub use container::{PackError, pack};
#[cfg(feature = "kubectl")]
pub use kubectl::{Kubectl, PullPolicy};
#[cfg(feature = "ssh")]
pub use ssh::Ssh;
pub use via::Via;

use crate::process::{
    Child, Delivery, Launch, Leftovers, Pid, Signal, SpawnError, Spawned, poll_readable, spawn,
};
use crate::wait_status::WaitStatus;

/// What starts plugins, and where.
pub trait Launcher: fmt::Debug + Send + Sync + 'static {
    /// Starts one. It need not have said anything yet: the host asks it for its metadata next.
    ///
    /// # Errors
    /// Each says what is wrong and what to do; nothing may be left of the attempt.
    /// [`SpawnError::place`] makes one.
    ///
    /// # Blocking
    /// It may, on whatever starting takes.
    fn start(&self, launch: &Launch) -> Result<Started, SpawnError>;

    /// Where that is, to stand behind a plugin's name in messages: `in a container of "image"`.
    /// `None` where it is a process of this machine, as everybody expects.
    fn describe(&self) -> Option<String>;

    /// Whether [`start`](Self::start) sees to what the host demands of a start: [`Launch::sha256`],
    /// [`Launch::lock_file`] and [`Launch::sandbox`]. Where it does not, a host that demands one of
    /// them is refused.
    fn sees_to_demands(&self) -> bool {
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
    /// It may, on a question to the place.
    fn diagnose_output(&self) -> Option<Diagnosis> {
        None
    }
}

/// A plugin that has been started.
#[derive(Debug)]
#[non_exhaustive]
pub struct Started {
    /// What is waited for and signalled.
    pub process: Box<dyn Process>,
    /// What the plugin reads is written to it. It is read and written without blocking
    /// (`O_NONBLOCK` is set on it), so nobody else may have it.
    pub to_guest: OwnedFd,
    /// What the plugin writes comes from it; as for [`to_guest`](Self::to_guest).
    pub from_guest: OwnedFd,
    /// Its standard error, where it comes here.
    pub stderr: Option<OwnedFd>,
    /// Its standard output, where that is logged.
    pub stdout: Option<OwnedFd>,
}

impl Started {
    /// One without streams of its own.
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

/// What stands for a plugin on this machine: its process, or the one that carries its pipes to
/// where it runs.
///
/// All methods may be called from any thread, at the same time. Dropping it ends the plugin, if it
/// is the host's to end.
pub trait Process: fmt::Debug + Send + Sync + 'static {
    /// Its process id.
    fn pid(&self) -> Pid;

    /// A descriptor that becomes readable once it has ended, and stays so. Nobody reads from it.
    fn exit_fd(&self) -> BorrowedFd<'_>;

    /// How it ended; `None` while it runs. One that has been let go of ([`Delivery::NotOurs`])
    /// counts as ended. Does not block, and takes nothing away: signals still reach what it left.
    ///
    /// # Errors
    /// What the system says.
    fn peek(&self) -> io::Result<Option<WaitStatus>>;

    /// As [`peek`](Process::peek), and gives the system back what is left of it; no signal reaches
    /// it any more.
    ///
    /// # Errors
    /// What the system says.
    fn reap(&self) -> io::Result<Option<WaitStatus>>;

    /// Sends a signal to it and to what it started.
    ///
    /// # Errors
    /// What the system says; that it is gone is none.
    ///
    /// # Blocking
    /// On what runs it elsewhere, where that has to be asked; for 15 seconds at most.
    fn signal(&self, signal: Signal) -> io::Result<Delivery>;

    /// The number of the signal that has stopped it and that a `SIGCONT` has not followed; `None`
    /// where it is not stopped, or where that is not known here.
    fn stopped_by(&self) -> Option<i32> {
        None
    }

    /// How long its end may take to be known here once nothing comes from it any more. Calls that
    /// its end fails wait for that before they fail, so that they can tell of it. Default: as long
    /// as a process of this machine takes.
    fn end_patience(&self) -> Duration {
        Duration::ZERO
    }

    /// The meaning of its end, where more is known of it than [`Launcher::diagnose`] is told; the
    /// lines are the last ones of its standard error. Called once it has ended; does not block.
    fn diagnose(&self, status: WaitStatus, stderr: &[String]) -> Option<Diagnosis> {
        let _ = (status, stderr);
        None
    }

    /// A demand of the host that the place has said it does not meet, and that fails the start; the
    /// lines are the first ones of its standard error. Called once the plugin has answered; does
    /// not block.
    fn unmet(&self, stderr: &[String]) -> Option<Diagnosis> {
        let _ = stderr;
        None
    }

    /// Takes note of what it has started, for [`left`](Process::left): its stop begins.
    fn note_descendants(&self) {}

    /// Processes that were noted and still run once it has ended, out of reach.
    ///
    /// # Blocking
    /// For a moment at the most.
    fn left(&self) -> Vec<Pid> {
        Vec::new()
    }

    /// Waits for its end and reaps it; `None` once the time is over.
    ///
    /// # Errors
    /// What the system says.
    ///
    /// # Blocking
    /// For `timeout` at most.
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

/// What the end of a plugin means where it runs.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Diagnosis {
    /// What went wrong and what to do, to stand behind a colon.
    pub problem: String,
    /// Whether another start would end no better.
    pub is_permanent: bool,
}

impl Diagnosis {
    /// Something to be mended ahead of another start.
    pub fn permanent(problem: impl Into<String>) -> Self {
        Self { problem: problem.into(), is_permanent: true }
    }

    /// Something that may be another matter in a moment.
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

    fn sees_to_demands(&self) -> bool {
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
