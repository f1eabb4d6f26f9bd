//! Errors of starting a plugin.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::Signal;
use pipeplug_net::internal::handshake::Mismatch;
use pipeplug_net::recording::RecordingError;
use pipeplug_net::wire::Format;
use pipeplug_net::{CallError, ConnectError, Escaped};

use crate::permissions::{Permissions, PermissionsError};
use crate::plugin::NotReady;
use crate::process::{SpawnError, SpawnErrorKind, WaitStatus};

/// Error of starting a plugin. No process, descriptor or thread is left; the same builder can start
/// again.
#[derive(Debug)]
// Boxed, so that the result of a start stays small.
pub struct StartError(Box<Inner>);

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    launcher: Option<String>,
    stderr: Vec<String>,
    hint: Option<Box<str>>,
    kind: StartErrorKind,
}

/// Kind of a [`StartError`]. Its text continues a message that begins with the plugin's path.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartErrorKind {
    /// The process could not be started.
    #[error("{0}")]
    Spawn(SpawnErrorKind),
    /// The event loop or a descriptor could not be had.
    #[error("was not started: {error}")]
    System {
        /// Error of the system.
        error: io::Error,
    },
    /// The descriptors did not become a connection.
    #[error("was not started: {error}")]
    Connect {
        /// The reason.
        error: ConnectError,
    },
    /// The plugin ended before it answered the first request.
    #[error("ended before it answered: {status} after {after:.1?}")]
    Exited {
        /// Exit status.
        status: WaitStatus,
        /// Running time.
        after: Duration,
    },
    /// The launcher could not run the plugin.
    #[error("{}", Escaped(problem))]
    Launcher {
        /// The problem, and what to do.
        problem: String,
        /// True if another start would fail the same way.
        is_permanent: bool,
        /// Exit status of the client; unknown if it has not ended.
        status: WaitStatus,
    },
    /// The plugin runs, and closed its end of the pipe before it answered.
    #[error("closed its pipe before it answered, and runs on")]
    ClosedPipe,
    /// The plugin runs, and did not answer in time.
    #[error("did not answer GetMetadata within {timeout:?}")]
    HandshakeTimeout {
        /// Time waited.
        timeout: Duration,
        /// The number of the signal that had stopped it by then.
        stopped_by: Option<i32>,
    },
    /// The plugin answered in the other format.
    #[error(
        "was spoken to in the {spoken} format and answers in the {found} one: set the format to {found} (`--format {found}`)"
    )]
    WrongFormat {
        /// The format that the host used.
        spoken: Format,
        /// The plugin's.
        found: Format,
    },
    /// The plugin wrote bytes that are not a chunk.
    #[error("wrote what is no message: \"{}\" ({reason})", first.escape_ascii())]
    Garbage {
        /// The first bytes, at most 64.
        first: Vec<u8>,
        /// The problem.
        reason: String,
    },
    /// A terminal is between host and plugin, made by a command that starts it there.
    #[error(
        "is behind a terminal, which changes the messages: it showed \"{}\"; have no command on the way make \
         one, as by leaving out `-t` (docker exec, podman exec, kubectl exec, ssh) or `script`",
        shown.escape_ascii()
    )]
    Terminal {
        /// The sign of it: an echo of the host's own first request, a line that ends in CR LF, or a
        /// line of its standard error.
        shown: Vec<u8>,
    },
    /// The metadata is not a JSON object.
    #[error("answered GetMetadata with what is no JSON object: \"{}\" ({error})", shown.escape_ascii())]
    BadMetadata {
        /// The first bytes, at most 64.
        shown: Vec<u8>,
        /// The problem.
        error: String,
    },
    /// The metadata is too large.
    #[error(
        "answered GetMetadata with {len} bytes, the limit is {limit}: send what is large as a reply to a call"
    )]
    LargeMetadata {
        /// Number of bytes sent.
        len: usize,
        /// Maximum number of bytes.
        limit: usize,
    },
    /// The program is not a plugin: it writes what it reads, as `cat` does.
    #[error(
        "sent the host's own first request back: it copies its input to its output; is it a plugin?"
    )]
    Echo,
    /// The connection was to be recorded ([`PluginBuilder::record`](crate::PluginBuilder::record)).
    #[error("was not started: {error}")]
    Recording {
        /// The problem.
        error: RecordingError,
    },
    /// The host has a configuration ([`PluginBuilder::config`](crate::PluginBuilder::config)), and
    /// the plugin cannot take one.
    #[error(
        "cannot take the configuration that its host has for it: its answer to GetMetadata does not name the feature \
         `config`{}; upgrade the plugin, or start it without a configuration",
        error.as_ref().map(|error| format!(" ({error})")).unwrap_or_default()
    )]
    NoConfig {
        /// The plugin's answer, if that was an error.
        error: Option<CallError>,
    },
    /// Host and plugin speak no common version of the application's interface.
    #[error("does not fit its host: {}", Mismatch { plugin, host })]
    InterfaceVersions {
        /// Versions that the plugin speaks.
        plugin: Vec<u32>,
        /// Versions that the host speaks
        /// ([`PluginBuilder::interface_versions`](crate::PluginBuilder::interface_versions)).
        host: Vec<u32>,
    },
    /// The plugin does not have a typed service that the host requires, or in another version
    /// (`PluginBuilder::requires`, with the feature `service`).
    #[error("does not fit its host: {}", Escaped(problem))]
    Service {
        /// The service, the versions, and the methods that differ.
        problem: String,
    },
    /// The plugin's typed services break callers of those that the lock file pins
    /// (`LockFile::pin_interface`, with the features `service` and `verify`).
    #[error(
        "does not have the interface that is pinned in {lock_file:?}: {}; if that is intended, \
         `pipeplug pin --interface` pins the new one",
        Escaped(problem)
    )]
    PinnedInterface {
        /// Path of the lock file.
        lock_file: PathBuf,
        /// The methods, and what differs.
        problem: String,
    },
    /// The plugin was to be confined to its permissions (`PluginBuilder::permissions`, with the
    /// feature `sandbox`), and none are recorded for it, or they cannot be enforced.
    #[error("was not started: {}", Escaped(problem))]
    NotPermitted {
        /// The problem.
        problem: String,
    },
    /// The plugin declares more permissions than it is allowed (`PluginBuilder::permissions`). It was
    /// stopped.
    #[error(
        "asks for more than it is allowed: {}; {}",
        more.in_words().join("; "),
        AllowIn(lock_file.as_deref())
    )]
    MorePermissions {
        /// The permissions that it asks for, and is not allowed.
        more: Box<Permissions>,
        /// Path of the lock file that allows the others.
        lock_file: Option<PathBuf>,
    },
    /// The plugin declares permissions that cannot be understood. It was stopped.
    #[error("declares permissions that cannot be understood: {error}")]
    BadPermissions {
        /// The problem.
        error: PermissionsError,
    },
    /// The host's own call-back ([`PluginBuilder::on_ready`](crate::PluginBuilder::on_ready)) failed.
    /// The plugin was stopped.
    #[error("started, and was not ready: {why}")]
    NotReady {
        /// The reason.
        why: NotReady,
        /// Exit status, if the plugin ended by itself before the call-back failed.
        status: Option<WaitStatus>,
    },
    /// The first request failed in another way.
    #[error("failed its first request: {error}")]
    Handshake {
        /// Error of the call.
        error: CallError,
    },
}

