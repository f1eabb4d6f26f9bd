//! `--stream`: parts from stdin or a file to the plugin, and parts of the reply to stdout.

use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};
use std::thread;
use std::time::Duration;

use futures_core::Stream as _;
use pipeplug_host::{CallError, PartSender, Plugin, Reply, ReplyParts, StreamError};

use crate::args::data::PartSource;
use crate::exit::{CommandError, ExitReason};
use crate::output::event::Event;
use crate::output::report::Report;
use crate::session::shutdown::Shutdown;

/// Largest part, in bytes: what a pipe is given at a time.
const PART: usize = 128 << 10;
/// Time for the first read of a source whose parts the plugin does not take.
const FIRST_READ: Duration = Duration::from_millis(300);

/// Sends the parts of a call while the parts of its reply are shown. Returns the reply. `None` if a
/// shutdown begins first.
pub(crate) fn exchange(
    plugin: &Plugin,
    command: &str,
    (sender, mut parts): (PartSender, ReplyParts),
    source: PartSource,
    report: &Report,
    shutdown: &Shutdown,
) -> Result<Option<Result<Reply, CallError>>, CommandError> {
    let name = plugin.name().to_owned();
    let sent = Arc::new(Sent::default());
    // It is not waited for: the plugin may have answered before stdin ends, which may be never.
    spawn({
        let sent = Arc::clone(&sent);
        move || {
            if let Err(error) = send(sender, source, &sent) {
                tracing::debug!(plugin = name, %error, "not all parts were sent");
            }
        }
    })?;
    while shutdown.failure().is_none() {
        let next = std::future::poll_fn(|context| Pin::new(&mut parts).poll_next(context));
        let error = match shutdown.wait_for(next) {
            Some(Some(Ok(part))) => {
                report.show(&Event::Part { command, data: &part });
                continue;
            }
            Some(Some(Err(error))) => Some(error),
            Some(None) => None,
            None => break,
        };
        // The cause of what the plugin says of it, if it does.
        if let Some(failure) = sent.source_failure() {
            return Err(failure.of_command(command));
        }
        let Some(error) = error else {
            let refusal = parts.refusal().filter(|reason| !reason.is_empty() && sent.had_input());
            // It is there already.
            let reply = parts.reply();
            if let Some(reason) = refusal {
                report.show(&Event::Refused { command, reason: &reason });
            }
            return Ok(Some(reply));
        };
        return Ok(Some(Err(error)));
    }
    Ok(None)
}

/// Progress of a sender, for the thread that waits for the reply.
#[derive(Debug, Default)]
struct Sent {
    /// True if the source has any bytes. `None` until the first read has returned.
    has_input: Mutex<Option<bool>>,
    has_read: Condvar,
    source_failure: Mutex<Option<String>>,
}

impl Sent {
    /// Notes the result of a read.
    fn read(&self, part: &[u8]) {
        lock(&self.has_input).get_or_insert(!part.is_empty());
        self.has_read.notify_all();
    }

    /// Returns true if the source has any bytes. The plugin may have answered before they were read.
    ///
    /// # Blocking
    /// Up to [`FIRST_READ`]. A source that has nothing yet may stay so.
    fn had_input(&self) -> bool {
        let unknown = |has_input: &mut Option<bool>| has_input.is_none();
        let waited = self.has_read.wait_timeout_while(lock(&self.has_input), FIRST_READ, unknown);
        waited.unwrap_or_else(PoisonError::into_inner).0.unwrap_or(false)
    }

    /// Error of a source that cannot be read.
    fn source_failure(&self) -> Option<CommandError> {
        let message = lock(&self.source_failure).take()?;
        Some(CommandError::message(ExitReason::Usage, message))
    }
}

/// Sends the parts of a one-way. `None` if a shutdown begins first.
pub(crate) fn push(
    sender: PartSender,
    source: PartSource,
    shutdown: &Shutdown,
) -> Result<Option<Result<(), SendFailure>>, CommandError> {
    // A thread of its own, since a read of stdin cannot be interrupted.
    let outcome = Arc::new(Mutex::new((None, None::<Waker>)));
    let told = Arc::clone(&outcome);
    spawn(move || {
        let sent = send(sender, source, &Sent::default());
        let mut outcome = lock(&told);
        outcome.0 = Some(sent);
        if let Some(waker) = outcome.1.take() {
            waker.wake();
        }
    })?;
    Ok(shutdown.wait_for(std::future::poll_fn(|context| {
        let mut outcome = lock(&outcome);
        match outcome.0.take() {
            Some(sent) => Poll::Ready(sent),
            None => {
                outcome.1 = Some(context.waker().clone());
                Poll::Pending
            }
        }
    })))
}

fn spawn(run: impl FnOnce() + Send + 'static) -> Result<(), CommandError> {
    thread::Builder::new().name("stdin".into()).spawn(run).map(drop).map_err(|error| {
        CommandError::message(ExitReason::Failed, format!("cannot start a thread: {error}"))
    })
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Reason that not all parts were sent.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SendFailure {
    /// The message names the source.
    #[error("{0}")]
    Source(String),
    #[error(transparent)]
    Stream(#[from] StreamError),
}

/// Sends everything that the source has.
///
/// # Errors
/// The source cannot be read, or the plugin takes no more parts.
///
/// # Blocking
/// Until the end of the source, and while the plugin is behind.
fn send(mut sender: PartSender, mut source: PartSource, sent: &Sent) -> Result<(), SendFailure> {
    loop {
        let read = source.read(PART);
        sent.read(read.as_deref().unwrap_or_default());
        match read {
            Ok(part) if part.is_empty() => return Ok(sender.finish()?),
            Ok(part) => sender.send(part)?,
            Err(message) => {
                // Before the plugin can answer.
                *lock(&sent.source_failure) = Some(message.clone());
                sender.abort(&message);
                return Err(SendFailure::Source(message));
            }
        }
    }
}
