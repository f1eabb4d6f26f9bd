//! `pipeplug add`: installs plugins, so that they are found by name.

mod permissions;

use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use pipeplug_host::discovery::{
    self, AddError, Catalog, Discovery, InstallMode, InstallRecord, OnConflict, PluginInfo, Store,
    StoreError, Transport,
};
use pipeplug_host::{Format, Permissions, PluginBuilder, StartErrorKind};

use self::permissions::{Asking, Stamp};
pub(crate) use self::permissions::{alone, of_store, record};
use crate::args::sandbox::ProbeSandboxArgs;
use crate::args::target::HOST;
use crate::args::units::parse_duration;
use crate::cli::Globals;
use crate::exit::{CommandError, ExitReason};
use crate::output::report;
use crate::output::style::{Paint, Role};
use crate::output::text::{Escaped, short_path};
use crate::session::shutdown::{Shutdown, registering};

const EXAMPLES: &str = "\
Examples:
  pipeplug add ./target/release/spell
  pipeplug add ./spell.py --name spell --force
  pipeplug add --yes ./spell && pipeplug run --sandbox declared spell
  pipeplug add ./target/debug/spell --link
  pipeplug add ./plugins --host editor";

/// Install plugins for the current user, so that they are found by name
///
/// Each executable is started in a strict sandbox to probe it, and then copied to
/// ~/.local/share/HOST/plugins as HOST-NAME. Its SHA-256 sum is recorded, so that `pipeplug list`
/// shows a file that has changed since. `pipeplug rm` removes the plugin.
///
/// If it declares permissions, they are shown, and you are asked once. The answer is recorded in
/// ~/.local/share/HOST/pipeplug.lock, which `pipeplug run --sandbox declared` enforces. With --force, a
/// newer version that wants more shows only what is new, and asks again.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct AddArgs {
    /// Executable to add, or directory whose executables are added if they are plugins
    #[arg(required = true, value_name = "PATH|DIR")]
    paths: Vec<PathBuf>,

    /// Name of the plugin [default: the file name without the prefix HOST-]
    #[arg(long)]
    name: Option<String>,

    /// Host that the plugin is for
    #[arg(long, value_name = "HOST", default_value = HOST)]
    host: String,

    /// Link to the file instead of copying it, so that a new build takes effect at once
    #[arg(long)]
    link: bool,

    /// Replace an existing plugin of the same name
    #[arg(long)]
    force: bool,

    /// Allow what the plugin asks for, without a question
    #[arg(short, long)]
    yes: bool,

    /// Add without starting it, whether or not it is a plugin
    #[arg(long)]
    no_metadata: bool,

    /// Time limit for a plugin to answer, as 500ms, 2s or 1m [default: 10s]
    #[arg(long, value_name = "TIME", value_parser = parse_duration, conflicts_with = "no_metadata")]
    timeout: Option<Duration>,

    #[command(flatten)]
    sandbox: ProbeSandboxArgs,
}

/// Default of `--timeout`.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// Runs `pipeplug add`.
///
/// # Blocking
/// Until every plugin has answered and ended, and is copied.
pub(crate) fn run(args: &AddArgs, globals: &Globals) -> ExitReason {
    let told = |failure| report::exit_reason(globals.color, Err(failure));
    attempt(args, globals, &told).unwrap_or_else(told)
}

fn attempt(
    args: &AddArgs,
    globals: &Globals,
    told: &dyn Fn(CommandError) -> ExitReason,
) -> Result<ExitReason, CommandError> {
    args.sandbox.check()?;
    let store = open_store(&args.host)?;
    let shutdown = Shutdown::default();
    shutdown.on_signals(|_| {}).map_err(|error| CommandError::new(ExitReason::Failed, error))?;
    let paint = Paint::choose(globals.color, &io::stdout());
    let (mut reason, mut said) = (ExitReason::Success, Vec::new());
    for path in files_to_add(args)? {
        match add(args, &store, &path, &shutdown, paint) {
            Ok((text, of_file)) => {
                report::print_interruptible(&text, &shutdown)?;
                said.extend(of_file);
            }
            Err(failure) => reason = told(failure),
        }
        if let Some(failure) = shutdown.failure() {
            return Err(failure);
        }
    }
    // `run` then knows the protocol of each plugin, and `list` need not probe it again.
    catalog(args, &Discovery::for_host(&args.host), &shutdown).remember(said);
    Ok(reason)
}

/// Opens the store of the user's plugins for this host.
pub(crate) fn open_store(host: &str) -> Result<Store, CommandError> {
    Store::for_host(host).map_err(|error| {
        let reason = match error {
            StoreError::BadHost { .. } => ExitReason::Usage,
            _ => ExitReason::Failed,
        };
        CommandError::new(reason, error)
    })
}

