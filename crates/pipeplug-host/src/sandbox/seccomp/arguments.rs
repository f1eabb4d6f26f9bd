//! The calls of a `strict` plugin that depend on their arguments.

use nix::libc;

use super::rules::{Rule, Test, Verdict, int, request};
use super::{Policy, Rules};

/// Namespaces, which clone(2) takes as flags.
pub(super) const NAMESPACES: u32 = int(libc::CLONE_NEWCGROUP
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWNET
    | libc::CLONE_NEWNS
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWUTS);

/// A child of the host's, which then would have one that it does not know of; and what tracers have
/// to do with.
const RELATIVES: u32 = int(libc::CLONE_PARENT | libc::CLONE_PTRACE | libc::CLONE_UNTRACED);

/// `personality(2)` changes nothing with this, and tells the present one.
pub(super) const PERSONALITY_ASKED: u32 = 0xffff_ffff;

/// Flags beside the type of a socket: socket(2).
const SOCKET_FLAGS: u32 = int(libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC);

/// Options of TCP that connect without connect(2), or that have it listen for such connections:
/// tcp(7). Landlock's hooks are not on that way.
pub(super) const FAST_OPEN: [u32; 4] = [
    int(libc::TCP_FASTOPEN),
    int(libc::TCP_FASTOPEN_CONNECT),
    int(libc::TCP_FASTOPEN_KEY),
    int(libc::TCP_FASTOPEN_NO_COOKIE),
];

const SOCKET_OPTIONS: &[u32] = &[
    int(libc::SO_BROADCAST),
    int(libc::SO_DONTROUTE),
    int(libc::SO_KEEPALIVE),
    int(libc::SO_LINGER),
    int(libc::SO_OOBINLINE),
    int(libc::SO_PASSCRED),
    int(libc::SO_PRIORITY),
    int(libc::SO_RCVBUF),
    int(libc::SO_RCVLOWAT),
    int(libc::SO_RCVTIMEO),
    int(libc::SO_REUSEADDR),
    int(libc::SO_REUSEPORT),
    int(libc::SO_SNDBUF),
    int(libc::SO_SNDTIMEO),
    int(libc::SO_TIMESTAMP),
];

const TCP_OPTIONS: &[u32] = &[
    int(libc::TCP_CONGESTION),
    int(libc::TCP_CORK),
    int(libc::TCP_DEFER_ACCEPT),
    int(libc::TCP_KEEPCNT),
    int(libc::TCP_KEEPIDLE),
    int(libc::TCP_KEEPINTVL),
    int(libc::TCP_LINGER2),
    int(libc::TCP_MAXSEG),
    int(libc::TCP_NODELAY),
    int(libc::TCP_NOTSENT_LOWAT),
    int(libc::TCP_QUICKACK),
    int(libc::TCP_SYNCNT),
    int(libc::TCP_USER_TIMEOUT),
    int(libc::TCP_WINDOW_CLAMP),
];

const IP_OPTIONS: &[u32] = &[
    int(libc::IP_BIND_ADDRESS_NO_PORT),
    int(libc::IP_MTU_DISCOVER),
    int(libc::IP_TOS),
    int(libc::IP_TTL),
];

const IPV6_OPTIONS: &[u32] = &[
    int(libc::IPV6_MTU_DISCOVER),
    int(libc::IPV6_TCLASS),
    int(libc::IPV6_UNICAST_HOPS),
    int(libc::IPV6_V6ONLY),
];

/// Nothing that asks for signals (F_SETOWN, F_SETSIG), which may go to any process of the user; nor
/// leases and F_NOTIFY, which tell of others' use of a file.
const FCNTL: &[u32] = &[
    int(libc::F_DUPFD),
    int(libc::F_DUPFD_CLOEXEC),
    int(libc::F_GETFD),
    int(libc::F_SETFD),
    int(libc::F_GETFL),
    int(libc::F_GETLK),
    int(libc::F_SETLK),
    int(libc::F_SETLKW),
    int(libc::F_OFD_GETLK),
    int(libc::F_OFD_SETLK),
    int(libc::F_OFD_SETLKW),
    int(libc::F_GETPIPE_SZ),
    int(libc::F_SETPIPE_SZ),
    int(libc::F_GET_SEALS),
    int(libc::F_ADD_SEALS),
    // F_DUPFD_QUERY (Linux 6.10) and F_CREATED_QUERY (6.12) of <linux/fcntl.h>.
    1027,
    1028,
];

