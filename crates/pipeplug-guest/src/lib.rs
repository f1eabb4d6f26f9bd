//! The plugin's side of pipeplug: register call-backs, be called, call the host.
//!
//! ```no_run
//! use pipeplug_guest::{Main, Request, register};
//!
//! fn main() -> std::process::ExitCode {
//!     let answer = |_host: &Main, request: &mut Request| match request.command() {
//!         "echo" => Ok(request.take_buffer().into()),
//!         _ => request.unknown(),
//!     };
//!     register((), answer).wait()
//! }
//! ```
//!
//! Logs go to standard error, which the host reads line by line; with the feature `logging`,
//! `logging()` sends events of `tracing` there whose level the host sets. Standard output is the host's to
//! choose; a plugin that talks over its standard output has that moved away first, so that a stray
//! `println!` lands on standard error.

#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

mod config;
mod descriptors;
mod exit;
mod guest;
#[doc(hidden)]
pub mod internal;
mod listen;
#[cfg(feature = "logging")]
mod logging;
#[cfg(not(feature = "logging"))]
#[path = "logging/absent.rs"]
mod logging;
mod main_handle;
mod metadata;
mod permissions;
mod register_error;
#[cfg(feature = "service")]
mod services;
#[cfg(not(feature = "service"))]
#[path = "services/absent.rs"]
mod services;
mod shell_word;
mod startup;
mod stopping;
#[expect(unsafe_code, reason = "system calls that no crate wraps")]
mod sys;

pub use config::ConfigError;
pub use exit::OnEnd;
pub use guest::{Guest, Start, register};
pub use listen::ListenError;
#[cfg(feature = "logging")]
pub use logging::{LoggingError, logging};
pub use main_handle::{Handler, Main};
pub use permissions::Permissions;
pub use pipeplug_net::wire::{Chunk, Direction, Format, Limits, ThreadId};
pub use pipeplug_net::{
    AwaitedCall, CallError, CallFailure, Caller, CancelHandle, Cancellation, ChunkHead,
    CloseReason, Connection, Credit, Escaped, EventLoop, Failure, HandlerError, HandlerFuture,
    NotifyError, OpenCall, Options, Order, OutgoingRequest, Part, PartSender, Parts, Payload,
    PendingCall, PendingReply, Postmortem, Progress, ProgressReports, ProgressSender, Reading,
    Reply, ReplyParts, Request, RequestBuilder, Responder, Retry, Sent, Stats, StreamCall,
    StreamError, StreamSides, Turn, failure_code,
};
pub use register_error::RegisterError;
#[cfg(feature = "service")]
pub use services::serve;
pub use stopping::{Stop, Stopping};
