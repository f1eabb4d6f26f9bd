//! One measurement: a subject started, let go, and looked at.

mod carrier;
mod child;
mod process;
mod strace;

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use nix::sched::CpuSet;

pub(crate) use child::burn;
use child::{Burner, Child, End, Line};
pub(crate) use process::adopt_orphans;
use process::{Cpus, Pid};

use crate::plan::{Case, Situation};
use crate::subjects::{Kind, Subject};
use crate::work::Work;

/// Result of a measurement.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum CaseOutcome {
    Measured(Measured),
    /// The subject has no such thing, or the machine has not, for this reason.
    Absent(String),
    Failed(String),
}

/// Figures that were measured.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Measured {
    /// Calls a second, to know how many take how long.
    pub(crate) pace: Option<f64>,
    pub(crate) figures: Vec<Figure>,
}

/// A figure's name, value and unit.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Figure {
    pub(crate) name: String,
    pub(crate) value: f64,
    pub(crate) unit: &'static str,
}

impl Measured {
    fn add(&mut self, name: impl Into<String>, value: f64, unit: &'static str) {
        self.figures.push(Figure { name: name.into(), value, unit });
    }
}

/// How long a subject may take to be warm, and then to measure.
const TIMEOUT: Duration = Duration::from_secs(30);

/// How long a connection is let alone before it counts as idle.
const SETTLE: Duration = Duration::from_millis(500);

/// Measures the case of the subject, with that many calls. `dir` is for what the subject leaves
/// behind.
pub(crate) fn measure(subject: &Subject, case: &Case, count: u64, dir: &Path) -> CaseOutcome {
    let outcome = try_measure(subject, case, count, dir, TIMEOUT);
    // Orphans of the subject are children of this process now.
    let left = process::kill_children();
    match outcome {
        Ok(CaseOutcome::Measured(_)) if left > 0 => {
            CaseOutcome::Failed(format!("{left} of its processes were left behind"))
        }
        Ok(outcome) => outcome,
        Err(error) => CaseOutcome::Failed(format!("{error:#}")),
    }
}

fn try_measure(
    subject: &Subject,
    case: &Case,
    count: u64,
    dir: &Path,
    timeout: Duration,
) -> Result<CaseOutcome> {
    let cpus = Cpus::allowed()?;
    let needs_two = matches!(case.situation, Situation::Split | Situation::Busy);
    let second = match cpus.second() {
        None if needs_two => return Ok(CaseOutcome::Absent("there is one CPU only".into())),
        second => second.unwrap_or(cpus.first()),
    };
    if case.work == Work::Syscalls
        && let Err(why) = strace::look()
    {
        return Ok(CaseOutcome::Absent(why));
    }
    let burner = match case.situation {
        Situation::Busy => Some(Burner::start(second)?),
        Situation::Free | Situation::Split | Situation::Same => None,
    };
    let start = || Child::start(subject, case.work, dir, timeout);
    let mut child = match case.situation {
        // Not the first, which takes most interrupts.
        Situation::Same => cpus.bound_to(&[second], start)?,
        Situation::Busy => cpus.bound_to(&[cpus.first(), second], start)?,
        Situation::Free | Situation::Split => start()?,
    };
    let outcome = obeyed(&mut child, subject, case, count, [cpus.first(), second]);
    drop(burner);
    match outcome {
        Ok(CaseOutcome::Measured(measured)) => {
            child.leave()?;
            Ok(CaseOutcome::Measured(measured))
        }
        Ok(outcome) => Ok(outcome),
        Err(error) => {
            let said = child.last_words();
            Err(if said.is_empty() { error } else { error.context(said) })
        }
    }
}

/// The subject's two processes.
struct Pair {
    host: Pid,
    plugin: Option<Pid>,
}

impl Pair {
    fn both(&self) -> impl Iterator<Item = Pid> {
        [Some(self.host), self.plugin].into_iter().flatten()
    }

    /// The CPU time of both so far, in seconds.
    fn cpu_time(&self) -> Result<f64> {
        self.both().map(process::cpu_time).sum()
    }

