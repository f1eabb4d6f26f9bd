//! `--config`: the configuration of a plugin, from a file or from the command line.

use std::ffi::OsStr;
use std::fs;

use serde_json::value::RawValue;

use crate::exit::{CommandError, ExitReason};
use crate::output::text::Escaped;

/// JSON text, which goes to the plugin as it is.
pub(crate) type Config = Box<RawValue>;

/// Next step after a value that is neither.
const EXPECTED: &str = "--config takes the name of a file with JSON, or JSON text that begins with \
                        `{`, `[` or `\"`, as in --config settings.json or --config '{\"level\": 3}'";

/// Reads JSON text, or the file of that name.
///
/// # Errors
/// The file cannot be read, or there is no JSON in it. The message shows nothing of the contents.
pub(crate) fn load(arg: &OsStr) -> Result<Config, CommandError> {
    let name = arg.to_string_lossy();
    if name.trim().is_empty() {
        return Err(usage(format!("--config {name:?} has nothing in it: {EXPECTED}")));
    }
    let (bytes, place) = if name.trim_start().starts_with(['{', '[', '"']) {
        (arg.as_encoded_bytes().to_vec(), "--config".to_owned())
    } else {
        let next = match name.strip_prefix('@').unwrap_or(&name) {
            "-" => "--config /dev/stdin reads stdin",
            _ if name.starts_with('@') => "the name of the file is written without `@`",
            _ => EXPECTED,
        };
        let name = Escaped(&name);
        let bytes = fs::read(arg).map_err(|error| {
            usage(format!("cannot read the configuration file {name}: {error}; {next}"))
        })?;
        (bytes, format!("the configuration file {name}"))
    };
    if bytes.trim_ascii().is_empty() {
        return Err(usage(format!("{place} is empty: {EXPECTED}")));
    }
    serde_json::from_slice(&bytes).map_err(|error| usage(format!("{place} is no JSON: {error}")))
}

fn usage(message: String) -> CommandError {
    CommandError::message(ExitReason::Usage, message)
}
