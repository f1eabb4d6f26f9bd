//! Fork and exec.
//!
//! `std::process::Command` with `pre_exec` would nearly do. But it forks with a copy of the memory
//! then (fork.rs says what that costs), and a failed exec is told through a pipe that may be
//! overwritten by the guest's 3 and 4.

use std::ffi::{CStr, CString};
#[cfg(linux_native)]
use std::os::fd::AsRawFd as _;
use std::os::fd::{OwnedFd, RawFd};
use std::ptr;

use nix::errno::Errno;
use nix::libc;
use nix::sys::signal::{SigSet, SigmaskHow};
use nix::unistd::{self, Pid};

#[cfg(linux_native)]
use super::exec::exec_open;
use super::fork::{Child, fork};
use super::guest_descriptors::{close_on_exec_from, descriptor_limit, place};
use super::start_step::{ChildFailure, ForkExecError, StartStep};
use super::{KillOnHostExit, Look, OpenImage, SandboxPlan, block_until_exit, exit_status};
#[cfg(linux_sandbox)]
use super::{fork_within::fork_within, guest_descriptors::take_own_null, namespaces::Namespaces};

/// The highest signal number of any system; sigaction refuses those that a system does not have.
pub(super) const HIGHEST_SIGNAL: libc::c_int = 64;

/// Program to execute. All strings are ready in memory, since a child of fork must not allocate.
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
    /// A group of its own, which it leads.
    Own,
    /// The host's.
    OfHost,
}

/// A guest that has been started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Executed {
    pub(crate) pid: Pid,
    /// The init of its pid namespace, a child of the host as well.
    pub(crate) init: Option<Pid>,
}

/// Starts `image`, tied to the host by `kill_on_host_exit` and confined by `sandbox`, with
/// `slots[n]` as its descriptor `n` and no other descriptor.
///
/// The slots must come from `descriptor::lift` or `descriptor::pipe`. Returns once the exec is
/// done.
pub(crate) fn fork_exec(
    image: &Image,
    slots: &[OwnedFd],
    kill_on_host_exit: Option<&KillOnHostExit>,
    sandbox: Option<&SandboxPlan>,
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
        kill_on_host_exit,
        sandbox,
        slots,
        descriptor_limit: descriptor_limit(),
    };

    // With every signal blocked across the fork, no handler of the host runs in the child.
    let mask = SigSet::all()
        .thread_swap_mask(SigmaskHow::SIG_SETMASK)
        .map_err(|errno| ForkExecError { step: StartStep::Fork, error: errno.into() })?;
    let started = plan.start();
    mask.thread_set_mask().expect("a mask that was in force can be set again");
    started.map_err(|ChildFailure { step, errno }| ForkExecError { step, error: errno.into() })
}

/// Task of the child of fork, as plain borrowed memory.
struct Plan<'a> {
    program: &'a CStr,
    open: Option<&'a OpenImage>,
    argv: &'a [*const libc::c_char],
    env: &'a [*const libc::c_char],
    cwd: Option<&'a WorkingDirectory>,
    group: Group,
    kill_on_host_exit: Option<&'a KillOnHostExit>,
    sandbox: Option<&'a SandboxPlan>,
    slots: &'a [OwnedFd],
    descriptor_limit: RawFd,
}

impl Child for Plan<'_> {
    fn run(&self) -> Result<(), ChildFailure> {
        let open = self.prepare()?;
        Err(ChildFailure { step: StartStep::Exec, errno: self.exec(open) })
    }
}

