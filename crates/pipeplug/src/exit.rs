//! Exit statuses of the program, and the errors that lead to them.

use std::fmt;
use std::io;
use std::process::ExitCode;

use pipeplug_host::Postmortem;
use pipeplug_host::discovery::nearest_name;
use pipeplug_host::{
    CallError, Crash, Ended, StartError, StartErrorKind, WaitStatus, failure_code,
    process::SpawnErrorKind,
};
use serde_json::Value;

use crate::args::sandbox::Level;
use crate::output::stream::{Stream, WriteError};
use crate::output::text::Escaped;

/// Success.
pub(crate) const SUCCESS: u8 = 0;
/// A call failed, stdout could not be written, or a plugin could not be added or removed.
pub(crate) const FAILED: u8 = 1;
/// The command line is wrong. Clap uses the same status.
pub(crate) const USAGE: u8 = 2;
/// There is no such plugin.
pub(crate) const NOT_FOUND: u8 = 3;
/// The plugin exists and did not start.
pub(crate) const NOT_STARTED: u8 = 4;
/// The plugin ended, or its connection did, while it was in use.
pub(crate) const DIED: u8 = 5;
/// The input of `chunk` is broken.
pub(crate) const BROKEN: u8 = 6;
/// Something took longer than `--timeout`. timeout(1) uses the same status.
pub(crate) const TIMED_OUT: u8 = 124;
/// 128 plus the number of SIGHUP, as in shells.
pub(crate) const HUNG_UP: u8 = 129;
/// 128 plus the number of SIGINT.
pub(crate) const INTERRUPTED: u8 = 130;
/// 128 plus the number of SIGTERM.
pub(crate) const TERMINATED: u8 = 143;

/// Section of the help about exit statuses.
pub(crate) const HELP: &str = "\
Exit status:
  0    success; also if the reader of stdout, such as head, closed the pipe
  1    a call failed: the plugin answered with an error; or stdout could not
       be written; or a plugin could not be added or removed
  2    the command line is wrong, a DATA file cannot be read, or arguments do not
       fit a typed service
  3    there is no such plugin
  4    the plugin did not start
  5    the plugin ended, or broke the connection, while it was in use
  6    the stdin of `chunk` is broken, or ends inside a chunk
  124  a call, the start, or a wait for the output to be read took longer
       than --timeout
  130  interrupted by Ctrl-C (129: by SIGHUP, the terminal was closed;
       143: by SIGTERM)";

/// Reason that a command ended, which gives the exit status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ExitReason {
    Success,
    Failed,
    Usage,
    NotFound,
    NotStarted,
    Died,
    Broken,
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
            Self::Broken => BROKEN,
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

/// Error that ends a command, with its exit status and context.
#[derive(Debug)]
pub(crate) struct CommandError {
    pub(crate) reason: ExitReason,
    /// The message. `None` if the user knows: Ctrl-C was pressed, or the reader closed the pipe.
    pub(crate) error: Option<anyhow::Error>,
    /// Lines that follow the message in a text for people: the next step, or the input around a
    /// mistake.
    pub(crate) notes: Vec<String>,
    /// Command of the call that failed.
    pub(crate) command: Option<String>,
    /// Number of the line that the call had its data from.
    pub(crate) line: Option<u64>,
    /// Code and data of the error of a call, if it has a code.
    pub(crate) coded: Option<Box<Coded>>,
    /// Last lines of the plugin's stderr. With text output they have been shown already.
    pub(crate) stderr: Vec<String>,
    /// Details of the plugin's end, if that is the error.
    pub(crate) crash: Option<Box<Crashed>>,
}

/// Code and data of the error of a call.
#[derive(Debug)]
pub(crate) struct Coded {
    pub(crate) code: String,
    pub(crate) data: Option<Value>,
    /// True if the plugin gave it. Else the message says what the code says.
    pub(crate) is_plugins: bool,
}

/// End of a plugin, and the calls and chunks before it.
#[derive(Debug)]
pub(crate) struct Crashed {
    pub(crate) crash: Crash,
    pub(crate) postmortem: Postmortem,
}

impl Crashed {
    /// Takes the details from the error of a call.
    fn of(error: &impl Ended) -> Option<Box<Self>> {
        let (crash, postmortem) = (Crash::of(error)?.clone(), error.postmortem()?.clone());
        Some(Box::new(Self { crash, postmortem }))
    }
}

impl CommandError {
    pub(crate) fn new(reason: ExitReason, error: impl Into<anyhow::Error>) -> Self {
        Self { error: Some(error.into()), ..Self::silent(reason) }
    }

    pub(crate) fn message(reason: ExitReason, message: impl fmt::Display) -> Self {
        Self::new(reason, anyhow::Error::msg(message.to_string()))
    }

    pub(crate) fn silent(reason: ExitReason) -> Self {
        let (error, command, coded, crash) = (None, None, None, None);
        let (notes, stderr) = (Vec::new(), Vec::new());
        Self { reason, error, notes, command, line: None, coded, stderr, crash }
    }

