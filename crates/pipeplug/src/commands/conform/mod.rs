//! `pipeplug conform`: checks a plugin or a host against docs/protocol.md.

mod catalog;
mod checks;
mod descriptors;
mod guest;
mod host;
mod outcome;
mod peer;
mod probe;
mod report;

use std::ffi::OsString;
use std::panic::{self, AssertUnwindSafe};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use pipeplug_host::{Plugin, PluginBuilder};

use self::catalog::Scope;
use self::guest::{Call, Setup, Way};
use self::outcome::Outcome;
use self::report::{Done, Hopeless, Subject};
use crate::args::sandbox::Level;
use crate::args::start::{StartArgs, WireProtocol};
use crate::args::target::Target;
use crate::args::units::parse_count;
use crate::cli::Globals;
use crate::exit::{CommandError, ExitReason};
use crate::output::report as output;

/// Time limit of each check, unless `--timeout` names another.
const LIMIT: Duration = Duration::from_secs(10);
/// Checks at the same time, unless `--jobs` names another number.
const JOBS: usize = 4;

const EXAMPLES: &str = "\
Examples:
  pipeplug conform ./plugin
  pipeplug conform ./plugin --call upper=hello --slow wait=1
  pipeplug conform ./plugin --check flow --check call/ping
  pipeplug conform ./plugin.sh --stdio --basic --junit conform.xml
  pipeplug conform --as host -- ./myhost --plugin {plugin}
  pipeplug conform --list";

const DETAILS: &str = "\
Each check starts the plugin afresh, and talks to it over its pipes. --timeout
is the time limit of one check. A check does not apply (n/a) if the plugin does
not name the feature, or has no command that the check needs.

With --as host, the command after -- is started for each check; {plugin} stands
for the path of a plugin that checks its host. The host has to start it, and
need not call it. Results are those of the plugin; the output and the exit
status of the host do not count.

JSON (--json), one object per check and line: check, result (pass, fail or
not-applicable), section (of docs/protocol.md), sends, expects, came (if it
failed), reason (if it does not apply), seconds. The last line has the sums:
passed, failed, not_applicable, seconds. If the plugin does not start or says
nothing at all, or the host does not start it, the run ends: the last line then
has error and not_run as well.

Exit status:
  0    no check failed
  1    a check failed, the plugin does not start, or the output could not be
       written
  2    the command line is wrong; also if the plugin answers --call with an
       error, or --slow at once
  3    there is no such plugin";

/// Check a plugin, or a host, against the protocol
///
/// docs/conformance.md lists the checks: what each sends, what it expects, and the section of
/// docs/protocol.md.
#[derive(Debug, Args)]
#[command(
    override_usage = "pipeplug conform PLUGIN [OPTIONS] [-- ARGS]\n       \
                      pipeplug conform --as host [OPTIONS] -- HOST_COMMAND…",
    mut_arg("plugin", |arg| arg.index(1).required_unless_present_any(["side", "list"])),
    mut_arg("args", |arg| arg.index(2)),
    after_help = EXAMPLES,
    after_long_help = format!("{EXAMPLES}\n\n{DETAILS}")
)]
pub(crate) struct ConformArgs {
    /// Side that is checked
    #[arg(long = "as", id = "side", value_name = "SIDE", help_heading = "Checks")]
    side: Option<Side>,

    /// Run this check, or the checks of this group; repeatable [default: all]
    #[arg(long, value_name = "NAME", help_heading = "Checks")]
    check: Vec<String>,

    /// List the checks, and run none
    #[arg(long, help_heading = "Checks")]
    list: bool,

    /// Leave out what a plugin need not do that handles one chunk after the other, in the standard
    /// format only: points 7 to 9 of the checklist in docs/protocol.md
    #[arg(long, help_heading = "Checks")]
    basic: bool,

    /// Command that is answered without an error; with streams, one that answers with parts [default: echo=hello]
    #[arg(long, value_name = "CMD[=DATA]", value_parser = parse_call, help_heading = "Checks")]
    call: Option<Call>,

    /// Command that takes about a second; with progress, one that reports it [default: sleep=1000]
    #[arg(long, value_name = "CMD[=DATA]", value_parser = parse_call, help_heading = "Checks")]
    slow: Option<Call>,

    /// Metadata of the host, which the plugin gets with the first request; repeatable
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse_metadata, help_heading = "Checks")]
    metadata: Vec<(String, String)>,

    /// Answer to a request of the plugin to its host, repeatable; others are answered with an error
    #[arg(long, value_name = "CMD[=DATA]", value_parser = parse_call, help_heading = "Checks")]
    answer: Vec<Call>,

    /// Checks at the same time; they wait for most of their time
    #[arg(long, value_name = "N", default_value_t = JOBS, value_parser = parse_count::<usize>, help_heading = "Checks")]
    jobs: usize,

    /// Write one JSON object per check
    #[arg(long, help_heading = "Output")]
    json: bool,

    /// Write a report in JUnit XML to this file as well
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    junit: Option<PathBuf>,

    #[command(flatten)]
    start: StartArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Side {
    Plugin,
    Host,
}

