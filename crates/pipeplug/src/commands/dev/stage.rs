//! Version of the plugin that runs, and its replacement.

use std::fmt;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use pipeplug_host::{
    EndCause, Event, PluginBuilder, StartErrorKind, Supervisor, Unavailable, UnavailableKind,
};

use crate::exit::{CommandError, ExitReason};
use crate::output::report::Report;
use crate::session::shutdown::Shutdown;

/// Time between two looks for a shutdown.
const INTERVAL: Duration = Duration::from_millis(50);

/// Plugin whose versions replace each other. Clones are handles to the same one.
#[derive(Clone)]
pub(super) struct Stage {
    report: Arc<Report>,
    /// `None` before the first version runs.
    supervisor: Arc<Mutex<Option<Supervisor>>>,
    waiting: Arc<Mutex<Option<Sender<Outcome>>>>,
}

type Outcome = Result<(), Unavailable>;

impl Stage {
    pub(super) fn new(report: &Arc<Report>) -> Self {
        Self { report: Arc::clone(report), supervisor: Arc::default(), waiting: Arc::default() }
    }

    /// Plugin that calls go to. `None` if no version has run.
    pub(super) fn supervisor(&self) -> Option<Supervisor> {
        lock(&self.supervisor).clone()
    }

    /// Starts a version. New calls go to it when it runs, and the one before is stopped when its calls are
    /// done. That is not waited for.
    ///
    /// # Errors
    /// It does not start: the one before goes on. `None` if a shutdown has begun.
    ///
    /// # Blocking
    /// Until the version runs. If one before still has calls of the change before, until these are done.
    pub(super) fn put(
        &self,
        plugin: PluginBuilder,
        shutdown: &Shutdown,
    ) -> Option<Result<(), Unavailable>> {
        let (told, outcome) = mpsc::channel();
        *lock(&self.waiting) = Some(told.clone());
        let before = self.supervisor();
        let stage = self.clone();
        let replace = move || {
            let outcome = match before {
                Some(supervisor) => supervisor.replace(plugin),
                None => stage.start(plugin),
            };
            // Nobody waits if the event was first.
            let _ = told.send(outcome);
        };
        if let Err(error) = thread::Builder::new().name("replace".into()).spawn(replace) {
            self.report.note(format_args!("cannot start a thread: {error}"));
            return None;
        }
        loop {
            match outcome.recv_timeout(INTERVAL) {
                Ok(outcome) => return Some(outcome),
                Err(RecvTimeoutError::Timeout) if !shutdown.is_begun() => {}
                Err(_) => return None,
            }
        }
    }

    fn start(&self, plugin: PluginBuilder) -> Outcome {
        let stage = self.clone();
        let built = Supervisor::builder(plugin).on_event(move |_, event| stage.tell(event)).build();
        let supervisor = match built {
            Ok(supervisor) => supervisor,
            Err(error) => {
                // The system has no event loop left, which no change of the plugin mends.
                self.report.note(&error);
                std::process::exit(ExitReason::NotStarted.code().into());
            }
        };
        supervisor.start()?;
        *lock(&self.supervisor) = Some(supervisor);
        Ok(())
    }

    /// Stops the plugin.
    ///
    /// # Blocking
    /// Until it has ended.
    pub(super) fn stop(&self) -> Result<(), CommandError> {
        let Some(supervisor) = self.supervisor() else { return Ok(()) };
        let stopped = supervisor.stop();
        stopped.map(drop).map_err(|error| CommandError::new(ExitReason::Died, error))
    }

    /// Shows an event that the user has not caused.
    fn tell(&self, event: &Event) {
        let note = |note: &dyn fmt::Display| self.report.note(note);
        match event {
            Event::Replaced { .. } => {
                if let Some(waiting) = lock(&self.waiting).take() {
                    // The loop has ended if a shutdown has begun.
                    let _ = waiting.send(Ok(()));
                }
                self.report.detail(event);
            }
            Event::Ended { cause: EndCause::Unasked, .. } | Event::Restarting { .. } => note(event),
            // Before a first version runs, the loop shows the error.
            Event::GaveUp { last } if self.supervisor().is_some() => note(&format_args!(
                "it is not started again before the next change of a file, since it has failed: {last}"
            )),
            _ => self.report.detail(event),
        }
    }
}

/// Error of a version that does not start.
pub(super) fn not_started(
    unavailable: &Unavailable,
    hint: impl Fn(&pipeplug_host::StartError) -> Option<String>,
) -> CommandError {
    match unavailable.kind() {
        UnavailableKind::Start(error) => {
            let reason = match error.kind() {
                StartErrorKind::HandshakeTimeout { .. } => ExitReason::TimedOut,
                _ => ExitReason::NotStarted,
            };
            CommandError::message(reason, error).followed_by(hint(error).as_deref())
        }
        _ => CommandError::message(ExitReason::NotStarted, unavailable),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
