//! `pipeplug bench`: measures throughput and latency of a plugin.

mod figures;
mod load;
mod page;
mod table;
mod versus;

use std::cell::Cell;
use std::ffi::OsString;
use std::io::{self, IsTerminal as _};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::builder::{OsStringValueParser, TypedValueParser as _};
use clap::{ArgAction, Args};
use pipeplug_host::Plugin;
use serde_json::{Value, json};

use self::figures::Figures;
use self::load::{Load, Pace, Round};
use self::versus::Versus;
use crate::args::calls::{self, CallArg};
use crate::args::data::Loader;
use crate::args::sandbox::Level;
use crate::args::start::StartArgs;
use crate::args::target::{Target, Wanted};
use crate::args::units::{parse_bytes, parse_duration};
use crate::cli::Globals;
use crate::commands::run;
use crate::exit;
use crate::exit::{CommandError, ExitReason};
use crate::output::event::Event;
use crate::output::report::{self, Mode, Report};
use crate::output::style::Paint;
use crate::output::text;
use crate::session::Session;
use crate::session::answers::{self, AnswerArg, AnswerHandler};
use crate::session::shutdown::Shutdown;

/// Calls in flight at a constant rate, unless `--concurrency` says otherwise.
const MOST_AT_RATE: usize = 1000;
/// Warm-up, unless `--warmup` says otherwise.
const WARM_UP: Duration = Duration::from_secs(1);
/// Largest size of `--size`.
const LARGEST: u64 = 1 << 30;

const EXAMPLES: &str = "\
Examples:
  pipeplug bench @echo --call echo hello
  pipeplug bench ./plugin --call store --size 64K --concurrency 100
  pipeplug bench ./plugin --call find '{\"word\":\"teh\"}' --rate 5000 --html page.html
  pipeplug bench ./new/plugin --vs ./old/plugin --call find teh --duration 30s
  pipeplug bench ./plugin --call find teh --json | jq .plugins[0].latency_seconds.p99";

const SHORT: &str = "\
Examples:
  pipeplug bench @echo --call echo --size 1K --concurrency 100
  pipeplug bench ./new/plugin --vs ./old/plugin --call find teh

`pipeplug bench --help` has more options: launchers (ssh, --via), containers,
Kubernetes, rights and sandbox, recording.";

const JSON: &str = "\
JSON (--json), one object on stdout: command, size (bytes of a request),
concurrency, rate (null in a closed loop), interrupted, plugins (an array:
plugin, calls, failed, seconds, calls_per_second, bytes_per_second,
latency_seconds with min, p50, p90, p99, p99.9, max and mean, and errors with
code, count and the first message); with --vs also rounds and ratio, with
median, least and greatest for each figure.";

/// Measure throughput and latency of a plugin
///
/// Starts the plugin, warms it up, and makes the same call again and again. Without --rate each
/// call that ends is followed by the next one (a closed loop), with --concurrency calls in flight.
/// With --rate calls are due at a constant rate, whether or not the plugin answers, and latency
/// counts from the time that a call was due: a plugin that stalls makes all calls slow that were
/// due meanwhile (no coordinated omission).
///
/// Latencies are those of calls that succeeded; failed calls are counted by code. `rate` counts the
/// calls that succeeded in the measured time, `data` the bytes of their requests and replies. MB are
/// 1,000,000 bytes. Ctrl-C ends the measurement and shows what was measured.
#[derive(Debug, Args)]
#[command(
    override_usage = "pipeplug bench PLUGIN --call CMD [DATA] [OPTIONS] [-- ARGS]",
    after_help = SHORT,
    after_long_help = format!("{EXAMPLES}\n\n{JSON}\n\n{}", exit::HELP)
)]
pub(crate) struct BenchArgs {
    /// Command to call, and DATA: a literal, @FILE or @-
    #[arg(
        long,
        required = true,
        num_args = 1..=2,
        action = ArgAction::Set,
        value_names = ["CMD", "DATA"],
        help_heading = "Load"
    )]
    call: Vec<OsString>,

    /// Send this many bytes instead of DATA, as 64K
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes, help_heading = "Load")]
    size: Option<u64>,

    /// Calls in flight [default: 1]
    ///
    /// With --rate the limit of them [default: 1000].
    #[arg(long, value_name = "N", value_parser = parse_concurrency, help_heading = "Load")]
    concurrency: Option<usize>,

    /// Calls a second [default: as many as are answered]
    #[arg(long, value_name = "R", value_parser = parse_rate, help_heading = "Load")]
    rate: Option<f64>,

    /// Measured time of each plugin
    #[arg(
        long,
        value_name = "TIME",
        default_value = "10s",
        value_parser = parse_duration,
        help_heading = "Load"
    )]
    duration: Duration,

    /// Time before, which is not measured [default: 1s]
    ///
    /// Of each round, with --vs. The default is at most a tenth of the measured time.
    #[arg(long, value_name = "TIME", value_parser = parse_duration, help_heading = "Load")]
    warmup: Option<Duration>,

    /// Measure PLUGIN2 too, in turn, and show the ratio
    #[arg(long, value_name = "PLUGIN2", help_heading = "Load")]
    vs: Option<OsString>,

    /// Rounds of --vs, which share the duration
    #[arg(
        long,
        value_name = "N",
        default_value_t = 5,
        value_parser = clap::value_parser!(u32).range(1..=1000),
        requires = "vs",
        help_heading = "Load"
    )]
    rounds: u32,

    /// Answer requests CMD of the plugin with DATA
    ///
    /// Repeatable. Other requests are refused.
    #[arg(
        long = "answer",
        value_name = "CMD=DATA",
        help_heading = "Load",
        value_parser = OsStringValueParser::new().try_map(answers::parse)
    )]
    answers: Vec<AnswerArg>,

    /// Write the figures to stdout as one JSON object
    #[arg(long, help_heading = "Output")]
    json: bool,

    /// Write a page with curves of latency to FILE
    ///
    /// One file with the table, latency by percentile, a histogram, and the course of the
    /// measurement. It needs no network.
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    html: Option<PathBuf>,

    #[command(flatten)]
    start: StartArgs,
}

