//! `pipeplug.toml`: options of plugins that a user repeats.
//!
//! Options of the file become arguments before those of the command line, which wins. docs/security.md
//! ("pipeplug.toml") says which files may set what.

mod file;
mod find;

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use clap::parser::ValueSource;
use clap::{ArgMatches, Command};

use self::find::{Found, Reach};
use crate::args::sandbox::Level;
use crate::exit::{CommandError, ExitReason};
use crate::output::text;

/// Name of the file.
pub(crate) const NAME: &str = "pipeplug.toml";
/// Table of `pipeplug dev`, which reads it, and the name of that command.
pub(crate) const DEV: &str = "dev";
/// Headings of the options that a file may set, and one option more.
const HEADINGS: [&str; 5] =
    ["Starting the plugin", "Launcher", "Container", "Pod", "Rights and sandbox"];
const ANSWER: &str = "answer";
/// Id and name of the option that leaves all files out.
const SWITCH: &str = "no_config_file";
/// Options of which one alone is possible: that of the command line replaces that of a file.
const EXCLUSIVE: [&[&str]; 2] = [
    &["via", "docker", "podman", "ssh", "kubectl", "attach"],
    &["stdio", "stdin", "stdout", "format"],
];
/// Options by which the user confines a plugin, with the launchers.
const CONFINES: [&str; 3] = ["sandbox", "locked", "sha256"];
/// Options that give a plugin nothing: a file of a project may always set them.
const HARMLESS: [&str; 9] = [
    "allow",
    "format",
    "grace",
    "limit-buffer",
    "locked",
    "log-level",
    "sha256",
    "stdio",
    "timeout",
];

/// Options that were taken from files.
#[derive(Debug, Default)]
pub(crate) struct Taken {
    /// Arguments for the command, in any order.
    pub(crate) args: Vec<OsString>,
    /// File of each option.
    sources: Vec<(String, PathBuf)>,
    /// Files and options that were passed over, with the reason.
    pub(crate) passed_over: Vec<String>,
}

/// Options of `[plugins.NAME]` of one file: each with its arguments.
type Options = BTreeMap<String, Vec<OsString>>;

impl Taken {
    /// Reads the files for the plugin of this command line. `command` is the whole program, and
    /// `matches` what could be parsed of the command line.
    ///
    /// # Errors
    /// A file cannot be read, or has a key or value that is no option.
    pub(crate) fn read(command: &Command, matches: &ArgMatches) -> Result<Self, CommandError> {
        let Some((name, matches)) = matches.subcommand() else { return Ok(Self::default()) };
        let subcommand = command.find_subcommand(name);
        let Some(subcommand) = subcommand.filter(|it| takes_file(it)) else {
            return Ok(Self::default());
        };
        let plugin = matches.try_get_one::<OsString>("plugin").ok().flatten().cloned();
        // DIR, whose name is that of the plugin.
        let plugin = match (name, plugin) {
            (DEV, dir) => fs::canonicalize(dir.unwrap_or_else(|| ".".into())).ok().map(Into::into),
            (_, plugin) => plugin,
        };
        // After an error the default of a flag may be missing.
        let is_off = matches!(matches.try_get_one::<bool>(SWITCH), Ok(Some(true)));
        let Some(plugin) = plugin.filter(|_| !is_off) else {
            return Ok(Self::default());
        };
        let mut taken = Self::default();
        let mut files = Vec::new();
        for found in find::files(&plugin) {
            let Found { path, reach, text } = found;
            match text {
                Ok(text) => {
                    let options = file::parse(&text, &path, plugin_name(&plugin), command)?;
                    files.push((path, reach, options));
                }
                Err(reason) => {
                    taken.passed_over.push(format!("{} is not read: {reason}", shown(&path)))
                }
            }
        }
        taken.merge(files, subcommand, matches);
        Ok(taken)
    }

