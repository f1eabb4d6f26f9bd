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
//! Logs go to standard error, which the host reads line by line. Standard output is the host's to
//! choose; a plugin that talks over its standard output has that moved away first, so that a stray
//! `println!` lands on standard error.

#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

mod descriptors;
mod exit;
mod guest;
mod listen;
mod main_handle;
mod metadata;
mod register_error;
mod shell_word;
mod startup;
mod stopping;
#[expect(unsafe_code, reason = "system calls that no crate wraps")]
mod sys;

pub use exit::OnEnd;
pub use guest::{Guest, Start, register};
pub use listen::ListenError;
pub use main_handle::{Handler, Main};
pub use pipeplug_net::wire::{Chunk, Direction, Format, Limits, ThreadId};
pub use pipeplug_net::{
    AwaitedCall, CallError, Caller, CancelHandle, Cancellation, ChunkHead, CloseReason, Connection,
    Credit, Escaped, EventLoop, HandlerError, HandlerFuture, NotifyError, OpenCall, Options, Order,
    OutgoingRequest, Part, PartSender, Parts, Payload, PendingCall, PendingReply, Postmortem,
    Reading, Reply, ReplyParts, Request, RequestBuilder, Responder, Stats, StreamCall, StreamError,
    StreamSides, Turn,
};
pub use register_error::RegisterError;
pub use stopping::{Stop, Stopping};
