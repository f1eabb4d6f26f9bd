//! The right to execute a file, asked in ways that every kernel and every filter of system calls knows.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags};
use nix::unistd::{AccessFlags, access, faccessat, getegid, geteuid, getgid, getuid};

/// Tells that a system call is not known here: `ENOSYS` is the kernel's answer, `EPERM` that of the filters of older
/// container runtimes.
pub(crate) fn is_unknown_call(errno: Errno) -> bool {
    matches!(errno, Errno::ENOSYS | Errno::EPERM)
}

/// Asks for this process's right to execute the file at `path`, whatever its interpreter.
pub(crate) fn may_execute(path: &Path) -> bool {
    // faccessat2(2), since Linux 5.8. A C library does without where that is ENOSYS, and passes EPERM on.
    match faccessat(AT_FDCWD, path, AccessFlags::X_OK, AtFlags::AT_EACCESS) {
        Err(errno) if is_unknown_call(errno) => may_execute_by_access(path),
        answer => answer.is_ok(),
    }
}

/// As [`may_execute`], by access(2), which answers for the real user.
fn may_execute_by_access(path: &Path) -> bool {
    if getuid() == geteuid() && getgid() == getegid() {
        return access(path, AccessFlags::X_OK).is_ok();
    }
    // A set-user-ID host: the exec itself has the last word.
    fs::metadata(path).is_ok_and(|metadata| metadata.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::{may_execute, may_execute_by_access};

    #[test]
    fn both_ways_answer_alike() {
        let file = tempfile::NamedTempFile::new().unwrap();
        for (mode, may) in [(0o600, false), (0o700, true), (0o755, true)] {
            fs::set_permissions(file.path(), fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(
                (may_execute(file.path()), may_execute_by_access(file.path())),
                (may, may),
                "{mode:o}"
            );
        }
    }
}
