//! The other side of a connection, written by hand.

use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use pipeplug_net::wire::{Chunk, Direction, Format, Header, Limits, Received, Receiver, ThreadId};
use pipeplug_net::{Connection, Endpoint, EventLoop, Handler, Options};

use crate::LONG;
use crate::pair::PairError;

/// The other side of a connection, written by hand. It sends chunks or any bytes, and reads chunk
/// by chunk.
///
/// ```
/// use pipeplug_net::wire::Direction;
/// use pipeplug_net::{EventLoop, Options, Refuse};
/// use pipeplug_testkit::Peer;
///
/// let (connection, mut peer) = Peer::connect(&EventLoop::new()?, Options::default(), Refuse)?;
/// let call = connection.request("echo", "hello").begin()?;
/// let request = peer.expect(Direction::Request, "echo");
/// peer.send(request.thread_id.as_u64(), Direction::Response, "echo", b"something else");
/// assert_eq!(call.wait()?, b"something else");
///
/// let call = connection.request("echo", "hello").begin()?;
/// peer.expect(Direction::Request, "echo");
/// peer.send_raw(b"this is no chunk");
/// let error = call.wait().unwrap_err();
/// assert!(error.to_string().contains("broke the protocol"), "{error}");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Peer {
    /// Reading half: the chunks that the connection sends.
    pub input: PeerInput,
    /// Pipe that the connection reads from. Dropping it is the connection's end of file.
    pub output: PipeWriter,
}

/// Reading half of a [`Peer`].
#[derive(Debug)]
pub struct PeerInput {
    pipe: PipeReader,
    receiver: Receiver,
    /// Format of both directions.
    format: Format,
}

/// Encodes one chunk.
///
/// # Panics
/// If the format cannot encode the command.
#[must_use]
pub fn chunk(
    format: Format,
    id: u64,
    direction: Direction,
    command: &str,
    buffer: &[u8],
) -> Vec<u8> {
    let mut bytes = Vec::new();
    let header = Header {
        thread_id: ThreadId::new(id),
        direction,
        command,
        buffer_len: buffer.len() as u64,
    };
    if let Err(error) = header.encode_to(format, &mut bytes) {
        panic!("{command:?} cannot be written: {error}");
    }
    bytes.extend_from_slice(buffer);
    bytes
}

impl Peer {
    /// Makes a connection with these options on this event loop, and its other side.
    ///
    /// # Errors
    /// If the system provides no pipe, or the connection cannot be made.
    pub fn connect(
        events: &EventLoop,
        options: Options,
        handler: impl Handler,
    ) -> Result<(Connection, Self), PairError> {
        let ((reader, output), (input, writer)) = (io::pipe()?, io::pipe()?);
        let format = options.format;
        let (reader, writer) = (Endpoint::exclusive(reader), Endpoint::exclusive(writer));
        let connection = events.connect(reader, writer, options, handler)?;
        Ok((connection, Self::new(input, output, format.unwrap_or_default())))
    }

    /// Makes a peer from two pipes, to whose other ends a connection is attached.
    #[must_use]
    pub fn new(input: PipeReader, output: PipeWriter, format: Format) -> Self {
        let receiver = Receiver::new(Some(format), Limits::default());
        Self { input: PeerInput { pipe: input, receiver, format }, output }
    }

    /// Sends one chunk.
    ///
    /// # Panics
    /// If the connection reads no more, or the format cannot encode the command.
    ///
    /// # Blocking
    /// While the pipe is full.
    #[track_caller]
    pub fn send(&mut self, id: u64, direction: Direction, command: &str, buffer: &[u8]) {
        self.send_raw(&chunk(self.input.format, id, direction, command, buffer));
    }

    /// Sends a one-way.
    ///
    /// # Panics
    /// As for [`send`](Peer::send).
    ///
    /// # Blocking
    /// As for [`send`](Peer::send).
    #[track_caller]
    pub fn one_way(&mut self, command: &str, buffer: &[u8]) {
        self.send(0, Direction::OneWay, command, buffer);
    }

