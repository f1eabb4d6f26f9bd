//! `pipeplug list`: the plugins that are found by name.

use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::thread;
use std::time::Duration;

use clap::Args;
use pipeplug_host::discovery::{Discovery, Entry, EntryState};
use pipeplug_host::net::wire::Format;
use pipeplug_host::{Grace, Plugin, StartError, Stdout};
use serde_json::{Value, json};

use crate::builtin;
use crate::cli::Globals;
use crate::exit::{Failure, Outcome};
use crate::halt::Halt;
use crate::report;
use crate::style::{Paint, Role};
use crate::target::HOST;
use crate::text::{self, Escaped, short_path};

/// How long a plugin may take to say what it is.
const START_PATIENCE: Duration = Duration::from_secs(3);
/// How long each step of stopping one may take.
const STOP_PATIENCE: Duration = Duration::from_millis(500);
/// How many are started at once.
const AT_ONCE: usize = 8;

const EXAMPLES: &str = "\
Examples:
  pipeplug list
  pipeplug list --host editor
  PIPEPLUG_PATH=$PWD/target/debug pipeplug list --no-metadata
  pipeplug list --json | jq -r 'select(.state == \"usable\") | .name'

JSON (--json), one object a line: name, path, state (usable, shadowed or
unusable); description and format, if it says; shadowed_by; problem.";

/// List the plugins that are found by name
///
/// A plugin of the host HOST is an executable HOST-NAME in a directory of PIPEPLUG_PATH,
/// ~/.local/share/HOST/plugins, /usr/local/lib/HOST/plugins or /usr/lib/HOST/plugins; earlier ones win. Each is
/// started for a moment, to ask what it is.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ListArgs {
    /// Whose plugins to list
    #[arg(long, value_name = "NAME", default_value = HOST)]
    host: String,

    /// Write one JSON object a line
    #[arg(long)]
    json: bool,

    /// Start no plugin; what they are is not shown then
    #[arg(long)]
    no_metadata: bool,
}

/// What is shown of one file or directory.
struct Row {
    name: String,
    path: PathBuf,
    state: State,
}

enum State {
    Usable(Option<Said>),
    Shadowed { by: PathBuf },
    Unusable { problem: String },
}

/// What a plugin said of itself.
struct Said {
    description: Option<String>,
    format: Format,
}

/// Runs it.
///
/// # Blocking
/// Until every plugin has answered and ended; each for some seconds at most, several at once.
pub(crate) fn run(args: &ListArgs, globals: &Globals) -> Outcome {
    match attempt(args, globals) {
        Ok(()) => Outcome::Success,
        Err(failure) => {
            report::say_failure_plainly(globals.color, &failure);
            failure.outcome
        }
    }
}

fn attempt(args: &ListArgs, globals: &Globals) -> Result<(), Failure> {
    let discovery = Discovery::for_host(&args.host);
    let halt = Halt::default();
    halt.on_signals(|| {}).map_err(|error| Failure::new(Outcome::Failed, error))?;
    let rows = if args.no_metadata {
        discovery.list().into_iter().map(|entry| Row::new(entry, |_| Ok(None))).collect()
    } else {
        ask_all(discovery.list(), &halt)
    };
    if let Some(failure) = halt.failure() {
        return Err(failure);
    }
    if args.json {
        return report::print(&rows.iter().map(|row| format!("{}\n", row.to_json())).collect::<String>());
    }
    let paint = Paint::choose(globals.color, &io::stdout());
    let mut text = String::new();
    if rows.is_empty() {
        text.push_str(&nothing_found(&args.host, &discovery));
    } else {
        table(&mut text, &rows, paint, text::columns(io::stdout()));
    }
    if args.host == HOST {
        let built_in: Vec<_> =
            builtin::ALL.iter().map(|it| (format!("@{}", it.name), it.description)).collect();
        let _ = writeln!(text, "\n{}", paint.paint(Role::Aside, "built in"));
        for (name, description) in &built_in {
            line(&mut text, name, description, Role::Title, width(&rows), paint, text::columns(io::stdout()));
        }
    }
    report::print(&text)
}

