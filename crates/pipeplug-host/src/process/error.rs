//! Errors of starting a guest.

use std::ffi::CString;
use std::io;
use std::path::{Path, PathBuf};

use pipeplug_net::Escaped;
use thiserror::Error;

use super::Launch;
use crate::integrity::{LockFileError, Sha256};

/// Error of starting a guest. No process is left of the attempt.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SpawnError {
    /// The file does not exist.
    #[error("no plugin at {path:?}: no such file{}; check the path, `PATH` is not searched", of_link(link_target.as_deref()))]
    NotFound {
        /// The absolute path that was to be executed.
        path: PathBuf,
        /// Target of the path, if it is a symbolic link.
        link_target: Option<PathBuf>,
    },
    /// The path leads through a file as if that were a directory.
    #[error(
        "no plugin at {path:?}: {file:?} is not a directory; name the file itself, without a `/` behind it"
    )]
    NotADirectory {
        /// The absolute path that was to be executed.
        path: PathBuf,
        /// The part of it that is no directory.
        file: PathBuf,
    },
    /// The file's mode does not let this user execute it.
    #[error("plugin {path:?} is not executable (mode {mode:04o}): run `chmod +x` on it")]
    NotExecutable {
        /// The absolute path that was to be executed.
        path: PathBuf,
        /// The permission bits of the file.
        mode: u32,
    },
    /// The file is another user's, and its mode does not let this user execute it.
    #[error(
        "plugin {path:?} is not executable for this user (mode {mode:04o}, it belongs to {owner}): let the owner run \
         `chmod a+rx` on it, or take a copy"
    )]
    NotOurs {
        /// The absolute path that was to be executed.
        path: PathBuf,
        /// The permission bits of the file.
        mode: u32,
        /// The owner, by number and name.
        owner: String,
    },
    /// The file is on a file system that nothing is executed from.
    #[error(
        "plugin {path:?} is on a file system that is mounted noexec: move it to another one, or remount that"
    )]
    NoExec {
        /// The absolute path that was to be executed.
        path: PathBuf,
    },
    /// The path is a directory.
    #[error("plugin {path:?} is a directory: name the executable file inside it")]
    IsDirectory {
        /// The absolute path that was to be executed.
        path: PathBuf,
    },
    /// The file is a program for another kind of machine.
    #[error(
        "plugin {path:?} is built for another machine ({found}), this one is {expected}: build it for this one"
    )]
    WrongArchitecture {
        /// The absolute path that was to be executed.
        path: PathBuf,
        /// Machine of the file's ELF header, in words.
        found: String,
        /// Machine of this host, in words.
        expected: String,
    },
    /// The file is nothing that the kernel can execute.
    #[error(
        "plugin {path:?} is not a program: {found}; start a script with a line like `#!/bin/sh`"
    )]
    NotAProgram {
        /// The absolute path that was to be executed.
        path: PathBuf,
        /// Kind of the file, in words.
        found: &'static str,
    },
    /// The path leads to a FIFO, a device or a socket.
    #[error("plugin {path:?} is {kind}, which cannot be executed: {}", instead_of(kind))]
    NotAFile {
        /// The absolute path that was to be executed.
        path: PathBuf,
        /// Kind of the file, in words: `a FIFO`.
        kind: &'static str,
    },
    /// The file is there, but the interpreter of its `#!` line or its dynamic loader is not.
    #[error(
        "plugin {path:?} needs the interpreter {interpreter:?}, which does not exist: {}",
        install(interpreter)
    )]
    MissingInterpreter {
        /// The absolute path that was to be executed.
        path: PathBuf,
        /// Interpreter that the `#!` line or the ELF header names.
        interpreter: PathBuf,
    },
    /// The file's mode is right, and still it may not be executed.
    #[error(
        "plugin {path:?} may not be executed ({error}): check the directories above it, its interpreter, \
         whether its file system is mounted noexec, and what its sandbox lets it read"
    )]
    AccessDenied {
        /// The absolute path that was to be executed.
        path: PathBuf,
        /// Error of the kernel.
        error: io::Error,
    },
    /// A process has the file open for writing.
    #[error(
        "plugin {path:?} is open for writing: close the file, or wait for its copy to end, and start it again"
    )]
    Busy {
        /// The absolute path that was to be executed.
        path: PathBuf,
    },
    /// The guest cannot start in its working directory.
    #[error("plugin {path:?} cannot start in the working directory {cwd:?}: {error}")]
    BadWorkingDirectory {
        /// The absolute path that was to be executed.
        path: PathBuf,
        /// The directory that was asked for, or the host's if none was.
        cwd: PathBuf,
        /// Error of the kernel.
        error: io::Error,
    },
    /// An argument or a variable cannot be passed on to any process.
    #[error("plugin {path:?} cannot be given {what}: {reason}")]
    BadArgument {
        /// The path that was to be executed.
        path: PathBuf,
        /// Which one, in words.
        what: String,
        /// The problem.
        reason: &'static str,
    },
    /// The host, or the whole system, has no descriptor left.
    #[error(
        "plugin {path:?} needs up to {needed} free descriptors ({error}; this process may have {limit}): \
         run fewer plugins or raise the limit with `ulimit -n`"
    )]
    TooManyDescriptors {
        /// The absolute path that was to be executed.
        path: PathBuf,
        /// Number of descriptors that a start uses at its peak.
        needed: u64,
        /// Number of descriptors that this process may have, `RLIMIT_NOFILE`.
        limit: u64,
        /// Error of the kernel.
        error: io::Error,
    },
    /// The limit of processes is reached.
    #[error(
        "plugin {path:?} cannot be started: the limit of processes is reached ({error}): end some, or raise the limit of the \
         user (`ulimit -u`, {} here), of the container (`--pids-limit`) or of the service (TasksMax=)",
        limit.map_or("unlimited".to_owned(), |limit| limit.to_string())
    )]
    TooManyProcesses {
        /// The absolute path that was to be executed.
        path: PathBuf,
        /// Number of processes and threads that the user may have, `RLIMIT_NPROC`; `None` for any
        /// number.
        limit: Option<u64>,
        /// Error of the kernel.
        error: io::Error,
    },
    /// The client of the launcher is not installed.
    #[error(
        "plugin {path:?} was not started: there is no program {client:?}; install it, or add its directory to `PATH`"
    )]
    NoClient {
        /// The plugin's path, where it runs.
        path: PathBuf,
        /// Name of the client.
        client: String,
    },
    /// The launcher could not start the plugin.
    #[error("plugin {path:?} was not started {launcher}: {}", Escaped(problem))]
    Launcher {
        /// The plugin's path, where it runs.
        path: PathBuf,
        /// Launcher of the plugin: [`Launcher::describe`](crate::launcher::Launcher::describe).
        launcher: String,
        /// The problem, and what to do.
        problem: String,
        /// True if another start would fail the same way.
        is_permanent: bool,
    },
    /// The file is not the one that was pinned.
    #[error(
        "plugin {path:?} is not the file that was pinned: its SHA-256 is {found}, and {expected} is {}; nothing was started",
        demanded(lock_file.as_deref())
    )]
    SumMismatch {
        /// The absolute path that was to be executed.
        path: PathBuf,
        /// The sum that was demanded.
        expected: Sha256,
        /// The file's.
        found: Sha256,
        /// The lock file that demanded it, if it was one.
        lock_file: Option<PathBuf>,
    },
    /// The lock file does not have it.
    #[error(
        "plugin {path:?} is not pinned in {lock_file:?}, nothing was started; `pipeplug pin` adds one that is to be trusted"
    )]
    NotPinned {
        /// The absolute path that was to be executed.
        path: PathBuf,
        /// The lock file.
        lock_file: PathBuf,
    },
    /// The lock file cannot be read.
    #[error("plugin {path:?} was not started: {error}")]
    LockFile {
        /// The absolute path that was to be executed.
        path: PathBuf,
        /// The problem.
        error: LockFileError,
    },
    /// This system cannot confine the guest as demanded.
    #[error("plugin {path:?} was not started: its sandbox is not available: {problem}")]
    Sandbox {
        /// The absolute path that was to be executed.
        path: PathBuf,
        /// The problem, and what to do.
        problem: String,
    },
    /// A file or directory cannot be granted to it, or it needs one that was not.
    #[error("plugin {path:?} was not started in its sandbox: {problem}")]
    Grant {
        /// The absolute path that was to be executed.
        path: PathBuf,
        /// The problem, and what to do.
        problem: String,
        /// True if another start would fail the same way.
        is_permanent: bool,
    },
    /// The launcher does not enforce a demand.
    #[error(
        "plugin {path:?} was not started {launcher}: {demand} is made only for a plugin that this host starts as a \
         process of its own; leave it out, or start the plugin without what carries it there"
    )]
    NotEnforced {
        /// The plugin's path, where it runs.
        path: PathBuf,
        /// Launcher of the plugin: [`Launcher::describe`](crate::launcher::Launcher::describe).
        launcher: String,
        /// The demand, in words.
        demand: &'static str,
    },
    /// The system refused for another reason.
    #[error("plugin {path:?} cannot be started: {attempt}: {error}")]
    Os {
        /// The path that was to be executed.
        path: PathBuf,
        /// The action that failed.
        attempt: &'static str,
        /// Error of the kernel.
        error: io::Error,
    },
}

