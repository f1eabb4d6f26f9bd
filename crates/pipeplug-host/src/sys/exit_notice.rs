//! A descriptor that becomes readable when a child has ended.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{self, Pid};

use super::{descriptor, wait};
#[cfg(linux_native)]
use crate::files::is_unknown_call;

/// The watcher calls one system function and writes one byte.
const WATCHER_STACK_BYTES: usize = 64 * 1024;

/// Tells that one child has ended, by a descriptor that an event loop can watch.
#[derive(Debug)]
pub(crate) struct ExitNotice {
    fd: OwnedFd,
    source: Source,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    #[cfg(linux_native)]
    Pidfd,
    Watcher,
}

impl ExitNotice {
    /// Starts to watch a child that has not been reaped.
    pub(crate) fn watch(pid: Pid) -> io::Result<Self> {
        #[cfg(linux_native)]
        // Whatever stands in the way of a pidfd (a kernel before 5.3, a seccomp filter, a child
        // that is gone because SIGCHLD is ignored), the watcher does without.
        if let Ok(fd) = pidfd::open(pid) {
            return Ok(Self { fd: descriptor::lift(fd)?, source: Source::Pidfd });
        }
        Self::watch_by_thread(pid)
    }

    fn watch_by_thread(pid: Pid) -> io::Result<Self> {
        let (reader, writer) = descriptor::pipe()?;
        thread::Builder::new().name(format!("wait-{pid}")).stack_size(WATCHER_STACK_BYTES).spawn(
            move || {
                // However the wait ends, there is no more to wait for.
                let _ = wait::block_until_exit(pid);
                // A byte as well as the end of file: epoll reports the latter as a hang-up only.
                // The write fails only without a reader, and then no one waits.
                let _ = unistd::write(&writer, &[0]);
            },
        )?;
        Ok(Self { fd: reader, source: Source::Watcher })
    }

    /// The pidfd, where that is what tells.
    pub(crate) fn pidfd(&self) -> Option<BorrowedFd<'_>> {
        match self.source {
            #[cfg(linux_native)]
            Source::Pidfd => Some(self.fd.as_fd()),
            Source::Watcher => None,
        }
    }

    /// Sends the child, which is `pid` and has not been reaped, a signal.
    pub(crate) fn send(&self, pid: Pid, signal: Signal) -> Result<(), Errno> {
        match self.source {
            // Where SIGCHLD is ignored, the number may be another's by now.
            #[cfg(linux_native)]
            Source::Pidfd => match pidfd::send(&self.fd, signal) {
                // A filter may know pidfd_open(2) and not this. A child that has not ended is the
                // owner of its number.
                Err(errno) if is_unknown_call(errno) => {
                    match poll_readable(self.fd.as_fd(), Duration::ZERO) {
                        Ok(true) => Err(Errno::ESRCH),
                        Ok(false) | Err(_) => kill(pid, signal),
                    }
                }
                sent => sent,
            },
            Source::Watcher => kill(pid, signal),
        }
    }

    /// Blocks until the child has ended or `timeout` is over, and tells which it was: `true` for
    /// ended.
    pub(crate) fn wait(&self, timeout: Duration) -> io::Result<bool> {
        poll_readable(self.fd.as_fd(), timeout)
    }
}

/// Blocks until there is something to read or `timeout` is over, and tells which it was: `true` for
/// the former.
pub(crate) fn poll_readable(fd: BorrowedFd<'_>, timeout: Duration) -> io::Result<bool> {
    // A timeout past what the clock can count is no timeout.
    let deadline = Instant::now().checked_add(timeout);
    loop {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let mut fds = [PollFd::new(fd, PollFlags::POLLIN)];
        match poll(&mut fds, left.map_or(PollTimeout::NONE, poll_timeout)) {
            Ok(0) if left.is_some_and(|left| left.is_zero()) => return Ok(false),
            // The step was cut short: poll's clock is an i32 of milliseconds.
            Ok(0) | Err(Errno::EINTR) => {}
            Ok(_) => return Ok(true),
            Err(errno) => return Err(errno.into()),
        }
    }
}

impl AsFd for ExitNotice {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Rounds up, so that the last fraction of a millisecond is slept through and not spun.
fn poll_timeout(left: Duration) -> PollTimeout {
    let millis = left.as_nanos().div_ceil(1_000_000);
    i32::try_from(millis)
        .ok()
        .and_then(|millis| PollTimeout::try_from(millis).ok())
        .unwrap_or(PollTimeout::MAX)
}

/// Any process as a descriptor, which becomes readable when it has ended.
#[cfg(target_os = "linux")]
pub(crate) fn pidfd_open(pid: Pid) -> io::Result<OwnedFd> {
    pidfd::open(pid)
}

#[cfg(target_os = "linux")]
mod pidfd {
    use std::io;
    use std::os::fd::{FromRawFd, OwnedFd, RawFd};

    use nix::errno::Errno;
    use nix::libc;
    use nix::unistd::Pid;

    /// pidfd_send_signal(2), since Linux 5.1.
    #[cfg(not(pipeplug_portable))]
    pub(super) fn send(pidfd: &OwnedFd, signal: nix::sys::signal::Signal) -> Result<(), Errno> {
        use std::os::fd::AsRawFd as _;

        let (fd, signal) = (pidfd.as_raw_fd(), signal as libc::c_int);
        let info = std::ptr::null::<libc::siginfo_t>();
        // SAFETY: the call takes integers, and a null pointer in place of a record that the kernel
        // then fills by itself.
        Errno::result(unsafe { libc::syscall(libc::SYS_pidfd_send_signal, fd, signal, info, 0) })
            .map(drop)
    }

    /// pidfd_open(2), since Linux 5.3; the descriptor is CLOEXEC.
    pub(super) fn open(pid: Pid) -> io::Result<OwnedFd> {
        // SAFETY: the call takes two integers and touches no memory.
        let result = unsafe { libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), 0) };
        let raw = RawFd::try_from(Errno::result(result)?).expect("a descriptor fits its own type");
        // SAFETY: the kernel has just made this descriptor, and nothing else knows of it.
        Ok(unsafe { OwnedFd::from_raw_fd(raw) })
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::time::Duration;

    use nix::unistd::Pid;

    use super::ExitNotice;

    fn pid_of(child: &std::process::Child) -> Pid {
        Pid::from_raw(i32::try_from(child.id()).unwrap())
    }

    #[test]
    fn the_watcher_thread_tells_of_an_exit_in_every_build() {
        let mut child = Command::new("sleep").arg("1000").spawn().unwrap();
        let notice = ExitNotice::watch_by_thread(pid_of(&child)).unwrap();
        assert!(notice.pidfd().is_none());
        assert!(!notice.wait(Duration::ZERO).unwrap());
        child.kill().unwrap();
        assert!(notice.wait(Duration::from_secs(60)).unwrap());
        child.wait().unwrap();
        assert!(notice.wait(Duration::ZERO).unwrap(), "it stays readable");
    }

    #[test]
    fn a_process_that_is_no_child_counts_as_ended() {
        let mut child = Command::new("true").spawn().unwrap();
        let pid = pid_of(&child);
        child.wait().unwrap();
        assert!(ExitNotice::watch(pid).unwrap().wait(Duration::from_secs(60)).unwrap());
    }
}
