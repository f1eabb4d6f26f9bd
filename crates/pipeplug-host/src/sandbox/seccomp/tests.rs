//! Tests of the filters call by call, in a simulation of the kernel's.

use nix::libc;

use super::rules::{Rule, Verdict};
use super::simulator::{Call, run};
use super::*;

fn strict() -> Policy<'static> {
    static NONE: Ports = Ports { connect: Vec::new(), bind: Vec::new() };
    Policy {
        level: Level::Strict,
        ports: Some(&NONE),
        files: true,
        namespaces: false,
        terminal: false,
    }
}

fn basic() -> Policy<'static> {
    Policy { level: Level::Basic, ports: None, files: false, namespaces: false, terminal: false }
}

pub(super) fn ports(connect: &[u16], bind: &[u16]) -> Ports {
    Ports { connect: connect.to_vec(), bind: bind.to_vec() }
}

/// The filters of a policy, on all machines.
struct Filters(Vec<(Machine, Vec<libc::sock_filter>)>);

impl Filters {
    fn of(policy: &Policy<'_>) -> Self {
        Self(
            Machine::ALL
                .into_iter()
                .map(|machine| (machine, machine.filter(policy).unwrap()))
                .collect(),
        )
    }

    /// The verdict on a call with these arguments, which is the same on all machines that have it.
    #[track_caller]
    fn verdict<const N: usize>(&self, name: &str, arguments: [u64; N]) -> Verdict {
        let on = |(machine, program): &(Machine, Vec<libc::sock_filter>)| {
            Call::new(*machine, name, arguments).map(|call| run(program, call).verdict)
        };
        let verdicts: Vec<_> = self.0.iter().filter_map(on).collect();
        assert!(verdicts.iter().all(|verdict| *verdict == verdicts[0]), "{name}: {verdicts:?}");
        verdicts[0]
    }
}

#[track_caller]
fn verdict<const N: usize>(policy: &Policy<'_>, name: &str, arguments: [u64; N]) -> Verdict {
    Filters::of(policy).verdict(name, arguments)
}

#[track_caller]
fn allowed<const N: usize>(policy: &Policy<'_>, name: &str, arguments: [u64; N]) {
    assert_eq!(verdict(policy, name, arguments), Verdict::Allow, "{name} {arguments:x?}");
}

#[track_caller]
fn denied<const N: usize>(policy: &Policy<'_>, name: &str, arguments: [u64; N]) {
    assert_eq!(verdict(policy, name, arguments), Verdict::Deny, "{name} {arguments:x?}");
}

fn number(value: libc::c_int) -> u64 {
    u64::from(value.cast_unsigned())
}

/// One policy of each kind, with its name in the tables.
pub(super) fn policies(ports: &Ports) -> [(&'static str, Policy<'_>); 4] {
    [
        ("basic", basic()),
        ("strict", strict()),
        ("namespaces", Policy { namespaces: true, ..strict() }),
        ("ports", Policy { ports: Some(ports), ..strict() }),
    ]
}

#[test]
fn every_listed_name_is_that_of_a_call() {
    let known: Vec<_> =
        Machine::ALL.into_iter().flat_map(Machine::calls).map(|(_, name)| name).collect();
    for (_, policy) in policies(&ports(&[1], &[1])) {
        let rules = match policy.level {
            Level::Basic => deny_list::rules(&policy),
            Level::Strict => allow_list::rules(&policy),
        };
        let unknown: Vec<_> = rules.into_keys().filter(|name| !known.contains(name)).collect();
        assert_eq!(unknown, [""; 0]);
    }
}

/// The program gives for every number, with arguments of all sorts, the answer of the rule: the
/// search, and that nothing is loaded on the way to a constant answer.
#[test]
fn the_program_finds_the_rule_of_every_number() {
    let granted = ports(&[1], &[1]);
    for machine in Machine::ALL {
        for (name, policy) in policies(&granted) {
            let ranges = machine.ranges(&policy);
            let program = machine.filter(&policy).unwrap();
            for number in (0..1024).chain([X32 - 1, X32, X32 + 1, CANCELLED - 1, CANCELLED]) {
                let call = Call { code: machine.code(), number, arguments: [u64::MAX; 6] };
                let outcome = run(&program, call);
                let (_, rule) = ranges.iter().rev().find(|(first, _)| *first <= number).unwrap();
                match rule {
                    Rule::Always(verdict) => {
                        assert_eq!(
                            (outcome.verdict, outcome.arguments_seen),
                            (*verdict, false),
                            "{name} {number}"
                        );
                    }
                    Rule::AnyOf(_) => assert!(outcome.arguments_seen, "{name} {number}"),
                }
            }
        }
    }
}

