//! System calls by number, each tried in a child of its own.

use std::fmt;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::libc;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

/// Time for a call that waits for something that does not come.
const TIMEOUT: Duration = Duration::from_millis(500);

/// The end of a child that has made a system call with all arguments -1, by its `Display` as a test
/// reads it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProbeOutcome {
    /// `ok`
    Success,
    /// Its name: `EPERM`
    Error(Errno),
    /// Its name: `SIGSYS`
    Signal(Signal),
    /// An exit with a code that is no error: `exit`
    Exit,
    /// No end in time: `hang`
    Hang,
}

impl fmt::Display for ProbeOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Success => f.write_str("ok"),
            Self::Error(errno) => write!(f, "{errno:?}"),
            Self::Signal(signal) => f.write_str(signal.as_str()),
            Self::Exit => f.write_str("exit"),
            Self::Hang => f.write_str("hang"),
        }
    }
}

/// Makes the system call with this number, all arguments -1: those that need a pointer or a
/// descriptor fail.
///
/// # Errors
/// No child can be started.
pub fn probe(number: u32) -> Result<ProbeOutcome, Errno> {
    // SAFETY: the child makes system calls only, which a child of a process with threads may.
    let child = unsafe { libc::fork() };
    if child == 0 {
        // It leaves the terminal and the process group, which some calls take for theirs.
        // SAFETY: setsid(2) takes nothing and touches no memory.
        unsafe { libc::setsid() };
        let number = libc::c_long::from(number);
        // SAFETY: -1 is mapped nowhere, so the kernel reads and writes nothing. What happens to
        // this process is what the caller wants to know.
        let result = unsafe { libc::syscall(number, -1, -1, -1, -1, -1, -1) };
        let code = if result == -1 { Errno::last_raw() } else { 0 };
        // SAFETY: _exit(2) takes an integer.
        unsafe { libc::_exit(code) };
    }
    Errno::result(child).and_then(|child| outcome(Pid::from_raw(child)))
}

/// Asks for its process id by the gate of 32-bit programs, which filters of 64-bit numbers misread;
/// `None` on machines that have no such gate.
///
/// # Errors
/// No child can be started.
pub fn probe_foreign() -> Result<Option<ProbeOutcome>, Errno> {
    #[cfg(target_arch = "x86_64")]
    {
        // SAFETY: the child makes system calls only, which a child of a process with threads may.
        let child = unsafe { libc::fork() };
        if child == 0 {
            let pid: i64;
            // SAFETY: getpid of i386, which is number 20, takes nothing and touches no memory. The
            // kernel may clear the registers that are named.
            unsafe {
                std::arch::asm!(
                    "int 0x80",
                    inlateout("rax") 20_i64 => pid,
                    out("r8") _, out("r9") _, out("r10") _, out("r11") _,
                );
            }
            // SAFETY: _exit(2) takes an integer.
            unsafe { libc::_exit(libc::c_int::from(pid <= 0)) };
        }
        Errno::result(child).and_then(|child| outcome(Pid::from_raw(child))).map(Some)
    }
    #[cfg(not(target_arch = "x86_64"))]
    Ok(None)
}

fn outcome(child: Pid) -> Result<ProbeOutcome, Errno> {
    let begun = Instant::now();
    let mut killed = false;
    loop {
        match waitpid(child, Some(WaitPidFlag::WNOHANG))? {
            WaitStatus::Exited(_, 0) => return Ok(ProbeOutcome::Success),
            WaitStatus::Exited(_, code) => {
                let errno = Errno::from_raw(code);
                return Ok(if errno == Errno::UnknownErrno {
                    ProbeOutcome::Exit
                } else {
                    ProbeOutcome::Error(errno)
                });
            }
            WaitStatus::Signaled(..) if killed => return Ok(ProbeOutcome::Hang),
            WaitStatus::Signaled(_, signal, _) => return Ok(ProbeOutcome::Signal(signal)),
            _ if killed => {}
            _ if begun.elapsed() > TIMEOUT => {
                kill(child, Signal::SIGKILL)?;
                killed = true;
            }
            _ => {}
        }
        std::thread::sleep(Duration::from_micros(200));
    }
}
