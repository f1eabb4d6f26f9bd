//! Checks of a plugin: its file, and a start in each way.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt as _;
use std::time::{Duration, Instant};

use pipeplug_host::process::Examination;
use pipeplug_host::{Format, Grace, Metadata, Plugin, PluginBuilder, StartError, StartErrorKind};

use super::finding::Finding;
use crate::args::sandbox::Level;
use crate::args::start::{StartArgs, WireProtocol};
use crate::args::target::Target;
use crate::exit::{CommandError, ExitReason};
use crate::output::text;

/// Time limit of the start in another way than the one that was asked for.
const OTHER_TIMEOUT: Duration = Duration::from_secs(2);
/// Time limit of each step of a stop.
const GRACE: Duration = Duration::from_secs(1);

/// Checks a plugin.
///
/// # Errors
/// If there is no such plugin.
pub(super) fn check(args: &StartArgs) -> Result<Vec<Finding>, CommandError> {
    let level = args.level(Level::OF_UNKNOWN);
    args.check(level)?;
    let target = Target::find(args.wanted())?;
    let protocol = args.protocol(&target);
    let builder = |protocol: &WireProtocol| -> Result<PluginBuilder, CommandError> {
        let builder =
            target.builder().map_err(|error| CommandError::new(ExitReason::NotStarted, error))?;
        Ok(args.apply(builder, level, protocol))
    };
    let mut findings = Vec::new();
    let examination = builder(&protocol)?.examine();
    if let Some(examination) = &examination {
        of_file(examination, &mut findings);
    }
    // One that cannot be executed cannot be executed in any way.
    let is_hopeless = examination.is_some_and(|it| it.problem.is_some());
    let result = start(builder(&protocol)?.grace(Grace::each(GRACE)));
    match result {
        Ok(started) => {
            // A start that works settles what a look at the file suggests.
            findings.iter_mut().for_each(Finding::soften);
            findings.push(Finding::ok("start", started));
        }
        Err(error) if is_hopeless && matches!(error.kind(), StartErrorKind::Spawn(_)) => {
            findings.push(Finding::broken("start", "prevented by the above"));
        }
        Err(error) => {
            let hint = args.hint(&error, &protocol);
            let error = CommandError::of_start(target.named_in(error), level)
                .followed_by(hint.as_deref())
                .error;
            let message = error.map(|error| format!("{error:#}")).unwrap_or_default();
            findings.push(Finding::broken("start", message));
            for other in others(&protocol, args.has_launcher()) {
                let builder = builder(&other)?.handshake_timeout(OTHER_TIMEOUT);
                let result = start(builder.grace(Grace::each(GRACE)));
                findings.push(of_other(&other, &protocol, result));
            }
        }
    }
    Ok(findings)
}

fn of_file(examination: &Examination, findings: &mut Vec<Finding>) {
    if let (Some(mode), Some(owner)) = (examination.mode, &examination.owner) {
        let kind = examination.kind.as_deref().unwrap_or("no program");
        let detail = format!("{kind}, mode {mode:04o}, {owner}");
        findings.push(match &examination.problem {
            None => Finding::ok("file", detail),
            Some(problem) => Finding::failed("file", detail, format!("it {problem}")),
        });
    } else if let Some(problem) = &examination.problem {
        findings.push(Finding::broken("file", problem));
    }
    let interpreters = &examination.interpreters;
    if !interpreters.is_empty() && examination.problem.is_none() {
        let shown: Vec<_> = interpreters.iter().map(|path| path.to_string_lossy()).collect();
        findings.push(Finding::ok("interpreter", shown.join(", which needs ")));
    }
    if !examination.missing_libraries.is_empty() {
        let missing = examination.missing_libraries.iter();
        let shown: Vec<_> = missing
            .map(|library| format!("{} (for {})", library.name, library.needed_by.display()))
            .collect();
        findings.push(Finding::failed(
            "libraries",
            format!("not found: {}", shown.join(", ")),
            "install them; if LD_LIBRARY_PATH names their directory pass it on with --env-pass \
             LD_LIBRARY_PATH, and in a sandbox let it read that (--sandbox-read DIR)",
        ));
    } else if examination.kind.is_some() && examination.problem.is_none() {
        findings.push(Finding::ok("libraries", "all are there"));
    }
    if !examination.dropped_variables.is_empty() {
        findings.push(Finding::limited(
            "variables",
            format!("set here and not passed on: {}", examination.dropped_variables.join(", ")),
            "if it needs one pass it on with --env-pass NAME",
        ));
    }
}