#[test]
fn other_machines_code_is_killed() {
    for (_, policy) in policies(&ports(&[], &[])) {
        for machine in Machine::ALL {
            let program = machine.filter(&policy).unwrap();
            // AUDIT_ARCH_I386 and AUDIT_ARCH_ARM.
            for code in [0x4000_0003, 0x4000_0028] {
                let call = Call { code, number: 0, arguments: [0; 6] };
                assert_eq!(run(&program, call).verdict, Verdict::Kill);
            }
        }
    }
    let x32 = Call { code: Machine::X86_64.code(), number: X32, arguments: [0; 6] };
    let on = |policy| run(&Machine::X86_64.filter(&policy).unwrap(), x32).verdict;
    assert_eq!((on(strict()), on(basic())), (Verdict::Kill, Verdict::Missing));
}

#[test]
fn clone_makes_threads_and_children_and_nothing_else() {
    let thread = number(
        libc::CLONE_VM
            | libc::CLONE_FS
            | libc::CLONE_FILES
            | libc::CLONE_SIGHAND
            | libc::CLONE_THREAD
            | libc::CLONE_SYSVSEM
            | libc::CLONE_SETTLS
            | libc::CLONE_PARENT_SETTID
            | libc::CLONE_CHILD_CLEARTID,
    );
    let fork = number(libc::CLONE_CHILD_SETTID | libc::CLONE_CHILD_CLEARTID | libc::SIGCHLD);
    let spawn = number(libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_PIDFD | libc::SIGCHLD);
    for policy in [strict(), basic()] {
        for flags in [thread, fork, spawn] {
            allowed(&policy, "clone", [flags]);
            for bad in
                [libc::CLONE_NEWUSER, libc::CLONE_NEWNS, libc::CLONE_NEWCGROUP, libc::CLONE_PARENT]
            {
                denied(&policy, "clone", [flags | number(bad)]);
            }
        }
    }
    for bad in [libc::CLONE_PTRACE, libc::CLONE_UNTRACED] {
        denied(&strict(), "clone", [fork | number(bad)]);
    }
}

#[test]
fn sockets_are_those_that_were_granted() {
    let (connect, bind) = (ports(&[443], &[]), ports(&[], &[8080]));
    let with = |ports| Policy { ports: Some(ports), ..strict() };
    let [unix, inet, inet6, netlink] =
        [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK].map(number);
    let [stream, datagram, raw, packets] =
        [libc::SOCK_STREAM, libc::SOCK_DGRAM, libc::SOCK_RAW, libc::SOCK_SEQPACKET].map(number);
    let flags = number(libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK);
    let [without, connecting] = [strict(), with(&connect)].map(|policy| Filters::of(&policy));
    for domain in 0..64 {
        for kind in 0..16 {
            for protocol in [
                0,
                number(libc::IPPROTO_TCP),
                number(libc::IPPROTO_MPTCP),
                number(libc::IPPROTO_SCTP),
            ] {
                for flags in [0, flags] {
                    let arguments = [domain, kind | flags, protocol];
                    assert_eq!(
                        without.verdict("socket", arguments),
                        Verdict::Deny,
                        "{arguments:?}"
                    );
                    let tcp = [inet, inet6].contains(&domain) && kind == stream;
                    let tcp = tcp && [0, number(libc::IPPROTO_TCP)].contains(&protocol);
                    let expected = if tcp { Verdict::Allow } else { Verdict::Deny };
                    assert_eq!(connecting.verdict("socket", arguments), expected, "{arguments:?}");
                    let pair = domain == unix && [stream, packets].contains(&kind) && protocol == 0;
                    let expected = if pair { Verdict::Allow } else { Verdict::Deny };
                    assert_eq!(without.verdict("socketpair", arguments), expected, "{arguments:?}");
                }
            }
        }
    }
    for name in ["connect", "bind", "listen", "accept", "accept4"] {
        denied(&strict(), name, [0]);
        let (with_connect, with_bind) = if name == "connect" {
            (Verdict::Allow, Verdict::Deny)
        } else {
            (Verdict::Deny, Verdict::Allow)
        };
        assert_eq!(verdict(&with(&connect), name, [0]), with_connect, "{name}");
        assert_eq!(verdict(&with(&bind), name, [0]), with_bind, "{name}");
    }
    for (domain, kind, protocol) in
        [(unix, datagram, 0), (inet, datagram, 17), (inet6, stream | flags, 0)]
    {
        allowed(&basic(), "socket", [domain, kind, protocol]);
    }
    allowed(&basic(), "socket", [netlink, raw | flags, number(libc::NETLINK_ROUTE)]);
    denied(&basic(), "socket", [netlink, raw, number(libc::NETLINK_NETFILTER)]);
    denied(&basic(), "socket", [inet, raw, 1]);
    denied(&basic(), "socket", [inet, 10, 0]);
    denied(&basic(), "socket", [number(libc::AF_PACKET), raw, 0]);
    let apart = Policy { ports: Some(&connect), ..basic() };
    allowed(&apart, "socket", [inet, stream | flags, 0]);
    denied(&apart, "socket", [inet, stream, number(libc::IPPROTO_MPTCP)]);
    denied(&apart, "listen", [0]);
    denied(&apart, "shmget", [0]);
    allowed(&basic(), "shmget", [0]);
}

