//! Executing what was checked, and nothing else.
//!
//! The file is opened once, copied into memory, and the copy is sealed (`memfd_create`,
//! `F_ADD_SEALS`). Only then the sealed copy is summed, and it is what is executed: whatever
//! happened to the file, its path, or the memory before the seal (`/proc/PID/fd` gives it to other
//! processes of the same user) is in the sum.

use std::path::Path;

use super::{Launch, SpawnErrorKind};
use crate::integrity::{LockFile, Sha256};
use crate::sys::OpenImage;

/// A sum that a plugin's file has to have.
struct Demand<'a> {
    sum: Sha256,
    lock_file: Option<&'a Path>,
}

/// A copy of the program that has the sum which was demanded; `None` where none was.
pub(super) fn copy(launch: &Launch, program: &Path) -> Result<Option<OpenImage>, SpawnErrorKind> {
    let demands = demands(launch, program)?;
    if demands.is_empty() {
        return Ok(None);
    }
    let (image, found) = sealed::copy(program)?;
    match demands.into_iter().find(|demand| demand.sum != found) {
        None => Ok(Some(image)),
        Some(Demand { sum, lock_file }) => Err(SpawnErrorKind::SumMismatch {
            expected: sum,
            found,
            lock_file: lock_file.map(Path::to_owned),
        }),
    }
}

fn demands<'a>(launch: &'a Launch, program: &Path) -> Result<Vec<Demand<'a>>, SpawnErrorKind> {
    let mut demands: Vec<_> =
        launch.sha256.into_iter().map(|sum| Demand { sum, lock_file: None }).collect();
    if let Some(lock_file) = &launch.lock_file {
        let pins = LockFile::open(lock_file).map_err(|error| SpawnErrorKind::LockFile { error })?;
        let sum = pins
            .sum_of(program)
            .map_err(|error| SpawnErrorKind::os("finding its directory", error))?;
        let sum = sum.ok_or_else(|| SpawnErrorKind::NotPinned { lock_file: lock_file.clone() })?;
        demands.push(Demand { sum, lock_file: Some(lock_file) });
    }
    Ok(demands)
}

#[cfg(linux_native)]
mod sealed {
    use std::ffi::{CString, OsStr};
    use std::fs::File;
    use std::io::{self, Seek as _};
    use std::os::fd::OwnedFd;
    use std::os::unix::ffi::OsStrExt as _;
    use std::path::Path;

    use nix::errno::Errno;

    use super::super::executable::Executable;
    use super::{OpenImage, Sha256, SpawnErrorKind};
    use crate::files::{DIRECTORY, FileError, RegularFile};
    use crate::process::Launch;
    use crate::sys;

    /// The longest name of such memory, in bytes: memfd_create(2).
    const NAME_MAX: usize = 249;

    /// Copies a program into memory that is sealed then, and sums the memory up.
    pub(super) fn copy(program: &Path) -> Result<(OpenImage, Sha256), SpawnErrorKind> {
        let file = open(program)?;
        let failed = |attempt| move |error| SpawnErrorKind::os(attempt, error);
        let mut copy = File::from(
            memory(program.file_name()).map_err(failed("making room for a copy of it"))?,
        );
        file.copy(Launch::CHECKED_SIZE_MAX, &mut copy)
            .map_err(|error| failed("copying it, to check its checksum")(error.into()))?;
        sys::memfd::seal(&copy).map_err(failed("sealing the copy of it"))?;
        // From here on it does not change.
        let sum = copy
            .rewind()
            .and_then(|()| Sha256::of(&mut copy))
            .map_err(failed("computing the checksum of the copy"))?;
        let kind = Executable::of(&copy).map_err(failed("reading the copy of it"))?;
        let fd = OwnedFd::from(copy);
        let image = match kind {
            Executable::Elf(_) => OpenImage::Program(fd),
            // Whatever the kernel hands it to, by its `#!` line or by what the system is set to,
            // opens it again.
            Executable::Script { .. } | Executable::Other(_) => OpenImage::Script(fd),
        };
        Ok((image, sum))
    }

    /// Opens the program. It has to be a file that this user may execute, as without a check.
    fn open(program: &Path) -> Result<RegularFile, SpawnErrorKind> {
        let file = match RegularFile::open(program) {
            Ok(file) => file,
            Err(FileError::System(error)) => return Err(SpawnErrorKind::of_exec(program, error)),
            Err(FileError::NotRegular { found: DIRECTORY }) => {
                return Err(SpawnErrorKind::IsDirectory);
            }
            Err(FileError::NotRegular { found: kind }) => {
                return Err(SpawnErrorKind::NotAFile { kind });
            }
            Err(error) => return Err(SpawnErrorKind::of_exec(program, error.into())),
        };
        if !file.may_execute() {
            return Err(SpawnErrorKind::not_executable(program, file.metadata()));
        }
        Ok(file)
    }

    fn memory(name: Option<&OsStr>) -> io::Result<OwnedFd> {
        let name = name.map_or(&b"plugin"[..], OsStr::as_bytes);
        let name = CString::new(&name[..name.len().min(NAME_MAX)])?;
        sys::memfd::executable(&name).map_err(|error| match Errno::from_raw(error.raw_os_error().unwrap_or(0)) {
            Errno::EPERM | Errno::ENOSYS => io::Error::new(
                error.kind(),
                format!(
                    "memfd_create: {error}; a filter of system calls, as of a container, has to \
                     allow it, since only sealed memory cannot change between the check and the \
                     start"
                ),
            ),
            _ => error,
        })
    }
}

#[cfg(not(linux_native))]
mod sealed {
    use std::io;
    use std::path::Path;

    use super::{OpenImage, Sha256, SpawnErrorKind};

    /// Other systems cannot execute memory; a path could be swapped behind the check.
    pub(super) fn copy(_program: &Path) -> Result<(OpenImage, Sha256), SpawnErrorKind> {
        let error = io::Error::new(io::ErrorKind::Unsupported, "that needs Linux");
        Err(SpawnErrorKind::os("executing what was checked", error))
    }
}
