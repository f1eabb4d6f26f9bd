//! Two connections over two pipes, in one process; and a peer written by hand.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(dead_code, reason = "each test binary takes what it needs, and none takes all")]

use std::io::{PipeReader, PipeWriter};
use std::num::NonZeroUsize;
use std::sync::Mutex;
use std::time::Duration;

use pipeplug_net::wire::{Direction, Format};
use pipeplug_net::{
    Endpoint, EventLoop, Handler, HandlerError, Options, PendingCall, Reading, Reply, Request,
    Responder,
};

// All of it, since no test binary needs each name.
pub(crate) use pipeplug_testkit::*;

/// The other side, by hand.
pub(crate) type Raw = Peer;

/// After so long a test that did not end is one that hangs.
const HUNG: Duration = Duration::from_secs(60);

/// Leaves a request without an answer for good, in a place where nothing of it counts as leaked.
pub(crate) fn never_answer(request: &mut Request) {
    static KEPT: Mutex<Vec<Responder>> = Mutex::new(Vec::new());
    KEPT.lock().unwrap().extend(request.responder());
}

/// A host and a guest: each on a loop of its own.
pub(crate) fn pair(
    options: &Options,
    host: impl Handler,
    guest: impl Handler,
) -> (Connection, Connection) {
    let (one, other) = (EventLoop::new().unwrap(), EventLoop::new().unwrap());
    pair_on((&one, &other), options, Way::PLAIN, host, guest)
}

/// A host and a guest on these loops, over pipes of this kind.
pub(crate) fn pair_on(
    (host_loop, guest_loop): (&EventLoop, &EventLoop),
    options: &Options,
    way: Way,
    host: impl Handler,
    guest: impl Handler,
) -> (Connection, Connection) {
    let (host_in, guest_out) = way.pipe();
    let (guest_in, host_out) = way.pipe();
    let options = |name: &str| {
        let mut options = options.clone();
        options.name = name.into();
        options.transfer = way.transfer;
        options
    };
    let mut guest_options = options("host");
    guest_options.reading = way.reading;
    let guest = guest_loop
        .connect(
            Endpoint::exclusive(guest_in),
            Endpoint::exclusive(guest_out),
            guest_options,
            guest,
        )
        .unwrap();
    let host = host_loop
        .connect(
            Endpoint::exclusive(host_in),
            Endpoint::exclusive(host_out),
            options("guest"),
            host,
        )
        .unwrap();
    (host, guest)
}

/// Both sides agree on what they offer each other, as host and guest do in the exchange of
/// metadata.
pub(crate) fn negotiate(one: &Connection, other: &Connection) {
    accept(one, other);
    accept(other, one);
}

/// `to` learns what `from` offers.
pub(crate) fn accept(to: &Connection, from: &Connection) {
    let offer = pipeplug_net::internal::handshake::offer(from);
    pipeplug_net::internal::handshake::accept(to, |key| {
        offer.iter().find(|(k, _)| *k == key).map(|(_, v)| v.as_str())
    });
}

/// Sends requests until the pipe and what may wait for it are full; gives the calls.
pub(crate) fn fill(connection: &Connection, size: usize) -> Vec<PendingCall> {
    let mut calls = Vec::new();
    loop {
        let before = calls.len();
        while let Ok(call) = connection.request("x", vec![0; size]).nonblocking().begin() {
            calls.push(call);
        }
        // What was left to be written together, or is being written, makes room yet.
        if !connection.wait_written(Duration::from_millis(100)) && calls.len() == before {
            return calls;
        }
    }
}

/// Answers with what it was given.
pub(crate) fn echo(request: &mut Request) -> Result<Reply, HandlerError> {
    match request.command() {
        "echo" => Ok(request.take_buffer().into()),
        "fail" => Err("it failed".into()),
        "panic" => panic!("it panicked"),
        _ => request.unknown(),
    }
}

/// How bytes go from one side to the other.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Way {
    /// Capacity of a pipe in bytes. `None` for the default of the kernel.
    pub(crate) capacity: Option<NonZeroUsize>,
    /// The most that one read or write moves.
    pub(crate) transfer: NonZeroUsize,
    /// Reading mode of the guest.
    pub(crate) reading: Reading,
}

impl Way {
    pub(crate) const PLAIN: Self =
        Self { capacity: None, transfer: NonZeroUsize::MAX, reading: Reading::Dedicated };
    pub(crate) const SHARED: Self = Self { reading: Reading::Shared, ..Self::PLAIN };
    pub(crate) const SMALL_PIPES: Self = Self { capacity: NonZeroUsize::new(4096), ..Self::PLAIN };

    pub(crate) const fn short(transfer: usize) -> Self {
        Self { transfer: NonZeroUsize::new(transfer).unwrap(), ..Self::PLAIN }
    }

    pub(crate) fn pipe(self) -> (PipeReader, PipeWriter) {
        pipe_of(self.capacity).unwrap()
    }

    /// `bytes`, or what can be moved in as many steps as a test has time for.
    pub(crate) fn size(self, bytes: usize) -> usize {
        bytes.min(self.transfer.get().saturating_mul(1024))
    }

    /// `count`, or fewer of something small where each takes many steps.
    pub(crate) fn count(self, count: usize) -> usize {
        if self.transfer.get() < 64 { count / 20 } else { count }
    }
}

pub(crate) fn watchdog() -> Watchdog {
    Watchdog::new(HUNG)
}

/// A connection whose other side is written by hand.
pub(crate) fn raw(options: &Options, handler: impl Handler) -> (Connection, Raw) {
    raw_on(&EventLoop::new().unwrap(), options, Way::PLAIN, handler)
}

pub(crate) fn raw_on(
    events: &EventLoop,
    options: &Options,
    way: Way,
    handler: impl Handler,
) -> (Connection, Raw) {
    let (reader, output) = way.pipe();
    let (input, writer) = way.pipe();
    let mut options = options.clone();
    options.transfer = way.transfer;
    let format = options.format;
    let connection = events
        .connect(Endpoint::exclusive(reader), Endpoint::exclusive(writer), options, handler)
        .unwrap();
    (connection, Raw::new(input, output, format.unwrap_or_default()))
}

/// A chunk's bytes in the standard format.
pub(crate) fn bytes(id: u64, direction: Direction, command: &str, buffer: &[u8]) -> Vec<u8> {
    chunk(Format::Standard, id, direction, command, buffer)
}

pub(crate) fn bytes_in(
    format: Format,
    id: u64,
    direction: Direction,
    command: &str,
    buffer: &[u8],
) -> Vec<u8> {
    chunk(format, id, direction, command, buffer)
}