/// Figures of a run, and the error that has ended it early.
struct Measured {
    plugins: Vec<(String, Figures)>,
    versus: Option<Versus>,
    /// Size of a request.
    size: usize,
    died: Option<CommandError>,
}

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
            let message = format!("--size {size}: more than the largest size, {LARGEST} bytes");
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

/// Measurement of one or two plugins.
struct Bench<'a> {
    args: &'a BenchArgs,
    globals: &'a Globals,
    call: &'a CallArg,
    load: &'a Load,
    level: Level,
    answers: AnswerHandler,
    shutdown: &'a Shutdown,
    /// Size of a request, which the arguments of a typed service have only once they are JSON.
    size: Cell<usize>,
}

impl Bench<'_> {
    fn measure(&self, targets: &[Target]) -> Result<Measured, CommandError> {
        let args = self.args;
        let [first, second] = targets else {
            let mut plugins = Vec::new();
            let mut died = None;
            for target in targets {
                let (figures, failure) = self.round(target, args.duration)?;
                plugins.push((target.name().to_owned(), figures));
                died = died.or(failure);
            }
            return Ok(Measured { plugins, versus: None, size: self.size.get(), died });
        };
        let time = args.duration / args.rounds;
        let mut died = None;
        let mut rounds = Vec::new();
        for round in 0..args.rounds {
            // Each plugin is the first one in every second round.
            let both = if round.is_multiple_of(2) { [first, second] } else { [second, first] };
            let mut figures = Vec::new();
            for target in both {
                match self.round(target, time) {
                    Ok((measured, failure)) => {
                        figures.push(measured);
                        died = died.or(failure);
                    }
                    // What was measured before it is shown.
                    Err(failure) if !rounds.is_empty() => died = died.or(Some(failure)),
                    Err(failure) => return Err(failure),
                }
            }
            if !round.is_multiple_of(2) {
                figures.reverse();
            }
            let is_cut = self.shutdown.is_begun() || died.is_some();
            // A round that was cut short compares nothing.
            if let (Ok(figures), true) =
                (<[Figures; 2]>::try_from(figures), !is_cut || rounds.is_empty())
            {
                rounds.push(figures);
            }
            if is_cut {
                break;
            }
        }
        let versus = Versus::new(rounds);
        let figures = versus.as_ref().map(|it| it.figures.to_vec()).unwrap_or_default();
        let names = names(args, [first.name(), second.name()]);
        Ok(Measured {
            plugins: names.into_iter().zip(figures).collect(),
            versus,
            size: self.size.get(),
            died,
        })
    }

    /// Starts a plugin, measures it, and stops it. Each round has a process of its own: one may be
    /// lucky with its processor or its memory, and the spread of the rounds should tell.
    fn round(
        &self,
        target: &Target,
        time: Duration,
    ) -> Result<(Figures, Option<CommandError>), CommandError> {
        let shutdown = self.shutdown;
        let report = Arc::new(Report::new(Mode::Text, target.name(), self.globals, shutdown));
        let answers = self.answers.reporting_to(&report);
        let session =
            Session::start(target, &self.args.start, self.level, &report, shutdown, answers)?;
        report.show(&Event::Started(&session.started()));
        let warm_up = self.args.warmup.unwrap_or_else(|| WARM_UP.min(time / 10));
        let measured = self.load_for(&session.plugin, &report).map(|load| {
            let Round { figures, died } = load.measure(&session.plugin, warm_up, time, shutdown);
            let died = died.map(|error| {
                let failure = run::died(&session.plugin, error.clone());
                failure.of_call(&error).of_command(&load.command)
            });
            (figures, died)
        });
        let ended = session.end();
        let (figures, died) = measured?;
        match ended {
            Ok(stopped) => {
                report.show(&Event::Ended(stopped));
                Ok((figures, died))
            }
            Err(error) => {
                let failure = CommandError::new(ExitReason::Died, error);
                Ok((figures, died.or(Some(failure))))
            }
        }
    }

    /// The load, with the data as this plugin takes it.
    fn load_for(&self, plugin: &Plugin, report: &Report) -> Result<Load, CommandError> {
        let load = self.load;
        let (data, timeout) = (load.data.clone(), load.timeout);
        let data = run::prepare_data(self.call, data, plugin, timeout, report, self.shutdown)?;
        self.size.set(data.len());
        Ok(Load { data, ..load.clone() })
    }
}

/// Names of two plugins: as on the command line, if their own are the same.
fn names(args: &BenchArgs, names: [&str; 2]) -> [String; 2] {
    match &args.vs {
        Some(second) if names[0] == names[1] => {
            let first = args.start.plugin().unwrap_or_default();
            let [first, second] =
                [first, second.as_os_str()].map(|name| name.to_string_lossy().into_owned());
            if first == second {
                return [format!("{first} (1)"), format!("{second} (2)")];
            }
            [first, second]
        }
        _ => names.map(str::to_owned),
    }
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

fn parse_concurrency(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(number @ 1..=1_000_000) => Ok(number),
        _ => Err("not a number of calls; write one from 1 to 1000000, as in 100".to_owned()),
    }
}

fn parse_rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if (0.001..=1e7).contains(&rate) => Ok(rate),
        _ => Err("not a rate; write calls a second from 0.001 to 10000000, as in 500".to_owned()),
    }
}