impl StartError {
    pub(crate) fn new(
        path: impl Into<PathBuf>,
        launcher: Option<String>,
        kind: StartErrorKind,
    ) -> Self {
        let (path, stderr, hint) = (path.into(), Vec::new(), None);
        Self(Box::new(Inner { path, launcher, stderr, hint, kind }))
    }

    /// Adds the last lines of the plugin's standard error.
    pub(crate) fn with_stderr(mut self, lines: Vec<String>) -> Self {
        self.0.stderr = lines;
        self
    }

    /// Adds the likely cause and the next step.
    pub(crate) fn with_hint(mut self, hint: Option<Box<str>>) -> Self {
        self.0.hint = hint;
        self
    }

    /// Adds the launcher of the plugin, as it describes itself.
    pub(crate) fn with_launcher(mut self, launcher: Option<String>) -> Self {
        self.0.launcher = launcher;
        self
    }

    /// Replaces the path, for a plugin that its user knows by another name than that of its file.
    #[must_use]
    pub fn with_path(mut self, path: impl Into<PathBuf>) -> Self {
        self.0.path = path.into();
        self
    }

    /// Path of the plugin.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// Launcher of the plugin: [`Launcher::describe`](crate::launcher::Launcher::describe). `None`
    /// on this machine.
    #[must_use]
    pub fn launcher(&self) -> Option<&str> {
        self.0.launcher.as_deref()
    }

