//! Descendants of a guest, as far as the system tells: proc_pid_task(5), `children`.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use nix::unistd::Pid;

/// Limit of the processes that are noted.
const NOTED_AT_MOST: usize = 1024;

/// Time for processes that end because the guest has ended, as most do that read from it.
const TIMEOUT: Duration = Duration::from_millis(10);

/// Time for a process of the guest's group to end after SIGKILL.
const KILL_TIMEOUT: Duration = Duration::from_millis(100);

/// Processes that a guest has started, known by their numbers and when they began.
#[derive(Debug, Default)]
pub(super) struct Descendants(Vec<Descendant>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Descendant {
    pub(super) pid: i32,
    begun: u64,
}

impl Descendants {
    /// Adds those that there are now of a process that is not reaped. Where the system does not
    /// tell, there are none.
    ///
    /// A process without children costs a few small reads.
    pub(super) fn note(&mut self, process: Pid) {
        let mut parents = vec![process.as_raw()];
        while let Some(parent) = parents.pop() {
            for pid in children(parent) {
                // The number may be another's by now.
                let Some(stat) = Stat::of(pid).filter(|stat| stat.parent == parent) else {
                    continue;
                };
                let descendant = Descendant { pid, begun: stat.begun };
                if self.0.contains(&descendant) {
                    // Its children may be new.
                } else if self.0.len() < NOTED_AT_MOST {
                    self.0.push(descendant);
                } else {
                    return;
                }
                parents.push(pid);
            }
        }
    }

    /// Those that were noted, parents before their children.
    pub(super) fn iter(&self) -> impl Iterator<Item = Descendant> {
        self.0.iter().copied()
    }

    /// Processes that still run after the end of the guest and the kill of its `group`.
    ///
    /// # Blocking
    /// For a moment, where some do.
    pub(super) fn running(&self, group: Pid) -> Vec<i32> {
        let begun = Instant::now();
        loop {
            let running: Vec<_> = self.0.iter().filter_map(Descendant::stat).collect();
            let dies = running.iter().any(|stat| stat.group == group.as_raw());
            if running.is_empty() || begun.elapsed() >= if dies { KILL_TIMEOUT } else { TIMEOUT } {
                return running.into_iter().map(|stat| stat.pid).collect();
            }
            thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Descendant {
    /// `None` once it has ended.
    fn stat(&self) -> Option<Stat> {
        Stat::of(self.pid).filter(|stat| stat.begun == self.begun && !stat.has_ended)
    }
}

pub(crate) fn children(parent: i32) -> Vec<i32> {
    let Ok(threads) = fs::read_dir(format!("/proc/{parent}/task")) else { return Vec::new() };
    let mut children = Vec::new();
    // A thread may end meanwhile.
    for thread in threads.flatten() {
        if let Ok(list) = read(&thread.path().join("children")) {
            children.extend(list.split_whitespace().filter_map(|pid| pid.parse::<i32>().ok()));
        }
    }
    children
}

/// Most such files are empty: they take one read, where `fs::read_to_string` would ask for the size
/// first.
fn read(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let mut bytes = vec![0; 256];
    let length = file.read(&mut bytes)?;
    bytes.truncate(length);
    if length > 0 {
        file.read_to_end(&mut bytes)?;
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Fields of proc_pid_stat(5) that count here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stat {
    pid: i32,
    pub(crate) has_ended: bool,
    parent: i32,
    group: i32,
    /// Start time, in clock ticks since boot.
    pub(crate) begun: u64,
}

impl Stat {
    pub(crate) fn of(pid: i32) -> Option<Self> {
        Self::parse(pid, &fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
    }

    fn parse(pid: i32, stat: &str) -> Option<Self> {
        // The name, which is field 2, may hold anything.
        let (_, behind_name) = stat.rsplit_once(')')?;
        let mut fields = behind_name.split_whitespace();
        let state = fields.next()?;
        let parent = fields.next()?.parse().ok()?;
        let group = fields.next()?.parse().ok()?;
        // Field 22; the last one was field 5.
        let begun = fields.nth(16)?.parse().ok()?;
        Some(Self { pid, has_ended: matches!(state, "Z" | "X"), parent, group, begun })
    }
}

#[cfg(test)]
mod tests {
    use super::Stat;

    #[test]
    fn a_name_may_hold_anything() {
        let stat = "42 (a) R 1 (b) S 7 5 5 0 -1 4194304 88 0 0 0 0 0 0 0 20 0 1 0 4711 2703360 200";
        let expected = Stat { pid: 42, has_ended: false, parent: 7, group: 5, begun: 4711 };
        assert_eq!(Stat::parse(42, stat), Some(expected));
        assert_eq!(
            Stat::parse(42, &stat.replace(") S", ") Z")).map(|stat| stat.has_ended),
            Some(true)
        );
        assert_eq!(Stat::parse(42, "42 (a) S 7"), None);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn this_process_has_begun() {
        let stat = Stat::of(std::process::id().cast_signed()).unwrap();
        assert!(!stat.has_ended && stat.parent > 0 && stat.begun > 0);
    }
}
