//! Regular files, opened once.
//!
//! A path may lead to another file, a FIFO or a device at any moment. So a file is opened first,
//! without waiting for anything, and looked at through its descriptor: the file that was looked at
//! is the one that is read, and a limit holds for what is read, whatever size the file had.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Read as _};
#[cfg(target_os = "linux")]
use std::os::fd::AsRawFd as _;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};
use std::path::Path;

use nix::errno::Errno;
#[cfg(target_os = "linux")]
use nix::fcntl::AtFlags;
use nix::fcntl::OFlag;
#[cfg(target_os = "linux")]
use nix::unistd::{AccessFlags, faccessat};

#[cfg(target_os = "linux")]
use crate::files::may_execute;

/// A regular file, and its metadata at the time it was opened.
#[derive(Debug)]
pub(crate) struct RegularFile {
    file: File,
    metadata: Metadata,
}

/// Error of opening or reading a regular file.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FileError {
    /// The system's answer.
    #[error("{0}")]
    System(io::Error),
    /// The path leads to something else.
    #[error("it is {found}, not a regular file")]
    NotRegular { found: &'static str },
    /// The file has more bytes than are read of it.
    #[error("it has {len} bytes, the limit is {limit}")]
    TooLarge { len: u64, limit: u64 },
    /// The file had fewer bytes than the limit when it was opened.
    #[error("it had {len} bytes, and grew past the limit of {limit} while it was read")]
    Grown { len: u64, limit: u64 },
}

/// The words for a directory in [`FileError::NotRegular`].
pub(crate) const DIRECTORY: &str = "a directory";

impl RegularFile {
    /// Opens a file to read it; links are followed.
    ///
    /// # Errors
    /// The system's answer, or [`FileError::NotRegular`].
    pub(crate) fn open(path: &Path) -> Result<Self, FileError> {
        Self::open_with(path, OpenOptions::new().read(true))
    }

    /// Opens a file, or makes an empty one for this user alone, to lock it.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub(crate) fn open_or_create(path: &Path) -> Result<Self, FileError> {
        Self::open_with(path, OpenOptions::new().read(true).append(true).create(true).mode(0o600))
    }

    fn open_with(path: &Path, options: &mut OpenOptions) -> Result<Self, FileError> {
        // A FIFO would wait for its other end, a terminal could become this process's own. The
        // standard library sets O_CLOEXEC.
        let file = options
            .custom_flags((OFlag::O_NONBLOCK | OFlag::O_NOCTTY).bits())
            .open(path)
            .map_err(FileError::of_open)?;
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(FileError::NotRegular { found: kind(&metadata) });
        }
        Ok(Self { file, metadata })
    }

    /// The metadata of the open file, at the time it was opened.
    pub(crate) fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// Tells whether this process may execute the open file, even if its path leads elsewhere by
    /// now.
    #[cfg(target_os = "linux")]
    pub(crate) fn may_execute(&self) -> bool {
        let flags = AtFlags::AT_EACCESS | AtFlags::AT_EMPTY_PATH;
        match faccessat(self.as_fd(), "", AccessFlags::X_OK, flags) {
            // Without faccessat2(2), of Linux 5.8, or where a filter of system calls does not know
            // it. The link leads to the open file itself: proc_pid_fd(5).
            Err(Errno::EINVAL | Errno::ENOSYS | Errno::ENOENT | Errno::EPERM) => {
                may_execute(format!("/proc/self/fd/{}", self.as_fd().as_raw_fd()).as_ref())
            }
            answer => answer.is_ok(),
        }
    }

    /// Looks for any right to execute in the file's mode; other systems have no way to ask for this
    /// process.
    #[cfg(not(target_os = "linux"))]
    pub(crate) fn may_execute(&self) -> bool {
        std::os::unix::fs::PermissionsExt::mode(&self.metadata.permissions()) & 0o111 != 0
    }

    /// The open file, for what needs no limit.
    pub(crate) fn into_file(self) -> File {
        self.file
    }

    /// Reads all of it.
    ///
    /// # Errors
    /// [`FileError::TooLarge`] past `limit` bytes, [`FileError::Grown`] if it gets them while it is
    /// read.
    pub(crate) fn read(&self, limit: u64) -> Result<Vec<u8>, FileError> {
        let mut bytes = Vec::new();
        self.copy(limit, &mut bytes)?;
        Ok(bytes)
    }

    /// Writes all of it to `to`; at most one byte more than `limit`, where it fails because of
    /// that.
    ///
    /// # Errors
    /// As [`read`](Self::read), or the target cannot be written.
    pub(crate) fn copy(&self, limit: u64, to: &mut impl io::Write) -> Result<(), FileError> {
        let len = self.metadata.len();
        if len > limit {
            return Err(FileError::TooLarge { len, limit });
        }
        let copied = io::copy(&mut (&self.file).take(limit.saturating_add(1)), to)?;
        if copied > limit { Err(FileError::Grown { len, limit }) } else { Ok(()) }
    }
}