const IOCTL: &[u32] = &[
    // isatty(3), the size of the window, and the group in the foreground, which shells look at.
    request(libc::TCGETS),
    request(libc::TCGETS2),
    request(libc::TIOCGWINSZ),
    request(libc::TIOCGPGRP),
    // Bytes that can be read, and that are still to be sent.
    request(libc::FIONREAD),
    request(libc::TIOCOUTQ),
    // Flags of descriptors.
    request(libc::FIONBIO),
    request(libc::FIOCLEX),
    request(libc::FIONCLEX),
    // Copies of files that share blocks, and the flags of a file, to look at.
    request(libc::FICLONE),
    request(libc::FICLONERANGE),
    request(libc::FS_IOC_GETFLAGS),
];

/// A prompt for a password or a line: the modes of a terminal, its queues, and its foreground.
/// Never what types into it (TIOCSTI, TIOCLINUX), nor what makes it the plugin's own (TIOCSCTTY,
/// TIOCNOTTY, TIOCSETD).
const IOCTL_OF_TERMINALS: &[u32] = &[
    request(libc::TCSETS),
    request(libc::TCSETSW),
    request(libc::TCSETSF),
    request(libc::TCSETS2),
    request(libc::TCSETSW2),
    request(libc::TCSETSF2),
    // tcdrain(3), tcflow(3), tcflush(3).
    request(libc::TCSBRK),
    request(libc::TCFLSH),
    request(libc::TIOCSPGRP),
    request(libc::TIOCGSID),
];

/// Options of the calling process and thread. Not PR_SET_MM and PR_SET_SYSCALL_USER_DISPATCH, of no
/// use to a runtime; not PR_SCHED_CORE, which takes other processes; not PR_SET_PTRACER, which lets
/// others in; not PR_SET_MEMORY_MERGE, which tells pages apart that two processes share.
const PRCTL: &[u32] = &[
    int(libc::PR_SET_NAME),
    int(libc::PR_GET_NAME),
    int(libc::PR_SET_PDEATHSIG),
    int(libc::PR_GET_PDEATHSIG),
    int(libc::PR_SET_CHILD_SUBREAPER),
    int(libc::PR_GET_CHILD_SUBREAPER),
    int(libc::PR_SET_DUMPABLE),
    int(libc::PR_GET_DUMPABLE),
    int(libc::PR_SET_NO_NEW_PRIVS),
    int(libc::PR_GET_NO_NEW_PRIVS),
    int(libc::PR_SET_SECCOMP),
    int(libc::PR_GET_SECCOMP),
    int(libc::PR_CAPBSET_READ),
    int(libc::PR_CAPBSET_DROP),
    int(libc::PR_CAP_AMBIENT),
    int(libc::PR_GET_SECUREBITS),
    int(libc::PR_SET_TIMERSLACK),
    int(libc::PR_GET_TIMERSLACK),
    int(libc::PR_GET_TIMING),
    int(libc::PR_GET_TID_ADDRESS),
    int(libc::PR_SET_THP_DISABLE),
    int(libc::PR_GET_THP_DISABLE),
    int(libc::PR_SET_MDWE),
    int(libc::PR_GET_MDWE),
    // Names of anonymous memory in /proc/PID/maps: Go, Java and glibc give some.
    int(libc::PR_SET_VMA),
];