/// Lists the files of the command line, with the executables of its directories.
fn files_to_add(args: &AddArgs) -> Result<Vec<PathBuf>, CommandError> {
    let mut files = Vec::new();
    for path in &args.paths {
        if !path.is_dir() {
            files.push(path.clone());
            continue;
        }
        let unreadable = |error| {
            CommandError::message(ExitReason::Failed, format!("cannot read {path:?}: {error}"))
        };
        let found = discovery::executables(path).map_err(unreadable)?;
        if found.is_empty() {
            let message = format!("there is no executable file in {path:?}");
            return Err(CommandError::message(ExitReason::NotFound, message));
        }
        files.extend(found);
    }
    match &args.name {
        Some(name) if files.len() > 1 => {
            let message = format!(
                "--name {} needs exactly one file, but there are {}",
                Escaped(name),
                files.len()
            );
            Err(CommandError::message(ExitReason::Usage, message))
        }
        _ => Ok(files),
    }
}

/// Adds one plugin. Returns the text to print and the result of the probe.
fn add(
    args: &AddArgs,
    store: &Store,
    source: &Path,
    shutdown: &Shutdown,
    paint: Paint,
) -> Result<(String, Option<(PathBuf, PluginInfo)>), CommandError> {
    let name = match &args.name {
        Some(name) => name.clone(),
        None => name_of(source, &args.host)?,
    };
    if name.starts_with('@') {
        let name = Escaped(&name);
        let message = format!(
            "a plugin named {name} would not be found, since @ marks built-in plugins; choose \
             another name with --name"
        );
        return Err(CommandError::message(ExitReason::Usage, message));
    }
    let discovery = Discovery::for_host(&args.host);
    // What cannot be added is not asked for.
    let is_taken = store.path_of(&name).is_none_or(|path| path.symlink_metadata().is_ok());
    // The question is about this file.
    let asked_about = Stamp::of(source);
    let asking = if is_taken && !args.force {
        None
    } else {
        Some(Asking::begin(args, store, &name, source, shutdown)?)
    };
    let granted = asking.as_ref().and_then(|asking| asking.beside.clone());
    let said = if args.no_metadata {
        None
    } else {
        Some(ask(args, &discovery, source, granted, shutdown)?)
    };
    let before = asking.as_ref().and_then(|asking| asking.before.clone());
    let allowed = match asking {
        Some(asking) => asking.finish(said.as_ref(), shutdown)?,
        None => None,
    };
    let mode = if args.link { InstallMode::Link } else { InstallMode::Copy };
    let existing = if args.force { OnConflict::Overwrite } else { OnConflict::Keep };
    let _alone = alone(store)?;
    if Stamp::of(source) != asked_about {
        return Err(swapped(source));
    }
    let is_taken = store.path_of(&name).is_none_or(|path| path.symlink_metadata().is_ok());
    // Between the two there is a new plugin without permissions, and never one with those of another.
    let replaced = store.path_of(&name).filter(|_| args.force || !is_taken);
    if let Some(path) = &replaced {
        record(store, path, None)?;
    }
    let (path, added) = match store.add(source, &name, mode, existing) {
        Ok(added) => added,
        Err(error) => {
            if let Some(path) = &replaced {
                record(store, path, before)?;
            }
            return Err(error.into());
        }
    };
    if Stamp::of(source) != asked_about {
        // Between the look and the copy. What was replaced by force is gone.
        store
            .remove(&name, OnConflict::Overwrite)
            .map_err(|error| CommandError::new(ExitReason::Failed, error))?;
        return Err(swapped(source));
    }
    record(store, &path, allowed.clone())?;
    let mut text = format!("added {}", paint.paint(Role::Title, Escaped(&name)));
    if let Some(description) = said.as_ref().and_then(|said| said.metadata.value("Description")) {
        // Writing to a String does not fail.
        let _ = write!(text, ": {}", Escaped(description));
    }
    let _ = writeln!(text, "\n  file    {} ({})", short_path(&path), origin(&added));
    let _ = writeln!(text, "  sha256  {}", added.sha256);
    for (i, line) in allowed.iter().flat_map(Permissions::in_words).enumerate() {
        let _ = writeln!(text, "  {:6}  {line}", if i == 0 { "may" } else { "" });
    }
    match discovery.find(&name) {
        Ok(found) if found.path != path => {
            let _ = writeln!(text, "  hidden  by {}, which comes first", short_path(&found.path));
        }
        _ => {
            let is_confined = allowed.as_ref().is_some_and(|allowed| !allowed.is_empty());
            let _ = writeln!(text, "  {}", how_to_run(args, &name, said.as_ref(), is_confined));
        }
    }
    Ok((text, said.map(|said| (path, said))))
}

fn swapped(source: &Path) -> CommandError {
    let message = format!(
        "{} has changed while it was probed and asked about, and was not added; add it again",
        short_path(source)
    );
    CommandError::message(ExitReason::Failed, message)
}

