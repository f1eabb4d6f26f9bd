//! The calls that a `basic` plugin cannot make: those that no plugin needs which means well.
//!
//! All others are allowed, also those of kernels to come: most of these need a privilege, or go
//! through a call that is denied here. System V and POSIX IPC is allowed as long as the network is
//! the host's, since databases and their clients use it; so are the setters of scheduling, and
//! metadata of files, unless some are out of reach.

use nix::libc;

use super::allow_list::{METADATA_CHANGES, MODES, WATCHES};
use super::arguments::{FAST_OPEN, NAMESPACES, PERSONALITY_ASKED};
use super::rules::{Rule, Test, Verdict, int, request};
use super::{Policy, Rules, all};
use crate::sandbox::Ports;

/// Denied whatever the arguments.
const DENIED: &[&str] = &[
    // Other processes' memory and descriptors.
    "ptrace process_vm_readv process_vm_writev pidfd_getfd kcmp",
    // Mounts, swap and quotas.
    "mount umount2 pivot_root chroot open_tree open_tree_attr move_mount mount_setattr fsopen \
     fsconfig fsmount fspick swapon swapoff quotactl quotactl_fd",
    // Namespaces; those of clone are denied below.
    "unshare setns",
    // The kernel itself, and the machine that it runs on.
    "bpf perf_event_open init_module finit_module delete_module kexec_load kexec_file_load reboot \
     syslog acct vhangup sethostname setdomainname settimeofday clock_settime clock_adjtime \
     adjtimex",
    // Keys of the user.
    "keyctl add_key request_key",
    // Calls that reach files past Landlock.
    "open_by_handle_at fanotify_init fanotify_mark lookup_dcookie",
    // Calls that are made past the filter, and ways to use holes in the kernel more easily.
    "io_uring_setup io_uring_enter io_uring_register userfaultfd",
    // Relics of x86.
    "iopl ioperm modify_ldt uselib ustat sysfs",
];

/// Objects with names that every process of the user knows: denied with the network.
const DENIED_APART: &str = "msgget semget shmget mq_open";

/// The bits of a socket's type that are no flags: socket(2).
const SOCKET_TYPE: u32 = 0xf;
/// The obsolete way to packet sockets: packet(7).
const SOCK_PACKET: u32 = 10;

/// Typing into the terminal, as if its user had.
const TYPING: [u32; 2] = [request(libc::TIOCSTI), request(libc::TIOCLINUX)];

/// The rules of all calls that are not simply allowed.
pub(super) fn rules(policy: &Policy<'_>) -> Rules {
    let mut rules = all(DENIED, Verdict::Deny);
    // clone3(2) has its flags in memory, where no filter can see them: C libraries then take
    // clone(2).
    rules.insert("clone3", Rule::Always(Verdict::Missing));
    // A child with CLONE_PARENT would be the host's, which waits for plugins that it has started.
    rules.insert("clone", Rule::when(Test::without(0, NAMESPACES | int(libc::CLONE_PARENT))));
    rules.insert("ioctl", Rule::when(Test::none_of(1, &TYPING)));
    rules.insert("personality", Rule::when(Test::one_of(0, &[0, PERSONALITY_ASKED])));
    // Of other processes it may read the limits.
    let reads = Test::null(2).to_vec();
    rules.insert("prlimit64", Rule::AnyOf(vec![vec![Test::one_of(0, &[0])], reads]));
    if policy.files {
        // Landlock lets them through, for whatever file of the user.
        rules.extend(all(&[METADATA_CHANGES, MODES, WATCHES], Verdict::Deny));
    }
    match policy.ports {
        None => {
            rules.insert("socket", any_network());
        }
        Some(ports) => rules.extend(apart(ports)),
    }
    rules
}

/// All of the host's network, but nothing below TCP and UDP, and of the kernel's own only the
/// tables of addresses.
fn any_network() -> Rule {
    let kind = |test: Test| test.under(SOCKET_TYPE);
    let usual = [int(libc::AF_UNIX), int(libc::AF_INET), int(libc::AF_INET6)];
    Rule::AnyOf(vec![
        vec![Test::one_of(0, &usual), kind(Test::none_of(1, &[int(libc::SOCK_RAW), SOCK_PACKET]))],
        vec![
            Test::one_of(0, &[int(libc::AF_NETLINK)]),
            kind(Test::none_of(1, &[SOCK_PACKET])),
            Test::one_of(2, &[int(libc::NETLINK_ROUTE)]),
        ],
    ])
}

/// No way to others but by the TCP ports that were named.
fn apart(ports: &Ports) -> Rules {
    let mut rules = all(&[DENIED_APART], Verdict::Deny);
    // A datagram socket of a pair can be connected to another one.
    let datagrams = [int(libc::SOCK_DGRAM), int(libc::SOCK_RAW)];
    rules.insert("socketpair", Rule::when(Test::none_of(1, &datagrams).under(SOCKET_TYPE)));
    if ports.is_empty() {
        rules.insert("socket", Rule::Always(Verdict::Deny));
        return rules;
    }
    // Nothing but TCP, which Landlock knows the ports of: no MPTCP, which is of the same type. A
    // socket with a name in the file system, as that of a container engine, would be a way out as
    // well.
    let tcp = [
        Test::one_of(0, &[int(libc::AF_INET), int(libc::AF_INET6)]),
        Test::one_of(1, &[int(libc::SOCK_STREAM)]).under(SOCKET_TYPE),
        Test::one_of(2, &[0, int(libc::IPPROTO_TCP)]),
    ];
    rules.insert("socket", Rule::if_all(tcp));
    // Connections past connect(2), which is where Landlock looks at the port.
    let plain = |argument| Rule::when(Test::without(argument, int(libc::MSG_FASTOPEN)));
    rules.extend([("sendto", plain(3)), ("sendmsg", plain(2)), ("sendmmsg", plain(3))]);
    let other_level = vec![Test::none_of(1, &[int(libc::IPPROTO_TCP)])];
    rules.insert("setsockopt", Rule::AnyOf(vec![other_level, vec![Test::none_of(2, &FAST_OPEN)]]));
    // listen(2) takes any free port where there was no bind(2), and Landlock does not see it.
    if ports.bind.is_empty() {
        rules.insert("listen", Rule::Always(Verdict::Deny));
    }
    rules
}
