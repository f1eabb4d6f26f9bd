//! The decoder with an input buffer of its own.

use alloc::vec::Vec;

use crate::{Chunk, ChunkRef, DecodeError, Decoder, Format, Limits, Skipped};

/// What [`Receiver::next`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Received<'a> {
    /// A chunk in the input buffer.
    Chunk(ChunkRef<'a>),
    /// A chunk whose buffer was received straight into its own memory.
    Large(Chunk),
    /// A chunk that is thrown away.
    Skipped(Skipped),
}

/// Where the next bytes of the stream go.
#[derive(Debug)]
pub struct Space<'a> {
    /// What they are appended to.
    pub into: &'a mut Vec<u8>,
    /// How many of them at most, 1 or more.
    pub max: usize,
}

/// Takes a stream in any cut and gives the chunks in it.
#[derive(Debug)]
pub struct Receiver {
    decoder: Decoder,
    input: Vec<u8>,
}

impl Receiver {
    /// A receiver at the start of a stream; without a format, the first chunk tells it.
    #[must_use]
    pub fn new(format: Option<Format>, limits: Limits) -> Self {
        let decoder = match format {
            Some(format) => Decoder::new(format, limits),
            None => Decoder::detect(limits),
        };
        Self { decoder, input: Vec::new() }
    }

    /// The format; `None` while the first chunk has not told it.
    #[must_use]
    pub fn format(&self) -> Option<Format> {
        self.decoder.format()
    }

    /// How many bytes of the stream are consumed.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.decoder.offset()
    }

    /// How many bytes are allocated.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.input.capacity()
    }

    /// Where the next bytes of the stream go.
    pub fn space(&mut self) -> Space<'_> {
        Space { into: &mut self.input, max: 1 }
    }

    /// Copies bytes of the stream in, any number of them.
    pub fn push(&mut self, bytes: &[u8]) {
        let _ = bytes;
    }

    /// The next chunk; `None` if that takes more input.
    ///
    /// # Errors
    /// Where the peer broke a rule.
    #[expect(
        clippy::should_implement_trait,
        reason = "what it gives borrows from the receiver, and it may fail"
    )]
    pub fn next(&mut self) -> Result<Option<Received<'_>>, DecodeError> {
        unimplemented!()
    }

    /// The stream has ended.
    ///
    /// # Errors
    /// If it ended inside a chunk.
    pub fn finish(&mut self) -> Result<(), DecodeError> {
        unimplemented!()
    }

    /// Gives the input buffer's memory back if it is empty.
    pub fn release(&mut self) {}
}
