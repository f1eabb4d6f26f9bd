//! The status of one child, through `waitid`.
//!
//! nix has a `waitid` too, but it fails for a child that a real-time signal killed, and does so after
//! the kernel has let go of the status.

use std::io;
use std::mem;

use nix::errno::Errno;
use nix::libc;
use nix::unistd::Pid;

use crate::wait_status::WaitStatus;

/// Waits also for a child whose end sends another signal than SIGCHLD, or none: clone(2), `__WALL`.
#[cfg(target_os = "linux")]
const ANY_CHILD: libc::c_int = libc::__WALL;
#[cfg(not(target_os = "linux"))]
const ANY_CHILD: libc::c_int = 0;

/// What a look at a child's status does to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Look {
    /// The child stays a zombie: its process id and group id stay taken.
    Keep,
    /// The child is reaped: from here on its ids may belong to somebody else.
    Reap,
}

/// The status of the child if it has ended, without blocking.
///
/// A child that the kernel no longer knows as ours is `Unknown`.
pub(crate) fn exit_status(pid: Pid, look: Look) -> io::Result<Option<WaitStatus>> {
    let keep = if look == Look::Keep { libc::WNOWAIT } else { 0 };
    waitid(pid, libc::WEXITED | libc::WNOHANG | keep)
}

/// Blocks until the child has ended, and leaves it as a zombie.
pub(crate) fn block_until_exit(pid: Pid) -> io::Result<()> {
    waitid(pid, libc::WEXITED | libc::WNOWAIT).map(drop)
}

/// Blocks until a child has ended that has no exit signal, and reaps it: wait(2), `__WALL`.
#[cfg(all(target_os = "linux", not(pipeplug_portable)))]
pub(super) fn reap_clone(pid: Pid) {
    // A wait of that kind for all children, on another thread, may have been faster, which is as good.
    let _ = waitid(pid, libc::WEXITED | libc::__WALL);
}

fn waitid(pid: Pid, options: libc::c_int) -> io::Result<Option<WaitStatus>> {
    let id = libc::id_t::try_from(pid.as_raw()).expect("a child's process id is positive");
    loop {
        // SAFETY: siginfo_t is integers and pointers only, for which zero is a valid value; waitid(2)
        // asks for si_pid to be zeroed, to tell "nothing yet" from a status under WNOHANG.
        let mut info: libc::siginfo_t = unsafe { mem::zeroed() };
        // SAFETY: `info` is a siginfo_t that outlives the call.
        let result = unsafe { libc::waitid(libc::P_PID, id, &raw mut info, options | ANY_CHILD) };
        match Errno::result(result) {
            Ok(_) => return Ok(status_of(&info)),
            Err(Errno::EINTR) => {}
            Err(Errno::ECHILD) => return Ok(Some(WaitStatus::Unknown)),
            Err(errno) => return Err(errno.into()),
        }
    }
}

fn status_of(info: &libc::siginfo_t) -> Option<WaitStatus> {
    // SAFETY: waitid fills the SIGCHLD fields, or leaves them as zero.
    let pid = unsafe { info.si_pid() };
    if pid == 0 {
        return None;
    }
    // SAFETY: si_pid is set, so this is a SIGCHLD record, which has a status.
    let status = unsafe { info.si_status() };
    Some(match info.si_code {
        libc::CLD_EXITED => WaitStatus::Exited(status),
        libc::CLD_KILLED => WaitStatus::Signaled { signal: status, core_dumped: false },
        libc::CLD_DUMPED => WaitStatus::Signaled { signal: status, core_dumped: true },
        // WEXITED alone was asked for, so stops and continues are not reported.
        _ => WaitStatus::Unknown,
    })
}
