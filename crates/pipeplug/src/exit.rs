//! What the program exits with, and the errors that end it.

use std::fmt;
use std::io;
use std::process::ExitCode;

use pipeplug_host::Postmortem;
use pipeplug_host::{CallError, Crash, Ended, StartError, WaitStatus, process::SpawnError};

use crate::args::sandbox::Level;
use crate::output::stream::{Stream, WriteError};

/// All was well.
pub(crate) const SUCCESS: u8 = 0;
/// A call failed, stdout could not be written, or a plugin not be added or removed.
pub(crate) const FAILED: u8 = 1;
/// The command line cannot be understood; clap's too.
pub(crate) const USAGE: u8 = 2;
/// There is no such plugin.
pub(crate) const NOT_FOUND: u8 = 3;
/// The plugin is there and did not start.
pub(crate) const NOT_STARTED: u8 = 4;
/// The plugin ended, or its connection did, while it was in use.
pub(crate) const DIED: u8 = 5;
/// Something took longer than `--timeout`; timeout(1) has the same.
pub(crate) const TIMED_OUT: u8 = 124;
/// 128 and the number of SIGHUP, as shells have it.
pub(crate) const HUNG_UP: u8 = 129;
/// 128 and the number of SIGINT.
pub(crate) const INTERRUPTED: u8 = 130;
/// 128 and the number of SIGTERM.
pub(crate) const TERMINATED: u8 = 143;

/// The part of the help that says what the program exits with.
pub(crate) const HELP: &str = "\
Exit status:
  0    all went well; also where whoever reads stdout, such as head, has
       seen enough
  1    a call failed: the plugin answered with an error; stdout cannot be
       written; or a plugin could not be added or removed
  2    the command line is wrong, or a DATA file cannot be read
  3    there is no such plugin
  4    the plugin did not start
  5    the plugin ended, or broke the connection, while it was in use
  124  a call, the start, or a wait for the output to be read took longer
       than --timeout
  130  interrupted by Ctrl-C (129: by SIGHUP, as its terminal was closed;
       143: by SIGTERM)";

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ExitReason {
    Success,
    Failed,
    Usage,
    NotFound,
    NotStarted,
    Died,
    TimedOut,
    HungUp,
    Interrupted,
    Terminated,
}

impl ExitReason {
    pub(crate) const fn code(self) -> u8 {
        match self {
            Self::Success => SUCCESS,
            Self::Failed => FAILED,
            Self::Usage => USAGE,
            Self::NotFound => NOT_FOUND,
            Self::NotStarted => NOT_STARTED,
            Self::Died => DIED,
            Self::TimedOut => TIMED_OUT,
            Self::HungUp => HUNG_UP,
            Self::Interrupted => INTERRUPTED,
            Self::Terminated => TERMINATED,
        }
    }
}

impl From<ExitReason> for ExitCode {
    fn from(reason: ExitReason) -> Self {
        Self::from(reason.code())
    }
}

/// Why a command ends early.
#[derive(Debug)]
pub(crate) struct CommandError {
    pub(crate) reason: ExitReason,
    /// What to tell; `None` where the user knows, having pressed Ctrl-C or closed the pipe.
    pub(crate) error: Option<anyhow::Error>,
    /// The call that failed.
    pub(crate) command: Option<String>,
    /// The last lines of the plugin's standard error; they have been shown already unless the
    /// output is JSON.
    pub(crate) stderr: Vec<String>,
    /// What is known of the plugin's end, if it is that.
    pub(crate) crash: Option<Box<Crashed>>,
}

/// How a plugin ended, and what was going on.
#[derive(Debug)]
pub(crate) struct Crashed {
    pub(crate) crash: Crash,
    pub(crate) postmortem: Postmortem,
}

impl Crashed {
    /// What an error of one of its calls tells.
    fn of(error: &impl Ended) -> Option<Box<Self>> {
        let (crash, postmortem) = (Crash::of(error)?.clone(), error.postmortem()?.clone());
        Some(Box::new(Self { crash, postmortem }))
    }
}

