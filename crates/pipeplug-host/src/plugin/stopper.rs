//! The part of a plugin that stopping it needs, and the drop of its last handle.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use pipeplug_net::Connection;

use super::Inner;
use super::output::{Deadlines, Lines, Stream};
use super::stop::{self, Grace, LastStep, StopError, Stopped};
use crate::launcher::Process;
use crate::status::Published;

/// Time for all streams of a plugin that has ended to end. Processes that it started may hold them
/// open.
const STREAMS_TIMEOUT: Duration = Duration::from_millis(100);

/// Time for the last lines of a plugin that has ended to be handled, all together.
const LINES_TIMEOUT: Duration = Duration::from_secs(1);

/// The part of a plugin that stopping it needs.
pub(super) struct Stopper {
    pub(super) connection: Connection,
    pub(super) process: Arc<dyn Process>,
    pub(super) lines: Vec<Arc<Lines>>,
    pub(super) is_held_told: Arc<AtomicBool>,
    pub(super) last_step: Arc<LastStep>,
    pub(super) published: Option<Arc<Published>>,
}

impl Stopper {
    pub(super) fn kill(&self) -> Result<Stopped, StopError> {
        self.with_its_lines(stop::kill(&*self.process, &self.last_step))
    }

    pub(super) fn stop(&self, grace: Grace) -> Result<Stopped, StopError> {
        self.with_its_lines(stop::stop(&self.connection, &*self.process, grace, &self.last_step))
    }

    /// Lets what the plugin wrote last be handed on: a host may exit right behind its stop.
    fn with_its_lines(&self, stopped: Result<Stopped, StopError>) -> Result<Stopped, StopError> {
        let mut stopped = stopped?;
        // Not with the last handle: another thread may hold one until the host exits.
        if let Some(published) = &self.published {
            published.end();
        }
        let now = Instant::now();
        let by = Deadlines { ended: now + STREAMS_TIMEOUT, handed_on: now + LINES_TIMEOUT };
        for lines in &self.lines {
            if lines.wait_handed_on(by) == Stream::Held {
                stopped.held.push(lines.output());
            }
        }
        if !stopped.held.is_empty() && !self.is_held_told.swap(true, Ordering::Relaxed) {
            let processes: Vec<_> = stopped.left.iter().map(|pid| pid.as_raw()).collect();
            tracing::warn!(
                target: "pipeplug::left",
                plugin = %self.connection.name(), held = ?stopped.held, ?processes,
                "the plugin has ended, and a process that it started holds its output open: the \
                 output of that process may be lost"
            );
        }
        Ok(stopped)
    }
}

impl Inner {
    pub(super) fn stopper(&self) -> Stopper {
        Stopper {
            connection: self.connection.clone(),
            process: Arc::clone(&self.process),
            lines: self.lines.clone(),
            is_held_told: Arc::clone(&self.is_held_told),
            last_step: Arc::clone(&self.last_step),
            published: self.published.clone(),
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let (stopper, grace) = (self.stopper(), self.grace);
        let stop = move || {
            if let Err(error) = stopper.stop(grace) {
                tracing::error!(plugin = %stopper.connection.name(), %error,
                    "the plugin could not be stopped");
            }
        };
        // The thread may be one of a runtime, which must not wait.
        if self.connection.is_awaited() {
            self.connection.events().clone().spawn(stop);
        } else {
            stop();
        }
    }
}