impl AsFd for RegularFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl FileError {
    fn of_open(error: io::Error) -> Self {
        match error.raw_os_error().map(Errno::from_raw) {
            // open(2): a socket, or a device that is not there.
            Some(Errno::ENXIO) => Self::NotRegular { found: "a socket or a device" },
            // To be written to.
            Some(Errno::EISDIR) => Self::NotRegular { found: DIRECTORY },
            _ => Self::System(error),
        }
    }
}

impl From<io::Error> for FileError {
    fn from(error: io::Error) -> Self {
        Self::System(error)
    }
}

impl From<FileError> for io::Error {
    fn from(error: FileError) -> Self {
        match error {
            FileError::System(error) => error,
            FileError::NotRegular { .. } => Self::new(io::ErrorKind::InvalidInput, error),
            FileError::TooLarge { .. } | FileError::Grown { .. } => {
                Self::new(io::ErrorKind::FileTooLarge, error)
            }
        }
    }
}

/// Names, in words, a file that is not a regular one.
pub(crate) fn kind(metadata: &Metadata) -> &'static str {
    let kind = metadata.file_type();
    if kind.is_dir() {
        DIRECTORY
    } else if kind.is_fifo() {
        "a FIFO"
    } else if kind.is_char_device() || kind.is_block_device() {
        "a device"
    } else if kind.is_socket() {
        "a socket"
    } else {
        "something else"
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write;
    use std::os::unix::fs::PermissionsExt as _;
    use std::os::unix::net::UnixListener;

    use nix::sys::stat::Mode;
    use nix::unistd::mkfifo;

    use super::*;

    #[test]
    fn only_regular_files_are_opened_and_nothing_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let (fifo, socket) = (dir.path().join("fifo"), dir.path().join("socket"));
        mkfifo(&fifo, Mode::S_IRWXU).unwrap();
        let _listener = UnixListener::bind(&socket).unwrap();
        let cases = [
            (fifo.as_path(), "it is a FIFO, not a regular file"),
            (socket.as_path(), "it is a socket or a device, not a regular file"),
            (dir.path(), "it is a directory, not a regular file"),
            (Path::new("/dev/zero"), "it is a device, not a regular file"),
        ];
        for (path, message) in cases {
            assert_eq!(RegularFile::open(path).unwrap_err().to_string(), message);
            let error = RegularFile::open_or_create(path).unwrap_err().to_string();
            assert!(error.contains("not a regular file"), "{error}");
        }
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(&fifo, &link).unwrap();
        assert!(matches!(RegularFile::open(&link), Err(FileError::NotRegular { found: "a FIFO" })));
    }

    #[test]
    fn the_open_file_tells_whether_it_may_be_executed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        for (mode, may) in [(0o755, true), (0o644, false)] {
            fs::write(&path, "").unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let open = RegularFile::open(&path).unwrap();
            // Another file takes its place.
            fs::remove_file(&path).unwrap();
            fs::write(&path, "").unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o777 - mode)).unwrap();
            assert_eq!(open.may_execute(), may, "{mode:o}");
            fs::remove_file(&path).unwrap();
        }
    }

    #[test]
    fn a_limit_holds_for_the_size_and_for_what_is_read() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "12345").unwrap();
        let open = RegularFile::open(file.path()).unwrap();
        assert_eq!(open.read(5).unwrap(), b"12345");
        let error = open.read(4).unwrap_err().to_string();
        assert_eq!(error, "it has 5 bytes, the limit is 4");

        let open = RegularFile::open(file.path()).unwrap();
        file.as_file().write_all(b"123456789").unwrap();
        let mut read = Vec::new();
        let error = open.copy(6, &mut read).unwrap_err();
        assert_eq!(
            error.to_string(),
            "it had 5 bytes, and grew past the limit of 6 while it was read"
        );
        assert_eq!(read.len(), 7, "no more than shows that it is too large");
        assert_eq!(io::Error::from(error).kind(), io::ErrorKind::FileTooLarge);
    }

    #[test]
    fn a_sparse_file_is_refused_by_its_size() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(6 << 30).unwrap();
        let open = RegularFile::open(file.path()).unwrap();
        let mut untouched = Untouched;
        let error = open.copy(1 << 30, &mut untouched).unwrap_err().to_string();
        assert_eq!(error, "it has 6442450944 bytes, the limit is 1073741824");
    }

    /// A writer that is not to be written to.
    struct Untouched;

    impl Write for Untouched {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            panic!("nothing is to be copied")
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
}
