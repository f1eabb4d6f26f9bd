//! Errors of starting a plugin.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use nix::sys::signal::Signal;
use pipeplug_net::wire::Format;
use pipeplug_net::{CallError, ConnectError, Escaped};

use crate::process::{SpawnError, WaitStatus};

/// Error of starting a plugin. No process, descriptor or thread is left; the same builder can start
/// again.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The process could not be started.
    #[error(transparent)]
    Spawn(#[from] SpawnError),
    /// The event loop or a descriptor could not be had.
    #[error("plugin {path:?} was not started: {error}")]
    System {
        /// The plugin's path.
        path: PathBuf,
        /// Error of the system.
        error: io::Error,
    },
    /// The descriptors did not become a connection.
    #[error("plugin {path:?} was not started: {error}")]
    Connect {
        /// The plugin's path.
        path: PathBuf,
        /// The reason.
        error: ConnectError,
    },
    /// The plugin ended before it answered the first request.
    #[error(
        "plugin {path:?}{} ended before it answered: {status} after {after:.1?}{}; {}",
        By(launcher),
        Tail(stderr),
        Hint(hint, launcher)
    )]
    Exited {
        /// The plugin's path.
        path: PathBuf,
        /// Launcher of the plugin, as it describes itself; `None` on this machine.
        launcher: Option<String>,
        /// Exit status.
        status: WaitStatus,
        /// Running time.
        after: Duration,
        /// The last lines of its standard error.
        stderr: Vec<String>,
        /// The likely cause and the next step, where something tells of them.
        hint: Option<Box<str>>,
    },
    /// The launcher could not run the plugin.
    #[error("plugin {path:?} did not start {launcher}: {}{}", Escaped(problem), Tail(stderr))]
    Launcher {
        /// The plugin's path, where it runs.
        path: PathBuf,
        /// Launcher of the plugin: [`Launcher::describe`](crate::launcher::Launcher::describe).
        launcher: String,
        /// The problem, and what to do.
        problem: String,
        /// True if another start would fail the same way.
        is_permanent: bool,
        /// Exit status of the client; unknown if it has not ended.
        status: WaitStatus,
        /// The last lines of its standard error.
        stderr: Vec<String>,
    },
    /// The plugin runs, and closed its end of the pipe before it answered.
    #[error(
        "plugin {path:?}{} closed its pipe before it answered, and runs on{}; {}",
        By(launcher),
        Tail(stderr),
        Hint(hint, launcher)
    )]
    ClosedPipe {
        /// The plugin's path.
        path: PathBuf,
        /// Launcher of the plugin, as it describes itself; `None` on this machine.
        launcher: Option<String>,
        /// The last lines of its standard error.
        stderr: Vec<String>,
        /// The likely cause and the next step, where something tells of them.
        hint: Option<Box<str>>,
    },
    /// The plugin runs, and did not answer in time.
    #[error(
        "plugin {path:?}{} did not answer GetMetadata within {timeout:?}{}; {}",
        By(launcher),
        Tail(stderr),
        Silent(*stopped_by, hint)
    )]
    HandshakeTimeout {
        /// The plugin's path.
        path: PathBuf,
        /// Launcher of the plugin, as it describes itself; `None` on this machine.
        launcher: Option<String>,
        /// Time waited.
        timeout: Duration,
        /// The number of the signal that had stopped it by then.
        stopped_by: Option<i32>,
        /// The last lines of its standard error.
        stderr: Vec<String>,
        /// The likely cause and the next step, where something tells of them.
        hint: Option<Box<str>>,
    },
    /// The plugin answered in the other format.
    #[error(
        "plugin {path:?} was spoken to in the {spoken} format and answers in the {found} one: set the format to {found} (`--format {found}`)"
    )]
    WrongFormat {
        /// The plugin's path.
        path: PathBuf,
        /// The format that the host used.
        spoken: Format,
        /// The plugin's.
        found: Format,
    },
    /// The plugin wrote bytes that are not a chunk.
    #[error(
        "plugin {path:?}{} wrote what is no message: \"{}\" ({reason}){}; {} must print nothing of its own there",
        By(launcher),
        first.escape_ascii(),
        Tail(stderr),
        launcher.as_ref().map_or("a plugin on stdin and stdout", |_| "the plugin, and the command that starts it on stdin and stdout,")
    )]
    Garbage {
        /// The plugin's path.
        path: PathBuf,
        /// Launcher of the plugin, as it describes itself; `None` on this machine.
        launcher: Option<String>,
        /// The first bytes, at most 64.
        first: Vec<u8>,
        /// The problem.
        reason: String,
        /// The last lines of its standard error.
        stderr: Vec<String>,
    },
    /// A terminal is between host and plugin, made by a command that starts it there.
    #[error(
        "plugin {path:?}{} is behind a terminal, which changes the messages: it showed \"{}\"; have no command on the way make \
         one, as by leaving out `-t` (docker exec, podman exec, kubectl exec, ssh) or `script`",
        By(launcher),
        shown.escape_ascii()
    )]
    Terminal {
        /// The plugin's path.
        path: PathBuf,
        /// Launcher of the plugin, as it describes itself; `None` on this machine.
        launcher: Option<String>,
        /// The sign of it: an echo of the host's own first request, a line that ends in CR LF, or a
        /// line of its standard error.
        shown: Vec<u8>,
    },
    /// The metadata is not a JSON object.
    #[error("plugin {path:?} answered GetMetadata with what is no JSON object: \"{}\" ({error})", shown.escape_ascii())]
    BadMetadata {
        /// The plugin's path.
        path: PathBuf,
        /// The first bytes, at most 64.
        shown: Vec<u8>,
        /// The problem.
        error: String,
    },
    /// The metadata is too large.
    #[error(
        "plugin {path:?} answered GetMetadata with {len} bytes, the limit is {limit}: send what is large as a reply to a call"
    )]
    LargeMetadata {
        /// The plugin's path.
        path: PathBuf,
        /// Number of bytes sent.
        len: usize,
        /// Maximum number of bytes.
        limit: usize,
    },
    /// The program is not a plugin: it writes what it reads, as `cat` does.
    #[error(
        "plugin {path:?} sent the host's own first request back: it copies its input to its output; is it a plugin?"
    )]
    Echo {
        /// The plugin's path.
        path: PathBuf,
    },
    /// The first request failed in another way.
    #[error("plugin {path:?} failed its first request: {error}{}", Tail(stderr))]
    Handshake {
        /// The plugin's path.
        path: PathBuf,
        /// Error of the call; boxed, so that a start's result stays small.
        error: Box<CallError>,
        /// The last lines of its standard error.
        stderr: Vec<String>,
    },
}

