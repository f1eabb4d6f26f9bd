//! The event loop, connections and calls of pipeplug, over raw descriptors.
//!
//! An [`EventLoop`] is one thread that serves any number of [`Connection`]s. A connection is the
//! same on both sides: it calls, notifies, and has a [`Handler`] answer what the other side asks.
//! Nothing here starts a process or knows who is host and who is guest.

#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

mod clock;
mod connection;
mod error;
mod escape;
mod event_loop;
#[doc(hidden)]
pub mod internal;
#[cfg(all(test, shuttle))]
mod models;
mod options;
mod payload;
mod postmortem;
mod protocol;
pub mod recording;
mod sync;
#[expect(unsafe_code, reason = "system calls that no crate wraps")]
mod sys;
mod writer;

pub use clock::Clock;
pub use connection::async_handler::HandlerFuture;
pub use connection::awaited::AwaitedCall;
pub use connection::call::PendingCall;
pub use connection::call_error::{CallError, CallFailure, NotifyError, Retry, Sent};
pub use connection::caller::{Caller, OutgoingRequest, PendingReply, RequestBuilder, StreamSides};
pub use connection::cancel_handle::CancelHandle;
pub use connection::cancellation::Cancellation;
pub use connection::handler::{Handler, HandlerError, Refuse, Reply, Request};
pub use connection::progress::{ProgressReports, ProgressSender};
pub use connection::responder::Responder;
pub use connection::stream::error::StreamError;
pub use connection::stream::part::Part;
pub use connection::stream::receive::Parts;
pub use connection::stream::reply_parts::ReplyParts;
pub use connection::stream::send::PartSender;
pub use connection::stream::stream_call::StreamCall;
pub use connection::turn::Turn;
pub use connection::{ConnectError, Connection, Endpoint, Stats};
pub use error::CloseReason;
pub use escape::Escaped;
pub use event_loop::EventLoop;
pub use options::{Hold, Options, Order, Reading};
pub use payload::Payload;
pub use pipeplug_wire as wire;
pub use postmortem::{ChunkHead, OpenCall, Postmortem};
pub use protocol::failure::{Failure, failure_code};
pub use protocol::flow::Credit;
pub use protocol::progress::Progress;
pub use recording::Recording;
