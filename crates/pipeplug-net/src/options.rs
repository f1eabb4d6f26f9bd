//! Options of a connection: its format and its limits.

use std::num::NonZeroUsize;
use std::time::Duration;

use crate::clock::Clock;
use crate::recording::Recording;
use pipeplug_wire::{Format, Limits};

/// Longest time to spin for input unless the user chooses another: about what a wake-up costs.
pub(crate) const DEFAULT_SPIN: Duration = Duration::from_micros(50);

/// Options of a connection. The default is right for a host.
///
/// Each limit bounds something that the peer can make grow.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Options {
    /// Name of the connection in logs and errors, where it is [`Escaped`](crate::Escaped). Default:
    /// `"peer"`.
    pub name: String,
    /// Format. `None` for the format of the peer's first chunk; nothing is sent before that.
    /// Default: the standard format.
    pub format: Option<Format>,
    /// Largest command and buffer that are received. A larger chunk is skipped and refused.
    pub limits: Limits,
    /// Number of open calls of this side. Default: 4,194,304.
    pub calls: usize,
    /// Bytes that wait to be written, past which callers wait. Default: 4 MiB.
    pub outgoing: usize,
    /// Bytes of responses that wait to be written and that no thread can wait for (replies to
    /// pings, refusals, credits). Past it the connection ends, since the peer sends and does not
    /// read. Default: 16 MiB.
    pub unread: usize,
    /// Weight of the peer's requests and one-ways that wait for a handler, in bytes: 64 for each
    /// chunk, and the length of its command and buffer. One chunk may exceed it. A peer that
    /// negotiated `flow` keeps within it. From any other peer, and from one that does not keep to
    /// it, nothing more is read while no call of this side and no stream is open. Default: 4 MiB.
    pub window: usize,
    /// Weight that may wait for handlers while calls of this side or streams are open, so that
    /// reading has to go on, in bytes. One chunk may exceed it. Past it requests are refused, and if
    /// one-ways fill it the open calls and streams fail. Default: 64 MiB.
    pub overrun: usize,
    /// Number of handlers of this connection that run at once. A handler that waits for a call of
    /// its own does not count. Including those, a connection has at most three quarters of the
    /// handler threads of its event loop. Default: 256.
    pub handlers: NonZeroUsize,
    /// Number of requests whose answers a handler has deferred
    /// ([`Request::responder`](crate::Request::responder)). Past it requests are refused. Default:
    /// 65,536.
    pub deferred: usize,
    /// Weight of the parts of one stream that were received and not taken, in bytes: 64 for each
    /// part, and its length. One part may exceed it; the parts past the windows of several streams
    /// hold at most [`Limits::buffer`] in all. The other side keeps within it. Default: 1 MiB.
    pub stream_window: usize,
    /// Number of streams that the other side may have open. A request or one-way with a stream past
    /// it is refused. Default: 1,024.
    pub streams: usize,
    /// Largest number of bytes of one read or write, for tests of short ones. Default: no limit.
    pub transfer: NonZeroUsize,
    /// Time that open calls wait on after the peer has closed the pipe, so that
    /// [`Connection::end`](crate::Connection::end) can give the reason that they fail with.
    /// Default: 0.
    pub reason_timeout: Duration,
    /// Thread that reads. Default: [`Reading::Shared`].
    pub reading: Reading,
    /// Maximum spin time of a thread that waits for a reply or for requests, before it sleeps.
    /// Adapts to the input seen. 0 disables spinning, and the yielding of many callers to each
    /// other. Default: 50 µs.
    pub spin: Duration,
    /// Requests and one-ways that are held back until
    /// [`Connection::release`](crate::Connection::release).
    pub hold: Hold,
    /// Commands that are handled in order. Default: [`Order::Concurrent`].
    pub order: Order,
    /// Clock of the deadlines and timeouts of calls, of what handlers see of them, of their
    /// streams, and of the heartbeats of a supervisor. Default: the system's. A test may set one
    /// that it advances. Starts, stops, restarts and waits for the end of a connection go by the
    /// system's clock, and so do the intervals of progress.
    pub clock: Clock,
    /// Recording of every chunk. Default: none.
    pub recording: Option<Recording>,
    /// True to measure the time from each call to its reply, which costs two looks at the clock.
    /// `publish_status` of a plugin's builder sets it. Default: false.
    pub times_calls: bool,
}

/// Thread that reads a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Reading {
    /// The event loop's thread, which any number of connections share, and callers that wait for
    /// replies. Handlers run on threads of the pool.
    #[default]
    Shared,
    /// A dedicated thread, which runs handlers too: a request is answered without a hand-over
    /// between threads. For a process with one connection or a few, such as a guest.
    Dedicated,
}

/// Requests and one-ways that are held back at first.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Hold {
    /// None.
    #[default]
    Nothing,
    /// All but these commands, until [`Connection::release`](crate::Connection::release).
    AllBut(Vec<String>),
}

/// Order in which the other side's requests and one-ways are handled.
///
/// Those of a sequence are handled one at a time, in the order in which they were sent: the next
/// one starts when the handler of the one before has returned, or at the end of its
/// [`Turn`](crate::Turn). Other commands, and other sequences, run beside. A handler in a sequence
/// may wait for calls of its own. A request of the same sequence that the answer depends on waits
/// behind it: give such calls a deadline, or the request another sequence.
///
/// Requests and one-ways that wait in a sequence count in [`Options::window`]. When they fill it,
/// the other side waits before it sends more, of other commands too.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Order {
    /// None is in order: handlers run concurrently.
    #[default]
    Concurrent,
    /// All commands are one sequence.
    InOrder,
    /// The commands of each list are one sequence.
    InOrderFor(Vec<Vec<String>>),
}

impl Order {
    /// Adds a sequence of these commands. Does nothing if all commands are one.
    pub fn add_sequence(&mut self, commands: impl IntoIterator<Item = impl Into<String>>) {
        let commands = commands.into_iter().map(Into::into).collect();
        match self {
            Self::Concurrent => *self = Self::InOrderFor(vec![commands]),
            Self::InOrder => {}
            Self::InOrderFor(sequences) => sequences.push(commands),
        }
    }
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
            stream_window: 1 << 20,
            streams: 1024,
            transfer: NonZeroUsize::MAX,
            reason_timeout: Duration::ZERO,
            reading: Reading::Shared,
            spin: DEFAULT_SPIN,
            hold: Hold::Nothing,
            order: Order::Concurrent,
            clock: Clock::system(),
            recording: None,
            times_calls: false,
        }
    }
}
