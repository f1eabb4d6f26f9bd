//! Results of decoding.

#[cfg(doc)]
use super::{Decoder, IN_PLACE_MAX};
use crate::{ChunkRef, Header, Skipped};

/// Result of a call of [`Decoder::decode`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step<'a> {
    /// The next chunk is not whole yet.
    Incomplete {
        /// How many bytes of the input are done with.
        consumed: usize,
        /// How many further bytes the next chunk takes at least, 1 or more.
        needed: usize,
    },
    /// A whole chunk.
    Chunk {
        /// The chunk, in the input.
        chunk: ChunkRef<'a>,
        /// How many bytes of the input are done with, this chunk's among them.
        consumed: usize,
    },
    /// A whole header whose buffer is longer than [`IN_PLACE_MAX`] and not whole in the input.
    ///
    /// What follows `consumed` in the stream is the buffer. The caller reads it by itself and says
    /// so with [`Decoder::body_taken`]; if it goes on with [`Decoder::decode`] instead, the buffer
    /// is consumed silently.
    Head {
        /// The header, in the input.
        header: Header<'a>,
        /// How many bytes of the input are done with, this header's among them.
        consumed: usize,
    },
    /// A chunk that is not given out.
    ///
    /// It comes as soon as the header is known; the buffer is consumed silently by later calls.
    Skipped {
        /// Which chunk, and why.
        skipped: Skipped,
        /// How many bytes of the input are done with.
        consumed: usize,
    },
}
