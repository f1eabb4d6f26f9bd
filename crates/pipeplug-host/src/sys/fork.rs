//! Fork, with the host's memory shared where the system can do that.
//!
//! A fork copies the host's page tables, and then both sides fault on each page that they write to:
//! in a small host that takes as long as loading a small guest, in a large one much longer. On
//! Linux the child runs in the host's own memory instead (`CLONE_VM`), on a stack of its own, while
//! the thread that started it stands still until the exec (`CLONE_VFORK`), as with posix_spawn(3).
//! Descriptors, dispositions, mask and directory are the child's own in either way.

use nix::errno::Errno;
use nix::libc;
use nix::unistd::Pid;

use super::start_step::{ChildFailure, StartStep};

/// Task of the child of a fork.
pub(super) trait Child {
    /// Runs the child: executes a program, or does its work and returns. The child ends then.
    ///
    /// No allocation, no lock, no panic, no destructor: other threads of the host may have held any
    /// lock at the moment of the fork, and what it writes to may be the host's own memory.
    fn run(&self) -> Result<(), ChildFailure>;
}

#[cfg(not(linux_native))]
pub(super) use copied::fork;
#[cfg(linux_sandbox)]
pub(super) use shared::{Forked, HelperStack, fork_helper, fork_sibling};
#[cfg(linux_native)]
pub(super) use shared::{fork, fork_orphan};

#[cfg(linux_native)]
mod shared {
    use std::mem::MaybeUninit;
    use std::ptr;
    use std::sync::atomic::{AtomicI32, Ordering};

    use super::super::wait;
    use super::{Child, ChildFailure, Errno, Pid, StartStep, leave, libc};

    /// Size of the child's stack. At most it holds a signal's disposition, a few frames deep,
    /// perhaps in a wrapper from LD_PRELOAD.
    const STACK_BYTES: usize = 16 * 1024;

    /// Aligned as every ABI wants it.
    #[repr(align(16))]
    struct Stack<const BYTES: usize>(MaybeUninit<[u8; BYTES]>);

    /// Memory for the stack of a [`fork_helper`], which has those of its siblings on it, one after
    /// the other.
    pub(in crate::sys) struct HelperStack(Box<Stack<{ 4 * STACK_BYTES }>>);

    impl HelperStack {
        pub(in crate::sys) fn new() -> Self {
            let stack = Box::new_uninit();
            // SAFETY: the bytes of a stack may have any value, also none.
            Self(unsafe { stack.assume_init() })
        }
    }

    /// The number of a process that was forked, from the moment on that it exists; `None` before.
    ///
    /// The kernel writes it (`CLONE_PARENT_SETTID`), so that it is known even where the process
    /// that forks is killed.
    #[derive(Debug, Default)]
    pub(in crate::sys) struct Forked(AtomicI32);

    impl Forked {
        pub(in crate::sys) fn pid(&self) -> Option<Pid> {
            let raw = self.0.load(Ordering::SeqCst);
            (raw > 0).then(|| Pid::from_raw(raw))
        }
    }

    struct Entry<'a, C> {
        child: &'a C,
        failure: Option<ChildFailure>,
    }

    /// Starts a process that is `child`; returns once it has executed a program or ended, in which
    /// case it may have failed.
    ///
    /// Every signal must be blocked, so that no handler of the host runs in the child.
    pub(crate) fn fork<C: Child>(child: &C) -> Result<(Pid, Option<ChildFailure>), Errno> {
        let mut stack: Stack<STACK_BYTES> = Stack(MaybeUninit::uninit());
        let pid = Forked::default();
        let failure = clone(child, &mut stack, libc::SIGCHLD, &pid)?;
        Ok((pid.pid().expect("a process that was forked has a number"), failure))
    }

    /// Like [`fork`], for a child that forks again, and executes nothing.
    ///
    /// Its end sends no SIGCHLD, and only a wait with `__WALL` sees it: a host that waits for all
    /// of its children does not notice it.
    pub(in crate::sys) fn fork_helper<C: Child>(
        child: &C,
        stack: &mut HelperStack,
    ) -> Result<(Pid, Option<ChildFailure>), Errno> {
        let pid = Forked::default();
        let failure = clone(child, &mut *stack.0, 0, &pid)?;
        Ok((pid.pid().expect("a process that was forked has a number"), failure))
    }

    /// Like [`fork`], for a helper: the new process is a child of the helper's own parent.
    pub(in crate::sys) fn fork_sibling<C: Child>(
        child: &C,
        pid: &Forked,
    ) -> Result<Option<ChildFailure>, Errno> {
        let mut stack: Stack<STACK_BYTES> = Stack(MaybeUninit::uninit());
        clone(child, &mut stack, libc::CLONE_PARENT | libc::SIGCHLD, pid)
    }

    fn clone<C: Child, const BYTES: usize>(
        child: &C,
        stack: &mut Stack<BYTES>,
        flags: libc::c_int,
        pid: &Forked,
    ) -> Result<Option<ChildFailure>, Errno> {
        let mut entry = Entry { child, failure: None };
        let top = stack.0.as_mut_ptr().wrapping_add(1).cast::<libc::c_void>();
        let argument = (&raw mut entry).cast::<libc::c_void>();
        let flags = flags | libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_PARENT_SETTID;
        // SAFETY: CLONE_VFORK has this thread wait until the child has left the memory, so that the
        // stack below `top` and what `argument` points to, which is what `enter` expects, outlive
        // its use of them. Without CLONE_FILES, CLONE_SIGHAND and CLONE_FS it changes nothing else
        // of the host's. The kernel writes one number to `pid`.
        let cloned = unsafe { libc::clone(enter::<C>, top, flags, argument, pid.0.as_ptr()) };
        // The parent goes on only now: CLONE_VFORK orders all that the child wrote before this
        // line.
        Errno::result(cloned)?;
        // SAFETY: `entry` is a live local; the child has written to it, if at all, before its end.
        Ok(unsafe { ptr::read_volatile(&raw const entry.failure) })
    }

    /// Starts a process that is `child`, whose parent is none of this process's but what takes
    /// orphans in; returns once it has executed a program.
    ///
    /// Every signal must be blocked, so that no handler of the host runs in it or in the helper
    /// between.
    pub(crate) fn fork_orphan<C: Child>(child: &C) -> Result<(), ChildFailure> {
        struct Between<'a, C>(&'a C);

        impl<C: Child> Child for Between<'_, C> {
            fn run(&self) -> Result<(), ChildFailure> {
                let (_, failure) = fork(self.0).map_err(at_fork)?;
                failure.map_or(Ok(()), Err)
            }
        }

        let (pid, failure) =
            fork_helper(&Between(child), &mut HelperStack::new()).map_err(at_fork)?;
        wait::reap_clone(pid);
        failure.map_or(Ok(()), Err)
    }

    fn at_fork(errno: Errno) -> ChildFailure {
        ChildFailure { step: StartStep::Fork, errno }
    }

    extern "C" fn enter<C: Child>(argument: *mut libc::c_void) -> libc::c_int {
        // SAFETY: `fork` passes an `Entry<C>`, and stands still while this runs.
        let entry = unsafe { &mut *argument.cast::<Entry<'_, C>>() };
        entry.failure = entry.child.run().err();
        leave()
    }
}

