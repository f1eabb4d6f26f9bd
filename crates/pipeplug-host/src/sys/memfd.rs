//! Files that are memory: memfd_create(2).

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::resource::{Resource, getrlimit};

use super::descriptor::lift;

/// Flag of executable memory, since Linux 6.3, which can be set to refuse memory without a flag.
const MFD_EXEC: MFdFlags = MFdFlags::from_bits_retain(0x10);
/// Flag of memory that is never executed, since Linux 6.3.
const MFD_NOEXEC_SEAL: MFdFlags = MFdFlags::from_bits_retain(0x8);

/// Makes an empty file to execute, clear of the guest's numbers and CLOEXEC.
///
/// # Errors
/// `EACCES` where the system lets no memory be executed (`vm.memfd_noexec`, sysctl/vm.rst).
pub(crate) fn executable(name: &CStr) -> io::Result<OwnedFd> {
    create(name, MFD_EXEC)
}

/// Makes a file of zeros to map, clear of the guest's numbers and CLOEXEC.
pub(super) fn zeros(name: &CStr, bytes: u64) -> io::Result<OwnedFd> {
    check_size(bytes)?;
    let fd = create(name, MFD_NOEXEC_SEAL)?;
    nix::unistd::ftruncate(&fd, bytes.try_into().map_err(io::Error::other)?)?;
    Ok(fd)
}

/// Lets neither the content nor the size of the file change any more.
pub(crate) fn seal(fd: impl AsFd) -> io::Result<()> {
    let seals = SealFlag::F_SEAL_SEAL
        | SealFlag::F_SEAL_SHRINK
        | SealFlag::F_SEAL_GROW
        | SealFlag::F_SEAL_WRITE;
    fcntl(fd, FcntlArg::F_ADD_SEALS(seals))?;
    Ok(())
}

/// Refuses a size over `RLIMIT_FSIZE`, which holds for memory too: going over it would send this
/// process SIGXFSZ.
pub(super) fn check_size(bytes: u64) -> io::Result<()> {
    let (limit, _) = getrlimit(Resource::RLIMIT_FSIZE)?;
    if bytes > limit { Err(Errno::EFBIG.into()) } else { Ok(()) }
}

fn create(name: &CStr, kind: MFdFlags) -> io::Result<OwnedFd> {
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    let made = match memfd_create(name, flags | kind) {
        Err(Errno::EINVAL) => memfd_create(name, flags),
        made => made,
    };
    lift(made?)
}