/// More options, by their numbers of <linux/prctl.h>, since the libc crate has them for some
/// machines only.
const PRCTL_OF_MACHINES: &[u32] = &[
    50,          // PR_SVE_SET_VL
    51,          // PR_SVE_GET_VL
    52,          // PR_GET_SPECULATION_CTRL
    53,          // PR_SET_SPECULATION_CTRL
    54,          // PR_PAC_RESET_KEYS
    55,          // PR_SET_TAGGED_ADDR_CTRL
    56,          // PR_GET_TAGGED_ADDR_CTRL
    60,          // PR_PAC_SET_ENABLED_KEYS
    61,          // PR_PAC_GET_ENABLED_KEYS
    63,          // PR_SME_SET_VL
    64,          // PR_SME_GET_VL
    69,          // PR_RISCV_V_SET_CONTROL
    70,          // PR_RISCV_V_GET_CONTROL
    71,          // PR_RISCV_SET_ICACHE_FLUSH_CTX
    74,          // PR_GET_SHADOW_STACK_STATUS
    75,          // PR_SET_SHADOW_STACK_STATUS
    76,          // PR_LOCK_SHADOW_STACK_STATUS
    0x4155_5856, // PR_GET_AUXV
];

/// The init of a pid namespace, within.
const INIT: u32 = 1;

/// `PIDFD_SIGNAL_PROCESS_GROUP` of <linux/pidfd.h>, Linux 6.9.
const SIGNAL_PROCESS_GROUP: u32 = 1 << 2;

/// The bits of a mode that have a program run as the owner and the group of its file.
const SETS_IDS: u32 = libc::S_ISUID | libc::S_ISGID;

/// `SECCOMP_FILTER_FLAG_NEW_LISTENER` of <linux/seccomp.h>: answers calls from another process, and
/// needs ioctl(2) for that.
const NEW_LISTENER: u32 = 1 << 3;

pub(super) fn rules(policy: &Policy<'_>) -> Rules {
    let mut ioctl = IOCTL.to_vec();
    if policy.terminal {
        ioctl.extend(IOCTL_OF_TERMINALS);
    }
    let mut rules = Rules::from([
        ("clone", Rule::when(Test::without(0, NAMESPACES | RELATIVES))),
        ("fcntl", fcntl()),
        ("ioctl", Rule::when(Test::one_of(1, &ioctl))),
        ("prctl", Rule::when(Test::one_of(0, &[PRCTL, PRCTL_OF_MACHINES].concat()))),
        ("personality", Rule::when(Test::one_of(0, &[0, PERSONALITY_ASKED]))),
        // Operations up to SECCOMP_GET_NOTIF_SIZES.
        ("seccomp", Rule::if_all([Test::one_of(0, &[0, 1, 2, 3]), Test::without(1, NEW_LISTENER)])),
        // Files and FIFOs; devices need a privilege, and a socket is of no use.
        ("mknod", Rule::when(files(1))),
        ("mknodat", Rule::when(files(2))),
    ]);
    if policy.terminal {
        // The host is in its process group, from which no namespace parts it.
        rules.insert("kill", Rule::when(Test::none_of(0, &[0])));
        rules.insert("pidfd_send_signal", Rule::when(Test::without(3, SIGNAL_PROCESS_GROUP)));
    }
    if policy.namespaces && !policy.terminal {
        rules.extend(modes());
    }
    rules.extend(sockets(policy));
    rules.extend(scheduling(policy));
    rules
}

/// Any mode but one with which others, who find the file in a directory that was granted, would run
/// it as the host's user. A new file may have such a mode (open(2)), and loses it with the first
/// byte that is written.
fn modes() -> Rules {
    let arguments = [("chmod", 1), ("fchmod", 1), ("fchmodat", 2), ("fchmodat2", 2)];
    arguments
        .into_iter()
        .map(|(name, argument)| (name, Rule::when(Test::without(argument, SETS_IDS))))
        .collect()
}

/// O_ASYNC sends signals too: to the foreground of a terminal, without a request
/// (drivers/tty/tty_io.c).
fn fcntl() -> Rule {
    let flags = vec![Test::one_of(1, &[int(libc::F_SETFL)]), Test::without(2, int(libc::O_ASYNC))];
    Rule::AnyOf(vec![vec![Test::one_of(1, FCNTL)], flags])
}

/// The argument is the mode of a file or a FIFO.
fn files(argument: u8) -> Test {
    Test::one_of(argument, &[0, libc::S_IFREG, libc::S_IFIFO]).under(libc::S_IFMT)
}

