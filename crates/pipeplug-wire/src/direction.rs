//! Kinds of chunks: one-way, request, response.

use core::fmt;

/// Kind of a chunk, as its receiver sees it: something to note, to answer, or an answer.
///
/// The wire also knows 0, "noop", and may grow numbers; chunks with those are
/// [skipped](crate::SkipReason), so they never become a value of this type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// A chunk that has no answer.
    OneWay = 1,
    /// A request. Exactly one response with the same thread id answers it.
    Request = 2,
    /// The answer to the request with its thread id.
    Response = 3,
}

impl Direction {
    /// The number on the wire.
    #[must_use]
    pub const fn as_u64(self) -> u64 {
        self as u64
    }

    /// The direction with this number on the wire; `None` for 0 and for all above 3.
    #[must_use]
    pub const fn from_u64(number: u64) -> Option<Self> {
        match number {
            1 => Some(Self::OneWay),
            2 => Some(Self::Request),
            3 => Some(Self::Response),
            _ => None,
        }
    }
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::OneWay => "one-way",
            Self::Request => "request",
            Self::Response => "response",
        })
    }
}
