//! `pipeplug list`: lists the plugins that are found by name.

use std::fmt::Write as _;
use std::io::{self, IsTerminal as _};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use clap::Args;
use pipeplug_host::Format;
use pipeplug_host::discovery::{
    Catalog, CatalogEntry, Discovery, EntryState, Freshness, InstallMode, InstallRecord,
    ProbeResult, Progress, Store, Transport,
};
use pipeplug_host::{LockFile, Permissions, PermissionsError, Sha256};
use serde_json::{Value, json};

use crate::args::sandbox::{Hint, ProbeSandboxArgs};
use crate::args::target::{HOST, check_host};
use crate::args::units::parse_duration;
use crate::builtin;
use crate::cli::Globals;
use crate::commands::add::{of_store, origin};
use crate::exit::{CommandError, ExitReason};
use crate::output::report;
use crate::output::stream::{self, Kind, Stream};
use crate::output::style::{Paint, Role};
use crate::output::text::{self, Escaped, short_path};
use crate::session::shutdown::{Shutdown, registering};

const EXAMPLES: &str = "\
Examples:
  pipeplug list
  pipeplug list --refresh
  pipeplug list --host editor
  PIPEPLUG_PATH=$PWD/target/debug pipeplug list --no-metadata
  pipeplug list --json | jq -r 'select(.state == \"usable\") | .name'

JSON (--json), one object per line: name, path, state (usable, shadowed or
unusable); description and format, if the plugin answered; shadowed_by;
problem; stdio (true if it talks over stdin and stdout, as with run --stdio);
in_sandbox (true if it was probed in a sandbox, which may be why it failed);
remembered (true if an earlier listing probed it); permissions, if it declares
any; allowed, the permissions that you have allowed; added (from, mode, sha256)
if `pipeplug add` installed it; changed_to, the sum of its file, if the file
has changed since, as that of a link does with each build.";

/// List the plugins that are found by name
///
/// A plugin of HOST is an executable HOST-NAME in a directory of PIPEPLUG_PATH, or in
/// ~/.local/share/HOST/plugins, /usr/local/lib/HOST/plugins or /usr/lib/HOST/plugins. The first
/// directory that has the name wins. Each plugin is started in a strict sandbox to probe it. The
/// result is kept in ~/.cache/HOST until the file changes; a failure is kept for an hour.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ListArgs {
    /// Host whose plugins are listed
    #[arg(long, value_name = "HOST", default_value = HOST)]
    host: String,

    /// Write one JSON object per line
    #[arg(long)]
    json: bool,

    /// Probe all plugins again, and check the sums of those that were added
    #[arg(long, conflicts_with = "no_metadata")]
    refresh: bool,

    /// Start no plugin; show only results of earlier probes
    #[arg(long)]
    no_metadata: bool,

    /// Time limit for a plugin to answer, as 500ms, 2s or 1m; to probe again one that failed
    /// before, add --refresh [default: 5s]
    #[arg(long, value_name = "TIME", value_parser = parse_duration, conflicts_with = "no_metadata")]
    timeout: Option<Duration>,

    #[command(flatten)]
    sandbox: ProbeSandboxArgs,
}

/// Time before progress is shown.
const SILENCE: Duration = Duration::from_secs(1);

/// Number of digits of a checksum that are shown to people.
const SUM_SHOWN: usize = 12;

/// One line of the listing: a plugin, or a directory with a problem.
struct Row {
    name: String,
    path: PathBuf,
    state: RowState,
    added: Option<InstallRecord>,
    /// Permissions that the user has allowed.
    allowed: Option<Permissions>,
    /// Checksum of the file, if the file has changed since it was added.
    changed: Option<Sha256>,
}

enum RowState {
    Usable(Option<ProbedPlugin>),
    Shadowed { by: PathBuf },
    Unusable { problem: String, asked: Freshness, in_sandbox: bool },
}

/// Result of a probe that the plugin answered.
struct ProbedPlugin {
    description: Option<String>,
    format: Format,
    over: Transport,
    asked: Freshness,
    /// Permissions that it declares, or the problem with them.
    permissions: Result<Permissions, PermissionsError>,
}

/// Runs `pipeplug list`.
///
/// # Blocking
/// Until every plugin has answered and ended. Several run at once, each for a few seconds at most.
pub(crate) fn run(args: &ListArgs, globals: &Globals) -> ExitReason {
    report::exit_reason(globals.color, attempt(args, globals).map(|()| ExitReason::Success))
}

