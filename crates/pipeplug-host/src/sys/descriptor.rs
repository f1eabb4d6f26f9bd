//! Descriptors that stay clear of the numbers a guest is given.

use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};

use nix::fcntl::{FcntlArg, OFlag, fcntl};

/// The lowest number used for descriptors on their way to a guest.
///
/// A guest is given 0 to 4, and a script that was checked its file as 5. When every source is above
/// them, no `dup2` in the child overwrites a source that is still needed, and none has its source
/// as its target (which would leave CLOEXEC on).
const CLEAR_OF_GUEST: RawFd = 6;

/// Makes a pipe (read end, write end) with both ends CLOEXEC from birth and clear of 0 to 5.
///
/// A host that has closed its 0, 1 or 2 would else get a plugin's pipe there, and `println!` would
/// write into it.
pub(crate) fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let (reader, writer) = io::pipe()?;
    Ok((lift(reader.into())?, lift(writer.into())?))
}

/// Moves a descriptor to a number that no guest is given; CLOEXEC is set on the way.
pub(crate) fn lift(fd: OwnedFd) -> io::Result<OwnedFd> {
    if fd.as_raw_fd() >= CLEAR_OF_GUEST {
        return Ok(fd);
    }
    let raw = fcntl(&fd, FcntlArg::F_DUPFD_CLOEXEC(CLEAR_OF_GUEST))?;
    // SAFETY: fcntl has just made this descriptor, and nothing else knows of it.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}

/// Sets O_NONBLOCK on the open file behind `fd`, which must be ours alone.
pub(crate) fn set_nonblocking(fd: impl AsFd) -> io::Result<()> {
    let flags = OFlag::from_bits_retain(fcntl(&fd, FcntlArg::F_GETFL)?);
    fcntl(&fd, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    Ok(())
}
