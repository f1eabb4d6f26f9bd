//! `pipeplug bench`: measures throughput and latency of a plugin.

mod args;
mod figures;
mod load;
mod measure;
mod page;
mod table;
mod versus;

pub(crate) use self::args::BenchArgs;

use std::cell::Cell;
use std::io::{self, IsTerminal as _};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use self::load::{Load, Pace};
use self::measure::{Bench, Measured};
use crate::args::calls::{self, CallArg};
use crate::args::data::Loader;
use crate::args::sandbox::Level;
use crate::args::target::{Target, Wanted};
use crate::cli::Globals;
use crate::commands::run;
use crate::exit::{CommandError, ExitReason};
use crate::output::event::Event;
use crate::output::report::{self, Mode, Report};
use crate::output::style::Paint;
use crate::output::text;
use crate::session::answers::AnswerHandler;
use crate::session::shutdown::Shutdown;

/// Calls in flight at a constant rate, unless `--concurrency` says otherwise.
const MOST_AT_RATE: usize = 1000;
/// Largest size of `--size`.
const LARGEST: u64 = 1 << 30;

/// Runs `pipeplug bench`.
///
/// # Blocking
/// For the duration of the measurement.
pub(crate) fn run(args: &BenchArgs, globals: &Globals) -> ExitReason {
    let shutdown = Shutdown::default();
    args.start.bound_output(&shutdown);
    let report =
        Arc::new(Report::new(Mode::Text, &args.start.wanted().display_name(), globals, &shutdown));
    attempt(args, globals, &report, &shutdown).unwrap_or_else(|failure| {
        report.show(&Event::Failed(&failure));
        failure.reason
    })
}

fn attempt(
    args: &BenchArgs,
    globals: &Globals,
    report: &Arc<Report>,
    shutdown: &Shutdown,
) -> Result<ExitReason, CommandError> {
    let level = args.start.level(Level::None);
    args.start.check(level)?;
    let mut targets = vec![Target::find(args.start.wanted())?];
    if let Some(plugin) = &args.vs {
        targets.push(Target::find(Wanted::Here(plugin, args.start.host()))?);
    }
    let mut loader = Loader::default();
    let (call, load) = load(args, &mut loader, &targets)?;
    if let Some(file) = &args.html {
        page::check(file)?;
    }
    let answers = AnswerHandler::load(&args.answers, &mut loader, report)?;
    run::handle_signals(shutdown, report)?;
    if io::stderr().is_terminal() {
        let time = text::took(args.duration);
        let both = if args.vs.is_some() { " of each plugin" } else { "" };
        report.note(format_args!("measuring {time}{both}; Ctrl-C ends it"));
    }
    let bench = Bench {
        args,
        globals,
        call: &call,
        load: &load,
        level,
        answers,
        shutdown,
        size: Cell::new(load.data.len()),
    };
    let measured = bench.measure(&targets)?;
    show(args, &load, &measured, globals, shutdown)?;
    if let Some(failure) = shutdown.failure().or(measured.died) {
        return Err(failure);
    }
    let has_failed = measured.plugins.iter().any(|(_, figures)| figures.failed() > 0);
    Ok(if has_failed { ExitReason::Failed } else { ExitReason::Success })
}

/// Checks the call and reads its data.
fn load(
    args: &BenchArgs,
    loader: &mut Loader,
    targets: &[Target],
) -> Result<(CallArg, Load), CommandError> {
    let call = calls::parse_call(&args.call)
        .map_err(|message| CommandError::message(ExitReason::Usage, message))?;
    for target in targets {
        let format = args.start.protocol(target).format;
        run::check_commands(std::slice::from_ref(&call), &args.answers, format)?;
    }
    let data = match args.size {
        None => loader.load(&call.data)?,
        Some(_) if args.call.len() > 1 => {
            let message = "--size takes the place of DATA: leave one of them out";
            return Err(CommandError::message(ExitReason::Usage, message));
        }
        Some(size) if size > LARGEST => {
            let message = format!(
                "--size of {size} bytes is too large; write at most 1G, which is {LARGEST}"
            );
            return Err(CommandError::message(ExitReason::Usage, message));
        }
        Some(size) => (b'a'..=b'z').cycle().take(usize::try_from(size).unwrap_or(0)).collect(),
    };
    let pace = match args.rate {
        None => Pace::Closed { concurrency: args.concurrency.unwrap_or(1) },
        Some(per_second) => {
            Pace::Rate { per_second, most: args.concurrency.unwrap_or(MOST_AT_RATE) }
        }
    };
    let (command, timeout) = (call.command.clone(), args.start.timeout);
    Ok((call, Load { command, data, timeout, pace }))
}

fn show(
    args: &BenchArgs,
    load: &Load,
    measured: &Measured,
    globals: &Globals,
    shutdown: &Shutdown,
) -> Result<(), CommandError> {
    let title = title(args, load, measured);
    if let Some(file) = &args.html {
        page::write(file, &title, &measured.plugins, measured.versus.as_ref())?;
    }
    if args.json {
        let line = text::json_line(&to_json(load, measured, shutdown));
        return report::print_interruptible(&line, shutdown);
    }
    let paint = Paint::choose(globals.color, &io::stdout());
    let table = match (&measured.versus, measured.plugins.as_slice()) {
        (Some(versus), [(first, _), (second, _)]) => {
            table::two(&title, [first, second], versus, paint)
        }
        (_, plugins) => {
            plugins.iter().map(|(_, figures)| table::one(&title, figures, paint)).collect()
        }
    };
    report::print_interruptible(&table, shutdown)
}

/// Describes the measurement in one line.
fn title(args: &BenchArgs, load: &Load, measured: &Measured) -> String {
    let pace = match load.pace {
        Pace::Closed { concurrency: 1 } => "one call at a time".to_owned(),
        Pace::Closed { concurrency } => format!("{concurrency} calls in flight"),
        Pace::Rate { per_second, .. } => format!("{per_second} calls/s"),
    };
    let names: Vec<_> = measured.plugins.iter().map(|(name, _)| name.as_str()).collect();
    let time = measured.plugins.iter().map(|(_, figures)| figures.time).max().unwrap_or_default();
    // Rounds share it without the fractions of a nanosecond.
    let is_whole = time.abs_diff(args.duration) < Duration::from_millis(1);
    let time = if is_whole { args.duration } else { time };
    format!(
        "{}: {} with {} B, {pace}, {}",
        names.join(" and "),
        load.command,
        measured.size,
        text::took(time)
    )
}

fn to_json(load: &Load, measured: &Measured, shutdown: &Shutdown) -> Value {
    let (concurrency, rate) = match load.pace {
        Pace::Closed { concurrency } => (concurrency, None),
        Pace::Rate { per_second, most } => (most, Some(per_second)),
    };
    let plugins = measured.plugins.iter().map(|(name, figures)| {
        let mut json = figures.to_json();
        json["plugin"] = name.as_str().into();
        json
    });
    let mut json = json!({
        "command": load.command,
        "size": measured.size,
        "concurrency": concurrency,
        "rate": rate,
        "interrupted": shutdown.is_interrupted(),
        "plugins": plugins.collect::<Vec<_>>(),
    });
    if let (Some(versus), Some(json)) = (&measured.versus, json.as_object_mut())
        && let Value::Object(fields) = versus.to_json()
    {
        json.extend(fields);
    }
    json
}
