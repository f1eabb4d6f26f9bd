//! Output of the program: events, their text and JSON forms, and the writes to stdout and stderr.

pub(crate) mod bar;
pub(crate) mod event;
pub(crate) mod logging;
pub(crate) mod report;
pub(crate) mod services;
pub(crate) mod stream;
pub(crate) mod style;
pub(crate) mod text;
