//! Calls and one-ways of the shell.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::Poll;
use std::thread;
use std::time::{Duration, Instant};

use pipeplug_host::{CancelHandle, Plugin};

use crate::args::calls::CallKind;
use crate::commands::run::{self, Calling, ProgressBar};
use crate::exit::{CommandError, ExitReason};
use crate::output::event::Event;
use crate::output::report::Report;
use crate::output::text::{self, Escaped};
use crate::session::shutdown::Shutdown;

/// Numbers of calls and one-ways since the start of the plugin.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) answered: AtomicU64,
    pub(super) failed: AtomicU64,
    pub(super) one_ways: AtomicU64,
    /// Lines that are being done, whose errors may tell the end of the plugin.
    pub(super) running: AtomicU64,
    /// True once an error has told it.
    pub(super) end_is_told: AtomicBool,
}

/// A call or one-way that is ready to be made.
pub(super) struct Ready {
    pub(super) kind: CallKind,
    pub(super) command: String,
    pub(super) data: Vec<u8>,
    pub(super) repeat: u64,
    pub(super) is_timed: bool,
    /// Line of the script.
    pub(super) line: Option<u64>,
    /// Number of the job, with the text of its line.
    pub(super) job: Option<(u32, String)>,
}

/// Plugin and settings of a call, for any thread.
pub(super) struct Caller {
    pub(super) plugin: Plugin,
    pub(super) report: Arc<Report>,
    pub(super) shutdown: Shutdown,
    pub(super) timeout: Option<Duration>,
    pub(super) cancel: CancelHandle,
    pub(super) counts: Arc<Counts>,
}

impl Caller {
    /// Makes the calls, and shows their replies.
    ///
    /// # Errors
    /// The first call that fails.
    ///
    /// # Blocking
    /// Until it is done, given up, or a shutdown begins.
    pub(super) fn make(&self, ready: &Ready) -> Result<(), CommandError> {
        let begun = Instant::now();
        let mut done = 0;
        let result = (0..ready.repeat).try_for_each(|_| {
            self.once(ready).inspect(|()| done += 1).map_err(|failure| self.cause(ready, failure))
        });
        if result.as_ref().is_err_and(|failure| failure.reason == ExitReason::Died) {
            self.counts.end_is_told.store(true, Ordering::SeqCst);
        }
        if ready.is_timed {
            let took = begun.elapsed();
            let each = match u32::try_from(done) {
                Ok(count @ 2..) => format!(", {} each", text::took(took / count)),
                _ => String::new(),
            };
            let what =
                if ready.repeat > 1 { format!("{done} done in ") } else { "took ".to_owned() };
            self.report.note(format_args!("{what}{}{each}", text::took(took)));
        }
        result
    }

    fn once(&self, ready: &Ready) -> Result<(), CommandError> {
        let begun = Instant::now();
        match ready.kind {
            CallKind::Call => {
                let reply = self.call(ready);
                let count = if reply.is_ok() { &self.counts.answered } else { &self.counts.failed };
                count.fetch_add(1, Ordering::Relaxed);
                let data = reply?;
                let took = begun.elapsed();
                if let Some((number, line)) = &ready.job {
                    self.report.note(format_args!(
                        "[{number}] {}: {} B after {}",
                        Escaped(line),
                        data.len(),
                        text::took(took)
                    ));
                }
                let (command, line) = (ready.command.as_str(), ready.line);
                self.report.show(&Event::Reply { command, data: &data, took, line });
            }
            CallKind::Notify => {
                self.notify(&ready.command, &ready.data)?;
                self.counts.one_ways.fetch_add(1, Ordering::Relaxed);
                if let Some((number, line)) = &ready.job {
                    self.report.note(format_args!("[{number}] {}: sent", Escaped(line)));
                }
            }
        }
        Ok(())
    }

    fn call(&self, ready: &Ready) -> Result<Vec<u8>, CommandError> {
        // Beside a line that is edited a bar would be in the way.
        let bar = if ready.job.is_some() { ProgressBar::Hidden } else { ProgressBar::Drawn };
        let calling = Calling {
            plugin: &self.plugin,
            timeout: self.timeout,
            report: &self.report,
            shutdown: &self.shutdown,
            cancel: Some(&self.cancel),
            bar,
        };
        let reply = run::call(calling, &ready.command, ready.data.clone())?;
        Ok(reply.unwrap_or_default())
    }

    /// Sends a one-way, and waits until it is sent.
    fn notify(&self, command: &str, data: &[u8]) -> Result<(), CommandError> {
        let is_late = Arc::new(AtomicBool::new(false));
        if let Some(timeout) = self.timeout {
            let (is_late, thread) = (Arc::clone(&is_late), thread::current());
            self.plugin.connection().events().after(timeout, move || {
                is_late.store(true, Ordering::Release);
                thread.unpark();
            });
        }
        let mut sending = pin!(self.plugin.notify_async(command, data));
        let sent = self.shutdown.wait_for(std::future::poll_fn(|context| {
            if let Poll::Ready(sent) = sending.as_mut().poll(context) {
                return Poll::Ready(Some(sent));
            }
            // The thread that sets them wakes this one. Dropping the future gives the one-way up.
            if self.cancel.is_cancelled() || is_late.load(Ordering::Acquire) {
                return Poll::Ready(None);
            }
            Poll::Pending
        }));
        match sent {
            Some(Some(Ok(()))) => Ok(()),
            Some(Some(Err(error))) => Err(run::not_told(&self.plugin, command, error)),
            Some(None) if !self.cancel.is_cancelled() => {
                let message = format!(
                    "{}: not sent within {:?}, since the plugin does not read; {} allows more",
                    Escaped(command),
                    self.timeout.unwrap_or_default(),
                    self.report.timeout_setting()
                );
                Err(CommandError::message(ExitReason::TimedOut, message).of_command(command))
            }
            Some(None) | None => Err(CommandError::silent(ExitReason::Interrupted)),
        }
    }

    /// The error, or what caused it.
    fn cause(&self, ready: &Ready, failure: CommandError) -> CommandError {
        if let Some(cancelled) = self.shutdown.cancelled(&ready.command) {
            return cancelled;
        }
        if !self.cancel.is_cancelled() {
            return failure;
        }
        let by = if ready.job.is_some() { "`cancel`" } else { "Ctrl-C" };
        let message = format!("{}: cancelled by {by}", Escaped(&ready.command));
        CommandError::message(ExitReason::Interrupted, message).of_command(&ready.command)
    }
}
