//! Atomic replacement of files.

#[cfg(feature = "discovery")]
use std::fs;
use std::fs::Permissions;
use std::io::{self, Write as _};
#[cfg(feature = "discovery")]
use std::os::unix::fs::DirBuilderExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
#[cfg(feature = "discovery")]
use std::time::Duration;

use tempfile::NamedTempFile;

/// Prefix of files that are being written. No plugin has such a name: it begins with the host's
/// name, which has no leading dot.
const UNFINISHED: &str = ".unfinished-";
/// Age at which an unfinished file is abandoned.
#[cfg(feature = "discovery")]
const ABANDONED: Duration = Duration::from_secs(60 * 60);

/// Makes an unfinished file in `dir`, which is made where it does not exist. Removes what killed
/// processes left there.
#[cfg(feature = "discovery")]
pub(crate) fn temporary<R>(
    dir: &Path,
    make: impl FnOnce(&mut tempfile::Builder<'_, '_>) -> io::Result<R>,
) -> io::Result<R> {
    make_dir(dir)?;
    sweep(dir);
    make(tempfile::Builder::new().prefix(UNFINISHED))
}

/// Replaces a file in a directory of the host's own, which is made where it does not exist, for its
/// user alone.
#[cfg(feature = "discovery")]
pub(crate) fn replace_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let dir = dir_of(path)?;
    let file = temporary(dir, |builder| builder.tempfile_in(dir))?;
    finish(file, path, bytes)
}

/// Replaces a file that other users may read, as the umask has it.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let file = tempfile::Builder::new()
        .prefix(UNFINISHED)
        .permissions(Permissions::from_mode(0o666))
        .tempfile_in(dir_of(path)?)?;
    finish(file, path, bytes)
}

fn dir_of(path: &Path) -> io::Result<&Path> {
    path.parent().ok_or_else(|| io::ErrorKind::IsADirectory.into())
}

/// Puts the new content in place of the old one. At any time the file has either of them as a
/// whole.
fn finish(mut file: NamedTempFile, path: &Path, bytes: &[u8]) -> io::Result<()> {
    file.write_all(bytes)?;
    // Without fsync(2) the name could reach the disk before the bytes, and a power cut would leave
    // an empty file.
    file.as_file().sync_all()?;
    file.persist(path)?;
    Ok(())
}

/// Makes a directory, with the mode that the XDG Base Directory Specification demands.
#[cfg(feature = "discovery")]
pub(crate) fn make_dir(dir: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)
}

/// Removes what is unfinished and will stay so.
#[cfg(feature = "discovery")]
fn sweep(dir: &Path) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let is_unfinished = entry.file_name().as_encoded_bytes().starts_with(UNFINISHED.as_bytes());
        let age = || entry.metadata().ok()?.modified().ok()?.elapsed().ok();
        if is_unfinished && age().is_some_and(|age| age >= ABANDONED) {
            // Another process may have removed it first. A file that stays does no harm.
            let _ = fs::remove_file(entry.path());
        }
    }
}

#[cfg(all(test, feature = "discovery"))]
mod tests {
    use std::fs::File;
    use std::time::SystemTime;

    use super::*;

    #[test]
    fn a_file_is_replaced_as_a_whole_and_is_private() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("a/b/file");
        replace_private(&path, b"first").unwrap();
        let before = File::open(&path).unwrap();
        replace_private(&path, b"second").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"second");
        assert_eq!(
            io::read_to_string(before).unwrap(),
            "first",
            "a reader goes on with the old one"
        );
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(
            fs::metadata(root.path().join("a")).unwrap().permissions().mode() & 0o777,
            0o700
        );
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }

    #[test]
    fn a_shared_file_keeps_the_mode_of_new_files_and_its_directory_is_not_made() {
        let root = tempfile::tempdir().unwrap();
        let (path, plain) = (root.path().join("file"), root.path().join("plain"));
        fs::write(&plain, "").unwrap();
        replace(&path, b"first").unwrap();
        replace(&path, b"second").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"second");
        let mode = |path| fs::metadata(path).unwrap().permissions().mode();
        assert_eq!(mode(&path), mode(&plain));
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 2);
        let error = replace(&root.path().join("none/file"), b"").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn what_killed_processes_left_goes_once_it_is_old() {
        let root = tempfile::tempdir().unwrap();
        let file = |name: &str, age: Duration| {
            let path = root.path().join(name);
            let file = File::create(&path).unwrap();
            file.set_modified(SystemTime::now() - age).unwrap();
            path
        };
        let old = file(".unfinished-1", ABANDONED);
        let young = file(".unfinished-2", Duration::ZERO);
        let other = file(".profile", ABANDONED * 2);
        replace_private(&root.path().join("file"), b"").unwrap();
        assert!(!old.exists() && young.exists() && other.exists());
    }
}
