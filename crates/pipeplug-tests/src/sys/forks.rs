//! Forked processes, for programs with one thread.

use nix::libc;
use nix::sys::signal::Signal;

/// Relation of a new process to its creator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Relation {
    /// Its child.
    Child,
    /// A child of its parent: `CLONE_PARENT`.
    Sibling,
}

/// Runs `run` in a forked process without descriptors, which then exits. For programs with one
/// thread.
pub fn fork_relative(relation: Relation, run: impl FnOnce()) {
    let flags = match relation {
        Relation::Child => libc::SIGCHLD,
        Relation::Sibling => libc::SIGCHLD | libc::CLONE_PARENT,
    };
    // SAFETY: with a null stack and without CLONE_VM it is a fork; there is no other thread, so the
    // child may do anything. The order of the last arguments differs between machines, and all of
    // them are null.
    let pid = unsafe {
        libc::syscall(
            libc::SYS_clone,
            libc::c_long::from(flags),
            0_usize,
            0_usize,
            0_usize,
            0_usize,
        )
    };
    assert!(pid >= 0, "clone: {}", nix::errno::Errno::last());
    if pid == 0 {
        close_all();
        run();
        // SAFETY: _exit takes an integer and does not return.
        unsafe { libc::_exit(0) };
    }
}

/// Runs `run` in a forked process, and returns its exit code. For programs with one thread.
///
/// # Errors
/// What the system says.
pub fn fork(run: impl FnOnce() -> i32) -> nix::Result<i32> {
    use nix::sys::wait::{WaitStatus, waitpid};

    // SAFETY: there is no other thread, so the child may do anything.
    match unsafe { nix::unistd::fork() }? {
        nix::unistd::ForkResult::Child => std::process::exit(run()),
        nix::unistd::ForkResult::Parent { child } => match waitpid(child, None)? {
            WaitStatus::Exited(_, code) => Ok(code),
            _ => Ok(-1),
        },
    }
}

/// Starts processes that fork all the time, and keep some children each. For programs of one
/// thread.
///
/// The kernel visits the youngest members of a group first; what forks is old here, so that it goes
/// on while those are visited.
pub fn fork_forkers(forkers: usize, lifetime: std::time::Duration) {
    const KEPT: usize = 64;
    for _ in 0..forkers {
        fork_relative(Relation::Child, || {
            let mut children = std::collections::VecDeque::new();
            let end = std::time::Instant::now() + lifetime;
            while std::time::Instant::now() < end {
                // SAFETY: there is no other thread, so the child may do anything.
                match unsafe { libc::fork() } {
                    0 => return std::thread::sleep(lifetime),
                    child if child > 0 => children.push_back(nix::unistd::Pid::from_raw(child)),
                    // There is no room for one more.
                    _ => {}
                }
                if children.len() > KEPT
                    && let Some(oldest) = children.pop_front()
                {
                    // It is a child that was not waited for.
                    let _ = nix::sys::signal::kill(oldest, Signal::SIGKILL);
                    let _ = nix::sys::wait::waitpid(oldest, None);
                }
            }
        });
    }
}

fn close_all() {
    // SAFETY: what uses these descriptors does not run in this process, which is a copy and ends
    // without destructors.
    unsafe { libc::syscall(libc::SYS_close_range, 0, libc::c_uint::MAX, 0) };
}
