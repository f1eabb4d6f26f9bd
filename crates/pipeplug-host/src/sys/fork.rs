//! Fork, with the host's memory shared where the system can do that.
//!
//! A fork copies the host's page tables, and then both sides fault on each page that they write to: in a small host that
//! takes as long as loading a small guest, in a large one much longer. On Linux the child runs in the host's own memory
//! instead (`CLONE_VM`), on a stack of its own, while the thread that started it stands still until the exec
//! (`CLONE_VFORK`), as with posix_spawn(3). Descriptors, dispositions, mask and directory are the child's own in either
//! way.

use nix::errno::Errno;
use nix::libc;
use nix::unistd::Pid;

use super::fork_exec::Step;

/// What the child of a fork does.
pub(super) trait Child {
    /// Its whole life: it executes a program, or says why it cannot, and is ended then.
    ///
    /// No allocation, no lock, no panic, no destructor: other threads of the host may have held any lock at the moment
    /// of the fork, and what it writes to may be the host's own memory.
    fn run(&self) -> Failure;
}

/// What a child has to say.
#[derive(Debug, Clone, Copy)]
pub(super) struct Failure {
    pub(super) step: Step,
    pub(super) errno: Errno,
}

#[cfg(not(all(target_os = "linux", not(pipeplug_portable))))]
pub(super) use copied::fork;
#[cfg(all(target_os = "linux", not(pipeplug_portable)))]
pub(super) use shared::{fork, fork_orphan};

#[cfg(all(target_os = "linux", not(pipeplug_portable)))]
mod shared {
    use std::mem::MaybeUninit;
    use std::ptr;

    use super::super::{fork_exec::Step, wait};
    use super::{Child, Errno, Failure, Pid, leave, libc};

    /// What the child has on its stack at the most is a signal's disposition, a few frames deep, perhaps in a wrapper
    /// that LD_PRELOAD put there.
    const STACK_BYTES: usize = 16 * 1024;

    /// Aligned as every ABI wants it.
    #[repr(align(16))]
    struct Stack(MaybeUninit<[u8; STACK_BYTES]>);

