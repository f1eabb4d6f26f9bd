//! The status of one child, through `waitid`.
//!
//! nix has a `waitid` too, but it fails for a child that a real-time signal killed, and does so
//! after the kernel has let go of the status.

use std::io;
use std::mem;
#[cfg(target_os = "linux")]
use std::thread;
use std::time::Duration;
#[cfg(target_os = "linux")]
use std::time::Instant;

use nix::errno::Errno;
use nix::libc;
use nix::unistd::Pid;

use crate::process::WaitStatus;

/// Waits also for a child whose end sends another signal than SIGCHLD, or none: clone(2), `__WALL`.
#[cfg(target_os = "linux")]
const ANY_CHILD: libc::c_int = libc::__WALL;
#[cfg(not(target_os = "linux"))]
const ANY_CHILD: libc::c_int = 0;

/// Effect of reading a child's status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Look {
    /// The child stays a zombie: its process id and group id stay taken.
    Keep,
    /// The child is reaped: from here on its ids may belong to another process.
    Reap,
}

/// The status of the child if it has ended, without blocking.
///
/// A child that the kernel no longer knows as ours is `Unknown`.
pub(crate) fn exit_status(pid: Pid, look: Look) -> io::Result<Option<WaitStatus>> {
    let keep = if look == Look::Keep { libc::WNOWAIT } else { 0 };
    waitid(pid, libc::WEXITED | libc::WNOHANG | keep)
}

/// The signal that has stopped the child, which has not been reaped; `None` where it is not
/// stopped. Takes no news away from a wait elsewhere.
pub(crate) fn stopped_by(pid: Pid) -> Option<i32> {
    let options = libc::WSTOPPED | libc::WNOHANG | libc::WNOWAIT | ANY_CHILD;
    let info = waitid_once(libc::P_PID, pid, options).ok()?;
    ended(&info)?;
    // SAFETY: si_pid is set, so this is a SIGCHLD record, which has a status.
    (info.si_code == libc::CLD_STOPPED).then(|| unsafe { info.si_status() })
}

/// Blocks until the child has ended, and leaves it as a zombie.
pub(crate) fn block_until_exit(pid: Pid) -> io::Result<()> {
    waitid(pid, libc::WEXITED | libc::WNOWAIT).map(drop)
}

/// Reaps what else is a child of this process in a group whose leader, of the same number, has just
/// been reaped: its siblings (clone(2), `CLONE_PARENT`). Waits for those that have not ended yet.
///
/// Without any, it is one system call. A group whose number has been given away meanwhile is left
/// alone: its leader is a child of this process, and found first.
pub(crate) fn reap_group(group: Pid, timeout: Duration) {
    #[cfg(target_os = "linux")]
    {
        let begun = Instant::now();
        let options = libc::WEXITED | libc::WNOHANG | libc::__WALL;
        // ECHILD ends it: there are none.
        while let Ok(found) = waitid_once(libc::P_PGID, group, options | libc::WNOWAIT) {
            match ended(&found) {
                Some(pid) if pid == group => return,
                // A wait for all children, elsewhere in this process, may be faster, which is as
                // good.
                Some(pid) => drop(waitid_once(libc::P_PID, pid, options)),
                None if begun.elapsed() >= timeout => return,
                None => thread::sleep(Duration::from_millis(1)),
            }
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = (group, timeout);
}

/// Blocks until a child has ended that has no exit signal, and reaps it: wait(2), `__WALL`.
#[cfg(linux_native)]
pub(super) fn reap_clone(pid: Pid) {
    // A wait of that kind for all children, on another thread, may have been faster, which is as
    // good.
    let _ = waitid(pid, libc::WEXITED);
}

fn waitid(pid: Pid, options: libc::c_int) -> io::Result<Option<WaitStatus>> {
    loop {
        match waitid_once(libc::P_PID, pid, options | ANY_CHILD) {
            Ok(info) => return Ok(ended(&info).map(|_| status_of(&info))),
            Err(Errno::EINTR) => {}
            Err(Errno::ECHILD) => return Ok(Some(WaitStatus::Unknown)),
            Err(errno) => return Err(errno.into()),
        }
    }
}

fn waitid_once(
    of: libc::idtype_t,
    id: Pid,
    options: libc::c_int,
) -> Result<libc::siginfo_t, Errno> {
    #[cfg_attr(
        target_os = "freebsd",
        expect(clippy::unnecessary_fallible_conversions, reason = "the type is signed there")
    )]
    let id =
        libc::id_t::try_from(id.as_raw()).expect("the number of a child or its group is positive");
    // SAFETY: siginfo_t is integers and pointers only, for which zero is a valid value; waitid(2)
    // asks for si_pid to be zeroed, to tell "nothing yet" from a status under WNOHANG.
    let mut info: libc::siginfo_t = unsafe { mem::zeroed() };
    // SAFETY: `info` is a siginfo_t that outlives the call.
    Errno::result(unsafe { libc::waitid(of, id, &raw mut info, options) }).map(|_| info)
}

/// The child that this tells of, if it tells of one.
fn ended(info: &libc::siginfo_t) -> Option<Pid> {
    // SAFETY: waitid fills the SIGCHLD fields, or leaves them as zero.
    let pid = unsafe { info.si_pid() };
    (pid != 0).then_some(Pid::from_raw(pid))
}

/// Exit status in a `siginfo_t`.
fn status_of(info: &libc::siginfo_t) -> WaitStatus {
    // SAFETY: si_pid is set, so this is a SIGCHLD record, which has a status.
    let status = unsafe { info.si_status() };
    match info.si_code {
        libc::CLD_EXITED => WaitStatus::Exited(status),
        libc::CLD_KILLED => WaitStatus::Signaled { signal: status, core_dumped: false },
        libc::CLD_DUMPED => WaitStatus::Signaled { signal: status, core_dumped: true },
        // WEXITED alone was asked for, so stops and continues are not reported.
        _ => WaitStatus::Unknown,
    }
}
