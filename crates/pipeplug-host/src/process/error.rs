//! Why a guest could not be started.

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit};
use pipeplug_net::Escaped;
use thiserror::Error;

use super::Launch;
use super::executable::{Executable, Machine};
use crate::access::{Obstacle, is_noexec, may_execute};
use crate::lock_file::LockFileError;
use crate::regular_file::kind;
use crate::sha256::Sha256;
use crate::sys::{ForkExecError, Step};

/// As many interpreters of interpreters as Linux follows before it says ELOOP (exec_binprm).
const INTERPRETER_DEPTH: usize = 5;

/// Why a guest could not be started; no process is left of the attempt.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SpawnError {
    /// There is no such file.
    #[error("no plugin at {path:?}: no such file{}; check the path, `PATH` is not searched", of_link(link_target.as_deref()))]
    NotFound {
        /// The absolute path that was to be executed.
        path: PathBuf,
        /// Where the path points to, if it is a symbolic link.
        link_target: Option<PathBuf>,
    },
    /// Its path leads through a file as if that were a directory.
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
        /// What the file's ELF header says, in words.
        found: String,
        /// What this host is built for, in words.
        expected: String,
    },
    /// The file is nothing that the kernel can execute.
    #[error(
        "plugin {path:?} is not a program: {found}; start a script with a line like `#!/bin/sh`"
    )]
    NotAProgram {
        /// The absolute path that was to be executed.
        path: PathBuf,
        /// What it is, in words.
        found: &'static str,
    },
    /// The path leads to a FIFO, a device or a socket.
    #[error("plugin {path:?} is {kind}, which cannot be executed: {}", instead_of(kind))]
    NotAFile {
        /// The absolute path that was to be executed.
        path: PathBuf,
        /// What it is, in words: `a FIFO`.
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
        /// What its `#!` line or its ELF header names.
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
        /// What the kernel said.
        error: io::Error,
    },
    /// Somebody has the file open for writing.
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
        /// What the kernel said.
        error: io::Error,
    },
    /// An argument or a variable cannot be passed on to any process.
    #[error("plugin {path:?} cannot be given {what}: {reason}")]
    BadArgument {
        /// The path that was to be executed.
        path: PathBuf,
        /// Which one, in words.
        what: String,
        /// What is wrong with it.
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
        /// How many a start uses at its height.
        needed: u64,
        /// How many this process may have open, `RLIMIT_NOFILE`.
        limit: u64,
        /// What the kernel said.
        error: io::Error,
    },
    /// No process can be made.
    #[error(
        "plugin {path:?} cannot be started, for there is a limit of processes ({error}): end some, or raise the limit of the \
         user (`ulimit -u`, {} here), of the container (`--pids-limit`) or of the service (TasksMax=)",
        limit.map_or("unlimited".to_owned(), |limit| limit.to_string())
    )]
    TooManyProcesses {
        /// The absolute path that was to be executed.
        path: PathBuf,
        /// How many processes and threads the user may have, `RLIMIT_NPROC`; `None` for any number.
        limit: Option<u64>,
        /// What the kernel said.
        error: io::Error,
    },
    /// What is to carry it to where it runs is not installed.
    #[error(
        "plugin {path:?} was not started: there is no program {carrier:?}; install it, or add its directory to `PATH`"
    )]
    NoCarrier {
        /// The plugin's path, where it runs.
        path: PathBuf,
        /// What was looked for.
        carrier: String,
    },
    /// It could not be started where it was to run.
    #[error("plugin {path:?} was not started {place}: {}", Escaped(problem))]
    Place {
        /// The plugin's path, where it runs.
        path: PathBuf,
        /// Where it was to run: [`Launcher::describe`](crate::launcher::Launcher::describe).
        place: String,
        /// What is wrong, and what to do.
        problem: String,
        /// Whether another start would end no better.
        is_permanent: bool,
    },
    /// It is not the file that was pinned.
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
        /// What is wrong with it.
        error: LockFileError,
    },
    /// This system cannot confine it as it was demanded.
    #[error("plugin {path:?} was not started, for its sandbox cannot be had: {problem}")]
    Sandbox {
        /// The absolute path that was to be executed.
        path: PathBuf,
        /// What is missing or wrong, and what to do.
        problem: String,
    },
    /// A file or directory cannot be granted to it, or it needs one that was not.
    #[error("plugin {path:?} was not started in its sandbox: {problem}")]
    Grant {
        /// The absolute path that was to be executed.
        path: PathBuf,
        /// What is wrong, and what to do.
        problem: String,
        /// Whether another start would end no better.
        is_permanent: bool,
    },
    /// The launcher does not see to what was demanded.
    #[error(
        "plugin {path:?} was not started {place}: {demand} is made only for a plugin that this host starts as a \
         process of its own; leave it out, or start the plugin without what carries it there"
    )]
    NotEnforced {
        /// The plugin's path, where it runs.
        path: PathBuf,
        /// Where it was to run: [`Launcher::describe`](crate::launcher::Launcher::describe).
        place: String,
        /// What was demanded, in words.
        demand: &'static str,
    },
    /// The system refused for another reason.
    #[error("plugin {path:?} cannot be started: {attempt}: {error}")]
    Os {
        /// The path that was to be executed.
        path: PathBuf,
        /// What was being done.
        attempt: &'static str,
        /// What the kernel said.
        error: io::Error,
    },
}

