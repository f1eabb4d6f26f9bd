//! Taking over descriptors that the host handed down as numbers.

use std::io;
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd};

use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
use nix::sys::stat::{SFlag, fstat};

/// Access mode of a descriptor: whether it can be read or written.
pub(crate) fn access_mode(number: i32) -> io::Result<OFlag> {
    // SAFETY: the descriptor is only asked for its flags, and fcntl(2) itself says whether there is
    // one.
    let fd = unsafe { BorrowedFd::borrow_raw(number) };
    let flags = OFlag::from_bits_retain(fcntl(fd, FcntlArg::F_GETFL)?);
    Ok(flags & OFlag::O_ACCMODE)
}

/// The kind of file that a descriptor is of, as in `S_IFMT`.
pub(crate) fn file_kind(number: i32) -> io::Result<SFlag> {
    // SAFETY: the descriptor is only asked for its file's status, and fstat(2) itself says whether
    // there is one.
    let fd = unsafe { BorrowedFd::borrow_raw(number) };
    Ok(SFlag::from_bits_truncate(fstat(fd)?.st_mode & SFlag::S_IFMT.bits()))
}

/// Makes a descriptor that came by number ours, and keeps it from processes that this one starts.
pub(crate) fn adopt(number: i32) -> io::Result<OwnedFd> {
    access_mode(number)?;
    // SAFETY: it is open, as was just asked, and it was made for this process by its host, which
    // passed its number.
    let fd = unsafe { OwnedFd::from_raw_fd(number) };
    fcntl(&fd, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
    Ok(fd)
}

/// Copies a descriptor to a number above the standard ones, kept from processes that this one starts.
pub(crate) fn copy_up(number: i32) -> io::Result<OwnedFd> {
    // SAFETY: the descriptor is only copied, and fcntl(2) itself says whether there is one.
    let fd = unsafe { BorrowedFd::borrow_raw(number) };
    let copy = fcntl(fd, FcntlArg::F_DUPFD_CLOEXEC(3))?;
    // SAFETY: fcntl(2) just made it, so there is no other owner.
    Ok(unsafe { OwnedFd::from_raw_fd(copy) })
}
