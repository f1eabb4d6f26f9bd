//! Fork and exec.
//!
//! `std::process::Command` with `pre_exec` would nearly do. But its pipe for exec's errno may well be
//! number 3 or 4 when another thread closes that number at the wrong moment; the guest's own 3 and 4
//! then overwrite it, and a failed start looks like a success. Here that pipe stays clear of the guest's
//! numbers, and also tells which step failed.

use std::ffi::{CStr, CString};
use std::io::{self, PipeReader, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::ptr;

use nix::errno::Errno;
use nix::libc;
use nix::sys::resource::{Resource, getrlimit};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, kill};
use nix::unistd::{self, ForkResult, Pid};

use super::{Look, block_until_exit, descriptor, exit_status};

/// How far the slow way of marking descriptors goes, where there is no close_range(2).
const MARKED_AT_MOST: RawFd = 65_536;

/// The highest signal number of any system; sigaction refuses those that a system does not have.
const HIGHEST_SIGNAL: libc::c_int = 64;

/// What to execute: all strings ready in memory, since a child of fork must not allocate.
#[derive(Debug)]
pub(crate) struct Image {
    /// The file, as an absolute path.
    pub(crate) program: CString,
    /// All arguments, from `argv[0]` on.
    pub(crate) argv: Vec<CString>,
    /// All of the environment, as `NAME=value`.
    pub(crate) env: Vec<CString>,
    /// The directory to start in, if it is not the host's.
    pub(crate) cwd: Option<CString>,
}

/// Where a start failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// Pipes and copies of descriptors, in the host.
    Prepare,
    /// The fork itself.
    Fork,
    /// The process group of the guest.
    ProcessGroup,
    /// The signal dispositions and mask of the guest.
    Signals,
    /// The descriptors of the guest.
    Descriptors,
    /// The working directory of the guest.
    WorkingDirectory,
    /// The exec.
    Exec,
}

impl Step {
    /// The steps that the child can report, at the index that it reports.
    const IN_CHILD: [Self; 5] =
        [Self::ProcessGroup, Self::Signals, Self::Descriptors, Self::WorkingDirectory, Self::Exec];
}

/// A start that failed; no process is left of it.
#[derive(Debug)]
pub(crate) struct ForkExecError {
    pub(crate) step: Step,
    pub(crate) error: io::Error,
}

impl ForkExecError {
    fn at(step: Step) -> impl FnOnce(io::Error) -> Self {
        move |error| Self { step, error }
    }
}

/// Starts `image` as the leader of a process group of its own, with `slots[n]` as its descriptor `n`
/// and no other descriptor.
///
/// The slots must come from `descriptor::lift` or `descriptor::pipe`. Returns once the exec is done.
pub(crate) fn fork_exec(image: &Image, slots: &[OwnedFd]) -> Result<Pid, ForkExecError> {
    let (report_reader, report_writer) = descriptor::pipe().map_err(ForkExecError::at(Step::Prepare))?;
    let argv = pointers(&image.argv);
    let env = pointers(&image.env);
    let plan = Plan {
        program: &image.program,
        argv: &argv,
        env: &env,
        cwd: image.cwd.as_deref(),
        slots,
        descriptor_limit: descriptor_limit(),
        report: report_writer.as_fd(),
    };

    // With every signal blocked across the fork, no handler of the host runs in the child.
    let mask = SigSet::all()
        .thread_swap_mask(SigmaskHow::SIG_SETMASK)
        .map_err(|errno| ForkExecError { step: Step::Fork, error: errno.into() })?;
    // SAFETY: the child calls async-signal-safe functions only, and ends in exec or _exit: see `Plan::run`.
    let forked = unsafe { unistd::fork() };
    if let Ok(ForkResult::Child) = forked {
        plan.run();
    }
    mask.thread_set_mask().expect("a mask that was in force can be set again");

    let pid = match forked {
        Ok(ForkResult::Parent { child }) => child,
        Ok(ForkResult::Child) => unreachable!("the child has left through exec or _exit"),
        Err(errno) => return Err(ForkExecError { step: Step::Fork, error: errno.into() }),
    };
    drop(report_writer);
    match read_report(report_reader.into()) {
        None => Ok(pid),
        Some(failure) => {
            if failure.step == Step::Prepare {
                // The report could not be read, so the child may have got as far as its exec.
                let _ = kill(pid, Signal::SIGKILL);
            }
            // The child is about to exit. Where SIGCHLD is ignored it is gone already, which is as good.
            let _ = block_until_exit(pid);
            let _ = exit_status(pid, Look::Reap);
            Err(failure)
        }
    }
}

/// What the child of fork has to do, as plain borrowed memory.
struct Plan<'a> {
    program: &'a CStr,
    argv: &'a [*const libc::c_char],
    env: &'a [*const libc::c_char],
    cwd: Option<&'a CStr>,
    slots: &'a [OwnedFd],
    descriptor_limit: RawFd,
    report: BorrowedFd<'a>,
}

