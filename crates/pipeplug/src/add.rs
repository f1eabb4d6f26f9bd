//! `pipeplug add`: put plugins where they are found by name.

use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use pipeplug_host::Format;
use pipeplug_host::StartError;
use pipeplug_host::discovery::{
    self, AddError, Catalog, Discovery, InstallMode, InstallRecord, OnConflict, PluginInfo, Store,
    StoreError, Transport,
};

use crate::cli::Globals;
use crate::exit::{Failure, Outcome};
use crate::halt::{Halt, halting};
use crate::report;
use crate::style::{Paint, Role};
use crate::target::HOST;
use crate::text::{Escaped, short_path};
use crate::units::parse_duration;
use crate::walls::AskWallArgs;

const EXAMPLES: &str = "\
Examples:
  pipeplug add ./target/release/spell
  pipeplug add ./spell.py --name spell --force
  pipeplug add ./target/debug/spell --link
  pipeplug add ./plugins --host editor";

/// Add plugins to the user's own, which are found by name
///
/// Each executable is asked what it is, in a strict sandbox, and copied to
/// ~/.local/share/HOST/plugins as HOST-NAME, with its SHA-256 sum recorded: `pipeplug list` shows a
/// file that has changed since, and `pipeplug rm` removes it.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct AddArgs {
    /// An executable, or a directory of which to add every executable that is a plugin
    #[arg(required = true, value_name = "PATH|DIR")]
    paths: Vec<PathBuf>,

    /// The name to find it by [default: the file's, without HOST- in front]
    #[arg(long)]
    name: Option<String>,

    /// Whose plugin it is to be
    #[arg(long, value_name = "HOST", default_value = HOST)]
    host: String,

    /// Link to the file rather than copy it, so that a new build of it is the plugin's too
    #[arg(long)]
    link: bool,

    /// Replace what has the name already
    #[arg(long)]
    force: bool,

    /// Do not start it to see whether it is a plugin
    #[arg(long)]
    no_metadata: bool,

    /// How long a plugin has to answer [default: 10s]
    #[arg(long, value_name = "TIME", value_parser = parse_duration, conflicts_with = "no_metadata")]
    timeout: Option<Duration>,

    #[command(flatten)]
    walls: AskWallArgs,
}

/// How long a plugin has to answer, unless `--timeout` says otherwise.
const ANSWER_PATIENCE: Duration = Duration::from_secs(10);

/// Runs it.
///
/// # Blocking
/// Until every plugin has answered and ended, and is copied.
pub(crate) fn run(args: &AddArgs, globals: &Globals) -> Outcome {
    let told = |failure: Failure| {
        report::say_failure_plainly(globals.color, &failure);
        failure.outcome
    };
    attempt(args, globals, &told).unwrap_or_else(told)
}

fn attempt(
    args: &AddArgs,
    globals: &Globals,
    told: &dyn Fn(Failure) -> Outcome,
) -> Result<Outcome, Failure> {
    args.walls.check()?;
    let store = open_store(&args.host)?;
    let halt = Halt::default();
    halt.on_signals(|_| {}).map_err(|error| Failure::new(Outcome::Failed, error))?;
    let paint = Paint::choose(globals.color, &io::stdout());
    let (mut outcome, mut said) = (Outcome::Success, Vec::new());
    for path in files_to_add(args)? {
        match add(args, &store, &path, &halt, paint) {
            Ok((text, of_file)) => {
                report::print_unless_halted(&text, &halt)?;
                said.extend(of_file);
            }
            Err(failure) => outcome = told(failure),
        }
        if let Some(failure) = halt.failure() {
            return Err(failure);
        }
    }
    // So `run` knows how each one talks, and `list` need not ask.
    catalog(args, &Discovery::for_host(&args.host), &halt).remember(said);
    Ok(outcome)
}

/// Refuses what can be no host's name.
pub(crate) fn check_host(host: &str) -> Result<(), Failure> {
    match Store::for_host(host) {
        Err(error @ StoreError::BadHost { .. }) => Err(Failure::new(Outcome::Usage, error)),
        // A home directory is not needed to find plugins.
        _ => Ok(()),
    }
}

/// The user's own plugins of that host.
pub(crate) fn open_store(host: &str) -> Result<Store, Failure> {
    Store::for_host(host).map_err(|error| {
        let outcome = match error {
            StoreError::BadHost { .. } => Outcome::Usage,
            _ => Outcome::Failed,
        };
        Failure::new(outcome, error)
    })
}

/// The files that are named, and the executable ones of the directories that are.
fn files_to_add(args: &AddArgs) -> Result<Vec<PathBuf>, Failure> {
    let mut files = Vec::new();
    for path in &args.paths {
        if !path.is_dir() {
            files.push(path.clone());
            continue;
        }
        let unreadable =
            |error| Failure::message(Outcome::Failed, format!("{path:?} cannot be read: {error}"));
        let found = discovery::executables(path).map_err(unreadable)?;
        if found.is_empty() {
            let message = format!("there is no executable file in {path:?}");
            return Err(Failure::message(Outcome::NotFound, message));
        }
        files.extend(found);
    }
    match &args.name {
        Some(name) if files.len() > 1 => {
            let message =
                format!("--name {} is for one file, and these are {}", Escaped(name), files.len());
            Err(Failure::message(Outcome::Usage, message))
        }
        _ => Ok(files),
    }
}

