//! Reasons that a connection ends.

use std::io;

use pipeplug_wire::DecodeError;

use crate::escape::Escaped;

/// Reason that a connection ended. Open calls and later ones fail with it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CloseReason {
    /// The peer closed its side: its process ended, or it is done.
    #[error("the other side closed the pipe")]
    EndOfFile,
    /// This side closed it.
    #[error("this side closed the connection")]
    Local,
    /// Bytes came that are no chunk. Nothing after them can be understood.
    #[error("the other side broke the protocol: {error}; {}", Shown(.first))]
    Broken {
        /// The wrong bytes and their position.
        error: DecodeError,
        /// The first bytes of that chunk, at most 64. Empty for a chunk that was being skipped.
        first: Vec<u8>,
    },
    /// read(2) failed.
    #[error("reading from the pipe failed: {0}")]
    ReadFailed(io::Error),
    /// write(2) failed, for example because the peer closed its reading end.
    #[error("{}", write_failed(.0))]
    WriteFailed(io::Error),
    /// The peer sends requests that have to be answered, and does not read the answers.
    #[error(
        "the other side does not read: {queued} bytes of answers wait for it, the limit is {limit}"
    )]
    Unread {
        /// Bytes that wait to be written.
        queued: usize,
        /// Limit of those bytes ([`Options::unread`](crate::Options)).
        limit: usize,
    },
    /// Reason that the owner of the connection gave when it ended it.
    #[error("{}", Escaped(.0))]
    Ended(String),
}

fn write_failed(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::BrokenPipe => {
            format!("the other side reads no more: writing to the pipe failed: {error}")
        }
        _ => format!("writing to the pipe failed: {error}"),
    }
}

/// Shows the first bytes of a chunk, safe for a terminal.
struct Shown<'a>(&'a [u8]);

impl std::fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.0.is_empty() {
            return f.write_str("the chunk was being thrown away, for its size or its direction");
        }
        write!(f, "the chunk begins with \"{}\"", self.0.escape_ascii())
    }
}
