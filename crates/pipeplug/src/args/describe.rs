//! Options of commands that start plugins only to ask for the description of their services.

use std::ffi::{OsStr, OsString};
use std::time::Duration;

use clap::{Args, Parser};

use crate::args::sandbox::RightsArgs;
use crate::args::start::StartArgs;
use crate::args::units::parse_duration;
use crate::exit::{CommandError, ExitReason};

#[derive(Debug, Args)]
#[command(next_help_heading = "Starting plugins")]
pub(crate) struct DescribeArgs {
    /// Time limit of the start of a plugin, and of its answer, as 500ms, 2s or 1m [default: 10s]
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    timeout: Option<Duration>,

    #[command(flatten)]
    rights: RightsArgs,
}

/// Command line of a start without other options than the plugin.
#[derive(Debug, Parser)]
struct Defaults {
    #[command(flatten)]
    start: StartArgs,
}

impl DescribeArgs {
    /// Options of the start of a plugin.
    ///
    /// # Errors
    /// The plugin has a name that only an option has.
    pub(crate) fn start_args(&self, plugin: &OsStr) -> Result<StartArgs, CommandError> {
        let args = [OsString::new(), plugin.to_owned()];
        let Defaults { mut start } = Defaults::try_parse_from(args).map_err(|_| {
            let plugin = plugin.to_string_lossy();
            let message = format!("{plugin} is no plugin: a path has a slash, as in ./{plugin}");
            CommandError::message(ExitReason::Usage, message)
        })?;
        start.timeout = self.timeout;
        start.sandbox.rights = self.rights.clone();
        Ok(start)
    }
}
