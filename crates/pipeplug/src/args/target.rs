//! PLUGIN on the command line: a path, the name of an installed plugin, or a built-in plugin.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{self, Path, PathBuf};

use anyhow::Context as _;
use pipeplug_host::discovery::{
    Discovery, FindError, FindErrorKind, PluginInfo, Problem, Store, StoreError,
};
use pipeplug_host::process::{SpawnError, SpawnErrorKind};
use pipeplug_host::{Plugin, PluginBuilder, StartError};

use crate::builtin::{self, BuiltIn};
use crate::exit::{CommandError, ExitReason};
use crate::output::text::Escaped;

/// Host whose plugins are found by name, unless `--host` names another one.
pub(crate) const HOST: &str = "pipeplug";

/// Plugin that the command line asks for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Wanted<'a> {
    /// Path or name on this machine, and the host whose plugins are searched for the name.
    Here(&'a OsStr, &'a str),
    /// Path in the place where the launcher starts it, not checked on this machine.
    PathThere(&'a OsStr),
    /// Plugin that the launcher provides, with its name.
    Preinstalled(&'a str),
}

impl Wanted<'_> {
    /// Name for messages. The plugin need not exist.
    pub(crate) fn display_name(self) -> String {
        match self {
            Self::Here(plugin, _) => {
                let name = last_part(plugin);
                name.strip_prefix('@').unwrap_or(&name).to_owned()
            }
            Self::PathThere(path) => last_part(path),
            Self::Preinstalled(name) => name.to_owned(),
        }
    }
}

fn last_part(path: &OsStr) -> String {
    Path::new(path).file_name().unwrap_or(path).to_string_lossy().into_owned()
}

/// Plugin that was found.
#[derive(Debug)]
pub(crate) struct Target {
    name: String,
    location: Location,
    /// Result of the last probe, if the plugin was found by its name.
    remembered: Option<PluginInfo>,
    /// Choice that was made for a name without a slash, if a file of this name is in the working
    /// directory.
    pub(crate) choice: Option<Choice>,
    /// Files of the same name in earlier directories, which cannot be used.
    pub(crate) passed_over: Vec<(PathBuf, Problem)>,
}

/// Choice between an installed plugin and a file of the same name in the working directory.
#[derive(Debug)]
pub(crate) enum Choice {
    /// Installed plugin, at this path.
    Installed(PathBuf),
    /// File in the working directory: no plugin of this name is installed.
    FileHere,
}

#[derive(Debug)]
enum Location {
    File(PathBuf),
    Preinstalled,
    BuiltIn(&'static BuiltIn),
}

impl Target {
    /// Finds the plugin.
    ///
    /// # Errors
    /// If there is no plugin of this name, or its file cannot be used.
    pub(crate) fn find(wanted: Wanted<'_>) -> Result<Self, CommandError> {
        let at = |location| Self {
            name: wanted.display_name(),
            location,
            remembered: None,
            choice: None,
            passed_over: Vec::new(),
        };
        let (plugin, host) = match wanted {
            Wanted::Here(plugin, host) => (plugin, host),
            Wanted::PathThere(path) if path.as_bytes().starts_with(b"@") => {
                return Err(not_there(path));
            }
            Wanted::PathThere(path) => return Ok(at(Location::File(path.into()))),
            Wanted::Preinstalled(_) => return Ok(at(Location::Preinstalled)),
        };
        if let [b'@', name @ ..] = plugin.as_bytes() {
            return built_in(&String::from_utf8_lossy(name));
        }
        let path = Path::new(plugin);
        if plugin.as_bytes().contains(&b'/') {
            return Ok(at(Location::File(path.to_owned())));
        }
        check_host(host)?;
        let name = plugin.to_string_lossy();
        let discovery = Discovery::for_host(host);
        match discovery.find(&name) {
            Ok(found) => Ok(Self {
                name: name.into_owned(),
                remembered: discovery.catalog().remembered(&found.path),
                choice: path.is_file().then(|| Choice::Installed(found.path.clone())),
                location: Location::File(found.path),
                passed_over: found.passed_over,
            }),
            // An installed plugin goes first, so that a file that happens to be in this directory
            // is not run instead of it.
            Err(error)
                if matches!(error.kind(), FindErrorKind::NotFound { .. }) && path.is_file() =>
            {
                Ok(Self {
                    choice: Some(Choice::FileHere),
                    ..at(Location::File(Path::new(".").join(path)))
                })
            }
            Err(error) => Err(not_found(&name, host, path, error)),
        }
    }

    /// Name for messages.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// File on this machine. `None` for a built-in plugin, and for one of a launcher.
    pub(crate) fn file(&self) -> Option<&Path> {
        match &self.location {
            Location::File(path) => Some(path),
            Location::Preinstalled | Location::BuiltIn(_) => None,
        }
    }