/// Name of the plugin: the file name without the prefix HOST-, which the store adds again.
fn name_of(source: &Path, host: &str) -> Result<String, CommandError> {
    let file = source.file_name().unwrap_or(source.as_os_str());
    let Some(file) = file.to_str() else {
        let message =
            format!("the name of {source:?} is not UTF-8; choose another name with --name");
        return Err(CommandError::message(ExitReason::Usage, message));
    };
    let own = file
        .strip_prefix(host)
        .and_then(|rest| rest.strip_prefix('-'))
        .filter(|own| !own.is_empty());
    Ok(own.unwrap_or(file).to_owned())
}

/// Makes the catalog that probes plugins with the options of the command line.
fn catalog(args: &AddArgs, discovery: &Discovery, shutdown: &Shutdown) -> Catalog {
    discovery.catalog().starting(starting(args, shutdown, |builder| builder))
}

/// Returns a function that sets the options of the command line on a builder, and then `more`.
fn starting(
    args: &AddArgs,
    shutdown: &Shutdown,
    more: impl Fn(PluginBuilder) -> PluginBuilder + Send + Sync + 'static,
) -> impl Fn(PluginBuilder) -> PluginBuilder + Send + Sync + 'static {
    let (register, confine) = (registering(shutdown), args.sandbox.confining());
    let timeout = args.timeout.unwrap_or(ANSWER_TIMEOUT);
    move |builder| more(confine(register(builder.handshake_timeout(timeout))))
}

fn ask(
    args: &AddArgs,
    discovery: &Discovery,
    source: &Path,
    granted: Option<Permissions>,
    shutdown: &Shutdown,
) -> Result<PluginInfo, CommandError> {
    let catalog = match granted.filter(|_| args.sandbox.is_strict_in_full()) {
        Some(granted) => {
            catalog(args, discovery, shutdown).starting(starting(args, shutdown, move |builder| {
                builder.permissions(granted.clone())
            }))
        }
        None => catalog(args, discovery, shutdown),
    };
    catalog.probe(source).map_err(|error| {
        let not_added = match error.kind() {
            // --no-metadata would not help: the file cannot be executed.
            StartErrorKind::Spawn(_) => None,
            StartErrorKind::Exited { .. }
            | StartErrorKind::ClosedPipe
            | StartErrorKind::HandshakeTimeout { .. } => Some(
                "it was not added (probed over descriptors 3 and 4 and over stdin and stdout, in \
                 both formats); --no-metadata adds it without probing",
            ),
            _ => Some("it was not added; --no-metadata adds it without probing"),
        };
        let failure = CommandError::of_start(error, args.sandbox.level());
        shutdown.failure().unwrap_or_else(|| failure.followed_by(not_added))
    })
}

/// Describes the source of an installed plugin.
pub(crate) fn origin(added: &InstallRecord) -> String {
    let mode = match added.mode {
        InstallMode::Copy => "a copy of",
        InstallMode::Link => "a link to",
    };
    format!("{mode} {}", short_path(&added.from))
}

fn how_to_run(args: &AddArgs, name: &str, said: Option<&PluginInfo>, is_confined: bool) -> String {
    let host = args.host.as_str();
    let format = match said.map(|said| said.format) {
        Some(Format::Classic) => " --format classic",
        Some(Format::Standard) | None => "",
    };
    let over = match said.map(|said| said.transport) {
        Some(Transport::Stdio) => " --stdio",
        _ => "",
    };
    let confined = if is_confined { " --sandbox declared" } else { "" };
    // The plugin may not start without them. Its permissions name those that it gets with them.
    let passed =
        args.sandbox.env_pass.iter().filter(|_| !is_confined).map(|name| name.to_string_lossy());
    let passed: String = passed
        .map(|name| format!(" --env-pass {}", shlex::try_quote(&name).unwrap_or((&*name).into())))
        .collect();
    let passed = Escaped(&passed);
    // Quoting fails only for a NUL, which no name contains.
    let word = shlex::try_quote(name).unwrap_or(name.into());
    if host != HOST {
        let of = shlex::try_quote(host).unwrap_or(host.into());
        return format!(
            "name    {} finds it as {}\n  run     pipeplug run {} --host {}{confined}{over}{format}{passed} \
             --call CMD",
            Escaped(host),
            Escaped(name),
            Escaped(&word),
            Escaped(&of)
        );
    }
    format!("run     pipeplug run {}{confined}{over}{format}{passed} --call CMD", Escaped(&word))
}

impl From<AddError> for CommandError {
    fn from(error: AddError) -> Self {
        let reason = match &error {
            AddError::BadName { .. } => ExitReason::Usage,
            AddError::NotFound { .. } => ExitReason::NotFound,
            AddError::Unusable { .. } => ExitReason::NotStarted,
            _ => ExitReason::Failed,
        };
        Self::new(reason, error)
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
