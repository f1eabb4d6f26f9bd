//! The event loop, connections and calls of pipeplug, over raw descriptors.
//!
//! An [`EventLoop`] is one thread that serves any number of [`Connection`]s. A connection is the same on both sides:
//! it calls, notifies, and has a [`Handler`] answer what the other side asks. Nothing here starts a process or knows
//! who is host and who is guest.

mod alarm;
mod bell;
mod body;
mod call;
mod cancel;
mod clock;
mod connection;
mod core;
mod crowd;
mod deadline;
mod dispatch;
mod error;
mod escape;
mod event_loop;
mod flow;
mod handler;
mod inbox;
mod job;
mod last_look;
mod lead;
mod lock;
#[cfg(all(test, shuttle))]
mod models;
mod options;
mod outbox;
mod pool;
mod postmortem;
mod reading;
mod spent;
mod spin;
mod sync;
mod sys;
mod unread;
mod watch;

pub use body::Body;
pub use call::{CallError, NotifyError, PendingCall};
pub use cancel::Cancellation;
pub use connection::{ConnectError, Connection, Endpoint, Stats};
pub use error::CloseReason;
pub use escape::Escaped;
pub use event_loop::EventLoop;
pub use flow::Credit;
pub use handler::{FAILED_ONE_WAYS, Handler, HandlerError, Incoming, Refuse, Reply, Responder};
pub use options::{Hold, Options, Reading};
pub use pipeplug_wire as wire;
pub use postmortem::{ChunkHead, OpenCall, Postmortem};
pub use watch::{Watch, Watcher};
