//! Two connections over two pipes, in one process; and a peer written by hand.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(dead_code, reason = "each test binary takes what it needs, and none takes all")]

use std::io::{PipeReader, PipeWriter, Read, Write, pipe};
use std::num::NonZeroUsize;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, fcntl};
use pipeplug_net::wire::{Chunk, Direction, Format, Header, Limits, Received, Receiver, ThreadId};
use pipeplug_net::{
    Connection, Endpoint, EventLoop, Handler, HandlerError, Incoming, Options, PendingCall, Reading, Reply,
    Responder,
};

/// Longer than anything here takes; reached only where something hangs.
pub(crate) const LONG: Duration = Duration::from_secs(30);

/// After so long a test that did not end is one that hangs.
const HUNG: Duration = Duration::from_secs(60);

/// Leaves a request without an answer for good, in a place where nothing of it counts as leaked.
pub(crate) fn never_answer(incoming: &mut Incoming) {
    static KEPT: Mutex<Vec<Responder>> = Mutex::new(Vec::new());
    KEPT.lock().unwrap().extend(incoming.responder());
}

/// A host and a guest: each on a loop of its own.
pub(crate) fn pair(options: &Options, host: impl Handler, guest: impl Handler) -> (Connection, Connection) {
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
        .connect(Endpoint::exclusive(guest_in), Endpoint::exclusive(guest_out), guest_options, guest)
        .unwrap();
    let host = host_loop
        .connect(Endpoint::exclusive(host_in), Endpoint::exclusive(host_out), options("guest"), host)
        .unwrap();
    (host, guest)
}

/// Both sides agree on what they offer each other, as host and guest do in the exchange of metadata.
pub(crate) fn negotiate(one: &Connection, other: &Connection) {
    accept(one, other);
    accept(other, one);
}

/// `to` learns what `from` offers.
pub(crate) fn accept(to: &Connection, from: &Connection) {
    let offer = from.offer();
    to.accept(|key| offer.iter().find(|(k, _)| *k == key).map(|(_, v)| v.as_str()));
}

/// Sends requests until the pipe and what may wait for it are full; gives the calls.
pub(crate) fn fill(connection: &Connection, size: usize) -> Vec<PendingCall> {
    let mut calls = Vec::new();
    loop {
        while let Ok(call) = connection.try_begin_call("x", vec![0; size]) {
            calls.push(call);
        }
        // What was left to be written together, or is being written, makes room yet.
        if !connection.wait_written(Duration::from_millis(100)) {
            return calls;
        }
    }
}

/// Answers with what it was given.
pub(crate) fn echo(incoming: &mut Incoming) -> Result<Reply, HandlerError> {
    match incoming.command() {
        "echo" => Ok(incoming.take_buffer().into()),
        "fail" => Err("it failed".into()),
        "panic" => panic!("it panicked"),
        _ => incoming.unknown(),
    }
}

/// How bytes go from one side to the other.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Way {
    /// What the kernel keeps of a pipe, in bytes; `None`: what it likes.
    pub(crate) capacity: Option<i32>,
    /// The most that one read or write moves.
    pub(crate) transfer: NonZeroUsize,
    /// Who reads for the guest.
    pub(crate) reading: Reading,
}

impl Way {
    pub(crate) const PLAIN: Self =
        Self { capacity: None, transfer: NonZeroUsize::MAX, reading: Reading::Dedicated };
    pub(crate) const SHARED: Self = Self { reading: Reading::Shared, ..Self::PLAIN };
    pub(crate) const SMALL_PIPES: Self = Self { capacity: Some(4096), ..Self::PLAIN };

    pub(crate) const fn short(transfer: usize) -> Self {
        Self { transfer: NonZeroUsize::new(transfer).unwrap(), ..Self::PLAIN }
    }

