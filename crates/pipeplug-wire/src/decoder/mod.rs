//! The decoder that works in place.

mod error;
mod skipped;

pub use error::{DecodeError, DecodeErrorKind, Field};
pub use skipped::{SkipReason, Skipped};

use crate::{ChunkRef, Format, Header, Limits};

/// The longest buffer that [`Decoder::decode`] waits for to give a chunk in place, in bytes (16 KiB).
pub const IN_PLACE_MAX: usize = 16 << 10;

/// What a call of [`Decoder::decode`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step<'a> {
    /// The next chunk is not whole yet.
    Incomplete {
        /// How many bytes of the input are done with.
        consumed: usize,
        /// How many further bytes it takes at least, 1 or more.
        needed: usize,
    },
    /// A whole chunk.
    Chunk {
        /// The chunk, in the input.
        chunk: ChunkRef<'a>,
        /// How many bytes of the input are done with: the chunk's.
        consumed: usize,
    },
    /// A whole header whose buffer is longer than [`IN_PLACE_MAX`] and not whole in the input.
    Head {
        /// The header, in the input.
        header: Header<'a>,
        /// How many bytes of the input are done with: the header's. What follows in the stream is the buffer.
        consumed: usize,
    },
    /// A chunk that is not given out.
    Skipped {
        /// Which, and why.
        skipped: Skipped,
        /// How many bytes of the input are done with. The rest of the chunk goes silently in later calls.
        consumed: usize,
    },
}

/// Reads chunks from a slice that the caller owns.
#[derive(Clone, Debug)]
pub struct Decoder {
    format: Option<Format>,
    limits: Limits,
    offset: u64,
}

impl Decoder {
    /// A decoder at the start of a stream of this format.
    #[must_use]
    pub const fn new(format: Format, limits: Limits) -> Self {
        Self { format: Some(format), limits, offset: 0 }
    }

    /// A decoder at the start of a stream whose first chunk tells the format.
    #[must_use]
    pub const fn detect(limits: Limits) -> Self {
        Self { format: None, limits, offset: 0 }
    }

    /// The format; `None` while the first chunk has not told it.
    #[must_use]
    pub const fn format(&self) -> Option<Format> {
        self.format
    }

    /// How many bytes of the stream are consumed.
    #[must_use]
    pub const fn offset(&self) -> u64 {
        self.offset
    }

    /// Reads on.
    ///
    /// # Errors
    /// Where the peer broke a rule.
    pub fn decode<'a>(&mut self, input: &'a [u8]) -> Result<Step<'a>, DecodeError> {
        let _ = (input, self.limits);
        unimplemented!()
    }

    /// The caller has read the buffer of the last [`Step::Head`] by itself.
    pub fn body_taken(&mut self) {}

    /// The stream ended with `rest`, which was not consumed.
    ///
    /// # Errors
    /// If it ended inside a chunk.
    pub fn finish(&self, rest: &[u8]) -> Result<(), DecodeError> {
        let _ = rest;
        Ok(())
    }
}
