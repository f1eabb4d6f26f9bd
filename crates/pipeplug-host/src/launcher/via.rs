//! Plugins that another program starts.

use std::ffi::{OsStr, OsString};

use super::{Launcher, Started, carrier};
use crate::process::{Launch, SpawnError};

/// Runs a plugin by a command that ends with it, and that carries its standard input and output: `nice`, `sudo -n`,
/// `nsenter …`, `bwrap …`, `srun …`, `nomad alloc exec …`.
///
/// The command gets the plugin's path and arguments as its own last ones, and all of the host's environment, which it may
/// need for itself; variables of the plugin ([`Builder::env`](crate::Builder::env)) are set for the command. What of all
/// that the plugin gets is the command's choice: `env -i` ahead of the plugin leaves nothing. Its standard
/// error counts as the plugin's. Signals go to the command's process group.
#[derive(Debug, Clone)]
pub struct Via {
    command: Vec<OsString>,
}

impl Via {
    /// The command's program, which is looked for in `PATH`, and its arguments.
    pub fn new(command: impl IntoIterator<Item = impl Into<OsString>>) -> Self {
        Self { command: command.into_iter().map(Into::into).collect() }
    }

    fn program(&self) -> &OsStr {
        self.command.first().map_or(OsStr::new(""), OsString::as_os_str)
    }
}

impl Launcher for Via {
    fn start(&self, launch: &Launch) -> Result<Started, SpawnError> {
        let mut args: Vec<_> = self.command.iter().skip(1).cloned().collect();
        args.extend(carrier::command_line(launch));
        let mut carrier = carrier::launch(launch, self.program(), args)?;
        carrier.env = launch.env.clone().with_all();
        carrier.cwd.clone_from(&launch.cwd);
        carrier::start(launch, &carrier, self)
    }

    fn describe(&self) -> Option<String> {
        let words: Vec<_> = self.command.iter().map(|word| word.to_string_lossy()).collect();
        Some(format!("via `{}`", words.join(" ")))
    }
}
