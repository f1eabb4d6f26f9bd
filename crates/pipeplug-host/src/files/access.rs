//! The right to execute a file, asked in ways that every kernel and every filter of system calls
//! knows.

use std::fs::{self, Metadata};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags};
#[cfg(any(target_os = "linux", target_os = "android"))]
use nix::sys::statvfs::{FsFlags, statvfs};
use nix::unistd::{AccessFlags, User, access, faccessat, getegid, geteuid, getgid, getuid};
#[cfg(not(any(target_os = "linux", target_os = "android")))]
use nix::{mount::MntFlags, sys::statfs::statfs};

/// Tells that a system call is not known here: `ENOSYS` is the kernel's answer, `EPERM` that of the
/// filters of older container runtimes.
pub(crate) fn is_unknown_call(errno: Errno) -> bool {
    matches!(errno, Errno::ENOSYS | Errno::EPERM)
}

/// Tells whether this process may execute the file at `path`. Does not check its interpreter.
pub(crate) fn may_execute(path: &Path) -> bool {
    // faccessat2(2), since Linux 5.8. A C library does without where that is ENOSYS, and passes
    // EPERM on.
    match faccessat(AT_FDCWD, path, AccessFlags::X_OK, AtFlags::AT_EACCESS) {
        Err(errno) if is_unknown_call(errno) => may_execute_by_access(path),
        answer => answer.is_ok(),
    }
}

/// Like [`may_execute`], by access(2), which answers for the real user.
fn may_execute_by_access(path: &Path) -> bool {
    if getuid() == geteuid() && getgid() == getegid() {
        return access(path, AccessFlags::X_OK).is_ok();
    }
    // A set-user-ID host: the exec itself has the last word.
    fs::metadata(path).is_ok_and(|metadata| metadata.permissions().mode() & 0o111 != 0)
}

/// The reason for which this process may not execute a regular file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Obstacle {
    /// The file system is mounted noexec.
    FileSystem,
    /// The owner, in words, where that is another user, who alone can change the file's mode.
    Owner(String),
    /// The mode of the file.
    Mode,
}

impl Obstacle {
    /// The obstacle for a file that [`may_execute`] denies.
    pub(crate) fn of(path: &Path, metadata: &Metadata) -> Self {
        if is_noexec(path) {
            Self::FileSystem
        } else {
            Self::of_owner(metadata.uid(), geteuid().as_raw())
        }
    }

    fn of_owner(owner: u32, user: u32) -> Self {
        if user == 0 || user == owner {
            return Self::Mode;
        }
        // The name is a help; the number is enough.
        let name =
            User::from_uid(owner.into()).ok().flatten().map(|user| format!(" ({})", user.name));
        Self::Owner(format!("user {owner}{}", name.unwrap_or_default()))
    }
}

/// Tells whether the file system of `path` is mounted noexec: mount(8).
pub(crate) fn is_noexec(path: &Path) -> bool {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    return statvfs(path).is_ok_and(|status| status.flags().contains(FsFlags::ST_NOEXEC));
    // There statvfs(3) does not tell.
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    return statfs(path).is_ok_and(|status| status.flags().contains(MntFlags::MNT_NOEXEC));
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::{Obstacle, may_execute, may_execute_by_access};

    #[test]
    fn another_user_s_file_is_not_this_one_s_to_change() {
        assert_eq!(Obstacle::of_owner(0, 1000), Obstacle::Owner("user 0 (root)".to_owned()));
        assert_eq!(
            Obstacle::of_owner(0x7fff_fff0, 1),
            Obstacle::Owner("user 2147483632".to_owned())
        );
        assert_eq!(Obstacle::of_owner(1000, 1000), Obstacle::Mode);
        assert_eq!(Obstacle::of_owner(1000, 0), Obstacle::Mode);
    }

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
