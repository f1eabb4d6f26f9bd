//! `pipeplug dev`: builds a plugin and runs it, and again after each change.

mod build;
mod calls;
mod project;
mod stage;

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io::{self, IsTerminal as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;
use clap::builder::{OsStringValueParser, Resettable, TypedValueParser as _};
use pipeplug_host::PluginBuilder;

use self::build::Built;
use self::calls::Caller;
use self::project::Project;
use self::stage::Stage;
use crate::args::calls::CallArgs;
use crate::args::data::{Data, Loader};
use crate::args::sandbox::Level;
use crate::args::start::{StartArgs, WireProtocol};
use crate::args::target::{Target, Wanted};
use crate::cli::Globals;
use crate::commands::run;
use crate::exit::{self, CommandError, ExitReason};
use crate::output::event::Event;
use crate::output::report::{Mode, Report};
use crate::output::text;
use crate::session;
use crate::session::answers::{self, AnswerArg, AnswerHandler};
use crate::session::recording::SessionRecording;
use crate::session::shutdown::Shutdown;
use crate::watch::Tree;

/// Time for calls to show their replies after the plugin has stopped.
const CALLS_TIMEOUT: Duration = Duration::from_secs(1);
/// Longest list of files that have changed.
const LISTED: usize = 3;

const SHORT: &str = "\
Examples:
  pipeplug dev .
  pipeplug dev hello --call hello world
  pipeplug dev . -- make plugin

Each line of stdin is a call: CMD, or CMD DATA.";

const EXAMPLES: &str = "\
The build, unless it is written after `--` or in pipeplug.toml:
  Cargo.toml    cargo build
  package.json  npm run build, if there is such a script
  go.mod        go build
  Makefile      make
  *.py, *.sh    nothing to build
The plugin is the executable that is built, or the script with the name of DIR.
In pipeplug.toml of DIR:
  [dev]
  build = \"make plugin\"       # a line for sh, or a list of words
  run = \"./plugin --fast\"

Changes of hidden files, of those that a .gitignore names, and of what is in
target and node_modules do not count.

Examples:
  pipeplug dev .
  pipeplug dev hello --call hello world
  pipeplug dev . --config dev.json --answer ask=yes -- cargo build --features x
  pipeplug dev ./plugin.py
  echo 'hello world' | pipeplug dev .   # each line of stdin is a call

At the end of stdin, a pipe or a file, dev waits for its calls and ends, with the
exit status 1 if one of them failed. At a terminal, or with /dev/null, it goes on.";

/// Build a plugin and run it, and again after each change
///
/// Builds the project in DIR and starts its plugin. After each change of a file it is built again, and the
/// new version replaces the one before without losing calls: new calls go to the new version, and the one
/// before is stopped when its calls are done. If the build fails, or the new version does not start, the
/// one before goes on. What the build and the plugin write goes to stderr. Each line of stdin is a call,
/// CMD or CMD DATA, whose reply goes to stdout. Ctrl-C ends it, and so does the end of stdin if that is
/// a pipe or a file.
#[derive(Debug, Args)]
#[command(
    override_usage = "pipeplug dev [DIR] [--call CMD [DATA]]... [OPTIONS] [-- BUILD...]",
    after_help = SHORT,
    after_long_help = format!("{EXAMPLES}\n\n{}", exit::HELP)
)]
pub(crate) struct DevArgs {
    #[command(flatten)]
    calls: CallArgs,

    /// Answer requests CMD of the plugin with DATA
    ///
    /// Repeatable. Other requests are refused.
    #[arg(
        long = "answer",
        value_name = "CMD=DATA",
        help_heading = "Calls",
        value_parser = OsStringValueParser::new().try_map(answers::parse)
    )]
    answers: Vec<AnswerArg>,

    #[command(flatten)]
    start: StartArgs,
}

