//! A kernel with an older Landlock: a filter of system calls hands those of Landlock to a thread of
//! this process, which answers as such a kernel does: seccomp_unotify(2), landlock(7).

use std::fs::File;
use std::io;
use std::mem;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::os::unix::fs::FileExt as _;
use std::sync::mpsc::channel;
use std::thread;

use nix::errno::Errno;
use nix::libc;

/// `LANDLOCK_CREATE_RULESET_VERSION` of `<linux/landlock.h>`.
const VERSION: u64 = 1;
/// `LANDLOCK_RULE_NET_PORT` of the same.
const NET_PORT: u64 = 2;

/// An answer of the thread.
enum Verdict {
    /// The kernel goes on with the call.
    Continue,
    Returns(i64),
    Fails(Errno),
}

/// Makes the kernel behave as one with this version of Landlock, 0 for none, for this thread and
/// its descendants.
///
/// # Errors
/// What the system says to the filter, or to a thread.
pub fn seem_to_have_landlock(abi: u32) -> io::Result<()> {
    // Before the filter, which counts for threads that come from this one.
    let (sender, listener) = channel::<OwnedFd>();
    thread::Builder::new().name("older-landlock".into()).spawn(move || {
        if let Ok(listener) = listener.recv() {
            serve(&listener, abi);
        }
    })?;
    nix::sys::prctl::set_no_new_privs()?;
    sender.send(listen()?).map_err(io::Error::other)
}

/// Installs the filter, and gives the descriptor that the calls come by.
fn listen() -> io::Result<OwnedFd> {
    let instruction = |code: u32, jt, jf, k| libc::sock_filter { code: code as u16, jt, jf, k };
    let is = |call: libc::c_long, jt| {
        instruction(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, jt, 0, call as u32)
    };
    let filter = [
        instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        is(libc::SYS_landlock_create_ruleset, 3),
        is(libc::SYS_landlock_add_rule, 2),
        is(libc::SYS_landlock_restrict_self, 1),
        instruction(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
        instruction(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_USER_NOTIF),
    ];
    let program = libc::sock_fprog {
        len: filter.len() as libc::c_ushort,
        filter: filter.as_ptr().cast_mut(),
    };
    let (mode, flags) = (libc::SECCOMP_SET_MODE_FILTER, libc::SECCOMP_FILTER_FLAG_NEW_LISTENER);
    // SAFETY: the kernel copies the instructions, which are there, and writes nothing.
    let fd = Errno::result(unsafe {
        libc::syscall(libc::SYS_seccomp, mode, flags, &raw const program)
    })?;
    // SAFETY: the kernel has just made this descriptor, and nothing else knows of it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// Answers calls until this process ends.
fn serve(listener: &OwnedFd, abi: u32) {
    loop {
        // SAFETY: the structure is integers only, and the kernel wants it to be zero.
        let mut call: libc::seccomp_notif = unsafe { mem::zeroed() };
        // SAFETY: the request is for this structure, which is there for the call.
        let got = unsafe {
            libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_RECV, &raw mut call)
        };
        match Errno::result(got) {
            Ok(_) => {}
            // The thread that called has ended.
            Err(Errno::EINTR | Errno::ENOENT) => continue,
            Err(_) => return,
        }
        let verdict = judge(abi, call.pid, libc::c_long::from(call.data.nr), call.data.args);
        let (val, error, flags) = match verdict {
            Verdict::Continue => (0, 0, libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32),
            Verdict::Returns(value) => (value, 0, 0),
            Verdict::Fails(errno) => (0, -(errno as i32), 0),
        };
        let mut answer = libc::seccomp_notif_resp { id: call.id, val, error, flags };
        // SAFETY: as above.
        unsafe {
            libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_SEND, &raw mut answer)
        };
    }
}

fn judge(abi: u32, caller: u32, call: libc::c_long, args: [u64; 6]) -> Verdict {
    if abi == 0 {
        return Verdict::Fails(Errno::ENOSYS);
    }
    match call {
        libc::SYS_landlock_create_ruleset if args[2] == VERSION => Verdict::Returns(abi.into()),
        // Later flags.
        libc::SYS_landlock_create_ruleset if args[2] != 0 => Verdict::Fails(Errno::EINVAL),
        libc::SYS_landlock_create_ruleset => match attributes(caller, args[0], args[1]) {
            Ok(attributes) => judge_attributes(abi, &attributes),
            Err(_) => Verdict::Fails(Errno::EFAULT),
        },
        libc::SYS_landlock_add_rule if args[1] == NET_PORT && abi < 4 => {
            Verdict::Fails(Errno::EINVAL)
        }
        libc::SYS_landlock_restrict_self if args[1] != 0 && abi < 7 => {
            Verdict::Fails(Errno::EINVAL)
        }
        _ => Verdict::Continue,
    }
}

/// The fields of a `struct landlock_ruleset_attr`: rights to files, to the network, and scopes.
fn attributes(caller: u32, at: u64, size: u64) -> io::Result<Vec<u64>> {
    let mut bytes = vec![0; usize::try_from(size.min(4096)).map_err(io::Error::other)?];
    File::open(format!("/proc/{caller}/mem"))?.read_exact_at(&mut bytes, at)?;
    let field =
        |bytes: &[u8]| bytes.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte));
    Ok(bytes.chunks(8).map(field).collect())
}

fn judge_attributes(abi: u32, attributes: &[u64]) -> Verdict {
    let known: &[u64] = match abi {
        1 => &[0x1fff],
        2 => &[0x3fff],
        3 => &[0x7fff],
        4 => &[0x7fff, 3],
        5 => &[0xffff, 3],
        _ => &[0xffff, 3, 3],
    };
    let unknown = attributes.get(known.len()..).unwrap_or_default();
    if unknown.iter().any(|field| *field != 0) {
        return Verdict::Fails(Errno::E2BIG);
    }
    if attributes.iter().zip(known).any(|(field, known)| field & !known != 0) {
        return Verdict::Fails(Errno::EINVAL);
    }
    Verdict::Continue
}