/// A check of either side, ready to run.
struct Job<'a> {
    subject: Subject,
    run: Box<dyn Fn() -> Outcome + Send + Sync + 'a>,
}

/// Runs `pipeplug conform`.
///
/// # Blocking
/// Until all checks are done.
pub(crate) fn run(args: &ConformArgs, globals: &Globals) -> ExitReason {
    output::exit_reason(globals.color, attempt(args, globals))
}

fn attempt(args: &ConformArgs, globals: &Globals) -> Result<ExitReason, CommandError> {
    let usage = |message| CommandError::message(ExitReason::Usage, message);
    let is_host = args.side == Some(Side::Host);
    let subjects: Vec<Subject> = if is_host {
        host::all().map(Subject::of_host).collect()
    } else {
        catalog::all().map(Subject::of_plugin).collect()
    };
    let names =
        catalog::select(subjects.iter().map(|subject| subject.name), &args.check).map_err(usage)?;
    let subjects: Vec<_> =
        subjects.into_iter().filter(|subject| names.contains(&subject.name)).collect();
    if args.list {
        output::print(&report::list(&subjects, args.json, globals.color))?;
        return Ok(ExitReason::Success);
    }
    let limit = args.start.timeout.unwrap_or(LIMIT);
    if is_host {
        let command = args.start.args.as_slice();
        if args.start.plugin.is_some() || command.is_empty() {
            let message = "with --as host, the command of the host follows `--`, as in pipeplug \
                           conform --as host -- ./myhost {plugin}";
            return Err(usage(message.to_owned()));
        }
        host::check_command(command).map_err(usage)?;
        let jobs = subjects
            .into_iter()
            .map(|subject| Job {
                run: Box::new(move || host::run(subject.name, command, limit)),
                subject,
            })
            .collect();
        let probe = || host::starts_nothing(command, limit);
        return finish(args, globals, "host", jobs, &probe);
    }
    if !args.start.has_plugin() && !args.start.has_launcher() {
        return Err(usage("name a PLUGIN, as in pipeplug conform ./plugin".to_owned()));
    }
    let level = args.start.level(Level::None);
    args.start.check(level)?;
    let target = Target::find(args.start.wanted())?;
    if !args.start.has_launcher() {
        target.check_exists()?;
    }
    let protocol = args.start.protocol(&target);
    let script_dir =
        tempfile::tempdir().map_err(|error| CommandError::new(ExitReason::Failed, error))?;
    let builder = |way| builder(args, &target, level, &protocol, way, script_dir.path());
    let call = |named: &Option<Call>, cmd: &str, data: &[u8]| {
        named.clone().unwrap_or_else(|| Call { cmd: cmd.to_owned(), data: data.to_vec() })
    };
    let setup = Setup {
        builder: Box::new(builder),
        format: protocol.format,
        limit,
        call: call(&args.call, "echo", b"hello"),
        slow: call(&args.slow, "sleep", b"1000"),
        answers: args.answer.clone(),
        metadata: args.metadata.clone(),
        config: args.start.config()?.map(|config| config.get().to_owned()),
        is_direct: !args.start.has_launcher(),
    };
    let setup = &setup;
    for (option, call) in [("--call", &args.call), ("--slow", &args.slow)] {
        if let Some(call) = call {
            probe::check_call(setup, option, call).map_err(usage)?;
        }
    }
    let jobs = catalog::all()
        .zip(catalog::all().map(Subject::of_plugin))
        .filter(|(_, subject)| names.contains(&subject.name))
        .map(|(check, subject)| Job {
            subject,
            run: Box::new(move || {
                if args.basic && check.scope == Scope::Full {
                    let reason = "left out by --basic".to_owned();
                    return Outcome::NotApplicable { reason };
                }
                (check.run)(setup).into()
            }),
        })
        .collect();
    let probe = || {
        let came = probe::silent_plugin(setup)?;
        let doctor = if setup.is_direct { "; `pipeplug doctor` looks for the cause" } else { "" };
        Some(format!("{came}{doctor}"))
    };
    finish(args, globals, target.name(), jobs, &probe)
}

/// Runs this program in one of its hidden modes, if a check has started it in that.
pub(crate) fn of_command_line(args: &[OsString]) -> Option<std::process::ExitCode> {
    host::of_command_line(args).or_else(|| descriptors::of_command_line(args))
}

