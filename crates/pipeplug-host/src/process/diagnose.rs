//! Diagnosis of a start that failed: from an errno to an error that says what to do.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit};

use super::SpawnErrorKind;
use super::executable::{Executable, Machine};
use crate::files::{Obstacle, is_noexec, kind, may_execute};
use crate::sys::{ForkExecError, StartStep};

/// Number of nested interpreters that Linux follows before ELOOP (exec_binprm).
const INTERPRETER_DEPTH: usize = 5;

/// Number of descriptors that a start uses at its peak.
// Two ends each of four pipes and of the sockets that tie it to the host (in portable builds of the
// pipe that reports a failed exec instead), `/dev/null`, a copy that is clear of the guest's
// numbers.
pub const DESCRIPTORS_NEEDED: u64 = 12;

impl SpawnErrorKind {
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
            StartStep::Fork | StartStep::Exec if errno(&error) == Errno::EAGAIN => {
                Self::TooManyProcesses { limit: limit_of_processes(), error }
            }
            StartStep::Fork => Self::os("forking", error),
            StartStep::ProcessGroup => Self::os("making its process group", error),
            StartStep::KillOnHostExit => Self::os("tying it to the host", error),
            StartStep::Signals => Self::os("resetting its signals", error),
            StartStep::Descriptors => Self::os("placing its descriptors", error),
            StartStep::WorkingDirectory if is_confined && cwd.is_some_and(Path::is_dir) => {
                Self::Grant {
                    problem: format!(
                        "its working directory {:?} was not granted ({error}): `--sandbox-read \
                         DIR` (Sandbox::read) grants it",
                        cwd.unwrap_or(Path::new("."))
                    ),
                    is_permanent: true,
                }
            }
            StartStep::WorkingDirectory => {
                Self::BadWorkingDirectory { cwd: cwd.unwrap_or(Path::new(".")).to_owned(), error }
            }
            StartStep::Limits => Self::os("limiting its resources", error),
            StartStep::Namespaces => Self::os("making its namespaces", error),
            StartStep::IdMaps => Self::os("giving its user namespace a user", error),
            StartStep::Grant | StartStep::Root => {
                let at = at.unwrap_or(path);
                let is_replaced = errno(&error) == Errno::ESTALE;
                let problem = if is_replaced {
                    format!(
                        "{at:?} was replaced by another file while it was granted; start the \
                         plugin again"
                    )
                } else {
                    format!("{at:?} cannot be put into its root file system: {error}")
                };
                Self::Grant { problem, is_permanent: !is_replaced }
            }
            StartStep::Init => Self::os("starting the init of its pid namespace", error),
            StartStep::Processes => Self::os("mounting its /proc", error),
            StartStep::Privileges => Self::os("taking its privileges away", error),
            StartStep::Files => Self::os("confining its files with Landlock", error),
            StartStep::SystemCalls => Self::os("filtering its system calls with seccomp", error),
            StartStep::Exec if is_confined => Self::of_confined_exec(path, error),
            StartStep::Exec => Self::of_exec(path, error),
        }
    }

    /// An error of the system, told apart where there is something to do about it.
    pub(crate) fn os(attempt: &'static str, error: io::Error) -> Self {
        match errno(&error) {
            Errno::EMFILE | Errno::ENFILE => Self::TooManyDescriptors {
                needed: DESCRIPTORS_NEEDED,
                limit: soft_limit(Resource::RLIMIT_NOFILE).unwrap_or(0),
                error,
            },
            _ => Self::Os { attempt, error },
        }
    }

    /// Like [`of_exec`](Self::of_exec), where the interpreter may be there and still out of the
    /// plugin's reach.
    fn of_confined_exec(path: &Path, error: io::Error) -> Self {
        let is_out_of_reach = matches!(errno(&error), Errno::ENOENT | Errno::EACCES | Errno::EPERM);
        match interpreters(path)
            .into_iter()
            .find(|it| it.exists() && !crate::sandbox::is_of_programs(it))
        {
            Some(interpreter) if is_out_of_reach => Self::Grant {
                problem: format!(
                    "its interpreter {interpreter:?} is out of reach ({error}); let it read that, \
                     with all that belongs to it (`--sandbox-read DIR`, Sandbox::read)"
                ),
                is_permanent: true,
            },
            _ => Self::of_exec(path, error),
        }
    }

    /// The error for a regular file that this process may not execute.
    pub(super) fn not_executable(path: &Path, metadata: &fs::Metadata) -> Self {
        let mode = metadata.permissions().mode() & 0o7777;
        match Obstacle::of(path, metadata) {
            Obstacle::FileSystem => Self::NoExec,
            Obstacle::Owner(owner) => Self::NotOurs { mode, owner },
            Obstacle::Mode => Self::NotExecutable { mode },
        }
    }

    pub(crate) fn of_exec(path: &Path, error: io::Error) -> Self {
        match errno(&error) {
            Errno::ENOENT | Errno::ENOTDIR => {
                if let Some(file) = file_on_the_way(path) {
                    return Self::NotADirectory { file };
                }
                if !path.exists() {
                    return Self::NotFound { link_target: fs::read_link(path).ok() };
                }
                match missing_interpreter(path) {
                    Some(interpreter) => Self::MissingInterpreter { interpreter },
                    None => Self::Os { attempt: "executing it", error },
                }
            }
            Errno::EACCES | Errno::EPERM => match fs::metadata(path) {
                Ok(meta) if meta.is_dir() => Self::IsDirectory,
                Ok(meta) if !meta.is_file() => Self::NotAFile { kind: kind(&meta) },
                Ok(meta) if meta.permissions().mode() & 0o111 != 0o111 && !may_execute(path) => {
                    Self::not_executable(path, &meta)
                }
                Ok(_) if is_noexec(path) => Self::NoExec,
                Ok(_) | Err(_) => Self::AccessDenied { error },
            },
            Errno::ENOEXEC | Errno::EINVAL => match Executable::inspect(path) {
                Ok(Executable::Other(found)) => Self::NotAProgram { found },
                Ok(Executable::Elf(elf)) if !elf.machine.is_ours() => Self::WrongArchitecture {
                    found: elf.machine.in_words(),
                    expected: Machine::ours_in_words(),
                },
                Ok(Executable::Elf(_)) => Self::NotAProgram { found: "its ELF header is damaged" },
                Ok(Executable::Script { .. }) => {
                    Self::NotAProgram { found: "the interpreter of its `#!` line is not a program" }
                }
                Err(_) => Self::Os { attempt: "executing it", error },
            },
            Errno::ETXTBSY => Self::Busy,
            _ => Self::os("executing it", error),
        }
    }
}

