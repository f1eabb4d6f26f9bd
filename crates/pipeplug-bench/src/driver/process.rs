//! Processes as the kernel shows them.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::time::{ClockId, clock_gettime};
pub(super) use nix::unistd::Pid;

use super::only;

/// The CPUs that this process may use.
#[derive(Debug, Clone)]
pub(super) struct Cpus {
    all: CpuSet,
    numbers: Vec<usize>,
}

impl Cpus {
    pub(super) fn allowed() -> Result<Self> {
        let all = sched_getaffinity(Pid::from_raw(0))?;
        let numbers =
            (0..CpuSet::count()).filter(|cpu| all.is_set(*cpu).unwrap_or(false)).collect();
        Ok(Self { all, numbers })
    }

    pub(super) fn first(&self) -> usize {
        self.numbers.first().copied().unwrap_or(0)
    }

    pub(super) fn second(&self) -> Option<usize> {
        self.numbers.get(1).copied()
    }

    /// Runs `start` on these CPUs only, which what it starts inherits.
    pub(super) fn bound_to<T>(
        &self,
        cpus: &[usize],
        start: impl FnOnce() -> Result<T>,
    ) -> Result<T> {
        let mut set = CpuSet::new();
        for cpu in cpus {
            set.set(*cpu)?;
        }
        let this = Pid::from_raw(0);
        sched_setaffinity(this, &set)?;
        let result = start();
        sched_setaffinity(this, &self.all)?;
        result
    }
}

/// Binds all threads that the process has; those to come inherit it.
pub(super) fn pin(pid: Pid, cpu: usize) -> Result<()> {
    let set = only(cpu)?;
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        let name = task?.file_name();
        let id = name.to_str().and_then(|name| name.parse().ok()).context("a task has a number")?;
        // A thread may end in between.
        let _ = sched_setaffinity(Pid::from_raw(id), &set);
    }
    Ok(())
}

/// The CPU time of all threads so far, in seconds.
pub(super) fn cpu_time(pid: Pid) -> Result<f64> {
    let clock = ClockId::pid_cpu_clock_id(pid).with_context(|| format!("process {pid} is gone"))?;
    Ok(Duration::from(clock_gettime(clock)?).as_secs_f64())
}

/// How often its threads gave a CPU up or lost it.
pub(super) fn switches(pid: Pid) -> Result<u64> {
    let mut switches = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        let status = fs::read_to_string(task?.path().join("status"))?;
        let counts = status.lines().filter_map(|line| line.split_once("_ctxt_switches:"));
        switches += counts.filter_map(|(_, count)| count.trim().parse::<u64>().ok()).sum::<u64>();
    }
    Ok(switches)
}

/// Starts the count of the most memory that the process had at a time anew
/// (proc_pid_clear_refs(5)).
pub(super) fn forget_peak(pid: Pid) {
    // Where it cannot, the peak is that of the whole life.
    let _ = fs::write(format!("/proc/{pid}/clear_refs"), "5");
}

/// The most resident memory at a time, in bytes.
pub(super) fn peak_memory(pid: Pid) -> Option<u64> {
    let kib = status(pid, "VmHWM:")?;
    Some(kib << 10)
}

pub(super) fn threads(pid: Pid) -> Option<u64> {
    status(pid, "Threads:")
}

fn status(pid: Pid, field: &str) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let value = status.lines().find_map(|line| line.strip_prefix(field))?;
    value.trim().trim_end_matches(" kB").parse().ok()
}

/// Makes this process adopt the processes that a subject leaves behind when it ends.
pub(crate) fn adopt_orphans() -> Result<()> {
    nix::sys::prctl::set_child_subreaper(true).context("PR_SET_CHILD_SUBREAPER")
}

/// Time in which what ends after its host ends by itself, as pipeplug's watcher does.
const GRACE: Duration = Duration::from_secs(2);

/// Ends every child that is left, with its own children; how many still ran.
pub(super) fn kill_children() -> usize {
    let mut killed = 0;
    let end = Instant::now() + GRACE;
    // A child's children are ours once it is gone.
    loop {
        let children = children();
        if children.is_empty() {
            return killed;
        }
        for pid in children {
            let has_ended = || {
                let status = waitpid(pid, Some(WaitPidFlag::WNOHANG));
                matches!(status, Ok(WaitStatus::Exited(..) | WaitStatus::Signaled(..)) | Err(_))
            };
            let mut is_left = !has_ended();
            while is_left && Instant::now() < end {
                std::thread::sleep(Duration::from_millis(1));
                is_left = !has_ended();
            }
            if is_left {
                killed += 1;
                // It is our child and not reaped, so the number is still its own.
                let _ = kill(pid, Signal::SIGKILL);
                let _ = waitpid(pid, None);
            }
        }
    }
}

fn children() -> Vec<Pid> {
    let this = std::process::id();
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let is_ours = |pid: &i32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // The name before it may hold anything. Behind the `)` that ends the name comes no other.
        let parent = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(1));
        parent.and_then(|parent| parent.parse::<u32>().ok()) == Some(this)
    };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(is_ours).map(Pid::from_raw).collect()
}
