//! Fault injection for tests of hosts and plugins, with no process to start.
//!
//! - [`Pair`]: a host and a guest within the test's own process. Each is a [`Connection`] over real
//!   pipes, so that what is tested is the code that runs in production. The guest may be a whole
//!   plugin: what `register` is given, with its start call-back and metadata ([`Setup::register`]).
//! - [`Wire`]: what each direction of a pair goes through. It cuts, delays, shortens and stalls, at
//!   will, while the test runs.
//! - [`Peer`]: the other side of a connection, written by hand, chunk by chunk or byte by byte.
//! - [`Clock`]: the time for wires, and for code under test that takes it from there.
//! - [`Gate`], [`Watchdog`], [`eventually`]: for tests that neither sleep nor hang.
//!
//! A plugin that loses its host in the middle of a call:
//!
//! ```
//! use pipeplug_net::{CallError, Request, Refuse};
//! use pipeplug_testkit::{Gate, Pair};
//!
//! let asked = Gate::default();
//! let handler = asked.clone();
//! let pair = Pair::new(Refuse, move |request: &mut Request| {
//!     handler.open();
//!     Ok(request.take_buffer().into())
//! })?;
//! assert_eq!(pair.host.call("echo", "hello")?, "hello");
//!
//! pair.to_host.stall(); // the answer does not come through
//! let call = pair.host.request("echo", "again").begin()?;
//! asked.pass();
//! pair.to_host.cut();
//! assert!(matches!(call.wait(), Err(CallError::Closed { .. })));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! What needs a process (signals, exit codes, standard error, the steps of a stop) is not here: a
//! test starts a `pipeplug_host::Plugin` for that. Code of a host that only calls takes a
//! `&Connection`, which a `Plugin` derefs to, and can be tested with either.

#![forbid(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

mod clock;
mod pair;
mod peer;
mod sync;
mod wire;

pub use clock::{Clock, ManualClock};
pub use pair::{Pair, PairError, Setup};
pub use peer::{Peer, PeerInput, chunk};
pub use pipeplug_guest as guest;
pub use pipeplug_net as net;
#[doc(no_inline)]
pub use pipeplug_net::Connection;
pub use sync::{Gate, LONG, Watchdog, eventually};
pub use wire::{Wire, pipe_of};
