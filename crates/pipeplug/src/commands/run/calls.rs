//! Calls and one-ways of `pipeplug run`, with and without a stream.

use std::fmt;
use std::future;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::thread;
use std::time::{Duration, Instant};

use futures_core::Stream as _;
use pipeplug_host::{
    CallError, CancelHandle, Credit, Ended, NotifyError, PendingCall, Plugin, Progress,
    ProgressReports, Reply, RequestBuilder,
};

use super::end::EXIT_TIMEOUT;
use crate::args::data::PartSource;
use crate::exit::{CallFault, CommandError, ExitReason};
use crate::output::event::Event;
use crate::output::report::Report;
use crate::output::text::Escaped;
use crate::session::shutdown::Shutdown;
use crate::session::streaming::{self, SendFailure};
use crate::session::suspended;

/// Plugin that is called, and how.
#[derive(Clone, Copy)]
pub(crate) struct Calling<'a> {
    pub(crate) plugin: &'a Plugin,
    pub(crate) timeout: Option<Duration>,
    pub(crate) report: &'a Report,
    pub(crate) shutdown: &'a Shutdown,
    /// Gives the call up.
    pub(crate) cancel: Option<&'a CancelHandle>,
    pub(crate) bar: ProgressBar,
}

/// Bar of a call that reports progress.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ProgressBar {
    /// Drawn in a terminal.
    Drawn,
    /// The terminal is used for something else.
    Hidden,
}

/// Makes a call and waits for its reply.
pub(crate) fn call(
    calling: Calling<'_>,
    command: &str,
    data: Vec<u8>,
) -> Result<Option<Vec<u8>>, CommandError> {
    let Calling { plugin, timeout, report, shutdown, cancel, bar } = calling;
    let begun = Instant::now();
    let (request, progress) = match bar {
        ProgressBar::Drawn => request(plugin, command, data, timeout, report),
        ProgressBar::Hidden => (without_progress(plugin, command, data, timeout), None),
    };
    let request = match cancel {
        Some(cancel) => request.cancel_by(cancel),
        None => request,
    };
    let reply = match request.begin() {
        Ok(pending) => {
            let show = |progress: &Progress| report.show(&Event::Progress { command, progress });
            let reply = shutdown.wait_for(with_progress(pending, progress, show));
            if bar == ProgressBar::Drawn {
                report.end_progress();
            }
            match reply {
                Some(reply) => reply,
                // Dropping the future cancelled the call; `run_calls` reports the reason.
                None => return Err(CommandError::silent(ExitReason::Interrupted)),
            }
        }
        Err(error) => Err(error),
    };
    outcome(plugin, command, reply, begun, timeout, report)
}

fn request<'a>(
    plugin: &'a Plugin,
    command: &'a str,
    data: Vec<u8>,
    timeout: Option<Duration>,
    report: &Report,
) -> (RequestBuilder<'a, Plugin>, Option<ProgressReports>) {
    let request = without_progress(plugin, command, data, timeout);
    if !report.shows_progress() {
        return (request, None);
    }
    let (request, progress) = request.progress();
    (request, Some(progress))
}

fn without_progress<'a>(
    plugin: &'a Plugin,
    command: &'a str,
    data: Vec<u8>,
    timeout: Option<Duration>,
) -> RequestBuilder<'a, Plugin> {
    let request = plugin.request(command, data);
    match timeout {
        Some(timeout) => request.timeout(timeout),
        None => request,
    }
}