fn attempt(args: &ListArgs, globals: &Globals) -> Result<(), CommandError> {
    args.sandbox.check()?;
    check_host(&args.host)?;
    let discovery = Discovery::for_host(&args.host);
    let shutdown = Shutdown::default();
    shutdown.on_signals(|_| {}).map_err(|error| CommandError::new(ExitReason::Failed, error))?;
    let (register, confine) = (registering(&shutdown), args.sandbox.confining());
    let timeout = args.timeout;
    let catalog = discovery.catalog().starting(move |builder| {
        confine(register(match timeout {
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
        // The thread ends with the catalog. A panic of it would only lose the progress line.
        let _ = shown.join();
    }
    let lock = lock_of(&args.host, globals);
    let rows: Vec<_> = listed.into_iter().map(|listed| Row::new(listed, lock.as_ref())).collect();
    if let Some(failure) = shutdown.failure() {
        return Err(failure);
    }
    if args.json {
        let text: String = rows.iter().map(|row| text::json_line(&row.to_json())).collect();
        return report::print_interruptible(&text, &shutdown);
    }
    let paint = Paint::choose(globals.color, &io::stdout());
    let mut text = String::new();
    if rows.is_empty() {
        text.push_str(&nothing_found(&args.host, &discovery));
    } else {
        table(&mut text, &rows, paint, text::columns(io::stdout()));
        if rows.iter().any(Row::is_remembered_problem) {
            text.push_str(
                "\nA plugin that did not answer is probed again after an hour, or now with \
                 --refresh.\n",
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
    report::print_interruptible(&text, &shutdown)
}

/// Opens the lock file with what the plugins of a host are allowed. A listing does without one that
/// cannot be read.
fn lock_of(host: &str, globals: &Globals) -> Option<LockFile> {
    of_store(&Store::for_host(host).ok()?).unwrap_or_else(|failure| {
        if let Some(error) = failure.error {
            report::tell(globals.color, &format!("{error:#}"));
        }
        None
    })
}

/// Starts a thread that shows the progress of the catalog in a terminal. It ends with the catalog.
fn with_progress(catalog: Catalog) -> Result<(Catalog, Option<JoinHandle<()>>), CommandError> {
    if !io::stderr().is_terminal() {
        return Ok((catalog, None));
    }
    let (sender, receiver) = channel();
    let thread = thread::Builder::new()
        .name("progress".into())
        .spawn(move || show_progress(&receiver))
        .map_err(|error| {
            CommandError::message(
                ExitReason::Failed,
                format!("cannot start the thread that shows progress: {error}"),
            )
        })?;
    let catalog = catalog.on_progress(move |progress| {
        // Fails only if the thread has ended.
        let _ = sender.send(progress);
    });
    Ok((catalog, Some(thread)))
}

/// Shows the number of probed plugins after [`SILENCE`], in one line that is erased at the end.
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
    progress_line(&format!("probing plugins: {done} of {all}"));
}

fn progress_line(text: &str) {
    // Replaces the line (ECMA-48, EL). A progress line that would block is dropped.
    let _ = stream::write(Stream::Stderr, Kind::Log, &[format!("\r{text}\x1b[K").as_bytes()]);
}

impl Row {
    fn new(listed: CatalogEntry, lock: Option<&LockFile>) -> Self {
        let CatalogEntry { entry, answer, added, changed, .. } = listed;
        // Also of a plugin that cannot be used. A path that is no UTF-8 is not in the file.
        let allowed =
            lock.and_then(|lock| lock.permissions_of(&entry.path).ok().flatten()).cloned();
        let unusable =
            |problem| RowState::Unusable { problem, asked: Freshness::Fresh, in_sandbox: false };
        let state = match (entry.state, answer) {
            (EntryState::Usable, None) => RowState::Usable(None),
            (
                EntryState::Usable,
                Some(ProbeResult { info: said, freshness: asked, in_sandbox, .. }),
            ) => match said {
                Ok(said) => RowState::Usable(Some(ProbedPlugin {
                    description: said.metadata.value("Description").map(str::to_owned),
                    format: said.format,
                    over: said.transport,
                    asked,
                    permissions: Permissions::declared(&said.metadata)
                        .map(Option::unwrap_or_default),
                })),
                Err(problem) => RowState::Unusable { problem, asked, in_sandbox },
            },
            (EntryState::Shadowed { by }, _) => RowState::Shadowed { by },
            (EntryState::Unusable(problem), _) => unusable(problem.to_string()),
            _ => unusable("in a state that this program does not know".into()),
        };
        Self { name: entry.name, path: entry.path, state, added, allowed, changed }
    }

    fn is_remembered_problem(&self) -> bool {
        matches!(self.state, RowState::Unusable { asked: Freshness::Remembered, .. })
    }

    /// True if the probe failed in a sandbox, which may be the cause.
    fn is_problem_in_sandbox(&self) -> bool {
        matches!(self.state, RowState::Unusable { in_sandbox: true, .. })
    }

    fn to_json(&self) -> Value {
        let mut row = json!({ "name": self.name, "path": self.path.to_string_lossy() });
        match &self.state {
            RowState::Usable(known) => {
                row["state"] = "usable".into();
                if let Some(ProbedPlugin { description, format, over, asked, permissions }) = known
                {
                    if let Ok(permissions) = permissions.as_ref()
                        && !permissions.is_empty()
                    {
                        row["permissions"] = permissions.to_json();
                    }
                    row["description"] = description.as_deref().into();
                    row["format"] = format.to_string().into();
                    row["stdio"] = (*over == Transport::Stdio).into();
                    row["remembered"] = (*asked == Freshness::Remembered).into();
                }
            }
            RowState::Shadowed { by } => {
                row["state"] = "shadowed".into();
                row["shadowed_by"] = by.to_string_lossy().into();
            }
            RowState::Unusable { problem, asked, in_sandbox } => {
                row["state"] = "unusable".into();
                row["problem"] = problem.as_str().into();
                row["remembered"] = (*asked == Freshness::Remembered).into();
                row["in_sandbox"] = (*in_sandbox).into();
            }
        }
        if let Some(InstallRecord { from, mode, sha256, .. }) = &self.added {
            let mode = match mode {
                InstallMode::Copy => "copy",
                InstallMode::Link => "link",
            };
            row["added"] = json!({ "from": from.to_string_lossy(), "mode": mode, "sha256": sha256.to_string() });
        }
        if let Some(allowed) = &self.allowed {
            row["allowed"] = allowed.to_json();
        }
        if let Some(sum) = self.changed {
            row["changed_to"] = sum.to_string().into();
        }
        row
    }
}

/// Formats the plugins, grouped by directory.
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
            for rights in row.rights() {
                line(text, "", &rights, Role::Aside, width(rows), paint, columns);
            }
        }
    }
}

impl Row {
    /// Style of the name, and the text after it.
    fn in_words(&self) -> (Role, String) {
        let (mut role, what) = match &self.state {
            RowState::Usable(known) => {
                let description = known.as_ref().and_then(|known| known.description.clone());
                (Role::Title, description.unwrap_or_default())
            }
            RowState::Shadowed { by } => (Role::Aside, format!("shadowed by {}", short_path(by))),
            RowState::Unusable { problem, .. } => (Role::Error, problem.clone()),
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

    /// Lines that tell what the plugin may do, and what it asks for beyond that.
    fn rights(&self) -> Vec<String> {
        let mut lines = Vec::new();
        let join = |permissions: &Permissions| permissions.in_words().join("; ");
        if let Some(allowed) = self.allowed.as_ref().filter(|it| !it.is_empty()) {
            lines.push(format!("may {}", join(allowed)));
        }
        if let RowState::Usable(Some(ProbedPlugin { permissions, .. })) = &self.state {
            match permissions {
                Ok(declared) => {
                    let more =
                        declared.beyond(self.allowed.as_ref().unwrap_or(&Permissions::default()));
                    lines.extend(
                        (!more.is_empty())
                            .then(|| format!("asks to {} (not allowed yet)", join(&more))),
                    );
                }
                Err(error) => {
                    lines.push(format!("declares permissions that cannot be understood: {error}"));
                }
            }
        }
        lines
    }

    /// Directory to list it under. A directory with a problem is listed under itself.
    fn directory(&self) -> &Path {
        if self.name.is_empty() && !self.path.is_file() {
            return &self.path;
        }
        self.path.parent().unwrap_or(&self.path)
    }

    fn shown_name(&self) -> String {
        match self.path.file_name() {
            // A file whose name is only the prefix.
            Some(file) if self.name.is_empty() && self.directory() != self.path => {
                Escaped(&file.to_string_lossy()).to_string()
            }
            _ => Escaped(&self.name).to_string(),
        }
    }
}

/// Width of the column of names. A very long name does not widen it.
fn width(rows: &[Row]) -> usize {
    const LEAST: usize = 8;
    const MOST: usize = 24;
    rows.iter().map(|row| text::width(&row.shown_name())).max().unwrap_or(0).clamp(LEAST, MOST)
}

/// Formats a name and the text after it, wrapped to the width of the terminal.
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
        "`pipeplug add PATH` installs one; PIPEPLUG_PATH lists more directories, separated \
         by\ncolons.\n",
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(name: &str, path: &str, state: RowState) -> Row {
        let (added, allowed, changed) = (None, None, None);
        Row { name: name.into(), path: path.into(), state, added, allowed, changed }
    }

    fn usable(description: &str) -> RowState {
        let (description, format) = (Some(description.into()), Format::Standard);
        RowState::Usable(Some(ProbedPlugin {
            description,
            format,
            over: Transport::Descriptors,
            asked: Freshness::Fresh,
            permissions: Ok(Permissions::default()),
        }))
    }

    #[test]
    fn plugins_stand_below_their_directories() {
        let rows = [
            row("a", "/one/p-a", usable("first")),
            row("a", "/two/p-a", RowState::Shadowed { by: "/one/p-a".into() }),
            row("插件", "/one/p-插件", usable("of four columns")),
            row(
                "bb",
                "/one/p-bb",
                RowState::Unusable {
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
            "/one\n  a         first\n  插件      of four columns\n  bb        is\\u{1b}[31m \
             broken\n\n/two\n  a         shadowed by /one/p-a\n"
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