impl Plan<'_> {
    /// Every signal must be blocked.
    fn start(&self) -> Result<Executed, ChildFailure> {
        #[cfg(linux_sandbox)]
        if let Some(namespaces) = self.sandbox.and_then(|sandbox| sandbox.namespaces.as_ref()) {
            return self.start_within(namespaces);
        }
        let (pid, failure) =
            fork(self).map_err(|errno| ChildFailure { step: StartStep::Fork, errno })?;
        match failure {
            None => Ok(Executed { pid, init: None }),
            Some(failure) => {
                // The child is about to exit. Where SIGCHLD is ignored it is gone already, which is
                // as good.
                let _ = block_until_exit(pid);
                if let Some(kill_on_host_exit) = self.kill_on_host_exit {
                    kill_on_host_exit.is_ended();
                }
                let _ = exit_status(pid, Look::Reap);
                Err(failure)
            }
        }
    }

    #[cfg(linux_sandbox)]
    fn start_within(&self, namespaces: &Namespaces) -> Result<Executed, ChildFailure> {
        let ruleset = self.sandbox.and_then(|sandbox| sandbox.ruleset.as_ref());
        // Returns after both have executed their programs or none is left, as `fork` does for one
        // process.
        let pids = fork_within(namespaces, ruleset, self)?;
        match (pids.plugin.pid(), pids.init.pid()) {
            (Some(pid), Some(init)) => Ok(Executed { pid, init: Some(init) }),
            _ => unreachable!("a helper that has not failed has forked both"),
        }
    }

    /// All but the exec; gives the number of the open image, if there is one.
    fn prepare(&self) -> Result<Option<RawFd>, ChildFailure> {
        let at = |step| move |errno| ChildFailure { step, errno };
        if self.group == Group::Own {
            self.lead_group().map_err(at(StartStep::ProcessGroup))?;
        }
        if let Some(kill_on_host_exit) = self.kill_on_host_exit {
            kill_on_host_exit.tie(self.group).map_err(at(StartStep::KillOnHostExit))?;
        }
        self.reset_signals().map_err(at(StartStep::Signals))?;
        // Before the descriptors: those that the helper has opened may have any number.
        #[cfg(linux_sandbox)]
        if let Some(sandbox) = self.sandbox
            && let Some(namespaces) = &sandbox.namespaces
        {
            namespaces.finish(sandbox.ruleset.as_ref())?;
        }
        let open = self.place_descriptors().map_err(at(StartStep::Descriptors))?;
        self.enter_working_directory().map_err(at(StartStep::WorkingDirectory))?;
        if let Some(sandbox) = self.sandbox {
            sandbox.apply()?;
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

    /// Makes the guest the leader of its process group. In a sandbox it leads a session too, so it
    /// has no terminal.
    fn lead_group(&self) -> Result<(), Errno> {
        match self.sandbox {
            None => unistd::setpgid(Pid::from_raw(0), Pid::from_raw(0)),
            Some(_) => unistd::setsid().map(drop),
        }
    }

    /// Returns only if it fails.
    fn exec(&self, open: Option<RawFd>) -> Errno {
        #[cfg(linux_native)]
        if let Some(open) = open {
            return exec_open(open, self.argv, self.env);
        }
        #[cfg(not(linux_native))]
        let _ = open;
        // SAFETY: the path and both arrays are NUL-terminated, and outlive the call.
        unsafe { libc::execve(self.program.as_ptr(), self.argv.as_ptr(), self.env.as_ptr()) };
        Errno::last()
    }

    /// Gives the guest the dispositions of a process that a shell starts, and an empty mask.
    ///
    /// Signals that the host ignores stay ignored (`nohup` relies on that), except for SIGPIPE,
    /// which the Rust runtime ignores, and SIGCHLD, without which a guest could not wait for
    /// children of its own.
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
        // Last: a signal that came meanwhile finds the dispositions of the guest, and runs no
        // handler of the host.
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
            #[cfg(linux_native)]
            Some(OpenImage::Program(fd)) => Some(fd.as_raw_fd()),
            // The kernel hands `/dev/fd/N` to the interpreter, and nothing that is closed by then:
            // execveat(2), BUGS.
            #[cfg(linux_native)]
            Some(OpenImage::Script(fd)) => {
                place(fd, next)?;
                next += 1;
                Some(next - 1)
            }
            #[cfg(not(linux_native))]
            Some(open) => match *open {},
        };
        #[cfg(linux_sandbox)]
        if self.sandbox.is_some_and(|sandbox| sandbox.namespaces.is_some()) {
            for number in 0..next {
                take_own_null(number)?;
            }
        }
        close_on_exec_from(next, self.descriptor_limit)?;
        Ok(open)
    }
}

fn pointers(strings: &[CString]) -> Vec<*const libc::c_char> {
    strings.iter().map(|string| string.as_ptr()).chain([ptr::null()]).collect()
}
