//! The end of a plugin, step by step.

use std::fmt;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use pipeplug_net::wire::command;
use pipeplug_net::{Connection, Payload};

use crate::launcher::Process;
use crate::plugin::output::Output;
use crate::process::{Delivery, Pid, Signal, WaitStatus};

/// Time for the system to take a killed process down.
const KILL_TIMEOUT: Duration = Duration::from_secs(5);

/// Time for each step of stopping a plugin, before the next one.
///
/// A plugin that ends earlier is not waited for any longer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Grace {
    /// After `cmd.stop`: time to answer what was asked and leave. Default: 5 seconds.
    pub stop: Duration,
    /// After the end of file on its pipe. Default: 1 second.
    pub end_of_file: Duration,
    /// After SIGTERM to its process group; SIGKILL follows. Default: 2 seconds.
    pub term: Duration,
}

impl Default for Grace {
    fn default() -> Self {
        Self {
            stop: Duration::from_secs(5),
            end_of_file: Duration::from_secs(1),
            term: Duration::from_secs(2),
        }
    }
}

impl Grace {
    /// The same time for each step.
    #[must_use]
    pub fn each(time: Duration) -> Self {
        Self { stop: time, end_of_file: time, term: time }
    }
}

/// Result of stopping a plugin.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stopped {
    /// Exit status.
    pub status: WaitStatus,
    /// The step that ended the plugin.
    pub by: StoppedBy,
    /// Processes that it had started, and these had, which still run and are out of reach: they
    /// left its process group, as daemons do by setsid(2), or changed their user. Those that it had
    /// when its stop began, on Linux.
    pub left: Vec<Pid>,
    /// Streams that were still open a moment after the end of the plugin. A process that the plugin
    /// started has them, such as a daemon that keeps standard error. If known, that process is in
    /// [`left`](Self::left).
    pub held: Vec<Output>,
}

impl Stopped {
    fn alone(status: WaitStatus, by: StoppedBy) -> Self {
        Self { status, by, left: Vec::new(), held: Vec::new() }
    }

    /// Result for a process that had ended before.
    fn again(process: &dyn Process, status: WaitStatus, last: &LastStep) -> Self {
        let by = last.ended_by();
        // Those that an earlier stop has recorded, and has told of.
        let left = if by == StoppedBy::Itself { Vec::new() } else { process.left() };
        Self { left, ..Self::alone(status, by) }
    }

    /// Collects the recorded processes that are left.
    fn of(process: &dyn Process, status: WaitStatus, by: StoppedBy) -> Self {
        let left = process.left();
        if !left.is_empty() {
            let processes: Vec<_> = left.iter().map(|pid| pid.as_raw()).collect();
            tracing::warn!(
                target: "pipeplug::left",
                pid = %process.pid(), ?processes, "the plugin has ended, and processes that it \
                                                   started run on"
            );
        }
        Self { status, by, left, held: Vec::new() }
    }
}

/// The step that stopped a plugin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum StoppedBy {
    /// The plugin had ended already, or closed its pipe and ended, before any stop.
    Itself,
    /// The request to stop (`cmd.stop`).
    Stop,
    /// The end of its input: the host closed the pipe.
    EndOfFile,
    /// SIGTERM.
    Term,
    /// SIGKILL.
    Kill,
    /// None: the plugin may still run, and belongs to its own parent.
    LetGo,
}

impl fmt::Display for StoppedBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Itself => "ended by itself",
            Self::Stop => "stopped when asked",
            Self::EndOfFile => "stopped at the end of its input",
            Self::Term => "stopped by SIGTERM",
            Self::Kill => "stopped by SIGKILL",
            Self::LetGo => "left running, since another program started it",
        })
    }
}

/// The latest step that a stop has begun: that one ends the plugin. Each stop that follows tells
/// it.
#[derive(Debug, Default)]
pub(crate) struct LastStep(Mutex<Option<StoppedBy>>);

impl LastStep {
    /// Notes a step before it is taken: the process may end right behind it, on another thread's
    /// watch.
    fn begin(&self, step: StoppedBy) {
        let mut last = self.lock();
        *last = (*last).max(Some(step));
    }

    /// Takes a step back that could not be taken.
    fn withdraw(&self, step: StoppedBy) {
        let mut last = self.lock();
        if *last == Some(step) {
            *last = None;
        }
    }

