//! The host's own call-back for a plugin that has started, which no call comes before.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use pipeplug_net::HandlerError;

use crate::plugin::{Plugin, StartErrorKind};
use crate::process::WaitStatus;

/// Time for a plugin that ended meanwhile to be reaped, so that the error has its status.
const EXIT_TIMEOUT: Duration = Duration::from_millis(500);

/// Call-back for a plugin that has answered the first request.
pub(crate) type OnReady = Arc<dyn Fn(&Plugin) -> Result<(), HandlerError> + Send + Sync>;

/// Reason why a plugin is not ready: the result of
/// [`PluginBuilder::on_ready`](crate::PluginBuilder::on_ready).
#[derive(Debug)]
#[non_exhaustive]
pub enum NotReady {
    /// The call-back failed.
    Failed(HandlerError),
    /// The call-back panicked.
    Panicked(String),
    /// The call-back had not returned when the time for the start was over: this much was left for
    /// it.
    TimedOut(Duration),
}

impl fmt::Display for NotReady {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed(error) => {
                write!(f, "{error}")?;
                let mut source = error.source();
                while let Some(error) = source {
                    write!(f, ": {error}")?;
                    source = error.source();
                }
                Ok(())
            }
            Self::Panicked(message) => write!(f, "on_ready panicked: {message}"),
            Self::TimedOut(after) => write!(
                f,
                "on_ready did not return within {after:.1?}, which was left of the time for the start; a slow one \
                 needs more: PluginBuilder::handshake_timeout (`--timeout`)"
            ),
        }
    }
}

/// Runs the call-back on a thread of its own: it may block on anything, and its time is limited.
pub(super) fn run(
    on_ready: &OnReady,
    plugin: &Plugin,
    timeout: Duration,
) -> Result<(), StartErrorKind> {
    let (done, result) = mpsc::sync_channel(1);
    let (on_ready, of_thread) = (Arc::clone(on_ready), plugin.clone());
    let call = move || {
        let result = catch_unwind(AssertUnwindSafe(|| on_ready(&of_thread)));
        // Before the start returns: the last handle is the host's to drop.
        drop(of_thread);
        let result = match result {
            Ok(result) => result.map_err(NotReady::Failed),
            Err(panic) => Err(NotReady::Panicked(text_of(&*panic))),
        };
        // Not received where the time was over.
        let _ = done.send(result);
    };
    thread::Builder::new()
        .name("pipeplug-ready".into())
        .spawn(call)
        .map_err(|error| StartErrorKind::System { error })?;
    let why = match result.recv_timeout(timeout) {
        Ok(Ok(())) => return Ok(()),
        Ok(Err(why)) => why,
        Err(mpsc::RecvTimeoutError::Timeout) => NotReady::TimedOut(timeout),
        // Dropping what the call-back held panicked.
        Err(mpsc::RecvTimeoutError::Disconnected) => NotReady::Panicked("a drop panicked".into()),
    };
    let status = if plugin.connection().close_reason().is_some() {
        // Without a status the error says all the same what the call-back said.
        plugin.wait(EXIT_TIMEOUT).ok().flatten()
    } else {
        None
    };
    Err(StartErrorKind::NotReady { why, status: status.filter(|it| *it != WaitStatus::Unknown) })
}

fn text_of(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".into())
}