    pub(crate) fn pipe(self) -> (PipeReader, PipeWriter) {
        let (reader, writer) = pipe().unwrap();
        if let Some(capacity) = self.capacity {
            fcntl(&writer, FcntlArg::F_SETPIPE_SZ(capacity)).unwrap();
        }
        (reader, writer)
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

/// Aborts the process when it is not dropped in time: a test that hangs fails, and says so.
pub(crate) struct Watchdog(Option<mpsc::Sender<()>>);

pub(crate) fn watchdog() -> Watchdog {
    let test = thread::current().name().unwrap_or("a test").to_owned();
    let (sender, receiver) = mpsc::channel::<()>();
    thread::spawn(move || {
        if receiver.recv_timeout(HUNG) == Err(RecvTimeoutError::Timeout) {
            eprintln!("{test} hangs: it did not end within {HUNG:?}");
            std::process::abort();
        }
    });
    Watchdog(Some(sender))
}

/// Looks again and again until it is so.
#[track_caller]
pub(crate) fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + LONG;
    while !is_so() {
        assert!(Instant::now() < deadline, "not within {LONG:?}: {what}");
        thread::park_timeout(Duration::from_micros(200));
    }
}

/// Shut at first; who waits goes on once it is open.
#[derive(Debug, Clone, Default)]
pub(crate) struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl Gate {
    pub(crate) fn open(&self) {
        *self.0.0.lock().unwrap() = true;
        self.0.1.notify_all();
    }

    pub(crate) fn pass(&self) {
        let open = self.0.1.wait_while(self.0.0.lock().unwrap(), |open| !*open).unwrap();
        assert!(*open);
    }
}

/// The other side, by hand.
pub(crate) struct Raw {
    pub(crate) input: RawInput,
    pub(crate) output: PipeWriter,
}

/// Its reading half.
pub(crate) struct RawInput {
    pub(crate) pipe: PipeReader,
    receiver: Receiver,
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
    let connection =
        events.connect(Endpoint::exclusive(reader), Endpoint::exclusive(writer), options, handler).unwrap();
    let receiver = Receiver::new(format, Limits::default());
    (connection, Raw { input: RawInput { pipe: input, receiver }, output })
}

/// A chunk's bytes in the standard format.
pub(crate) fn bytes(id: u64, direction: Direction, command: &str, buffer: &[u8]) -> Vec<u8> {
    bytes_in(Format::Standard, id, direction, command, buffer)
}

pub(crate) fn bytes_in(
    format: Format,
    id: u64,
    direction: Direction,
    command: &str,
    buffer: &[u8],
) -> Vec<u8> {
    let mut bytes = Vec::new();
    let header = Header { thread_id: ThreadId::new(id), direction, command, buffer_len: buffer.len() as u64 };
    header.encode_to(format, &mut bytes).unwrap();
    bytes.extend_from_slice(buffer);
    bytes
}

impl Raw {
    pub(crate) fn send(&mut self, id: u64, direction: Direction, command: &str, buffer: &[u8]) {
        self.output.write_all(&bytes(id, direction, command, buffer)).unwrap();
    }

    pub(crate) fn one_way(&mut self, command: &str, buffer: &[u8]) {
        self.send(0, Direction::OneWay, command, buffer);
    }

    /// Answers the next request with its own buffer and gives its id.
    pub(crate) fn answer(&mut self) -> u64 {
        let request = self.input.next().unwrap();
        assert_eq!(request.direction, Direction::Request);
        let id = request.thread_id.as_u64();
        self.send(id, Direction::Response, &request.command, &request.buffer);
        id
    }
}

impl RawInput {
    /// The next chunk; `None` at the end of the file.
    pub(crate) fn next(&mut self) -> Option<Chunk> {
        loop {
            match self.receiver.next().unwrap() {
                Some(Received::Chunk(chunk)) => return Some(chunk.to_chunk()),
                Some(Received::Large(chunk)) => return Some(chunk),
                Some(Received::Skipped(skipped)) => panic!("{skipped}"),
                None => {}
            }
            let mut some = [0; 4096];
            match self.pipe.read(&mut some).unwrap() {
                0 => return None,
                count => self.receiver.push(&some[..count]),
            }
        }
    }
}