fn sockets(policy: &Policy<'_>) -> Rules {
    let kind = |kinds: &[u32]| Test::one_of(1, kinds).under(!SOCKET_FLAGS);
    let stream = int(libc::SOCK_STREAM);
    // A datagram socket of a pair could be connected to another one. Both ends of these are, for
    // good.
    let pair = [
        Test::one_of(0, &[int(libc::AF_UNIX)]),
        kind(&[stream, int(libc::SOCK_SEQPACKET)]),
        Test::one_of(2, &[0]),
    ];
    let option = |level, options| vec![Test::one_of(1, &[int(level)]), Test::one_of(2, options)];
    let mut options = vec![option(libc::SOL_SOCKET, SOCKET_OPTIONS)];
    let mut rules = Rules::from([("socketpair", Rule::if_all(pair))]);
    rules.extend(sending());
    if let Some(ports) = policy.ports.filter(|ports| !ports.is_empty()) {
        // No MPTCP and SCTP, which are of the same type: Landlock knows the ports of TCP.
        let tcp = [
            Test::one_of(0, &[int(libc::AF_INET), int(libc::AF_INET6)]),
            kind(&[stream]),
            Test::one_of(2, &[0, int(libc::IPPROTO_TCP)]),
        ];
        rules.insert("socket", Rule::if_all(tcp));
        options.push(option(libc::IPPROTO_TCP, TCP_OPTIONS));
        options.push(option(libc::IPPROTO_IP, IP_OPTIONS));
        options.push(option(libc::IPPROTO_IPV6, IPV6_OPTIONS));
        if !ports.connect.is_empty() {
            rules.insert("connect", Rule::Always(Verdict::Allow));
        }
        if !ports.bind.is_empty() {
            for name in ["bind", "listen", "accept", "accept4"] {
                rules.insert(name, Rule::Always(Verdict::Allow));
            }
        }
    }
    rules.insert("setsockopt", Rule::AnyOf(options));
    rules
}

/// MSG_FASTOPEN connects without connect(2), past Landlock. Urgent data in Unix sockets (MSG_OOB)
/// is of no use, and has had holes (CVE-2025-38236).
fn sending() -> Rules {
    let plain =
        |argument| Rule::when(Test::without(argument, int(libc::MSG_FASTOPEN | libc::MSG_OOB)));
    Rules::from([("sendto", plain(3)), ("sendmsg", plain(2)), ("sendmmsg", plain(3))])
}

/// Priorities and limits, of the plugin's own processes alone: in a pid namespace of its own there
/// are no others, elsewhere of the caller (0).
fn scheduling(policy: &Policy<'_>) -> Rules {
    // Of setpriority(2) and ioprio_set(2), neither of which is to take all of a user's processes.
    const PROCESS: [u32; 2] = [0, 1];
    const GROUP: [u32; 2] = [1, 2];
    let taking_pid =
        ["prlimit64", "sched_setaffinity", "sched_setattr", "sched_setparam", "sched_setscheduler"];
    let taking_kind = ["setpriority", "ioprio_set"].into_iter().zip(PROCESS).zip(GROUP);
    if policy.namespaces {
        // Of all but init, which has to get its time when the host is gone.
        let but_init = |argument| Test::none_of(argument, &[INIT]);
        let by_pid = taking_pid.into_iter().map(|name| (name, Rule::when(but_init(0))));
        let by_kind = taking_kind.map(|((name, process), group)| {
            // With a terminal the host is in its group.
            let kinds = if policy.terminal { vec![process] } else { vec![process, group] };
            (name, Rule::if_all([Test::one_of(0, &kinds), but_init(1)]))
        });
        by_pid.chain(by_kind).collect()
    } else {
        let by_pid = taking_pid.into_iter().map(|name| (name, Rule::when(Test::one_of(0, &[0]))));
        let by_kind = taking_kind.map(|((name, process), _)| {
            (name, Rule::if_all([Test::one_of(0, &[process]), Test::one_of(1, &[0])]))
        });
        by_pid.chain(by_kind).collect()
    }
}
