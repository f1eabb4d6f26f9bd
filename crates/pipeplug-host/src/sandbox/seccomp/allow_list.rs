//! The calls of a `strict` plugin: all that C libraries and runtimes (glibc, musl, Go, Node, Java,
//! Python) make for a program that computes, reads and writes its files, and starts threads and
//! processes.
//!
//! Left out on purpose, beside what needs a privilege:
//! - other processes' memory and descriptors: `ptrace`, `process_vm_*`, `process_madvise`,
//!   `pidfd_getfd`, `kcmp`, `move_pages`; and where memory lies: `mbind`, `set_mempolicy`;
//! - mounts, namespaces and file handles: `mount`, `fsopen`, …, `unshare`, `setns`,
//!   `open_by_handle_at`;
//! - objects with names that all processes of a user share: message queues, semaphores and shared
//!   memory of System V, and POSIX message queues. They would outlive the plugin, and their memory
//!   is not in its limit;
//! - large parts of the kernel that runtimes do without: `bpf`, `perf_event_open`, `keyctl`,
//!   `userfaultfd`, `fanotify_*`;
//! - `sync`, which writes back all file systems of the machine.

use super::rules::Verdict;
use super::{Policy, Rules, all, arguments};

/// The contents of files and pipes.
const CONTENTS: &str = "open openat openat2 creat close close_range read write readv writev \
                        pread64 pwrite64 preadv pwritev preadv2 pwritev2 lseek sendfile \
                        copy_file_range splice tee truncate ftruncate fallocate fadvise64 \
                        readahead fsync fdatasync syncfs sync_file_range flock";

/// Directories, and names in them. `mknod` is in `arguments`.
const NAMES: &str = "getdents getdents64 getcwd chdir fchdir mkdir mkdirat rmdir rename renameat \
                     renameat2 link linkat symlink symlinkat unlink unlinkat umask";

/// Metadata of files, to look at.
const METADATA: &str = "stat fstat lstat newfstatat statx access faccessat faccessat2 readlink \
                        readlinkat statfs fstatfs getxattr lgetxattr fgetxattr getxattrat \
                        listxattr llistxattr flistxattr listxattrat";

/// Changes of metadata, which no version of Landlock knows up to Linux 6.18: with mounts of its own
/// only, and not of a terminal that it was given, which it reaches by descriptor. The modes
/// themselves are in [`MODES`].
pub(super) const METADATA_CHANGES: &str = "chown fchown lchown fchownat utime utimes futimesat \
                                           utimensat setxattr lsetxattr fsetxattr setxattrat \
                                           removexattr lremovexattr fremovexattr removexattrat";

/// Changes of modes; those that are allowed are in `arguments`.
pub(super) const MODES: &str = "chmod fchmod fchmodat fchmodat2";

/// News of files, also of such as Landlock keeps out of reach: with mounts of its own only.
pub(super) const WATCHES: &str = "inotify_init inotify_init1 inotify_add_watch inotify_rm_watch";

/// Memory. JITs write code and execute it, with keys for that (pkeys(7)) where the machine has
/// them. `mincore` is Go's and Java's, `map_shadow_stack` glibc's. RLIMIT_AS and RLIMIT_MEMLOCK
/// limit all of it.
const MEMORY: &str = "brk mmap munmap mremap mprotect madvise msync mincore mlock mlock2 munlock \
                      mlockall munlockall mseal pkey_alloc pkey_free pkey_mprotect \
                      map_shadow_stack membarrier";

/// Processes; `clone` is in `arguments`. Whom a signal may reach is up to Landlock (Linux 6.12) and
/// to namespaces.
const PROCESSES: &str = "fork vfork execve execveat exit exit_group wait4 waitid kill tkill tgkill \
                         rt_sigqueueinfo rt_tgsigqueueinfo pidfd_open pidfd_send_signal getpid \
                         getppid gettid getpgid getpgrp getsid setpgid setsid";

/// Threads, and how they wait for each other. `arch_prctl` sets the thread pointer of x86_64.
const THREADS: &str = "futex futex_waitv futex_wait futex_wake futex_requeue set_robust_list \
                       get_robust_list set_tid_address rseq arch_prctl riscv_flush_icache \
                       riscv_hwprobe";

