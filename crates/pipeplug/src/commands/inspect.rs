//! `pipeplug inspect`: shows the metadata of a plugin.

use std::fmt::Write as _;
use std::io;
use std::sync::Arc;

use clap::Args;
use pipeplug_host::{Metadata, Permissions};
use pipeplug_service::Description;
use serde_json::{Value, json};

use crate::args::data::Loader;
use crate::args::sandbox::Level;
use crate::args::start::StartArgs;
use crate::args::target::Target;
use crate::cli::Globals;
use crate::commands::run::handle_signals;
use crate::exit::{self, CommandError, ExitReason};
use crate::output::event::{Event, Started};
use crate::output::report::{self, Mode, Report};
use crate::output::services;
use crate::output::style::{Paint, Role};
use crate::output::text::{self, Escaped, took};
use crate::session::Session;
use crate::session::answers::AnswerHandler;
use crate::session::describe;
use crate::session::shutdown::Shutdown;

const PROTOCOL: &str = "pipeplug.protocol";
const FEATURES: &str = "pipeplug.features";

const EXAMPLES: &str = "\
Examples:
  pipeplug inspect @echo
  pipeplug inspect ./plugin --format classic
  pipeplug inspect spell --json | jq -r .metadata.Description
  pipeplug inspect spell --schema >spell.json";

const MORE: &str = "\
`pipeplug inspect --help` has more options: launchers (ssh, --via), containers,
Kubernetes, rights and sandbox, recording.";

/// Start a plugin, show its metadata and its typed services, and stop it
///
/// The plugin runs in a strict sandbox, unless --sandbox names another level or a launcher is used.
#[derive(Debug, Args)]
#[command(
    override_usage = "pipeplug inspect PLUGIN [OPTIONS] [-- ARGS]",
    after_help = format!("{EXAMPLES}\n\n{MORE}"),
    after_long_help = format!("{EXAMPLES}\n\n{}", exit::HELP)
)]
pub(crate) struct InspectArgs {
    /// Write one JSON object: plugin, path, pid, format, seconds (the start took), metadata, and
    /// permissions and services, if it has any
    #[arg(long, help_heading = "Output")]
    json: bool,

    /// Write only the description of its typed services, in JSON with JSON Schemas; the exit status
    /// is 1 if it has none
    #[arg(long, help_heading = "Output", conflicts_with = "json")]
    schema: bool,

    #[command(flatten)]
    start: StartArgs,
}

/// Runs `pipeplug inspect`.
///
/// # Blocking
/// Until the plugin has ended.
pub(crate) fn run(args: &InspectArgs, globals: &Globals) -> ExitReason {
    let shutdown = Shutdown::default();
    args.start.bound_output(&shutdown);
    let report =
        Arc::new(Report::new(Mode::Text, &args.start.wanted().display_name(), globals, &shutdown));
    match attempt(args, globals, &report, &shutdown) {
        Ok(()) => ExitReason::Success,
        Err(failure) => {
            report.show(&Event::Failed(&failure));
            failure.reason
        }
    }
}

fn attempt(
    args: &InspectArgs,
    globals: &Globals,
    report: &Arc<Report>,
    shutdown: &Shutdown,
) -> Result<(), CommandError> {
    let level = args.start.level(Level::OF_UNKNOWN);
    args.start.check(level)?;
    let target = Target::find(args.start.wanted())?;
    handle_signals(shutdown, report)?;
    let answers = AnswerHandler::load(&[], &mut Loader::default(), report)?;
    let session = Session::start(&target, &args.start, level, report, shutdown, answers)?;
    let started = session.started();
    let (services, problem) = match describe::ask(&session.plugin, args.start.timeout, shutdown) {
        Ok(services) => (services, None),
        // The rest is shown without them.
        Err(problem) => (None, Some(problem)),
    };
    let text = match problem {
        Some(_) if args.schema => Ok(String::new()),
        _ => text_of(args, globals, &started, services.as_ref()),
    };
    let stopped = session.end();
    if let Some(failure) = shutdown.failure() {
        return Err(failure);
    }
    report::print_interruptible(&text?, shutdown)?;
    match stopped {
        Ok(stopped) => report.show(&Event::Ended(stopped)),
        Err(error) => return Err(CommandError::new(ExitReason::Died, error)),
    }
    problem.map_or(Ok(()), Err)
}

