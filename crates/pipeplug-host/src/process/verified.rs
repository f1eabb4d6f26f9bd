//! Executing what was checked, and nothing else.
//!
//! The file is opened once, and copied into memory that is sealed then (`memfd_create`, `F_ADD_SEALS`); the copy is what
//! is summed and what is executed. Whatever happens to the file's path or content meanwhile, neither changes any more.

use std::path::Path;

use super::{Launch, SpawnError};
use crate::lock_file::LockFile;
use crate::sha256::Sha256;
use crate::sys::OpenImage;

/// A sum that a plugin's file has to have.
struct Demand<'a> {
    sum: Sha256,
    lock_file: Option<&'a Path>,
}

/// A copy of the program that has the sum which was demanded; `None` where none was.
pub(super) fn copy(launch: &Launch, program: &Path) -> Result<Option<OpenImage>, SpawnError> {
    let demands = demands(launch, program)?;
    if demands.is_empty() {
        return Ok(None);
    }
    let (image, found) = sealed::copy(program)?;
    match demands.into_iter().find(|demand| demand.sum != found) {
        None => Ok(Some(image)),
        Some(Demand { sum, lock_file }) => Err(SpawnError::SumMismatch {
            path: program.to_owned(),
            expected: sum,
            found,
            lock_file: lock_file.map(Path::to_owned),
        }),
    }
}

fn demands<'a>(launch: &'a Launch, program: &Path) -> Result<Vec<Demand<'a>>, SpawnError> {
    let mut demands: Vec<_> = launch.sha256.into_iter().map(|sum| Demand { sum, lock_file: None }).collect();
    if let Some(lock_file) = &launch.lock_file {
        let pins = LockFile::open(lock_file)
            .map_err(|error| SpawnError::LockFile { path: program.to_owned(), error })?;
        let sum =
            pins.sum_of(program).map_err(|error| SpawnError::os(program, "finding its directory", error))?;
        let sum = sum.ok_or_else(|| SpawnError::NotPinned {
            path: program.to_owned(),
            lock_file: lock_file.clone(),
        })?;
        demands.push(Demand { sum, lock_file: Some(lock_file) });
    }
    Ok(demands)
}

#[cfg(all(target_os = "linux", not(pipeplug_portable)))]
mod sealed {
    use std::ffi::{CString, OsStr};
    use std::fs::{File, OpenOptions};
    use std::io;
    use std::os::fd::OwnedFd;
    use std::os::unix::ffi::OsStrExt as _;
    use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
    use std::path::Path;

    use nix::fcntl::OFlag;

    use super::super::executable::Executable;
    use super::{OpenImage, Sha256, SpawnError};
    use crate::process::error::may_execute;
    use crate::sys;

    /// The longest name of such memory, in bytes: memfd_create(2).
    const NAME_MAX: usize = 249;

    /// Copies a program into memory that nobody can change.
    pub(super) fn copy(program: &Path) -> Result<(OpenImage, Sha256), SpawnError> {
        let mut file = open(program)?;
        let failed = |attempt| move |error| SpawnError::os(program, attempt, error);
        let mut copy =
            File::from(memory(program.file_name()).map_err(failed("making room for a copy of it"))?);
        let sum = Sha256::copy(&mut file, &mut copy).map_err(failed("copying it"))?;
        sys::memfd::seal(&copy).map_err(failed("sealing the copy of it"))?;
        let kind = Executable::of(&copy).map_err(failed("reading the copy of it"))?;
        let fd = OwnedFd::from(copy);
        let image = match kind {
            Executable::Elf(_) => OpenImage::Program(fd),
            // Whatever the kernel hands it to, by its `#!` line or by what the system is set to, opens it again.
            Executable::Script { .. } | Executable::Other(_) => OpenImage::Script(fd),
        };
        Ok((image, sum))
    }

    /// What is executed has to be a file that this user may execute, as without a check.
    fn open(program: &Path) -> Result<File, SpawnError> {
        // A FIFO would wait for a writer.
        let file = OpenOptions::new()
            .read(true)
            .custom_flags((OFlag::O_NONBLOCK | OFlag::O_NOCTTY).bits())
            .open(program)
            .map_err(|error| SpawnError::of_exec(program, error))?;
        let meta = file.metadata().map_err(|error| SpawnError::os(program, "looking at it", error))?;
        let path = program.to_owned();
        if meta.is_dir() {
            return Err(SpawnError::IsDirectory { path });
        }
        if !meta.is_file() {
            return Err(SpawnError::NotAProgram { path, found: "it is no regular file" });
        }
        if !may_execute(program) {
            return Err(SpawnError::NotExecutable { path, mode: meta.permissions().mode() & 0o7777 });
        }
        Ok(file)
    }

    fn memory(name: Option<&OsStr>) -> io::Result<OwnedFd> {
        let name = name.map_or(&b"plugin"[..], OsStr::as_bytes);
        let name = CString::new(&name[..name.len().min(NAME_MAX)])?;
        sys::memfd::executable(&name)
    }
}

#[cfg(not(all(target_os = "linux", not(pipeplug_portable))))]
mod sealed {
    use std::io;
    use std::path::Path;

    use super::{OpenImage, Sha256, SpawnError};

    /// Other systems cannot execute memory; a path could be swapped behind the check.
    pub(super) fn copy(program: &Path) -> Result<(OpenImage, Sha256), SpawnError> {
        let error = io::Error::new(io::ErrorKind::Unsupported, "that needs Linux");
        Err(SpawnError::os(program, "executing what was checked", error))
    }
}
