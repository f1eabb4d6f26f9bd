//! `--stream`: parts from stdin or a file to the plugin, and parts of the reply to stdout.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};
use std::thread;

use futures_core::Stream as _;
use pipeplug_host::{CallError, PartSender, Plugin, Reply, ReplyParts, StreamError};

use crate::args::data::PartSource;
use crate::exit::{CommandError, ExitReason};
use crate::output::event::Event;
use crate::output::report::Report;
use crate::session::shutdown::Shutdown;

/// Largest part, in bytes: what a pipe is given at a time.
const PART: usize = 128 << 10;

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
    // It is not waited for: the plugin may have answered before stdin ends, which may be never.
    spawn(move || {
        // An error of the source reaches the plugin, and comes back with the error of the call.
        if let Err(error) = send(sender, source) {
            tracing::debug!(plugin = name, %error, "not all parts were sent");
        }
    })?;
    while shutdown.failure().is_none() {
        let next = std::future::poll_fn(|context| Pin::new(&mut parts).poll_next(context));
        match shutdown.wait_for(next) {
            Some(Some(Ok(part))) => report.show(&Event::Part { command, data: &part }),
            Some(Some(Err(error))) => return Ok(Some(Err(error))),
            // It is there already.
            Some(None) => return Ok(Some(parts.reply())),
            None => break,
        }
    }
    Ok(None)
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
        let sent = send(sender, source);
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
pub(crate) fn send(mut sender: PartSender, mut source: PartSource) -> Result<(), SendFailure> {
    loop {
        match source.read(PART) {
            Ok(part) if part.is_empty() => return Ok(sender.finish()?),
            Ok(part) => sender.send(part)?,
            Err(message) => {
                sender.abort(&message);
                return Err(SendFailure::Source(message));
            }
        }
    }
}
