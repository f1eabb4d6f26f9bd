//! `pipeplug run`: starts a plugin, calls it, and stops it.

mod args;
mod calls;
mod check;
mod each;
mod end;
mod many;
mod typed;
mod watch;

pub(crate) use self::args::RunArgs;
pub(crate) use self::calls::{Calling, ProgressBar, call, died, not_told};
pub(crate) use self::check::check_commands;
pub(crate) use self::typed::{Checking, argument_schema};

use std::io::{self, IsTerminal as _};
use std::sync::Arc;
use std::time::{Duration, Instant};

use pipeplug_host::{Plugin, Stopped};
use pipeplug_service::Description;

use self::each::{Lines, Source};
pub(crate) use self::end::final_reason;
use self::end::run_until_end;
use self::many::Steps;
use self::watch::{Watch, WatchedFile};
use crate::args::calls::{CallArg, CallKind};
use crate::args::data::{Loader, PartSource, StreamData};
use crate::args::sandbox::Level;
use crate::args::target::Target;
use crate::cli::Globals;
use crate::exit::{CommandError, ExitReason};
use crate::output::event::Event;
use crate::output::report::{Mode, Report};
use crate::output::text;
use crate::session::Session;
use crate::session::answers::AnswerHandler;
use crate::session::shutdown::{Shutdown, Signalled};

/// A call or one-way whose data has been read.
struct LoadedCall<'a> {
    arg: &'a CallArg,
    data: Vec<u8>,
    /// Source of the parts that follow, for a stream.
    parts: Option<PartSource>,
}

impl LoadedCall<'_> {
    /// Copy for another start of the plugin.
    fn again(&self) -> Self {
        Self { arg: self.arg, data: self.data.clone(), parts: None }
    }
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
    args.start.check(level)?;
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
    check::check_many(args, &mut loader)?;
    let answers = AnswerHandler::load(&args.answers, &mut loader, report)?;
    let file = args.watch.then(|| WatchedFile::of(&target, &args.start)).transpose()?;
    // After stdin has been read: until then Ctrl-C simply ends this process.
    handle_signals(shutdown, report)?;
    let run = Run { args, target: &target, level, report, shutdown };
    let Some(mut file) = file else {
        return run.once(calls, answers, None).map(|(reason, _)| reason);
    };
    loop {
        file.note_start();
        let again = calls.iter().map(LoadedCall::again).collect();
        let end = run.once(again, answers.clone(), Some(&file));
        let has_changed = matches!(end, Ok((_, End::Changed)));
        if shutdown.is_begun() {
            return end.map(|(reason, _)| reason);
        }
        if let Err(failure) = &end {
            report.show(&Event::Failed(failure));
        }
        let path = text::short_path(file.path());
        if !has_changed {
            report.note(format_args!("waiting for a change of {path}; Ctrl-C ends"));
            if !watch::wait(&file, shutdown) {
                return shutdown.failure().map_or(Ok(ExitReason::Success), Err);
            }
        }
        report.note(format_args!("{path} has changed: starting it again"));
    }
}

/// A run, for each start of the plugin.
#[derive(Clone, Copy)]
struct Run<'a> {
    args: &'a RunArgs,
    target: &'a Target,
    level: Level,
    report: &'a Arc<Report>,
    shutdown: &'a Shutdown,
}

/// End of one start of the plugin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// The calls were made, or the plugin has ended.
    Done,
    /// The file of the plugin has changed.
    Changed,
}

impl Run<'_> {
    /// Starts the plugin, makes the calls, and stops it.
    fn once(
        self,
        calls: Vec<LoadedCall<'_>>,
        answers: AnswerHandler,
        file: Option<&WatchedFile>,
    ) -> Result<(ExitReason, End), CommandError> {
        let Self { args, target, level, report, shutdown } = self;
        let session = Session::start(target, &args.start, level, report, shutdown, answers)?;
        report.show(&Event::Started(&session.started()));
        let watch = file.map(|file| file.watch(&session.plugin)).transpose()?;
        let result = self.run_session(calls, &session.plugin);
        let name = session.plugin.name().to_owned();
        let has_changed = watch.is_some_and(Watch::end) && !shutdown.is_begun();
        let stopped = session.end();
        if has_changed {
            return Ok((ExitReason::Success, End::Changed));
        }
        let limit = match &stopped {
            Ok(Stopped { status, .. }) => args.start.sandbox.limit_of_end(*status),
            Err(_) => None,
        };
        let reason = final_reason(&name, result, stopped, report, shutdown);
        if let (Ok(ExitReason::Died), Some(limit)) = (&reason, limit) {
            report.note(limit);
        }
        reason.map(|reason| (reason, End::Done))
    }

    fn run_session(
        self,
        mut calls: Vec<LoadedCall<'_>>,
        plugin: &Plugin,
    ) -> Result<ExitReason, CommandError> {
        let Self { args, report, shutdown, .. } = self;
        let timeout = args.start.timeout;
        let parallel = usize::try_from(args.parallel.unwrap_or(1)).unwrap_or(usize::MAX);
        if calls.is_empty() {
            return run_until_end(plugin, report);
        }
        if let Some(name) = &args.data_each {
            let source = Source::open(name)?;
            let total = report.draws_bar().then(|| source.count()).flatten();
            let steps = Steps::each(&calls, Lines::read(source)?, total);
            return steps.run(plugin, parallel, timeout, report, shutdown);
        }
        let checking = if args.unchecked { Checking::Unchecked } else { Checking::Checked };
        typed::prepare(&mut calls, plugin, checking, timeout, report, shutdown)?;
        if args.repeat.is_some() || args.parallel.is_some() {
            let steps = Steps::repeat(&calls, args.repeat.unwrap_or(1));
            return steps.run(plugin, parallel, timeout, report, shutdown);
        }
        run_calls(calls, plugin, timeout, report, shutdown)
    }
}

/// Data of a call, with the arguments of a typed service checked and made JSON.
///
/// # Errors
/// The arguments do not fit.
///
/// # Blocking
/// Until the plugin has described its services, if it has any.
pub(crate) fn prepare_data(
    arg: &CallArg,
    data: Vec<u8>,
    plugin: &Plugin,
    timeout: Option<Duration>,
    report: &Report,
    shutdown: &Shutdown,
) -> Result<Vec<u8>, CommandError> {
    let mut call = [LoadedCall { arg, data, parts: None }];
    typed::prepare(&mut call, plugin, Checking::Checked, timeout, report, shutdown)?;
    let [call] = call;
    Ok(call.data)
}

/// Data of a call as [`prepare_data`] makes it, of a plugin that has described its services.
///
/// # Errors
/// The arguments do not fit.
pub(crate) fn prepare_described(
    arg: &CallArg,
    data: Vec<u8>,
    plugin: &str,
    description: &Description,
    checking: Checking,
) -> Result<Vec<u8>, CommandError> {
    let mut call = LoadedCall { arg, data, parts: None };
    typed::prepare_described(&mut call, plugin, description, checking)?;
    Ok(call.data)
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
            (CallKind::Call, None) => {
                let (cancel, bar) = (None, ProgressBar::Drawn);
                call(Calling { plugin, timeout, report, shutdown, cancel, bar }, command, data)
            }
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
                report.show(&Event::Reply { command, data: &reply, took, line: None });
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
