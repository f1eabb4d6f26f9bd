//! The other side of a connection, by hand.

use std::io::{PipeReader, PipeWriter, Read as _, Write as _};
use std::os::fd::AsFd as _;

use nix::poll::{PollFd, PollFlags, PollTimeout};
use pipeplug_wire::{Chunk, Direction, Format, Header, Limits, Received, Receiver, ThreadId};

use crate::sync;

pub(super) struct Peer {
    reader: PipeReader,
    writer: PipeWriter,
    receiver: Receiver,
}

impl Peer {
    pub(super) fn new(reader: PipeReader, writer: PipeWriter) -> Self {
        Self { reader, writer, receiver: Receiver::new(Some(Format::Standard), Limits::default()) }
    }

    /// The descriptor that it reads from.
    pub(super) fn reader(&self) -> &PipeReader {
        &self.reader
    }

    /// Waits for the next chunk; `None` at the end.
    pub(super) fn receive(&mut self) -> Option<Chunk> {
        loop {
            match self.receiver.next().unwrap() {
                Some(Received::Chunk(chunk)) => return Some(chunk.to_chunk()),
                Some(Received::Large(chunk)) => return Some(chunk),
                Some(Received::Skipped(skipped)) => panic!("{skipped:?}"),
                None => {}
            }
            let mut bytes = [0; 1024];
            sync::poll(
                &mut [PollFd::new(self.reader.as_fd(), PollFlags::POLLIN)],
                PollTimeout::NONE,
            )
            .unwrap();
            match self.reader.read(&mut bytes).unwrap() {
                0 => return None,
                count => self.receiver.push(&bytes[..count]),
            }
        }
    }

    /// Sends a chunk, for which the pipe must have room.
    pub(super) fn send(&mut self, direction: Direction, id: u64, command: &str, buffer: &[u8]) {
        let header = Header {
            thread_id: ThreadId::new(id),
            direction,
            command,
            buffer_len: buffer.len() as u64,
        };
        let mut bytes = Vec::new();
        header.encode_to(Format::Standard, &mut bytes).unwrap();
        bytes.extend_from_slice(buffer);
        sync::step();
        // The other side may have stopped reading.
        let _ = self.writer.write_all(&bytes);
    }

    /// Answers a request with what it brought.
    pub(super) fn echo(&mut self, request: &Chunk) {
        self.send(
            Direction::Response,
            request.thread_id.as_u64(),
            &request.command,
            &request.buffer,
        );
    }

    /// Answers what comes until the end.
    pub(super) fn echo_all(&mut self) {
        while let Some(request) = self.receive() {
            if request.direction == Direction::Request {
                self.echo(&request);
            }
        }
    }
}
