//! Fork and exec.
//!
//! `std::process::Command` with `pre_exec` would nearly do. But it forks with a copy of the memory
//! then (fork.rs says what that costs), and a failed exec is told through a pipe that may be
//! overwritten by the guest's 3 and 4.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
#[cfg(all(target_os = "linux", not(pipeplug_portable)))]
use std::os::fd::{BorrowedFd, IntoRawFd as _};
use std::ptr;

use nix::errno::Errno;
use nix::libc;
use nix::sys::resource::{Resource, getrlimit};
use nix::sys::signal::{SigSet, SigmaskHow};
use nix::unistd::{self, Pid};
#[cfg(all(target_os = "linux", not(pipeplug_portable)))]
use nix::{
    fcntl::{OFlag, open},
    sys::signal::{Signal, kill},
    sys::stat::{Mode, SFlag, fstat},
};

use super::fork::{Child, Failure, fork};
use super::{Lifeline, Look, OpenImage, Walls, block_until_exit, exit_status};
#[cfg(all(target_os = "linux", not(pipeplug_portable)))]
use super::{
    fork::{HelperStack, fork_helper},
    namespaces::{Helper, Namespaces, Pids},
};
#[cfg(all(target_os = "linux", not(pipeplug_portable)))]
use crate::access::is_unknown_call;
#[cfg(all(target_os = "linux", not(pipeplug_portable)))]
use crate::wait_status::WaitStatus;

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
    pub(crate) cwd: Option<WorkingDirectory>,
    /// The process group to start in.
    pub(crate) group: Group,
}

/// A directory for a guest to start in.
#[derive(Debug)]
pub(crate) enum WorkingDirectory {
    /// Without it there is no start.
    Demanded(CString),
    /// The host's own, which a guest with a root of its own may not have.
    IfThere(CString),
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
    /// The namespaces of the guest.
    Namespaces,
    /// The user and the group of a user namespace.
    IdMaps,
    /// A file or directory that is let into the root of the guest.
    Grant,
    /// The root file system of the guest.
    Root,
    /// The init of the guest's pid namespace.
    Init,
    /// The `/proc` of the guest.
    Processes,
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
    pub(super) const IN_CHILD: [Self; 16] = [
        Self::ProcessGroup,
        Self::Lifeline,
        Self::Signals,
        Self::Descriptors,
        Self::WorkingDirectory,
        Self::Limits,
        Self::Namespaces,
        Self::IdMaps,
        Self::Grant,
        Self::Root,
        Self::Init,
        Self::Processes,
        Self::Privileges,
        Self::Files,
        Self::SystemCalls,
        Self::Exec,
    ];
}

/// A guest that has been started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Executed {
    pub(crate) pid: Pid,
    /// The init of its pid namespace, a child of the host as well.
    pub(crate) init: Option<Pid>,
}

/// A start that failed; no process is left of it.
#[derive(Debug)]
pub(crate) struct ForkExecError {
    pub(crate) step: Step,
    pub(crate) error: io::Error,
}

/// Starts `image`, tied to `lifeline` and within `walls`, with `slots[n]` as its descriptor `n` and
/// no other descriptor.
///
/// The slots must come from `descriptor::lift` or `descriptor::pipe`. Returns once the exec is
/// done.
pub(crate) fn fork_exec(
    image: &Image,
    slots: &[OwnedFd],
    lifeline: Option<&Lifeline>,
    walls: Option<&Walls>,
) -> Result<Executed, ForkExecError> {
    let argv = pointers(&image.argv);
    let env = pointers(&image.env);
    let plan = Plan {
        program: &image.program,
        open: image.open.as_ref(),
        argv: &argv,
        env: &env,
        cwd: image.cwd.as_ref(),
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
    let started = plan.start();
    mask.thread_set_mask().expect("a mask that was in force can be set again");
    started.map_err(|Failure { step, errno }| ForkExecError { step, error: errno.into() })
}

/// What the child of fork has to do, as plain borrowed memory.
struct Plan<'a> {
    program: &'a CStr,
    open: Option<&'a OpenImage>,
    argv: &'a [*const libc::c_char],
    env: &'a [*const libc::c_char],
    cwd: Option<&'a WorkingDirectory>,
    group: Group,
    lifeline: Option<&'a Lifeline>,
    walls: Option<&'a Walls>,
    slots: &'a [OwnedFd],
    descriptor_limit: RawFd,
}

impl Child for Plan<'_> {
    fn run(&self) -> Result<(), Failure> {
        let open = self.prepare()?;
        Err(Failure { step: Step::Exec, errno: self.exec(open) })
    }
}

