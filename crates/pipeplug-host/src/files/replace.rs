//! Atomic replacement of files.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;
use std::time::Duration;

/// Prefix of files that are being written. No plugin has such a name: it begins with the host's
/// name, which has no leading dot.
const UNFINISHED: &str = ".unfinished-";
/// Age at which an unfinished file is abandoned.
const ABANDONED: Duration = Duration::from_secs(60 * 60);

/// A file to be written in `dir`, which is made where it is not there; what killed processes left
/// there goes.
pub(crate) fn temporary<R>(
    dir: &Path,
    make: impl FnOnce(&mut tempfile::Builder<'_, '_>) -> io::Result<R>,
) -> io::Result<R> {
    make_dir(dir)?;
    sweep(dir);
    make(tempfile::Builder::new().prefix(UNFINISHED))
}

/// Puts `bytes` into the file, which has either the old content or all of the new one at any time,
/// for its user alone.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let dir = path.parent().ok_or_else(|| io::Error::from(io::ErrorKind::IsADirectory))?;
    let mut file = temporary(dir, |builder| builder.tempfile_in(dir))?;
    file.write_all(bytes)?;
    // Without fsync(2) the name could reach the disk before the bytes, and a power cut would leave
    // an empty file.
    file.as_file().sync_all()?;
    file.persist(path)?;
    Ok(())
}

/// Makes a directory, with the mode that the XDG Base Directory Specification demands.
pub(crate) fn make_dir(dir: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)
}

/// Removes what is unfinished and will stay so.
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

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::unix::fs::PermissionsExt as _;
    use std::time::SystemTime;

    use super::*;

    #[test]
    fn a_file_is_replaced_as_a_whole_and_is_private() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("a/b/file");
        replace(&path, b"first").unwrap();
        let before = File::open(&path).unwrap();
        replace(&path, b"second").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"second");
        assert_eq!(
            io::read_to_string(before).unwrap(),
            "first",
            "who reads it goes on with the old one"
        );
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(
            fs::metadata(root.path().join("a")).unwrap().permissions().mode() & 0o777,
            0o700
        );
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
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
        replace(&root.path().join("file"), b"").unwrap();
        assert!(!old.exists() && young.exists() && other.exists());
    }
}
