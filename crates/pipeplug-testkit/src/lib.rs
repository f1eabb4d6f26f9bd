//! Fault injection for tests of hosts and plugins, without starting a process.
//!
//! - [`Pair`]: a host and a guest within the process of the test. Each is a [`Connection`] over real
//!   pipes, so that the test covers the code that runs in production. The guest may be a whole
//!   plugin with its start call-back and metadata ([`Setup::register`]).
//! - [`Wire`]: one direction of a pair. A test can cut, delay, shorten and stall it at any time.
//! - [`cut_at_every_byte`]: runs a conversation again and again, with a wire cut at each of its bytes.
//! - `InProcess` (feature `host`): a plugin on a thread of the test, for a whole `pipeplug_host::Plugin`
//!   and the call-backs of a host.
//! - [`Peer`]: the other side of a connection, written by hand, chunk by chunk or byte by byte.
//! - [`ManualClock`]: a clock that a test advances, for deadlines, time-outs, the delays of wires, and
//!   code under test that uses it.
//! - [`Gate`], [`Watchdog`], [`eventually`]: help for tests that neither sleep nor hang.
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
//! test starts a `pipeplug_host::Plugin` for that. Code of a host that only calls is generic over
//! [`Caller`](pipeplug_net::Caller), and can be tested with a [`Connection`].

#![forbid(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

mod clock;
mod cut;
#[cfg(feature = "host")]
mod in_process;
mod pair;
mod peer;
mod sync;
mod wire;

pub use clock::ManualClock;
pub use cut::{Cut, GuestSide, cut_at_every_byte};
#[cfg(feature = "host")]
pub use in_process::InProcess;
pub use pair::{Pair, PairError, Setup};
pub use peer::{Peer, PeerInput, chunk};
pub use pipeplug_guest as guest;
pub use pipeplug_net as net;
#[doc(no_inline)]
pub use pipeplug_net::{Clock, Connection};
pub use sync::{Gate, LONG, Watchdog, eventually};
pub use wire::{Wire, pipe_of};