impl SpawnError {
    /// Tells whether another attempt would fail the same way: the file, its interpreter or the way
    /// it is started has to be repaired first. A file that is being written, and a lack of system
    /// resources, can pass in a moment.
    #[must_use]
    pub fn is_permanent(&self) -> bool {
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
            | Self::SumMismatch { .. }
            | Self::NotPinned { .. }
            | Self::LockFile { .. }
            | Self::Sandbox { .. }
            | Self::NotEnforced { .. } => true,
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

    /// Error for a plugin that `launcher` could not start, as
    /// [`Launcher::describe`](crate::launcher::Launcher::describe) has it.
    pub fn launcher(
        launch: &Launch,
        launcher: Option<String>,
        problem: impl Into<String>,
        is_permanent: bool,
    ) -> Self {
        Self::Launcher {
            path: launch.program.clone(),
            launcher: launcher.unwrap_or_default(),
            problem: problem.into(),
            is_permanent,
        }
    }
}

/// A string as the kernel takes it; `what` names it where it is none.
pub(super) fn c_string(
    path: &Path,
    what: impl FnOnce() -> String,
    bytes: Vec<u8>,
) -> Result<CString, SpawnError> {
    CString::new(bytes).map_err(|error| SpawnError::BadArgument {
        path: path.to_owned(),
        what: format!("{} ({:?})", what(), String::from_utf8_lossy(&error.into_vec())),
        reason: "it holds a NUL byte",
    })
}

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
