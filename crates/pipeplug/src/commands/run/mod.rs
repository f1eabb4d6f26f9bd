//! `pipeplug run`: starts a plugin, calls it, and stops it.

mod calls;
mod typed;

pub(crate) use calls::died;

use std::io::{self, IsTerminal as _};
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;
use clap::builder::{OsStringValueParser, TypedValueParser as _};
use pipeplug_host::{
    CloseReason, Direction, Format, Header, Plugin, StopError, Stopped, StoppedBy, ThreadId,
    WaitStatus, command,
};

use crate::args::calls::{CallArg, CallArgs, CallKind};
use crate::args::data::{Loader, PartSource, StreamData};
use crate::args::sandbox::Level;
use crate::args::start::StartArgs;
use crate::args::target::Target;
use crate::cli::Globals;
use crate::exit;
use crate::exit::{CommandError, ExitReason};
use crate::output::event;
use crate::output::event::Event;
use crate::output::report::{Mode, Report};
use crate::output::text::Escaped;
use crate::session::Session;
use crate::session::answers::{self, AnswerArg, AnswerHandler};
use crate::session::shutdown::{Shutdown, Signalled};
use typed::Checking;

/// Time for a plugin that closed its pipe to exit, so that its exit status can be reported.
const EXIT_TIMEOUT: Duration = Duration::from_millis(500);

const EXAMPLES: &str = "\
DATA is literal text, or @FILE for the content of a file, @- for stdin, or
@@TEXT for the text @TEXT. It may begin with one dash (-5). If it begins with
two, or is the same as an option (-v, -h), use @FILE or @-.

Arguments of a typed service (`pipeplug inspect` shows them) are a JSON object,
or words NAME=VALUE. They are checked before anything is sent: --unchecked
sends them as they are.

Examples:
  pipeplug run @echo --call echo hello
  pipeplug run ./plugin --call open @page.html --notify log done --call count
  date | pipeplug run ./plugin --call store @-
  pipeplug run ./plugin --answer ask=yes --timeout 2s --call start -- --fast
  pipeplug run ./plugin --json --call list | jq -r .data
  pipeplug run ./spell --call spell.suggest word=teh most=3
  pipeplug run ./spell --call spell.suggest '{\"word\":\"teh\",\"most\":3}'
  tail -f log | pipeplug run @echo --call grep error --stream";

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

    /// Make the last --call or --notify a stream
    ///
    /// Stdin follows the request in parts, as it comes: with @FILE the file instead, of any size.
    /// Parts of the reply are written to stdout as they come. DATA that is no @FILE is sent with
    /// the request. The call ends when the plugin has replied, even if stdin has not ended.
    #[arg(long, help_heading = "Calls")]
    stream: bool,

    /// Send arguments of typed services without checking them against the service's description
    #[arg(long, help_heading = "Calls")]
    unchecked: bool,

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
    /// Source of the parts that follow, for a stream.
    parts: Option<PartSource>,
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
    let last = args.calls.0.len().checked_sub(1).filter(|_| args.stream);
    if args.stream && last.is_none() {
        return Err(CommandError::message(
            ExitReason::Usage,
            "--stream needs a --call or --notify, the last of which it makes a stream",
        ));
    }
    for (index, arg) in args.calls.0.iter().enumerate() {
        calls.push(if Some(index) == last {
            let StreamData { request, parts } = loader.open(&arg.data)?;
            LoadedCall { arg, data: request, parts: Some(parts) }
        } else {
            LoadedCall { arg, data: loader.load(&arg.data)?, parts: None }
        });
    }
    check_commands(&args.calls.0, &args.answers, args.start.protocol(&target).format)?;
    let answers = AnswerHandler::load(&args.answers, &mut loader, report)?;
    // After stdin has been read: until then Ctrl-C simply ends this process.
    handle_signals(shutdown, report)?;
    let session = Session::start(&target, &args.start, level, report, shutdown, answers)?;
    report.show(&Event::Started(&session.started()));
    let result = if calls.is_empty() {
        run_until_end(&session.plugin, report)
    } else {
        let checking = if args.unchecked { Checking::Unchecked } else { Checking::Checked };
        let timeout = args.start.timeout;
        typed::prepare(&mut calls, &session.plugin, checking, timeout, report, shutdown)
            .and_then(|()| run_calls(calls, &session.plugin, timeout, report, shutdown))
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

/// Checks, before the start, that the format can encode every command, and that none is the
/// protocol's own.
pub(crate) fn check_commands(
    calls: &[CallArg],
    answers: &[AnswerArg],
    format: Format,
) -> Result<(), CommandError> {
    let commands = calls.iter().map(|arg| &arg.command);
    for command in commands.chain(answers.iter().map(|arg| &arg.command)) {
        if command::is_of_protocol(command) {
            let instead = match command.as_str() {
                command::GET_METADATA => "`pipeplug inspect` shows what the plugin answers",
                command::STOP => "`pipeplug run` stops the plugin when it has called it",
                command::LOG_LEVEL => "use --log-level",
                _ => "pipeplug sends and answers those by itself",
            };
            let message =
                format!("{}: it is a command of the protocol; {instead}", Escaped(command));
            return Err(CommandError::message(ExitReason::Usage, message).of_command(command));
        }
    }
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
    loaded: Vec<LoadedCall<'_>>,
    plugin: &Plugin,
    timeout: Option<Duration>,
    report: &Report,
    shutdown: &Shutdown,
) -> Result<ExitReason, CommandError> {
    let mut reason = ExitReason::Success;
    for LoadedCall { arg, data, parts } in loaded {
        if let Some(failure) = shutdown.failure() {
            return Err(failure);
        }
        let begun = Instant::now();
        let command = arg.command.as_str();
        let done = match (arg.kind, parts) {
            (CallKind::Call, None) => calls::call(plugin, command, data, timeout, report, shutdown),
            (CallKind::Call, Some(parts)) => {
                calls::stream(plugin, command, (data, parts), timeout, report, shutdown)
            }
            (CallKind::Notify, None) => {
                calls::notify(plugin, command, data, timeout).map(|()| None)
            }
            (CallKind::Notify, Some(parts)) => {
                calls::notify_stream(plugin, command, (data, parts), shutdown).map(|()| None)
            }
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
            Err(failure)
                if failure.reason == ExitReason::Failed && !shutdown.has_failed_output() =>
            {
                report.show(&Event::Failed(&failure));
                reason = ExitReason::Failed;
            }
            Err(failure) => return Err(failure),
        }
    }
    Ok(reason)
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
