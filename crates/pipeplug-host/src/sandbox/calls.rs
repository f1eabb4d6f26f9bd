//! The seccomp filter: which system calls fail.
//!
//! It says what is denied rather than what is allowed: a list of what all plugins need would be wrong with the next C
//! library, and what the kernel will have next is behind a privilege, or goes through what is denied here, most of the
//! time.

use std::collections::BTreeMap;

use nix::libc;
use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};

use super::Ports;

/// What no plugin needs, whatever its arguments.
const DENIED: [libc::c_long; 48] = [
    // Other processes' memory and descriptors.
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_pidfd_getfd,
    libc::SYS_kcmp,
    // What is mounted where.
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_open_tree,
    libc::SYS_move_mount,
    libc::SYS_mount_setattr,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_quotactl,
    // Namespaces; those of clone are denied below.
    libc::SYS_unshare,
    libc::SYS_setns,
    // The kernel itself, and what it runs on.
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_reboot,
    libc::SYS_syslog,
    libc::SYS_acct,
    libc::SYS_vhangup,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_clock_adjtime,
    libc::SYS_adjtimex,
    // Keys of the user.
    libc::SYS_keyctl,
    libc::SYS_add_key,
    libc::SYS_request_key,
    // Files past the walls around files.
    libc::SYS_open_by_handle_at,
    libc::SYS_fanotify_init,
    libc::SYS_fanotify_mark,
    libc::SYS_lookup_dcookie,
    // What lets other system calls be made unseen, or holes in the kernel be used more easily.
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_userfaultfd,
];

/// As above, where only this machine has them.
#[cfg(target_arch = "x86_64")]
const DENIED_HERE: [libc::c_long; 7] = [
    libc::SYS_kexec_file_load,
    libc::SYS_iopl,
    libc::SYS_ioperm,
    libc::SYS_modify_ldt,
    libc::SYS_uselib,
    libc::SYS_ustat,
    libc::SYS_sysfs,
];
#[cfg(not(target_arch = "x86_64"))]
const DENIED_HERE: [libc::c_long; 0] = [];

/// What is shared by names that every process of the user knows: denied with the network.
const DENIED_APART: [libc::c_long; 4] =
    [libc::SYS_msgget, libc::SYS_semget, libc::SYS_shmget, libc::SYS_mq_open];

/// Types of namespaces, which clone(2) takes as flags.
const NAMESPACES: [libc::c_int; 7] = [
    libc::CLONE_NEWCGROUP,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWNET,
    libc::CLONE_NEWNS,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWUTS,
];

/// The types of sockets beside streams.
const NO_STREAMS: [libc::c_int; 6] =
    [libc::SOCK_DGRAM, libc::SOCK_RAW, libc::SOCK_RDM, libc::SOCK_SEQPACKET, libc::SOCK_DCCP, SOCK_PACKET];

/// The bits of a socket's type that are no flags: socket(2).
const SOCK_TYPE_MASK: u64 = 0xf;
/// The obsolete way to packet sockets, which libc has no name for.
const SOCK_PACKET: libc::c_int = 10;
/// `personality(2)` changes nothing with this, and tells what is.
const PERSONALITY_ASKED: u64 = 0xffff_ffff;

/// All of an argument that the kernel takes for an int.
const ALL_BITS: u64 = u32::MAX as u64;

/// Numbers from here on mean the x32 variants of system calls, which a filter of plain numbers would miss.
const X32: u32 = 0x4000_0000;

/// Whether there is a filter for this machine.
pub(super) fn is_known_machine() -> bool {
    TargetArch::try_from(std::env::consts::ARCH).is_ok()
}

/// The program that the child hands to the kernel.
pub(super) fn filter(ports: Option<&Ports>) -> Result<Vec<libc::sock_filter>, String> {
    let Ok(arch) = TargetArch::try_from(std::env::consts::ARCH) else { return Ok(Vec::new()) };
    let in_words = |error: BackendError| format!("seccomp: {error}");
    let rules = rules(ports).map_err(in_words)?;
    let denied = SeccompAction::Errno(libc::EPERM.unsigned_abs());
    let program: BpfProgram = SeccompFilter::new(rules, SeccompAction::Allow, denied, arch)
        .and_then(TryInto::try_into)
        .map_err(in_words)?;
    let program =
        program.into_iter().map(|it| libc::sock_filter { code: it.code, jt: it.jt, jf: it.jf, k: it.k });
    Ok(prologue().into_iter().chain(program).collect())
}

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

