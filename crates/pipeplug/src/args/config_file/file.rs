//! Contents of a `pipeplug.toml`: `[plugins.NAME]` with long options as keys.

use std::ffi::{OsStr, OsString};
use std::ops::Range;
use std::path::Path;

use clap::{Arg, ArgAction, Command};
use pipeplug_host::discovery::nearest_name;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::{ANSWER, DEV, Options, is_option, shown, takes_file};
use crate::exit::{CommandError, ExitReason};
use crate::output::text::Escaped;

/// Table of the plugins.
const PLUGINS: &str = "plugins";
/// Options whose value is a path. It is relative to the directory of the file.
const PATHS: [&str; 5] = ["cwd", "sandbox-read", "sandbox-write", "locked", "attach"];

/// A file that is parsed.
struct Parsing<'a> {
    text: &'a str,
    path: &'a Path,
    /// All options of the commands that start a plugin.
    options: Vec<&'a Arg>,
}

/// Parses the whole file, and returns the options of this plugin.
///
/// # Errors
/// The message names the file and the line.
pub(super) fn parse(
    text: &str,
    path: &Path,
    plugin: &OsStr,
    command: &Command,
) -> Result<Options, CommandError> {
    let commands = command.get_subcommands().filter(|it| takes_file(it));
    let options = commands.flat_map(Command::get_arguments).filter(|arg| is_option(arg)).collect();
    let file = Parsing { text, path, options };
    let table = DeTable::parse(text)
        .map_err(|error| file.error(error.span().unwrap_or(0..0), error.message()))?;
    let mut found = Options::new();
    for (key, value) in table.get_ref() {
        if key.get_ref() == DEV {
            continue;
        }
        if key.get_ref() != PLUGINS {
            let key_name = Escaped(key.get_ref());
            let message = format!(
                "unknown key `{key_name}`; options are in a table for each plugin, as in \
                 [{PLUGINS}.NAME]"
            );
            return Err(file.error(key.span(), &message));
        }
        for (name, value) in file.table(value)? {
            for (key, value) in file.table(value)? {
                let args = file.option(key, value)?;
                if OsStr::new(name.get_ref().as_ref()) == plugin {
                    found.insert(key.get_ref().to_string(), args);
                }
            }
        }
    }
    Ok(found)
}

impl<'a> Parsing<'a> {
    fn table<'t>(&self, value: &'t Spanned<DeValue<'a>>) -> Result<&'t DeTable<'a>, CommandError> {
        value.get_ref().as_table().ok_or_else(|| {
            let message = format!("not a table; options are in [{PLUGINS}.NAME]");
            self.error(value.span(), &message)
        })
    }

    /// Arguments for an option.
    fn option(
        &self,
        key: &Spanned<std::borrow::Cow<'a, str>>,
        value: &Spanned<DeValue<'a>>,
    ) -> Result<Vec<OsString>, CommandError> {
        let name = key.get_ref().as_ref();
        let Some(option) = self.options.iter().find(|arg| arg.get_long() == Some(name)) else {
            let known = self.options.iter().filter_map(|arg| arg.get_long());
            let shown = Escaped(name);
            let message = match nearest_name(name, known) {
                Some(nearest) => format!("unknown key `{shown}`, did you mean `{nearest}`?"),
                None => format!(
                    "unknown key `{shown}`; keys are the long options for the start of a plugin, \
                     which `pipeplug run --help` lists, and `{ANSWER}`"
                ),
            };
            return Err(self.error(key.span(), &message));
        };
        let is_flag = !option.get_action().takes_values();
        // An option such as --locked, whose value may be left out.
        let may_be_flag = is_flag || option.get_num_args().is_some_and(|it| it.min_values() == 0);
        let is_list = matches!(option.get_action(), ArgAction::Append);
        let with = |value: &str| OsString::from(format!("--{name}={}", self.resolved(name, value)));
        Ok(match value.get_ref() {
            DeValue::Boolean(true) if may_be_flag => vec![format!("--{name}").into()],
            DeValue::Boolean(false) if may_be_flag => Vec::new(),
            _ if is_flag => {
                return Err(self.error(value.span(), &format!("`{name}` is true or false")));
            }
            DeValue::Array(values) if is_list => values
                .iter()
                .map(|value| Ok(with(&self.scalar(name, value)?)))
                .collect::<Result<_, CommandError>>()?,
            DeValue::Table(values) if is_list => values
                .iter()
                .map(|(key, value)| {
                    Ok(with(&format!("{}={}", key.get_ref(), self.scalar(name, value)?)))
                })
                .collect::<Result<_, CommandError>>()?,
            _ => vec![with(&self.scalar(name, value)?)],
        })
    }

    fn scalar(&self, name: &str, value: &Spanned<DeValue<'a>>) -> Result<String, CommandError> {
        let text = match value.get_ref() {
            DeValue::String(text) => text.to_string(),
            DeValue::Integer(number) => number.as_str().to_owned(),
            DeValue::Float(number) => number.as_str().to_owned(),
            _ => {
                let message =
                    format!("`{name}` is text or a number, as on the command line: {name} = \"…\"");
                return Err(self.error(value.span(), &message));
            }
        };
        if text.contains('\0') {
            return Err(self.error(value.span(), &format!("`{name}` has a NUL in it")));
        }
        Ok(text)
    }

    /// Resolves a relative path, from the directory of the file.
    fn resolved(&self, name: &str, value: &str) -> String {
        let join = |value: &str| {
            let dir = self.path.parent().unwrap_or(Path::new("/"));
            dir.join(value).to_string_lossy().into_owned()
        };
        match (name, value.split_once('=')) {
            (name, _) if PATHS.contains(&name) => join(value),
            // JSON begins so.
            ("config", _) if !value.trim_start().starts_with(['{', '[', '"']) => join(value),
            ("mount", _) if value.starts_with('.') => join(value),
            (ANSWER, Some((command, data))) => match data.strip_prefix('@') {
                Some(file) if !file.is_empty() && !file.starts_with(['@', '-']) => {
                    format!("{command}=@{}", join(file))
                }
                _ => value.to_owned(),
            },
            _ => value.to_owned(),
        }
    }

    fn error(&self, span: Range<usize>, message: &str) -> CommandError {
        let before = self.text.get(..span.start).unwrap_or(self.text);
        let line = before.bytes().filter(|byte| *byte == b'\n').count() + 1;
        let message = message.replace('\n', " ");
        let message = format!("{}:{line}: {message}", shown(self.path));
        CommandError::message(ExitReason::Usage, message)
    }
}
