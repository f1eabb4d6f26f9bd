//! `pipeplug run`: starts a plugin, calls it, and stops it.

use std::fmt;
use std::io::{self, IsTerminal as _};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use clap::Args;
use clap::builder::{OsStringValueParser, TypedValueParser as _};
use pipeplug_host::{
    CallError, CloseReason, Credit, Direction, Ended, Format, Header, NotifyError, Plugin,
    StopError, Stopped, StoppedBy, ThreadId, WaitStatus,
};

use crate::args::calls::{CallArg, CallArgs, CallKind};
use crate::args::data::Loader;
use crate::args::sandbox::Level;
use crate::args::start::StartArgs;
use crate::args::target::Target;
use crate::cli::Globals;
use crate::exit;
use crate::exit::{CallFault, CommandError, ExitReason};
use crate::output::event;
use crate::output::event::Event;
use crate::output::report::{Mode, Report};
use crate::output::text::Escaped;
use crate::session::Session;
use crate::session::answers::{self, AnswerArg, AnswerHandler};
use crate::session::shutdown::{Shutdown, Signalled};
use crate::session::suspended;

/// Time for a plugin that closed its pipe to exit, so that its exit status can be reported.
const EXIT_TIMEOUT: Duration = Duration::from_millis(500);

const EXAMPLES: &str = "\
DATA is literal text, or @FILE for the content of a file, @- for stdin, or
@@TEXT for the text @TEXT. It may begin with one dash (-5). If it begins with
two, or is the same as an option (-v, -h), use @FILE or @-.

Examples:
  pipeplug run @echo --call echo hello
  pipeplug run ./plugin --call open @page.html --notify log done --call count
  date | pipeplug run ./plugin --call store @-
  pipeplug run ./plugin --answer ask=yes --timeout 2s --call start -- --fast
  pipeplug run ./plugin --json --call list | jq -r .data";

/// Start a plugin, call it, and stop it
///
/// Starts the plugin, makes the calls and one-ways in the given order, and stops the plugin. Only
/// replies go to stdout, byte for byte; in a terminal each reply ends with a newline, and control
/// characters are escaped. The plugin's stderr, and its requests and one-ways to the host, go to
/// stderr. A one-way has no reply: a plugin made with pipeplug-guest reports a failed one on its
/// stderr, and the exit status does not change. Without --call and --notify the plugin runs until
/// it ends or Ctrl-C is pressed.
#[derive(Debug, Args)]
#[command(
    override_usage = "pipeplug run PLUGIN [--call|--notify CMD [DATA]]... [OPTIONS] [-- ARGS]",
    after_help = EXAMPLES,
    after_long_help = format!("{EXAMPLES}\n\n{}\n\n{}", event::HELP, exit::HELP)
)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    calls: CallArgs,

    /// Answer requests CMD of the plugin with DATA, repeatable; others are refused
    #[arg(
        long = "answer",
        value_name = "CMD=DATA",
        help_heading = "Calls",
        value_parser = OsStringValueParser::new().try_map(answers::parse)
    )]
    answers: Vec<AnswerArg>,

    /// Write all events to stdout, one JSON object per line
    #[arg(long, help_heading = "Output")]
    json: bool,

    #[command(flatten)]
    start: StartArgs,
}

/// A call or one-way whose data has been read.
struct LoadedCall<'a> {
    arg: &'a CallArg,
    data: Vec<u8>,
}

/// Runs `pipeplug run`.
///
/// # Blocking
/// Until the plugin has ended.
pub(crate) fn run(args: &RunArgs, globals: &Globals) -> ExitReason {
    let mode = if args.json { Mode::Json } else { Mode::Text };
    let shutdown = Shutdown::default();
    args.start.bound_output(&shutdown);
    let report =
        Arc::new(Report::new(mode, &args.start.wanted().display_name(), globals, &shutdown));
    attempt(args, &report, &shutdown).unwrap_or_else(|failure| {
        report.show(&Event::Failed(&failure));
        failure.reason
    })
}

