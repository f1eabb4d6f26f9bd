//! Fork and exec.
//!
//! `std::process::Command` with `pre_exec` would nearly do. But it forks with a copy of the memory then (fork.rs says
//! what that costs), and a failed exec is told through a pipe that may be overwritten by the guest's 3 and 4.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::ptr;

use nix::errno::Errno;
use nix::libc;
use nix::sys::resource::{Resource, getrlimit};
use nix::sys::signal::{SigSet, SigmaskHow};
use nix::unistd::{self, Pid};

use super::fork::{Child, Failure, fork};
use super::{Lifeline, Look, OpenImage, Walls, block_until_exit, exit_status};

/// How far the slow way of marking descriptors goes, where there is no close_range(2).
const MARKED_AT_MOST: RawFd = 65_536;

/// The highest signal number of any system; sigaction refuses those that a system does not have.
pub(super) const HIGHEST_SIGNAL: libc::c_int = 64;

/// What to execute: all strings ready in memory, since a child of fork must not allocate.
#[derive(Debug)]
pub(crate) struct Image {
    /// The file, as an absolute path.
    pub(crate) program: CString,
    /// The file as it was checked, to execute in place of what is at the path.
    pub(crate) open: Option<OpenImage>,
    /// All arguments, from `argv[0]` on.
    pub(crate) argv: Vec<CString>,
    /// All of the environment, as `NAME=value`.
    pub(crate) env: Vec<CString>,
    /// The directory to start in, if it is not the host's.
    pub(crate) cwd: Option<CString>,
    /// The process group to start in.
    pub(crate) group: Group,
}

/// Which process group a guest is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Group {
    /// One of its own, which it leads.
    Own,
    /// The host's.
    OfHost,
}

/// Where a start failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// The fork itself.
    Fork,
    /// The process group of the guest.
    ProcessGroup,
    /// What ties the guest to the host.
    Lifeline,
    /// The signal dispositions and mask of the guest.
    Signals,
    /// The descriptors of the guest.
    Descriptors,
    /// The working directory of the guest.
    WorkingDirectory,
    /// The limits of the guest's resources.
    Limits,
    /// The network namespace of the guest.
    Namespace,
    /// What takes privileges away from the guest.
    Privileges,
    /// The walls around files.
    Files,
    /// The filter of system calls.
    SystemCalls,
    /// The exec.
    Exec,
}

impl Step {
    /// The steps that the child can report.
    #[cfg(not(all(target_os = "linux", not(pipeplug_portable))))]
    pub(super) const IN_CHILD: [Self; 11] = [
        Self::ProcessGroup,
        Self::Lifeline,
        Self::Signals,
        Self::Descriptors,
        Self::WorkingDirectory,
        Self::Limits,
        Self::Namespace,
        Self::Privileges,
        Self::Files,
        Self::SystemCalls,
        Self::Exec,
    ];
}

/// A start that failed; no process is left of it.
#[derive(Debug)]
pub(crate) struct ForkExecError {
    pub(crate) step: Step,
    pub(crate) error: io::Error,
}

/// Starts `image`, tied to `lifeline` and within `walls`, with `slots[n]` as its descriptor `n` and no other descriptor.
///
/// The slots must come from `descriptor::lift` or `descriptor::pipe`. Returns once the exec is done.
pub(crate) fn fork_exec(
    image: &Image,
    slots: &[OwnedFd],
    lifeline: Option<&Lifeline>,
    walls: Option<&Walls>,
) -> Result<Pid, ForkExecError> {
    let argv = pointers(&image.argv);
    let env = pointers(&image.env);
    let plan = Plan {
        program: &image.program,
        open: image.open.as_ref(),
        argv: &argv,
        env: &env,
        cwd: image.cwd.as_deref(),
        group: image.group,
        lifeline,
        walls,
        slots,
        descriptor_limit: descriptor_limit(),
    };

    // With every signal blocked across the fork, no handler of the host runs in the child.
    let mask = SigSet::all()
        .thread_swap_mask(SigmaskHow::SIG_SETMASK)
        .map_err(|errno| ForkExecError { step: Step::Fork, error: errno.into() })?;
    let forked = fork(&plan);
    mask.thread_set_mask().expect("a mask that was in force can be set again");

    let (pid, failure) = forked.map_err(|errno| ForkExecError { step: Step::Fork, error: errno.into() })?;
    match failure {
        None => Ok(pid),
        Some(Failure { step, errno }) => {
            // The child is about to exit. Where SIGCHLD is ignored it is gone already, which is as good.
            let _ = block_until_exit(pid);
            if let Some(lifeline) = lifeline {
                lifeline.is_ended();
            }
            let _ = exit_status(pid, Look::Reap);
            Err(ForkExecError { step, error: errno.into() })
        }
    }
}

/// What the child of fork has to do, as plain borrowed memory.
struct Plan<'a> {
    program: &'a CStr,
    open: Option<&'a OpenImage>,
    argv: &'a [*const libc::c_char],
    env: &'a [*const libc::c_char],
    cwd: Option<&'a CStr>,
    group: Group,
    lifeline: Option<&'a Lifeline>,
    walls: Option<&'a Walls>,
    slots: &'a [OwnedFd],
    descriptor_limit: RawFd,
}

