//! `pipeplug pin`: records the checksums of trusted plugins.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::{self, Path, PathBuf};

use clap::Args;
use pipeplug_host::process::{SpawnError, SpawnErrorKind};
use pipeplug_host::{LockFile, LockFileError, LockFileErrorKind, Permissions, StartError};
use pipeplug_service::Description;
use serde_json::json;

use crate::args::describe::DescribeArgs;
use crate::args::target::{HOST, Target, Wanted};
use crate::cli::Globals;
use crate::exit::{self, CommandError, ExitReason};
use crate::output::report;
use crate::output::text::Escaped;
use crate::session::consent::{Consent, Request};
use crate::session::describe;
use crate::session::shutdown::Shutdown;

const EXAMPLES: &str = "\
Examples:
  pipeplug pin ./plugins/spell ./plugins/count
  pipeplug pin --interface ./plugins/spell
  pipeplug pin --permissions ./spell
  pipeplug run --locked --sandbox declared ./spell
  pipeplug run --locked ./plugins/spell --call check teh
  pipeplug run --sha256 \"$(sha256sum <./plugin | cut -c -64)\" ./plugin

--interface and --permissions start the plugins in a strict sandbox, whose options
`pipeplug pin --help` has.";

/// Write the SHA-256 sums of plugins to a lock file, which --locked checks
///
/// Other entries of the file stay; the sum of a plugin that is in it already is replaced. The sum
/// covers the plugin's own file, not its libraries or the interpreter of a script.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, after_long_help = format!("{EXAMPLES}\n\n{}", exit::HELP))]
pub(crate) struct PinArgs {
    /// Paths (with a slash), or names of installed plugins, or else of files in this directory
    #[arg(required = true, value_name = "PLUGIN")]
    plugins: Vec<OsString>,

    /// Lock file to write
    #[arg(long, value_name = "FILE", default_value = LockFile::NAME)]
    lock_file: PathBuf,

    /// Write the description of the plugin's typed services too, for which the plugin is started:
    /// --locked then refuses a plugin whose services break callers of these, and `pipeplug diff
    /// --locked` shows what has changed
    #[arg(long)]
    interface: bool,

    /// Write what the plugin may do too: what it declares is shown, and you are asked. `pipeplug run
    /// --locked --sandbox declared` enforces that
    #[arg(long)]
    permissions: bool,

    /// Allow what the plugins ask for, without a question
    #[arg(short, long, requires = "permissions")]
    yes: bool,

    #[command(flatten)]
    describe: DescribeArgs,
}

/// Runs `pipeplug pin`.
///
/// # Blocking
/// Until all files have been read, and while another process pins plugins in the same lock file.
pub(crate) fn run(args: &PinArgs, globals: &Globals) -> ExitReason {
    report::exit_reason(globals.color, attempt(args, globals).map(|()| ExitReason::Success))
}

fn attempt(args: &PinArgs, globals: &Globals) -> Result<(), CommandError> {
    let shutdown = Shutdown::default();
    // Before the update: meanwhile nothing else can change the file.
    let interfaces = if args.interface { describe(args, globals, &shutdown)? } else { Vec::new() };
    let permissions = if args.permissions { allow(args, globals, &shutdown)? } else { Vec::new() };
    // One update: all plugins are pinned, or none.
    let text = LockFile::update(&args.lock_file, |lock| {
        let mut text = String::new();
        let mut done = BTreeSet::new();
        for plugin in &args.plugins {
            let path = file_of(plugin)?;
            // A file that is named twice is pinned and shown once.
            if !done
                .insert(lock.name_of(&path).unwrap_or_else(|_| path.to_str().map(str::to_owned)))
            {
                continue;
            }
            if let Err(error) = fs::symlink_metadata(&path)
                && error.kind() == io::ErrorKind::NotFound
            {
                let path = path::absolute(&path).unwrap_or(path);
                let kind = SpawnErrorKind::NotFound { link_target: None };
                return Err(SpawnError::new(path, kind).into());
            }
            let before = lock.sum_of(&path).ok().flatten();
            let sum = lock.pin(&path)?;
            if let Some((_, services)) = interfaces.iter().find(|(of, _)| of == plugin) {
                lock.pin_interface(&path, Some(json!(services)))?;
            }
            let allowed =
                permissions.iter().find(|(of, _)| of == plugin).map(|(_, allowed)| allowed);
            if let Some(allowed) = allowed {
                lock.allow(&path, Some(allowed.clone()))?;
            }
            let shown = path.to_string_lossy();
            let _ = match before {
                // Writing to a String does not fail.
                Some(before) if before != sum => {
                    writeln!(text, "{sum}  {}  (it was {before})", Escaped(&shown))
                }
                _ => writeln!(text, "{sum}  {}", Escaped(&shown)),
            };
            for line in allowed.iter().flat_map(|allowed| allowed.in_words()) {
                let _ = writeln!(text, "  may {line}");
            }
        }
        Ok::<_, CommandError>(text)
    })?;
    report::print(&text)
}

