//! Examination of a program's file without a start.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use nix::unistd::{Uid, User};

use super::diagnose::interpreters;
use super::executable::{Executable, Machine};
use super::libraries::{self, MissingLibrary};
use super::{EnvPlan, SpawnErrorKind, environment};
use crate::files::{is_noexec, kind, may_execute};

/// Findings about a program's file.
///
/// ```
/// use pipeplug_host::process::{EnvPlan, Examination};
///
/// let shell = Examination::of("/bin/sh", &EnvPlan::default());
/// assert!(shell.problem.is_none() && shell.missing_libraries.is_empty());
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub struct Examination {
    /// Problem that prevents a start, as the error of the start would name it.
    pub problem: Option<SpawnErrorKind>,
    /// Permission bits of the file.
    pub mode: Option<u32>,
    /// Owner of the file, by number and name.
    pub owner: Option<String>,
    /// Kind of the program, in words: `script`, or the machine of an ELF file.
    pub kind: Option<String>,
    /// Interpreter of a script or dynamic loader, then the interpreter's own, and so on.
    pub interpreters: Vec<PathBuf>,
    /// Shared libraries that are missing, those of the last interpreter included.
    pub missing_libraries: Vec<MissingLibrary>,
    /// Variables that are set here, that the program would not get, and that programs of its kind
    /// read.
    pub dropped_variables: Vec<String>,
}

impl Examination {
    /// Examines the program at `path`, which would be started with this environment.
    ///
    /// # Blocking
    /// Reads the files of the program, its interpreter and its libraries.
    #[must_use]
    pub fn of(path: impl AsRef<Path>, env: &EnvPlan) -> Self {
        let path = path.as_ref();
        let metadata = fs::metadata(path);
        let interpreters = interpreters(path);
        let library_path = env.resolve().remove(OsStr::new("LD_LIBRARY_PATH"));
        let files = std::iter::once(path).chain(interpreters.iter().map(PathBuf::as_path));
        let missing_libraries =
            files.flat_map(|file| libraries::missing(file, library_path.as_deref())).collect();
        Self {
            problem: problem(path, &metadata),
            mode: metadata.as_ref().ok().map(|metadata| metadata.permissions().mode() & 0o7777),
            owner: metadata.as_ref().ok().map(|metadata| owner(metadata.uid())),
            kind: Executable::inspect(path).ok().and_then(|executable| match executable {
                Executable::Script { .. } => Some("script".to_owned()),
                Executable::Elf(elf) => Some(elf.machine.in_words()),
                Executable::Other(_) => None,
            }),
            interpreters,
            missing_libraries,
            dropped_variables: environment::dropped(env, path, &[]),
        }
    }
}

/// Returns true if this system has process descriptors (`pidfd_open(2)`, since Linux 5.3). Without
/// them the end of a process is noticed by a thread for each.
#[must_use]
pub fn has_pidfd() -> bool {
    #[cfg(target_os = "linux")]
    return crate::sys::pidfd_open(nix::unistd::Pid::this()).is_ok();
    #[cfg(not(target_os = "linux"))]
    return false;
}

/// The reason why an exec of the file would fail. `None` if no reason is visible.
fn problem(path: &Path, metadata: &io::Result<fs::Metadata>) -> Option<SpawnErrorKind> {
    let metadata = match metadata {
        Ok(metadata) => metadata,
        Err(error) => {
            let error = io::Error::from_raw_os_error(error.raw_os_error().unwrap_or_default());
            return Some(SpawnErrorKind::of_exec(path, error));
        }
    };
    if metadata.is_dir() {
        return Some(SpawnErrorKind::IsDirectory);
    }
    if !metadata.is_file() {
        return Some(SpawnErrorKind::NotAFile { kind: kind(metadata) });
    }
    if !may_execute(path) {
        return Some(SpawnErrorKind::not_executable(path, metadata));
    }
    if is_noexec(path) {
        return Some(SpawnErrorKind::NoExec);
    }
    match Executable::inspect(path) {
        // An unreadable program may be executable.
        Err(_) => None,
        Ok(Executable::Other(found)) => Some(SpawnErrorKind::NotAProgram { found }),
        Ok(Executable::Elf(elf)) if !elf.machine.is_ours() => {
            Some(SpawnErrorKind::WrongArchitecture {
                found: elf.machine.in_words(),
                expected: Machine::ours_in_words(),
            })
        }
        Ok(Executable::Elf(_) | Executable::Script { .. }) => {
            let all = interpreters(path);
            all.iter()
                .find(|it| !it.exists())
                .map(|interpreter| SpawnErrorKind::MissingInterpreter {
                    interpreter: interpreter.clone(),
                })
                .or_else(|| {
                    let denied = all.iter().find(|it| !may_execute(it))?;
                    let error = io::Error::new(
                        io::ErrorKind::PermissionDenied,
                        format!("its interpreter {denied:?} is not executable"),
                    );
                    Some(SpawnErrorKind::AccessDenied { error })
                })
        }
    }
}

fn owner(uid: u32) -> String {
    match User::from_uid(Uid::from_raw(uid)) {
        Ok(Some(user)) => format!("user {uid} ({})", user.name),
        _ => format!("user {uid}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem_of(mode: u32, content: &[u8]) -> String {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), content).unwrap();
        fs::set_permissions(file.path(), fs::Permissions::from_mode(mode)).unwrap();
        let examined = Examination::of(file.path(), &EnvPlan::default());
        assert_eq!(examined.mode, Some(mode));
        examined.problem.map_or_else(|| "none".to_owned(), |problem| problem.to_string())
    }

    #[test]
    fn each_problem_is_found_without_a_start() {
        for (mode, content, said) in [
            (0o755, b"#!/bin/sh\n".as_slice(), "none"),
            (0o644, b"#!/bin/sh\n", "is not executable (mode 0644)"),
            (0o755, b"#!/nonexistent/sh\n", "needs the interpreter \"/nonexistent/sh\""),
            (0o755, b"#!/bin/sh\r\n", "\"/bin/sh\\r\""),
            (0o755, b"echo", "is not a program: it has neither"),
            (0o755, b"", "is not a program: it is empty"),
            (0o755, b"#!/etc/passwd\n", "its interpreter \"/etc/passwd\" is not executable"),
        ] {
            let found = problem_of(mode, content);
            assert!(found.contains(said), "{}: {found}", content.escape_ascii());
        }
        let mut elf = vec![0x7f, b'E', b'L', b'F', 2, 1];
        elf.resize(18, 0);
        elf.extend([0x34, 0x12]);
        assert!(problem_of(0o755, &elf).contains("is built for another machine"));
        let examined = Examination::of("/nonexistent/x", &EnvPlan::default());
        assert!(matches!(examined.problem, Some(SpawnErrorKind::NotFound { .. })));
        let examined = Examination::of("/", &EnvPlan::default());
        assert!(matches!(examined.problem, Some(SpawnErrorKind::IsDirectory)));
    }
}
