//! A plugin in a container: the engine's client stands for it.

use std::fs::File;
use std::io::{self, PipeReader, PipeWriter, Read as _, Write as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use super::diagnose;
use super::run::{CLIENT_FAILED, KilledBy, Run};
use super::{Container, Engine};
use crate::launcher::cleanup::Cleanup;
use crate::launcher::{Diagnosis, Process, Started, client};
use crate::process::{
    Child, Delivery, Leftovers, Pid, Signal, Spawned, WaitStatus, poll_readable, spawn_with,
};

/// Time for the engine to send a signal.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Time for the engine to remove a container that has ended.
const REMOVAL: Duration = Duration::from_secs(5);

/// Time for the engine to tell how a container ended.
const ENQUIRY: Duration = Duration::from_secs(2);

/// Time for events of a container that come after its end.
const LATE_EVENTS: Duration = Duration::from_millis(500);

/// Time between two attempts to kill what is being started.
const RETRY: Duration = Duration::from_millis(100);

/// Time of one wait for the client.
const ROUND: Duration = Duration::from_secs(3600);

/// 128 and the number of SIGKILL.
const KILLED: i32 = 137;

#[derive(Debug)]
pub(super) struct Contained {
    client: Arc<Client>,
    /// Readable once the client has ended and what the engine knows of that is there.
    ended: PipeReader,
}

/// The engine's client, with a thread that waits for its end.
#[derive(Debug)]
struct Client {
    child: Child,
    program: PathBuf,
    container: Container,
    run: Run,
    /// `None` once the container is gone, or its removal under way.
    cleanup: Mutex<Option<Cleanup>>,
    was_killed: AtomicBool,
    /// True once the plugin has answered: what could not run has not.
    has_answered: AtomicBool,
    end: OnceLock<(WaitStatus, KilledBy)>,
}

impl Contained {
    /// # Errors
    /// No thread or pipe could be made. The container is removed then.
    pub(super) fn started(
        spawned: Spawned,
        program: PathBuf,
        container: Container,
        run: Run,
        cleanup: Cleanup,
    ) -> io::Result<Started> {
        let Spawned { child, to_guest, from_guest, stderr, .. } = spawned;
        let client = Arc::new(Client {
            child,
            program,
            container,
            run,
            cleanup: Mutex::new(Some(cleanup)),
            was_killed: AtomicBool::new(false),
            has_answered: AtomicBool::new(false),
            end: OnceLock::new(),
        });
        let (ended, tell) = io::pipe()?;
        let process = Self { client: Arc::clone(&client), ended };
        thread::Builder::new()
            .name("pipeplug-container".into())
            .spawn(move || client.watch(tell))?;
        let mut started = Started::new(process, to_guest, from_guest);
        started.stderr = Some(stderr);
        Ok(started)
    }
}

impl Client {
    /// Waits for the client's end, asks the engine what it knows of that, and tells.
    fn watch(&self, mut tell: PipeWriter) {
        let status = loop {
            match self.child.wait_timeout(ROUND, Leftovers::Kill) {
                Ok(Some(status)) => break status,
                Ok(None) => {}
                Err(error) => {
                    tracing::error!(container = %self.run.name, %error, "its client cannot be \
                                                            waited for");
                    break WaitStatus::Unknown;
                }
            }
        };
        let killed_by = self.killed_by(status);
        self.settle(status);
        // Set once, here.
        let _ = self.end.set((status, killed_by));
        // It fails where the process was given up: there is no reader then.
        let _ = tell.write_all(&[0]);
    }

    /// The client has ended: it does so when the container has been removed, or by a misfortune of
    /// its own.
    fn settle(&self, status: WaitStatus) {
        let Some(cleanup) = self.take_cleanup() else { return };
        match status {
            WaitStatus::Exited(code) if code != CLIENT_FAILED => cleanup.release(),
            WaitStatus::Exited(_) | WaitStatus::Signaled { .. } | WaitStatus::Unknown => {
                drop(cleanup)
            }
        }
    }

    fn take_cleanup(&self) -> Option<Cleanup> {
        self.cleanup.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Finds the origin of a SIGKILL by asking the engine. The container is gone by then (`--rm`):
    /// Docker's daemon still knows its events, Podman knows nothing.
    fn killed_by(&self, status: WaitStatus) -> KilledBy {
        if status != WaitStatus::Exited(KILLED) {
            return KilledBy::Unknown;
        }
        if self.was_killed.load(Ordering::Acquire) {
            return KilledBy::Host;
        }
        if self.container.engine != Engine::Docker {
            return KilledBy::Unknown;
        }
        let (begun, now) = (Instant::now(), SystemTime::now());
        match self.killer(now, ENQUIRY) {
            // Docker learns of a lack of memory on a way of its own, which may be later than the end.
            KilledBy::NeitherOfThese => {
                self.killer(now + LATE_EVENTS, ENQUIRY.saturating_sub(begun.elapsed()))
            }
            killer => killer,
        }
    }

    /// The origin of a SIGKILL in Docker's events until then, which are waited for.
    fn killer(&self, until: SystemTime, timeout: Duration) -> KilledBy {
        let until = until.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let until = format!("--until={}.{:09}", until.as_secs(), until.subsec_nanos());
        let filter = format!("--filter=container={}", self.run.name);
        // The name was never used before: no event of it is too old.
        let args =
            ["events", "--since=1", &until, &filter, "--filter=event=oom", "--filter=event=kill"];
        let format = r#"--format={{.Action}} {{index .Actor.Attributes "signal"}}"#;
        match self.query(&[&args[..], &[format]].concat(), timeout) {
            Ok(events) => killer_in(&events),
            Err(error) => {
                tracing::debug!(container = %self.run.name, %error, "the engine does not tell of \
                                                            its end");
                KilledBy::Unknown
            }
        }
    }

    /// Runs a command of the engine's client, and returns its output.
    fn query(&self, args: &[&str], timeout: Duration) -> io::Result<String> {
        let client =
            spawn_with(&client::tool(&self.program), args.iter().map(Into::into).collect());
        let client = client.map_err(io::Error::other)?;
        let words = format!("{:?} {}", self.program, args.join(" "));
        // Both are read without blocking, once all is written: what is there is there.
        let all = |fd: OwnedFd| {
            let mut said = Vec::new();
            let _ = File::from(fd).read_to_end(&mut said);
            String::from_utf8_lossy(&said).trim().to_owned()
        };
        match client.child.wait_timeout(timeout, Leftovers::Kill)? {
            Some(status) if status.success() => Ok(all(client.from_guest)),
            Some(status) => {
                Err(io::Error::other(format!("{words}: {status}, {}", all(client.stderr))))
            }
            None => Err(io::Error::new(
                io::ErrorKind::TimedOut,
                format!("{words} does not end: does the engine answer?"),
            )),
        }
    }

    /// Runs a command of the engine's client on the container.
    fn order(&self, what: &str) -> io::Result<()> {
        self.query(&[what, &self.run.name], TIMEOUT).map(drop)
    }
}

/// The origin of a SIGKILL, as the engine's events tell it.
fn killer_in(events: &str) -> KilledBy {
    let has = |event: &str| events.lines().any(|line| line.trim() == event);
    if has("oom") {
        KilledBy::Memory
    } else if has("kill 9") {
        KilledBy::User
    } else {
        KilledBy::NeitherOfThese
    }
}

impl Contained {
    /// There was nothing to kill: the container is ending, and its client is about to tell; or the
    /// client is yet to start it; or the engine is stuck. In the end the client is killed, and the
    /// cleanup removes what there is.
    fn killed_already(&self, error: io::Error) -> io::Result<Delivery> {
        let client = &self.client;
        let never_was =
            |error: &io::Error| error.to_string().to_lowercase().contains("no such container");
        match client.container.engine {
            Engine::Docker => {
                if !never_was(&error) && poll_readable(self.exit_fd(), REMOVAL)? {
                    return Ok(Delivery::Gone);
                }
            }
            // A client that is killed within the start leaves processes that Podman does not know
            // of: that has to be over.
            Engine::Podman => {
                let by = Instant::now() + REMOVAL;
                while Instant::now() < by {
                    if poll_readable(self.exit_fd(), RETRY)? {
                        return Ok(Delivery::Gone);
                    }
                    if client.order("kill").is_ok() {
                        return Ok(Delivery::Sent);
                    }
                }
            }
        }
        tracing::debug!(container = %client.run.name, %error, "the engine does not kill it, its \
                                                            client is killed");
        client.child.signal_group(Signal::Kill)
    }
}

impl Process for Contained {
    fn pid(&self) -> Pid {
        self.client.child.pid()
    }

    fn exit_fd(&self) -> BorrowedFd<'_> {
        self.ended.as_fd()
    }

    fn peek(&self) -> io::Result<Option<WaitStatus>> {
        Ok(self.client.end.get().map(|(status, _)| *status))
    }

    fn reap(&self) -> io::Result<Option<WaitStatus>> {
        self.peek()
    }

    fn signal(&self, signal: Signal) -> io::Result<Delivery> {
        let client = &self.client;
        let order = match signal {
            // No program can pass these on, nor the init in the container.
            Signal::Kill => "kill",
            Signal::Stop => "pause",
            Signal::Continue => "unpause",
            // The client passes these on.
            Signal::Terminate
            | Signal::Interrupt
            | Signal::Hangup
            | Signal::Quit
            | Signal::User1
            | Signal::User2 => return client.child.signal_group(signal),
        };
        if client.child.peek()?.is_some() {
            return Ok(Delivery::Gone);
        }
        if signal == Signal::Kill {
            client.was_killed.store(true, Ordering::Release);
        }
        match (client.order(order), signal) {
            (Ok(()), _) => Ok(Delivery::Sent),
            (Err(error), Signal::Kill) => self.killed_already(error),
            (Err(error), _) => Err(error),
        }
    }

    fn end_timeout(&self) -> Duration {
        ENQUIRY
    }

    fn diagnose(&self, status: WaitStatus, stderr: &[String]) -> Option<Diagnosis> {
        let killed_by =
            self.client.end.get().map_or(KilledBy::Unknown, |(_, killed_by)| *killed_by);
        let client = &self.client;
        if client.has_answered.load(Ordering::Acquire) {
            diagnose::diagnose_end(&client.container, &client.run, status, killed_by, stderr)
        } else {
            diagnose::diagnose(&client.container, &client.run, status, killed_by, stderr)
        }
    }

    fn unmet(&self, stderr: &[String]) -> Option<Diagnosis> {
        self.client.has_answered.store(true, Ordering::Release);
        self.client.container.unmet(stderr)
    }
}

impl Drop for Contained {
    fn drop(&mut self) {
        let client = &self.client;
        if client.end.get().is_some() {
            return;
        }
        if client.container.engine == Engine::Podman {
            // As for a kill: the cleanup waits for the end of the start, and removes the container,
            // which ends the client.
            drop(client.take_cleanup());
            // Where it cannot be waited for, it is killed.
            let _ = poll_readable(self.exit_fd(), REMOVAL);
        }
        // That it has ended is no error here.
        let _ = client.child.signal_group(Signal::Kill);
        let _ = poll_readable(self.exit_fd(), REMOVAL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_tell_of_the_origin_of_a_sigkill() {
        assert_eq!(killer_in("oom \nkill 9\n"), KilledBy::Memory);
        assert_eq!(killer_in("kill 15\nkill 9"), KilledBy::User);
        // As the client passes SIGTERM on.
        assert_eq!(killer_in("kill 15"), KilledBy::NeitherOfThese);
        assert_eq!(killer_in(""), KilledBy::NeitherOfThese);
    }
}
