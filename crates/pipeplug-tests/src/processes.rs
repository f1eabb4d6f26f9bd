//! Processes, threads, descriptors and memory, as the system reports them.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::process::{Child, ExitStatus};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::LONG;

/// Sends a signal to a process, which must be there.
///
/// # Panics
/// If it is not.
#[track_caller]
pub fn send(pid: i32, signal: Signal) {
    kill(Pid::from_raw(pid), signal).expect("the process is there");
}

/// Waits for a child of a test, and kills it if it does not end.
///
/// # Panics
/// If it had to be killed.
#[track_caller]
pub fn wait_exit(child: &mut Child) -> ExitStatus {
    let deadline = Instant::now() + LONG;
    loop {
        if let Some(status) = child.try_wait().expect("it is our child") {
            return status;
        }
        if Instant::now() >= deadline {
            // The assertion below is what counts.
            let _ = child.kill();
            let _ = child.wait();
            panic!("the process did not end");
        }
        thread::sleep(Duration::from_millis(2));
    }
}

/// The fields of `/proc/<pid>/stat` from the state on.
fn stat(pid: i32) -> Option<Vec<String>> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name of the program before them may contain spaces and parentheses.
    let (_, rest) = stat.rsplit_once(')')?;
    Some(rest.split_whitespace().map(str::to_owned).collect())
}

/// True if the process exists and has not ended.
#[must_use]
pub fn is_running(pid: i32) -> bool {
    stat(pid).is_some_and(|stat| !matches!(stat[0].as_str(), "Z" | "X"))
}

/// True if the process has ended and was not waited for.
#[must_use]
pub fn is_zombie(pid: i32) -> bool {
    stat(pid).is_some_and(|stat| stat[0] == "Z")
}

/// True if a signal has stopped the process. This may take a moment after the signal was sent.
#[must_use]
pub fn is_stopped(pid: i32) -> bool {
    stat(pid).is_some_and(|stat| stat[0] == "T")
}

/// Children of a process, including zombies.
///
/// # Panics
/// If there is no `/proc`.
#[must_use]
pub fn children_of(parent: u32) -> BTreeSet<i32> {
    let parent = parent.to_string();
    fs::read_dir("/proc")
        .expect("there is a /proc")
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|pid| stat(*pid).is_some_and(|stat| stat[1] == parent))
        .collect()
}

/// The process group of a process, which may have ended; `None` where there is no such process.
#[must_use]
pub fn group_of(pid: i32) -> Option<i32> {
    stat(pid)?[2].parse().ok()
}

/// The processes of a process group that have not ended.
///
/// # Panics
/// If there is no `/proc`.
#[must_use]
pub fn group_members(group: i32) -> BTreeSet<i32> {
    let group = group.to_string();
    fs::read_dir("/proc")
        .expect("there is a /proc")
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|pid| {
            stat(*pid)
                .is_some_and(|stat| stat[2] == group && !matches!(stat[0].as_str(), "Z" | "X"))
        })
        .collect()
}

/// Processes that kill the plugins of this host when it is gone: they read from a pipe whose other
/// end the host has.
///
/// # Panics
/// If there is no `/proc`.
#[must_use]
pub fn guards_of(host: u32) -> BTreeSet<i32> {
    let pipes = |dir: String| -> BTreeSet<PathBuf> {
        let entries = fs::read_dir(dir).into_iter().flatten();
        entries.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok()).collect()
    };
    let of_host = pipes(format!("/proc/{host}/fd"));
    command_lines_with("pipeplug-watch")
        .into_iter()
        .filter(|pid| {
            fs::read_link(format!("/proc/{pid}/fd/0")).is_ok_and(|pipe| of_host.contains(&pipe))
        })
        .collect()
}

/// Running processes whose command line contains this text.
///
/// # Panics
/// If there is no `/proc`.
#[must_use]
pub fn command_lines_with(text: &str) -> Vec<i32> {
    let holds = |pid: &i32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).contains(text)
    };
    fs::read_dir("/proc")
        .expect("there is a /proc")
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|pid| holds(pid) && is_running(*pid))
        .collect()
}

