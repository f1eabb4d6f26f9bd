//! Chunks that are not given out.

use core::fmt;

use crate::{ThreadId, command};

/// A chunk that is read and thrown away; the stream goes on behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Skipped {
    /// Thread id of the chunk.
    pub thread_id: ThreadId,
    /// Number of the direction. [`Direction`](crate::Direction) need not know it.
    pub direction: u64,
    /// Why it is skipped.
    pub reason: SkipReason,
    /// How long its cmd is, in bytes.
    pub command_len: u64,
    /// How long its buffer is, in bytes.
    pub buffer_len: u64,
    /// True if the cmd is one of the protocol's own. Flow control does not count those.
    pub reserved: bool,
}

impl fmt::Display for Skipped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "chunk with thread id {} and direction {} skipped: {}",
            self.thread_id, self.direction, self.reason
        )
    }
}

/// Why a chunk is skipped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SkipReason {
    /// The direction is no [`Direction`](crate::Direction).
    UnknownDirection,
    /// The cmd is longer than [`Limits::command`](crate::Limits::command).
    CommandTooLong {
        /// How long it is, in bytes.
        len: u64,
        /// How long it may be, in bytes.
        limit: usize,
    },
    /// The buffer is longer than [`Limits::buffer`](crate::Limits::buffer).
    BufferTooLong {
        /// How long it is, in bytes.
        len: u64,
        /// How long it may be, in bytes.
        limit: u64,
    },
}

impl fmt::Display for SkipReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownDirection => f.write_str("unknown direction, expected 1, 2 or 3"),
            Self::CommandTooLong { len, limit } => {
                write!(f, "the command is {len} bytes long, the limit is {limit}")
            }
            Self::BufferTooLong { len, limit } => {
                write!(f, "the buffer is {len} bytes long, the limit is {limit}")
            }
        }
    }
}

/// Part of the header that is kept of a skipped chunk.
#[derive(Clone, Copy, Debug)]
pub(super) struct SkippedHeader {
    pub(super) direction: u64,
    /// How many bytes of its cmd were discarded.
    pub(super) command_len: u64,
    /// Those that were discarded are what reserved commands begin with, as far as that goes.
    reserved: bool,
}

impl SkippedHeader {
    pub(super) const fn new(direction: u64) -> Self {
        Self { direction, command_len: 0, reserved: true }
    }

    /// Takes note of further bytes of the cmd.
    pub(super) fn command(&mut self, bytes: &[u8]) {
        let prefix = command::RESERVED_PREFIX.as_bytes();
        let seen = usize::try_from(self.command_len).unwrap_or(usize::MAX);
        let expected = prefix.get(seen..).unwrap_or_default();
        self.reserved &= expected.iter().zip(bytes).all(|(expected, byte)| expected == byte);
        self.command_len = self.command_len.saturating_add(bytes.len() as u64);
    }

    pub(super) fn is_reserved(&self) -> bool {
        self.reserved && self.command_len >= command::RESERVED_PREFIX.len() as u64
    }
}
