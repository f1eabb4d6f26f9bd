//! System calls that no plugin needs, for programs that try them.

use nix::libc;

/// System calls that no plugin needs, with arguments that do nothing: by name, for programs that
/// try them.
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

/// System calls of which only a strict sandbox says that no plugin needs them. The arguments are
/// such as do nothing, and fail with another error than EPERM, or succeed, where no filter is in
/// the way.
const STRICT_SYSTEM_CALLS: [(&str, libc::c_long, [libc::c_long; 5]); 34] = [
    (
        "clone with CLONE_PARENT",
        libc::SYS_clone,
        [CLONE_NOTHING | libc::CLONE_PARENT as libc::c_long, 0, 0, 0, 0],
    ),
    (
        "clone with CLONE_PTRACE",
        libc::SYS_clone,
        [CLONE_NOTHING | libc::CLONE_PTRACE as libc::c_long, 0, 0, 0, 0],
    ),
    ("shmget", libc::SYS_shmget, [0, 0, 0, 0, 0]),
    ("shmat by id", libc::SYS_shmat, [-1, 0, 0, 0, 0]),
    ("shmctl by id", libc::SYS_shmctl, [-1, libc::IPC_STAT as libc::c_long, 0, 0, 0]),
    ("semctl by id", libc::SYS_semctl, [-1, 0, libc::IPC_STAT as libc::c_long, 0, 0]),
    ("semop by id", libc::SYS_semop, [-1, 0, 0, 0, 0]),
    ("msgrcv by id", libc::SYS_msgrcv, [-1, 0, 0, 0, 0]),
    ("mq_open", libc::SYS_mq_open, [0; 5]),
    ("mq_timedreceive", libc::SYS_mq_timedreceive, [-1, 0, 0, 0, 0]),
    ("process_madvise", libc::SYS_process_madvise, [-1, 0, 0, 0, -1]),
    ("move_pages", libc::SYS_move_pages, [0x7fff_ffff, 0, 0, 0, 0]),
    ("mbind", libc::SYS_mbind, [-1, 0, 0, 0, 0]),
    ("name_to_handle_at", libc::SYS_name_to_handle_at, [-1, 0, 0, 0, -1]),
    ("connect", libc::SYS_connect, [-1, 0, 0, 0, 0]),
    ("bind", libc::SYS_bind, [-1, 0, 0, 0, 0]),
    ("listen", libc::SYS_listen, [-1, 0, 0, 0, 0]),
    ("accept4", libc::SYS_accept4, [-1, 0, 0, 0, 0]),
    (
        "sendto with MSG_FASTOPEN",
        libc::SYS_sendto,
        [-1, 0, 0, libc::MSG_FASTOPEN as libc::c_long, 0],
    ),
    (
        "sendmsg with MSG_FASTOPEN",
        libc::SYS_sendmsg,
        [-1, 0, libc::MSG_FASTOPEN as libc::c_long, 0, 0],
    ),
    (
        "sendmmsg with MSG_FASTOPEN",
        libc::SYS_sendmmsg,
        [-1, 0, 0, libc::MSG_FASTOPEN as libc::c_long, 0],
    ),
    (
        "setsockopt TCP_FASTOPEN_CONNECT",
        libc::SYS_setsockopt,
        [-1, libc::IPPROTO_TCP as libc::c_long, libc::TCP_FASTOPEN_CONNECT as libc::c_long, 0, 0],
    ),
    ("ioctl TIOCSCTTY", libc::SYS_ioctl, [-1, libc::TIOCSCTTY as libc::c_long, 0, 0, 0]),
    ("ioctl TCSETS", libc::SYS_ioctl, [-1, libc::TCSETS as libc::c_long, 0, 0, 0]),
    ("ioctl FIOASYNC", libc::SYS_ioctl, [-1, libc::FIOASYNC as libc::c_long, 0, 0, 0]),
    ("fcntl F_SETOWN", libc::SYS_fcntl, [-1, libc::F_SETOWN as libc::c_long, 1, 0, 0]),
    ("fcntl F_SETSIG", libc::SYS_fcntl, [-1, 10, libc::SIGKILL as libc::c_long, 0, 0]),
    (
        "fcntl O_ASYNC",
        libc::SYS_fcntl,
        [-1, libc::F_SETFL as libc::c_long, libc::O_ASYNC as libc::c_long, 0, 0],
    ),
    ("fcntl F_SETLEASE", libc::SYS_fcntl, [-1, libc::F_SETLEASE as libc::c_long, 0, 0, 0]),
    ("fcntl F_NOTIFY", libc::SYS_fcntl, [-1, libc::F_NOTIFY as libc::c_long, 0, 0, 0]),
    ("prctl PR_SET_PTRACER", libc::SYS_prctl, [libc::PR_SET_PTRACER as libc::c_long, 0, 0, 0, 0]),
    ("prctl PR_SCHED_CORE", libc::SYS_prctl, [libc::PR_SCHED_CORE as libc::c_long, -1, 0, 0, 0]),
    ("seccomp with a listener", libc::SYS_seccomp, [1, 1 << 3, 0, 0, 0]),
    ("sync", libc::SYS_sync, [0; 5]),
];