/// The first interpreter on the way that does not exist.
fn missing_interpreter(path: &Path) -> Option<PathBuf> {
    interpreters(path).into_iter().find(|interpreter| !interpreter.exists())
}

/// Files that the kernel loads to run a program: its interpreter or dynamic loader, the
/// interpreter's own, and so on.
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

fn errno(error: &io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or_default())
}

/// Finds the part of a path that is no directory and has something behind it, if only a `/`.
fn file_on_the_way(path: &Path) -> Option<PathBuf> {
    let ends_as_directory = path.as_os_str().as_encoded_bytes().ends_with(b"/");
    let parts = path.ancestors().skip(usize::from(!ends_as_directory));
    // Without the `/` at its end.
    let parts = parts.map(|part| part.components().collect::<PathBuf>());
    parts.into_iter().find(|part| fs::metadata(part).is_ok_and(|it| !it.is_dir()))
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

/// Number of processes and threads that the user may have. `None` for no limit.
#[cfg(not(target_vendor = "apple"))]
fn limit_of_processes() -> Option<u64> {
    soft_limit(Resource::RLIMIT_NPROC).filter(|soft| *soft != unsigned(nix::libc::RLIM_INFINITY))
}

/// The kernel has the limit there too, but nix does not know it.
#[cfg(target_vendor = "apple")]
fn limit_of_processes() -> Option<u64> {
    None
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn a_limit_of_processes_is_named() {
        let failure = ForkExecError { step: StartStep::Fork, error: Errno::EAGAIN.into() };
        let error = SpawnErrorKind::diagnose(failure, Path::new("/plugin"), None, None, false);
        assert!(!error.is_permanent());
        let said = error.to_string();
        assert!(
            ["ulimit -u", "--pids-limit", "TasksMax="].iter().all(|name| said.contains(name)),
            "{said}"
        );
    }
}