fn rules(ports: Option<&Ports>) -> Result<Rules, BackendError> {
    let mut rules = Rules::new();
    for number in DENIED.into_iter().chain(DENIED_HERE) {
        // No condition: always.
        rules.insert(number, Vec::new());
    }
    let some = |argument| SeccompCondition::new(argument, SeccompCmpArgLen::Qword, SeccompCmpOp::Ne, 0);

    let mut namespaces = Vec::new();
    for flag in NAMESPACES.map(number) {
        namespaces.push(SeccompRule::new(vec![is(0, flag, flag)?])?);
    }
    rules.insert(libc::SYS_clone, namespaces);
    // Typing into the terminal, as if its user had.
    let mut ioctls = Vec::new();
    for request in [libc::TIOCSTI, libc::TIOCLINUX] {
        ioctls.push(SeccompRule::new(vec![is(1, ALL_BITS, request & ALL_BITS)?])?);
    }
    rules.insert(libc::SYS_ioctl, ioctls);
    let personality = vec![is_not(0, 0)?, is_not(0, PERSONALITY_ASKED)?];
    rules.insert(libc::SYS_personality, vec![SeccompRule::new(personality)?]);
    // Limits of other processes.
    rules.insert(libc::SYS_prlimit64, vec![SeccompRule::new(vec![is_not(0, 0)?, some(2)?])?]);

    rules.insert(libc::SYS_socket, sockets(ports)?);
    if ports.is_some() {
        for number in DENIED_APART {
            rules.insert(number, Vec::new());
        }
        // One of a pair of datagram sockets can be connected to something else.
        let pairs = [libc::SOCK_DGRAM, libc::SOCK_RAW].map(|kind| SeccompRule::new(vec![of_type(kind)?]));
        rules.insert(libc::SYS_socketpair, pairs.into_iter().collect::<Result<_, _>>()?);
    }
    Ok(rules)
}

/// Which sockets are denied; no rule at all means every one.
fn sockets(ports: Option<&Ports>) -> Result<Vec<SeccompRule>, BackendError> {
    let [inet, inet6, netlink] = [libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK].map(number);
    match ports {
        // Any of the network's, but nothing below TCP and UDP, and of the kernel's only what tells of addresses.
        None => {
            let no_known_domain =
                [number(libc::AF_UNIX), inet, inet6, netlink].map(|domain| is_not(0, domain));
            Ok(vec![
                SeccompRule::new(no_known_domain.into_iter().collect::<Result<_, _>>()?)?,
                SeccompRule::new(vec![of_type(libc::SOCK_RAW)?, is_not(0, netlink)?])?,
                SeccompRule::new(vec![of_type(SOCK_PACKET)?])?,
                SeccompRule::new(vec![is(0, ALL_BITS, netlink)?, is_not(2, number(libc::NETLINK_ROUTE))?])?,
            ])
        }
        Some(ports) if ports.is_empty() => Ok(Vec::new()),
        // Nothing but TCP, which Landlock knows the ports of. A socket with a name in the file system, as that of a
        // container engine, would be a way out as well.
        Some(_) => {
            let mut rules = vec![
                SeccompRule::new(vec![is_not(0, inet)?, is_not(0, inet6)?])?,
                // MPTCP is another protocol of the same type, which the ports of Landlock did not hold for at first.
                SeccompRule::new(vec![is_not(2, 0)?, is_not(2, number(libc::IPPROTO_TCP))?])?,
            ];
            for kind in NO_STREAMS {
                rules.push(SeccompRule::new(vec![of_type(kind)?])?);
            }
            Ok(rules)
        }
    }
}

/// Whether the bits of an argument under `mask` are those of `value`.
fn is(argument: u8, mask: u64, value: u64) -> Result<SeccompCondition, BackendError> {
    SeccompCondition::new(argument, SeccompCmpArgLen::Dword, SeccompCmpOp::MaskedEq(mask), value)
}

fn is_not(argument: u8, value: u64) -> Result<SeccompCondition, BackendError> {
    SeccompCondition::new(argument, SeccompCmpArgLen::Dword, SeccompCmpOp::Ne, value)
}

/// Whether the second argument is this type of socket, whatever its flags.
fn of_type(kind: libc::c_int) -> Result<SeccompCondition, BackendError> {
    is(1, SOCK_TYPE_MASK, number(kind))
}

fn number(value: libc::c_int) -> u64 {
    u64::from(value.unsigned_abs())
}

/// What goes ahead of the filter: calls that fail as on a kernel without them, so that the C library tries another way.
fn prologue() -> Vec<libc::sock_filter> {
    const LOAD_NUMBER: u32 = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
    let statement = |code: u32, k| jump(code, 0, 0, k);
    let equals = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
    let answer = libc::SECCOMP_RET_ERRNO | libc::ENOSYS.unsigned_abs();
    // clone3(2) has its flags in memory, where no filter can see them.
    let clone3 = u32::try_from(libc::SYS_clone3).expect("numbers of system calls are small");
    let mut program = vec![
        // The number is the first field of what a filter sees (seccomp_data).
        statement(LOAD_NUMBER, 0),
        jump(equals, 0, 1, clone3),
        statement(libc::BPF_RET | libc::BPF_K, answer),
    ];
    if cfg!(target_arch = "x86_64") {
        program.push(jump(libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K, 0, 1, X32));
        program.push(statement(libc::BPF_RET | libc::BPF_K, answer));
    }
    program
}

fn jump(code: u32, jt: u8, jf: u8, k: u32) -> libc::sock_filter {
    let code = u16::try_from(code).expect("the codes of BPF have 16 bits");
    libc::sock_filter { code, jt, jf, k }
}