/// Makes a builder of the plugin, which is reached in this way.
fn builder(
    args: &ConformArgs,
    target: &Target,
    level: Level,
    protocol: &WireProtocol,
    way: Way,
    script_dir: &std::path::Path,
) -> Result<PluginBuilder, String> {
    if way != Way::Usual && args.start.has_launcher() {
        return Err("a launcher starts the plugin, and chooses its descriptors".to_owned());
    }
    let builder = match way {
        Way::Numbers(input, output) => {
            let file = target.file().ok_or("the plugin is no file of its own")?;
            if level != Level::None {
                return Err("the plugin is in a sandbox".to_owned());
            }
            let file = std::path::absolute(file).map_err(|error| error.to_string())?;
            let script =
                descriptors::script(&file, [input, output]).map_err(|error| error.to_string())?;
            let path = script_dir.join(format!("descriptors-{input}-{output}"));
            host::write_script(&path, &script).map_err(|error| error.to_string())?;
            Plugin::builder(path)
        }
        Way::Usual | Way::Pipes | Way::Stdio => {
            target.builder().map_err(|error| format!("{error:#}"))?
        }
    };
    let stdio = match way {
        Way::Usual => protocol.stdio,
        Way::Stdio => true,
        Way::Pipes | Way::Numbers(..) => false,
    };
    Ok(args.start.apply(builder, level, &WireProtocol { stdio, ..protocol.clone() }))
}

/// Runs the checks, several at a time, and shows each as soon as those before it are done. After the
/// first one that fails, `probe` says why no check can pass, if that is so.
fn finish(
    args: &ConformArgs,
    globals: &Globals,
    name: &str,
    jobs: Vec<Job<'_>>,
    probe: &dyn Fn() -> Option<String>,
) -> Result<ExitReason, CommandError> {
    let count = args.jobs.min(jobs.len());
    let begun = Instant::now();
    let mut report = report::Report::new(args.json, globals.color);
    let next = AtomicUsize::new(0);
    let (done, hopeless) = thread::scope(|scope| {
        let (sender, receiver) = mpsc::channel();
        for _ in 0..count {
            let (sender, next, jobs) = (sender.clone(), &next, &jobs);
            scope.spawn(move || {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some(job) = jobs.get(index) else { return };
                    let begun = Instant::now();
                    // A fault of a check is no reason to lose the others.
                    let outcome = panic::catch_unwind(AssertUnwindSafe(&job.run));
                    let outcome = outcome.unwrap_or_else(|_| Outcome::Fail {
                        came: "a fault of the check itself, which is told on stderr".to_owned(),
                    });
                    let done = Done { subject: job.subject, outcome, took: begun.elapsed() };
                    // The receiver is gone if the output failed.
                    if sender.send((index, done)).is_err() {
                        return;
                    }
                }
            });
        }
        drop(sender);
        let mut waiting: Vec<Option<Done>> = jobs.iter().map(|_| None).collect();
        // A single check says it once.
        let (mut all, mut is_probed) = (Vec::new(), jobs.len() == 1);
        for (index, done) in receiver {
            if is_failure(&done) && !is_probed {
                is_probed = true;
                if let Some(came) = probe() {
                    next.store(usize::MAX / 2, Ordering::Relaxed);
                    return Ok((all, Some(came)));
                }
            }
            waiting[index] = Some(done);
            while let Some(done) = waiting.get_mut(all.len()).and_then(Option::take) {
                if let Err(error) = report.show(&done) {
                    next.store(usize::MAX / 2, Ordering::Relaxed);
                    return Err(error);
                }
                all.push(done);
            }
        }
        Ok((all, None))
    })?;
    let hopeless = hopeless.map(|came| {
        let left = jobs[done.len()..].iter().map(|job| job.subject).collect();
        Hopeless { came, left }
    });
    report.end(&done, hopeless.as_ref(), begun.elapsed())?;
    if let Some(path) = &args.junit {
        let xml = report::junit(name, &done, hopeless.as_ref(), begun.elapsed());
        std::fs::write(path, xml).map_err(|error| {
            let message = format!("cannot write the report {}: {error}", path.display());
            CommandError::message(ExitReason::Failed, message)
        })?;
    }
    if let Some(Hopeless { came, .. }) = hopeless {
        return Err(CommandError::message(ExitReason::Failed, came));
    }
    Ok(if done.iter().any(is_failure) { ExitReason::Failed } else { ExitReason::Success })
}

fn is_failure(done: &Done) -> bool {
    matches!(done.outcome, Outcome::Fail { .. })
}

fn parse_call(text: &str) -> Result<Call, String> {
    let (cmd, data) = text.split_once('=').unwrap_or((text, ""));
    if pipeplug_wire::command::is_of_protocol(cmd) {
        return Err("a command of the protocol; name one of the plugin's own".to_owned());
    }
    Ok(Call { cmd: cmd.to_owned(), data: data.as_bytes().to_vec() })
}

fn parse_metadata(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("write KEY=VALUE, as in --metadata pipeplug.services=log/1".to_owned()),
    }
}

/// Words of a command with this path for each `{plugin}`.
fn with_plugin(command: &[OsString], path: &str) -> Vec<OsString> {
    command
        .iter()
        .map(|word| match word.to_str() {
            Some(word) => word.replace("{plugin}", path).into(),
            None => word.clone(),
        })
        .collect()
}

#[cfg(test)]
mod tests;
