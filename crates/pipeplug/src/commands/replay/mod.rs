//! `pipeplug replay`: plays one side of a recording against the other.

pub(crate) mod as_guest;
mod compare;
mod export;
mod player;
mod script;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{Args, ValueEnum};

use crate::args::sandbox::Level;
use crate::args::start::StartArgs;
use crate::args::target::Target;
use crate::cli::Globals;
use crate::commands::run::handle_signals;
use crate::commands::trace::Trace;
use crate::exit::{self, CommandError, ExitReason};
use crate::output::event::Event;
use crate::output::report::{self, Mode, Report};
use crate::output::text::Escaped;
use crate::session::Session;
use crate::session::shutdown::Shutdown;
use compare::Pointer;
use player::Player;
use script::Script;

const EXAMPLES: &str = "\
The calls and one-ways of the recorded host are sent to PLUGIN, in their order:
each when everything that had come before it in the recording has come again.
Calls that were open at the same time are so again. What the plugin asks is
answered as it was, in any order. Each difference is written to stdout, and the
exit status is 1 if there is one.

Calls with streams, redacted calls, and calls whose data was not recorded as a
whole are left out and counted.

Examples:
  pipeplug run ./plugin --record a.rec --call open @page.html --call count
  pipeplug replay a.rec --as host ./plugin
  pipeplug replay a.rec --as host ./plugin --ignore /time --ignore /stats/pid
  pipeplug replay a.rec --as guest -- ./host --plugin {}
  pipeplug replay a.rec --export-test tests/recorded.rs";

/// Play one side of a recording against the other, and report differences
///
/// A regression test for a plugin in any language: record what its host asks and what it answers,
/// change the plugin, and replay.
#[derive(Debug, Args)]
#[command(
    override_usage = "pipeplug replay FILE --as host PLUGIN [OPTIONS] [-- ARGS]\n       pipeplug replay FILE --as guest [OPTIONS] -- HOST {}\n       pipeplug replay FILE --export-test FILE.rs",
    mut_arg("plugin", |plugin| plugin.index(2).required_unless_present_any(["export_test", "args"])),
    // `mut_arg` moves an argument to the end, so that its place has to be named.
    mut_arg("args", |args| args.index(3)),
    after_help = EXAMPLES,
    after_long_help = format!("{EXAMPLES}\n\n{}", exit::HELP)
)]
pub(crate) struct ReplayArgs {
    /// The recording, made with data (--record of `run` does)
    #[arg(value_name = "FILE", index = 1)]
    file: PathBuf,

    /// Side to play: host starts PLUGIN and calls it as the recorded host did; guest starts the command
    /// behind --, with the path of a plugin for {}, which answers as the recorded one did
    #[arg(long = "as", value_name = "SIDE", required_unless_present = "export_test")]
    side: Option<Side>,

    /// Number of the connection to replay [default: the first one with calls]
    #[arg(long, value_name = "NUMBER", help_heading = "Comparing")]
    connection: Option<u32>,

    /// Leave out the part of JSON data that a pointer (RFC 6901) names, as /time; repeatable
    #[arg(long, value_name = "POINTER", value_parser = compare::parse_pointer, help_heading = "Comparing")]
    ignore: Vec<Pointer>,

    /// Write a test in Rust for pipeplug-testkit, which replays the recording, and start nothing
    #[arg(long, value_name = "FILE.rs", conflicts_with = "side", help_heading = "Comparing")]
    export_test: Option<PathBuf>,

    #[command(flatten)]
    start: StartArgs,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Side {
    Host,
    Guest,
}

/// Runs `pipeplug replay`.
///
/// # Blocking
/// Until the plugin has ended.
pub(crate) fn run(args: &ReplayArgs, globals: &Globals) -> ExitReason {
    if let Some(path) = &args.export_test {
        return report::exit_reason(globals.color, export_test(args, path));
    }
    if let Some(Side::Guest) = args.side {
        return report::exit_reason(globals.color, as_guest::run(args));
    }
    let shutdown = Shutdown::default();
    args.start.bound_output(&shutdown);
    let name = args.start.wanted().display_name();
    let report = Arc::new(Report::new(Mode::Text, &name, globals, &shutdown));
    replay(args, &report, &shutdown).unwrap_or_else(|failure| {
        report.show(&Event::Failed(&failure));
        failure.reason
    })
}

/// Reads the script of a recording.
fn load(file: &Path, connection: Option<u32>) -> Result<Script, CommandError> {
    let trace = Trace::read(file)?;
    Script::of(trace, connection).map_err(|problem| {
        let path = file.to_string_lossy();
        CommandError::message(ExitReason::Usage, format!("{}: {problem}", Escaped(&path)))
    })
}

fn export_test(args: &ReplayArgs, path: &PathBuf) -> Result<ExitReason, CommandError> {
    let script = load(&args.file, args.connection)?;
    let recording = args.file.file_name().unwrap_or_default().to_string_lossy();
    let text = export::test(&script, &recording, &args.ignore);
    std::fs::write(path, text).map_err(|error| {
        let path = path.to_string_lossy();
        let message = format!("cannot write {}: {error}", Escaped(&path));
        CommandError::message(ExitReason::Failed, message)
    })?;
    Ok(ExitReason::Success)
}

fn replay(
    args: &ReplayArgs,
    report: &Arc<Report>,
    shutdown: &Shutdown,
) -> Result<ExitReason, CommandError> {
    let script = load(&args.file, args.connection)?;
    if !args.start.has_plugin() {
        let message = "no PLUGIN: write it behind --as host, before the plugin's own ARGS";
        return Err(CommandError::message(ExitReason::Usage, message));
    }
    let level = args.start.level(Level::None);
    args.start.check(level)?;
    let target = Target::find(args.start.wanted())?;
    handle_signals(shutdown, report)?;
    let player = Player::new(script, args.ignore.clone(), args.start.timeout);
    let session = Session::start(&target, &args.start, level, report, shutdown, player.handler())?;
    player.compare_metadata(&session.plugin);
    player.play(session.plugin.connection());
    let stopped = session.end();
    if let Some(failure) = shutdown.failure() {
        return Err(failure);
    }
    let result = player.result();
    report::print_interruptible(&result.text(), shutdown)?;
    match stopped {
        Ok(stopped) => report.show(&Event::Ended(stopped)),
        Err(error) => return Err(CommandError::new(ExitReason::Died, error)),
    }
    Ok(if result.differences.is_empty() { ExitReason::Success } else { ExitReason::Failed })
}
