//! `pipeplug list`: the plugins that are found by name.

use std::fmt::Write as _;
use std::io::{self, IsTerminal as _};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use clap::Args;
use pipeplug_host::Format;
use pipeplug_host::Sha256;
use pipeplug_host::discovery::{
    Catalog, CatalogEntry, Discovery, EntryState, Freshness, InstallMode, InstallRecord,
    ProbeResult, Progress, Transport,
};
use serde_json::{Value, json};

use crate::add::{check_host, origin};
use crate::builtin;
use crate::cli::Globals;
use crate::exit::{Failure, Outcome};
use crate::halt::{Halt, halting};
use crate::output::{self, Kind, Stream};
use crate::report;
use crate::style::{Paint, Role};
use crate::target::HOST;
use crate::text::{self, Escaped, short_path};
use crate::units::parse_duration;
use crate::walls::{AskWallArgs, Hint};

const EXAMPLES: &str = "\
Examples:
  pipeplug list
  pipeplug list --refresh
  pipeplug list --host editor
  PIPEPLUG_PATH=$PWD/target/debug pipeplug list --no-metadata
  pipeplug list --json | jq -r 'select(.state == \"usable\") | .name'

JSON (--json), one object a line: name, path, state (usable, shadowed or
unusable); description and format, if it says; shadowed_by; problem;
stdio (whether it talks over stdin and stdout, for which `run` has --stdio);
in_sandbox (whether it was asked in one, which may be why it failed);
remembered (whether an earlier listing asked it); added (from, way, sha256)
if `pipeplug add` put it there; changed_to, the sum that its file has now, if
that is another one, as that of a link is after each build.";

/// List the plugins that are found by name
///
/// A plugin of the host HOST is an executable HOST-NAME in a directory of PIPEPLUG_PATH,
/// ~/.local/share/HOST/plugins, /usr/local/lib/HOST/plugins or /usr/lib/HOST/plugins; earlier ones
/// win. Each is started for a moment, in a strict sandbox, to ask what it is; that is remembered,
/// in ~/.cache/HOST, until its file changes, and for an hour if it failed.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ListArgs {
    /// Whose plugins to list
    #[arg(long, value_name = "HOST", default_value = HOST)]
    host: String,

    /// Write one JSON object a line
    #[arg(long)]
    json: bool,

    /// Ask all plugins anew, and sum up the files that were added
    #[arg(long, conflicts_with = "no_metadata")]
    refresh: bool,

    /// Start no plugin; what is not remembered of them is not shown then
    #[arg(long)]
    no_metadata: bool,

    /// How long a plugin has to answer; one that is remembered as silent is asked again with
    /// --refresh [default: 5s]
    #[arg(long, value_name = "TIME", value_parser = parse_duration, conflicts_with = "no_metadata")]
    timeout: Option<Duration>,

    #[command(flatten)]
    walls: AskWallArgs,
}

/// A listing that is done sooner shows no progress.
const SILENCE: Duration = Duration::from_secs(1);

/// How many digits of a sum are shown to people, which tell two of them apart.
const SUM_SHOWN: usize = 12;

/// What is shown of one file or directory.
struct Row {
    name: String,
    path: PathBuf,
    state: State,
    added: Option<InstallRecord>,
    /// The sum of its file, where that is not the one that was added.
    changed: Option<Sha256>,
}

enum State {
    Usable(Option<Known>),
    Shadowed { by: PathBuf },
    Unusable { problem: String, asked: Freshness, in_sandbox: bool },
}

