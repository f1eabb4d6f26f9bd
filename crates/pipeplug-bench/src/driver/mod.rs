//! One measurement: a subject started, let go, and looked at.

mod child;
mod process;

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use nix::sched::CpuSet;

pub(crate) use child::burn;
use child::{Burner, Child, Line};
pub(crate) use process::adopt_orphans;
use process::{Cpus, Pid};

use crate::plan::{Case, Situation, Work};
use crate::subjects::Subject;

/// What came of it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Outcome {
    /// Each with its unit.
    Figures(Vec<Figure>),
    /// The subject has no such thing, for this reason.
    Absent(String),
    Failed(String),
}

/// A figure's name, value and unit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Figure {
    pub(crate) name: &'static str,
    pub(crate) value: f64,
    pub(crate) unit: &'static str,
}

/// How long a subject may take to be warm, and to measure.
const PATIENCE: Duration = Duration::from_secs(30);

/// Measures the case of the subject, with that many calls. `dir` is for what the subject leaves behind.
pub(crate) fn measure(subject: &Subject, case: &Case, count: u64, dir: &Path) -> Outcome {
    let outcome = try_measure(subject, case, count, dir);
    // Whoever lost its parent is ours now.
    let left = process::kill_children();
    match outcome {
        Ok(Outcome::Figures(_)) if left > 0 => {
            Outcome::Failed(format!("{left} of its processes were left behind"))
        }
        Ok(outcome) => outcome,
        Err(error) => Outcome::Failed(format!("{error:#}")),
    }
}

/// The CPUs that measurements are bound to, by the situation; an error says which situations need more than there are.
fn cpus_of(situation: Situation) -> Result<Cpus> {
    let cpus = Cpus::allowed()?;
    if matches!(situation, Situation::Split | Situation::Busy) {
        cpus.second().context("there is one CPU only")?;
    }
    Ok(cpus)
}

fn try_measure(subject: &Subject, case: &Case, count: u64, dir: &Path) -> Result<Outcome> {
    let cpus = match cpus_of(case.situation) {
        Ok(cpus) => cpus,
        Err(error) => return Ok(Outcome::Absent(error.to_string())),
    };
    let burner = match case.situation {
        Situation::Busy => Some(Burner::start(cpus.second().context("looked at above")?)?),
        Situation::Free | Situation::Split | Situation::Same => None,
    };
    let start = || Child::start(subject, case.work, dir);
    let mut child = match case.situation {
        Situation::Same => cpus.bound_to(cpus.last(), start)?,
        Situation::Busy => cpus.bound_to(cpus.first_two(), start)?,
        Situation::Free | Situation::Split => start()?,
    };
    let outcome = order(&mut child, case, count, &cpus);
    drop(burner);
    match outcome {
        Ok(outcome @ Outcome::Figures(_)) => {
            child.leave()?;
            Ok(outcome)
        }
        Ok(outcome) => Ok(outcome),
        Err(error) => {
            let said = child.last_words();
            Err(if said.is_empty() { error } else { error.context(said) })
        }
    }
}

fn order(child: &mut Child, case: &Case, count: u64, cpus: &Cpus) -> Result<Outcome> {
    let deadline = Instant::now() + PATIENCE;
    child.say(&case.work.line(count))?;
    let plugin = match child.line(deadline, || {})? {
        Line::Begin(plugin) => plugin,
        Line::NotHere(why) => return Ok(Outcome::Absent(why)),
        Line::End(_) => anyhow::bail!("END came ahead of BEGIN"),
    };
    let host = child.pid();
    let both: Vec<Pid> = [Some(host), plugin].into_iter().flatten().collect();
    if case.situation == Situation::Split {
        process::pin(host, cpus.first())?;
        if let Some(plugin) = plugin {
            process::pin(plugin, cpus.second().context("looked at before")?)?;
        }
    }
    both.iter().for_each(|pid| process::forget_peak(*pid));
    let before = process::cpu_times(&both)?;
    child.say("go")?;
    let mut threads = vec![0; both.len()];
    let mut sample = || {
        if case.work.has_many_callers() {
            for (most, pid) in threads.iter_mut().zip(&both) {
                *most = process::threads(*pid).unwrap_or(0).max(*most);
            }
        }
    };
    let Line::End(end) = child.line(deadline, &mut sample)? else {
        anyhow::bail!("something else came than END")
    };
    let after = process::cpu_times(&both)?;
    sample();
    let mut figures = Vec::new();
    let mut figure = |name, value, unit| figures.push(Figure { name, value, unit });
    for name in ["p50", "p90", "p99", "p999", "max"] {
        if let Some(value) = end.more.get(name) {
            figure(name, *value, "µs");
        }
    }
    for name in ["bytes_each", "plugin_bytes_each"] {
        if let Some(value) = end.more.get(name) {
            figure(name, *value, "B");
        }
    }
    for name in ["descriptors_each", "threads"] {
        if let Some(value) = end.more.get(name) {
            figure(name, *value, "");
        }
    }
    if end.seconds > 0.0 {
        figure("pace", end.count as f64 / end.seconds, "/s");
    }
    match case.work {
        Work::Bulk { size } if end.seconds > 0.0 => {
            // Both ways.
            figure("rate", 2.0 * size as f64 * end.count as f64 / end.seconds / 1e9, "GB/s");
        }
        _ if end.seconds > 0.0 => figure("rate", end.count as f64 / end.seconds, "/s"),
        _ => {}
    }
    if plugin.is_some() && end.count > 0 {
        let spent: f64 = after.iter().zip(&before).map(|(after, before)| after - before).sum();
        figure("cpu", spent * 1e6 / end.count as f64, "µs");
        for (name, pid) in [("host_memory", Some(host)), ("plugin_memory", plugin)] {
            if let Some(peak) = pid.and_then(process::peak_memory) {
                figure(name, peak as f64 / 1024.0, "KiB");
            }
        }
        if case.work.has_many_callers() {
            for (name, count) in ["host_threads", "plugin_threads"].into_iter().zip(&threads) {
                figure(name, *count as f64, "");
            }
        }
    }
    Ok(Outcome::Figures(figures))
}

/// The set of one CPU.
fn only(cpu: usize) -> Result<CpuSet> {
    let mut set = CpuSet::new();
    set.set(cpu)?;
    Ok(set)
}