    fn switches(&self) -> Result<u64> {
        self.both().map(process::switches).sum()
    }
}

fn obeyed(
    child: &mut Child,
    subject: &Subject,
    case: &Case,
    count: u64,
    [first, second]: [usize; 2],
) -> Result<CaseOutcome> {
    child.say(&case.work.line(count))?;
    let plugin = match child.line(|| {})? {
        Line::Begin(plugin) => plugin,
        Line::NotHere(why) => return Ok(CaseOutcome::Absent(why)),
        Line::End(_) => bail!("END came before BEGIN"),
    };
    let pair = Pair { host: child.pid(), plugin };
    if case.situation == Situation::Split {
        process::pin(pair.host, first)?;
        pair.plugin.map(|plugin| process::pin(plugin, second)).transpose()?;
    }
    let measured = match case.work {
        Work::Quiet { seconds } => watched_idle(child, &pair, Duration::from_secs(seconds))?,
        Work::Syscalls => match traced(child, &pair)? {
            Ok(measured) => measured,
            Err(why) => return Ok(CaseOutcome::Absent(why)),
        },
        _ => timed(child, &pair, subject, case)?,
    };
    Ok(CaseOutcome::Measured(measured))
}

/// Lets it go, and looks at both processes before and behind.
fn timed(child: &mut Child, pair: &Pair, subject: &Subject, case: &Case) -> Result<Measured> {
    let mut measured = Measured::default();
    let mut threads = [0, 0];
    let mut sample = || {
        if case.work.has_many_callers() {
            for (most, pid) in threads.iter_mut().zip(pair.both()) {
                *most = process::threads(pid).unwrap_or(0).max(*most);
            }
        }
    };
    pair.both().for_each(process::forget_peak);
    let before = pair.cpu_time()?;
    let end = go(child, &mut sample)?;
    let spent = pair.cpu_time()? - before;
    sample();
    told(&mut measured, &end, case.work);
    if pair.plugin.is_some() && end.count > 0 {
        measured.add("cpu", spent * 1e6 / end.count as f64, "µs");
        for (name, pid) in [("host_memory", Some(pair.host)), ("plugin_memory", pair.plugin)] {
            if let Some(peak) = pid.and_then(process::peak_memory) {
                measured.add(name, peak as f64 / 1024.0, "KiB");
            }
        }
        if case.work.has_many_callers() {
            measured.add("host_threads", threads[0] as f64, "");
            measured.add("plugin_threads", threads[1] as f64, "");
        }
    }
    if let (Work::Bulk { .. }, Kind::Ours, Some(plugin)) = (case.work, subject.kind, pair.plugin) {
        measured.add("carrier", carrier::of(plugin)?, "B");
    }
    Ok(measured)
}

fn go(child: &mut Child, sample: impl FnMut()) -> Result<End> {
    child.say("go")?;
    match child.line(sample)? {
        Line::End(end) => Ok(end),
        Line::Begin(_) | Line::NotHere(_) => bail!("something else came than END"),
    }
}

/// Takes over the figures that the subject itself measured.
fn told(measured: &mut Measured, end: &End, work: Work) {
    let of_latency = ["p50", "p90", "p99", "p999", "max"].map(|name| (name, "µs"));
    let of_crowds = [
        ("bytes_each", "B"),
        ("plugin_bytes_each", "B"),
        ("descriptors_each", ""),
        ("threads", ""),
    ];
    for (name, unit) in of_latency.into_iter().chain(of_crowds) {
        if let Some(value) = end.more.get(name) {
            measured.add(name, *value, unit);
        }
    }
    if end.seconds > 0.0 {
        let pace = end.count as f64 / end.seconds;
        measured.pace = Some(pace);
        match work {
            // Both ways.
            Work::Bulk { size } => measured.add("rate", 2.0 * size as f64 * pace / 1e9, "GB/s"),
            _ if work.has_rate() => measured.add("rate", pace, "/s"),
            _ => {}
        }
    }
}

