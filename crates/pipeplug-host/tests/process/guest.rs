//! Guests made of shell scripts, and the host's side of talking to them.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use pipeplug_host::WaitStatus;
use pipeplug_host::process::{Launch, Leftovers, Spawned, spawn};
use tempfile::TempDir;

/// Far more than anything here takes; only a hang runs into it.
pub(crate) const LONG: Duration = Duration::from_secs(60);

/// A directory with one script, which goes with it.
pub(crate) struct Script {
    dir: TempDir,
}

impl Script {
    /// A script that `/bin/sh` runs.
    pub(crate) fn new(body: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        write_file(&dir.path().join("guest"), format!("#!/bin/sh\n{body}\n").as_bytes(), 0o755);
        Self { dir }
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.dir.path().join("guest")
    }

    pub(crate) fn launch(&self) -> Launch {
        Launch::new(self.path())
    }

    pub(crate) fn spawn(&self) -> Spawned {
        spawn(&self.launch()).unwrap()
    }
}

pub(crate) fn write_file(path: &Path, content: &[u8], mode: u32) {
    fs::write(path, content).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

pub(crate) fn wait(guest: &Spawned) -> WaitStatus {
    guest.child.wait_timeout(LONG, Leftovers::Leave).unwrap().expect("the guest ends")
}

pub(crate) fn send(fd: &OwnedFd, bytes: &[u8]) {
    fs::File::from(fd.try_clone().unwrap()).write_all(bytes).unwrap();
}

/// Everything up to the end of file.
pub(crate) fn read_all(fd: &OwnedFd) -> String {
    read_until(fd, |_| false).0
}

/// One line without its end.
pub(crate) fn read_line(fd: &OwnedFd) -> String {
    let (text, end) = read_until(fd, |text| text.ends_with(b"\n"));
    assert_eq!(end, End::Enough, "an end of file after {text:?}");
    text.trim_end().to_owned()
}

#[derive(Debug, PartialEq, Eq)]
enum End {
    Enough,
    Eof,
}

fn read_until(fd: &OwnedFd, enough: impl Fn(&[u8]) -> bool) -> (String, End) {
    let mut file = fs::File::from(fd.try_clone().unwrap());
    let deadline = Instant::now() + LONG;
    let mut text = Vec::new();
    let mut byte = [0];
    let end = loop {
        match file.read(&mut byte) {
            Ok(0) => break End::Eof,
            Ok(_) => text.push(byte[0]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                assert!(
                    Instant::now() < deadline,
                    "neither data nor an end of file after {text:?}"
                );
                wait_readable(fd, Duration::from_secs(1));
            }
            Err(error) => panic!("{error}"),
        }
        if enough(&text) {
            break End::Enough;
        }
    };
    (String::from_utf8(text).unwrap(), end)
}

/// Tells whether `fd` became readable within that time.
pub(crate) fn wait_readable(fd: impl AsFd, timeout: Duration) -> bool {
    let mut fds = [PollFd::new(fd.as_fd(), PollFlags::POLLIN)];
    let timeout = PollTimeout::try_from(timeout).unwrap();
    poll(&mut fds, timeout).unwrap();
    fds[0].revents().is_some_and(|events| events.contains(PollFlags::POLLIN))
}
