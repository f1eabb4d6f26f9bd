//! Calls and one-ways of `pipeplug run`, with and without a stream.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use pipeplug_host::{CallError, Credit, Ended, NotifyError, Plugin, Reply, RequestBuilder};

use super::EXIT_TIMEOUT;
use crate::args::data::PartSource;
use crate::exit::{CallFault, CommandError, ExitReason};
use crate::output::report::Report;
use crate::session::shutdown::Shutdown;
use crate::session::{streaming, suspended};

pub(super) fn call(
    plugin: &Plugin,
    command: &str,
    data: Vec<u8>,
    timeout: Option<Duration>,
    shutdown: &Shutdown,
) -> Result<Option<Vec<u8>>, CommandError> {
    let begun = Instant::now();
    let reply = match request(plugin, command, data, timeout).begin() {
        Ok(pending) => match shutdown.wait_for(pending) {
            Some(reply) => reply,
            // Dropping the future cancelled the call; `run_calls` reports the reason.
            None => return Err(CommandError::silent(ExitReason::Interrupted)),
        },
        Err(error) => Err(error),
    };
    outcome(plugin, command, reply, begun, timeout)
}

fn request<'a>(
    plugin: &'a Plugin,
    command: &'a str,
    data: Vec<u8>,
    timeout: Option<Duration>,
) -> RequestBuilder<'a, Plugin> {
    let request = plugin.request(command, data);
    match timeout {
        None => request,
        Some(timeout) => request.timeout(timeout),
    }
}

/// Makes a call with a stream: `source` to the plugin, and the parts of the reply to stdout.
pub(super) fn stream(
    plugin: &Plugin,
    command: &str,
    (data, source): (Vec<u8>, PartSource),
    timeout: Option<Duration>,
    report: &Report,
    shutdown: &Shutdown,
) -> Result<Option<Vec<u8>>, CommandError> {
    let begun = Instant::now();
    let reply = match request(plugin, command, data, timeout).stream() {
        Ok(call) => {
            match streaming::exchange(plugin, command, call.split(), source, report, shutdown)? {
                Some(reply) => reply,
                // Dropping the parts cancelled the call; `run_calls` reports the reason.
                None => return Err(CommandError::silent(ExitReason::Interrupted)),
            }
        }
        Err(error) => Err(error),
    };
    outcome(plugin, command, reply, begun, timeout)
}

pub(super) fn notify_stream(
    plugin: &Plugin,
    command: &str,
    (data, source): (Vec<u8>, PartSource),
    shutdown: &Shutdown,
) -> Result<(), CommandError> {
    let failed = |error: NotifyError| match error {
        NotifyError::Closed { .. } => died(plugin, error),
        _ => CommandError::new(ExitReason::Failed, error),
    };
    let sender =
        plugin.notify_stream(command, data).map_err(|error| failed(error).of_command(command))?;
    match streaming::push(sender, source, shutdown)? {
        Some(Ok(())) => Ok(()),
        Some(Err(error)) => {
            let error = format!("{command}: {error}");
            Err(CommandError::message(ExitReason::Failed, error).of_command(command))
        }
        None => Err(CommandError::silent(ExitReason::Interrupted)),
    }
}

/// The reply of a call, or the error that it makes of the run.
fn outcome(
    plugin: &Plugin,
    command: &str,
    reply: Result<Reply, CallError>,
    begun: Instant,
    timeout: Option<Duration>,
) -> Result<Option<Vec<u8>>, CommandError> {
    let failure = match reply {
        Ok(reply) => return Ok(Some(reply.into_bytes())),
        Err(CallError::NotSent { after, credit, .. }) => not_sent(command, after, credit),
        Err(error) => match CallFault::of(&error) {
            CallFault::Refused => CommandError::new(ExitReason::Failed, error),
            CallFault::Died => died(plugin, error),
            CallFault::TimedOut => {
                let waited = timeout.unwrap_or_else(|| begun.elapsed());
                let advice = match plugin.stopped_by() {
                    Some(signal) => suspended::note(plugin.pid().as_raw(), signal),
                    None => "--timeout allows more".to_owned(),
                };
                let message = format!("{command}: no reply within {waited:?}; {advice}");
                CommandError {
                    stderr: plugin.stderr_tail(),
                    ..CommandError::message(ExitReason::TimedOut, message)
                }
            }
        },
    };
    Err(failure.of_command(command))
}

pub(super) fn notify(
    plugin: &Plugin,
    command: &str,
    data: Vec<u8>,
    timeout: Option<Duration>,
) -> Result<(), CommandError> {
    let sending = SendDeadline::arm(plugin, timeout);
    let sent = plugin.notify(command, data);
    sending.disarm(command)?;
    sent.map_err(|error| {
        let failure = match error {
            NotifyError::Closed { .. } => died(plugin, error),
            _ => CommandError::new(ExitReason::Failed, error),
        };
        failure.of_command(command)
    })
}

fn not_sent(command: &str, within: Duration, credit: Option<Credit>) -> CommandError {
    let message = format!("{command}: not sent within {within:?}, since {}", why_not(credit));
    CommandError::message(ExitReason::TimedOut, message)
}

/// Reason that nothing can be sent to the plugin.
fn why_not(credit: Option<Credit>) -> String {
    credit.map_or_else(|| "the plugin does not read".into(), |credit| credit.to_string())
}

/// Makes the error of a connection that ended during a call, with the wait status of the plugin.
fn died(plugin: &Plugin, error: impl Ended + fmt::Display) -> CommandError {
    let failure = CommandError::of_end(error, plugin.wait(EXIT_TIMEOUT).ok().flatten());
    CommandError { stderr: plugin.stderr_tail(), ..failure }
}

/// Ends the connection if a one-way cannot be sent within `--timeout`, since the plugin reads too
/// little. Calls have their own deadline.
struct SendDeadline {
    /// `None` once the time is over, or the one-way was sent.
    armed: Arc<Mutex<Option<Plugin>>>,
    timeout: Option<Duration>,
    /// Missing credit at the time-out.
    credit: Arc<Mutex<Option<Credit>>>,
}

impl SendDeadline {
    fn arm(plugin: &Plugin, timeout: Option<Duration>) -> Self {
        let armed = Arc::new(Mutex::new(Some(plugin.clone())));
        let credit = Arc::default();
        if let Some(timeout) = timeout {
            let (timer, waits_for) = (Arc::clone(&armed), Arc::clone(&credit));
            plugin.connection().events().after(timeout, move || {
                let mut armed = lock(&timer);
                if let Some(plugin) = armed.take() {
                    let credit = plugin.connection().stats().credit;
                    *lock(&waits_for) = credit;
                    plugin.connection().end(why_not(credit));
                }
            });
        }
        Self { armed, timeout, credit }
    }

    fn disarm(self, command: &str) -> Result<(), CommandError> {
        let armed = lock(&self.armed).take();
        match (armed, self.timeout) {
            (None, Some(timeout)) => {
                let credit = *lock(&self.credit);
                Err(not_sent(command, timeout, credit).of_command(command))
            }
            (Some(_), _) | (None, None) => Ok(()),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
