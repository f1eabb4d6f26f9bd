//! The directory of status files, which belongs to one user.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use nix::unistd::geteuid;

/// The directory of the status files of this user: `$XDG_RUNTIME_DIR/pipeplug`, or
/// `pipeplug-UID` in the directory for temporary files (`$TMPDIR`, else `/tmp`) if the variable is
/// not set, or leads to a directory of another user.
#[must_use]
pub fn directory() -> PathBuf {
    let user = geteuid().as_raw();
    // `sudo -E` and `su` leave the variable of another user.
    let of_user = |dir: &PathBuf| {
        dir.is_absolute() && fs::metadata(dir).is_ok_and(|dir| dir.is_dir() && dir.uid() == user)
    };
    match std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(of_user) {
        Some(dir) => dir.join("pipeplug"),
        None => std::env::temp_dir().join(format!("pipeplug-{user}")),
    }
}

/// Makes the directory if it is not there, and checks it.
pub(super) fn prepare(dir: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(dir) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => check(dir),
    }
}

/// Checks that no other user can write or replace files in the directory.
///
/// `/tmp` lets other users neither remove nor rename what is this user's: the sticky bit.
pub(super) fn check(dir: &Path) -> io::Result<()> {
    // Another user could make a link there.
    let found = fs::symlink_metadata(dir)?;
    let (user, mode) = (geteuid().as_raw(), found.mode() & 0o777);
    let refused = |why: String| {
        Err(io::Error::new(io::ErrorKind::PermissionDenied, format!("{}: {why}", dir.display())))
    };
    if !found.is_dir() {
        refused("this is no directory; remove it".to_owned())
    } else if found.uid() != user {
        refused(format!(
            "the directory belongs to user {}, not to you (user {user}); have it removed, or set \
             XDG_RUNTIME_DIR to a directory of yours",
            found.uid()
        ))
    } else if mode & 0o077 != 0 {
        refused(format!(
            "other users may use the directory (mode {mode:o}); make it yours with `chmod 700`"
        ))
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    #[test]
    fn a_directory_has_to_be_this_users_alone() {
        let place = tempfile::tempdir().unwrap();
        let dir = place.path().join("pipeplug");
        prepare(&dir).unwrap();
        assert_eq!(fs::metadata(&dir).unwrap().mode() & 0o777, 0o700);
        prepare(&dir).unwrap();

        fs::set_permissions(&dir, fs::Permissions::from_mode(0o770)).unwrap();
        let error = prepare(&dir).unwrap_err().to_string();
        assert!(error.contains("other users may use the directory (mode 770)"), "{error}");

        fs::set_permissions(&dir, fs::Permissions::from_mode(0o700)).unwrap();
        let link = place.path().join("link");
        symlink(&dir, &link).unwrap();
        let error = prepare(&link).unwrap_err().to_string();
        assert!(error.contains("this is no directory"), "{error}");

        if geteuid().is_root() {
            nix::unistd::chown(&dir, Some(4711.into()), None).unwrap();
            let error = prepare(&dir).unwrap_err().to_string();
            assert!(error.contains("belongs to user 4711, not to you (user 0)"), "{error}");
        }
    }
}
