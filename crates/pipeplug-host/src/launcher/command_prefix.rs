//! Plugins that another program starts.

use std::ffi::{OsStr, OsString};
use std::os::fd::AsFd as _;
use std::path::{self, Path};

use super::settings::Settings;
use super::{Diagnosis, Launcher, Started, client};
use crate::files::may_execute;
use crate::process::{Executable, Launch, SpawnError, SpawnErrorKind, WaitStatus};

/// Runs a plugin by a command that ends with it, and that carries its standard input and output:
/// `nice`, `sudo -n`, `nsenter …`, `bwrap …`, `docker exec -i …`.
///
/// The command gets the plugin's path and arguments as its own last ones. It runs with the host's
/// environment and working directory, which it may need for itself, and passes on of these what it
/// likes. What is set for the plugin, variables ([`PluginBuilder::env`](crate::PluginBuilder::env),
/// [`env_pass`](crate::PluginBuilder::env_pass), [`env_remove`](crate::PluginBuilder::env_remove))
/// and a working directory, reaches the plugin past every such command: there the command starts
/// `/bin/sh`, which reads it from its standard input and executes the plugin. Only where this
/// machine cannot execute the plugin, and the command is an interpreter or an emulator, it is set
/// for the command. The command's standard error counts as the plugin's. Signals go to the
/// command's process group.
#[derive(Debug, Clone)]
pub struct CommandPrefix {
    command: Vec<OsString>,
}

impl CommandPrefix {
    /// The command's program, which is looked for in `PATH`, and its arguments.
    pub fn new(command: impl IntoIterator<Item = impl Into<OsString>>) -> Self {
        Self { command: command.into_iter().map(Into::into).collect() }
    }

    /// The names, without directories, of what may be a program among its words.
    fn programs(&self) -> impl Iterator<Item = String> {
        let words = self.command.iter().map(|word| word.to_string_lossy());
        let words = words.filter(|word| !word.starts_with('-') && !word.contains([' ', '=']));
        words.filter_map(|word| Some(Path::new(&*word).file_name()?.to_str()?.to_owned()))
    }

    fn run(&self, launch: &Launch) -> Result<Started, SpawnErrorKind> {
        let by = Passing::of(launch)?;
        let mut args: Vec<_> = self.command.iter().skip(1).cloned().collect();
        if let Passing::Shell(_) = by {
            args.extend(Settings::shell());
        }
        args.extend(client::command_line(launch));
        let mut client = client::launch(launch, self.program(), args)?;
        if let Passing::Inheritance = by {
            client.env = launch.env.clone().with_all();
            client.cwd.clone_from(&launch.cwd);
        }
        let started = client::start(&client, self)?;
        if let Passing::Shell(settings) = by {
            let sent = settings.send(started.to_guest.as_fd());
            sent.map_err(|error| {
                SpawnErrorKind::launcher(self.describe(), error.to_string(), false)
            })?;
        }
        Ok(started)
    }

    fn program(&self) -> &OsStr {
        self.command.first().map_or(OsStr::new(""), OsString::as_os_str)
    }
}

impl Launcher for CommandPrefix {
    fn start(&self, launch: &Launch) -> Result<Started, SpawnError> {
        let launch = from_root(launch).map_err(|kind| kind.at(&launch.program))?;
        self.run(&launch).map_err(|kind| kind.at(&launch.program))
    }

    fn describe(&self) -> Option<String> {
        let words: Vec<_> = self.command.iter().map(|word| word.to_string_lossy()).collect();
        Some(format!("via `{}`", words.join(" ")))
    }

    fn diagnose(&self, status: WaitStatus, stderr: &[String]) -> Option<Diagnosis> {
        // Of a container without a shell, of an interpreter that reads it as a program, of an
        // emulator, of sudo.
        let of_shell = ["\"/bin/sh\"", "/bin/sh: Invalid", "_pipeplug"];
        let is_of_shell = |line: &String| of_shell.iter().any(|words| line.contains(words));
        if status.success() {
            return None;
        }
        if stderr.iter().any(is_of_shell) {
            return Some(Diagnosis::permanent(
                "it did not run the /bin/sh that sets the plugin's variables and directory (--env, \
                 --env-pass, --cwd): leave these out, or set them in the command, as by `env \
                 NAME=VALUE` at its end",
            ));
        }
        let failed = self.programs().find(|name| is_told_by(name, stderr))?;
        let next = if says_missing(stderr) {
            "check that the command finds the plugin and its interpreter, also as another user or \
             in another root directory"
        } else {
            "correct it, or have it start `cat` instead of the plugin to find out what it lacks"
        };
        Some(Diagnosis::permanent(format!("`{failed}` of that command failed ({status}): {next}")))
    }

    fn diagnose_end(&self, _status: WaitStatus, _stderr: &[String]) -> Option<Diagnosis> {
        // It has run the plugin.
        None
    }
}

/// Looks for lines of a program's own, which begin with its name or path.
fn is_told_by(name: &str, stderr: &[String]) -> bool {
    stderr.iter().any(|line| {
        let (path, _) = line.split_once(": ").unwrap_or_default();
        path == name || path.ends_with(&format!("/{name}"))
    })
}

fn says_missing(stderr: &[String]) -> bool {
    let missing = ["No such file", "not found", "Permission denied"];
    stderr.iter().any(|line| missing.iter().any(|words| line.contains(words)))
}

/// The way to the plugin for what is set for it.
#[derive(Debug)]
enum Passing {
    /// Behind the command, which may pass on nothing of its own.
    Shell(Settings),
    /// By the command, as its own.
    Inheritance,
    /// No setting to pass.
    Nothing,
}

impl Passing {
    fn of(launch: &Launch) -> Result<Self, SpawnErrorKind> {
        if is_for_another_program(&launch.program) {
            return Ok(Self::Inheritance);
        }
        Ok(Settings::of(launch)?.map_or(Self::Nothing, Self::Shell))
    }
}

/// Looks for a plugin that this machine cannot execute: its command is an emulator or an
/// interpreter, which takes a file for its own machine or language, and no shell.
fn is_for_another_program(plugin: &Path) -> bool {
    match Executable::inspect(plugin) {
        Ok(Executable::Elf(elf)) => !elf.machine.is_ours(),
        Ok(Executable::Script { .. }) => !may_execute(plugin),
        Ok(Executable::Other(_)) => true,
        // It may be somewhere else, as in a container.
        Err(_) => false,
    }
}

/// The same with a relative path taken from the host's working directory, which the command may
/// leave. A name without a slash that is no file here is left to the command, which may look for it
/// in its `PATH`.
fn from_root(launch: &Launch) -> Result<Launch, SpawnErrorKind> {
    let path = &launch.program;
    let mut launch = launch.clone();
    if path.is_relative()
        && !launch.is_preinstalled
        && (path.components().count() > 1 || path.is_file())
    {
        launch.program = path::absolute(path)
            .map_err(|error| SpawnErrorKind::os("finding the working directory", error))?;
    }
    Ok(launch)
}
