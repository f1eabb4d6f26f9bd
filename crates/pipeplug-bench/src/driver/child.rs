//! A subject's process and what it says, and the process that keeps a CPU busy.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{ErrorKind, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::sched_setaffinity;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde::Deserialize;

use super::only;
use crate::subjects::Subject;
use crate::work::Work;

/// Line that a subject prints.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Line {
    /// The subject is warm. Holds the process of its plugin if there is one already.
    Begin(Option<Pid>),
    NotHere(String),
    End(End),
}

/// Result of an order.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(super) struct End {
    pub(super) seconds: f64,
    pub(super) count: u64,
    #[serde(flatten)]
    pub(super) more: BTreeMap<String, f64>,
}

/// A subject's host, in a process group of its own.
#[derive(Debug)]
pub(super) struct Child {
    process: std::process::Child,
    stderr: File,
    /// Bytes read after the last line.
    unread: Vec<u8>,
    /// How long each line may take.
    timeout: Duration,
}

/// How often a subject is looked at while it measures.
const SAMPLES: Duration = Duration::from_millis(50);

impl Child {
    pub(super) fn start(
        subject: &Subject,
        work: Work,
        dir: &Path,
        timeout: Duration,
    ) -> Result<Self> {
        let stderr = tempfile::tempfile().context("a file for standard error")?;
        let mut command = Command::new(&subject.program);
        command
            .args(&subject.args)
            .env("TMPDIR", dir)
            .env_remove("BENCH_HANDLER_US")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(stderr.try_clone()?)
            .process_group(0);
        if let Work::Handler { micros } = work {
            command.env("BENCH_HANDLER_US", micros.to_string());
        }
        let process = command
            .spawn()
            .with_context(|| format!("cannot start {}", subject.program.display()))?;
        Ok(Self { process, stderr, unread: Vec::new(), timeout })
    }

    pub(super) fn pid(&self) -> Pid {
        pid_of(&self.process)
    }

    pub(super) fn say(&mut self, line: &str) -> Result<()> {
        let stdin = self.process.stdin.as_mut().context("standard input is a pipe")?;
        writeln!(stdin, "{line}").context("it does not take its order")
    }

    /// The next line; until it comes, `sample` is called again and again.
    pub(super) fn line(&mut self, mut sample: impl FnMut()) -> Result<Line> {
        let deadline = Instant::now() + self.timeout;
        loop {
            if let Some(end) = self.unread.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.unread.drain(..=end).collect();
                return parse(String::from_utf8_lossy(&line).trim_end());
            }
            let stdout = self.process.stdout.as_mut().context("standard output is a pipe")?;
            let left = deadline.saturating_duration_since(Instant::now());
            ensure!(!left.is_zero(), "it took too long and was killed");
            let timeout = PollTimeout::try_from(left.min(SAMPLES))?;
            match poll(&mut [PollFd::new(stdout.as_fd(), PollFlags::POLLIN)], timeout)? {
                0 => sample(),
                _ => {
                    let mut bytes = [0; 4096];
                    let read = stdout.read(&mut bytes)?;
                    ensure!(read > 0, "it ended before its answer");
                    self.unread.extend_from_slice(&bytes[..read]);
                }
            }
        }
    }

    /// Lets it go, and waits until it has gone.
    pub(super) fn leave(mut self) -> Result<()> {
        const TIMEOUT: Duration = Duration::from_secs(10);
        match self.say("quit") {
            Ok(()) => {}
            Err(error) if is_broken_pipe(&error) => {}
            Err(error) => return Err(error),
        }
        drop(self.process.stdin.take());
        let deadline = Instant::now() + TIMEOUT;
        while Instant::now() < deadline {
            if let Some(status) = self.process.try_wait()? {
                ensure!(status.success(), "it ended with {status}");
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        bail!("it did not end at quit and was killed");
    }

    /// The first line of what it wrote to standard error.
    pub(super) fn last_words(&mut self) -> String {
        const ENOUGH: u64 = 4096;
        // It may be about to say why.
        for _ in 0..100 {
            if !matches!(self.process.try_wait(), Ok(None)) {
                break;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        let mut text = Vec::new();
        let read = self.stderr.seek(SeekFrom::Start(0)).and_then(|_| {
            let mut start = (&self.stderr).take(ENOUGH);
            start.read_to_end(&mut text)
        });
        // A reason that cannot be read is none.
        let text = read.map(|_| String::from_utf8_lossy(&text).into_owned()).unwrap_or_default();
        text.lines()
            .find(|line| !line.trim().is_empty())
            .unwrap_or_default()
            .chars()
            .take(200)
            .collect()
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if matches!(self.process.try_wait(), Ok(None)) {
            // Not reaped yet, so the number is still its own.
            let _ = killpg(self.pid(), Signal::SIGKILL);
            let _ = self.process.wait();
        }
    }
}

fn pid_of(process: &std::process::Child) -> Pid {
    Pid::from_raw(process.id().cast_signed())
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<std::io::Error>()
        .is_some_and(|error| error.kind() == ErrorKind::BrokenPipe)
}

fn parse(line: &str) -> Result<Line> {
    if let Some(plugin) = line.strip_prefix("BEGIN") {
        let plugin: i32 = plugin.trim().parse().with_context(|| format!("no process: {line:?}"))?;
        return Ok(Line::Begin((plugin > 0).then(|| Pid::from_raw(plugin))));
    }
    if let Some(json) = line.strip_prefix("END ") {
        return Ok(Line::End(
            serde_json::from_str(json).with_context(|| format!("not understood: {line}"))?,
        ));
    }
    if let Some(why) = line.strip_prefix("NA") {
        return Ok(Line::NotHere(why.trim().to_owned()));
    }
    bail!("it said {line:?} in place of BEGIN, END or NA")
}

/// A process that does nothing else than keep a CPU busy.
#[derive(Debug)]
pub(super) struct Burner(std::process::Child);

impl Burner {
    pub(super) fn start(cpu: usize) -> Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("burn").stdin(Stdio::null()).stdout(Stdio::piped());
        let mut process = command.spawn().context("cannot start what keeps a CPU busy")?;
        sched_setaffinity(pid_of(&process), &only(cpu)?)?;
        let mut runs = [0];
        process.stdout.as_mut().context("standard output is a pipe")?.read_exact(&mut runs)?;
        Ok(Self(process))
    }
}

impl Drop for Burner {
    fn drop(&mut self) {
        // It only computes; killing and reaping it can fail for no known reason.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Keeps a CPU busy until the process is killed or the driver is gone.
pub(crate) fn burn() -> Result<()> {
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
    let mut stdout = std::io::stdout();
    stdout.write_all(b"!")?;
    stdout.flush()?;
    loop {
        std::hint::black_box(());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subject_says_one_of_three_things() {
        assert_eq!(parse("BEGIN 12").unwrap(), Line::Begin(Some(Pid::from_raw(12))));
        assert_eq!(parse("BEGIN 0").unwrap(), Line::Begin(None));
        assert_eq!(parse("NA no one-ways").unwrap(), Line::NotHere("no one-ways".into()));
        let Line::End(end) = parse(r#"END {"seconds": 0.5, "count": 10, "p50": 2.5}"#).unwrap()
        else {
            panic!("not an end");
        };
        assert_eq!((end.seconds, end.count, end.more["p50"]), (0.5, 10, 2.5));
    }

    #[test]
    fn anything_else_is_shown() {
        for line in ["hello", "BEGIN x", "END {}"] {
            let error = parse(line).unwrap_err();
            assert!(format!("{error:#}").contains(line), "{error:#}");
        }
    }
}