/// Measures both processes while no call is made.
fn watched_idle(child: &mut Child, pair: &Pair, time: Duration) -> Result<Measured> {
    std::thread::sleep(SETTLE);
    let before = (pair.cpu_time()?, pair.switches()?);
    std::thread::sleep(time);
    let after = (pair.cpu_time()?, pair.switches()?);
    go(child, || {})?;
    let mut measured = Measured::default();
    let seconds = time.as_secs_f64();
    measured.add("cpu", (after.0 - before.0) * 1e6 / seconds, "µs/s");
    measured.add("switches", (after.1 - before.1) as f64 / seconds, "/s");
    Ok(measured)
}

/// The system calls of both processes for each call; or why they cannot be seen.
fn traced(child: &mut Child, pair: &Pair) -> Result<Result<Measured, String>> {
    let plugin = pair.plugin.context("no process of a plugin")?;
    let tracers = strace::attach(pair.host).and_then(|host| Ok((host, strace::attach(plugin)?)));
    let (host, plugin) = match tracers {
        Ok(tracers) => tracers,
        Err(why) => return Ok(Err(format!("{why:#}"))),
    };
    let end = go(child, || {})?;
    let mut measured = Measured::default();
    for (side, tracer) in [("host", host), ("plugin", plugin)] {
        let each = |calls: u64| calls as f64 / end.count.max(1) as f64;
        let counts = tracer.counts()?;
        measured.add(side, each(counts.values().sum()), "");
        // What stands beside the measurement happens a time or two.
        let often = counts.into_iter().filter(|(_, calls)| each(*calls) >= 0.01);
        often.for_each(|(name, calls)| measured.add(format!("{side}.{name}"), each(calls), ""));
    }
    Ok(Ok(measured))
}

/// The set of one CPU.
fn only(cpu: usize) -> Result<CpuSet> {
    let mut set = CpuSet::new();
    set.set(cpu)?;
    Ok(set)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{Of, Often};

    /// Measures a subject that is a shell script.
    fn outcome(script: &str) -> Result<CaseOutcome> {
        let subject = Subject {
            name: "script".into(),
            kind: Kind::Peer,
            program: "/bin/sh".into(),
            args: vec!["-c".into(), script.into()],
        };
        let work = Work::Sequential { size: 64 };
        let case = Case { work, situation: Situation::Free, of: Of::All, often: Often::EachRound };
        let dir = tempfile::tempdir()?;
        try_measure(&subject, &case, 10, dir.path(), Duration::from_millis(500))
    }

    #[test]
    fn figures_come_from_the_subject_and_from_its_processes() {
        let end = r#"{"seconds": 0.5, "count": 10, "p50": 2.5}"#;
        let script = format!("read order; echo BEGIN $$; read go; echo 'END {end}'; read quit");
        let CaseOutcome::Measured(measured) = outcome(&script).unwrap() else {
            panic!("nothing measured")
        };
        assert_eq!(measured.pace, Some(20.0));
        let names: Vec<&str> = measured.figures.iter().map(|figure| figure.name.as_str()).collect();
        assert_eq!(names, ["p50", "cpu", "host_memory", "plugin_memory"]);
        assert!(measured.figures.iter().all(|figure| figure.value > 0.0), "{measured:?}");
    }

    #[test]
    fn what_a_subject_has_not_is_absent() {
        let found = outcome("read order; echo NA no such thing").unwrap();
        assert_eq!(found, CaseOutcome::Absent("no such thing".into()));
    }

    #[test]
    fn a_subject_that_fails_says_why() {
        let error = outcome("read order; echo 'the pipe broke' >&2; exit 1").unwrap_err();
        assert!(format!("{error:#}").contains("the pipe broke"), "{error:#}");
        let error = outcome("read order; echo BEGIN 0; read go; echo END {}").unwrap_err();
        assert!(format!("{error:#}").contains("END {}"), "{error:#}");
    }

    #[test]
    fn a_subject_that_hangs_is_killed() {
        let begun = std::time::Instant::now();
        let error = outcome("read order; echo BEGIN 0; exec sleep 60").unwrap_err();
        assert!(format!("{error:#}").contains("took too long"), "{error:#}");
        assert!(begun.elapsed() < Duration::from_secs(30));
    }
}