    /// The step that has ended a process that has ended. `Itself` if no stop had begun.
    pub(crate) fn ended_by(&self) -> StoppedBy {
        self.lock().unwrap_or(StoppedBy::Itself)
    }

    fn lock(&self) -> MutexGuard<'_, Option<StoppedBy>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Error of stopping a plugin.
#[derive(Debug, thiserror::Error)]
#[error("process {pid} {kind}")]
pub struct StopError {
    pid: Pid,
    kind: StopErrorKind,
}

/// Kind of a [`StopError`]. Its text continues a message that begins with the process id.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StopErrorKind {
    /// The system did not take it down.
    #[error("is still there {after:?} after SIGKILL: it waits within the system, as for a disk")]
    StillThere {
        /// Time waited.
        after: Duration,
    },
    /// The system failed.
    #[error("cannot be waited for or signalled: {error}")]
    System {
        /// Error of the system.
        error: io::Error,
    },
}

impl StopError {
    fn system(process: &dyn Process, error: io::Error) -> Self {
        Self { pid: process.pid(), kind: StopErrorKind::System { error } }
    }

    /// Process id of the plugin.
    #[must_use]
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// Kind of the error.
    #[must_use]
    pub fn kind(&self) -> &StopErrorKind {
        &self.kind
    }
}

/// Goes through the steps until the process has ended.
pub(crate) fn stop(
    connection: &Connection,
    process: &dyn Process,
    grace: Grace,
    last: &LastStep,
) -> Result<Stopped, StopError> {
    let wait = |time| wait(process, time);
    if let Some(status) = wait(Duration::ZERO)? {
        return Ok(Stopped::again(process, status, last));
    }
    process.note_descendants();
    last.begin(StoppedBy::Stop);
    if connection.notify_by_protocol(command::STOP, Payload::from("")).is_ok() {
        if let Some(status) = wait(grace.stop)? {
            return Ok(Stopped::of(process, status, last.ended_by()));
        }
    } else {
        last.withdraw(StoppedBy::Stop);
        if let Some(status) = wait(grace.end_of_file)? {
            // It had closed its pipe, and was on its way.
            return Ok(Stopped::of(process, status, last.ended_by()));
        }
    }
    // It may have started some meanwhile.
    process.note_descendants();
    last.begin(StoppedBy::EndOfFile);
    connection.close();
    if let Some(status) = wait(grace.end_of_file)? {
        return Ok(Stopped::of(process, status, last.ended_by()));
    }
    last.begin(StoppedBy::Term);
    if let Some(let_go) = signal(process, Signal::Terminate)? {
        return Ok(let_go);
    }
    if let Some(status) = wait(grace.term)? {
        return Ok(Stopped::of(process, status, last.ended_by()));
    }
    kill(process, last)
}

/// Ends the process group at once.
pub(crate) fn kill(process: &dyn Process, last: &LastStep) -> Result<Stopped, StopError> {
    if let Some(status) = wait(process, Duration::ZERO)? {
        return Ok(Stopped::again(process, status, last));
    }
    process.note_descendants();
    last.begin(StoppedBy::Kill);
    if let Some(let_go) = signal(process, Signal::Kill)? {
        return Ok(let_go);
    }
    let begun = Instant::now();
    match wait(process, KILL_TIMEOUT)? {
        Some(status) => Ok(Stopped::of(process, status, last.ended_by())),
        None => {
            let kind = StopErrorKind::StillThere { after: begun.elapsed() };
            Err(StopError { pid: process.pid(), kind })
        }
    }
}

fn wait(process: &dyn Process, time: Duration) -> Result<Option<WaitStatus>, StopError> {
    process.wait_timeout(time).map_err(|error| StopError::system(process, error))
}

/// Sends it, and tells what has come of a process that is not ours to signal.
fn signal(process: &dyn Process, signal: Signal) -> Result<Option<Stopped>, StopError> {
    match process.signal(signal) {
        Ok(Delivery::Sent | Delivery::Gone) => Ok(None),
        Ok(Delivery::NotOurs) => Ok(Some(Stopped::alone(WaitStatus::Unknown, StoppedBy::LetGo))),
        Err(error) => Err(StopError::system(process, error)),
    }
}