/// Starts what can be started, several at once, and keeps the order.
fn ask_all(entries: Vec<Entry>, halt: &Halt) -> Vec<Row> {
    let mut rows: Vec<Option<Row>> = Vec::new();
    rows.resize_with(entries.len(), || None);
    let threads = AT_ONCE.min(entries.len());
    let work = Mutex::new(entries.into_iter().zip(rows.iter_mut()));
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                // The lock is held to take one, and not while it is asked.
                while let Some((entry, row)) = work.lock().ok().and_then(|mut work| work.next()) {
                    *row = Some(Row::new(entry, |path| ask(path, halt)));
                }
            });
        }
    });
    drop(work);
    rows.into_iter().flatten().collect()
}

/// Starts it, in whichever format it speaks, and asks what it is.
fn ask(path: &Path, halt: &Halt) -> Result<Option<Said>, String> {
    let start = |format| {
        let halt = halt.clone();
        Plugin::builder(path)
            .format(format)
            .stdout(Stdout::Log)
            .handshake_timeout(START_PATIENCE)
            .grace(Grace::each(STOP_PATIENCE))
            .on_spawn(move |plugin| halt.starting(plugin))
            .start()
    };
    let mut format = Format::Standard;
    let started = match start(format) {
        Err(StartError::WrongFormat { found, .. }) => {
            format = found;
            start(found)
        }
        started => started,
    };
    let plugin = started.map_err(|error| error.to_string())?;
    let description = plugin.metadata().value("Description").map(str::to_owned);
    if let Err(error) = plugin.stop() {
        return Err(error.to_string());
    }
    Ok(Some(Said { description, format }))
}

impl Row {
    fn new(entry: Entry, ask: impl FnOnce(&Path) -> Result<Option<Said>, String>) -> Self {
        let Entry { name, path, state } = entry;
        let state = match state {
            EntryState::Usable => match ask(&path) {
                Ok(said) => State::Usable(said),
                Err(problem) => State::Unusable { problem },
            },
            EntryState::Shadowed { by } => State::Shadowed { by },
            EntryState::Unusable(problem) => State::Unusable { problem: problem.to_string() },
            _ => State::Unusable { problem: "in a state that this program does not know".into() },
        };
        Self { name, path, state }
    }

    fn to_json(&self) -> Value {
        let mut row = json!({ "name": self.name, "path": self.path.to_string_lossy() });
        match &self.state {
            State::Usable(said) => {
                row["state"] = "usable".into();
                if let Some(said) = said {
                    row["description"] = said.description.as_deref().into();
                    row["format"] = said.format.to_string().into();
                }
            }
            State::Shadowed { by } => {
                row["state"] = "shadowed".into();
                row["shadowed_by"] = by.to_string_lossy().into();
            }
            State::Unusable { problem } => {
                row["state"] = "unusable".into();
                row["problem"] = problem.as_str().into();
            }
        }
        row
    }
}

/// The plugins below the directories that they are in.
fn table(text: &mut String, rows: &[Row], paint: Paint, columns: Option<usize>) {
    let mut dirs: Vec<&Path> = Vec::new();
    for row in rows {
        let dir = row.directory();
        if !dirs.contains(&dir) {
            dirs.push(dir);
        }
    }
    for (i, dir) in dirs.iter().enumerate() {
        if i > 0 {
            text.push('\n');
        }
        // Writing to a String does not fail.
        let _ = writeln!(text, "{}", paint.paint(Role::Aside, short_path(dir)));
        for row in rows.iter().filter(|row| row.directory() == *dir) {
            let (role, what) = match &row.state {
                State::Usable(Some(Said { description: Some(description), .. })) => {
                    (Role::Title, description.clone())
                }
                State::Usable(_) => (Role::Title, String::new()),
                State::Shadowed { by } => (Role::Aside, format!("shadowed by {}", short_path(by))),
                State::Unusable { problem } => (Role::Error, problem.clone()),
            };
            line(text, &row.shown_name(), &what, role, width(rows), paint, columns);
        }
    }
}

