//! Plugins inside this program's own executable, for trying things out: `@NAME`.
//!
//! The host starts this executable again, with [`SUBCOMMAND`] and the plugin's name as its first
//! own arguments.

mod echo;

use std::ffi::{OsStr, OsString};
use std::process::ExitCode;

/// What stands behind the descriptors' numbers where this program is to be a plugin.
pub(crate) const SUBCOMMAND: &str = "__plugin";

/// A plugin that is always there.
#[derive(Debug)]
pub(crate) struct BuiltIn {
    /// Its name, without the `@`.
    pub(crate) name: &'static str,
    /// What it is, in one line.
    pub(crate) description: &'static str,
    run: fn(&BuiltIn) -> ExitCode,
}

/// All there are.
pub(crate) static ALL: [BuiltIn; 1] = [BuiltIn {
    name: "echo",
    description: "answers what it is told, and misbehaves on demand",
    run: echo::run,
}];

/// The plugin of that name.
pub(crate) fn find(name: &str) -> Option<&'static BuiltIn> {
    ALL.iter().find(|plugin| plugin.name == name)
}

/// The plugin that this process is to be, by its command line; `None` where a person or a script
/// started it.
///
/// This is to be asked ahead of clap: the descriptors' numbers come first in a plugin's arguments.
pub(crate) fn of_command_line(args: &[OsString]) -> Option<&'static BuiltIn> {
    let own = args.get(1..)?;
    let own = match own {
        [reader, writer, own @ ..] if is_number(reader) && is_number(writer) => own,
        own => own,
    };
    match own {
        [subcommand, name, ..] if subcommand == SUBCOMMAND => find(name.to_str()?),
        _ => None,
    }
}

impl BuiltIn {
    /// Is this plugin until its host has no more use for it.
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
    fn the_subcommand_stands_behind_the_descriptors() {
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
