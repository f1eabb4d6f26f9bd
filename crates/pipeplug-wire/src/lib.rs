//! The wire of pipeplug: chunks, their two formats, and the table of calls in flight.
//!
//! Nothing here knows a pipe, a thread or a clock. Bytes go in as slices, what they mean comes out
//! as values; the byte layout is specified in `docs/protocol.md`.
//!
//! * [`Header::encode`] writes what stands in front of a buffer.
//! * [`Decoder`] reads chunks in place, from a slice that the caller owns; it needs no allocator.
//! * [`Receiver`] owns the input buffer and takes the stream in any cut.
//! * [`Calls`] hands out thread ids and finds who waits for a response.
//!
//! Without the feature `alloc` there are the header's encoding, [`ChunkRef`], [`Decoder`] and
//! [`Limits`].
//!
//! ```
//! # #[cfg(feature = "alloc")] {
//! use pipeplug_wire::{Chunk, Format, Limits, Received, Receiver};
//!
//! let chunk = Chunk::new("echo", "hello");
//! let mut bytes = Vec::new();
//! chunk.header().encode_to(Format::Standard, &mut bytes)?;
//! bytes.extend_from_slice(&chunk.buffer);
//! assert_eq!(bytes, b"0\x002\x004\0echo\x005\0hello");
//!
//! let mut receiver = Receiver::new(Some(Format::Standard), Limits::default());
//! receiver.push(&bytes);
//! let Some(Received::Chunk(received)) = receiver.next()? else { panic!("one chunk went in") };
//! assert_eq!(received, chunk.as_ref());
//! # }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![no_std]
#![forbid(unsafe_code)]

#[cfg(feature = "alloc")]
extern crate alloc;

#[cfg(feature = "alloc")]
mod calls;
mod chunk;
pub mod command;
mod decoder;
mod direction;
mod format;
mod header;
mod limits;
mod number;
#[cfg(feature = "alloc")]
mod receiver;
mod thread_id;

#[cfg(feature = "alloc")]
pub use calls::{Calls, Completion, OpenError};
#[cfg(feature = "alloc")]
pub use chunk::Chunk;
pub use chunk::ChunkRef;
pub use decoder::{
    DecodeError, DecodeErrorKind, Decoder, Field, IN_PLACE_MAX, SkipReason, Skipped, Step,
};
pub use direction::Direction;
pub use format::{Format, ParseFormatError};
pub use header::{EncodeError, Header};
pub use limits::Limits;
#[cfg(feature = "alloc")]
pub use receiver::{Received, Receiver, Space};
pub use thread_id::ThreadId;