impl SpawnError {
    /// How many descriptors a start uses at its height: two ends each of four pipes and of the
    /// sockets that tie it to the host (in portable builds of the pipe that reports a failed exec
    /// instead), `/dev/null`, a copy that is clear of the guest's numbers.
    const DESCRIPTORS_NEEDED: u64 = 12;

    /// Whether another attempt would end no better: the file, its interpreter or the way it is
    /// started has to be mended first. A file that is being written, and what the system has too
    /// little of, may be another matter in a moment.
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
            | Self::NoCarrier { .. }
            | Self::SumMismatch { .. }
            | Self::NotPinned { .. }
            | Self::LockFile { .. }
            | Self::Sandbox { .. }
            | Self::NotEnforced { .. } => true,
            Self::Place { is_permanent, .. } | Self::Grant { is_permanent, .. } => *is_permanent,
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

    /// That a plugin cannot be started in a place, as
    /// [`Launcher::describe`](crate::launcher::Launcher::describe) has it.
    pub fn place(
        launch: &Launch,
        place: Option<String>,
        problem: impl Into<String>,
        is_permanent: bool,
    ) -> Self {
        Self::Place {
            path: launch.program.clone(),
            place: place.unwrap_or_default(),
            problem: problem.into(),
            is_permanent,
        }
    }

    /// Finds out why the start of `path` failed, which the errno alone does not tell.
    ///
    /// `at` is what was being put into its root file system.
    pub(super) fn diagnose(
        failure: ForkExecError,
        path: &Path,
        cwd: Option<&Path>,
        at: Option<&Path>,
        is_confined: bool,
    ) -> Self {
        let ForkExecError { step, error } = failure;
        match step {
            Step::Fork | Step::Exec if errno(&error) == Errno::EAGAIN => {
                Self::TooManyProcesses { path: path.to_owned(), limit: limit_of_processes(), error }
            }
            Step::Fork => Self::os(path, "forking", error),
            Step::ProcessGroup => Self::os(path, "making its process group", error),
            Step::Lifeline => Self::os(path, "tying it to the host", error),
            Step::Signals => Self::os(path, "resetting its signals", error),
            Step::Descriptors => Self::os(path, "placing its descriptors", error),
            Step::WorkingDirectory if is_confined && cwd.is_some_and(Path::is_dir) => Self::Grant {
                path: path.to_owned(),
                problem: format!(
                    "its working directory {:?} was not granted ({error}): `--sandbox-read DIR` (Sandbox::read) grants it",
                    cwd.unwrap_or(Path::new("."))
                ),
                is_permanent: true,
            },
            Step::WorkingDirectory => Self::BadWorkingDirectory {
                path: path.to_owned(),
                cwd: cwd.unwrap_or(Path::new(".")).to_owned(),
                error,
            },
            Step::Limits => Self::os(path, "limiting its resources", error),
            Step::Namespaces => Self::os(path, "making its namespaces", error),
            Step::IdMaps => Self::os(path, "giving its user namespace a user", error),
            Step::Grant | Step::Root => {
                let at = at.unwrap_or(path);
                let is_replaced = errno(&error) == Errno::ESTALE;
                let problem = if is_replaced {
                    format!(
                        "{at:?} was replaced by another file while it was let in; start the plugin again"
                    )
                } else {
                    format!("{at:?} cannot be put into its root file system: {error}")
                };
                Self::Grant { path: path.to_owned(), problem, is_permanent: !is_replaced }
            }
            Step::Init => Self::os(path, "starting the init of its pid namespace", error),
            Step::Processes => Self::os(path, "mounting its /proc", error),
            Step::Privileges => Self::os(path, "taking its privileges away", error),
            Step::Files => Self::os(path, "confining its files with Landlock", error),
            Step::SystemCalls => Self::os(path, "filtering its system calls with seccomp", error),
            Step::Exec if is_confined => Self::of_confined_exec(path, error),
            Step::Exec => Self::of_exec(path, error),
        }
    }

