//! Descriptors of a guest, placed in the child of fork.

use std::os::fd::{AsRawFd, OwnedFd, RawFd};
#[cfg(linux_sandbox)]
use std::os::fd::{BorrowedFd, IntoRawFd as _};

use nix::errno::Errno;
use nix::libc;
use nix::sys::resource::{Resource, getrlimit};
#[cfg(linux_sandbox)]
use nix::{
    fcntl::{OFlag, open},
    sys::stat::{Mode, SFlag, fstat},
};

/// Highest descriptor that is marked one by one, without close_range(2).
const MARKED_AT_MOST: RawFd = 65_536;

/// Replaces a guest's `/dev/null` by the one of its own root, which cannot be changed. The host's
/// is on a writable mount: its owner, which a guest with a root may be, could change its mode
/// through the descriptor.
#[cfg(linux_sandbox)]
pub(super) fn take_own_null(number: RawFd) -> Result<(), Errno> {
    // The first memory device and its third minor number: null(4).
    const NULL: libc::dev_t = libc::makedev(1, 3);
    // SAFETY: a guest's descriptor is open here, and stays so up to the exec.
    let fd = unsafe { BorrowedFd::borrow_raw(number) };
    let stat = fstat(fd)?;
    if SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT != SFlag::S_IFCHR
        || stat.st_rdev != NULL
    {
        return Ok(());
    }
    let own = open(c"/dev/null", OFlag::O_RDWR | OFlag::O_CLOEXEC, Mode::empty())?;
    // It is not dropped: closing it is left to the exec, as for all others. Its number is another
    // one, since that is taken.
    // SAFETY: dup2 takes two integers, and what it closes is the host's `/dev/null` in this copy of
    // the table.
    Errno::result(unsafe { libc::dup2(own.into_raw_fd(), number) }).map(drop)
}

/// Makes a guest's descriptor of one that is clear of the guest's numbers.
pub(super) fn place(fd: &OwnedFd, number: RawFd) -> Result<(), Errno> {
    // Never the same number twice, so CLOEXEC is off on the copy: see `descriptor::lift`.
    // SAFETY: dup2 takes two integers. What it closes in this copy of the host's table belongs to
    // owners that never run here.
    Errno::result(unsafe { libc::dup2(fd.as_raw_fd(), number) }).map(drop)
}

/// Marks every descriptor from `first` up as CLOEXEC, for those that other code of the host opened
/// without it.
pub(super) fn close_on_exec_from(first: RawFd, limit: RawFd) -> Result<(), Errno> {
    #[cfg(linux_native)]
    {
        // close_range(2) has CLOSE_RANGE_CLOEXEC since Linux 5.11.
        let flags = libc::CLOSE_RANGE_CLOEXEC as libc::c_uint;
        // SAFETY: the call takes three integers and touches no memory.
        if unsafe { libc::syscall(libc::SYS_close_range, first, libc::c_uint::MAX, flags) } == 0 {
            return Ok(());
        }
    }
    for fd in first..limit {
        // SAFETY: fcntl with F_SETFD takes integers and touches no memory.
        let result = Errno::result(unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) });
        if let Err(errno) = result
            && errno != Errno::EBADF
        {
            return Err(errno);
        }
    }
    Ok(())
}

/// One more than the highest number a descriptor can have here, or `MARKED_AT_MOST`.
pub(super) fn descriptor_limit() -> RawFd {
    let soft = getrlimit(Resource::RLIMIT_NOFILE).ok().and_then(|(soft, _)| soft.try_into().ok());
    soft.map_or(MARKED_AT_MOST, |soft: RawFd| soft.min(MARKED_AT_MOST))
}