    /// Kind of the error.
    #[must_use]
    pub fn kind(&self) -> &StartErrorKind {
        &self.0.kind
    }

    /// Last lines of the plugin's standard error. Empty if it wrote none or did not run, or if the
    /// kind of the error says all that there is to say.
    #[must_use]
    pub fn stderr(&self) -> &[String] {
        &self.0.stderr
    }

    /// The likely cause and the next step, where something tells of them; the message has them too.
    #[must_use]
    pub fn hint(&self) -> Option<&str> {
        self.0.hint.as_deref()
    }

    /// Tells whether another start would fail the same way: the plugin, or how it is started, has
    /// to be repaired first. False if that is not certain.
    #[must_use]
    pub fn is_permanent(&self) -> bool {
        match self.kind() {
            StartErrorKind::Spawn(kind) => kind.is_permanent(),
            StartErrorKind::Exited { status, .. } => status.is_permanent(),
            StartErrorKind::Launcher { is_permanent, .. } => *is_permanent,
            StartErrorKind::WrongFormat { .. }
            | StartErrorKind::Terminal { .. }
            | StartErrorKind::BadMetadata { .. }
            | StartErrorKind::LargeMetadata { .. }
            | StartErrorKind::NoConfig { .. }
            | StartErrorKind::InterfaceVersions { .. }
            | StartErrorKind::Service { .. }
            | StartErrorKind::PinnedInterface { .. }
            | StartErrorKind::NotPermitted { .. }
            | StartErrorKind::MorePermissions { .. }
            | StartErrorKind::BadPermissions { .. }
            | StartErrorKind::Echo => true,
            StartErrorKind::System { .. }
            | StartErrorKind::Connect { .. }
            | StartErrorKind::ClosedPipe
            | StartErrorKind::HandshakeTimeout { .. }
            | StartErrorKind::Garbage { .. }
            | StartErrorKind::NotReady { .. }
            | StartErrorKind::Recording { .. }
            | StartErrorKind::Handshake { .. } => false,
        }
    }

    /// Exit status of the process, if its end is the reason.
    pub(crate) fn status(&self) -> Option<WaitStatus> {
        match self.kind() {
            StartErrorKind::Exited { status, .. } | StartErrorKind::Launcher { status, .. } => {
                Some(*status)
            }
            StartErrorKind::NotReady { status, .. } => *status,
            _ => None,
        }
    }

    /// Tells that it ran, and ended or closed its pipe before it had answered: a crash, as that of
    /// one that runs.
    pub(crate) fn is_crash(&self) -> bool {
        match self.kind() {
            StartErrorKind::Exited { .. } | StartErrorKind::ClosedPipe => !self.is_permanent(),
            StartErrorKind::NotReady { status, .. } => status.is_some(),
            StartErrorKind::Handshake { error } => matches!(error, CallError::Closed { .. }),
            _ => false,
        }
    }
}

