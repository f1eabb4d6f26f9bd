//! Built-in plugins, to try out hosts and commands: `@NAME`.
//!
//! The host starts this executable again, with [`SUBCOMMAND`] and the plugin's name as the first
//! arguments after the descriptors.

mod echo;

use std::ffi::{OsStr, OsString};
use std::process::ExitCode;

use crate::commands::replay;

/// First argument after the descriptors when this program runs as a plugin.
pub(crate) const SUBCOMMAND: &str = "__plugin";

/// Built-in plugin.
#[derive(Debug)]
pub(crate) struct BuiltIn {
    /// Name without the `@`.
    pub(crate) name: &'static str,
    /// Description in one line.
    pub(crate) description: &'static str,
    /// Commands that it answers.
    pub(crate) commands: &'static [&'static str],
    run: fn(&BuiltIn) -> ExitCode,
}

/// All built-in plugins.
pub(crate) static ALL: [BuiltIn; 1] = [BuiltIn {
    name: "echo",
    description: "answers what it is told, and misbehaves on demand",
    commands: &echo::COMMANDS,
    run: echo::run,
}];

/// Name of the plugin that `pipeplug replay --as guest` has a host start.
pub(crate) const STAND_IN: &str = "replay";

/// The plugin of that name, which is in no list.
static REPLAY: BuiltIn = BuiltIn {
    name: STAND_IN,
    description: "plays the plugin of a recording",
    commands: &[],
    run: |_| replay::as_guest::stand_in_main(),
};

/// Finds a built-in plugin by its name.
pub(crate) fn find(name: &str) -> Option<&'static BuiltIn> {
    ALL.iter().find(|plugin| plugin.name == name)
}

/// Returns the built-in plugin that the arguments select. `None` if no host started this process.
///
/// Call this before clap: the arguments of a plugin begin with the numbers of its descriptors.
pub(crate) fn of_command_line(args: &[OsString]) -> Option<&'static BuiltIn> {
    let own = args.get(1..)?;
    let own = match own {
        [reader, writer, own @ ..] if is_number(reader) && is_number(writer) => own,
        own => own,
    };
    match own {
        [subcommand, name, ..] if subcommand == SUBCOMMAND && name == STAND_IN => Some(&REPLAY),
        [subcommand, name, ..] if subcommand == SUBCOMMAND => find(name.to_str()?),
        _ => None,
    }
}

impl BuiltIn {
    /// Runs this plugin until its host stops it.
    pub(crate) fn run(&self) -> ExitCode {
        (self.run)(self)
    }
}

fn is_number(arg: &OsStr) -> bool {
    let bytes = arg.as_encoded_bytes();
    !bytes.is_empty() && bytes.iter().all(u8::is_ascii_digit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_subcommand_follows_the_descriptors() {
        let plugin = |args: &[&str]| {
            let args: Vec<_> = args.iter().map(OsString::from).collect();
            of_command_line(&args).map(|plugin| plugin.name)
        };
        assert_eq!(plugin(&["pipeplug", "3", "4", "__plugin", "echo"]), Some("echo"));
        assert_eq!(plugin(&["pipeplug", "__plugin", "echo", "--own"]), Some("echo"));
        assert_eq!(plugin(&["pipeplug", "3", "__plugin", "echo"]), None);
        assert_eq!(plugin(&["pipeplug", "3", "4", "__plugin", "other"]), None);
        assert_eq!(plugin(&["pipeplug", "run", "__plugin", "echo"]), None);
        assert_eq!(plugin(&["pipeplug"]), None);
        assert_eq!(plugin(&[]), None);
    }
}
