//! The short way for what nearly every chunk is.

use core::str;

use crate::number::split_number;
use crate::{ChunkRef, Direction, Format, Limits, ThreadId};

/// The chunk that `input` begins with and what is behind it, if it is whole, within the limits and
/// has no fault.
///
/// `None` decides nothing. [`Decoder::decode`](super::Decoder::decode) tries this once for each
/// chunk, where it begins; whatever else it can be is found out by the general way, which remembers
/// how far it got.
#[inline(always)]
pub(super) fn whole_chunk(
    format: Format,
    limits: Limits,
    input: &[u8],
) -> Option<(ChunkRef<'_>, &[u8])> {
    let (thread_id, rest) = split_number(input)?;
    let [digit, 0, rest @ ..] = rest else { return None };
    let direction = Direction::from_u64(u64::from(digit.wrapping_sub(b'0')))?;
    let (command, rest) = match format {
        Format::Standard => {
            let (len, rest) = split_number(rest)?;
            let (command, rest) = rest.split_at_checked(usize::try_from(len).ok()?)?;
            (command, rest.strip_prefix(&[0])?)
        }
        Format::Classic => {
            // The general way looks at these bytes once more if they do not end here, so they are
            // kept few.
            const SHORT: usize = 256;
            let near = rest.get(..SHORT).unwrap_or(rest);
            let end = near.iter().position(|&byte| byte == b' ' || byte == 0)?;
            (rest.get(..end)?, rest.get(end..)?.strip_prefix(b" ")?)
        }
    };
    let (buffer_len, rest) = match rest {
        [0, rest @ ..] if format == Format::Classic => (0, rest),
        _ => split_number(rest)?,
    };
    if command.len() > limits.command || buffer_len > limits.buffer {
        return None;
    }
    let (buffer, rest) = rest.split_at_checked(usize::try_from(buffer_len).ok()?)?;
    // All of it, always. But its length is known here and need not be read back from where the call
    // has just put it as one half of a pair, which holds the processor up.
    let command = str::from_utf8(command).ok()?.get(..command.len())?;
    Some((ChunkRef { thread_id: ThreadId::new(thread_id), direction, command, buffer }, rest))
}
