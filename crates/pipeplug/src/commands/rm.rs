//! `pipeplug rm`: removes plugins that were added.

use clap::Args;
use pipeplug_host::discovery::{Discovery, OnConflict, RemoveError, Store};

use crate::args::target::{HOST, list_command};
use crate::cli::Globals;
use crate::commands::add::{alone, of_store, open_store, origin, record};
use crate::exit::{CommandError, ExitReason};
use crate::output::report;
use crate::output::text::Escaped;

const EXAMPLES: &str = "\
Examples:
  pipeplug rm spell
  pipeplug rm spell align --host editor";

/// Remove plugins that `pipeplug add` installed
///
/// Plugins that were installed in another way are not removed. A file that has changed since it was
/// added is removed only with --force.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct RmArgs {
    /// Names of the plugins
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,

    /// Host that the plugins are for
    #[arg(long, value_name = "HOST", default_value = HOST)]
    host: String,

    /// Remove the file even if it has changed since it was added
    #[arg(long)]
    force: bool,
}

/// Runs `pipeplug rm`.
///
/// # Blocking
/// While another process adds or removes plugins of this host.
pub(crate) fn run(args: &RmArgs, globals: &Globals) -> ExitReason {
    let told = |failure| report::exit_reason(globals.color, Err(failure));
    attempt(args, &told).unwrap_or_else(told)
}

fn attempt(
    args: &RmArgs,
    told: &dyn Fn(CommandError) -> ExitReason,
) -> Result<ExitReason, CommandError> {
    let store = open_store(&args.host)?;
    let mut reason = ExitReason::Success;
    for name in &args.names {
        match remove(args, &store, name) {
            Ok(text) => report::print(&text)?,
            Err(failure) => reason = told(failure),
        }
    }
    Ok(reason)
}

fn remove(args: &RmArgs, store: &Store, name: &str) -> Result<String, CommandError> {
    let _alone = alone(store)?;
    // Else the plugin is gone, and its permissions are not, for the next one of this name.
    of_store(store)?;
    let existing = if args.force { OnConflict::Overwrite } else { OnConflict::Keep };
    match store.remove(name, existing) {
        Ok((path, added)) => {
            // Another plugin of this name is asked for again.
            record(store, &path, None)?;
            Ok(format!("removed {}, {}\n", Escaped(name), origin(&added)))
        }
        Err(error) => Err(explain(args, name, error)),
    }
}

fn explain(args: &RmArgs, name: &str, error: RemoveError) -> CommandError {
    match &error {
        RemoveError::NotAdded { path: Some(_), .. } => CommandError::new(ExitReason::Failed, error),
        RemoveError::NotAdded { similar, .. } => match Discovery::for_host(&args.host).find(name) {
            // The plugin may be in another directory, where this command does not remove it.
            Ok(found) if similar.is_none() => {
                let path = found.path;
                let message = format!(
                    "plugin {name:?} was not installed by `add`: remove {path:?} in the way it was \
                     installed"
                );
                CommandError::message(ExitReason::Failed, message)
            }
            _ if similar.is_none() => {
                let list = list_command(&args.host);
                CommandError::new(ExitReason::NotFound, error)
                    .followed_by(Some(&format!("`{}` lists the installed plugins", Escaped(&list))))
            }
            _ => CommandError::new(ExitReason::NotFound, error),
        },
        _ => CommandError::new(ExitReason::Failed, error),
    }
}