/// What is known of a plugin that answered.
struct Known {
    description: Option<String>,
    format: Format,
    over: Transport,
    asked: Freshness,
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
    args.walls.check()?;
    check_host(&args.host)?;
    let discovery = Discovery::for_host(&args.host);
    let halt = Halt::default();
    halt.on_signals(|_| {}).map_err(|error| Failure::new(Outcome::Failed, error))?;
    let (halting, walls) = (halting(&halt), args.walls.walls());
    let timeout = args.timeout;
    let catalog = discovery.catalog().starting(move |builder| {
        walls(halting(match timeout {
            Some(timeout) => builder.handshake_timeout(timeout),
            None => builder,
        }))
    });
    let (catalog, shown) = with_progress(catalog)?;
    let listed = match (args.refresh, args.no_metadata) {
        (true, _) => catalog.refresh(),
        (false, true) => catalog.known(),
        (false, false) => catalog.list(),
    };
    drop(catalog);
    if let Some(shown) = shown {
        // It has nothing more to show, and panics no more than this thread does.
        let _ = shown.join();
    }
    let rows: Vec<_> = listed.into_iter().map(Row::new).collect();
    if let Some(failure) = halt.failure() {
        return Err(failure);
    }
    if args.json {
        let text: String = rows.iter().map(|row| text::json_line(&row.to_json())).collect();
        return report::print_unless_halted(&text, &halt);
    }
    let paint = Paint::choose(globals.color, &io::stdout());
    let mut text = String::new();
    if rows.is_empty() {
        text.push_str(&nothing_found(&args.host, &discovery));
    } else {
        table(&mut text, &rows, paint, text::columns(io::stdout()));
        if rows.iter().any(Row::is_remembered_problem) {
            text.push_str(
                "\nWhat did not answer an earlier time is asked again after an hour, or with --refresh.\n",
            );
        }
        if rows.iter().any(Row::is_problem_in_sandbox) {
            let _ = write!(text, "\n{}", Hint::OF_LIST);
        }
    }
    if args.host == HOST {
        let built_in: Vec<_> =
            builtin::ALL.iter().map(|it| (format!("@{}", it.name), it.description)).collect();
        let _ = writeln!(text, "\n{}", paint.paint(Role::Aside, "built in"));
        for (name, description) in &built_in {
            line(
                &mut text,
                name,
                description,
                Role::Title,
                width(&rows),
                paint,
                text::columns(io::stdout()),
            );
        }
    }
    report::print_unless_halted(&text, &halt)
}

/// Has a thread show how far the catalog is, in a terminal; it ends with the catalog.
fn with_progress(catalog: Catalog) -> Result<(Catalog, Option<JoinHandle<()>>), Failure> {
    if !io::stderr().is_terminal() {
        return Ok((catalog, None));
    }
    let (sender, receiver) = channel();
    let thread = thread::Builder::new()
        .name("progress".into())
        .spawn(move || show_progress(&receiver))
        .map_err(|error| {
            Failure::message(Outcome::Failed, format!("no thread to show progress: {error}"))
        })?;
    let catalog = catalog.on_progress(move |progress| {
        // Where the thread has ended nothing is shown.
        let _ = sender.send(progress);
    });
    Ok((catalog, Some(thread)))
}