    /// Takes each option from the nearest file that has it, unless the command line has it.
    fn merge(
        &mut self,
        files: Vec<(PathBuf, Reach, Options)>,
        subcommand: &Command,
        matches: &ArgMatches,
    ) {
        let given: Vec<_> = subcommand
            .get_arguments()
            .filter(|arg| {
                matches.value_source(arg.get_id().as_str()) == Some(ValueSource::CommandLine)
            })
            .filter_map(clap::Arg::get_long)
            .collect();
        let confines = |option: &str| CONFINES.contains(&option) || EXCLUSIVE[0].contains(&option);
        // A sandbox that the user, or the command, asks for is not weakened by a file of a project.
        let is_confined = subcommand.get_name() == "inspect"
            || given.iter().any(|option| confines(option))
            || files.iter().any(|(_, reach, options)| {
                *reach == Reach::All && options.keys().any(|option| confines(option))
            });
        // A lock file says what a plugin is allowed then. The project may have made it.
        let is_declared = matches.try_get_one::<Level>("sandbox").ok().flatten()
            == Some(&Level::Declared)
            || files.iter().any(|(_, reach, options)| {
                *reach == Reach::All
                    && options.get("sandbox").is_some_and(|args| args == &["--sandbox=declared"])
            });
        let is_harmless =
            |option: &str| HARMLESS.contains(&option) && !(is_declared && option == "locked");
        let mut set: Vec<String> = Vec::new();
        for (path, reach, options) in files {
            for (option, args) in options {
                let is_known = subcommand.get_arguments().any(|it| it.get_long() == Some(&option));
                let is_set =
                    |other: &str| given.contains(&other) || set.iter().any(|it| it == other);
                let group = EXCLUSIVE.iter().find(|group| group.contains(&option.as_str()));
                let is_replaced = is_set(&option)
                    || group.is_some_and(|group| group.iter().any(|other| given.contains(other)));
                if !is_known || is_replaced {
                    continue;
                }
                if reach == Reach::Below && is_confined && !is_harmless(&option) {
                    self.passed_over.push(format!(
                        "--{option} of {} is left out: a file of a project does not weaken a \
                         sandbox or a checksum; write the option on the command line",
                        shown(&path)
                    ));
                    continue;
                }
                self.args.extend(args);
                self.sources.push((option.clone(), path.clone()));
                set.push(option);
            }
        }
    }

    /// Lines that tell which options were taken from where.
    pub(crate) fn lines(&self) -> impl Iterator<Item = String> {
        self.sources.iter().map(|(option, path)| format!("--{option} is that of {}", shown(path)))
    }
}

/// Names the files, for an error that their options cause.
impl fmt::Display for Taken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut paths: Vec<_> = self.sources.iter().map(|(_, path)| shown(path)).collect();
        paths.dedup();
        let options: Vec<_> =
            self.sources.iter().map(|(option, _)| format!("--{option}")).collect();
        write!(
            f,
            "{} of {}; --no-config-file leaves them out",
            options.join(", "),
            paths.join(" and ")
        )
    }
}

/// Reads a file of a project. `None` if there is none.
///
/// # Errors
/// It cannot be read, or others may have written it.
pub(crate) fn read_trusted(path: &Path) -> Result<Option<String>, CommandError> {
    let Some(Found { text, .. }) = find::look(path, Reach::Below) else { return Ok(None) };
    text.map(Some).map_err(|reason| {
        CommandError::message(ExitReason::Usage, format!("{} is not read: {reason}", shown(path)))
    })
}

/// True for a command whose options a file may set.
fn takes_file(subcommand: &Command) -> bool {
    subcommand.get_arguments().any(|arg| arg.get_id() == SWITCH)
}

/// True for an option that a file may set.
fn is_option(arg: &clap::Arg) -> bool {
    let heading = arg.get_help_heading().unwrap_or_default();
    let is_listed = HEADINGS.iter().any(|listed| heading.starts_with(listed));
    (is_listed || arg.get_id() == "answers") && arg.get_id() != SWITCH
}

/// Name of a plugin in a file: that of its file, and of a built-in plugin without its `@`.
fn plugin_name(plugin: &OsStr) -> &OsStr {
    let name = Path::new(plugin).file_name().unwrap_or(plugin);
    match name.as_bytes() {
        [b'@', name @ ..] => OsStr::from_bytes(name),
        _ => name,
    }
}

fn shown(path: &Path) -> String {
    text::short_path(path)
}
