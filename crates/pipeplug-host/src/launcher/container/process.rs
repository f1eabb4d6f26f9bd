//! A plugin in a container: the engine's client stands for it.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::BorrowedFd;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::launcher::guard::Guard;
use crate::launcher::{Process, Started, carrier};
use crate::process::{Child, Delivery, Leftovers, Pid, Signal, Spawned, poll_readable, spawn_with};
use crate::wait_status::WaitStatus;

/// How long the engine may take to send a signal.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long the engine may take to remove a container that has ended.
const REMOVAL: Duration = Duration::from_secs(5);

/// What an engine's client exits with where it failed itself, so that what became of the container is not known.
const CLIENT_FAILED: i32 = 125;

#[derive(Debug)]
pub(super) struct Contained {
    /// `None` once the container is gone, or its removal under way.
    guard: Mutex<Option<Guard>>,
    client: Child,
    engine: PathBuf,
    name: String,
}

impl Contained {
    pub(super) fn started(spawned: Spawned, engine: PathBuf, name: String, guard: Guard) -> Started {
        let Spawned { child, to_guest, from_guest, stderr, .. } = spawned;
        let process = Self { guard: Mutex::new(Some(guard)), client: child, engine, name };
        let mut started = Started::new(process, to_guest, from_guest);
        started.stderr = Some(stderr);
        started
    }

    /// The client has ended: it does so when the container has been removed, or by a misfortune of its own.
    fn settle(&self, status: WaitStatus) {
        let guard = self.guard.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(guard) = guard else { return };
        match status {
            WaitStatus::Exited(code) if code != CLIENT_FAILED => guard.release(),
            WaitStatus::Exited(_) | WaitStatus::Signaled { .. } | WaitStatus::Unknown => drop(guard),
        }
    }

    /// Has the engine do something with the container.
    fn order(&self, what: &str) -> io::Result<()> {
        let launch = carrier::tool(&self.engine);
        let args = vec![what.into(), self.name.clone().into()];
        let asked = spawn_with(&launch, args).map_err(io::Error::other)?;
        match asked.child.wait_timeout(PATIENCE, Leftovers::Kill)? {
            Some(status) if status.success() => Ok(()),
            Some(status) => {
                let mut said = Vec::new();
                // It is read without blocking: what is there is there.
                let _ = File::from(asked.stderr).read_to_end(&mut said);
                let said = String::from_utf8_lossy(&said);
                Err(io::Error::other(format!(
                    "{:?} {what} {}: {status}, {}",
                    self.engine,
                    self.name,
                    said.trim()
                )))
            }
            None => Err(io::Error::new(
                io::ErrorKind::TimedOut,
                format!("{:?} {what} {} does not end: does the engine answer?", self.engine, self.name),
            )),
        }
    }
}

impl Contained {
    /// There was nothing to kill: the container is ending, and its client is about to tell; or the client is yet to start
    /// it; or the engine is stuck. In the end the client is killed, and the guard sees to what there is.
    fn killed_already(&self, error: &io::Error) -> io::Result<Delivery> {
        let never_was = error.to_string().to_lowercase().contains("no such container");
        if !never_was && poll_readable(self.client.exit_fd(), REMOVAL)? {
            return Ok(Delivery::Gone);
        }
        tracing::debug!(container = %self.name, %error, "the engine does not kill it, its client is killed");
        self.client.signal_group(Signal::Kill)
    }
}

impl Process for Contained {
    fn pid(&self) -> Pid {
        self.client.pid()
    }

    fn exit_fd(&self) -> BorrowedFd<'_> {
        self.client.exit_fd()
    }

    fn peek(&self) -> io::Result<Option<WaitStatus>> {
        self.client.peek()
    }

    fn reap(&self) -> io::Result<Option<WaitStatus>> {
        let status = self.client.reap(Leftovers::Kill)?;
        if let Some(status) = status {
            self.settle(status);
        }
        Ok(status)
    }

    fn signal(&self, signal: Signal) -> io::Result<Delivery> {
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
            | Signal::User2 => return self.client.signal_group(signal),
        };
        if self.client.peek()?.is_some() {
            return Ok(Delivery::Gone);
        }
        match (self.order(order), signal) {
            (Ok(()), _) => Ok(Delivery::Sent),
            (Err(error), Signal::Kill) => self.killed_already(&error),
            (Err(error), _) => Err(error),
        }
    }
}