/// Asks all plugins for their permissions, and the user whether to allow them.
fn allow(
    args: &PinArgs,
    globals: &Globals,
    shutdown: &Shutdown,
) -> Result<Vec<(OsString, Permissions)>, CommandError> {
    if !args.interface {
        shutdown
            .on_signals(|_| {})
            .map_err(|error| CommandError::new(ExitReason::Failed, error))?;
    }
    let lock = match LockFile::open(&args.lock_file) {
        Err(error) if matches!(error.kind(), LockFileErrorKind::Missing) => None,
        lock => Some(lock?),
    };
    let mut all = Vec::new();
    for plugin in &args.plugins {
        let path = file_of(plugin)?;
        let name = plugin.to_string_lossy();
        let unclear = |error| {
            let name = Escaped(&name);
            let message = format!("{name} declares permissions that cannot be understood: {error}");
            CommandError::message(ExitReason::NotStarted, message)
        };
        let declared = match Permissions::beside(&path).map_err(unclear)? {
            Some(beside) => beside,
            None => describe::metadata(&args.describe.start_args(plugin)?, globals, shutdown)
                .and_then(|said| Permissions::declared(&said).map_err(unclear))?
                .unwrap_or_default(),
        };
        let before = lock.as_ref().and_then(|lock| lock.permissions_of(&path).ok().flatten());
        let (name, wanted) = (&*name, &declared);
        let consent = if args.yes { Consent::Given } else { Consent::Asked };
        Request { name, wanted, before, action: "pin it" }.ask(consent, shutdown)?;
        all.push((plugin.clone(), declared));
    }
    Ok(all)
}

/// Asks all plugins for the descriptions of their services.
fn describe(
    args: &PinArgs,
    globals: &Globals,
    shutdown: &Shutdown,
) -> Result<Vec<(OsString, Description)>, CommandError> {
    shutdown.on_signals(|_| {}).map_err(|error| CommandError::new(ExitReason::Failed, error))?;
    let mut interfaces = Vec::new();
    for plugin in &args.plugins {
        // Its message is better than that of a start.
        file_of(plugin)?;
        let described = describe::of_plugin(&args.describe.start_args(plugin)?, globals, shutdown)?;
        let shown = plugin.to_string_lossy();
        let described =
            described.ok_or_else(|| describe::no_services(&Escaped(&shown).to_string()))?;
        interfaces.push((plugin.clone(), described));
    }
    Ok(interfaces)
}

/// Finds the file of a plugin.
///
/// # Errors
/// If the plugin does not exist, or is built in and has no file.
fn file_of(plugin: &OsStr) -> Result<PathBuf, CommandError> {
    let target = Target::find(Wanted::Here(plugin, HOST))?;
    target.file().map(Path::to_owned).ok_or_else(|| {
        let plugin = plugin.to_string_lossy();
        let message =
            format!("{} is built into this program and has no file to pin", Escaped(&plugin));
        CommandError::message(ExitReason::Usage, message)
    })
}

impl From<SpawnError> for CommandError {
    fn from(error: SpawnError) -> Self {
        StartError::from(error).into()
    }
}

impl From<LockFileError> for CommandError {
    fn from(error: LockFileError) -> Self {
        Self::new(ExitReason::Failed, error)
    }
}
