//! `pipeplug diff`: tells what an update of typed services breaks, and for whom.

use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};

use clap::Args;
use pipeplug_host::LockFile;
use pipeplug_service::{Change, Description, Interface, compare};
use serde_json::{Value, json};

use crate::args::describe::DescribeArgs;
use crate::args::start::StartArgs;
use crate::args::target::{HOST, Target, Wanted};
use crate::cli::Globals;
use crate::exit::{CommandError, ExitReason};
use crate::output::report;
use crate::output::style::{Paint, Role};
use crate::output::text::{self, Escaped};
use crate::session::shutdown::Shutdown;
use crate::session::{describe, description_file};

const EXAMPLES: &str = "\
Examples:
  pipeplug diff ./spell-1.2 ./target/release/spell
  pipeplug inspect ./spell --schema >spell.json
  pipeplug diff spell.json ./spell-new
  pipeplug diff --locked ./plugins/spell

Plugins are started in a strict sandbox; `pipeplug diff --help` has the options of
that. For one that needs others, let `pipeplug inspect --schema` write its
description to a file.";

const STATUSES: &str = "\
Exit status:
  0    no change breaks callers that exist
  1    a change breaks callers that exist
  2    the command line is wrong, or a file has no description
  3    there is no such plugin
  4    a plugin did not start, has no typed services or does not describe them,
       or the lock file has no interface of it
  5    a plugin ended, or broke the connection
  124  a plugin took longer than --timeout
  130  interrupted by Ctrl-C (129: by SIGHUP; 143: by SIGTERM)";

/// Compare the typed services of two plugins: what an update breaks, and for whom
///
/// A change breaks callers if those built with OLD do not work with NEW, and services if callers
/// built with NEW do not work with OLD. Docs do not count.
#[derive(Debug, Args)]
#[command(
    override_usage = "pipeplug diff OLD NEW [OPTIONS]\n       pipeplug diff --locked[=FILE] PLUGIN [OPTIONS]",
    after_help = EXAMPLES,
    after_long_help = format!("{EXAMPLES}\n\n{STATUSES}")
)]
pub(crate) struct DiffArgs {
    /// Plugin, as for `run`, or a file with a description, which `inspect --schema` writes
    #[arg(value_name = "OLD")]
    old: OsString,

    /// The same, of the newer version
    #[arg(value_name = "NEW", required_unless_present = "locked", conflicts_with = "locked")]
    new: Option<OsString>,

    /// Compare what the lock file has of PLUGIN with PLUGIN; `pipeplug pin --interface` writes it
    #[arg(long, value_name = "FILE", num_args = 0..=1, require_equals = true, default_missing_value = LockFile::NAME)]
    locked: Option<PathBuf>,

    /// Write one JSON object: breaks_callers, breaks_services and compatible (numbers of changes),
    /// services (name, old and new version, changes: method, what, effect)
    #[arg(long, help_heading = "Output")]
    json: bool,

    #[command(flatten)]
    describe: DescribeArgs,
}

/// Runs `pipeplug diff`.
///
/// # Blocking
/// Until the plugins have ended.
pub(crate) fn run(args: &DiffArgs, globals: &Globals) -> ExitReason {
    report::exit_reason(globals.color, attempt(args, globals))
}

fn attempt(args: &DiffArgs, globals: &Globals) -> Result<ExitReason, CommandError> {
    let shutdown = Shutdown::default();
    shutdown.on_signals(|_| {}).map_err(|error| CommandError::new(ExitReason::Failed, error))?;
    let read = |source: &OsStr| match description_in(source, &shutdown)? {
        Some(described) => Ok(described),
        None => description_of(&args.describe.start_args(source)?, globals, &shutdown),
    };
    let (old, new) = match (&args.locked, &args.new) {
        (Some(lock_file), _) => (pinned(lock_file, &args.old)?, read(&args.old)?),
        (None, new) => (read(&args.old)?, read(new.as_deref().unwrap_or_default())?),
    };
    let services = differences(&old, &new);
    let text = if args.json {
        text::json_line(&to_json(&services))
    } else {
        let paint = Paint::choose(globals.color, &io::stdout());
        to_text(&services, paint, text::columns(io::stdout()))
    };
    report::print_interruptible(&text, &shutdown)?;
    let breaks = services.iter().any(|service| service.count(Change::breaks_callers) > 0);
    Ok(if breaks { ExitReason::Failed } else { ExitReason::Success })
}

/// Reads the description in a file. `None` if this is a plugin.
///
/// # Errors
/// The file has something else.
pub(crate) fn description_in(
    source: &OsStr,
    shutdown: &Shutdown,
) -> Result<Option<Description>, CommandError> {
    shutdown.exiting_at_once(|| description_file::read(source))?.transpose()
}

