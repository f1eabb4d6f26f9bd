//! Stdin and stdout of a filter between pipes.

use std::io::{self, Read};
use std::os::fd::AsFd as _;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd;

use crate::exit::{CommandError, ExitReason};
use crate::output::stream::{Stream, WriteError};

/// Stdin, with an eye on stdout: a read fails with [`io::ErrorKind::BrokenPipe`] as soon as the
/// reader of stdout is gone. A filter that only noticed at its next write would keep a pipeline
/// from ending.
#[derive(Debug)]
pub(super) struct Input;

impl Read for Input {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let (stdin, stdout) = (io::stdin(), io::stdout());
        loop {
            let mut fds = [
                PollFd::new(stdin.as_fd(), PollFlags::POLLIN),
                // An end is told unasked: poll(2).
                PollFd::new(stdout.as_fd(), PollFlags::empty()),
            ];
            match poll(&mut fds, PollTimeout::NONE) {
                Ok(_) => {}
                Err(Errno::EINTR) => continue,
                Err(errno) => return Err(errno.into()),
            }
            if fds[1].any() == Some(true) {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            match unistd::read(&stdin, buf) {
                // Non-blocking mode: another reader of the same pipe was faster.
                Err(Errno::EAGAIN | Errno::EINTR) => {}
                read => return Ok(read?),
            }
        }
    }
}

/// Makes the error of a failed read. A reader of stdout that is gone is no error.
pub(super) fn not_read(error: &io::Error) -> CommandError {
    match error.kind() {
        io::ErrorKind::BrokenPipe => CommandError::silent(ExitReason::Success),
        _ => CommandError::message(
            ExitReason::Failed,
            format!("stdin cannot be read: {error}; connect it to a file or a pipe"),
        ),
    }
}

/// Writes a chunk to stdout in as few writes as the system allows: one, into a pipe with room for
/// it (docs/protocol.md, "Writes of the classic format").
pub(super) fn write_chunk(bytes: &[u8]) -> Result<(), CommandError> {
    let stdout = io::stdout();
    grow(bytes.len());
    let mut rest = bytes;
    while !rest.is_empty() {
        let error = match unistd::write(&stdout, rest) {
            Ok(count) => {
                rest = &rest[count..];
                continue;
            }
            Err(Errno::EINTR) => continue,
            // Non-blocking mode.
            Err(Errno::EAGAIN) => {
                let mut fds = [PollFd::new(stdout.as_fd(), PollFlags::POLLOUT)];
                match poll(&mut fds, PollTimeout::NONE) {
                    Ok(_) | Err(Errno::EINTR) => continue,
                    Err(errno) => errno,
                }
            }
            Err(errno) => errno,
        };
        return Err(CommandError::of_output(Stream::Stdout, &WriteError::System(error.into())));
    }
    Ok(())
}

/// Makes room for this many bytes at once, if stdout is a pipe and the system allows it.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn grow(len: usize) {
    use nix::fcntl::{FcntlArg, fcntl};

    let stdout = io::stdout();
    // No pipe, or an empty one that takes the chunk as it is.
    let Ok(size) = fcntl(&stdout, FcntlArg::F_GETPIPE_SZ) else { return };
    if let Ok(len) = i32::try_from(len)
        && len > size
    {
        // Without the room the chunk arrives in parts, which only readers of one old package mind.
        let _ = fcntl(&stdout, FcntlArg::F_SETPIPE_SZ(len));
    }
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn grow(_len: usize) {}
