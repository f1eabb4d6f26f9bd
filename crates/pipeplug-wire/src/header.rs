//! Headers of chunks, and how they are written.

#[cfg(feature = "alloc")]
use alloc::vec::Vec;
use core::error::Error;
use core::fmt;

use crate::number::{Digits, Writer};
use crate::{Direction, Format, ThreadId};

/// Nearly every header is at most this long, in bytes.
#[cfg(feature = "alloc")]
const SHORT: usize = 64;

/// Header of a chunk: all that comes before the buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header<'a> {
    /// Id of the request, or of the request that this response answers.
    pub thread_id: ThreadId,
    /// Kind of the chunk: one-way, request or response.
    pub direction: Direction,
    /// Name of the command.
    pub command: &'a str,
    /// How many bytes of buffer follow.
    pub buffer_len: u64,
}

impl Header<'_> {
    /// How many bytes [`encode`](Self::encode) writes.
    #[must_use]
    #[inline]
    pub fn encoded_len(&self, format: Format) -> usize {
        self.numbers(format).header_len(self.command)
    }

    /// Writes the header to the start of `out` and says how many bytes it took.
    ///
    /// # Errors
    /// If `out` is too short, or if the classic format cannot carry the cmd. Nothing was written
    /// then.
    pub fn encode(&self, format: Format, out: &mut [u8]) -> Result<usize, EncodeError> {
        self.check(format)?;
        let numbers = self.numbers(format);
        let needed = numbers.header_len(self.command);
        let available = out.len();
        let out = out.get_mut(..needed).ok_or(EncodeError::NoRoom { needed, available })?;
        self.write(numbers, out);
        Ok(needed)
    }

    /// Appends the header to `out`.
    ///
    /// # Errors
    /// If the classic format cannot carry the cmd; `out` is then as it was.
    #[cfg(feature = "alloc")]
    pub fn encode_to(&self, format: Format, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        self.check(format)?;
        let numbers = self.numbers(format);
        let start = out.len();
        let end = start + numbers.header_len(self.command);
        if end - start <= SHORT && out.capacity() - start >= SHORT {
            // So many zeros are stored at once; as many as are needed take a call.
            out.extend_from_slice(&[0; SHORT]);
            out.truncate(end);
        } else {
            out.resize(end, 0);
        }
        self.write(numbers, &mut out[start..]);
        Ok(())
    }

    /// Looks whether the format can carry the header.
    ///
    /// # Errors
    /// If the classic format cannot carry the cmd.
    pub fn check(&self, format: Format) -> Result<(), EncodeError> {
        if format == Format::Standard {
            return Ok(());
        }
        let unfit = |byte| byte == b' ' || byte == 0;
        // Nearly always there is none. To look at all of them is faster than to stop at one: it is
        // done for several at a time.
        if !self.command.bytes().fold(false, |found, byte| found | unfit(byte)) {
            return Ok(());
        }
        match self.command.bytes().position(unfit) {
            None => Ok(()),
            Some(at) if self.command.as_bytes()[at] == 0 => Err(EncodeError::NulInCommand { at }),
            Some(at) => Err(EncodeError::SpaceInCommand { at }),
        }
    }

    #[inline]
    fn numbers(&self, format: Format) -> Numbers {
        let thread_id = self.thread_id.as_u64();
        match format {
            Format::Standard => Numbers {
                thread_id: Digits::decimal(thread_id),
                command_len: Some(Digits::decimal(self.command.len() as u64)),
                buffer_len: Digits::decimal(self.buffer_len),
            },
            Format::Classic => Numbers {
                thread_id: Digits::classic(thread_id),
                command_len: None,
                buffer_len: Digits::classic(self.buffer_len),
            },
        }
    }

    /// Writes to `out`, which is as long as the header.
    #[inline]
    fn write(&self, numbers: Numbers, out: &mut [u8]) {
        let mut out = Writer::new(out);
        out.digits(numbers.thread_id);
        out.bytes(&[0, b'0' + self.direction as u8, 0]);
        let behind_command = match numbers.command_len {
            Some(len) => {
                out.digits(len);
                out.byte(0);
                0
            }
            None => b' ',
        };
        out.bytes(self.command.as_bytes());
        out.byte(behind_command);
        out.digits(numbers.buffer_len);
        out.byte(0);
    }
}

/// The numbers in a header, as its format writes them.
#[derive(Clone, Copy)]
struct Numbers {
    thread_id: Digits,
    /// Only the standard format has it.
    command_len: Option<Digits>,
    buffer_len: Digits,
}

impl Numbers {
    #[inline]
    fn header_len(&self, command: &str) -> usize {
        let fixed = match self.command_len {
            // Five NULs and the digit of the direction.
            Some(len) => 6 + len.len(),
            // Three NULs, a space and the digit of the direction.
            None => 5,
        };
        fixed + self.thread_id.len() + command.len() + self.buffer_len.len()
    }
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
                    "the command has a space at byte {at}, which the classic format cannot carry, \
                     use the standard format"
                )
            }
            Self::NulInCommand { at } => {
                write!(
                    f,
                    "the command has a NUL at byte {at}, which the classic format cannot carry, \
                     use the standard format"
                )
            }
            Self::NoRoom { needed, available } => {
                write!(f, "the header takes {needed} bytes, the output has {available}")
            }
        }
    }
}

impl Error for EncodeError {}

#[cfg(all(test, feature = "alloc"))]
mod tests {
    use alloc::{string::String, vec};

    use super::*;

    #[test]
    fn a_header_is_the_same_however_much_room_there_is() {
        for command in [String::new(), "echo".into(), "x".repeat(100)] {
            let header = Header {
                thread_id: ThreadId::new(12_345),
                direction: Direction::Request,
                command: &command,
                buffer_len: 1_234_567,
            };
            for format in [Format::Standard, Format::Classic] {
                let len = header.encoded_len(format);
                let mut expected = vec![b'x'; len + 100];
                assert_eq!(header.encode(format, &mut expected), Ok(len));
                assert_eq!(expected[len..], [b'x'; 100]);
                for room in [0, len, SHORT - 1, SHORT, 1024] {
                    let mut out = Vec::with_capacity(1 + room);
                    out.push(b'>');
                    assert_eq!(header.encode_to(format, &mut out), Ok(()));
                    assert_eq!(
                        out.split_first(),
                        Some((&b'>', &expected[..len])),
                        "{command} {format} {room}"
                    );
                }
            }
        }
    }
}