fn attempt(
    args: &RunArgs,
    report: &Arc<Report>,
    shutdown: &Shutdown,
) -> Result<ExitReason, CommandError> {
    let level = args.start.level(Level::None);
    args.start.sandbox.check(level)?;
    let target = Target::find(args.start.wanted())?;
    let mut loader = Loader::default();
    let mut calls = Vec::new();
    for arg in &args.calls.0 {
        calls.push(LoadedCall { arg, data: loader.load(&arg.data)? });
    }
    check_commands(&args.calls.0, args.start.protocol(&target).format)?;
    let answers = AnswerHandler::load(&args.answers, &mut loader, report)?;
    // After stdin has been read: until then Ctrl-C simply ends this process.
    handle_signals(shutdown, report)?;
    let session = Session::start(&target, &args.start, level, report, shutdown, answers)?;
    report.show(&Event::Started(&session.started()));
    let result = if calls.is_empty() {
        run_until_end(&session.plugin, report)
    } else {
        run_calls(calls, &session.plugin, args.start.timeout, report, shutdown)
    };
    let name = session.plugin.name().to_owned();
    let stopped = session.end();
    let limit = match &stopped {
        Ok(Stopped { status, .. }) => args.start.sandbox.limit_of_end(*status),
        Err(_) => None,
    };
    let reason = final_reason(&name, result, stopped, report, shutdown);
    if let (Ok(ExitReason::Died), Some(limit)) = (&reason, limit) {
        report.note(limit);
    }
    reason
}

/// Checks, before the start, that the format can encode every command.
fn check_commands(calls: &[CallArg], format: Format) -> Result<(), CommandError> {
    for arg in calls {
        let (thread_id, direction) = (ThreadId::new(1), Direction::Request);
        let header = Header { thread_id, direction, command: &arg.command, buffer_len: 0 };
        header.check(format).map_err(|error| {
            let command = Escaped(&arg.command);
            CommandError::message(ExitReason::Usage, format!("{command}: {error}"))
                .of_command(&arg.command)
        })?;
    }
    Ok(())
}

/// Makes Ctrl-C stop the plugin, with a hint in a terminal.
pub(crate) fn handle_signals(
    shutdown: &Shutdown,
    report: &Arc<Report>,
) -> Result<(), CommandError> {
    let report = Arc::clone(report);
    let told = move |step| match step {
        Signalled::Stop if io::stderr().is_terminal() => {
            report.hint("stopping the plugin; Ctrl-C again kills it");
        }
        Signalled::Stop => {}
        Signalled::Kill => report.hint("a second signal came: killing the plugin"),
    };
    shutdown.on_signals(told).map_err(|error| CommandError::new(ExitReason::Failed, error))
}

/// Makes every call in order.
///
/// # Errors
/// If a call ends the run. A call that the plugin answers with an error does not: the result is
/// [`ExitReason::Failed`] then.
fn run_calls(
    calls: Vec<LoadedCall<'_>>,
    plugin: &Plugin,
    timeout: Option<Duration>,
    report: &Report,
    shutdown: &Shutdown,
) -> Result<ExitReason, CommandError> {
    let mut reason = ExitReason::Success;
    for LoadedCall { arg, data } in calls {
        if let Some(failure) = shutdown.failure() {
            return Err(failure);
        }
        let begun = Instant::now();
        let done = match arg.kind {
            CallKind::Call => call(plugin, &arg.command, data, timeout, shutdown),
            CallKind::Notify => notify(plugin, &arg.command, data, timeout).map(|()| None),
        };
        // A call that fails during a shutdown fails because of the shutdown.
        let done = done.map_err(|failure| shutdown.cancelled(&arg.command).unwrap_or(failure));
        match done {
            Ok(Some(reply)) => {
                let (command, took) = (arg.command.as_str(), begun.elapsed());
                report.show(&Event::Reply { command, data: &reply, took });
            }
            Ok(None) => {}
            // `final_reason` reports the shutdown itself, without the call.
            Err(failure) if shutdown.is_interrupted() => {
                report.show(&Event::Failed(&failure));
                return Err(failure);
            }
            Err(failure) if failure.reason == ExitReason::Failed => {
                report.show(&Event::Failed(&failure));
                reason = ExitReason::Failed;
            }
            Err(failure) => return Err(failure),
        }
    }
    Ok(reason)
}

