//! Errors of starting a guest.

use std::ffi::CString;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use pipeplug_net::Escaped;
use thiserror::Error;

use super::Launch;
#[cfg(feature = "verify")]
use crate::integrity::{LockFileError, Sha256};

/// Error of starting a guest. No process is left of the attempt.
#[derive(Debug)]
pub struct SpawnError {
    path: PathBuf,
    // Boxed, so that the result of a start stays small.
    kind: Box<SpawnErrorKind>,
}

impl SpawnError {
    /// Creates the error of starting the file at `path`.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>, kind: SpawnErrorKind) -> Self {
        Self { path: path.into(), kind: Box::new(kind) }
    }

    /// Creates the error of a plugin that `launcher` could not start.
    /// [`Launcher::describe`](crate::launcher::Launcher::describe) returns `launcher`.
    #[must_use]
    pub fn launcher(
        launch: &Launch,
        launcher: Option<String>,
        problem: impl Into<String>,
        is_permanent: bool,
    ) -> Self {
        let kind = SpawnErrorKind::launcher(launcher, problem, is_permanent);
        Self::new(&launch.program, kind)
    }

    /// Path of the plugin: absolute on this machine, and as it was given with a launcher.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Kind of the error.
    #[must_use]
    pub fn kind(&self) -> &SpawnErrorKind {
        &self.kind
    }

    pub(crate) fn into_parts(self) -> (PathBuf, SpawnErrorKind) {
        (self.path, *self.kind)
    }

    /// Tells whether another attempt would fail the same way: the file, its interpreter or the way
    /// it is started has to be repaired first. A file that is being written, and a lack of system
    /// resources, can pass in a moment.
    #[must_use]
    pub fn is_permanent(&self) -> bool {
        self.kind.is_permanent()
    }
}

impl fmt::Display for SpawnError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.kind.fmt_at(&self.path, f)
    }
}

impl std::error::Error for SpawnError {}

