//! Why a connection ended.

use std::io;

use pipeplug_wire::DecodeError;

use crate::escape::Escaped;

/// Why a connection ended; open calls and later ones fail with it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CloseReason {
    /// The peer closed its side: its process ended, or it is done.
    #[error("the other side closed the pipe")]
    EndOfFile,
    /// This side closed it.
    #[error("this side closed the connection")]
    Local,
    /// What came is no chunk; nothing after it can be understood.
    #[error("the other side broke the protocol: {error}; {}", Shown(.first))]
    Broken {
        /// What stood where.
        error: DecodeError,
        /// The first bytes of the chunk that broke it, at most 64; none of one that was being thrown away.
        first: Vec<u8>,
    },
    /// read(2) failed.
    #[error("reading from the pipe failed: {0}")]
    ReadFailed(io::Error),
    /// write(2) failed, as where the peer closed its reading end.
    #[error("{}", write_failed(.0))]
    WriteFailed(io::Error),
    /// The peer sends what has to be answered and does not read the answers.
    #[error("the other side does not read: {queued} bytes of answers wait for it, the limit is {limit}")]
    Unread {
        /// Bytes that wait to be written.
        queued: usize,
        /// How many may ([`Options::unread`](crate::Options)).
        limit: usize,
    },
    /// What the owner of the connection said when it ended it.
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

/// The beginning of a chunk, fit for a terminal.
struct Shown<'a>(&'a [u8]);

impl std::fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.0.is_empty() {
            return f.write_str("the chunk was being thrown away, for its size or its direction");
        }
        write!(f, "the chunk begins with \"{}\"", self.0.escape_ascii())
    }
}