impl Child for Plan<'_> {
    fn run(&self) -> Failure {
        match self.prepare() {
            Ok(open) => Failure { step: Step::Exec, errno: self.exec(open) },
            Err(failure) => failure,
        }
    }
}

impl Plan<'_> {
    /// All but the exec; gives the number of the open image, if there is one.
    fn prepare(&self) -> Result<Option<RawFd>, Failure> {
        let at = |step| move |errno| Failure { step, errno };
        if self.group == Group::Own {
            self.lead_group().map_err(at(Step::ProcessGroup))?;
        }
        if let Some(lifeline) = self.lifeline {
            lifeline.tie(self.group).map_err(at(Step::Lifeline))?;
        }
        self.reset_signals().map_err(at(Step::Signals))?;
        let open = self.place_descriptors().map_err(at(Step::Descriptors))?;
        if let Some(cwd) = self.cwd {
            unistd::chdir(cwd).map_err(at(Step::WorkingDirectory))?;
        }
        if let Some(walls) = self.walls {
            walls.raise()?;
        }
        Ok(open)
    }

    /// A guest within walls has a session of its own too: it has no terminal then.
    fn lead_group(&self) -> Result<(), Errno> {
        match self.walls {
            None => unistd::setpgid(Pid::from_raw(0), Pid::from_raw(0)),
            Some(_) => unistd::setsid().map(drop),
        }
    }

    /// Returns only if it fails.
    fn exec(&self, open: Option<RawFd>) -> Errno {
        #[cfg(all(target_os = "linux", not(pipeplug_portable)))]
        if let Some(open) = open {
            return exec_open(open, self.argv, self.env);
        }
        #[cfg(not(all(target_os = "linux", not(pipeplug_portable))))]
        let _ = open;
        // SAFETY: the path and both arrays are NUL-terminated, and outlive the call.
        unsafe { libc::execve(self.program.as_ptr(), self.argv.as_ptr(), self.env.as_ptr()) };
        Errno::last()
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

    /// Gives the number of the open image, if there is one.
    fn place_descriptors(&self) -> Result<Option<RawFd>, Errno> {
        let mut next = 0;
        for slot in self.slots {
            place(slot, next)?;
            next += 1;
        }
        let open = match self.open {
            None => None,
            #[cfg(all(target_os = "linux", not(pipeplug_portable)))]
            Some(OpenImage::Program(fd)) => Some(fd.as_raw_fd()),
            // The kernel hands `/dev/fd/N` to the interpreter, and nothing that is closed by then: execveat(2), BUGS.
            #[cfg(all(target_os = "linux", not(pipeplug_portable)))]
            Some(OpenImage::Script(fd)) => {
                place(fd, next)?;
                next += 1;
                Some(next - 1)
            }
            #[cfg(not(all(target_os = "linux", not(pipeplug_portable))))]
            Some(open) => match *open {},
        };
        close_on_exec_from(next, self.descriptor_limit)?;
        Ok(open)
    }
}

/// Executes an open file; returns only if that fails. Both arrays end with a null pointer.
#[cfg(all(target_os = "linux", not(pipeplug_portable)))]
pub(super) fn exec_open(open: RawFd, argv: &[*const libc::c_char], env: &[*const libc::c_char]) -> Errno {
    let (path, flags) = (c"".as_ptr(), libc::AT_EMPTY_PATH);
    // SAFETY: the empty path, both arrays and what these point to are NUL-terminated, and outlive the call.
    unsafe { libc::syscall(libc::SYS_execveat, open, path, argv.as_ptr(), env.as_ptr(), flags) };
    Errno::last()
}

/// Makes a guest's descriptor of one that is clear of the guest's numbers.
pub(super) fn place(fd: &OwnedFd, number: RawFd) -> Result<(), Errno> {
    // Never the same number twice, so CLOEXEC is off on the copy: see `descriptor::lift`.
    // SAFETY: dup2 takes two integers. What it closes in this copy of the host's table belongs to owners that never run
    // here.
    Errno::result(unsafe { libc::dup2(fd.as_raw_fd(), number) }).map(drop)
}

/// Marks every descriptor from `first` up as CLOEXEC: those that somebody in the host opened without.
pub(super) fn close_on_exec_from(first: RawFd, limit: RawFd) -> Result<(), Errno> {
    #[cfg(all(target_os = "linux", not(pipeplug_portable)))]
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
    let soft = getrlimit(Resource::RLIMIT_NOFILE).map_or(u64::MAX, |(soft, _)| soft);
    RawFd::try_from(soft).map_or(MARKED_AT_MOST, |soft| soft.min(MARKED_AT_MOST))
}

fn pointers(strings: &[CString]) -> Vec<*const libc::c_char> {
    strings.iter().map(|string| string.as_ptr()).chain([ptr::null()]).collect()
}
