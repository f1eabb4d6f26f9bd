//! Descriptors that a program between host and plugin passes on, or does not.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::thread;
use std::time::Duration;

use nix::unistd;

use super::Pid;
use super::descendants::{Descendant, Descendants};

/// A process that a guest has started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Started {
    pub(crate) pid: i32,
    pub(crate) name: String,
}

/// Time between two looks: what is seen twice neither ends right now, nor stands between fork and
/// exec.
const PAUSE: Duration = Duration::from_millis(20);

/// The first process that a guest has started, where none of these has the pipe with that inode
/// number, as far as this process may look, twice. `None` where the guest has started none that
/// lasts.
///
/// # Blocking
/// For [`PAUSE`], where a process without the pipe was seen.
pub(crate) fn started_without(guest: Pid, pipe: u64) -> Option<Started> {
    let before = all_without(guest, pipe)?;
    if before.is_empty() {
        return None;
    }
    thread::sleep(PAUSE);
    // A number that another process has by now comes with another begin.
    let pid = all_without(guest, pipe)?.into_iter().find(|it| before.contains(it))?.pid;
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
    Some(Started { pid, name: name.trim_end().to_owned() })
}

/// The processes that a guest has started; `None` where one of them has the pipe.
fn all_without(guest: Pid, pipe: u64) -> Option<Vec<Descendant>> {
    let mut descendants = Descendants::default();
    descendants.note(unistd::Pid::from_raw(guest.as_raw()));
    let mut without = Vec::new();
    for descendant in descendants.iter() {
        match has_open(descendant.pid, pipe) {
            Some(true) => return None,
            Some(false) => without.push(descendant),
            // Another user's, or one that has ended.
            None => {}
        }
    }
    Some(without)
}

/// Looks for the pipe in a process's table of descriptors; `None` where there is none to look at.
/// One that ends has an empty table before it is a zombie.
fn has_open(pid: i32, pipe: u64) -> Option<bool> {
    let mut has_any = false;
    for entry in fs::read_dir(format!("/proc/{pid}/fd")).ok()?.flatten() {
        let Ok(file) = fs::metadata(entry.path()) else { continue };
        has_any = true;
        if file.ino() == pipe {
            return Some(true);
        }
    }
    has_any.then_some(false)
}