    /// An error of the system, told apart where there is something to do about it.
    pub(crate) fn os(path: &Path, attempt: &'static str, error: io::Error) -> Self {
        let path = path.to_owned();
        match errno(&error) {
            Errno::EMFILE | Errno::ENFILE => Self::TooManyDescriptors {
                path,
                needed: Self::DESCRIPTORS_NEEDED,
                limit: soft_limit(Resource::RLIMIT_NOFILE).unwrap_or(0),
                error,
            },
            _ => Self::Os { path, attempt, error },
        }
    }

    /// As [`of_exec`](Self::of_exec), where the interpreter may be there and still out of the
    /// plugin's reach.
    fn of_confined_exec(path: &Path, error: io::Error) -> Self {
        let is_out_of_reach = matches!(errno(&error), Errno::ENOENT | Errno::EACCES | Errno::EPERM);
        match interpreters(path)
            .into_iter()
            .find(|it| it.exists() && !crate::sandbox::is_of_programs(it))
        {
            Some(interpreter) if is_out_of_reach => Self::Grant {
                path: path.to_owned(),
                problem: format!(
                    "its interpreter {interpreter:?} is out of reach ({error}); let it read that, with all that belongs to it \
                     (`--sandbox-read DIR`, Sandbox::read)"
                ),
                is_permanent: true,
            },
            _ => Self::of_exec(path, error),
        }
    }

    /// The error for a regular file that this process may not execute.
    pub(super) fn not_executable(path: &Path, metadata: &fs::Metadata) -> Self {
        let (owned, mode) = (path.to_owned(), metadata.permissions().mode() & 0o7777);
        match Obstacle::of(path, metadata) {
            Obstacle::FileSystem => Self::NoExec { path: owned },
            Obstacle::Owner(owner) => Self::NotOurs { path: owned, mode, owner },
            Obstacle::Mode => Self::NotExecutable { path: owned, mode },
        }
    }

