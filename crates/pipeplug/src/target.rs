//! PLUGIN on the command line: a path, a name to look for, or a plugin of our own.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use pipeplug_host::discovery::{Discovery, FindError, PluginInfo, Problem};
use pipeplug_host::{Plugin, PluginBuilder};

use crate::add::check_host;
use crate::builtin::{self, BuiltIn};
use crate::exit::{Failure, Outcome};
use crate::text::Escaped;

/// The host whose plugins are found by name.
pub(crate) const HOST: &str = "pipeplug";

/// What is to be started.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Wanted<'a> {
    /// PLUGIN, to be found on this machine among the plugins of this host.
    Here(&'a OsStr, &'a str),
    /// A path where it runs, of which this machine knows nothing.
    PathThere(&'a OsStr),
    /// What the place has, by its name.
    Placed(&'a str),
}

impl Wanted<'_> {
    /// What it is called in messages, whether there is such a plugin or not.
    pub(crate) fn display_name(self) -> String {
        match self {
            Self::Here(plugin, _) => {
                let name = last_part(plugin);
                name.strip_prefix('@').unwrap_or(&name).to_owned()
            }
            Self::PathThere(path) => last_part(path),
            Self::Placed(name) => name.to_owned(),
        }
    }
}

fn last_part(path: &OsStr) -> String {
    Path::new(path).file_name().unwrap_or(path).to_string_lossy().into_owned()
}

/// A plugin that there is.
#[derive(Debug)]
pub(crate) struct Target {
    name: String,
    kind: Kind,
    /// What the plugin said of itself when it was last asked, where it was found by its name.
    remembered: Option<PluginInfo>,
    /// The choice that a name without a slash left, where a file of that name is in the working
    /// directory.
    pub(crate) choice: Option<Choice>,
    /// Files of its name in earlier places, which cannot be used.
    pub(crate) passed_over: Vec<(PathBuf, Problem)>,
}

/// A choice between an installed plugin and a file of its name in the working directory.
#[derive(Debug)]
pub(crate) enum Choice {
    /// The installed plugin, which is at this path.
    Installed(PathBuf),
    /// The file: no such plugin is installed.
    FileHere,
}

#[derive(Debug)]
enum Kind {
    File(PathBuf),
    Placed,
    BuiltIn(&'static BuiltIn),
}

impl Target {
    /// Finds it.
    ///
    /// # Errors
    /// Where nothing has that name, or what has it cannot be used.
    pub(crate) fn find(wanted: Wanted<'_>) -> Result<Self, Failure> {
        let of_kind = |kind| Self {
            name: wanted.display_name(),
            kind,
            remembered: None,
            choice: None,
            passed_over: Vec::new(),
        };
        let (plugin, host) = match wanted {
            Wanted::Here(plugin, host) => (plugin, host),
            Wanted::PathThere(path) if path.as_bytes().starts_with(b"@") => {
                return Err(not_there(path));
            }
            Wanted::PathThere(path) => return Ok(of_kind(Kind::File(path.into()))),
            Wanted::Placed(_) => return Ok(of_kind(Kind::Placed)),
        };
        if let [b'@', name @ ..] = plugin.as_bytes() {
            return built_in(&String::from_utf8_lossy(name));
        }
        let path = Path::new(plugin);
        if plugin.as_bytes().contains(&b'/') {
            return Ok(of_kind(Kind::File(path.to_owned())));
        }
        check_host(host)?;
        let name = plugin.to_string_lossy();
        let discovery = Discovery::for_host(host);
        match discovery.find(&name) {
            Ok(found) => Ok(Self {
                name: name.into_owned(),
                remembered: discovery.catalog().remembered(&found.path),
                choice: path.is_file().then(|| Choice::Installed(found.path.clone())),
                kind: Kind::File(found.path),
                passed_over: found.passed_over,
            }),
            // What is installed goes first, so that no file that happens to lie here is run in place
            // of it.
            Err(FindError::NotFound { .. }) if path.is_file() => Ok(Self {
                choice: Some(Choice::FileHere),
                ..of_kind(Kind::File(Path::new(".").join(path)))
            }),
            Err(error) => Err(not_found(&name, host, path, error)),
        }
    }

    /// The name that people call it by.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The file that it is on this machine; `None` for one that is built in, or elsewhere.
    pub(crate) fn file(&self) -> Option<&Path> {
        match &self.kind {
            Kind::File(path) => Some(path),
            Kind::Placed | Kind::BuiltIn(_) => None,
        }
    }

    /// What it said of itself when it was last asked; `None` where that is not known, or it was not
    /// found by its name.
    pub(crate) fn remembered(&self) -> Option<&PluginInfo> {
        self.remembered.as_ref()
    }

    /// What starts it, with no other setting made.
    ///
    /// # Errors
    /// Where the system does not tell the path of this program.
    pub(crate) fn builder(&self) -> anyhow::Result<PluginBuilder> {
        let builder = match &self.kind {
            Kind::File(path) => Plugin::builder(path),
            Kind::Placed => Plugin::preinstalled(&self.name),
            Kind::BuiltIn(plugin) => {
                let program = std::env::current_exe()
                    .context("the path of this program cannot be found out")?;
                Plugin::builder(program).args([builtin::SUBCOMMAND, plugin.name])
            }
        };
        Ok(builder.name(&self.name))
    }
}

fn not_there(plugin: &OsStr) -> Failure {
    let name = plugin.to_string_lossy();
    let name = Escaped(&name);
    let message = format!(
        "{name} is built into this program, and not there; name a file that is, as in ./{name}"
    );
    Failure::message(Outcome::NotFound, message)
}

fn built_in(name: &str) -> Result<Target, Failure> {
    match builtin::find(name) {
        Some(plugin) => {
            let name = name.to_owned();
            Ok(Target {
                name,
                kind: Kind::BuiltIn(plugin),
                remembered: None,
                choice: None,
                passed_over: Vec::new(),
            })
        }
        None => {
            let all: Vec<_> =
                builtin::ALL.iter().map(|plugin| format!("@{}", plugin.name)).collect();
            let (name, all) = (Escaped(name), all.join(", "));
            Err(Failure::message(
                Outcome::NotFound,
                format!(
                    "no plugin \"@{name}\" is built in, there is {all}; a file of that name is ./@{name}"
                ),
            ))
        }
    }
}

/// The command that lists a host's plugins.
pub(crate) fn list_command(host: &str) -> String {
    match host {
        HOST => "pipeplug list".to_owned(),
        // What no shell can be given, a NUL, is in no argument.
        host => format!("pipeplug list --host {}", shlex::try_quote(host).unwrap_or(host.into())),
    }
}

fn not_found(name: &str, host: &str, path: &Path, error: FindError) -> Failure {
    match &error {
        FindError::NotFound { .. } if path.is_dir() => Failure::message(
            Outcome::NotStarted,
            format!("{path:?} is a directory: name the executable file inside it"),
        ),
        FindError::NotFound { similar: Some(similar), .. } => Failure::message(
            Outcome::NotFound,
            format!(
                "no plugin {name:?}, did you mean {similar:?}? A file is named with a slash, as in ./{name}"
            ),
        ),
        FindError::NotFound { .. } => {
            let list = list_command(host);
            let hint = format!(
                "{error}; a file is named with a slash, as in ./{name}, and `{}` shows what is found by name",
                Escaped(&list)
            );
            Failure::message(Outcome::NotFound, hint)
        }
        FindError::Unusable { .. } => Failure::new(Outcome::NotStarted, error),
        _ => Failure::new(Outcome::NotFound, error),
    }
}