impl StartError {
    /// The likely cause and the next step, where something tells of them; the message has them too.
    #[must_use]
    pub fn hint(&self) -> Option<&str> {
        match self {
            Self::Exited { hint, .. }
            | Self::ClosedPipe { hint, .. }
            | Self::HandshakeTimeout { hint, .. } => hint.as_deref(),
            _ => None,
        }
    }

    /// Tells whether another start would fail the same way: the plugin, or how it is started, has
    /// to be repaired first. False if that is not certain.
    #[must_use]
    pub fn is_permanent(&self) -> bool {
        match self {
            Self::Spawn(error) => error.is_permanent(),
            Self::Exited { status, .. } => status.is_permanent(),
            Self::Launcher { is_permanent, .. } => *is_permanent,
            Self::WrongFormat { .. }
            | Self::Terminal { .. }
            | Self::BadMetadata { .. }
            | Self::LargeMetadata { .. }
            | Self::Echo { .. } => true,
            Self::System { .. }
            | Self::Connect { .. }
            | Self::ClosedPipe { .. }
            | Self::HandshakeTimeout { .. }
            | Self::Garbage { .. }
            | Self::Handshake { .. } => false,
        }
    }

    /// Exit status of the process, if its end is the reason.
    pub(crate) fn status(&self) -> Option<WaitStatus> {
        match self {
            Self::Exited { status, .. } | Self::Launcher { status, .. } => Some(*status),
            _ => None,
        }
    }

    /// Tells that it ran, and ended or closed its pipe before it had answered: a crash, as that of
    /// one that runs.
    pub(crate) fn is_crash(&self) -> bool {
        match self {
            Self::Exited { .. } | Self::ClosedPipe { .. } => !self.is_permanent(),
            Self::Handshake { error, .. } => matches!(**error, CallError::Closed { .. }),
            _ => false,
        }
    }
}

/// Shows the launcher behind the path.
struct By<'a>(&'a Option<String>);

impl fmt::Display for By<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.as_ref().map_or(Ok(()), |launcher| write!(f, " {launcher}"))
    }
}

/// The likely cause of an end, and the next step.
struct Hint<'a>(&'a Option<Box<str>>, &'a Option<String>);

impl fmt::Display for Hint<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unknown = match self.1 {
            None => "is it a plugin?",
            Some(_) => {
                "it, or what starts it there, did so: is it a plugin, and is it run with the stdin and stdout of that?"
            }
        };
        f.write_str(self.0.as_deref().unwrap_or(unknown))
    }
}

/// The cause of a plugin's silence, and the next step.
struct Silent<'a>(Option<i32>, &'a Option<Box<str>>);

impl fmt::Display for Silent<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(number) = self.0 else {
            if let Some(hint) = self.1 {
                return f.write_str(hint);
            }
            return f.write_str(
                "is it a plugin? A slow one needs more time: `--timeout` (PluginBuilder::handshake_timeout)",
            );
        };
        match Signal::try_from(number) {
            Ok(signal @ (Signal::SIGTTIN | Signal::SIGTTOU)) => write!(
                f,
                "it is stopped ({signal}), since it used the terminal in the background: `--stdin inherit` \
                 (Stdin::Inherit) lets it use that"
            ),
            Ok(signal) => write!(f, "it is stopped ({signal}): `kill -CONT` lets it go on"),
            Err(_) => write!(f, "it is stopped (signal {number}): `kill -CONT` lets it go on"),
        }
    }
}

/// The last lines of a plugin's standard error at the end of a message.
struct Tail<'a>(&'a [String]);

impl fmt::Display for Tail<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        /// More than this makes no message any more.
        const SHOWN: usize = 5;
        let lines: Vec<_> = self.0.iter().filter(|line| !line.trim().is_empty()).collect();
        if lines.is_empty() {
            return f.write_str(", nothing on its stderr");
        }
        f.write_str(", last on its stderr: ")?;
        let skipped = lines.len().saturating_sub(SHOWN);
        for (i, line) in lines[skipped..].iter().enumerate() {
            if i > 0 {
                f.write_str(" | ")?;
            }
            write!(f, "{}", Escaped(line))?;
        }
        Ok(())
    }
}