    pub(crate) fn of_exec(path: &Path, error: io::Error) -> Self {
        let owned = path.to_owned();
        match errno(&error) {
            Errno::ENOENT | Errno::ENOTDIR => {
                if let Some(file) = file_on_the_way(path) {
                    return Self::NotADirectory { path: owned, file };
                }
                if !path.exists() {
                    return Self::NotFound { path: owned, link_target: fs::read_link(path).ok() };
                }
                match missing_interpreter(path) {
                    Some(interpreter) => Self::MissingInterpreter { path: owned, interpreter },
                    None => Self::Os { path: owned, attempt: "executing it", error },
                }
            }
            Errno::EACCES | Errno::EPERM => match fs::metadata(path) {
                Ok(meta) if meta.is_dir() => Self::IsDirectory { path: owned },
                Ok(meta) if !meta.is_file() => Self::NotAFile { path: owned, kind: kind(&meta) },
                Ok(meta) if meta.permissions().mode() & 0o111 != 0o111 && !may_execute(path) => {
                    Self::not_executable(path, &meta)
                }
                Ok(_) if is_noexec(path) => Self::NoExec { path: owned },
                Ok(_) | Err(_) => Self::AccessDenied { path: owned, error },
            },
            Errno::ENOEXEC | Errno::EINVAL => match Executable::inspect(path) {
                Ok(Executable::Other(found)) => Self::NotAProgram { path: owned, found },
                Ok(Executable::Elf(elf)) if !elf.machine.is_ours() => Self::WrongArchitecture {
                    path: owned,
                    found: elf.machine.in_words(),
                    expected: Machine::ours_in_words(),
                },
                Ok(Executable::Elf(_)) => {
                    Self::NotAProgram { path: owned, found: "its ELF header is damaged" }
                }
                Ok(Executable::Script { .. }) => Self::NotAProgram {
                    path: owned,
                    found: "the interpreter of its `#!` line is not a program",
                },
                Err(_) => Self::Os { path: owned, attempt: "executing it", error },
            },
            Errno::ETXTBSY => Self::Busy { path: owned },
            _ => Self::os(path, "executing it", error),
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

/// The first interpreter on the way that does not exist.
fn missing_interpreter(path: &Path) -> Option<PathBuf> {
    interpreters(path).into_iter().find(|interpreter| !interpreter.exists())
}

/// What the kernel has to load to run a program: its interpreter or dynamic loader, that of the
/// interpreter, and so on.
pub(crate) fn interpreters(path: &Path) -> Vec<PathBuf> {
    let mut all: Vec<PathBuf> = Vec::new();
    while all.len() < INTERPRETER_DEPTH {
        let inspected = Executable::inspect(all.last().map_or(path, PathBuf::as_path));
        match inspected.ok().as_ref().and_then(Executable::interpreter) {
            Some(next) => all.push(next.to_owned()),
            None => break,
        }
    }
    all
}

fn demanded(lock_file: Option<&Path>) -> String {
    match lock_file {
        None => "what the host demands".to_owned(),
        Some(path) => {
            format!("what {path:?} has (`pipeplug pin` again, if you know why it changed)")
        }
    }
}

fn soft_limit(resource: Resource) -> Option<u64> {
    getrlimit(resource).ok().map(|(soft, _)| unsigned(soft))
}

#[cfg_attr(
    not(target_os = "freebsd"),
    expect(clippy::unnecessary_cast, reason = "a limit is a signed number on FreeBSD")
)]
fn unsigned(limit: nix::libc::rlim_t) -> u64 {
    limit as u64
}

/// Number of processes and threads that the user may have; `None` for any number.
#[cfg(not(target_vendor = "apple"))]
fn limit_of_processes() -> Option<u64> {
    soft_limit(Resource::RLIMIT_NPROC).filter(|soft| *soft != unsigned(nix::libc::RLIM_INFINITY))
}

/// The kernel knows the limit there too, and nix does not.
#[cfg(target_vendor = "apple")]
fn limit_of_processes() -> Option<u64> {
    None
}

fn errno(error: &io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or_default())
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

/// The part of a path that has something behind it, be it a `/` only, and is no directory.
fn file_on_the_way(path: &Path) -> Option<PathBuf> {
    let ends_as_directory = path.as_os_str().as_encoded_bytes().ends_with(b"/");
    let parts = path.ancestors().skip(usize::from(!ends_as_directory));
    // Without the `/` at its end.
    let parts = parts.map(|part| part.components().collect::<PathBuf>());
    parts.into_iter().find(|part| fs::metadata(part).is_ok_and(|it| !it.is_dir()))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn a_limit_of_processes_is_named() {
        let failure = ForkExecError { step: Step::Fork, error: Errno::EAGAIN.into() };
        let error = SpawnError::diagnose(failure, Path::new("/plugin"), None, None, false);
        assert!(!error.is_permanent());
        let said = error.to_string();
        assert!(
            ["ulimit -u", "--pids-limit", "TasksMax="].iter().all(|name| said.contains(name)),
            "{said}"
        );
    }
}