/// Asks a plugin for its description.
///
/// # Errors
/// There is no such plugin, or it has no typed services.
///
/// # Blocking
/// Until the plugin has ended.
pub(crate) fn description_of(
    start: &StartArgs,
    globals: &Globals,
    shutdown: &Shutdown,
) -> Result<Description, CommandError> {
    let described = describe::of_plugin(start, globals, shutdown);
    // Status 1 says that something breaks.
    let described = described.map_err(|failure| match failure.reason {
        ExitReason::Failed => CommandError { reason: ExitReason::NotStarted, ..failure },
        _ => failure,
    })?;
    described.ok_or_else(|| CommandError {
        reason: ExitReason::NotStarted,
        ..describe::no_services(&Escaped(&start.shown()).to_string())
    })
}

/// Description of a plugin in the lock file.
fn pinned(lock_file: &Path, plugin: &OsStr) -> Result<Description, CommandError> {
    let failed = |message: String| CommandError::message(ExitReason::NotStarted, message);
    let target = Target::find(Wanted::Here(plugin, HOST))?;
    let plugin = plugin.to_string_lossy();
    let plugin = Escaped(&plugin);
    let Some(path) = target.file() else {
        let message = format!("{plugin} is built into this program, and in no lock file");
        return Err(CommandError::message(ExitReason::Usage, message));
    };
    let lock = LockFile::open(lock_file).map_err(|error| failed(error.to_string()))?;
    let interface = lock.interface_of(path).map_err(|error| failed(error.to_string()))?;
    let interface = interface.ok_or_else(|| {
        failed(format!(
            "the lock file {lock_file:?} has no interface of {plugin}; `pipeplug pin --interface \
             {plugin}` adds it"
        ))
    })?;
    serde_json::from_value(interface.clone()).map_err(|error| {
        failed(format!("the lock file {lock_file:?} has no interface of {plugin}: {error}"))
    })
}

/// Test of a change.
type Test = fn(&Change) -> bool;

/// Differences of a service.
struct ServiceChanges {
    name: String,
    /// Versions. `None` if the service is not there.
    old: Option<u32>,
    new: Option<u32>,
    changes: Vec<Change>,
    /// A change breaks callers, and the version still says that they are served.
    needs_version: Option<u32>,
}

impl ServiceChanges {
    fn count(&self, test: impl Fn(&Change) -> bool) -> usize {
        let changes = self.changes.iter().filter(|change| test(change)).count();
        // A service that is gone has no changes of its own.
        let whole = Change::whole(self.old.is_some(), self.new.is_some());
        changes + usize::from(whole.is_some_and(|change| test(&change)))
    }
}

fn differences(old: &Description, new: &Description) -> Vec<ServiceChanges> {
    let find = |all: &Description, name: &str| -> Option<Interface> {
        all.services.iter().find(|service| service.name == name).cloned()
    };
    let mut names: Vec<_> =
        old.services.iter().chain(&new.services).map(|service| service.name.clone()).collect();
    names.sort_unstable();
    names.dedup();
    let changes = |name: String| {
        let (old, new) = (find(old, &name), find(new, &name));
        let (changes, needs_version) = match (&old, &new) {
            (Some(old), Some(new)) => {
                let changes = compare(old, new);
                let breaks = changes.iter().any(Change::breaks_callers);
                let is_served = (new.oldest..=new.version).contains(&old.version);
                let next = old.version.max(new.version.saturating_sub(1)).saturating_add(1);
                (changes, (breaks && is_served).then_some(next))
            }
            _ => (Vec::new(), None),
        };
        let version = |interface: Option<Interface>| interface.map(|interface| interface.version);
        ServiceChanges { name, old: version(old), new: version(new), changes, needs_version }
    };
    names.into_iter().map(changes).collect()
}

fn to_json(services: &[ServiceChanges]) -> Value {
    let total = |test: Test| -> usize { services.iter().map(|service| service.count(test)).sum() };
    let all: Vec<_> = services
        .iter()
        .map(|service| {
            let ServiceChanges { name, old, new, changes, .. } = service;
            let whole = Change::whole(old.is_some(), new.is_some());
            let changes: Vec<_> = whole.iter().chain(changes).collect();
            json!({ "name": name, "old": old, "new": new, "changes": changes })
        })
        .collect();
    json!({
        "breaks_callers": total(Change::breaks_callers),
        "breaks_services": total(Change::breaks_services),
        "compatible": total(Change::is_compatible),
        "services": all,
    })
}

