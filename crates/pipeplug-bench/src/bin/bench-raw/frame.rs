//! Frames: a length, a kind and an id before the body, as little as calls can do with.
//!
//! ```text
//! 0       4       8               16
//! | length | kind | id            | body …
//! ```
//! All little-endian; the length is that of the body.

use anyhow::{Context as _, Result};

pub(crate) const HEADER: usize = 16;

/// Action that a frame asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// To be sent back as it is.
    Request,
    /// To be counted.
    OneWay,
    /// To be sent back with the count as its body's first 8 bytes.
    Count,
}

/// The start of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) body: u32,
    kind: u32,
    id: u64,
}

impl Header {
    /// Of the frame that these bytes begin with, if they hold that much.
    pub(crate) fn of(bytes: &[u8]) -> Option<Self> {
        let (header, _) = bytes.split_first_chunk::<HEADER>()?;
        let field = |at: usize| {
            u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
        };
        let id = u64::from(field(8)) | u64::from(field(12)) << 32;
        Some(Self { body: field(0), kind: field(4), id })
    }

    /// Of the frame with its header.
    pub(crate) fn frame_len(self) -> usize {
        HEADER + self.body as usize
    }

    pub(crate) fn kind(self) -> Kind {
        match self.kind {
            0 => Kind::Request,
            1 => Kind::OneWay,
            _ => Kind::Count,
        }
    }
}

/// A frame to send, or many of the same in a row.
#[derive(Debug)]
pub(crate) struct Message {
    bytes: Vec<u8>,
    one: usize,
}

impl Message {
    pub(crate) fn new(kind: Kind, size: usize) -> Result<Self> {
        Self::repeated(kind, size, 1)
    }

    /// As many of them as `room` bytes hold, and one at least.
    pub(crate) fn filling(kind: Kind, size: usize, room: usize) -> Result<Self> {
        Self::repeated(kind, size, (room / (HEADER + size)).max(1))
    }

    fn repeated(kind: Kind, size: usize, times: usize) -> Result<Self> {
        let body = u32::try_from(size).context("a frame's body is under 4 GiB")?;
        let mut one = Vec::with_capacity(HEADER + size);
        one.extend_from_slice(&body.to_le_bytes());
        one.extend_from_slice(&(kind as u32).to_le_bytes());
        one.extend_from_slice(&7_u64.to_le_bytes());
        one.resize(HEADER + size, b'x');
        let bytes = if times == 1 { one } else { one.repeat(times) };
        Ok(Self { bytes, one: HEADER + size })
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Of all of them.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Of one.
    pub(crate) fn one(&self) -> usize {
        self.one
    }

    /// How many there are.
    pub(crate) fn frames(&self) -> usize {
        self.bytes.len() / self.one
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_reads_what_was_written() {
        let message = Message::filling(Kind::OneWay, 64, 200).unwrap();
        assert_eq!((message.frames(), message.len()), (2, 160));
        let header = Header::of(&message.bytes()[message.one()..]).unwrap();
        assert_eq!((header.body, header.kind(), header.id), (64, Kind::OneWay, 7));
        assert_eq!(header.frame_len(), 80);
        assert_eq!(Header::of(&message.bytes()[..HEADER - 1]), None);
    }
}