/// Gives the arguments of a start that mean something else here their names.
pub(crate) fn own_arguments(command: clap::Command) -> clap::Command {
    let is_elsewhere = |arg: &clap::Arg| {
        let heading = arg.get_help_heading().unwrap_or_default();
        ["Launcher", "Container", "Pod"].iter().any(|topic| heading.starts_with(topic))
            || arg.get_id() == "host"
    };
    command
        .mut_args(|arg| if is_elsewhere(&arg) { arg.hide(true) } else { arg })
        .mut_arg("plugin", |arg| {
            arg.required_unless_present(Resettable::Reset)
                .value_name("DIR")
                .help("Directory of the project, or a plugin that needs no build [default: .]")
                .long_help(Resettable::Reset)
                .index(1)
        })
        .mut_arg("args", |arg| {
            arg.value_name("BUILD").help("Command that builds it, in DIR").index(2)
        })
        .mut_arg("call", |arg| {
            arg.help("Call CMD with DATA each time that a version runs")
                .long_help(Resettable::Reset)
        })
}

/// Runs `pipeplug dev`.
///
/// # Blocking
/// Until Ctrl-C is pressed, or stdin ends.
pub(crate) fn run(args: &DevArgs, globals: &Globals) -> ExitReason {
    let shutdown = Shutdown::default();
    args.start.bound_output(&shutdown);
    let dir = args.start.plugin.clone().unwrap_or_else(|| ".".into());
    let project = Project::of(Path::new(&dir), &args.start.args);
    let name = project.as_ref().map_or("dev", |project| &project.name);
    let report = Arc::new(Report::new(Mode::Text, name, globals, &shutdown));
    project.and_then(|project| attempt(args, &project, &report, &shutdown)).unwrap_or_else(
        |failure| {
            report.show(&Event::Failed(&failure));
            failure.reason
        },
    )
}

fn attempt(
    args: &DevArgs,
    project: &Project,
    report: &Arc<Report>,
    shutdown: &Shutdown,
) -> Result<ExitReason, CommandError> {
    let mut start = args.start.clone();
    if start.has_launcher() {
        let message = "dev runs what it has built on this machine: --docker and the other launchers are \
                       options of `pipeplug run`";
        return Err(CommandError::message(ExitReason::Usage, message));
    }
    let level = start.level(Level::None);
    start.sandbox.check(level)?;
    if let Some(call) = args.calls.0.iter().find(|call| call.data == Data::Stdin) {
        let message =
            format!("--call {} @-: each line of stdin is a call; write @FILE", call.command);
        return Err(CommandError::message(ExitReason::Usage, message));
    }
    let answers = AnswerHandler::load(&args.answers, &mut Loader::default(), report)?;
    run::handle_signals(shutdown, report)?;
    let recording = SessionRecording::begin(&start.record, report);
    let stage = Stage::new(report);
    let caller = Caller::new(&stage, start.timeout, report, shutdown);
    start.args.clear();
    let mut dev = Dev { project, start, level, answers, report, shutdown, recording, stage };
    let calls = Arc::new(args.calls.0.clone());
    let mut tree = Tree::new(&project.dir);
    let (mut changed, mut versions) = (BTreeSet::new(), 0_u64);
    let (mut is_first, has_build) = (true, !project.build.is_empty());
    while !shutdown.is_begun() {
        let built = dev.build();
        // At once, so that a file which is saved from here on is not taken for one that the build writes.
        if has_build {
            changed.extend(tree.look_after_build(is_first));
            is_first &= built.is_err();
        }
        match built.and_then(|built| built.map_or(Ok(false), |built| dev.put(built))) {
            Ok(true) => {
                versions += 1;
                if versions == 1 {
                    caller.read_lines();
                    dev.tell_how_to_call();
                }
                caller.repeat(&calls);
            }
            Ok(false) => {}
            Err(failure) => {
                report.show(&Event::Failed(&failure));
                dev.tell_what_runs(versions);
            }
        }
        let is_over = || shutdown.is_begun() || caller.is_over();
        match tree.wait(std::mem::take(&mut changed), is_over) {
            Some(files) => report.note(format_args!("changed: {}", listed(&files, &project.dir))),
            None => break,
        }
    }
    let stopped = dev.stage.stop();
    caller.wait(CALLS_TIMEOUT);
    dev.recording.end();
    shutdown.failure().map_or(Ok(()), Err).and(stopped)?;
    Ok(if caller.has_failed() { ExitReason::Failed } else { ExitReason::Success })
}

