//! System calls, counted by strace(1).

use std::collections::BTreeMap;
use std::io::Read as _;
use std::os::fd::AsFd as _;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::NamedTempFile;

const STRACE: &str = "strace";

/// A strace(1) that looks at a process and all its threads.
#[derive(Debug)]
pub(super) struct Tracer {
    process: Child,
    counts: NamedTempFile,
}

/// Checks that strace is here. The error says why it is not.
pub(super) fn look() -> Result<(), String> {
    let mut command = Command::new(STRACE);
    let version =
        command.arg("--version").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    match version.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("{STRACE} ended with {status}")),
        Err(error) => Err(format!("{STRACE} cannot be started: {error}")),
    }
}

/// Begins to count.
///
/// # Errors
/// The system does not permit it, or it takes too long.
pub(super) fn attach(pid: Pid) -> Result<Tracer> {
    const TIMEOUT: Duration = Duration::from_secs(10);
    let counts = NamedTempFile::new()?;
    let mut command = Command::new(STRACE);
    command.args(["-f", "-c", "-p"]).arg(pid.to_string()).arg("-o").arg(counts.path());
    let process = command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn()?;
    let mut tracer = Tracer { process, counts };
    let stderr = tracer.process.stderr.as_mut().context("standard error is a pipe")?;
    let deadline = Instant::now() + TIMEOUT;
    let mut said = Vec::new();
    while !said.ends_with(b"\n") {
        let left = PollTimeout::try_from(deadline.saturating_duration_since(Instant::now()))?;
        if poll(&mut [PollFd::new(stderr.as_fd(), PollFlags::POLLIN)], left)? == 0 {
            bail!("{STRACE} does not say that it is attached");
        }
        let mut bytes = [0; 256];
        let read = stderr.read(&mut bytes)?;
        said.extend_from_slice(&bytes[..read]);
        if read == 0 {
            break;
        }
    }
    let said = String::from_utf8_lossy(&said);
    if !said.contains("attached") {
        bail!("{}", said.trim());
    }
    Ok(tracer)
}

impl Tracer {
    /// Stops, and gives how often each system call was made.
    pub(super) fn counts(mut self) -> Result<BTreeMap<String, u64>> {
        // Not reaped yet, so the number is still its own.
        kill(Pid::from_raw(self.process.id().cast_signed()), Signal::SIGINT)?;
        self.process.wait()?;
        Ok(parse(&std::fs::read_to_string(self.counts.path())?))
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        if matches!(self.process.try_wait(), Ok(None)) {
            // It detaches at its end, however that comes.
            let _ = self.process.kill();
            let _ = self.process.wait();
        }
    }
}

/// The table that `strace -c` writes: time, seconds, each, calls, errors where there are some,
/// name.
fn parse(table: &str) -> BTreeMap<String, u64> {
    const CALLS: usize = 3;
    let row = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let calls = fields.get(CALLS)?.parse().ok()?;
        let name = fields.last()?;
        (*name != "total").then(|| ((*name).to_owned(), calls))
    };
    table.lines().filter_map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_counted_by_name() {
        let table = "\
% time     seconds  usecs/call     calls    errors syscall
------ ----------- ----------- --------- --------- ----------------
 60.00    0.000600           1       600       200 read
 40.00    0.000400           1       400           write
------ ----------- ----------- --------- --------- ----------------
100.00    0.001000           1      1000       200 total
";
        let counts = parse(table);
        assert_eq!(counts, BTreeMap::from([("read".to_owned(), 600), ("write".to_owned(), 400)]));
    }
}