#[test]
fn tcp_connects_in_one_way() {
    let granted = ports(&[443], &[8080]);
    for level in [Level::Strict, Level::Basic] {
        let policy = Policy { level, ports: Some(&granted), ..strict() };
        let bad = number(libc::MSG_FASTOPEN);
        for flags in [0, number(libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT | libc::MSG_MORE)] {
            allowed(&policy, "sendto", [0, 0, 0, flags, bad, bad]);
            allowed(&policy, "sendmsg", [0, bad, flags]);
            allowed(&policy, "sendmmsg", [0, bad, bad, flags]);
            denied(&policy, "sendto", [0, 0, 0, flags | bad]);
            denied(&policy, "sendmsg", [0, 0, flags | bad]);
            denied(&policy, "sendmmsg", [0, 0, 0, flags | bad]);
        }
        let tcp = number(libc::IPPROTO_TCP);
        allowed(&policy, "setsockopt", [0, tcp, number(libc::TCP_NODELAY)]);
        allowed(&policy, "setsockopt", [0, number(libc::SOL_SOCKET), number(libc::SO_REUSEADDR)]);
        for option in arguments::FAST_OPEN {
            denied(&policy, "setsockopt", [0, tcp, u64::from(option)]);
        }
    }
    let policy = Policy { ports: Some(&granted), ..strict() };
    denied(&policy, "setsockopt", [0, number(libc::IPPROTO_TCP), number(libc::TCP_ULP)]);
    denied(&policy, "setsockopt", [0, number(libc::SOL_SOCKET), number(libc::SO_ATTACH_FILTER)]);
    denied(&strict(), "setsockopt", [0, number(libc::IPPROTO_TCP), number(libc::TCP_NODELAY)]);
    denied(&policy, "sendto", [0, 0, 0, number(libc::MSG_OOB)]);
}

#[test]
fn no_request_types_into_a_terminal() {
    let terminal = Policy { terminal: true, ..strict() };
    #[expect(clippy::unnecessary_cast, reason = "some C libraries take an int")]
    let number = |request: libc::Ioctl| request as u64;
    for request in [libc::TCGETS, libc::TIOCGWINSZ, libc::FIONREAD, libc::FIONBIO, libc::FIOCLEX] {
        allowed(&strict(), "ioctl", [0, number(request)]);
        allowed(&terminal, "ioctl", [0, number(request)]);
    }
    for request in [libc::TCSETS, libc::TCSETSF, libc::TIOCSPGRP, libc::TCFLSH] {
        denied(&strict(), "ioctl", [0, number(request)]);
        allowed(&terminal, "ioctl", [0, number(request)]);
    }
    // The kernel takes the request for an unsigned int: bits above it hide nothing.
    for above in [0, 1 << 32, u64::MAX << 32] {
        for request in [libc::TIOCSTI, libc::TIOCLINUX] {
            for policy in [strict(), terminal, basic()] {
                denied(&policy, "ioctl", [0, above | number(request)]);
            }
        }
        for request in [libc::TIOCSCTTY, libc::TIOCSETD, libc::FIOASYNC] {
            denied(&terminal, "ioctl", [0, above | number(request)]);
        }
    }
}

#[test]
fn no_descriptor_asks_for_signals() {
    for command in
        [libc::F_GETFD, libc::F_SETFD, libc::F_DUPFD_CLOEXEC, libc::F_OFD_SETLK, libc::F_GETFL]
    {
        allowed(&strict(), "fcntl", [0, number(command), u64::MAX]);
    }
    // F_SETSIG and F_SETOWN_EX of <asm-generic/fcntl.h>.
    for command in [libc::F_SETOWN, 10, 15, libc::F_SETLEASE, libc::F_NOTIFY] {
        denied(&strict(), "fcntl", [0, number(command)]);
    }
    let set = number(libc::F_SETFL);
    allowed(&strict(), "fcntl", [0, set, number(libc::O_NONBLOCK | libc::O_APPEND)]);
    denied(&strict(), "fcntl", [0, set, number(libc::O_NONBLOCK | libc::O_ASYNC)]);
}

