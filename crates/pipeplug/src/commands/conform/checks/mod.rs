//! Checks of plugins, by group.

pub(super) mod broken;
pub(super) mod call;
pub(super) mod end;
pub(super) mod features;
pub(super) mod flow;
pub(super) mod format;
pub(super) mod load;
pub(super) mod services;
pub(super) mod start;
pub(super) mod stream;