fn to_text(services: &[ServiceChanges], paint: Paint, columns: Option<usize>) -> String {
    let mut text = String::new();
    for service in services {
        let ServiceChanges { name, old, new, changes, needs_version } = service;
        let name = paint.paint(Role::Title, Escaped(name));
        // Writing to a String does not fail.
        let _ = match (old, new) {
            (Some(version), None) => {
                writeln!(text, "service {name}, version {version}, is gone: that breaks callers")
            }
            (None, Some(version)) => writeln!(text, "service {name}, version {version}, is new"),
            (Some(old), Some(new)) if old != new => {
                writeln!(text, "service {name}, version {old} to {new}")
            }
            (_, new) => {
                writeln!(text, "service {name}, version {}", new.unwrap_or_default())
            }
        };
        let both = old.is_some() && new.is_some();
        if both && changes.is_empty() {
            text.push_str("  no differences\n");
        }
        let groups: [(&str, Role, Test); 4] = [
            ("breaks callers and services", Role::Error, |change| {
                change.breaks_callers() && change.breaks_services()
            }),
            ("breaks callers, which expect the old version", Role::Error, |change| {
                change.breaks_callers() && !change.breaks_services()
            }),
            ("breaks services: new callers need the new version", Role::Note, |change| {
                change.breaks_services() && !change.breaks_callers()
            }),
            ("compatible", Role::Title, Change::is_compatible),
        ];
        for (title, role, test) in groups {
            let mut changes = changes.iter().filter(|change| test(change)).peekable();
            if changes.peek().is_some() {
                let _ = writeln!(text, "  {}", paint.paint(role, title));
            }
            for change in changes {
                item(&mut text, &change.to_string(), columns);
            }
        }
        if let Some(next) = needs_version {
            let note = format!(
                "The version says that callers of version {} are served: it should be {next}, with \
                 `oldest` {next}.",
                old.unwrap_or_default()
            );
            for line in wrapped(&note, columns, 2) {
                let _ = writeln!(text, "  {line}");
            }
        }
        text.push('\n');
    }
    text.push_str(&summary(services));
    text
}

fn item(text: &mut String, change: &str, columns: Option<usize>) {
    for (index, line) in wrapped(change, columns, 8).into_iter().enumerate() {
        let indent = if index == 0 { 4 } else { 8 };
        // Writing to a String does not fail.
        let _ = writeln!(text, "{:indent$}{line}", "");
    }
}

fn wrapped(text: &str, columns: Option<usize>, indent: usize) -> Vec<String> {
    match columns {
        Some(columns) => text::wrap(text, columns.saturating_sub(indent).max(20)),
        None => vec![text.to_owned()],
    }
}

fn summary(services: &[ServiceChanges]) -> String {
    let total = |test: Test| -> usize { services.iter().map(|service| service.count(test)).sum() };
    let callers = total(Change::breaks_callers);
    let (of_services, compatible) = (total(Change::breaks_services), total(Change::is_compatible));
    if callers + of_services + compatible == 0 {
        return "No differences.\n".into();
    }
    let changes = match callers {
        1 => "1 change breaks callers".into(),
        n => format!("{n} changes break callers"),
    };
    let services = if of_services == 1 { "breaks services" } else { "break services" };
    let is = if compatible == 1 { "is" } else { "are" };
    format!("{changes}, {of_services} {services}, {compatible} {is} compatible.\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn description(services: Value) -> Description {
        serde_json::from_value(json!({ "services": services })).unwrap()
    }

    fn service(name: &str, version: u32, methods: &[&str]) -> Value {
        let methods: Vec<_> = methods
            .iter()
            .map(|method| json!({ "name": method, "command": format!("{name}.{method}") }))
            .collect();
        json!({ "name": name, "version": version, "oldest": version, "methods": methods })
    }

    fn text(old: Value, new: Value) -> String {
        to_text(&differences(&description(old), &description(new)), Paint::Plain, Some(60))
    }

    #[test]
    fn services_come_and_go() {
        let (a, b) = (service("a", 1, &["x"]), service("b", 2, &[]));
        let expected = "\
service a, version 1, is gone: that breaks callers

service b, version 2, is new

1 change breaks callers, 1 breaks services, 0 are compatible.
";
        assert_eq!(text(json!([a]), json!([b])), expected);
        let same = "service a, version 1\n  no differences\n\nNo differences.\n";
        assert_eq!(text(json!([a]), json!([a])), same);
        assert_eq!(text(json!([]), json!([])), "No differences.\n");
    }

    #[test]
    fn a_version_that_promises_too_much_is_noted() {
        let (old, new) = (service("a", 1, &["x"]), service("a", 1, &["y"]));
        let expected = "\
service a, version 1
  breaks callers, which expect the old version
    x: the method is gone
  breaks services: new callers need the new version
    y: the method is new
  The version says that callers of version 1 are served: it
  should be 2, with `oldest` 2.

1 change breaks callers, 1 breaks services, 0 are compatible.
";
        assert_eq!(text(json!([old]), json!([new])), expected);
        let raised = service("a", 2, &["y"]);
        assert!(!text(json!([old]), json!([raised])).contains("should be"));
    }
}
