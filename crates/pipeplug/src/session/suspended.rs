//! Note for a plugin that a signal has stopped (suspended), and that therefore does not answer.

use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use pipeplug_host::Plugin;

use crate::output::event::Event;
use crate::output::report::Report;

/// Interval of the checks.
const INTERVAL: Duration = Duration::from_secs(1);

/// Watches one plugin until it is dropped.
pub(crate) struct SuspensionWatch {
    /// Dropping it ends the thread.
    _alive: Sender<()>,
    /// Receiver for the thread, which takes it.
    ended: Mutex<Option<Receiver<()>>>,
}

impl SuspensionWatch {
    pub(crate) fn new() -> Self {
        let (alive, ended) = mpsc::channel();
        Self { _alive: alive, ended: Mutex::new(Some(ended)) }
    }

    /// Starts the thread that checks the plugin.
    pub(crate) fn begin(&self, plugin: &Plugin, report: &Arc<Report>) {
        let Some(ended) = self.ended.lock().unwrap_or_else(PoisonError::into_inner).take() else {
            return;
        };
        let (plugin, report) = (plugin.clone(), Arc::clone(report));
        let watch = move || {
            let mut told = None;
            while ended.recv_timeout(INTERVAL) == Err(RecvTimeoutError::Timeout) {
                let stopped = plugin.stopped_by();
                if let Some(signal) = stopped
                    && told != stopped
                {
                    report.show(&Event::Suspended { pid: plugin.pid().as_raw(), signal });
                }
                told = stopped;
            }
        };
        // Without the thread there is only no note.
        let _ = thread::Builder::new().name("stop-watch".to_owned()).spawn(watch);
    }
}

/// Text for a plugin with this process id that `signal` has stopped.
pub(crate) fn note(pid: i32, signal: i32) -> String {
    match signal_hook::low_level::signal_name(signal) {
        Some(name @ ("SIGTTIN" | "SIGTTOU")) => {
            format!(
                "the plugin is stopped ({name}), since it used the terminal: --stdin inherit \
                 allows that"
            )
        }
        Some(name) => format!("the plugin is stopped ({name}): kill -CONT {pid} resumes it"),
        None => format!("the plugin is stopped (signal {signal}): kill -CONT {pid} resumes it"),
    }
}

#[cfg(test)]
mod tests {
    use super::note;

    #[test]
    fn a_use_of_the_terminal_has_an_option() {
        assert!(
            note(7, signal_hook::consts::SIGTTIN)
                .contains("(SIGTTIN), since it used the terminal: --stdin inherit")
        );
        assert!(note(7, signal_hook::consts::SIGSTOP).contains("(SIGSTOP): kill -CONT 7 resumes"));
    }
}