impl Plan<'_> {
    /// The child's whole life. No allocation, no lock, no panic, no destructor: other threads of the
    /// host may have held any lock at the moment of the fork.
    fn run(&self) -> ! {
        let (step, errno) = self.become_guest();
        let index = Step::IN_CHILD.iter().position(|known| *known == step).unwrap_or_default();
        let mut report = [0; 8];
        report[..4].copy_from_slice(&(index as u32).to_ne_bytes());
        report[4..].copy_from_slice(&(errno as i32).to_ne_bytes());
        // The host is not there any more if this fails, and there is nobody else to tell.
        let _ = unistd::write(self.report, &report);
        // SAFETY: _exit takes an integer and does not return; it runs no handlers of the host.
        unsafe { libc::_exit(127) }
    }

    /// Returns only if a step fails.
    fn become_guest(&self) -> (Step, Errno) {
        if let Err(errno) = unistd::setpgid(Pid::from_raw(0), Pid::from_raw(0)) {
            return (Step::ProcessGroup, errno);
        }
        if let Err(errno) = self.reset_signals() {
            return (Step::Signals, errno);
        }
        if let Err(errno) = self.place_descriptors() {
            return (Step::Descriptors, errno);
        }
        if let Some(cwd) = self.cwd
            && let Err(errno) = unistd::chdir(cwd)
        {
            return (Step::WorkingDirectory, errno);
        }
        // SAFETY: the path and both arrays are NUL-terminated, and live in memory that the fork copied.
        unsafe { libc::execve(self.program.as_ptr(), self.argv.as_ptr(), self.env.as_ptr()) };
        (Step::Exec, Errno::last())
    }

    /// Gives the guest the dispositions of a process that a shell starts, and an empty mask.
    ///
    /// What the host ignores stays ignored (`nohup` relies on that), but for SIGPIPE, which the Rust
    /// runtime ignores, and SIGCHLD, without which a guest could not wait for children of its own.
    fn reset_signals(&self) -> Result<(), Errno> {
        for signal in 1..=HIGHEST_SIGNAL {
            // SAFETY: a sigaction is integers, a mask and a nullable pointer, for which zero is valid.
            let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
            // SAFETY: a null new action asks only; `action` is there to be written to.
            let asked = unsafe { libc::sigaction(signal, ptr::null(), &raw mut action) };
            // The C library keeps a few numbers to itself, which then are not the host's either.
            if asked != 0 || action.sa_sigaction == libc::SIG_DFL {
                continue;
            }
            if action.sa_sigaction == libc::SIG_IGN && signal != libc::SIGPIPE && signal != libc::SIGCHLD {
                continue;
            }
            action.sa_sigaction = libc::SIG_DFL;
            action.sa_flags = 0;
            // SAFETY: `action` is a valid disposition, and a null old action is not written to.
            let set = unsafe { libc::sigaction(signal, &raw const action, ptr::null_mut()) };
            Errno::result(set)?;
        }
        SigSet::empty().thread_set_mask()
    }

    fn place_descriptors(&self) -> Result<(), Errno> {
        let mut next = 0;
        for slot in self.slots {
            // Never the same number twice, so CLOEXEC is off on the copy: see `descriptor::lift`.
            // SAFETY: dup2 takes two integers. What it closes in this copy of the host's table
            // belongs to owners that never run here.
            Errno::result(unsafe { libc::dup2(slot.as_raw_fd(), next) })?;
            next += 1;
        }
        close_on_exec_from(next, self.descriptor_limit)
    }
}

/// Marks every descriptor from `first` up as CLOEXEC: those that somebody in the host opened without.
fn close_on_exec_from(first: RawFd, limit: RawFd) -> Result<(), Errno> {
    #[cfg(all(target_os = "linux", not(pipeplug_portable)))]
    {
        // close_range(2) has CLOSE_RANGE_CLOEXEC since Linux 5.11. Closing at once would close the
        // pipe that reports the exec.
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
fn descriptor_limit() -> RawFd {
    let soft = getrlimit(Resource::RLIMIT_NOFILE).map_or(u64::MAX, |(soft, _)| soft);
    RawFd::try_from(soft).map_or(MARKED_AT_MOST, |soft| soft.min(MARKED_AT_MOST))
}

fn pointers(strings: &[CString]) -> Vec<*const libc::c_char> {
    strings.iter().map(|string| string.as_ptr()).chain([ptr::null()]).collect()
}

/// Blocks until the child has reported a failure, or until exec or death has closed its end.
fn read_report(reader: PipeReader) -> Option<ForkExecError> {
    let mut report = Vec::with_capacity(8);
    if let Err(error) = reader.take(8).read_to_end(&mut report) {
        return Some(ForkExecError { step: Step::Prepare, error });
    }
    // A pipe passes on so small a write whole or not at all: pipe(7), PIPE_BUF.
    let (step, errno) = report.split_first_chunk::<4>()?;
    let errno = i32::from_ne_bytes(*errno.first_chunk::<4>()?);
    let step = Step::IN_CHILD.get(u32::from_ne_bytes(*step) as usize).copied()?;
    Some(ForkExecError { step, error: io::Error::from_raw_os_error(errno) })
}
