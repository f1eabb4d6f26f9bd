//! `pipeplug pin`: take down the sums of plugins that are trusted.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::path::PathBuf;

use clap::Args;
use pipeplug_host::LockFile;

use crate::cli::Globals;
use crate::exit::{self, Failure, Outcome};
use crate::report;
use crate::target::{Target, Wanted};
use crate::text::Escaped;

const EXAMPLES: &str = "\
Examples:
  pipeplug pin ./plugins/spell ./plugins/count
  pipeplug run --locked ./plugins/spell --call check teh
  pipeplug run --sha256 \"$(sha256sum <./plugin | cut -c -64)\" ./plugin";

/// Write the SHA-256 sums of plugins into a lock file, which --locked demands
///
/// What was pinned before stays in the file; a plugin that was pinned with another sum gets the new one. The sum is that
/// of the plugin's own file: libraries, and the interpreter of a script, are not in it.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, after_long_help = format!("{EXAMPLES}\n\n{}", exit::HELP))]
pub(crate) struct PinArgs {
    /// Paths (with a slash, or existing files), or the names of installed plugins
    #[arg(required = true, value_name = "PLUGIN")]
    plugins: Vec<OsString>,

    /// The lock file
    #[arg(long, value_name = "FILE", default_value = LockFile::NAME)]
    lock_file: PathBuf,
}

/// Runs it.
///
/// # Blocking
/// Until all files have been read.
pub(crate) fn run(args: &PinArgs, globals: &Globals) -> Outcome {
    match attempt(args) {
        Ok(()) => Outcome::Success,
        Err(failure) => {
            report::say_failure_plainly(globals.color, &failure);
            failure.outcome
        }
    }
}

fn attempt(args: &PinArgs) -> Result<(), Failure> {
    let failed = |error| Failure::new(Outcome::Failed, error);
    let mut lock = LockFile::open_or_new(&args.lock_file).map_err(failed)?;
    let mut text = String::new();
    for plugin in &args.plugins {
        let target = Target::find(Wanted::Here(plugin))?;
        let path = target.file().ok_or_else(|| {
            let message = format!("{} is a part of this program, and has no file to pin", plugin.display());
            Failure::message(Outcome::Usage, message)
        })?;
        let before = lock.sum_of(path).ok().flatten();
        let sum = lock.pin(path).map_err(failed)?;
        let shown = path.display().to_string();
        let _ = match before {
            // Writing to a String does not fail.
            Some(before) if before != sum => writeln!(text, "{sum}  {}  (it was {before})", Escaped(&shown)),
            _ => writeln!(text, "{sum}  {}", Escaped(&shown)),
        };
    }
    // All or none.
    lock.save().map_err(failed)?;
    report::print(&text)
}
