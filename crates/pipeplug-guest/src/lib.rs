//! The plugin's side of pipeplug: register call-backs, be called, call the host.
//!
//! ```no_run
//! use pipeplug_guest::{Incoming, Main, register};
//!
//! fn main() -> std::process::ExitCode {
//!     let answer = |_host: &Main, asked: &mut Incoming| match asked.command() {
//!         "echo" => Ok(asked.take_buffer().into()),
//!         _ => asked.unknown(),
//!     };
//!     register((), answer).wait()
//! }
//! ```
//!
//! Logs go to standard error, which the host reads line by line. Standard output is the host's to choose; a plugin
//! that talks over its standard output has that moved away first, so that a stray `println!` lands on standard error.

mod acquaintance;
mod descriptors;
mod exit;
mod guest;
mod listen;
mod main_handle;
mod metadata;
mod register_error;
mod stopping;
mod sys;

pub use exit::OnEnd;
pub use guest::{Guest, Request, Start, register};
pub use listen::ListenError;
pub use main_handle::Main;
pub use pipeplug_net as net;
pub use pipeplug_net::{
    CallError, Cancellation, Connection, HandlerError, Incoming, NotifyError, PendingCall, Reply, Responder,
};
pub use register_error::RegisterError;
pub use stopping::{Stop, Stopping};
