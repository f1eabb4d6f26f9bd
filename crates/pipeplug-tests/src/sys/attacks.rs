//! System calls of attacks that are unsafe, or that no library offers.

use std::ffi::CStr;
use std::io;
use std::os::fd::{FromRawFd as _, OwnedFd, RawFd};
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use nix::errno::Errno;
use nix::libc;
use nix::unistd::ForkResult;

/// The class of `ioprio_set(2)` that is served when nothing else is, at its place in the number.
const IDLE: libc::c_long = 3 << 13;
/// `IOPRIO_WHO_PROCESS`.
const PROCESS: libc::c_long = 1;

/// Sets an extended attribute.
pub(crate) fn set_attribute(path: &CStr) -> io::Result<()> {
    let (name, value) = (c"user.pipeplug", b"x");
    // SAFETY: the path and the name are NUL-terminated, the value has the length that is given, and
    // all are only read.
    let set = unsafe {
        libc::setxattr(path.as_ptr(), name.as_ptr(), value.as_ptr().cast(), value.len(), 0)
    };
    Ok(Errno::result(set).map(drop)?)
}

/// Gives a process a lower priority.
pub(crate) fn lower_priority(pid: i32) -> io::Result<()> {
    let pid = libc::id_t::try_from(pid).map_err(io::Error::other)?;
    // SAFETY: the call takes integers and touches no memory.
    Ok(Errno::result(unsafe { libc::setpriority(libc::PRIO_PROCESS, pid, 1) }).map(drop)?)
}

/// Gives a process the idle priority for the disk.
pub(crate) fn lower_io_priority(pid: i32) -> io::Result<()> {
    // SAFETY: the call takes integers and touches no memory.
    let set =
        unsafe { libc::syscall(libc::SYS_ioprio_set, PROCESS, libc::c_long::from(pid), IDLE) };
    Ok(Errno::result(set).map(drop)?)
}

/// Runs `act` in the child before its exec. `act` may only make system calls.
pub(crate) fn in_child(command: &mut Command, act: fn() -> nix::Result<()>) {
    // SAFETY: those that are passed here make one system call.
    unsafe { command.pre_exec(move || act().map_err(Into::into)) };
}

/// Forks this process, which may have other threads.
pub(crate) fn fork_with_threads() -> io::Result<ForkResult> {
    // SAFETY: the child starts a process and exits at once. Starting one allocates, which glibc
    // keeps working in the child of a process with threads.
    Ok(unsafe { nix::unistd::fork() }?)
}

/// Ends this process without exit handlers and destructors.
pub(crate) fn exit_at_once(status: i32) -> ! {
    // SAFETY: _exit takes an integer and does not return.
    unsafe { libc::_exit(status) }
}

/// Duplicates a descriptor of the host.
pub(crate) fn duplicate(raw: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: the call takes an integer, and says so where that is no descriptor.
    let copy = Errno::result(unsafe { libc::dup(raw) })?;
    // SAFETY: the kernel has just made this descriptor, and nothing else knows of it.
    Ok(unsafe { OwnedFd::from_raw_fd(copy) })
}

/// Makes a system call fail in this thread and its descendants.
pub(crate) fn refuse(call: libc::c_long, with: Errno) -> io::Result<()> {
    let instruction = |code: u32, jt, jf, k| libc::sock_filter { code: code as u16, jt, jf, k };
    let filter = [
        // The number is the first field of what a filter sees: seccomp(2), `struct seccomp_data`.
        instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        instruction(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, call as u32),
        instruction(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ERRNO | with as u32),
        instruction(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog {
        len: filter.len() as libc::c_ushort,
        filter: filter.as_ptr().cast_mut(),
    };
    let mode = libc::SECCOMP_MODE_FILTER as libc::c_ulong;
    // SAFETY: the kernel copies the instructions, which are there, and writes nothing.
    Ok(Errno::result(unsafe { libc::prctl(libc::PR_SET_SECCOMP, mode, &raw const program) })
        .map(drop)?)
}
