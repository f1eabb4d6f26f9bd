//! Exec of an open file: execveat(2), or the link to it below `/proc`.

use std::os::fd::RawFd;

use nix::errno::Errno;
use nix::libc;

use crate::files::is_unknown_call;

/// Executes an open file; returns only if that fails. Both arrays end with a null pointer.
pub(super) fn exec_open(
    open: RawFd,
    argv: &[*const libc::c_char],
    env: &[*const libc::c_char],
) -> Errno {
    let (path, flags) = (c"".as_ptr(), libc::AT_EMPTY_PATH);
    // SAFETY: the empty path, both arrays and what these point to are NUL-terminated, and outlive
    // the call.
    unsafe { libc::syscall(libc::SYS_execveat, open, path, argv.as_ptr(), env.as_ptr(), flags) };
    let errno = Errno::last();
    if is_unknown_call(errno) {
        // Without execveat(2), by the link to the open file, if there is a /proc: proc_pid_fd(5).
        let path = link_of(open);
        // SAFETY: the path, both arrays and what these point to are NUL-terminated, and outlive the
        // call.
        unsafe { libc::execve(path.as_ptr().cast(), argv.as_ptr(), env.as_ptr()) };
    }
    errno
}

/// The path `/proc/self/fd/N` with a NUL at its end, without an allocation.
fn link_of(open: RawFd) -> [u8; 32] {
    const DIRECTORY: &[u8] = b"/proc/self/fd/";
    let mut path = [0; 32];
    let mut digits = [0; 10];
    let mut rest = open.unsigned_abs();
    let mut count = 0;
    // A number of 32 bits has 10 digits at most.
    for digit in &mut digits {
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
        count += 1;
        if rest == 0 {
            break;
        }
    }
    let digits = digits.iter().take(count).rev();
    for (byte, from) in path.iter_mut().zip(DIRECTORY.iter().chain(digits)) {
        *byte = *from;
    }
    path
}