/// Number of open descriptors of this process.
///
/// # Panics
/// If there is no `/proc`.
#[must_use]
pub fn descriptors() -> usize {
    // One of them is the directory itself.
    fs::read_dir("/proc/self/fd").expect("there is a /proc").count() - 1
}

/// Number of threads of this process whose name begins with `name`. `""` counts all.
///
/// # Panics
/// If there is no `/proc`.
#[must_use]
pub fn threads(name: &str) -> usize {
    fs::read_dir("/proc/self/task")
        .expect("there is a /proc")
        .filter_map(|entry| fs::read_to_string(entry.ok()?.path().join("comm")).ok())
        .filter(|comm| comm.starts_with(name))
        .count()
}

/// Number of voluntary context switches of threads of this process whose name begins with `name`.
///
/// # Panics
/// If there is no `/proc`.
#[must_use]
pub fn wake_ups(name: &str) -> u64 {
    let field = |status: &str, key| {
        let line = status.lines().find_map(|line| line.strip_prefix(key));
        line.map(|value| value.trim().to_owned()).expect("every thread has it")
    };
    fs::read_dir("/proc/self/task")
        .expect("there is a /proc")
        .filter_map(|entry| fs::read_to_string(entry.ok()?.path().join("status")).ok())
        .filter(|status| field(status, "Name:").starts_with(name))
        .map(|status| field(&status, "voluntary_ctxt_switches:").parse::<u64>().expect("a number"))
        .sum()
}

/// Peak memory of the process, in bytes. It may be wrong by some pages, since the kernel counts
/// each thread's in advance.
///
/// # Panics
/// If there is no such process.
#[must_use]
pub fn memory_peak(pid: u32) -> usize {
    memory(pid, "VmHWM:")
}

/// Memory that a process has in use now, in bytes.
///
/// # Panics
/// If the process is gone.
#[must_use]
pub fn memory_in_use(pid: u32) -> usize {
    memory(pid, "VmRSS:")
}

fn memory(pid: u32, key: &str) -> usize {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("the process is there");
    let line = status.lines().find_map(|line| line.strip_prefix(key)).expect("it has memory");
    let kib: usize = line.trim().trim_end_matches(" kB").parse().expect("a number of kB");
    kib * 1024
}

/// Number of page faults without I/O of a process: one for each page of memory that it received.
///
/// # Panics
/// If the process is gone.
#[must_use]
pub fn page_faults(pid: u32) -> usize {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("the process is there");
    let (_, behind_name) = stat.rsplit_once(')').expect("its name is in parentheses");
    // Field 10, `minflt`, of proc_pid_stat(5); the name is field 2.
    behind_name
        .split_whitespace()
        .nth(7)
        .expect("it has that many fields")
        .parse()
        .expect("a number")
}

/// Has [`memory_peak`] of this process begin anew, where the system can do that (Linux since 4.0:
/// proc_pid_clear_refs(5)).
pub fn forget_memory_peak() {
    // On other systems the earlier peak still counts, and a test that compares two peaks is weaker.
    let _ = fs::write("/proc/self/clear_refs", "5");
}

/// Children, descriptors and threads of this process, of which a plugin that is gone leaves none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostFootprint {
    children: BTreeSet<i32>,
    descriptors: usize,
    /// Threads of loops and their pools, and those that wait for one process, as portable builds
    /// have them.
    threads: usize,
}

impl HostFootprint {
    /// Counts the current state.
    #[must_use]
    pub fn now() -> Self {
        Self {
            children: children_of(std::process::id()),
            descriptors: descriptors(),
            threads: ["pipeplug-", "wait-", "reap-"].into_iter().map(threads).sum(),
        }
    }

    /// Waits until the state is as before. Threads may take a moment to release their resources.
    ///
    /// # Errors
    /// Names what is left.
    pub fn wait_restored(&self) -> Result<(), String> {
        let deadline = Instant::now() + Duration::from_secs(5);
        loop {
            let now = Self::now();
            if now == *self {
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err(format!("something is left: {now:?}, before there was {self:?}"));
            }
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// Asserts [`wait_restored`](HostFootprint::wait_restored).
    ///
    /// # Panics
    /// If something stays.
    #[track_caller]
    pub fn assert_restored(&self) {
        if let Err(left) = self.wait_restored() {
            panic!("{left}");
        }
    }
}