fn call(
    plugin: &Plugin,
    command: &str,
    data: Vec<u8>,
    timeout: Option<Duration>,
    shutdown: &Shutdown,
) -> Result<Option<Vec<u8>>, CommandError> {
    let begun = Instant::now();
    let begin = match timeout {
        None => plugin.request(command, data).begin(),
        Some(timeout) => plugin.request(command, data).timeout(timeout).begin(),
    };
    let reply = match begin {
        Ok(pending) => match shutdown.wait_for(pending) {
            Some(reply) => reply,
            // Dropping the future cancelled the call; `run_calls` reports the reason.
            None => return Err(CommandError::silent(ExitReason::Interrupted)),
        },
        Err(error) => Err(error),
    };
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

fn notify(
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

/// Waits until the plugin ends by itself or is stopped.
fn run_until_end(plugin: &Plugin, report: &Report) -> Result<ExitReason, CommandError> {
    if io::stderr().is_terminal() {
        report.note(format_args!(
            "{} runs until it ends or Ctrl-C is pressed (--call CMD calls it)",
            plugin.name()
        ));
    }
    let reason = plugin.connection().wait_closed(Duration::MAX);
    let failed = |error: io::Error| CommandError::new(ExitReason::Died, error);
    if plugin.wait(EXIT_TIMEOUT).map_err(failed)?.is_some() {
        return Ok(ExitReason::Success);
    }
    match reason.as_deref() {
        Some(CloseReason::EndOfFile) | None => {
            report.note(format_args!("{} has closed its pipe and still runs", plugin.name()));
            plugin.wait(Duration::MAX).map_err(failed)?;
            Ok(ExitReason::Success)
        }
        Some(reason) => {
            let failure = CommandError::message(ExitReason::Died, reason);
            Err(CommandError { stderr: plugin.stderr_tail(), ..failure })
        }
    }
}

/// Combines the result of the calls with the end of the plugin.
fn final_reason(
    name: &str,
    result: Result<ExitReason, CommandError>,
    stopped: Result<Stopped, StopError>,
    report: &Report,
    shutdown: &Shutdown,
) -> Result<ExitReason, CommandError> {
    let result = match (shutdown.failure(), result, &stopped) {
        // A run that fails during a shutdown fails because of the shutdown.
        (Some(failure), _, _) => Err(failure),
        (None, Ok(_), Ok(stopped)) if ended_badly(stopped) => {
            let Stopped { status, by, .. } = stopped;
            let when = if *by == StoppedBy::Stop {
                "did not stop as it should"
            } else {
                "has ended by itself"
            };
            Err(CommandError::message(ExitReason::Died, format!("{name} {when}: {status}")))
        }
        (None, result, _) => result,
    };
    let reason = result.unwrap_or_else(|failure| {
        report.show(&Event::Failed(&failure));
        failure.reason
    });
    match stopped {
        Ok(stopped) => report.show(&Event::Ended(stopped)),
        Err(error) => return Err(CommandError::new(ExitReason::Died, error)),
    }
    Ok(reason)
}

/// True if the plugin crashed or failed by itself, and not because it was killed.
fn ended_badly(stopped: &Stopped) -> bool {
    match stopped.by {
        StoppedBy::Itself | StoppedBy::Stop => {
            !stopped.status.success() && stopped.status != WaitStatus::Unknown
        }
        // A crash closes the pipe as well. A plugin that loses its host may exit with any status.
        StoppedBy::EndOfFile => matches!(stopped.status, WaitStatus::Signaled { .. }),
        _ => false,
    }
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