impl From<SpawnError> for StartError {
    fn from(error: SpawnError) -> Self {
        let (path, kind) = error.into_parts();
        Self::new(path, None, StartErrorKind::Spawn(kind))
    }
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner { path, launcher, stderr, hint, kind } = &*self.0;
        match kind {
            StartErrorKind::Spawn(kind) => kind.fmt_at(path, f),
            StartErrorKind::Launcher { .. } => {
                write!(f, "plugin {path:?} did not start{}: {kind}{}", By(launcher), Tail(stderr))
            }
            _ => {
                write!(f, "plugin {path:?}{} {kind}", By(launcher))?;
                match kind {
                    StartErrorKind::Exited { .. } | StartErrorKind::ClosedPipe => {
                        write!(f, "{}; {}", Tail(stderr), Hint(hint, launcher))
                    }
                    StartErrorKind::HandshakeTimeout { stopped_by, .. } => {
                        write!(f, "{}; {}", Tail(stderr), Silent(*stopped_by, hint))
                    }
                    StartErrorKind::Garbage { .. } => {
                        write!(
                            f,
                            "{}; {} must print nothing of its own there",
                            Tail(stderr),
                            Printing(launcher)
                        )
                    }
                    // The report of a call that ended with the plugin has these lines.
                    StartErrorKind::NotReady { status: None, .. } if !stderr.is_empty() => {
                        Tail(stderr).fmt(f)
                    }
                    StartErrorKind::Handshake { .. } => Tail(stderr).fmt(f),
                    _ => Ok(()),
                }
            }
        }
    }
}

impl std::error::Error for StartError {}

/// The next step where a plugin asks for more than it is allowed.
struct AllowIn<'a>(Option<&'a Path>);

impl fmt::Display for AllowIn<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(path) => write!(f, "allow that first, in {path:?}"),
            None => f.write_str("allow that first, with PluginBuilder::permissions"),
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

/// The programs that may have printed among the messages.
struct Printing<'a>(&'a Option<String>);

impl fmt::Display for Printing<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            None => "a plugin on stdin and stdout",
            Some(_) => "the plugin, and the command that starts it on stdin and stdout,",
        })
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

#[cfg(test)]
mod tests {
    use super::*;

    fn error(launcher: Option<&str>, kind: StartErrorKind) -> StartError {
        StartError::new("/x", launcher.map(str::to_owned), kind)
    }

    #[test]
    fn the_message_joins_context_and_kind() {
        let kind = || StartErrorKind::ClosedPipe;
        assert_eq!(
            error(None, kind()).with_stderr(vec!["oh no".into()]).to_string(),
            "plugin \"/x\" closed its pipe before it answered, and runs on, last on its stderr: oh no; is it a plugin?"
        );
        assert_eq!(
            error(Some("on there"), kind()).with_hint(Some("look".into())).to_string(),
            "plugin \"/x\" on there closed its pipe before it answered, and runs on, nothing on its stderr; look"
        );
        let (status, is_permanent) = (WaitStatus::Unknown, true);
        let kind = StartErrorKind::Launcher { problem: "no route".into(), is_permanent, status };
        assert_eq!(
            error(Some("on there"), kind).to_string(),
            "plugin \"/x\" did not start on there: no route, nothing on its stderr"
        );
    }

    #[test]
    fn the_error_of_a_spawn_keeps_path_and_message() {
        for kind in [|| SpawnErrorKind::NoExec, || SpawnErrorKind::NotFound { link_target: None }] {
            let spawn = SpawnError::new("/x", kind());
            let message = spawn.to_string();
            assert!(message.contains("plugin") && message.contains("\"/x\""), "{message}");
            let start = StartError::from(spawn).with_launcher(Some("on there".into()));
            assert_eq!(start.to_string(), message);
            assert_eq!((start.path(), start.launcher()), (Path::new("/x"), Some("on there")));
        }
    }
}