/// Awaits a reply, and shows the reports that come before it.
async fn with_progress(
    call: PendingCall,
    mut progress: Option<ProgressReports>,
    show: impl Fn(&Progress),
) -> Result<Reply, CallError> {
    let mut call = pin!(call);
    future::poll_fn(|context| {
        let mut show_reports = |context: &mut _| {
            let mut reports = progress.as_mut().map(Pin::new);
            while let Some(Poll::Ready(Some(report))) =
                reports.as_mut().map(|reports| reports.as_mut().poll_next(context))
            {
                show(&report);
            }
        };
        show_reports(context);
        let reply = call.as_mut().poll(context);
        if reply.is_ready() {
            // The last report, which came just before it.
            show_reports(context);
        }
        reply
    })
    .await
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
    let (request, progress) = request(plugin, command, data, timeout, report);
    let reply = match request.stream() {
        Ok(call) => {
            let reply = thread::scope(|scope| {
                let show = || {
                    for progress in progress.into_iter().flatten() {
                        report.show(&Event::Progress { command, progress: &progress });
                    }
                };
                // Ends with the call. Without a thread there are no reports.
                let _ = thread::Builder::new().spawn_scoped(scope, show);
                streaming::exchange(plugin, command, call.split(), source, report, shutdown)
            });
            report.end_progress();
            match reply? {
                Some(reply) => reply,
                // Dropping the parts cancelled the call; `run_calls` reports the reason.
                None => return Err(CommandError::silent(ExitReason::Interrupted)),
            }
        }
        Err(error) => Err(error),
    };
    outcome(plugin, command, reply, begun, timeout, report)
}

pub(super) fn notify_stream(
    plugin: &Plugin,
    command: &str,
    (data, source): (Vec<u8>, PartSource),
    shutdown: &Shutdown,
) -> Result<(), CommandError> {
    let sender =
        plugin.notify_stream(command, data).map_err(|error| not_told(plugin, command, error))?;
    match streaming::push(sender, source, shutdown)? {
        Some(Ok(())) => Ok(()),
        Some(Err(error)) => {
            let reason = match error {
                SendFailure::Source(_) => ExitReason::Usage,
                SendFailure::Stream(_) => ExitReason::Failed,
            };
            let error = format!("{}: {error}", Escaped(command));
            Err(CommandError::message(reason, error).of_command(command))
        }
        None => Err(CommandError::silent(ExitReason::Interrupted)),
    }
}

/// The reply of a call, or the error that it makes of the run.
pub(super) fn outcome(
    plugin: &Plugin,
    command: &str,
    reply: Result<Reply, CallError>,
    begun: Instant,
    timeout: Option<Duration>,
    report: &Report,
) -> Result<Option<Vec<u8>>, CommandError> {
    let error = match reply {
        Ok(reply) => return Ok(Some(reply.into_bytes())),
        Err(error) => error,
    };
    let failure = match (&error, CallFault::of(&error)) {
        (CallError::NotSent { after, credit, .. }, _) => not_sent(command, *after, *credit),
        (_, CallFault::Refused) => CommandError::new(ExitReason::Failed, error.clone()),
        (_, CallFault::Died) => died(plugin, error.clone()),
        (_, CallFault::TimedOut) => {
            let waited = timeout.unwrap_or_else(|| begun.elapsed());
            let advice = match plugin.stopped_by() {
                Some(signal) => suspended::note(plugin.pid().as_raw(), signal),
                None => format!("{} allows more", report.timeout_setting()),
            };
            let message = format!("{}: no reply within {waited:?}; {advice}", Escaped(command));
            CommandError {
                stderr: plugin.stderr_tail(),
                ..CommandError::message(ExitReason::TimedOut, message)
            }
        }
    };
    Err(failure.of_call(&error).of_command(command))
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
    sent.map_err(|error| not_told(plugin, command, error))
}

/// Makes the error of a one-way that was not sent.
pub(crate) fn not_told(plugin: &Plugin, command: &str, error: NotifyError) -> CommandError {
    let failure = match error {
        NotifyError::Closed { .. } => died(plugin, error),
        _ => CommandError::new(ExitReason::Failed, error),
    };
    failure.of_command(command)
}

fn not_sent(command: &str, within: Duration, credit: Option<Credit>) -> CommandError {
    let (command, why) = (Escaped(command), why_not(credit));
    let message = format!("{command}: not sent within {within:?}, since {why}");
    CommandError::message(ExitReason::TimedOut, message)
}

/// Reason that nothing can be sent to the plugin.
fn why_not(credit: Option<Credit>) -> String {
    credit.map_or_else(|| "the plugin does not read".into(), |credit| credit.to_string())
}

/// Makes the error of a connection that ended during a call, with the wait status of the plugin.
pub(crate) fn died(plugin: &Plugin, error: impl Ended + fmt::Display) -> CommandError {
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
