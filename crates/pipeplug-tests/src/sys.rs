//! Dispositions of signals that a host of ours may have, and the tests' own process has not.

use nix::libc;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

/// Has SIGPIPE end the process, as C programs start with, and as programs set it whose output goes into `head`.
pub fn kill_by_sigpipe() {
    set(Signal::SIGPIPE, SigHandler::SigDfl);
}

/// Has the system reap all children by itself.
pub fn ignore_sigchld() {
    set(Signal::SIGCHLD, SigHandler::SigIgn);
}

/// Reaps every child that ends, in a handler of SIGCHLD, as old servers do.
pub fn handle_sigchld_by_reaping() {
    set(Signal::SIGCHLD, SigHandler::Handler(reap_all));
}

fn set(signal: Signal, handler: SigHandler) {
    let action = SigAction::new(handler, SaFlags::SA_RESTART, SigSet::empty());
    // SAFETY: the only handler of ours, `reap_all`, is async-signal-safe.
    unsafe { sigaction(signal, &action) }.expect("these signals can be handled");
}

extern "C" fn reap_all(_signal: libc::c_int) {
    // SAFETY: waitpid(2) is async-signal-safe, and a null status is not written to. That it may change errno is one more
    // of the habits of such hosts.
    while unsafe { libc::waitpid(-1, std::ptr::null_mut(), libc::WNOHANG) } > 0 {}
}

/// System calls that no plugin needs, with arguments that do nothing: by name, for programs that try them.
const SYSTEM_CALLS: [(&str, libc::c_long, [libc::c_long; 5]); 30] = [
    ("ptrace", libc::SYS_ptrace, [0xffff, 0, 0, 0, 0]),
    ("process_vm_readv", libc::SYS_process_vm_readv, [0; 5]),
    ("pidfd_getfd", libc::SYS_pidfd_getfd, [-1, 0, 0, 0, 0]),
    ("mount", libc::SYS_mount, [0; 5]),
    ("umount2", libc::SYS_umount2, [0, -1, 0, 0, 0]),
    ("pivot_root", libc::SYS_pivot_root, [0; 5]),
    ("chroot", libc::SYS_chroot, [0; 5]),
    ("fsopen", libc::SYS_fsopen, [0, -1, 0, 0, 0]),
    ("unshare", libc::SYS_unshare, [0; 5]),
    ("setns", libc::SYS_setns, [-1, 0, 0, 0, 0]),
    // With this second flag there is no such process in any case.
    (
        "clone into a namespace",
        libc::SYS_clone,
        [(libc::CLONE_NEWUSER | libc::CLONE_FS) as libc::c_long, 0, 0, 0, 0],
    ),
    ("bpf", libc::SYS_bpf, [-1, 0, 0, 0, 0]),
    ("perf_event_open", libc::SYS_perf_event_open, [0; 5]),
    ("init_module", libc::SYS_init_module, [0; 5]),
    ("kexec_load", libc::SYS_kexec_load, [0, -1, 0, 0, 0]),
    ("reboot", libc::SYS_reboot, [0; 5]),
    ("syslog", libc::SYS_syslog, [-1, 0, 0, 0, 0]),
    ("swapon", libc::SYS_swapon, [0; 5]),
    ("sethostname", libc::SYS_sethostname, [0, -1, 0, 0, 0]),
    ("clock_settime", libc::SYS_clock_settime, [-1, 0, 0, 0, 0]),
    ("keyctl", libc::SYS_keyctl, [-1, 0, 0, 0, 0]),
    ("add_key", libc::SYS_add_key, [0; 5]),
    ("open_by_handle_at", libc::SYS_open_by_handle_at, [-1, 0, 0, 0, 0]),
    ("io_uring_setup", libc::SYS_io_uring_setup, [0; 5]),
    ("userfaultfd", libc::SYS_userfaultfd, [-1, 0, 0, 0, 0]),
    ("personality", libc::SYS_personality, [libc::ADDR_NO_RANDOMIZE as libc::c_long, 0, 0, 0, 0]),
    ("prlimit64 of another process", libc::SYS_prlimit64, [1, 0, 8, 0, 0]),
    ("typing into the terminal", libc::SYS_ioctl, [0, libc::TIOCSTI as libc::c_long, 0, 0, 0]),
    (
        "a raw socket",
        libc::SYS_socket,
        [libc::AF_INET as libc::c_long, libc::SOCK_RAW as libc::c_long, 1, 0, 0],
    ),
    (
        "a packet socket",
        libc::SYS_socket,
        [libc::AF_PACKET as libc::c_long, libc::SOCK_DGRAM as libc::c_long, 0, 0, 0],
    ),
];

/// The names that [`system_call`] knows.
pub fn system_calls() -> impl Iterator<Item = &'static str> {
    SYSTEM_CALLS.iter().map(|(name, ..)| *name)
}

/// Makes a system call that no plugin needs, with arguments that do nothing.
///
/// # Errors
/// What the system says; ENOTSUP for a name that is not known.
pub fn system_call(name: &str) -> Result<libc::c_long, nix::errno::Errno> {
    let known = SYSTEM_CALLS.iter().find(|(known, ..)| *known == name);
    let (_, number, [a, b, c, d, e]) = known.ok_or(nix::errno::Errno::ENOTSUP)?;
    // SAFETY: the arguments are integers and null pointers, or one that is not mapped; the kernel reads through none of
    // them without looking, and writes nothing.
    nix::errno::Errno::result(unsafe { libc::syscall(*number, *a, *b, *c, *d, *e) })
}

/// What a new process is to the one that makes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Relation {
    /// Its child.
    Child,
    /// A child of its parent: `CLONE_PARENT`.
    Sibling,
}

/// Has a process with a copy of the memory run this and exit. It keeps no descriptor. For programs of one thread.
pub fn fork_relative(relation: Relation, run: impl FnOnce()) {
    let flags = match relation {
        Relation::Child => libc::SIGCHLD,
        Relation::Sibling => libc::SIGCHLD | libc::CLONE_PARENT,
    };
    // SAFETY: with a null stack and without CLONE_VM it is a fork; there is no other thread, so the child may do anything.
    // The order of the last arguments differs between machines, and all of them are null.
    let pid = unsafe {
        libc::syscall(libc::SYS_clone, libc::c_long::from(flags), 0_usize, 0_usize, 0_usize, 0_usize)
    };
    assert!(pid >= 0, "clone: {}", nix::errno::Errno::last());
    if pid == 0 {
        close_all();
        run();
        // SAFETY: _exit takes an integer and does not return.
        unsafe { libc::_exit(0) };
    }
}

/// Has a copy of this process run this, and gives what it exits with. For programs of one thread.
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

/// Starts processes that fork all the time, and keep some children each. For programs of one thread.
///
/// The kernel visits the youngest members of a group first; what forks is old here, so that it goes on while those are
/// visited.
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
    // SAFETY: what uses these descriptors does not run in this process, which is a copy and ends without destructors.
    unsafe { libc::syscall(libc::SYS_close_range, 0, libc::c_uint::MAX, 0) };
}
