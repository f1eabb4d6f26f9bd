//! Descriptors that a program between host and plugin passes on, or does not.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use nix::unistd;

use super::Pid;
use super::descendants::Descendants;

/// A process that a guest has started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Started {
    pub(crate) pid: i32,
    pub(crate) name: String,
}

/// The first process that a guest has started, where none of these has the pipe with that inode
/// number, as far as this process may look. `None` where the guest has started none.
pub(crate) fn started_without(guest: Pid, pipe: u64) -> Option<Started> {
    let mut descendants = Descendants::default();
    descendants.note(unistd::Pid::from_raw(guest.as_raw()));
    let mut first = None;
    for pid in descendants.pids() {
        // Another user's, or one that has ended.
        let Some(has) = has_open(pid, pipe) else { continue };
        if has {
            return None;
        }
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        first.get_or_insert(Started { pid, name: name.trim_end().to_owned() });
    }
    first
}

fn has_open(pid: i32, pipe: u64) -> Option<bool> {
    let dir = format!("/proc/{pid}/fd");
    let is_pipe = |path: &Path| fs::metadata(path).is_ok_and(|file| file.ino() == pipe);
    let open = fs::read_dir(dir).ok()?;
    Some(open.flatten().any(|entry| is_pipe(&entry.path())))
}