impl Row {
    /// Where it is listed: below its directory, or, if it is a place with a problem, below itself.
    fn directory(&self) -> &Path {
        if self.name.is_empty() && !self.path.is_file() {
            return &self.path;
        }
        self.path.parent().unwrap_or(&self.path)
    }

    fn shown_name(&self) -> String {
        match self.path.file_name() {
            // A file that has only the prefix, in a listed directory.
            Some(file) if self.name.is_empty() && self.directory() != self.path => {
                Escaped(&file.to_string_lossy()).to_string()
            }
            _ => Escaped(&self.name).to_string(),
        }
    }
}

/// How wide the names are; one that is far longer than others does not push all of them aside.
fn width(rows: &[Row]) -> usize {
    const LEAST: usize = 8;
    const MOST: usize = 24;
    rows.iter().map(|row| row.shown_name().chars().count()).max().unwrap_or(0).clamp(LEAST, MOST)
}

/// A name and what is to be said of it, in as many lines as it needs.
fn line(
    text: &mut String,
    name: &str,
    what: &str,
    role: Role,
    width: usize,
    paint: Paint,
    columns: Option<usize>,
) {
    let what = Escaped(what).to_string();
    let indent = width + 4;
    let lines = match columns {
        Some(columns) => text::wrap(&what, columns.saturating_sub(indent).max(20)),
        None => vec![what],
    };
    let gap = width.saturating_sub(name.chars().count());
    for (i, part) in lines.iter().enumerate() {
        // Writing to a String does not fail.
        let _ = if i == 0 {
            let head = format!("  {}{:gap$}  {part}", paint.paint(role, name), "");
            writeln!(text, "{}", head.trim_end())
        } else {
            writeln!(text, "{:indent$}{part}", "")
        };
    }
}

fn nothing_found(host: &str, discovery: &Discovery) -> String {
    let host = Escaped(host).to_string();
    let mut text = format!("No plugins of {host} were found: no executable {host}-NAME in\n");
    for dir in discovery.dirs() {
        let missing = if dir.is_dir() { "" } else { " (does not exist)" };
        // Writing to a String does not fail.
        let _ = writeln!(text, "  {}{missing}", short_path(dir));
    }
    text.push_str(
        "Put them into one of these, or name more directories in PIPEPLUG_PATH, with\ncolons between them.\n",
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(name: &str, path: &str, state: State) -> Row {
        Row { name: name.into(), path: path.into(), state }
    }

    fn usable(description: &str) -> State {
        State::Usable(Some(Said { description: Some(description.into()), format: Format::Standard }))
    }

    #[test]
    fn plugins_stand_below_their_directories() {
        let rows = [
            row("a", "/one/p-a", usable("first")),
            row("a", "/two/p-a", State::Shadowed { by: "/one/p-a".into() }),
            row("bb", "/one/p-bb", State::Unusable { problem: "is\x1b[31m broken".into() }),
        ];
        let mut text = String::new();
        table(&mut text, &rows, Paint::Plain, Some(80));
        assert_eq!(
            text,
            "/one\n  a         first\n  bb        is\\u{1b}[31m broken\n\n/two\n  a         shadowed by /one/p-a\n"
        );
    }

    #[test]
    fn long_texts_are_wrapped_below_themselves() {
        let mut text = String::new();
        line(&mut text, "name", "one two three four five six", Role::Title, 8, Paint::Plain, Some(32));
        assert_eq!(text, "  name      one two three four\n            five six\n");
        text.clear();
        line(&mut text, "name", "one two three four five six", Role::Title, 8, Paint::Plain, None);
        assert_eq!(text, "  name      one two three four five six\n");
    }
}