    /// The built-in plugin, if it is one.
    pub(crate) fn built_in(&self) -> Option<&'static BuiltIn> {
        match &self.location {
            Location::BuiltIn(plugin) => Some(plugin),
            Location::File(_) | Location::Preinstalled => None,
        }
    }

    /// Checks that there is a file, for a command that does not begin with a start.
    ///
    /// # Errors
    /// There is none.
    pub(crate) fn check_exists(&self) -> Result<(), CommandError> {
        let Location::File(path) = &self.location else { return Ok(()) };
        match fs::symlink_metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let path = path::absolute(path).unwrap_or_else(|_| path.clone());
                let kind = SpawnErrorKind::NotFound { link_target: None };
                Err(StartError::from(SpawnError::new(path, kind)).into())
            }
            _ => Ok(()),
        }
    }

    /// Has the error name a built-in plugin as the command line does, and not by the path of this
    /// program.
    pub(crate) fn named_in(&self, error: StartError) -> StartError {
        match &self.location {
            Location::BuiltIn(plugin) => error.with_path(format!("@{}", plugin.name)),
            Location::File(_) | Location::Preinstalled => error,
        }
    }

    /// Result of the last probe. `None` if there is none, or the plugin was not found by its name.
    pub(crate) fn remembered(&self) -> Option<&PluginInfo> {
        self.remembered.as_ref()
    }

    /// Makes a builder for the plugin, with default settings.
    ///
    /// # Errors
    /// If the path of this program is unknown.
    pub(crate) fn builder(&self) -> anyhow::Result<PluginBuilder> {
        let builder = match &self.location {
            Location::File(path) => Plugin::builder(path),
            Location::Preinstalled => Plugin::preinstalled(&self.name),
            Location::BuiltIn(plugin) => {
                let program =
                    std::env::current_exe().context("cannot find the path of this program")?;
                Plugin::builder(program).args([builtin::SUBCOMMAND, plugin.name])
            }
        };
        Ok(builder.name(&self.name))
    }
}

fn not_there(plugin: &OsStr) -> CommandError {
    let name = plugin.to_string_lossy();
    let name = Escaped(&name);
    let message = format!(
        "{name} is built into this program and does not exist there; name a file that does, as in \
         ./{name}"
    );
    CommandError::message(ExitReason::NotFound, message)
}

fn built_in(name: &str) -> Result<Target, CommandError> {
    match builtin::find(name) {
        Some(plugin) => {
            let name = name.to_owned();
            Ok(Target {
                name,
                location: Location::BuiltIn(plugin),
                remembered: None,
                choice: None,
                passed_over: Vec::new(),
            })
        }
        None => {
            let all: Vec<_> =
                builtin::ALL.iter().map(|plugin| format!("@{}", plugin.name)).collect();
            let (name, all) = (Escaped(name), all.join(", "));
            Err(CommandError::message(
                ExitReason::NotFound,
                format!(
                    "no built-in plugin \"@{name}\", there is {all}; for a file of that name write \
                     ./@{name}"
                ),
            ))
        }
    }
}

/// Checks that the name of the host is valid.
pub(crate) fn check_host(host: &str) -> Result<(), CommandError> {
    match Store::for_host(host) {
        Err(error @ StoreError::BadHost { .. }) => Err(CommandError::new(ExitReason::Usage, error)),
        // A home directory is not needed to find plugins.
        _ => Ok(()),
    }
}

/// Command that lists the plugins of a host.
pub(crate) fn list_command(host: &str) -> String {
    match host {
        HOST => "pipeplug list".to_owned(),
        // Quoting fails only for a NUL, which no argument contains.
        host => format!("pipeplug list --host {}", shlex::try_quote(host).unwrap_or(host.into())),
    }
}

fn not_found(name: &str, host: &str, path: &Path, error: FindError) -> CommandError {
    match error.kind() {
        FindErrorKind::NotFound { .. } if path.is_dir() => CommandError::message(
            ExitReason::NotStarted,
            format!("{path:?} is a directory: name the executable file inside it"),
        ),
        FindErrorKind::NotFound { similar: Some(similar), .. } => CommandError::message(
            ExitReason::NotFound,
            format!(
                "no plugin {name:?}, did you mean {similar:?}? A file is named with a slash, as in \
                 ./{name}"
            ),
        ),
        FindErrorKind::NotFound { .. } => {
            let list = list_command(host);
            let hint = format!(
                "{error}; a file is named with a slash, as in ./{name}, and `{}` lists the plugins \
                 that are found by name",
                Escaped(&list)
            );
            CommandError::message(ExitReason::NotFound, hint)
        }
        FindErrorKind::Unusable { .. } => CommandError::new(ExitReason::NotStarted, error),
        _ => CommandError::new(ExitReason::NotFound, error),
    }
}
