//! Many calls: `--repeat`, `--parallel` and `--data-each`.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use pipeplug_host::{CallError, PendingCall, Plugin, Reply};

use super::LoadedCall;
use super::calls::{notify, outcome};
use super::each::{Line, Lines};
use crate::args::calls::CallKind;
use crate::exit::{CommandError, ExitReason};
use crate::output::event::Event;
use crate::output::report::Report;
use crate::session::shutdown::Shutdown;

/// Calls and one-ways in the order in which they are made.
pub(super) struct Steps<'a> {
    calls: &'a [LoadedCall<'a>],
    source: Source,
    /// Number of all steps, if it is known.
    total: Option<u64>,
}

enum Source {
    /// All calls, so many times, and the number of steps that were made.
    Repeat { times: u64, made: u64 },
    /// The only call, once for each line.
    Each(Arc<Lines>),
}

/// One call or one-way.
struct Step<'a> {
    call: &'a LoadedCall<'a>,
    /// Data and number of the line, with `--data-each`.
    line: Option<Line>,
}

/// A call in flight.
struct Open<'a> {
    command: &'a str,
    line: Option<u64>,
    begun: Instant,
    reply: Result<PendingCall, CallError>,
}

/// Next thing to do.
enum Next<'a> {
    Reply(Result<Reply, CallError>),
    Make(Step<'a>),
    Fail(CommandError),
    End,
}

impl<'a> Steps<'a> {
    /// All calls in order, `times` times.
    pub(super) fn repeat(calls: &'a [LoadedCall<'a>], times: u64) -> Self {
        let total = Some(times.saturating_mul(calls.len() as u64));
        Self { calls, source: Source::Repeat { times, made: 0 }, total }
    }

    /// The call with the data of each line. `total` is the number of lines, if it is known.
    pub(super) fn each(calls: &'a [LoadedCall<'a>], lines: Arc<Lines>, total: Option<u64>) -> Self {
        Self { calls, source: Source::Each(lines), total }
    }

    fn poll_next(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Step<'a>, CommandError>>> {
        match &mut self.source {
            Source::Repeat { times, made } => {
                let len = self.calls.len() as u64;
                if len == 0 || *made / len >= *times {
                    return Poll::Ready(None);
                }
                let index = usize::try_from(*made % len).unwrap_or(0);
                *made += 1;
                Poll::Ready(Some(Ok(Step { call: &self.calls[index], line: None })))
            }
            Source::Each(lines) => lines.poll_next(context).map(|line| {
                let call = self.calls.first()?;
                Some(line?.map(|line| Step { call, line: Some(line) }))
            }),
        }
    }

    /// Makes all calls, at most `parallel` at a time. Replies are shown in order.
    ///
    /// # Errors
    /// If a call ends the run, as in `run_calls`.
    pub(super) fn run(
        mut self,
        plugin: &Plugin,
        parallel: usize,
        timeout: Option<Duration>,
        report: &Report,
        shutdown: &Shutdown,
    ) -> Result<ExitReason, CommandError> {
        let mut open: VecDeque<Open<'a>> = VecDeque::new();
        let (mut is_ended, mut done, mut failed) = (false, 0_u64, 0_u64);
        let mut stopped = Ok(());
        while stopped.is_ok() {
            let next = poll_fn(|context| self.poll(context, &mut open, parallel, &mut is_ended));
            let outcome = match shutdown.wait_for(next) {
                Some(Next::Make(Step { call, line })) => {
                    let command = call.arg.command.as_str();
                    let (line, data) = match line {
                        Some(Line { number, data }) => (Some(number), data),
                        None => (None, call.data.clone()),
                    };
                    let begun = Instant::now();
                    if call.arg.kind == CallKind::Call {
                        let mut request = plugin.request(command, data);
                        if let Some(timeout) = timeout {
                            request = request.timeout(timeout);
                        }
                        let reply = request.begin();
                        open.push_back(Open { command, line, begun, reply });
                        continue;
                    }
                    notify(plugin, command, data, timeout)
                }
                Some(Next::Reply(reply)) => {
                    let Some(Open { command, line, begun, .. }) = open.pop_front() else {
                        continue;
                    };
                    match outcome(plugin, command, reply, begun, timeout, report) {
                        Ok(Some(data)) => {
                            let took = begun.elapsed();
                            report.show(&Event::Reply { command, data: &data, took, line });
                            Ok(())
                        }
                        Ok(None) => Ok(()),
                        // A call that fails during a shutdown fails because of the shutdown.
                        Err(failure) => {
                            Err(shutdown.cancelled(command).unwrap_or(failure).at(line))
                        }
                    }
                }
                Some(Next::Fail(failure)) => Err(failure),
                Some(Next::End) => break,
                // Dropping the open calls gives them up.
                None => {
                    let command = open.front().map(|open| open.command);
                    stopped = Err(command
                        .and_then(|command| shutdown.cancelled(command))
                        .or_else(|| shutdown.failure())
                        .unwrap_or_else(|| CommandError::silent(ExitReason::Interrupted)));
                    if let (Err(failure), true) = (&stopped, shutdown.is_interrupted()) {
                        report.show(&Event::Failed(failure));
                    }
                    continue;
                }
            };
            done += 1;
            match outcome {
                Ok(()) => {}
                Err(failure)
                    if failure.reason == ExitReason::Failed && !shutdown.has_failed_output() =>
                {
                    failed += 1;
                    report.show(&Event::Failed(&failure));
                }
                Err(failure) => stopped = Err(failure),
            }
            report.count(done, self.total, failed);
        }
        report.end_progress();
        if failed > 0 {
            report.note(format_args!("{failed} of {done} failed"));
        }
        stopped.map(|()| if failed > 0 { ExitReason::Failed } else { ExitReason::Success })
    }

    /// Waits for the oldest call, or for the next one while there is room for it.
    fn poll(
        &mut self,
        context: &mut Context<'_>,
        open: &mut VecDeque<Open<'a>>,
        parallel: usize,
        is_ended: &mut bool,
    ) -> Poll<Next<'a>> {
        // Calls are sent before one waits, or they would be in flight one by one.
        if open.len() < parallel && !*is_ended {
            match self.poll_next(context) {
                Poll::Ready(Some(Ok(step))) => return Poll::Ready(Next::Make(step)),
                Poll::Ready(Some(Err(failure))) => {
                    // The calls before it are waited for first.
                    if open.is_empty() {
                        return Poll::Ready(Next::Fail(failure));
                    }
                }
                Poll::Ready(None) => *is_ended = true,
                Poll::Pending => {}
            }
        }
        let Some(oldest) = open.front_mut() else {
            return if *is_ended { Poll::Ready(Next::End) } else { Poll::Pending };
        };
        match &mut oldest.reply {
            Ok(call) => Pin::new(call).poll(context).map(Next::Reply),
            Err(error) => Poll::Ready(Next::Reply(Err(error.clone()))),
        }
    }
}