/// Flags that contradict each other, so that there is no such process in any case.
const CLONE_NOTHING: libc::c_long = (libc::CLONE_THREAD | libc::SIGCHLD) as libc::c_long;

/// System calls that reach files and processes of the same user past Landlock: out of reach without
/// namespaces.
const APART_SYSTEM_CALLS: [(&str, libc::c_long, [libc::c_long; 5]); 10] = [
    ("fchmod", libc::SYS_fchmod, [-1, 0, 0, 0, 0]),
    ("fchmodat", libc::SYS_fchmodat, [-1, 0, 0, 0, 0]),
    ("fchownat", libc::SYS_fchownat, [-1, 0, -1, -1, 0]),
    ("utimensat", libc::SYS_utimensat, [-1, 0, 0, 0, 0]),
    ("fsetxattr", libc::SYS_fsetxattr, [-1, 0, 0, 0, 0]),
    ("fremovexattr", libc::SYS_fremovexattr, [-1, 0, 0, 0, 0]),
    ("inotify_add_watch", libc::SYS_inotify_add_watch, [-1, 0, 0, 0, 0]),
    (
        "sched_setaffinity of another process",
        libc::SYS_sched_setaffinity,
        [0x7fff_ffff, 0, 0, 0, 0],
    ),
    ("setpriority of another process", libc::SYS_setpriority, [0, 0x7fff_ffff, 0, 0, 0]),
    ("ioprio_set of another process", libc::SYS_ioprio_set, [1, 0x7fff_ffff, 0, 0, 0]),
];

/// The names of those that [`system_call`] knows and every sandbox denies.
pub fn system_calls() -> impl Iterator<Item = &'static str> {
    SYSTEM_CALLS.iter().map(|(name, ..)| *name)
}

/// The names of those that only a strict sandbox denies besides.
pub fn strict_system_calls() -> impl Iterator<Item = &'static str> {
    STRICT_SYSTEM_CALLS.iter().map(|(name, ..)| *name)
}

/// The names of those that a strict sandbox denies where it has no namespaces.
pub fn apart_system_calls() -> impl Iterator<Item = &'static str> {
    APART_SYSTEM_CALLS.iter().map(|(name, ..)| *name)
}

/// Makes a system call that no plugin needs, with arguments that do nothing.
///
/// # Errors
/// What the system says; ENOTSUP for a name that is not known.
pub fn system_call(name: &str) -> Result<libc::c_long, nix::errno::Errno> {
    let mut all = SYSTEM_CALLS.iter().chain(&STRICT_SYSTEM_CALLS).chain(&APART_SYSTEM_CALLS);
    let known = all.find(|(known, ..)| *known == name);
    let (_, number, [a, b, c, d, e]) = known.ok_or(nix::errno::Errno::ENOTSUP)?;
    // SAFETY: the arguments are integers and null pointers, or one that is not mapped; the kernel
    // reads through none of them without looking, and writes nothing.
    nix::errno::Errno::result(unsafe { libc::syscall(*number, *a, *b, *c, *d, *e) })
}