    /// Makes the error of a plugin that ended during a call. `since` is the wait status of a
    /// process that still ran when the connection ended, if it has ended by now.
    pub(crate) fn of_end(error: impl Ended + fmt::Display, since: Option<WaitStatus>) -> Self {
        let crash = Crashed::of(&error);
        let message = match (crash.as_ref().and_then(|crashed| crashed.crash.status), since) {
            (Some(_), _) => error.to_string(),
            (None, Some(status)) => format!("{error}\n  it has ended since: {status}"),
            (None, None) => format!("{error}\n  it still runs, and is stopped"),
        };
        Self { crash, ..Self::message(ExitReason::Died, message) }
    }

    /// Adds the code and the data of the error of a call.
    pub(crate) fn of_call(self, error: &CallError) -> Self {
        let coded = error.code().map(|code| Coded {
            code: code.into(),
            data: error.data().cloned(),
            is_plugins: matches!(error, CallError::Remote { .. }),
        });
        Self {
            coded: coded.map(Box::new),
            notes: unknown_command(error).into_iter().collect(),
            ..self
        }
    }

    /// Makes the error of a failed write. A reader that closes the pipe is no error
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

    /// Makes the error of a failed start in a sandbox of this level.
    pub(crate) fn of_start(error: StartError, level: Level) -> Self {
        let hint = level.hint(&error).map(|hint| hint.to_string());
        Self::from(error).followed_by(hint.as_deref())
    }

    /// Appends advice to the message: behind a semicolon, or as a sentence behind a question.
    pub(crate) fn followed_by(self, advice: Option<&str>) -> Self {
        let Some(advice) = advice else { return self };
        let error = self.error.map(|error| {
            let message = format!("{error:#}");
            anyhow::Error::msg(if message.ends_with('?') {
                format!("{message} {}", capitalized(advice))
            } else {
                format!("{message}; {advice}")
            })
        });
        Self { error, ..self }
    }

    /// Adds the line that the call had its data from.
    pub(crate) fn at(self, line: Option<u64>) -> Self {
        Self { line, ..self }
    }

    pub(crate) fn of_command(self, command: &str) -> Self {
        Self { command: Some(command.to_owned()), ..self }
    }
}

impl From<StartError> for CommandError {
    fn from(error: StartError) -> Self {
        let reason = match error.kind() {
            StartErrorKind::Spawn(
                SpawnErrorKind::NotFound { .. } | SpawnErrorKind::NotADirectory { .. },
            ) => ExitReason::NotFound,
            StartErrorKind::HandshakeTimeout { .. } => ExitReason::TimedOut,
            _ => ExitReason::NotStarted,
        };
        Self::new(reason, error)
    }
}

/// Next step after a call of a command that does not exist. A plugin may name its commands in the data
/// of the failure (docs/protocol.md, "Failures").
fn unknown_command(error: &CallError) -> Option<String> {
    let CallError::Remote { command, code, data, .. } = error else { return None };
    if code.as_deref() != Some(failure_code::UNKNOWN_COMMAND) {
        return None;
    }
    Some(known_commands(command, data.as_deref()))
}

/// Commands that the data of such a failure names: the nearest one, or all.
pub(crate) fn known_commands(command: &str, data: Option<&Value>) -> String {
    let known = data.and_then(|data| data.get("commands")?.as_array());
    let known: Vec<_> = known.into_iter().flatten().filter_map(Value::as_str).collect();
    match (nearest_name(command, known.iter().copied()), known.as_slice()) {
        (Some(nearest), _) => format!("did you mean {nearest:?}?"),
        (None, []) => "`pipeplug inspect` shows what the plugin says of its commands".to_owned(),
        (None, known) => format!("it knows {}", Escaped(&known.join(", "))),
    }
}

fn capitalized(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}

/// Effect of a failed call on the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CallFault {
    /// The plugin still runs: the next call follows.
    Refused,
    /// The plugin has ended: the run ends.
    Died,
    /// The plugin took too long: the run ends.
    TimedOut,
}

impl CallFault {
    pub(crate) fn of(error: &CallError) -> Self {
        match error {
            CallError::Closed { .. } => Self::Died,
            CallError::TimedOut { .. } | CallError::NotSent { .. } => Self::TimedOut,
            // The plugin answered with an error, or the request or the answer was invalid.
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
            ExitReason::Broken,
            ExitReason::TimedOut,
            ExitReason::HungUp,
            ExitReason::Interrupted,
            ExitReason::Terminated,
        ];
        for reason in all {
            let code = format!("  {:<3}  ", reason.code());
            // In the line of 130.
            let is_signal = matches!(reason, ExitReason::HungUp | ExitReason::Terminated);
            let among = is_signal && HELP.contains(&format!("{}: by SIG", reason.code()));
            assert!(among || HELP.lines().any(|line| line.starts_with(&code)), "{reason:?}");
        }
    }

    #[test]
    fn the_documentation_has_the_list_of_the_help() {
        let page = include_str!("../../../docs/command-line.md");
        assert!(
            page.contains(&format!("```text\n{HELP}\n```")),
            "docs/command-line.md has to list\n{HELP}"
        );
    }
}