impl CommandError {
    pub(crate) fn new(reason: ExitReason, error: impl Into<anyhow::Error>) -> Self {
        Self { reason, error: Some(error.into()), command: None, stderr: Vec::new(), crash: None }
    }

    pub(crate) fn message(reason: ExitReason, message: impl fmt::Display) -> Self {
        Self::new(reason, anyhow::Error::msg(message.to_string()))
    }

    pub(crate) fn silent(reason: ExitReason) -> Self {
        Self { reason, error: None, command: None, stderr: Vec::new(), crash: None }
    }

    /// The plugin ended with a call under way; `since` is what is known now of a process that still
    /// ran then.
    pub(crate) fn of_end(error: impl Ended + fmt::Display, since: Option<WaitStatus>) -> Self {
        let crash = Crashed::of(&error);
        let message = match (crash.as_ref().and_then(|crashed| crashed.crash.status), since) {
            (Some(_), _) => error.to_string(),
            (None, Some(status)) => format!("{error}\n  it has ended since: {status}"),
            (None, None) => format!("{error}\n  it still runs, and is stopped"),
        };
        Self { crash, ..Self::message(ExitReason::Died, message) }
    }

    /// Something could not be written. A reader of stdout may have read enough, which is no error
    /// (`pipeplug … | head -1`).
    pub(crate) fn of_output(stream: Stream, error: &WriteError) -> Self {
        let name = match stream {
            Stream::Stdout => "stdout",
            Stream::Stderr => "stderr",
        };
        let reason = match error {
            WriteError::System(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                return Self::silent(ExitReason::Success);
            }
            WriteError::NotRead(_) => ExitReason::TimedOut,
            WriteError::System(_) | WriteError::GivenUp => ExitReason::Failed,
        };
        Self::message(reason, format!("{name} cannot be written: {error}"))
    }

    /// A plugin did not start, in a sandbox of that level.
    pub(crate) fn of_start(error: StartError, level: Level) -> Self {
        let Some(hint) = level.hint(&error) else { return error.into() };
        let message = format!("{error}; {hint}");
        Self { error: Some(anyhow::Error::msg(message)), ..error.into() }
    }

    /// The same with more at the end of its message.
    pub(crate) fn followed_by(self, more: &str) -> Self {
        if more.is_empty() {
            return self;
        }
        let error = self.error.map(|error| anyhow::Error::msg(format!("{error:#}{more}")));
        Self { error, ..self }
    }

    pub(crate) fn of_command(self, command: &str) -> Self {
        Self { command: Some(command.to_owned()), ..self }
    }
}

impl From<StartError> for CommandError {
    fn from(error: StartError) -> Self {
        let reason = match &error {
            StartError::Spawn(SpawnError::NotFound { .. } | SpawnError::NotADirectory { .. }) => {
                ExitReason::NotFound
            }
            StartError::HandshakeTimeout { .. } => ExitReason::TimedOut,
            _ => ExitReason::NotStarted,
        };
        Self::new(reason, error)
    }
}

/// What a failed call means for the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CallFault {
    /// The plugin goes on, and so do the calls.
    Refused,
    /// There is nobody to call any more.
    Died,
    /// The plugin is given up.
    TimedOut,
}

impl CallFault {
    pub(crate) fn of(error: &CallError) -> Self {
        match error {
            CallError::Closed { .. } => Self::Died,
            CallError::TimedOut { .. } | CallError::NotSent { .. } => Self::TimedOut,
            // The plugin's answer, what was wrong with the answer, or what was wrong with the
            // question.
            _ => Self::Refused,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn help_lists_every_status() {
        let all = [
            ExitReason::Success,
            ExitReason::Failed,
            ExitReason::Usage,
            ExitReason::NotFound,
            ExitReason::NotStarted,
            ExitReason::Died,
            ExitReason::TimedOut,
            ExitReason::Interrupted,
        ];
        for reason in all {
            let code = format!("  {:<3}  ", reason.code());
            assert!(HELP.lines().any(|line| line.starts_with(&code)), "{reason:?}");
        }
        assert!(HELP.contains("129") && HELP.contains("143"));
    }
}