fn text_of(
    args: &InspectArgs,
    globals: &Globals,
    started: &Started<'_>,
    services: Option<&Description>,
) -> Result<String, CommandError> {
    if args.schema {
        let services = services.ok_or_else(|| describe::no_services(started.plugin.name()))?;
        return Ok(text::json_lines(&json!(services)));
    }
    if args.json {
        let mut fields = started.to_json();
        if let Ok(Some(declared)) = Permissions::declared(started.plugin.metadata()) {
            fields.insert("permissions".into(), declared.to_json());
        }
        if let Some(Description { services }) = services {
            fields.insert("services".into(), json!(services));
        }
        return Ok(text::json_line(&Value::Object(fields)));
    }
    let paint = Paint::choose(globals.color, &io::stdout());
    let columns = text::columns(io::stdout());
    let mut text = table(started, paint, columns);
    if let Some(services) = services {
        text.push_str(&services::list(services, paint, columns));
    }
    Ok(text)
}

/// Formats the table: properties of the running plugin, then its own metadata.
fn table(started: &Started<'_>, paint: Paint, columns: Option<usize>) -> String {
    let plugin = started.plugin;
    let metadata = plugin.metadata();
    let unsaid = "(not given)";
    let known = [
        ("plugin", plugin.name().to_owned()),
        ("path", plugin.path().to_string_lossy().into_owned()),
        ("pid", plugin.pid().to_string()),
        ("started in", took(started.took)),
        ("format", started.format.to_string()),
        ("protocol", metadata.value(PROTOCOL).unwrap_or(unsaid).to_owned()),
        ("features", metadata.value(FEATURES).unwrap_or(unsaid).to_owned()),
    ];
    let permissions = permissions(metadata);
    let shown_above = [PROTOCOL, FEATURES, Permissions::KEY];
    let said: Vec<_> = metadata.iter().filter(|(key, _)| !shown_above.contains(key)).collect();
    let known = known.iter().map(|(key, value)| (*key, value.as_str())).chain(
        permissions.iter().enumerate().map(|(i, line)| {
            let key = if i == 0 { "asks to" } else { "" };
            (key, line.as_str())
        }),
    );
    let known: Vec<_> = known.collect();
    let widest = known.iter().map(|(key, _)| *key).chain(said.iter().map(|(key, _)| *key));
    let widest = widest.map(|key| text::width(&Escaped(key).to_string())).max().unwrap_or(0);
    let mut table = String::new();
    for (key, value) in known {
        row(&mut table, key, value, widest, paint, columns);
    }
    if said.is_empty() {
        table.push_str("\nThe plugin has no metadata of its own.\n");
    } else {
        table.push('\n');
    }
    for (key, value) in said {
        row(&mut table, key, value, widest, paint, columns);
    }
    table
}

/// Permissions that the plugin declares, in words.
fn permissions(metadata: &Metadata) -> Vec<String> {
    match Permissions::declared(metadata) {
        Ok(declared) => declared.map(|declared| declared.in_words()).unwrap_or_default(),
        Err(error) => vec![format!("(permissions that cannot be understood: {error})")],
    }
}

fn row(
    table: &mut String,
    key: &str,
    value: &str,
    widest: usize,
    paint: Paint,
    columns: Option<usize>,
) {
    let key = Escaped(key).to_string();
    let value = Escaped(value).to_string();
    let gap = widest.saturating_sub(text::width(&key)) + 2;
    let lines = match columns {
        Some(columns) => text::wrap(&value, columns.saturating_sub(widest + 2).max(20)),
        None => vec![value],
    };
    let key = paint.paint(Role::Title, key);
    for (i, line) in lines.iter().enumerate() {
        // Writing to a String does not fail.
        let _ = match i {
            0 => writeln!(table, "{key}{:gap$}{line}", ""),
            _ => writeln!(table, "{:1$}{line}", "", widest + 2),
        };
    }
}
