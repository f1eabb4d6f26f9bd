//! Rules of the protocol that need no descriptor, thread or clock: flow control, deadlines and contexts.

pub(crate) mod context;
pub(crate) mod deadline;
pub(crate) mod failure;
pub(crate) mod flow;
pub(crate) mod interface_versions;
pub(crate) mod progress;
