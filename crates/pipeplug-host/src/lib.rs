//! The host's side of pipeplug: finds plugins, starts them, calls them, stops them.
//!
//! ```no_run
//! use pipeplug_host::{HandlerError, Incoming, Plugin, Reply};
//!
//! fn answer(plugin: &Plugin, incoming: &mut Incoming) -> Result<Reply, HandlerError> {
//!     match incoming.command() {
//!         "log" => Ok(eprintln!("{}: {}", plugin.name(), incoming.text()?).into()),
//!         _ => incoming.unknown(),
//!     }
//! }
//!
//! let plugin = Plugin::builder("./target/debug/echo").handler(answer).start()?;
//! println!("{}", plugin.call("echo", "hello")?);
//! plugin.stop()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Calls can be awaited ([`Connection::begin_call`]), under any executor; docs/async.md of the project says what blocks, and on
//! what.

#![deny(unsafe_code)]

mod access;
mod builder;
mod crash;
mod directory_lock;
pub mod discovery;
mod gate;
mod handshake;
mod json;
pub mod launcher;
mod lines;
mod lock_file;
mod metadata;
mod plugin;
pub mod process;
mod regular_file;
pub mod sandbox;
mod sha256;
mod start_error;
mod start_hint;
mod stop;
mod supervisor;
#[expect(unsafe_code, reason = "the one room of this crate that talks to the kernel by hand")]
mod sys;
mod terminal;
mod wait_status;

pub use builder::{Builder, Request};
pub use crash::{Crash, Ended};
pub use lines::Output;
pub use lock_file::{LockFile, LockFileError};
pub use metadata::Metadata;
pub use pipeplug_net as net;
pub use pipeplug_net::{
    CallError, Cancellation, Connection, Escaped, EventLoop, HandlerError, Incoming, NotifyError,
    PendingCall, Reply, Responder,
};
pub use plugin::Plugin;
pub use process::{HostLost, Stdin, Stdout};
pub use sandbox::Sandbox;
pub use sha256::{ParseSha256Error, Sha256};
pub use start_error::StartError;
pub use stop::{Grace, StopError, Stopped, StoppedBy};
pub use supervisor::{
    Backoff, Breaker, EndCause, Event, Failure, HealthCheck, Pool, SupervisedCall, SupervisedCallError,
    SupervisedNotifyError, Supervisor, SupervisorBuilder, Unavailable,
};
pub use wait_status::WaitStatus;
