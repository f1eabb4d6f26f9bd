//! Calls with their spans, made of the records of a recording: in a file, or while it is made.

pub(crate) mod lines;
pub(crate) mod live;
pub(crate) mod spans;