    /// Sends any bytes.
    ///
    /// # Panics
    /// If the connection reads no more.
    ///
    /// # Blocking
    /// As for [`send`](Peer::send).
    #[track_caller]
    pub fn send_raw(&mut self, bytes: &[u8]) {
        if let Err(error) = self.output.write_all(bytes) {
            panic!("the connection did not take {} bytes: {error}", bytes.len());
        }
    }

    /// Answers the next request with its own buffer. Returns the id of the request.
    ///
    /// # Panics
    /// If the next chunk is not a request.
    #[track_caller]
    pub fn answer(&mut self) -> u64 {
        let Some(request) = self.input.next() else {
            panic!("the connection ended, expected a request")
        };
        assert_eq!(request.direction, Direction::Request, "expected a request, got {request:?}");
        let id = request.thread_id.as_u64();
        self.send(id, Direction::Response, &request.command, &request.buffer);
        id
    }

    /// Reads the next chunk, which has to have this direction and command.
    ///
    /// # Panics
    /// If another chunk comes, or none within [`LONG`].
    #[track_caller]
    pub fn expect(&mut self, direction: Direction, command: &str) -> Chunk {
        let Some(chunk) = self.input.next() else {
            panic!("the connection ended, expected {direction} {command:?}");
        };
        let is_it = chunk.direction == direction && chunk.command == command;
        assert!(is_it, "expected {direction} {command:?}, got {chunk:?}");
        chunk
    }

    /// Waits for the end of file of the connection.
    ///
    /// # Panics
    /// If a chunk comes, or no end of file within [`LONG`].
    #[track_caller]
    pub fn expect_end(&mut self) {
        if let Some(chunk) = self.input.next() {
            panic!("expected the end of file, got {chunk:?}");
        }
    }
}

impl PeerInput {
    /// Returns the pipe, to read from it in another way. Bytes that were read and not returned are
    /// lost.
    #[must_use]
    pub fn into_pipe(self) -> PipeReader {
        self.pipe
    }

    /// Reads the next chunk. `None` at the end of file.
    ///
    /// # Panics
    /// If the bytes are not a chunk, or nothing comes within [`LONG`].
    ///
    /// # Blocking
    /// Until the chunk is complete.
    #[track_caller]
    #[expect(
        clippy::should_implement_trait,
        reason = "what ends is the stream, and a garbled one panics"
    )]
    pub fn next(&mut self) -> Option<Chunk> {
        loop {
            match self.receiver.next() {
                Ok(Some(Received::Chunk(chunk))) => return Some(chunk.to_chunk()),
                Ok(Some(Received::Large(chunk))) => return Some(chunk),
                Ok(Some(Received::Skipped(skipped))) => panic!("the connection sent {skipped}"),
                Ok(None) => {}
                Err(error) => panic!("the connection sent what is no chunk: {error}"),
            }
            let mut some = [0; 4096];
            match self.read(&mut some) {
                0 => {
                    if let Err(error) = self.receiver.finish() {
                        panic!("the connection ended within a chunk: {error}");
                    }
                    return None;
                }
                count => self.receiver.push(&some[..count]),
            }
        }
    }

    #[track_caller]
    fn read(&mut self, into: &mut [u8]) -> usize {
        let deadline = Instant::now() + LONG;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(left > Duration::ZERO, "the connection sent nothing within {LONG:?}");
            let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
            match poll(&mut [PollFd::new(self.pipe.as_fd(), PollFlags::POLLIN)], timeout) {
                Ok(0) | Err(nix::Error::EINTR) => continue,
                Ok(_) => {}
                Err(error) => panic!("poll(2) failed: {error}"),
            }
            match self.pipe.read(into) {
                Ok(count) => return count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => panic!("reading what the connection sent failed: {error}"),
            }
        }
    }
}
