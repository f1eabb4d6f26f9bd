//! The host's side of pipeplug: finds plugins, starts them, calls them, stops them.
//!
//! ```no_run
//! use pipeplug_host::{HandlerError, Plugin, Reply, Request};
//!
//! fn answer(plugin: &Plugin, request: &mut Request) -> Result<Reply, HandlerError> {
//!     match request.command() {
//!         "log" => Ok(eprintln!("{}: {}", plugin.name(), request.text()?).into()),
//!         _ => request.unknown(),
//!     }
//! }
//!
//! let plugin = Plugin::builder("./target/debug/echo").handler(answer).start()?;
//! println!("{}", plugin.call("echo", "hello")?);
//! plugin.stop()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Features, all on by default: `containers`, `kubectl` and `ssh` are launchers, `discovery` finds
//! and installs plugins, `sandbox` confines them, `supervisor` restarts them, `verify` starts only
//! files of a known sum. `pack` and `service`, which are off by
//! default, make images for containers, and call and serve typed services (`pipeplug-service`). A feature
//! that is off takes its functions away and changes nothing else. `discovery` needs `sandbox` and
//! `verify`: it probes unknown plugins in a sandbox, and records the sums of installed ones.
//!
//! Calls can be awaited ([`Plugin::request`]), under any executor; docs/async.md of the project
//! says what blocks, and on what.

#![cfg_attr(not(test), deny(clippy::disallowed_methods))]
#![cfg_attr(
    not(any(
        test,
        all(
            feature = "discovery",
            feature = "sandbox",
            feature = "supervisor",
            feature = "verify"
        )
    )),
    expect(dead_code, reason = "parts of the crate serve the features that are left out")
)]

#[cfg(feature = "discovery")]
pub mod discovery;
mod files;
#[cfg(feature = "verify")]
mod integrity;
pub mod launcher;
mod permissions;
mod plugin;
pub mod process;
#[cfg(feature = "sandbox")]
mod sandbox;
#[cfg(not(feature = "sandbox"))]
#[path = "sandbox/absent.rs"]
mod sandbox;
#[cfg(feature = "service")]
mod services;
#[cfg(not(feature = "service"))]
#[path = "services/absent.rs"]
mod services;
pub mod status;
#[cfg(feature = "supervisor")]
mod supervisor;
#[expect(unsafe_code, reason = "system calls that no crate wraps")]
mod sys;

#[cfg(feature = "verify")]
pub use integrity::{LockFile, LockFileError, LockFileErrorKind, ParseSha256Error, Sha256};
pub use permissions::{Permissions, PermissionsError};
pub use pipeplug_net::wire::{Chunk, Direction, Format, Header, Limits, ThreadId, command};
pub use pipeplug_net::{
    AwaitedCall, CallError, CallFailure, Caller, CancelHandle, Cancellation, ChunkHead,
    CloseReason, Connection, Credit, Escaped, EventLoop, Failure, HandlerError, HandlerFuture,
    NotifyError, OpenCall, Options, Order, OutgoingRequest, Part, PartSender, Parts, Payload,
    PendingCall, PendingReply, Postmortem, Progress, ProgressReports, ProgressSender, Reading,
    Recording, Reply, ReplyParts, Request, RequestBuilder, Responder, Retry, Sent, Stats,
    StreamCall, StreamError, StreamSides, Turn, failure_code, recording,
};
pub use plugin::{
    ConfigError, Crash, Ended, Grace, Handler, LogLevel, LogLevelError, LogLine, Metadata,
    NotReady, Output, ParseLogLevelError, Plugin, PluginBuilder, StartError, StartErrorKind,
    StopError, StopErrorKind, Stopped, StoppedBy,
};
pub use process::exit_status::WaitStatus;
pub use process::launch::{OnHostExit, Stdin, Stdout};
#[cfg(feature = "sandbox")]
pub use sandbox::{Sandbox, SandboxSupport};
#[cfg(feature = "supervisor")]
pub use supervisor::{
    AwaitedSupervisedCall, Backoff, Breaker, EndCause, Event, HealthCheck, PluginFailure, Pool,
    SupervisedCall, SupervisedCallError, SupervisedNotifyError, Supervisor, SupervisorBuilder,
    Unavailable, UnavailableKind,
};
