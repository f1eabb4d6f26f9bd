//! Rules of the protocol that need no descriptor, thread or clock: flow control and deadlines.

pub(crate) mod deadline;
pub(crate) mod flow;