/// Signals of its own. `uretprobe` and `uprobe` are no calls of a program: the kernel has one make
/// them whose functions are traced, and lets them past filters (Linux 6.11 and 6.18).
const SIGNALS: &str = "rt_sigaction rt_sigprocmask rt_sigreturn rt_sigpending rt_sigtimedwait \
                       rt_sigsuspend sigaltstack signalfd signalfd4 pause restart_syscall \
                       uretprobe uprobe";

/// The time, and timers. Not what sets or slews the clock.
const TIME: &str = "time gettimeofday clock_gettime clock_getres nanosleep clock_nanosleep alarm \
                    getitimer setitimer timer_create timer_settime timer_gettime timer_getoverrun \
                    timer_delete timerfd_create timerfd_settime timerfd_gettime";

/// Waiting for descriptors.
const POLLING: &str = "poll ppoll select pselect6 epoll_create epoll_create1 epoll_ctl epoll_wait \
                       epoll_pwait epoll_pwait2 eventfd eventfd2";

/// Descriptors; `fcntl` and `ioctl` are in `arguments`.
const DESCRIPTORS: &str = "dup dup2 dup3 pipe pipe2";

/// Sockets once they are there; those that make, name and connect them, and that send, are in
/// `arguments`.
const SOCKETS: &str = "recvfrom recvmsg recvmmsg shutdown getsockname getpeername getsockopt";

/// Users and groups. The setters can set nothing but the ids that it has: shells and tools call
/// them to be sure. `setgroups` needs a privilege.
const IDS: &str = "getuid geteuid getgid getegid getresuid getresgid getgroups setuid setgid \
                   setreuid setregid setresuid setresgid setfsuid setfsgid capget capset";

/// The system, the resources that it has used, its limits, and random numbers.
const INFORMATION: &str = "uname sysinfo times getrusage getrlimit setrlimit getcpu getrandom";

/// Priorities and CPUs, to look at; the setters are in `arguments`.
const SCHEDULING: &str = "sched_yield sched_getaffinity sched_getattr sched_getparam \
                          sched_getscheduler sched_get_priority_max sched_get_priority_min \
                          sched_rr_get_interval getpriority ioprio_get";

/// A sandbox of its own, which can only restrict more; `seccomp` is in `arguments`.
const LANDLOCK: &str = "landlock_create_ruleset landlock_add_rule landlock_restrict_self";

/// Calls that programs try first, and do without where the kernel has none. ENOSYS tells them so;
/// EPERM would end many.
const MISSING: &[&str] = &[
    // Its flags are in memory, where no filter sees them: C libraries then take `clone`.
    "clone3",
    // Memory that no limit counts: it is in no address space once it is unmapped.
    "memfd_create memfd_secret",
    // Calls that are made past the filter.
    "io_uring_setup io_uring_enter io_uring_register",
    // Kernels can be built without it (CONFIG_AIO).
    "io_setup io_submit io_getevents io_pgetevents io_cancel io_destroy",
    // Newer than Linux 6.5, and needed by no runtime: mounts, page cache, security modules, inode
    // flags.
    "statmount listmount open_tree_attr cachestat lsm_get_self_attr lsm_set_self_attr \
     lsm_list_modules file_getattr file_setattr",
];

/// The rules of all calls that do not fail with EPERM.
pub(super) fn rules(policy: &Policy<'_>) -> Rules {
    let mut allowed = vec![
        CONTENTS,
        NAMES,
        METADATA,
        MEMORY,
        PROCESSES,
        THREADS,
        SIGNALS,
        TIME,
        POLLING,
        DESCRIPTORS,
        SOCKETS,
        IDS,
        INFORMATION,
        SCHEDULING,
        LANDLOCK,
    ];
    if policy.namespaces {
        allowed.push(WATCHES);
        if !policy.terminal {
            allowed.push(METADATA_CHANGES);
        }
    }
    let mut rules = all(&allowed, Verdict::Allow);
    rules.extend(all(MISSING, Verdict::Missing));
    rules.extend(arguments::rules(policy));
    rules
}