impl Plan<'_> {
    /// Every signal must be blocked.
    fn start(&self) -> Result<Executed, Failure> {
        #[cfg(all(target_os = "linux", not(pipeplug_portable)))]
        if let Some(namespaces) = self.walls.and_then(|walls| walls.namespaces.as_ref()) {
            return self.start_within(namespaces);
        }
        let (pid, failure) = fork(self).map_err(|errno| Failure { step: Step::Fork, errno })?;
        match failure {
            None => Ok(Executed { pid, init: None }),
            Some(failure) => {
                // The child is about to exit. Where SIGCHLD is ignored it is gone already, which is
                // as good.
                let _ = block_until_exit(pid);
                if let Some(lifeline) = self.lifeline {
                    lifeline.is_ended();
                }
                let _ = exit_status(pid, Look::Reap);
                Err(failure)
            }
        }
    }

    #[cfg(all(target_os = "linux", not(pipeplug_portable)))]
    fn start_within(&self, namespaces: &Namespaces) -> Result<Executed, Failure> {
        let ruleset = self.walls.and_then(|walls| walls.ruleset.as_ref());
        let pids = fork_within(namespaces, ruleset, self)?;
        match (pids.plugin.pid(), pids.init.pid()) {
            (Some(pid), Some(init)) => Ok(Executed { pid, init: Some(init) }),
            _ => unreachable!("a helper that has not failed has forked both"),
        }
    }

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
        // Ahead of the descriptors: what the helper has opened may have any number.
        #[cfg(all(target_os = "linux", not(pipeplug_portable)))]
        if let Some(walls) = self.walls
            && let Some(namespaces) = &walls.namespaces
        {
            namespaces.finish(walls.ruleset.as_ref())?;
        }
        let open = self.place_descriptors().map_err(at(Step::Descriptors))?;
        self.enter_working_directory().map_err(at(Step::WorkingDirectory))?;
        if let Some(walls) = self.walls {
            walls.raise()?;
        }
        Ok(open)
    }

    fn enter_working_directory(&self) -> Result<(), Errno> {
        match self.cwd {
            None => Ok(()),
            Some(WorkingDirectory::Demanded(dir)) => unistd::chdir(dir.as_c_str()),
            // The root is the working directory by now.
            Some(WorkingDirectory::IfThere(dir)) => {
                let _ = unistd::chdir(dir.as_c_str());
                Ok(())
            }
        }
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
    /// What the host ignores stays ignored (`nohup` relies on that), but for SIGPIPE, which the
    /// Rust runtime ignores, and SIGCHLD, without which a guest could not wait for children of its
    /// own.
    fn reset_signals(&self) -> Result<(), Errno> {
        for signal in 1..=HIGHEST_SIGNAL {
            // SAFETY: a sigaction is integers, a mask and a nullable pointer, for which zero is
            // valid.
            let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
            // SAFETY: a null new action asks only; `action` is there to be written to.
            let asked = unsafe { libc::sigaction(signal, ptr::null(), &raw mut action) };
            // The C library keeps a few numbers to itself, which then are not the host's either.
            if asked != 0 || action.sa_sigaction == libc::SIG_DFL {
                continue;
            }
            if action.sa_sigaction == libc::SIG_IGN
                && signal != libc::SIGPIPE
                && signal != libc::SIGCHLD
            {
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
            // The kernel hands `/dev/fd/N` to the interpreter, and nothing that is closed by then:
            // execveat(2), BUGS.
            #[cfg(all(target_os = "linux", not(pipeplug_portable)))]
            Some(OpenImage::Script(fd)) => {
                place(fd, next)?;
                next += 1;
                Some(next - 1)
            }
            #[cfg(not(all(target_os = "linux", not(pipeplug_portable))))]
            Some(open) => match *open {},
        };
        #[cfg(all(target_os = "linux", not(pipeplug_portable)))]
        if self.walls.is_some_and(|walls| walls.namespaces.is_some()) {
            for number in 0..next {
                take_own_null(number)?;
            }
        }
        close_on_exec_from(next, self.descriptor_limit)?;
        Ok(open)
    }
}

/// Has a guest's `/dev/null` be the one of its own root, which nobody can change. That of the host
/// is on a mount that is written to: its owner, as the guest of a root may be, could change its
/// mode by the descriptor.
#[cfg(all(target_os = "linux", not(pipeplug_portable)))]
fn take_own_null(number: RawFd) -> Result<(), Errno> {
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

/// Forks init and `plugin` within namespaces; no process is left where that fails.
///
/// Every signal must be blocked.
#[cfg(all(target_os = "linux", not(pipeplug_portable)))]
fn fork_within<C: Child>(
    namespaces: &Namespaces,
    ruleset: Option<&super::Ruleset>,
    plugin: &C,
) -> Result<Pids, Failure> {
    let pids = Pids::default();
    let mut stack = HelperStack::new();
    let helper = Helper { namespaces, ruleset, plugin, pids: &pids };
    let (pid, failure) =
        fork_helper(&helper, &mut stack).map_err(|errno| Failure { step: Step::Fork, errno })?;
    // It has ended, or is about to.
    let _ = block_until_exit(pid);
    let status = exit_status(pid, Look::Reap);
    let was_killed = matches!(status, Ok(Some(WaitStatus::Signaled { .. })));
    let failure = match (failure, was_killed) {
        (None, false) => return Ok(pids),
        (Some(failure), _) => failure,
        (None, true) => {
            // A child of it may still have its stack here.
            std::mem::forget(stack);
            Failure { step: Step::Fork, errno: Errno::EINTR }
        }
    };
    end(&pids);
    Err(failure)
}

/// Ends what was forked within namespaces.
#[cfg(all(target_os = "linux", not(pipeplug_portable)))]
fn end(pids: &Pids) {
    // The plugin first: init does not end before all that is inside has been waited for.
    for pid in [pids.plugin.pid(), pids.init.pid()].into_iter().flatten() {
        // It may have ended by itself.
        let _ = kill(pid, Signal::SIGKILL);
        let _ = block_until_exit(pid);
        let _ = exit_status(pid, Look::Reap);
    }
}

/// Tries, in a child, whether this process can make namespaces as these are.
#[cfg(all(target_os = "linux", not(pipeplug_portable)))]
pub(crate) fn try_namespaces(namespaces: &Namespaces) -> Result<(), ForkExecError> {
    struct Try<'a>(&'a Namespaces);

    impl Child for Try<'_> {
        fn run(&self) -> Result<(), Failure> {
            self.0.finish(None)
        }
    }

    let failed = |step, error: io::Error| ForkExecError { step, error };
    let mask = SigSet::all()
        .thread_swap_mask(SigmaskHow::SIG_SETMASK)
        .map_err(|errno| failed(Step::Fork, errno.into()))?;
    let tried = fork_within(namespaces, None, &Try(namespaces));
    mask.thread_set_mask().expect("a mask that was in force can be set again");
    let pids = tried.map_err(|Failure { step, errno }| failed(step, errno.into()))?;
    end(&pids);
    Ok(())
}