/// Kind of a [`SpawnError`]. Its text continues a message that begins with the plugin's path.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SpawnErrorKind {
    /// The file does not exist.
    #[error("no such file{}; check the path, `PATH` is not searched", of_link(link_target.as_deref()))]
    NotFound {
        /// Target of the path, if it is a symbolic link.
        link_target: Option<PathBuf>,
    },
    /// The path leads through a file as if that were a directory.
    #[error("{file:?} is not a directory; name the file itself, without a `/` behind it")]
    NotADirectory {
        /// The part of it that is no directory.
        file: PathBuf,
    },
    /// The file's mode does not let this user execute it.
    #[error("is not executable (mode {mode:04o}): run `chmod +x` on it")]
    NotExecutable {
        /// The permission bits of the file.
        mode: u32,
    },
    /// The file is another user's, and its mode does not let this user execute it.
    #[error(
        "is not executable for this user (mode {mode:04o}, it belongs to {owner}): let the owner run \
         `chmod a+rx` on it, or take a copy"
    )]
    NotOurs {
        /// The permission bits of the file.
        mode: u32,
        /// The owner, by number and name.
        owner: String,
    },
    /// The file is on a file system that nothing is executed from.
    #[error("is on a file system that is mounted noexec: move it to another one, or remount that")]
    NoExec,
    /// The path is a directory.
    #[error("is a directory: name the executable file inside it")]
    IsDirectory,
    /// The file is a program for another kind of machine.
    #[error(
        "is built for another machine ({found}), this one is {expected}: build it for this one"
    )]
    WrongArchitecture {
        /// Machine of the file's ELF header, in words.
        found: String,
        /// Machine of this host, in words.
        expected: String,
    },
    /// The file is nothing that the kernel can execute.
    #[error("is not a program: {found}; start a script with a line like `#!/bin/sh`")]
    NotAProgram {
        /// Kind of the file, in words.
        found: &'static str,
    },
    /// The path leads to a FIFO, a device or a socket.
    #[error("is {kind}, which cannot be executed: {}", instead_of(kind))]
    NotAFile {
        /// Kind of the file, in words: `a FIFO`.
        kind: &'static str,
    },
    /// The file is there, but the interpreter of its `#!` line or its dynamic loader is not.
    #[error(
        "needs the interpreter {interpreter:?}, which does not exist: {}",
        install(interpreter)
    )]
    MissingInterpreter {
        /// Interpreter that the `#!` line or the ELF header names.
        interpreter: PathBuf,
    },
    /// The file's mode is right, and still it may not be executed.
    #[error(
        "may not be executed ({error}): check the directories above it, its interpreter, \
         whether its file system is mounted noexec, and what its sandbox lets it read"
    )]
    AccessDenied {
        /// Error of the kernel.
        error: io::Error,
    },
    /// A process has the file open for writing.
    #[error("is open for writing: close the file, or wait for its copy to end, and start it again")]
    Busy,
    /// The guest cannot start in its working directory.
    #[error("cannot start in the working directory {cwd:?}: {error}")]
    BadWorkingDirectory {
        /// The directory that was asked for, or the host's if none was.
        cwd: PathBuf,
        /// Error of the kernel.
        error: io::Error,
    },
    /// An argument or a variable cannot be passed on to any process.
    #[error("cannot be given {what}: {reason}")]
    BadArgument {
        /// Which one, in words.
        what: String,
        /// The problem.
        reason: &'static str,
    },
    /// The host, or the whole system, has no descriptor left.
    #[error(
        "needs up to {needed} free descriptors ({error}; this process may have {limit}): \
         run fewer plugins or raise the limit with `ulimit -n`"
    )]
    TooManyDescriptors {
        /// Number of descriptors that a start uses at its peak.
        needed: u64,
        /// Number of descriptors that this process may have, `RLIMIT_NOFILE`.
        limit: u64,
        /// Error of the kernel.
        error: io::Error,
    },
    /// The limit of processes is reached.
    #[error(
        "cannot be started: the limit of processes is reached ({error}): end some, or raise the limit of the \
         user (`ulimit -u`, {} here), of the container (`--pids-limit`) or of the service (TasksMax=)",
        limit.map_or("unlimited".to_owned(), |limit| limit.to_string())
    )]
    TooManyProcesses {
        /// Number of processes and threads that the user may have, `RLIMIT_NPROC`; `None` for any
        /// number.
        limit: Option<u64>,
        /// Error of the kernel.
        error: io::Error,
    },
    /// The client of the launcher is not installed.
    #[error(
        "was not started: there is no program {client:?}; install it, or add its directory to `PATH`"
    )]
    NoClient {
        /// Name of the client.
        client: String,
    },
    /// The launcher could not start the plugin.
    #[error("was not started {launcher}: {}", Escaped(problem))]
    Launcher {
        /// Launcher of the plugin: [`Launcher::describe`](crate::launcher::Launcher::describe).
        launcher: String,
        /// The problem, and what to do.
        problem: String,
        /// True if another start would fail the same way.
        is_permanent: bool,
    },
    /// The file is not the one that was pinned.
    #[cfg(feature = "verify")]
    #[error(
        "is not the file that was pinned: its SHA-256 is {found}, and {expected} is {}; nothing was started",
        demanded(lock_file.as_deref())
    )]
    SumMismatch {
        /// The sum that was demanded.
        expected: Sha256,
        /// The file's.
        found: Sha256,
        /// The lock file that demanded it, if it was one.
        lock_file: Option<PathBuf>,
    },
    /// The lock file does not have it.
    #[cfg(feature = "verify")]
    #[error(
        "is not pinned in {lock_file:?}, nothing was started; `pipeplug pin` adds one that is to be trusted"
    )]
    NotPinned {
        /// The lock file.
        lock_file: PathBuf,
    },
    /// The lock file cannot be read.
    #[cfg(feature = "verify")]
    #[error("was not started: {error}")]
    LockFile {
        /// The problem.
        error: LockFileError,
    },
    /// This system cannot confine the guest as demanded.
    #[error("was not started: its sandbox is not available: {problem}")]
    Sandbox {
        /// The problem, and what to do.
        problem: String,
    },
    /// A file or directory cannot be granted to it, or it needs one that was not.
    #[error("was not started in its sandbox: {problem}")]
    Grant {
        /// The problem, and what to do.
        problem: String,
        /// True if another start would fail the same way.
        is_permanent: bool,
    },
    /// The launcher does not enforce a demand.
    #[error(
        "was not started {launcher}: {demand} is made only for a plugin that this host starts as a \
         process of its own; leave it out, or start the plugin without what carries it there"
    )]
    NotEnforced {
        /// Launcher of the plugin: [`Launcher::describe`](crate::launcher::Launcher::describe).
        launcher: String,
        /// The demand, in words.
        demand: &'static str,
    },
    /// The system refused for another reason.
    #[error("cannot be started: {attempt}: {error}")]
    Os {
        /// The action that failed.
        attempt: &'static str,
        /// Error of the kernel.
        error: io::Error,
    },
}

