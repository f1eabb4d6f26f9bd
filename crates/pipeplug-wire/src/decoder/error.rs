//! Errors in the bytes of a peer.

use core::error::Error;
use core::fmt;

use crate::Format;

/// A rule that the peer broke; the stream is dead behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DecodeError {
    /// Where it was noticed, in bytes from the start of the stream.
    pub offset: u64,
    /// The field that stands there.
    pub field: Field,
    /// The broken rule, with the bytes that were found.
    pub kind: DecodeErrorKind,
}

impl DecodeError {
    /// The format that the peer seems to speak, where this error is what reading it as the other
    /// one gives.
    ///
    /// A guess, for an error message that names the option to set.
    #[must_use]
    pub const fn other_format(&self) -> Option<Format> {
        match (self.field, self.kind) {
            (Field::CommandLen, DecodeErrorKind::NotADigit { .. })
            | (Field::ThreadId | Field::Direction, DecodeErrorKind::NoDigits) => {
                Some(Format::Classic)
            }
            (Field::Command, DecodeErrorKind::NulInCommand) => Some(Format::Standard),
            _ => None,
        }
    }
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "broken chunk at byte {} of the stream, in its {}: {}",
            self.offset, self.field, self.kind
        )
    }
}

impl Error for DecodeError {}

/// A field of a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Field {
    /// The thread id.
    ThreadId,
    /// The direction.
    Direction,
    /// The cmd's length, which only the standard format has.
    CommandLen,
    /// The cmd, with the byte that ends it.
    Command,
    /// The buffer's length.
    BufferLen,
    /// The buffer.
    Buffer,
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::ThreadId => "threadID",
            Self::Direction => "direction",
            Self::CommandLen => "len(cmd)",
            Self::Command => "cmd",
            Self::BufferLen => "len(buffer)",
            Self::Buffer => "buffer",
        })
    }
}

/// Which rule was broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DecodeErrorKind {
    /// A number ended without a digit, which only the classic format reads as zero.
    NoDigits,
    /// A number holds something else than digits.
    NotADigit {
        /// The byte that was found.
        found: u8,
    },
    /// A number of more than one digit begins with 0.
    LeadingZero {
        /// The digit behind the 0.
        found: u8,
    },
    /// A number is above 18446744073709551615.
    TooLarge {
        /// The digit that makes it so.
        found: u8,
    },
    /// The standard format's cmd is not followed by its NUL.
    NoNulAfterCommand {
        /// The byte that was found.
        found: u8,
    },
    /// The classic format's cmd met a NUL before the space that ends it.
    NulInCommand,
    /// The cmd is no UTF-8.
    NotUtf8 {
        /// The first byte that fits no character.
        found: u8,
    },
    /// The stream ended inside a chunk.
    UnexpectedEnd {
        /// How many bytes of this field and the NUL behind a cmd are missing, where its length is
        /// known.
        missing: Option<u64>,
    },
}

impl fmt::Display for DecodeErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::NoDigits => f.write_str("expected at least one digit, found NUL"),
            Self::NotADigit { found } => {
                write!(f, "expected digits up to a NUL, found {}", Byte(found))
            }
            Self::LeadingZero { found } => {
                write!(f, "expected NUL behind a leading zero, found {}", Byte(found))
            }
            Self::TooLarge { found } => {
                write!(
                    f,
                    "expected a number of at most {}, found the further digit {}",
                    u64::MAX,
                    Byte(found)
                )
            }
            Self::NoNulAfterCommand { found } => {
                write!(f, "expected NUL behind the announced length, found {}", Byte(found))
            }
            Self::NulInCommand => f.write_str("expected a space behind the cmd, found NUL"),
            Self::NotUtf8 { found } => write!(f, "expected UTF-8, found {}", Byte(found)),
            Self::UnexpectedEnd { missing: None } => {
                f.write_str("expected the rest of the chunk, found the end of the stream")
            }
            Self::UnexpectedEnd { missing: Some(missing) } => {
                write!(f, "expected {missing} further bytes, found the end of the stream")
            }
        }
    }
}

/// A byte as a reader of the message knows it again: in hex, and as a character where it is one.
struct Byte(u8);

impl fmt::Display for Byte {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => f.write_str("NUL"),
            byte @ b' '..=b'~' => write!(f, "{byte:#04x} ({:?})", char::from(byte)),
            byte => write!(f, "{byte:#04x}"),
        }
    }
}
