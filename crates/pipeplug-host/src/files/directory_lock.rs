//! Locks on directories: for files that are replaced as a whole, and with them what would be
//! locked.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::OFlag;

/// Answers of file systems without such a lock. NFS makes it a lock on bytes, for which a file has
/// to be open for writing, and a directory cannot be (EBADF).
const NO_LOCKS: [Errno; 5] =
    [Errno::EBADF, Errno::EINVAL, Errno::ENOLCK, Errno::ENOSYS, Errno::EOPNOTSUPP];

/// The right to change files of a directory that are changed only by its owner; until it is
/// dropped, or the process ends.
///
/// An advisory lock, flock(2), on the directory itself: it leaves nothing behind.
#[derive(Debug)]
pub(crate) struct DirectoryLock {
    /// Closing it lets go of the lock.
    _dir: File,
}

impl DirectoryLock {
    /// Takes the lock. Where the file system has none, it is only said to be taken, with a warning
    /// in the log.
    ///
    /// # Errors
    /// An error of opening the directory for reading.
    ///
    /// # Blocking
    /// While another process has it.
    pub(crate) fn take(dir: &Path) -> io::Result<Self> {
        let flags = (OFlag::O_DIRECTORY | OFlag::O_NONBLOCK).bits();
        let open = OpenOptions::new().read(true).custom_flags(flags).open(dir)?;
        loop {
            match open.lock() {
                Ok(()) => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if is_missing(&error) => {
                    tracing::warn!(?dir, %error, "cannot be locked: changes that are made at the \
                                                  same time may be lost");
                    break;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(Self { _dir: open })
    }
}

fn is_missing(error: &io::Error) -> bool {
    error.raw_os_error().is_some_and(|errno| NO_LOCKS.contains(&Errno::from_raw(errno)))
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;
    use std::thread;
    use std::time::Duration;

    use super::*;

    #[test]
    fn one_at_a_time_has_it_and_nothing_is_left() {
        let dir = tempfile::tempdir().unwrap();
        let first = DirectoryLock::take(dir.path()).unwrap();
        let (taken, told) = channel();
        thread::scope(|scope| {
            scope.spawn(|| {
                let second = DirectoryLock::take(dir.path()).unwrap();
                taken.send(()).unwrap();
                drop(second);
            });
            assert!(
                told.recv_timeout(Duration::from_millis(50)).is_err(),
                "it waits for the first"
            );
            drop(first);
            told.recv_timeout(Duration::from_secs(60)).unwrap();
        });
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(DirectoryLock::take(file.path()).is_err());
    }
}
