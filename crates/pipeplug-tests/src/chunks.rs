//! Chunks by hand, for peers that are no connection.

use std::io::Read;

use pipeplug_net::wire::{Chunk, Direction, Format, Limits, Received, Receiver};
use pipeplug_testkit::chunk;

/// A request in the standard format.
#[must_use]
pub fn request(id: u64, command: &str, buffer: &[u8]) -> Vec<u8> {
    chunk(Format::Standard, id, Direction::Request, command, buffer)
}

/// A one-way in the standard format.
#[must_use]
pub fn one_way(command: &str, buffer: &[u8]) -> Vec<u8> {
    chunk(Format::Standard, 0, Direction::OneWay, command, buffer)
}

/// Reads one chunk and nothing behind it; `None` at the end of the file.
///
/// # Panics
/// Where what comes is no chunk.
pub fn read_chunk(format: Format, from: &mut impl Read) -> Option<Chunk> {
    let mut receiver = Receiver::new(Some(format), Limits::default());
    let mut byte = [0];
    loop {
        if from.read(&mut byte).expect("the pipe can be read") == 0 {
            assert_eq!(receiver.finish(), Ok(()), "the stream ends within a chunk");
            return None;
        }
        receiver.push(&byte);
        match receiver.next() {
            Ok(None) => {}
            Ok(Some(Received::Chunk(chunk))) => return Some(chunk.to_chunk()),
            Ok(Some(Received::Large(chunk))) => return Some(chunk),
            other => panic!("no chunk: {other:?}"),
        }
    }
}