#[cfg(not(linux_native))]
mod copied {
    use std::io::{PipeReader, Read};
    use std::os::fd::AsFd;

    use nix::sys::signal::{Signal, kill};
    use nix::unistd::{self, ForkResult};

    use super::super::descriptor;
    use super::{Child, ChildFailure, Errno, Pid, StartStep, leave};

    /// Starts a process that is `child`; returns once it has executed a program, or with its
    /// failure.
    ///
    /// Every signal must be blocked, so that no handler of the host runs in the child.
    pub(crate) fn fork<C: Child>(child: &C) -> Result<(Pid, Option<ChildFailure>), Errno> {
        let of_system =
            |error: std::io::Error| Errno::from_raw(error.raw_os_error().unwrap_or_default());
        // Clear of the guest's numbers: when another thread closes one of those at the wrong
        // moment, a pipe may get it, and the guest's own 3 and 4 would overwrite the end that
        // reports a failed exec.
        let (reader, writer) = descriptor::pipe().map_err(of_system)?;
        // SAFETY: the child calls async-signal-safe functions only, and ends in exec or _exit: see
        // `Child::run`.
        let pid = match unsafe { unistd::fork() }? {
            ForkResult::Child => {
                if let Err(failure) = child.run() {
                    // If this fails, the host is gone, and there is no one else to report to.
                    let _ = unistd::write(writer.as_fd(), &failure.to_bytes());
                }
                leave()
            }
            ForkResult::Parent { child } => child,
        };
        drop(writer);
        let mut report = Vec::with_capacity(ChildFailure::BYTES);
        // The end of file comes with the exec, or with the child's death.
        match PipeReader::from(reader).read_to_end(&mut report) {
            Ok(_) => Ok((pid, ChildFailure::from_bytes(&report))),
            Err(error) => {
                // The child may have got as far as its exec.
                let _ = kill(pid, Signal::SIGKILL);
                Ok((pid, Some(ChildFailure { step: StartStep::Fork, errno: of_system(error) })))
            }
        }
    }

    impl ChildFailure {
        const BYTES: usize = 8;

        fn to_bytes(self) -> [u8; Self::BYTES] {
            let mut bytes = [0; Self::BYTES];
            bytes[..4].copy_from_slice(&(self.step as i32).to_ne_bytes());
            bytes[4..].copy_from_slice(&(self.errno as i32).to_ne_bytes());
            bytes
        }

        /// `None` for anything but a whole report, which a pipe passes on in one piece: pipe(7),
        /// PIPE_BUF.
        fn from_bytes(bytes: &[u8]) -> Option<Self> {
            let (step, errno) = bytes.split_first_chunk::<4>()?;
            let step = i32::from_ne_bytes(*step);
            let step = StartStep::IN_CHILD.into_iter().find(|known| *known as i32 == step)?;
            Some(Self { step, errno: Errno::from_raw(i32::from_ne_bytes(*errno.first_chunk()?)) })
        }
    }
}

/// Ends the child.
fn leave() -> ! {
    // SAFETY: _exit takes an integer and does not return; it runs no handlers of the host.
    unsafe { libc::_exit(127) }
}