/// A version that was built.
struct Version {
    /// Executables that cargo tells.
    executables: Vec<PathBuf>,
    /// Time that the build took, if there was one.
    took: Option<Duration>,
}

/// A plugin that is developed.
struct Dev<'a> {
    project: &'a Project,
    start: StartArgs,
    level: Level,
    answers: AnswerHandler,
    report: &'a Arc<Report>,
    shutdown: &'a Shutdown,
    recording: SessionRecording,
    stage: Stage,
}

impl Dev<'_> {
    /// Builds a version. `None` if a shutdown has begun.
    ///
    /// # Errors
    /// The build fails.
    fn build(&self) -> Result<Option<Version>, CommandError> {
        let begun = Instant::now();
        let has_build = !self.project.build.is_empty();
        if has_build {
            self.report.note(format_args!("building: {}", build::shown(self.project)));
        }
        match build::build(self.project, || self.shutdown.is_begun())? {
            Built::Done(executables) => {
                let took = has_build.then(|| begun.elapsed());
                Ok(Some(Version { executables, took }))
            }
            Built::Ended => Ok(None),
            Built::Failed(status) => {
                let message = format!("the build failed: {status}");
                Err(CommandError::message(ExitReason::Failed, message))
            }
        }
    }

    /// Has a version replace the one before. False if a shutdown has begun.
    ///
    /// # Errors
    /// The version does not start.
    fn put(&mut self, version: Version) -> Result<bool, CommandError> {
        let (program, own_args) = self.project.program(&version.executables)?;
        let (plugin, protocol) = self.builder(program, own_args)?;
        let begun = Instant::now();
        let Some(outcome) = self.stage.put(plugin, self.shutdown) else { return Ok(false) };
        outcome.map_err(|error| {
            let hint = |error: &_| self.start.hint(error, &protocol);
            stage::not_started(&error, hint)
        })?;
        let (name, started) = (&self.project.name, text::took(begun.elapsed()));
        if let Some(took) = version.took {
            let built = text::took(took);
            self.report.note(format_args!("{name} runs (built in {built}, started in {started})"));
        } else {
            self.report.note(format_args!("{name} runs (started in {started})"));
        }
        Ok(true)
    }

    fn builder(
        &mut self,
        program: PathBuf,
        own_args: Vec<OsString>,
    ) -> Result<(PluginBuilder, WireProtocol), CommandError> {
        self.start.args = own_args;
        let target = Target::find(Wanted::Here(program.as_os_str(), self.start.host()))?;
        let answers = self.answers.clone();
        let (plugin, protocol) =
            session::builder(&target, &self.start, self.level, self.report, answers)?;
        Ok((self.recording.apply(plugin).name(&self.project.name), protocol))
    }

    fn tell_how_to_call(&self) {
        if io::stdin().is_terminal() && io::stderr().is_terminal() {
            self.report.note("type CMD DATA to call it; Ctrl-C ends");
        }
    }

    fn tell_what_runs(&self, versions: u64) {
        if versions > 0 {
            self.report.note("the version before goes on; waiting for a change");
        } else {
            self.report.note("waiting for a change; Ctrl-C ends");
        }
    }
}

/// Names of files that have changed.
fn listed(files: &BTreeSet<PathBuf>, dir: &Path) -> String {
    let names = files.iter().map(|file| file.strip_prefix(dir).unwrap_or(file));
    let names: Vec<_> = names
        .take(LISTED)
        .map(|file| crate::output::text::Escaped(&file.to_string_lossy()).to_string())
        .collect();
    match files.len().checked_sub(LISTED) {
        Some(more @ 1..) => format!("{} and {more} more", names.join(", ")),
        _ => names.join(", "),
    }
}
