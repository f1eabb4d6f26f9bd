//! Arguments that several subcommands share, and the conversion of their values.

mod allow_hint;
pub(crate) mod calls;
pub(crate) mod config;
pub(crate) mod config_file;
pub(crate) mod container;
pub(crate) mod data;
pub(crate) mod describe;
pub(crate) mod kubectl;
pub(crate) mod launcher;
pub(crate) mod record;
pub(crate) mod sandbox;
pub(crate) mod start;
pub(crate) mod target;
pub(crate) mod units;
