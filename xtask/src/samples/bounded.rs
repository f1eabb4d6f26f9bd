//! A child process that has to end in time.

use std::io::{self, Read, Write};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

/// How long the end of a process may go unnoticed once it has closed its output.
const POLL: Duration = Duration::from_millis(5);

/// How long output that was written before a kill may take to arrive.
const GRACE: Duration = Duration::from_millis(500);

/// How a process ended and what it printed until then.
#[derive(Debug)]
pub(crate) struct Ended {
    /// `None` if it had to be killed.
    pub(crate) status: Option<ExitStatus>,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: Vec<u8>,
    /// True if another process still held its stdout or stderr open at the time limit.
    pub(crate) left_behind: bool,
    pub(crate) limit: Duration,
}

/// Something that a thread read from the child.
enum Event {
    Stdout(Vec<u8>),
    Stderr(Vec<u8>),
    EndOfFile,
}

/// Runs the command until it has ended and its stdout and stderr are closed, or the time is up.
///
/// At the time limit the process and its group are killed. Without `stdin` it reads end of file.
///
/// # Errors
/// It cannot be started or waited for.
///
/// # Blocking
/// For `limit` at most, and a moment to collect what was printed.
pub(crate) fn run(
    command: &mut Command,
    stdin: Option<&[u8]>,
    limit: Duration,
) -> io::Result<Ended> {
    let deadline = Instant::now() + limit;
    command.stdin(if stdin.is_some() { Stdio::piped() } else { Stdio::null() });
    // A group of its own, so that what it started goes with it.
    let mut child =
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0).spawn()?;
    let events = start_threads(&mut child, stdin);

    let mut ended =
        Ended { status: None, stdout: Vec::new(), stderr: Vec::new(), left_behind: false, limit };
    let mut open = 2;
    collect(&events, deadline, &mut open, &mut ended);
    ended.status = wait_until(&mut child, deadline)?;
    ended.left_behind = open > 0;
    if ended.status.is_none() || ended.left_behind {
        // ESRCH: the group is empty, so there is nothing to kill.
        let _ = killpg(Pid::from_raw(child.id().cast_signed()), Signal::SIGKILL);
        if ended.status.is_none() {
            child.wait()?;
        }
        collect(&events, Instant::now() + GRACE, &mut open, &mut ended);
    }
    Ok(ended)
}

fn start_threads(child: &mut Child, stdin: Option<&[u8]>) -> Receiver<Event> {
    let (sender, events) = mpsc::channel();
    let stdout = child.stdout.take().expect("stdout is piped");
    let stderr = child.stderr.take().expect("stderr is piped");
    read_in_thread(stdout, sender.clone(), Event::Stdout);
    read_in_thread(stderr, sender, Event::Stderr);
    if let (Some(mut pipe), Some(bytes)) = (child.stdin.take(), stdin) {
        let bytes = bytes.to_vec();
        // The child need not read it all: a broken pipe is its right.
        thread::spawn(move || pipe.write_all(&bytes));
    }
    events
}

/// The thread ends with the stream; if a process that was left behind holds that open, with this
/// one.
fn read_in_thread(
    mut stream: impl Read + Send + 'static,
    sender: Sender<Event>,
    event: fn(Vec<u8>) -> Event,
) {
    thread::spawn(move || {
        let mut buffer = [0; 8192];
        // A stream that cannot be read any more has ended. After the limit the receiver is gone.
        while let Ok(read @ 1..) = stream.read(&mut buffer) {
            if sender.send(event(buffer[..read].to_vec())).is_err() {
                return;
            }
        }
        let _ = sender.send(Event::EndOfFile);
    });
}

fn collect(events: &Receiver<Event>, deadline: Instant, open: &mut u32, ended: &mut Ended) {
    while *open > 0 {
        match events.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(Event::Stdout(bytes)) => ended.stdout.extend(bytes),
            Ok(Event::Stderr(bytes)) => ended.stderr.extend(bytes),
            Ok(Event::EndOfFile) => *open -= 1,
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return,
        }
    }
}

fn wait_until(child: &mut Child, deadline: Instant) -> io::Result<Option<ExitStatus>> {
    loop {
        let status = child.try_wait()?;
        if status.is_some() || Instant::now() >= deadline {
            return Ok(status);
        }
        thread::sleep(POLL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AMPLE: Duration = Duration::from_secs(60);
    const SHORT: Duration = Duration::from_secs(3);

    fn sh(script: &str, stdin: Option<&[u8]>, limit: Duration) -> Ended {
        run(Command::new("sh").args(["-c", script]), stdin, limit).unwrap()
    }

    #[test]
    fn both_streams_and_the_status_are_kept() {
        let ended = sh("cat; echo err >&2; exit 7", Some(b"in"), AMPLE);
        assert_eq!((ended.stdout.as_slice(), ended.stderr.as_slice()), (&b"in"[..], &b"err\n"[..]));
        assert_eq!(ended.status.unwrap().code(), Some(7));
        assert!(!ended.left_behind);
    }

    #[test]
    fn without_stdin_the_child_reads_end_of_file() {
        assert_eq!(sh("cat; echo end", None, AMPLE).stdout, b"end\n");
    }

    #[test]
    fn input_that_nobody_reads_is_no_matter() {
        assert!(sh("exit 0", Some(&vec![b'x'; 1 << 20]), AMPLE).status.unwrap().success());
    }

    #[test]
    fn output_of_many_pipe_buffers_arrives() {
        let ended = sh("head -c 1000000 /dev/zero; head -c 1000000 /dev/zero >&2", None, AMPLE);
        assert_eq!((ended.stdout.len(), ended.stderr.len()), (1_000_000, 1_000_000));
    }

    #[test]
    fn what_does_not_end_is_killed_with_its_children_and_what_it_printed_is_kept() {
        let started = Instant::now();
        let ended = sh("echo begun; sleep 600 & wait", None, SHORT);
        assert!(ended.status.is_none());
        assert_eq!(ended.stdout, b"begun\n");
        assert!(started.elapsed() < AMPLE, "took {:?}", started.elapsed());
    }

    #[test]
    fn a_process_that_closed_its_output_is_still_waited_for() {
        assert!(sh("exec >&- 2>&-; sleep 600", None, SHORT).status.is_none());
    }

    #[test]
    fn a_process_that_was_left_behind_is_noticed() {
        let ended = sh("sleep 600 & exit 0", None, SHORT);
        assert!(ended.status.unwrap().success());
        assert!(ended.left_behind);
    }
}
