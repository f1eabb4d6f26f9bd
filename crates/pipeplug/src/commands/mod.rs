//! Subcommands: one module each, with the arguments, the help and the run of the command.

pub(crate) mod add;
pub(crate) mod bench;
pub(crate) mod bindings;
pub(crate) mod chunk;
pub(crate) mod conform;
pub(crate) mod dev;
pub(crate) mod diff;
pub(crate) mod doctor;
pub(crate) mod generate;
pub(crate) mod inspect;
pub(crate) mod list;
pub(crate) mod new;
pub(crate) mod pack;
pub(crate) mod pin;
pub(crate) mod replay;
pub(crate) mod rm;
pub(crate) mod run;
pub(crate) mod shell;
pub(crate) mod top;
pub(crate) mod trace;