/// Shows how many have answered once that takes a while, in a line that is written over and gone at
/// the end.
fn show_progress(progress: &Receiver<Progress>) {
    let begin = Instant::now() + SILENCE;
    let (mut last, mut is_shown) = (None, false);
    loop {
        let wait =
            if is_shown { Duration::MAX } else { begin.saturating_duration_since(Instant::now()) };
        match progress.recv_timeout(wait) {
            Ok(progress) => last = Some(progress),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
        if Instant::now() >= begin {
            is_shown = true;
            last.iter().for_each(show);
        }
    }
    if is_shown {
        progress_line("");
    }
}

fn show(progress: &Progress) {
    let Progress { done, all, .. } = progress;
    progress_line(&format!("asking plugins what they are: {done} of {all}"));
}

fn progress_line(text: &str) {
    // From the first column on, in place of what was there (ECMA-48, EL). Progress is not worth
    // waiting for.
    let _ = output::write(Stream::Stderr, Kind::Log, &[format!("\r{text}\x1b[K").as_bytes()]);
}

impl Row {
    fn new(listed: CatalogEntry) -> Self {
        let CatalogEntry { entry, answer, added, changed, .. } = listed;
        let unusable =
            |problem| State::Unusable { problem, asked: Freshness::Fresh, in_sandbox: false };
        let state = match (entry.state, answer) {
            (EntryState::Usable, None) => State::Usable(None),
            (
                EntryState::Usable,
                Some(ProbeResult { info: said, freshness: asked, in_sandbox, .. }),
            ) => match said {
                Ok(said) => State::Usable(Some(Known {
                    description: said.metadata.value("Description").map(str::to_owned),
                    format: said.format,
                    over: said.transport,
                    asked,
                })),
                Err(problem) => State::Unusable { problem, asked, in_sandbox },
            },
            (EntryState::Shadowed { by }, _) => State::Shadowed { by },
            (EntryState::Unusable(problem), _) => unusable(problem.to_string()),
            _ => unusable("in a state that this program does not know".into()),
        };
        Self { name: entry.name, path: entry.path, state, added, changed }
    }

    fn is_remembered_problem(&self) -> bool {
        matches!(self.state, State::Unusable { asked: Freshness::Remembered, .. })
    }

    /// Looks for a failure that its sandbox may be the cause of.
    fn is_problem_in_sandbox(&self) -> bool {
        matches!(self.state, State::Unusable { in_sandbox: true, .. })
    }

    fn to_json(&self) -> Value {
        let mut row = json!({ "name": self.name, "path": self.path.to_string_lossy() });
        match &self.state {
            State::Usable(known) => {
                row["state"] = "usable".into();
                if let Some(Known { description, format, over, asked }) = known {
                    row["description"] = description.as_deref().into();
                    row["format"] = format.to_string().into();
                    row["stdio"] = (*over == Transport::Stdio).into();
                    row["remembered"] = (*asked == Freshness::Remembered).into();
                }
            }
            State::Shadowed { by } => {
                row["state"] = "shadowed".into();
                row["shadowed_by"] = by.to_string_lossy().into();
            }
            State::Unusable { problem, asked, in_sandbox } => {
                row["state"] = "unusable".into();
                row["problem"] = problem.as_str().into();
                row["remembered"] = (*asked == Freshness::Remembered).into();
                row["in_sandbox"] = (*in_sandbox).into();
            }
        }
        if let Some(InstallRecord { from, mode: way, sha256, .. }) = &self.added {
            let way = match way {
                InstallMode::Copy => "copy",
                InstallMode::Link => "link",
            };
            row["added"] =
                json!({ "from": from.to_string_lossy(), "way": way, "sha256": sha256.to_string() });
        }
        if let Some(sum) = self.changed {
            row["changed_to"] = sum.to_string().into();
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
            let (role, what) = row.in_words();
            line(text, &row.shown_name(), &what, role, width(rows), paint, columns);
        }
    }
}

impl Row {
    /// What is to be said of it, and what its name looks like.
    fn in_words(&self) -> (Role, String) {
        let (mut role, what) = match &self.state {
            State::Usable(known) => {
                let description = known.as_ref().and_then(|known| known.description.clone());
                (Role::Title, description.unwrap_or_default())
            }
            State::Shadowed { by } => (Role::Aside, format!("shadowed by {}", short_path(by))),
            State::Unusable { problem, .. } => (Role::Error, problem.clone()),
        };
        let Some(added) = &self.added else { return (role, what) };
        let mut origin = origin(added);
        // A link is there to follow its file, and each build of that.
        if let Some(sum) = self.changed.filter(|_| added.mode == InstallMode::Copy) {
            role = Role::Error;
            let (was, is) = (added.sha256.to_string(), sum.to_string());
            origin.push_str(&format!(
                ", CHANGED since: its sum was {}…, and is {}…",
                &was[..SUM_SHOWN],
                &is[..SUM_SHOWN]
            ));
        }
        (role, format!("{what} ({origin})").trim_start().to_owned())
    }

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
    rows.iter().map(|row| text::width(&row.shown_name())).max().unwrap_or(0).clamp(LEAST, MOST)
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
    let gap = width.saturating_sub(text::width(name));
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
        "`pipeplug add PATH` puts them into the user's own; more directories are named in\nPIPEPLUG_PATH, with colons between them.\n",
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(name: &str, path: &str, state: State) -> Row {
        Row { name: name.into(), path: path.into(), state, added: None, changed: None }
    }

    fn usable(description: &str) -> State {
        let (description, format) = (Some(description.into()), Format::Standard);
        State::Usable(Some(Known {
            description,
            format,
            over: Transport::Descriptors,
            asked: Freshness::Fresh,
        }))
    }

    #[test]
    fn plugins_stand_below_their_directories() {
        let rows = [
            row("a", "/one/p-a", usable("first")),
            row("a", "/two/p-a", State::Shadowed { by: "/one/p-a".into() }),
            row("插件", "/one/p-插件", usable("of four columns")),
            row(
                "bb",
                "/one/p-bb",
                State::Unusable {
                    problem: "is\x1b[31m broken".into(),
                    asked: Freshness::Fresh,
                    in_sandbox: false,
                },
            ),
        ];
        let mut text = String::new();
        table(&mut text, &rows, Paint::Plain, Some(80));
        assert_eq!(
            text,
            "/one\n  a         first\n  插件      of four columns\n  bb        is\\u{1b}[31m broken\n\n/two\n  a         shadowed by /one/p-a\n"
        );
    }

    #[test]
    fn long_texts_are_wrapped_below_themselves() {
        let mut text = String::new();
        line(
            &mut text,
            "name",
            "one two three four five six",
            Role::Title,
            8,
            Paint::Plain,
            Some(32),
        );
        assert_eq!(text, "  name      one two three four\n            five six\n");
        text.clear();
        line(&mut text, "name", "one two three four five six", Role::Title, 8, Paint::Plain, None);
        assert_eq!(text, "  name      one two three four five six\n");
    }
}