impl SpawnErrorKind {
    /// Adds the path of the plugin.
    pub(crate) fn at(self, path: &Path) -> SpawnError {
        SpawnError::new(path, self)
    }

    pub(crate) fn launcher(
        launcher: Option<String>,
        problem: impl Into<String>,
        is_permanent: bool,
    ) -> Self {
        Self::Launcher {
            launcher: launcher.unwrap_or_default(),
            problem: problem.into(),
            is_permanent,
        }
    }

    /// Writes the message of an error at this path.
    pub(crate) fn fmt_at(&self, path: &Path, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFound { .. } | Self::NotADirectory { .. } => {
                write!(f, "no plugin at {path:?}: {self}")
            }
            _ => write!(f, "plugin {path:?} {self}"),
        }
    }

    pub(crate) fn is_permanent(&self) -> bool {
        match self {
            Self::NotFound { .. }
            | Self::NotADirectory { .. }
            | Self::NotExecutable { .. }
            | Self::NotOurs { .. }
            | Self::NoExec { .. }
            | Self::IsDirectory { .. }
            | Self::WrongArchitecture { .. }
            | Self::NotAProgram { .. }
            | Self::NotAFile { .. }
            | Self::MissingInterpreter { .. }
            | Self::AccessDenied { .. }
            | Self::BadWorkingDirectory { .. }
            | Self::BadArgument { .. }
            | Self::NoClient { .. }
            | Self::Sandbox { .. }
            | Self::NotEnforced { .. } => true,
            #[cfg(feature = "verify")]
            Self::SumMismatch { .. } | Self::NotPinned { .. } | Self::LockFile { .. } => true,
            Self::Launcher { is_permanent, .. } | Self::Grant { is_permanent, .. } => *is_permanent,
            Self::Busy { .. }
            | Self::TooManyDescriptors { .. }
            | Self::TooManyProcesses { .. }
            | Self::Os { .. } => false,
        }
    }

    /// Tells that the file may be in the middle of being replaced: it is away, not whole, without
    /// its mode, or open for writing.
    pub(crate) fn may_be_an_upgrade(&self) -> bool {
        matches!(
            self,
            Self::NotFound { .. }
                | Self::NotExecutable { .. }
                | Self::NotOurs { .. }
                | Self::NotAProgram { .. }
                | Self::AccessDenied { .. }
                | Self::Busy { .. }
        )
    }
}

/// A string as the kernel takes it; `what` names it where it is none.
pub(super) fn c_string(
    what: impl FnOnce() -> String,
    bytes: Vec<u8>,
) -> Result<CString, SpawnErrorKind> {
    CString::new(bytes).map_err(|error| SpawnErrorKind::BadArgument {
        what: format!("{} ({:?})", what(), String::from_utf8_lossy(&error.into_vec())),
        reason: "it holds a NUL byte",
    })
}

#[cfg(feature = "verify")]
fn demanded(lock_file: Option<&Path>) -> String {
    match lock_file {
        None => "what the host demands".to_owned(),
        Some(path) => {
            format!("what {path:?} has (`pipeplug pin` again, if you know why it changed)")
        }
    }
}

fn of_link(target: Option<&Path>) -> String {
    target.map_or_else(String::new, |target| format!(", it is a symbolic link to {target:?}"))
}

/// The next step with what is no file.
fn instead_of(kind: &str) -> &'static str {
    match kind {
        // The path of a process substitution, `<(…)`, leads to one.
        "a FIFO" => "write what comes out of it to a file, `chmod +x` that, and start it",
        "a socket" => "a plugin that listens on it is attached to (Attach, `--attach`)",
        _ => "name the plugin's executable file",
    }
}

fn install(interpreter: &Path) -> &'static str {
    if interpreter.as_os_str().as_encoded_bytes().ends_with(b"\r") {
        "its first line ends in CR LF, convert the file to Unix line ends"
    } else {
        "install it, or correct the plugin's `#!` line or build"
    }
}
