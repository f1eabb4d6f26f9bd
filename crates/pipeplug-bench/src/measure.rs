//! Times and their medians.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;

/// What a round measured, in microseconds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Row {
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    /// CPU time of both processes for each call.
    pub(crate) cpu: f64,
}

/// Times each of `calls` calls; `pids` are the processes that take part.
pub(crate) fn round(calls: u32, pids: &[u32], mut call: impl FnMut() -> Result<()>) -> Result<Row> {
    let mut times = Vec::with_capacity(calls as usize);
    let before = cpu_time(pids)?;
    for _ in 0..calls {
        let start = Instant::now();
        call()?;
        times.push(start.elapsed());
    }
    let cpu = cpu_time(pids)?.saturating_sub(before);
    times.sort_unstable();
    let at = |share: f64| micros(times[((times.len() - 1) as f64 * share) as usize]);
    Ok(Row { p50: at(0.5), p99: at(0.99), cpu: micros(cpu) / f64::from(calls) })
}

/// Where the two processes run. Left alone the scheduler changes its mind between rounds, and the figures with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Placement {
    /// The host on the first CPU, the guest on the second.
    Split,
    /// Both on the first CPU.
    Same,
    /// Wherever the scheduler puts them.
    Free,
}

impl Placement {
    /// Puts both where they belong, with all threads that they have.
    pub(crate) fn apply(self, guest: u32) -> Result<()> {
        let (host, of_guest) = match self {
            Self::Split => (0, 1),
            Self::Same => (0, 0),
            Self::Free => return Ok(()),
        };
        pin(std::process::id(), host)?;
        pin(guest, of_guest)
    }
}

fn pin(pid: u32, cpu: usize) -> Result<()> {
    let mut cpus = CpuSet::new();
    cpus.set(cpu)?;
    for task in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        let name = task?.file_name();
        let id = name.to_str().and_then(|name| name.parse().ok()).context("a task has a number")?;
        sched_setaffinity(Pid::from_raw(id), &cpus).with_context(|| format!("CPU {cpu} is not to be had"))?;
    }
    Ok(())
}

/// The median of each figure by itself.
pub(crate) fn median(rows: &[Row]) -> Row {
    let of = |figure: fn(&Row) -> f64| {
        let mut figures: Vec<_> = rows.iter().map(figure).collect();
        figures.sort_by(f64::total_cmp);
        figures[figures.len() / 2]
    };
    Row { p50: of(|row| row.p50), p99: of(|row| row.p99), cpu: of(|row| row.cpu) }
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

/// User and system time of all threads so far, from `/proc/PID/task/*/schedstat`, in nanoseconds (sched-stats.rst of the
/// kernel's documentation): `/proc/PID/stat` counts in ticks of 10 ms, which is too coarse.
fn cpu_time(pids: &[u32]) -> Result<Duration> {
    let mut total = 0;
    for pid in pids {
        for task in std::fs::read_dir(format!("/proc/{pid}/task"))? {
            let path = task?.path().join("schedstat");
            // A thread may end in between.
            let Ok(text) = std::fs::read_to_string(&path) else { continue };
            let running = text.split(' ').next().and_then(|field| field.parse::<u64>().ok());
            total += running.with_context(|| format!("{} begins with no number", path.display()))?;
        }
    }
    Ok(Duration::from_nanos(total))
}