#[test]
fn options_are_the_callers_own() {
    for option in
        [libc::PR_SET_NAME, libc::PR_SET_NO_NEW_PRIVS, libc::PR_SET_VMA, libc::PR_CAPBSET_READ]
    {
        allowed(&strict(), "prctl", [number(option)]);
    }
    for option in
        [libc::PR_SET_MM, libc::PR_SCHED_CORE, libc::PR_SET_PTRACER, libc::PR_SET_SECUREBITS]
    {
        denied(&strict(), "prctl", [number(option)]);
    }
    for policy in [strict(), basic()] {
        allowed(&policy, "personality", [0]);
        allowed(&policy, "personality", [0xffff_ffff]);
        denied(&policy, "personality", [number(libc::ADDR_NO_RANDOMIZE)]);
    }
    allowed(&strict(), "seccomp", [1, 0]);
    denied(&strict(), "seccomp", [1, 1 << 3]);
    denied(&strict(), "seccomp", [4, 0]);
}

#[test]
fn limits_and_priorities_of_others_are_theirs() {
    let namespaces = Policy { namespaces: true, ..strict() };
    for name in ["prlimit64", "sched_setaffinity", "sched_setscheduler"] {
        allowed(&strict(), name, [0, 7, 1]);
        denied(&strict(), name, [2, 7, 1]);
        allowed(&namespaces, name, [2, 7, 1]);
        // Init has to end when the host does.
        denied(&namespaces, name, [1, 7, 1]);
        denied(&namespaces, name, [1 << 32 | 1, 7, 1]);
    }
    let [process, group, user] = [0, 1, 2];
    allowed(&strict(), "setpriority", [process, 0]);
    denied(&strict(), "setpriority", [process, 1]);
    denied(&strict(), "setpriority", [group, 0]);
    allowed(&namespaces, "setpriority", [process, 2]);
    allowed(&namespaces, "setpriority", [group, 0]);
    denied(&namespaces, "setpriority", [process, 1]);
    denied(&namespaces, "setpriority", [user, 0]);
    allowed(&strict(), "ioprio_set", [1, 0]);
    denied(&namespaces, "ioprio_set", [3, 0]);
    allowed(&basic(), "prlimit64", [0, 7, 1]);
    allowed(&basic(), "prlimit64", [1, 7, 0]);
    // A pointer is no null for its lower half's being one.
    denied(&basic(), "prlimit64", [1, 7, 1 << 32]);
    denied(&basic(), "prlimit64", [1, 7, 1]);
}

#[test]
fn the_hosts_process_group_is_out_of_reach() {
    // The plugin is in it with a terminal, also in a pid namespace of its own.
    let namespaces = Policy { namespaces: true, ..strict() };
    for terminal in [Policy { terminal: true, ..strict() }, Policy { terminal: true, ..namespaces }]
    {
        for above in [0, 1 << 32] {
            denied(&terminal, "kill", [above, 9]);
            denied(&terminal, "setpriority", [above | 1, 0]);
            denied(&terminal, "ioprio_set", [above | 2, 0]);
            denied(&terminal, "pidfd_send_signal", [5, 9, 0, above | 1 << 2]);
        }
        allowed(&terminal, "kill", [7, 9]);
        allowed(&terminal, "setpriority", [0, 0]);
        allowed(&terminal, "pidfd_send_signal", [5, 9, 0, 0]);
    }
    allowed(&namespaces, "kill", [0, 9]);
}

#[test]
fn no_file_becomes_one_that_sets_ids() {
    let namespaces = Policy { namespaces: true, ..strict() };
    let modes = [0o4755, 0o2755, 0o6000, 1 << 32 | 0o4000];
    for mode in modes {
        for name in ["chmod", "fchmod"] {
            denied(&namespaces, name, [0, mode]);
        }
        for name in ["fchmodat", "fchmodat2"] {
            denied(&namespaces, name, [0, 0, mode]);
        }
    }
    allowed(&namespaces, "fchmod", [0, 0o1777]);
    allowed(&namespaces, "fchmodat", [0, 0, 0o755]);
}

#[test]
fn metadata_and_news_of_files_need_mounts_of_its_own() {
    let namespaces = Policy { namespaces: true, ..strict() };
    let terminal = Policy { terminal: true, ..namespaces };
    for name in ["fchmod", "fchownat", "utimensat", "fsetxattr", "setxattrat", "fchmodat2"] {
        denied(&strict(), name, []);
        allowed(&namespaces, name, []);
        denied(&terminal, name, []);
        // A basic plugin changes what it may reach: everything, unless files are granted.
        allowed(&basic(), name, []);
        denied(&Policy { files: true, ..basic() }, name, []);
    }
    denied(&Policy { files: true, ..basic() }, "inotify_init1", []);
    denied(&strict(), "inotify_init1", []);
    allowed(&terminal, "inotify_init1", []);
    allowed(&strict(), "mknodat", [0, 0, u64::from(libc::S_IFIFO | 0o644)]);
    denied(&strict(), "mknodat", [0, 0, u64::from(libc::S_IFCHR | 0o644)]);
    denied(&strict(), "mknodat", [0, 0, u64::from(libc::S_IFSOCK | 0o644)]);
}