/// Executes an open file; returns only if that fails. Both arrays end with a null pointer.
#[cfg(all(target_os = "linux", not(pipeplug_portable)))]
pub(super) fn exec_open(
    open: RawFd,
    argv: &[*const libc::c_char],
    env: &[*const libc::c_char],
) -> Errno {
    let (path, flags) = (c"".as_ptr(), libc::AT_EMPTY_PATH);
    // SAFETY: the empty path, both arrays and what these point to are NUL-terminated, and outlive
    // the call.
    unsafe { libc::syscall(libc::SYS_execveat, open, path, argv.as_ptr(), env.as_ptr(), flags) };
    let errno = Errno::last();
    if is_unknown_call(errno) {
        // Without execveat(2), by the link to the open file, if there is a /proc: proc_pid_fd(5).
        let path = link_of(open);
        // SAFETY: the path, both arrays and what these point to are NUL-terminated, and outlive the
        // call.
        unsafe { libc::execve(path.as_ptr().cast(), argv.as_ptr(), env.as_ptr()) };
    }
    errno
}

/// The path `/proc/self/fd/N` with a NUL at its end, without an allocation.
#[cfg(all(target_os = "linux", not(pipeplug_portable)))]
fn link_of(open: RawFd) -> [u8; 32] {
    const DIRECTORY: &[u8] = b"/proc/self/fd/";
    let mut path = [0; 32];
    let mut digits = [0; 10];
    let mut rest = open.unsigned_abs();
    let mut count = 0;
    // A number of 32 bits has 10 digits at most.
    for digit in &mut digits {
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
        count += 1;
        if rest == 0 {
            break;
        }
    }
    let digits = digits.iter().take(count).rev();
    for (byte, from) in path.iter_mut().zip(DIRECTORY.iter().chain(digits)) {
        *byte = *from;
    }
    path
}

/// Makes a guest's descriptor of one that is clear of the guest's numbers.
pub(super) fn place(fd: &OwnedFd, number: RawFd) -> Result<(), Errno> {
    // Never the same number twice, so CLOEXEC is off on the copy: see `descriptor::lift`.
    // SAFETY: dup2 takes two integers. What it closes in this copy of the host's table belongs to
    // owners that never run here.
    Errno::result(unsafe { libc::dup2(fd.as_raw_fd(), number) }).map(drop)
}

/// Marks every descriptor from `first` up as CLOEXEC: those that somebody in the host opened
/// without.
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
    let soft = getrlimit(Resource::RLIMIT_NOFILE).ok().and_then(|(soft, _)| soft.try_into().ok());
    soft.map_or(MARKED_AT_MOST, |soft: RawFd| soft.min(MARKED_AT_MOST))
}

fn pointers(strings: &[CString]) -> Vec<*const libc::c_char> {
    strings.iter().map(|string| string.as_ptr()).chain([ptr::null()]).collect()
}