    struct Entry<'a, C> {
        child: &'a C,
        failure: Option<Failure>,
    }

    /// Starts a process that is `child`; returns once it has executed a program, or with its failure.
    ///
    /// Every signal must be blocked, so that no handler of the host runs in the child.
    pub(crate) fn fork<C: Child>(child: &C) -> Result<(Pid, Option<Failure>), Errno> {
        let mut stack = Stack(MaybeUninit::uninit());
        let mut entry = Entry { child, failure: None };
        let top = stack.0.as_mut_ptr().wrapping_add(1).cast::<libc::c_void>();
        let argument = (&raw mut entry).cast::<libc::c_void>();
        let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
        // SAFETY: CLONE_VFORK has this thread wait until the child has left the memory, so that the stack below `top`
        // and what `argument` points to, which is what `enter` expects, outlive its use of them. Without CLONE_FILES,
        // CLONE_SIGHAND and CLONE_FS it changes nothing else of the host's.
        let pid = unsafe { libc::clone(enter::<C>, top, flags, argument) };
        let pid = Errno::result(pid).map(Pid::from_raw)?;
        // SAFETY: `entry` is a live local; the child has written to it, if at all, ahead of its end.
        let failure = unsafe { ptr::read_volatile(&raw const entry.failure) };
        Ok((pid, failure))
    }

    struct Between<'a, C> {
        child: &'a C,
        stack: *mut libc::c_void,
        outcome: Result<(), Failure>,
    }

    /// Starts a process that is `child`, whose parent is none of this process's but what takes orphans in; returns once it
    /// has executed a program.
    ///
    /// The process between is a child without an exit signal: no handler of SIGCHLD and no wait for all children takes
    /// notice of it (wait(2), `__WALL`). Every signal must be blocked, so that no handler of the host runs in either.
    pub(crate) fn fork_orphan<C: Child>(child: &C) -> Result<(), Failure> {
        let at_fork = |errno| Failure { step: Step::Fork, errno };
        let mut stacks = Box::new([const { Stack(MaybeUninit::uninit()) }; 2]);
        let [own, next] = &mut *stacks;
        let top = |stack: &mut Stack| stack.0.as_mut_ptr().wrapping_add(1).cast::<libc::c_void>();
        let mut between = Between { child, stack: top(next), outcome: Err(at_fork(Errno::UnknownErrno)) };
        let argument = (&raw mut between).cast::<libc::c_void>();
        // SAFETY: as in `fork`; this thread waits until the process between has ended, and that until its child has left
        // the memory.
        let pid = unsafe {
            libc::clone(enter_between::<C>, top(own), libc::CLONE_VM | libc::CLONE_VFORK, argument)
        };
        let pid = Errno::result(pid).map(Pid::from_raw).map_err(at_fork)?;
        wait::reap_clone(pid);
        // SAFETY: `between` is a live local; the process between has written to it ahead of its end.
        unsafe { ptr::read_volatile(&raw const between.outcome) }
    }

    extern "C" fn enter_between<C: Child>(argument: *mut libc::c_void) -> libc::c_int {
        // SAFETY: `fork_orphan` passes a `Between<C>`, and stands still while this runs.
        let between = unsafe { &mut *argument.cast::<Between<'_, C>>() };
        let mut entry = Entry { child: between.child, failure: None };
        let argument = (&raw mut entry).cast::<libc::c_void>();
        let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
        // SAFETY: as in `fork`; the stack is the second one of `fork_orphan`, and nothing else uses it.
        let pid = unsafe { libc::clone(enter::<C>, between.stack, flags, argument) };
        // SAFETY: `entry` is a live local; the child has written to it, if at all, ahead of its end.
        let failure = unsafe { ptr::read_volatile(&raw const entry.failure) };
        between.outcome = match (Errno::result(pid), failure) {
            (Ok(_), None) => Ok(()),
            (Ok(_), Some(failure)) => Err(failure),
            (Err(errno), _) => Err(Failure { step: Step::Fork, errno }),
        };
        leave()
    }

    extern "C" fn enter<C: Child>(argument: *mut libc::c_void) -> libc::c_int {
        // SAFETY: `fork` passes an `Entry<C>`, and stands still while this runs.
        let entry = unsafe { &mut *argument.cast::<Entry<'_, C>>() };
        entry.failure = Some(entry.child.run());
        leave()
    }
}

#[cfg(not(all(target_os = "linux", not(pipeplug_portable))))]
mod copied {
    use std::io::{PipeReader, Read};
    use std::os::fd::AsFd;

    use nix::sys::signal::{Signal, kill};
    use nix::unistd::{self, ForkResult};

    use super::super::descriptor;
    use super::{Child, Errno, Failure, Pid, Step, leave};

    /// Starts a process that is `child`; returns once it has executed a program, or with its failure.
    ///
    /// Every signal must be blocked, so that no handler of the host runs in the child.
    pub(crate) fn fork<C: Child>(child: &C) -> Result<(Pid, Option<Failure>), Errno> {
        let of_system = |error: std::io::Error| Errno::from_raw(error.raw_os_error().unwrap_or_default());
        // Clear of the guest's numbers: when another thread closes one of those at the wrong moment, a pipe may get it,
        // and the guest's own 3 and 4 would overwrite the end that reports a failed exec.
        let (reader, writer) = descriptor::pipe().map_err(of_system)?;
        // SAFETY: the child calls async-signal-safe functions only, and ends in exec or _exit: see `Child::run`.
        let pid = match unsafe { unistd::fork() }? {
            ForkResult::Child => {
                let failure = child.run();
                // The host is not there any more if this fails, and there is nobody else to tell.
                let _ = unistd::write(writer.as_fd(), &failure.to_bytes());
                leave()
            }
            ForkResult::Parent { child } => child,
        };
        drop(writer);
        let mut report = Vec::with_capacity(Failure::BYTES);
        // The end of file comes with the exec, or with the child's death.
        match PipeReader::from(reader).read_to_end(&mut report) {
            Ok(_) => Ok((pid, Failure::from_bytes(&report))),
            Err(error) => {
                // The child may have got as far as its exec.
                let _ = kill(pid, Signal::SIGKILL);
                Ok((pid, Some(Failure { step: Step::Fork, errno: of_system(error) })))
            }
        }
    }

    impl Failure {
        const BYTES: usize = 8;

        fn to_bytes(self) -> [u8; Self::BYTES] {
            let mut bytes = [0; Self::BYTES];
            bytes[..4].copy_from_slice(&(self.step as i32).to_ne_bytes());
            bytes[4..].copy_from_slice(&(self.errno as i32).to_ne_bytes());
            bytes
        }

        /// `None` for anything but a whole report, which a pipe passes on in one piece: pipe(7), PIPE_BUF.
        fn from_bytes(bytes: &[u8]) -> Option<Self> {
            let (step, errno) = bytes.split_first_chunk::<4>()?;
            let step = i32::from_ne_bytes(*step);
            let step = Step::IN_CHILD.into_iter().find(|known| *known as i32 == step)?;
            Some(Self { step, errno: Errno::from_raw(i32::from_ne_bytes(*errno.first_chunk()?)) })
        }
    }
}

/// Ends the child.
fn leave() -> ! {
    // SAFETY: _exit takes an integer and does not return; it runs no handlers of the host.
    unsafe { libc::_exit(127) }
}
