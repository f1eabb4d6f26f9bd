//! One chunk, borrowed and owned.

#[cfg(feature = "alloc")]
use alloc::{string::String, vec::Vec};
use core::fmt;

use crate::{Direction, Header, ThreadId};

/// A chunk in borrowed memory.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ChunkRef<'a> {
    /// Id of the request, or of the request that this response answers.
    pub thread_id: ThreadId,
    /// Kind of the chunk: one-way, request or response.
    pub direction: Direction,
    /// Name of the command.
    pub command: &'a str,
    /// Payload. The protocol does not look into it.
    pub buffer: &'a [u8],
}

impl<'a> ChunkRef<'a> {
    /// Returns the header of the chunk: all that comes before the buffer.
    #[must_use]
    pub const fn header(&self) -> Header<'a> {
        Header {
            thread_id: self.thread_id,
            direction: self.direction,
            command: self.command,
            buffer_len: self.buffer.len() as u64,
        }
    }

    /// A copy that owns its memory.
    #[cfg(feature = "alloc")]
    #[must_use]
    pub fn to_chunk(&self) -> Chunk {
        Chunk {
            thread_id: self.thread_id,
            direction: self.direction,
            command: self.command.into(),
            buffer: self.buffer.into(),
        }
    }
}

impl fmt::Debug for ChunkRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        debug("ChunkRef", *self, f)
    }
}

/// A chunk that owns its memory.
#[cfg(feature = "alloc")]
#[derive(Clone, PartialEq, Eq)]
pub struct Chunk {
    /// Id of the request, or of the request that this response answers.
    pub thread_id: ThreadId,
    /// Kind of the chunk: one-way, request or response.
    pub direction: Direction,
    /// Name of the command.
    pub command: String,
    /// Payload. The protocol does not look into it.
    pub buffer: Vec<u8>,
}

#[cfg(feature = "alloc")]
impl Chunk {
    /// A request with the thread id 0. The sender replaces the id.
    pub fn new(command: impl Into<String>, buffer: impl Into<Vec<u8>>) -> Self {
        Self {
            thread_id: ThreadId::new(0),
            direction: Direction::Request,
            command: command.into(),
            buffer: buffer.into(),
        }
    }

    /// Returns the header of the chunk: all that comes before the buffer.
    #[must_use]
    pub fn header(&self) -> Header<'_> {
        self.as_ref().header()
    }

    /// The same chunk, borrowed.
    #[must_use]
    pub fn as_ref(&self) -> ChunkRef<'_> {
        ChunkRef {
            thread_id: self.thread_id,
            direction: self.direction,
            command: &self.command,
            buffer: &self.buffer,
        }
    }
}

#[cfg(feature = "alloc")]
impl fmt::Debug for Chunk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        debug("Chunk", self.as_ref(), f)
    }
}

fn debug(name: &str, chunk: ChunkRef<'_>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    f.debug_struct(name)
        .field("thread_id", &chunk.thread_id.as_u64())
        .field("direction", &chunk.direction)
        .field("command", &chunk.command)
        .field("buffer", &Shortened(chunk.buffer))
        .finish()
}

/// Bytes as a log line can bear them: the first few as text, and how many there are.
struct Shortened<'a>(&'a [u8]);

impl fmt::Debug for Shortened<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 32;
        match self.0.split_at_checked(SHOWN) {
            Some((start, rest)) if !rest.is_empty() => {
                write!(f, "b\"{}\"… ({} bytes)", start.escape_ascii(), self.0.len())
            }
            _ => write!(f, "b\"{}\"", self.0.escape_ascii()),
        }
    }
}

#[cfg(all(test, feature = "alloc"))]
mod tests {
    use alloc::format;

    use super::*;

    #[test]
    fn debug_shortens_only_what_is_long() {
        assert_eq!(
            format!("{:?}", Chunk::new("echo", [b'a'; 32])),
            format!(
                "Chunk {{ thread_id: 0, direction: Request, command: \"echo\", buffer: b\"{}\" }}",
                "a".repeat(32)
            )
        );
        assert!(
            format!("{:?}", Chunk::new("echo", [0; 33]).as_ref())
                .ends_with("\\x00\"… (33 bytes) }")
        );
    }

    #[test]
    fn borrowing_and_owning_agree() {
        let chunk = Chunk::new("echo", "hello");
        assert_eq!(chunk.as_ref().to_chunk(), chunk);
        assert_eq!(chunk.header().buffer_len, 5);
    }
}
