//! `--config`: the configuration of a plugin, from a file or from the command line.

use std::ffi::OsStr;
use std::fs;

use serde_json::value::RawValue;

use crate::exit::{CommandError, ExitReason};
use crate::output::text::Escaped;

/// JSON text, which goes to the plugin as it is.
pub(crate) type Config = Box<RawValue>;

/// Reads JSON text, or the file of that name.
///
/// # Errors
/// The file cannot be read, or there is no JSON in it. The message shows nothing of the contents.
pub(crate) fn load(arg: &OsStr) -> Result<Config, CommandError> {
    let name = arg.to_string_lossy();
    let (bytes, place) = if name.trim_start().starts_with(['{', '[', '"']) {
        (arg.as_encoded_bytes().to_vec(), "--config".to_owned())
    } else {
        let name = Escaped(&name);
        let bytes = fs::read(arg).map_err(|error| {
            usage(format!(
                "cannot read the configuration file {name}: {error}; JSON text begins with `{{`, `[` or `\"`"
            ))
        })?;
        (bytes, format!("the configuration file {name}"))
    };
    serde_json::from_slice(&bytes).map_err(|error| usage(format!("{place} is no JSON: {error}")))
}

fn usage(message: String) -> CommandError {
    CommandError::message(ExitReason::Usage, message)
}
