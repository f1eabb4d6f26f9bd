//! The plugin of the shell, from its start to its end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use pipeplug_host::{Plugin, StopError, Stopped};

use super::calls::Counts;
use crate::exit::{CommandError, ExitReason};
use crate::output::event::Event;
use crate::output::report::Report;
use crate::session::Session;

/// Time for a plugin that closed its pipe to exit.
const EXIT_TIMEOUT: Duration = Duration::from_millis(500);

/// Pause between looks at the calls that a plugin's end has ended.
const CALLS_RETURN: Duration = Duration::from_millis(20);

/// Running plugin, or one that has ended and was not started again.
pub(super) struct Live {
    pub(super) session: Session,
    pub(super) counts: Arc<Counts>,
    pub(super) begun: Instant,
    /// True once it is stopped by the shell.
    is_stopping: Arc<AtomicBool>,
}

impl Live {
    /// Begins to watch a plugin that has been started: its end is shown, unless a call tells of it.
    pub(super) fn new(session: Session, report: &Arc<Report>, watch: Watch) -> Self {
        let counts = Arc::new(Counts::default());
        let is_stopping = Arc::new(AtomicBool::new(false));
        if watch == Watch::Shown {
            let (plugin, report) = (session.plugin.clone(), Arc::clone(report));
            let (counts, is_stopping) = (Arc::clone(&counts), Arc::clone(&is_stopping));
            // Without a thread the next call tells of the end.
            let _ = thread::Builder::new()
                .name("watch".into())
                .spawn(move || show_end(plugin, &report, &counts, &is_stopping));
        }
        Self { session, counts, begun: Instant::now(), is_stopping }
    }

    /// The error of a plugin that has ended. `None` if it runs.
    pub(super) fn ended(&self) -> Option<CommandError> {
        let plugin = &self.session.plugin;
        plugin.connection().wait_ended(Duration::ZERO)?;
        Some(end_of(plugin))
    }

    /// Stops the plugin.
    ///
    /// # Errors
    /// As for [`Plugin::stop`].
    ///
    /// # Blocking
    /// As for [`Session::end`].
    pub(super) fn end(self) -> Result<Stopped, StopError> {
        self.is_stopping.store(true, Ordering::Release);
        self.session.end()
    }
}

/// Treatment of an end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Watch {
    /// It is shown at once.
    Shown,
    /// The next call, or the end of the script, tells of it.
    Silent,
}

fn show_end(plugin: Plugin, report: &Report, counts: &Counts, is_stopping: &AtomicBool) {
    // `None` after about as many years as the clock has.
    let _ = plugin.connection().wait_ended(Duration::MAX);
    // Calls that the end has ended return soon. One that had its reply before tells nothing.
    while counts.running.load(Ordering::SeqCst) > 0 && !is_stopping.load(Ordering::Acquire) {
        thread::sleep(CALLS_RETURN);
    }
    if counts.end_is_told.load(Ordering::SeqCst) || is_stopping.load(Ordering::Acquire) {
        return;
    }
    let failure = end_of(&plugin);
    drop(plugin);
    report.show(&Event::Failed(&failure));
}

/// The error of a plugin that has ended without being asked to.
fn end_of(plugin: &Plugin) -> CommandError {
    let name = plugin.name();
    let message = match plugin.wait(EXIT_TIMEOUT) {
        Ok(Some(status)) => format!("{name} has ended: {status}"),
        _ => format!("the connection to {name} has ended, and it still runs"),
    };
    let panic = plugin.crash().and_then(|crash| crash.panic).map(|panic| format!(" ({panic})"));
    let message = format!("{message}{}; `restart` starts it again", panic.unwrap_or_default());
    CommandError::message(ExitReason::Died, message)
}
