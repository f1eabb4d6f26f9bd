//! What a connection can be told: its format and its limits.

use std::num::NonZeroUsize;
use std::time::Duration;

use pipeplug_wire::{Format, Limits};

/// Longest time to spin for input unless the user chooses another: about what a wake-up costs.
pub(crate) const DEFAULT_SPIN: Duration = Duration::from_micros(50);

/// The settings of a connection; [`Options::default`] is what a host wants.
///
/// Each limit bounds something that the peer can make grow.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Options {
    /// The connection's name in logs and errors, which show it [`Escaped`](crate::Escaped). Default: `"peer"`.
    pub name: String,
    /// The format to speak; `None`: the one that the peer's first chunk has, and nothing is sent before it.
    /// Default: the standard format.
    pub format: Option<Format>,
    /// The largest command and buffer that are taken in. A longer chunk is skipped and refused.
    pub limits: Limits,
    /// Calls of ours that may wait for a reply at once. Default: 4,194,304.
    pub calls: usize,
    /// Bytes that wait to be written; past it a caller waits. Default: 4 MiB.
    pub outgoing: usize,
    /// Bytes of answers that may wait to be written where nobody can be made to wait (replies to pings, refusals,
    /// credits); past it the connection ends, since the peer sends and does not read. Default: 16 MiB.
    pub unread: usize,
    /// Weight, in bytes, of the peer's requests and one-ways that wait for a handler: 64 for each chunk and what
    /// its command and buffer hold; one chunk may go past it. A peer that negotiated `flow` keeps within it; from any
    /// other, and from one that does not keep to it, nothing more is read while no call of ours is open. Default: 4 MiB.
    pub window: usize,
    /// Weight that may wait for a handler while calls of ours are open and reading has to go on; one chunk may go past it.
    /// Past it requests are refused, and where one-ways fill it our open calls fail. Default: 64 MiB.
    pub overrun: usize,
    /// Handlers of this connection that run at once; one that waits for a call of its own does not count. With those
    /// that wait, a connection has at most three quarters of its loop's handler threads. Default: 256.
    pub handlers: NonZeroUsize,
    /// Requests of the peer whose answers a handler has put off ([`Incoming::responder`](crate::Incoming::responder)).
    /// Past it requests are refused. Default: 65,536.
    pub deferred: usize,
    /// The most bytes that one read or one write moves; for tests of short reads and writes. Default: no bound.
    pub transfer: NonZeroUsize,
    /// How long open calls are left waiting after the peer closed the pipe, so that
    /// [`Connection::end`](crate::Connection::end) can say why; they then fail with that. Default: not at all.
    pub reason_patience: Duration,
    /// Who reads. Default: [`Reading::Shared`], the loop.
    pub reading: Reading,
    /// How long a thread that waits for a reply or for requests looks for them at most before it sleeps, which costs
    /// less than to be woken where they come soon. What it does within this is learned; 0 switches it off,
    /// and with it that many callers give way to each other before they sleep.
    /// Default: 50 µs.
    pub spin: Duration,
    /// Starts with incoming requests and one-ways held back until [`Connection::release`](crate::Connection::release).
    pub hold: Hold,
}

/// Who reads a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Reading {
    /// The loop's thread, which any number of connections share; handlers run on threads of the pool.
    #[default]
    Shared,
    /// A thread of its own, which runs handlers too: what is asked is answered with no hand-over between threads. For a
    /// process that has one connection or a few, as a guest has.
    Dedicated,
}

/// Whether handlers run from the start.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Hold {
    /// They do.
    #[default]
    Nothing,
    /// Not before [`Connection::release`](crate::Connection::release), but for these commands.
    AllBut(Vec<String>),
}

impl Default for Options {
    fn default() -> Self {
        const HANDLERS: NonZeroUsize = NonZeroUsize::new(256).expect("256 is not 0");
        Self {
            name: "peer".into(),
            format: Some(Format::Standard),
            limits: Limits::default(),
            calls: 4 << 20,
            outgoing: 4 << 20,
            unread: 16 << 20,
            window: 4 << 20,
            overrun: 64 << 20,
            handlers: HANDLERS,
            deferred: 64 << 10,
            transfer: NonZeroUsize::MAX,
            reason_patience: Duration::ZERO,
            reading: Reading::Shared,
            spin: DEFAULT_SPIN,
            hold: Hold::Nothing,
        }
    }
}
