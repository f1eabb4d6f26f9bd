//! Chunks that are not given out.

use core::fmt;

use crate::ThreadId;

/// A chunk that is read and thrown away; the stream goes on behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Skipped {
    /// Its thread id.
    pub thread_id: ThreadId,
    /// Its direction's number, which [`Direction`](crate::Direction) need not know.
    pub direction: u64,
    /// Why it is skipped.
    pub reason: SkipReason,
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
        /// How long it is, in bytes; `None` in the classic format, which does not say.
        len: Option<u64>,
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
            Self::CommandTooLong { len: Some(len), limit } => {
                write!(f, "the command is {len} bytes long, the limit is {limit}")
            }
            // It is noticed with the first byte past the limit.
            Self::CommandTooLong { len: None, limit } => {
                write!(
                    f,
                    "the command is at least {} bytes long, the limit is {limit}",
                    limit.saturating_add(1)
                )
            }
            Self::BufferTooLong { len, limit } => {
                write!(f, "the buffer is {len} bytes long, the limit is {limit}")
            }
        }
    }
}
