//! `pipeplug rm`: remove plugins that were added.

use clap::Args;
use pipeplug_host::discovery::{Discovery, OnConflict, RemoveError, Store};

use crate::add::{open_store, origin};
use crate::cli::Globals;
use crate::exit::{Failure, Outcome};
use crate::report;
use crate::target::{HOST, list_command};
use crate::text::Escaped;

const EXAMPLES: &str = "\
Examples:
  pipeplug rm spell
  pipeplug rm spell align --host editor";

/// Remove plugins that `pipeplug add` put there
///
/// What came by other means is left alone, and so is a file that has changed since, unless --force
/// is given.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct RmArgs {
    /// What it is found by
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,

    /// Whose plugin it is
    #[arg(long, value_name = "HOST", default_value = HOST)]
    host: String,

    /// Remove the file whatever has become of it
    #[arg(long)]
    force: bool,
}

/// Runs it.
///
/// # Blocking
/// While another process adds or removes plugins of that host.
pub(crate) fn run(args: &RmArgs, globals: &Globals) -> Outcome {
    let told = |failure: Failure| {
        report::say_failure_plainly(globals.color, &failure);
        failure.outcome
    };
    attempt(args, &told).unwrap_or_else(told)
}

fn attempt(args: &RmArgs, told: &dyn Fn(Failure) -> Outcome) -> Result<Outcome, Failure> {
    let store = open_store(&args.host)?;
    let mut outcome = Outcome::Success;
    for name in &args.names {
        match remove(args, &store, name) {
            Ok(text) => report::print(&text)?,
            Err(failure) => outcome = told(failure),
        }
    }
    Ok(outcome)
}

fn remove(args: &RmArgs, store: &Store, name: &str) -> Result<String, Failure> {
    let existing = if args.force { OnConflict::Overwrite } else { OnConflict::Keep };
    match store.remove(name, existing) {
        Ok((_, added)) => Ok(format!("removed {}, {}\n", Escaped(name), origin(&added))),
        Err(error) => Err(explain(args, name, error)),
    }
}

fn explain(args: &RmArgs, name: &str, error: RemoveError) -> Failure {
    match &error {
        RemoveError::NotAdded { path: Some(_), .. } => Failure::new(Outcome::Failed, error),
        RemoveError::NotAdded { similar, .. } => match Discovery::for_host(&args.host).find(name) {
            // It may be in another place.
            Ok(found) if similar.is_none() => {
                let path = found.path;
                let message = format!(
                    "plugin {name:?} was not put there by `add`: remove {path:?} as it came"
                );
                Failure::message(Outcome::Failed, message)
            }
            _ if similar.is_none() => {
                let list = list_command(&args.host);
                Failure::new(Outcome::NotFound, error)
                    .followed_by(&format!("; `{}` shows what there is", Escaped(&list)))
            }
            _ => Failure::new(Outcome::NotFound, error),
        },
        _ => Failure::new(Outcome::Failed, error),
    }
}
