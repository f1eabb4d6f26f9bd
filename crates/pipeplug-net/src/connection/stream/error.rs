//! Errors of streams.

use std::io;
use std::sync::Arc;

use pipeplug_wire::SkipReason;

use crate::error::CloseReason;
use crate::escape::Escaped;
use crate::postmortem::Postmortem;

/// Reason that no further part can be sent or received, though the stream is not complete.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum StreamError {
    /// The receiver wants no more parts: it said so, or the call has its answer.
    #[error("the receiver takes no more parts{}", because(reason))]
    Enough {
        /// Reason of the receiver. Empty if it gave none.
        reason: String,
    },
    /// The sender has ended the stream before it was complete.
    #[error("the sender has ended the stream early{}", because(reason))]
    Aborted {
        /// Reason of the sender. Empty if it gave none.
        reason: String,
    },
    /// The caller takes no parts of a reply: it made a call without a stream.
    #[error(
        "the caller takes no parts of a reply: it made a call without a stream, and not with \
         request(…).stream(), or --stream in the command line"
    )]
    NotTaken,
    /// The call was given up by its caller.
    #[error("the call was given up")]
    Cancelled,
    /// The deadline of the call has passed.
    #[error("the deadline of the call has passed")]
    DeadlinePassed,
    /// A part is larger than [`Options::limits`](crate::Options) allows and was skipped.
    #[error("a part was skipped: {0}")]
    TooLarge(SkipReason),
    /// The other side has sent more than the window of the stream allows.
    #[error(
        "the other side sends past the window of the stream: {held} bytes were not taken yet, the window is {window}"
    )]
    PastWindow {
        /// Weight of the parts that were not taken, in bytes.
        held: u64,
        /// Window, in bytes; see [`Options::stream_window`](crate::Options::stream_window).
        window: u64,
    },
    /// More is received than is taken, on all streams or of requests and one-ways, and this stream
    /// was given up for that.
    #[error("the stream was given up: {held} received bytes were not taken, the limit is {limit}")]
    Overrun {
        /// Bytes that were not taken: of the requests and one-ways that wait for handlers, or of
        /// the parts past the windows of all streams.
        held: usize,
        /// Limit, in bytes; see [`Options::overrun`](crate::Options::overrun) and
        /// [`Limits::buffer`](pipeplug_wire::Limits).
        limit: usize,
    },
    /// [`Request::reply_parts`](crate::Request::reply_parts) was called before.
    #[error("the parts of this reply are sent from elsewhere: reply_parts was called before")]
    AlreadyTaken,
    /// Sending would have to wait, and must not wait.
    #[error("the receiver is behind, sending would have to wait")]
    WouldBlock,
    /// The connection has ended.
    ///
    /// `Display` writes up to three lines: this one and those of the [`Postmortem`].
    #[error("{reason}{postmortem}")]
    Closed {
        /// Reason that the connection ended.
        reason: Arc<CloseReason>,
        /// State of the connection at its end.
        postmortem: Arc<Postmortem>,
    },
}

fn because(reason: &str) -> String {
    if reason.is_empty() { String::new() } else { format!(": {}", Escaped(reason)) }
}

impl From<StreamError> for io::Error {
    fn from(error: StreamError) -> Self {
        let kind = match &error {
            StreamError::Enough { .. } | StreamError::Closed { .. } => io::ErrorKind::BrokenPipe,
            StreamError::Cancelled => io::ErrorKind::ConnectionAborted,
            StreamError::DeadlinePassed => io::ErrorKind::TimedOut,
            StreamError::WouldBlock => io::ErrorKind::WouldBlock,
            StreamError::Aborted { .. } => io::ErrorKind::UnexpectedEof,
            StreamError::NotTaken | StreamError::AlreadyTaken => io::ErrorKind::Unsupported,
            StreamError::Overrun { .. } => io::ErrorKind::QuotaExceeded,
            StreamError::TooLarge(_) | StreamError::PastWindow { .. } => io::ErrorKind::InvalidData,
        };
        Self::new(kind, error)
    }
}
