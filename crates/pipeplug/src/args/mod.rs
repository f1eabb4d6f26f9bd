//! Arguments that several subcommands share, and the conversion of their values.

pub(crate) mod container;
pub(crate) mod data;
pub(crate) mod kubectl;
pub(crate) mod place;
pub(crate) mod start;
pub(crate) mod steps;
pub(crate) mod target;
pub(crate) mod units;
pub(crate) mod walls;