/// Other ways to start it.
fn others(asked: &WireProtocol, has_launcher: bool) -> Vec<WireProtocol> {
    let mut others = Vec::new();
    for stdio in [asked.stdio, !asked.stdio] {
        // A launcher always carries stdin and stdout.
        if has_launcher && stdio != asked.stdio {
            continue;
        }
        for format in [Format::Standard, Format::Classic] {
            if (stdio, format) != (asked.stdio, asked.format) {
                others.push(WireProtocol { format, stdio, remembered: None });
            }
        }
    }
    others
}

fn of_other(
    other: &WireProtocol,
    asked: &WireProtocol,
    result: Result<String, StartError>,
) -> Finding {
    let options = options(other, asked);
    let way = match options.as_slice() {
        [] => "without options".to_owned(),
        options => options.join(" "),
    };
    match result {
        Ok(started) => Finding::limited(
            &way,
            format!("starts in this way: {started}"),
            format!("use `{}`", command(&options)),
        ),
        Err(error) => {
            let kind = text::shortened(&error.kind().to_string(), 120);
            Finding::broken(&way, format!("does not start either: {kind}"))
        }
    }
}

/// Options for another way to start.
fn options(other: &WireProtocol, asked: &WireProtocol) -> Vec<String> {
    let mut options = Vec::new();
    if other.stdio {
        options.push("--stdio".to_owned());
    }
    // What is remembered of an installed plugin has to be overruled.
    if other.format != Format::default() || asked.remembered.is_some() {
        options.extend(["--format".to_owned(), other.format.to_string()]);
    }
    options
}

/// Command that runs the plugin in another way, with the options of this one.
fn command(options: &[String]) -> String {
    let mut words = vec![OsString::from("pipeplug"), "run".into()];
    let mut options: Vec<_> = options.iter().map(OsString::from).collect();
    let mut is_own = false;
    let mut is_value = false;
    for arg in std::env::args_os().skip_while(|arg| arg != "doctor").skip(1) {
        if !is_own && arg == "--" {
            is_own = true;
            words.append(&mut options);
        }
        let is_replaced = arg == "--json"
            || arg == "--stdio"
            || arg == "--format"
            || arg.as_bytes().starts_with(b"--format=");
        if !is_own && (std::mem::take(&mut is_value) || is_replaced) {
            is_value = arg == "--format";
            continue;
        }
        words.push(arg);
    }
    words.append(&mut options);
    let words: Vec<_> = words.iter().map(|word| word.to_string_lossy()).collect();
    // Fails only for a NUL, which no argument has.
    shlex::try_join(words.iter().map(AsRef::as_ref)).unwrap_or_default()
}

/// Starts the plugin and stops it. Returns what it says of itself.
fn start(builder: PluginBuilder) -> Result<String, StartError> {
    let begun = Instant::now();
    // Its output would be mixed with the findings; an error has its last lines.
    let plugin = builder.on_line(|_, _| {}).start()?;
    let said = described(&plugin, begun.elapsed());
    // The start is what was asked about.
    let _ = plugin.stop();
    Ok(said)
}

fn described(plugin: &Plugin, took: Duration) -> String {
    let metadata: &Metadata = plugin.metadata();
    let features = metadata.value("pipeplug.features").unwrap_or("none");
    format!("answered in {}, features: {features}", text::took(took))
}
