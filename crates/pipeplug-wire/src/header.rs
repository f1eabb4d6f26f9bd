//! What stands in front of a buffer, and how it is written.

#[cfg(feature = "alloc")]
use alloc::vec::Vec;
use core::error::Error;
use core::fmt;

use crate::number::{Writer, decimal_len};
use crate::{Direction, Format, ThreadId};

/// What stands in front of a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header<'a> {
    /// Whose response it is, or which request.
    pub thread_id: ThreadId,
    /// What it is to its receiver.
    pub direction: Direction,
    /// What it asks for or tells.
    pub command: &'a str,
    /// How many bytes of buffer follow.
    pub buffer_len: u64,
}

impl Header<'_> {
    /// How many bytes [`encode`](Self::encode) writes.
    #[must_use]
    #[inline]
    pub fn encoded_len(&self, format: Format) -> usize {
        let id = self.thread_id.as_u64();
        let fixed = match format {
            // Five NULs and the digit of the direction.
            Format::Standard => {
                6 + decimal_len(id) + decimal_len(self.command.len() as u64) + decimal_len(self.buffer_len)
            }
            // Three NULs, a space and the digit of the direction.
            Format::Classic => 5 + classic_len(id) + classic_len(self.buffer_len),
        };
        fixed + self.command.len()
    }

    /// Writes the header to the start of `out` and says how many bytes it took.
    ///
    /// # Errors
    /// If `out` is too short, or if the classic format cannot carry the cmd. Nothing was written then.
    pub fn encode(&self, format: Format, out: &mut [u8]) -> Result<usize, EncodeError> {
        self.check(format)?;
        let needed = self.encoded_len(format);
        let available = out.len();
        let out = out.get_mut(..needed).ok_or(EncodeError::NoRoom { needed, available })?;
        self.write(format, out);
        Ok(needed)
    }

    /// Appends the header to `out`.
    ///
    /// # Errors
    /// If the classic format cannot carry the cmd; `out` is then as it was.
    #[cfg(feature = "alloc")]
    pub fn encode_to(&self, format: Format, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        self.check(format)?;
        let start = out.len();
        out.resize(start + self.encoded_len(format), 0);
        self.write(format, &mut out[start..]);
        Ok(())
    }

    fn check(&self, format: Format) -> Result<(), EncodeError> {
        if format == Format::Standard {
            return Ok(());
        }
        match self.command.bytes().position(|byte| byte == b' ' || byte == 0) {
            None => Ok(()),
            Some(at) if self.command.as_bytes()[at] == 0 => Err(EncodeError::NulInCommand { at }),
            Some(at) => Err(EncodeError::SpaceInCommand { at }),
        }
    }

    /// Writes to `out`, which is as long as the header.
    #[inline]
    fn write(&self, format: Format, out: &mut [u8]) {
        let mut out = Writer::new(out);
        match format {
            Format::Standard => out.decimal(self.thread_id.as_u64()),
            Format::Classic => out.classic(self.thread_id.as_u64()),
        }
        out.byte(0);
        out.byte(b'0' + self.direction as u8);
        out.byte(0);
        match format {
            Format::Standard => {
                out.decimal(self.command.len() as u64);
                out.byte(0);
                out.bytes(self.command.as_bytes());
                out.byte(0);
                out.decimal(self.buffer_len);
            }
            Format::Classic => {
                out.bytes(self.command.as_bytes());
                out.byte(b' ');
                out.classic(self.buffer_len);
            }
        }
        out.byte(0);
    }
}

fn classic_len(number: u64) -> usize {
    if number == 0 { 0 } else { decimal_len(number) }
}

/// Why a header was not written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum EncodeError {
    /// The classic format ends a cmd at its first space.
    SpaceInCommand {
        /// Where the space is, in bytes from the start of the cmd.
        at: usize,
    },
    /// The classic format has no cmd with a NUL.
    NulInCommand {
        /// Where the NUL is, in bytes from the start of the cmd.
        at: usize,
    },
    /// The output is too short.
    NoRoom {
        /// How many bytes the header takes.
        needed: usize,
        /// How many bytes there were.
        available: usize,
    },
}

impl fmt::Display for EncodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SpaceInCommand { at } => {
                write!(
                    f,
                    "the command has a space at byte {at}, which the classic format cannot carry, use the standard format"
                )
            }
            Self::NulInCommand { at } => {
                write!(
                    f,
                    "the command has a NUL at byte {at}, which the classic format cannot carry, use the standard format"
                )
            }
            Self::NoRoom { needed, available } => {
                write!(f, "the header takes {needed} bytes, the output has {available}")
            }
        }
    }
}

impl Error for EncodeError {}