/// Adds one, and says what was done, and what it said of itself.
fn add(
    args: &AddArgs,
    store: &Store,
    source: &Path,
    halt: &Halt,
    paint: Paint,
) -> Result<(String, Option<(PathBuf, PluginInfo)>), Failure> {
    let name = match &args.name {
        Some(name) => name.clone(),
        None => name_of(source, &args.host)?,
    };
    if name.starts_with('@') {
        let name = Escaped(&name);
        let message = format!(
            "{name} would not be found, for @ begins what is built in: --name gives another one"
        );
        return Err(Failure::message(Outcome::Usage, message));
    }
    let discovery = Discovery::for_host(&args.host);
    let said = if args.no_metadata { None } else { Some(ask(args, &discovery, source, halt)?) };
    let way = if args.link { InstallMode::Link } else { InstallMode::Copy };
    let existing = if args.force { OnConflict::Overwrite } else { OnConflict::Keep };
    let (path, added) = store.add(source, &name, way, existing)?;
    let mut text = format!("added {}", paint.paint(Role::Title, Escaped(&name)));
    if let Some(description) = said.as_ref().and_then(|said| said.metadata.value("Description")) {
        // Writing to a String does not fail.
        let _ = write!(text, ": {}", Escaped(description));
    }
    let _ = writeln!(text, "\n  file    {} ({})", short_path(&path), origin(&added));
    let _ = writeln!(text, "  sha256  {}", added.sha256);
    match discovery.find(&name) {
        Ok(found) if found.path != path => {
            let _ = writeln!(text, "  hidden  by {}, which comes first", short_path(&found.path));
        }
        _ => {
            let _ = writeln!(text, "  {}", how_to_run(args, &name, said.as_ref()));
        }
    }
    Ok((text, said.map(|said| (path, said))))
}

/// The file's name, without what is put in front of it again.
fn name_of(source: &Path, host: &str) -> Result<String, Failure> {
    let file = source.file_name().unwrap_or(source.as_os_str());
    let Some(file) = file.to_str() else {
        let message = format!("the name of {source:?} is not UTF-8: --name gives another one");
        return Err(Failure::message(Outcome::Usage, message));
    };
    let own = file
        .strip_prefix(host)
        .and_then(|rest| rest.strip_prefix('-'))
        .filter(|own| !own.is_empty());
    Ok(own.unwrap_or(file).to_owned())
}

/// What asks plugins in the way that the command line says.
fn catalog(args: &AddArgs, discovery: &Discovery, halt: &Halt) -> Catalog {
    let (halting, walls) = (halting(halt), args.walls.walls());
    let patience = args.timeout.unwrap_or(ANSWER_PATIENCE);
    discovery.catalog().starting(move |builder| walls(halting(builder.handshake_timeout(patience))))
}

fn ask(
    args: &AddArgs,
    discovery: &Discovery,
    source: &Path,
    halt: &Halt,
) -> Result<PluginInfo, Failure> {
    catalog(args, discovery, halt).probe(source).map_err(|error| {
        let not_added = match error {
            // It would not be added unasked either.
            StartError::Spawn(_) => "",
            StartError::Exited { .. } | StartError::ClosedPipe { .. } | StartError::HandshakeTimeout { .. } => {
                "; it was not added, and was asked over descriptors 3 and 4 and over stdin and stdout, in both formats: --no-metadata adds it unasked"
            }
            _ => "; it was not added: --no-metadata adds it unasked",
        };
        let failure = Failure::of_start(error, args.walls.level());
        halt.failure().unwrap_or_else(|| failure.followed_by(not_added))
    })
}

/// How a plugin came to be where it is.
pub(crate) fn origin(added: &InstallRecord) -> String {
    let way = match added.mode {
        InstallMode::Copy => "a copy of",
        InstallMode::Link => "a link to",
    };
    format!("{way} {}", short_path(&added.from))
}

fn how_to_run(args: &AddArgs, name: &str, said: Option<&PluginInfo>) -> String {
    let host = args.host.as_str();
    let format = match said.map(|said| said.format) {
        Some(Format::Classic) => " --format classic",
        Some(Format::Standard) | None => "",
    };
    let over = match said.map(|said| said.transport) {
        Some(Transport::Stdio) => " --stdio",
        _ => "",
    };
    // It may not have answered without.
    let passed = args.walls.env_pass.iter().map(|name| name.to_string_lossy());
    let passed: String = passed
        .map(|name| format!(" --env-pass {}", shlex::try_quote(&name).unwrap_or((&*name).into())))
        .collect();
    let passed = Escaped(&passed);
    // What no shell can be given, a NUL, is in no name.
    let word = shlex::try_quote(name).unwrap_or(name.into());
    if host != HOST {
        let of = shlex::try_quote(host).unwrap_or(host.into());
        return format!(
            "name    {} finds it as {}\n  run     pipeplug run {} --host {}{over}{format}{passed} --call CMD",
            Escaped(host),
            Escaped(name),
            Escaped(&word),
            Escaped(&of)
        );
    }
    format!("run     pipeplug run {}{over}{format}{passed} --call CMD", Escaped(&word))
}

impl From<AddError> for Failure {
    fn from(error: AddError) -> Self {
        let outcome = match &error {
            AddError::BadName { .. } => Outcome::Usage,
            AddError::NotFound { .. } => Outcome::NotFound,
            AddError::Unusable { .. } => Outcome::NotStarted,
            _ => Outcome::Failed,
        };
        Self::new(outcome, error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_its_host_in_front_once() {
        let name = |path: &str| name_of(Path::new(path), "editor").unwrap();
        assert_eq!(name("/a/spell"), "spell");
        assert_eq!(name("editor-spell"), "spell");
        assert_eq!(name("editor-"), "editor-");
        assert_eq!(name("pipeplug-spell"), "pipeplug-spell");
        assert_eq!(name("editorial"), "editorial");
    }
}
