//! Errors of calls and one-ways.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use pipeplug_wire::{EncodeError, SkipReason};

use super::stream::error::StreamError;
use crate::error::CloseReason;
use crate::escape::Escaped;
use crate::postmortem::Postmortem;
use crate::protocol::flow::Credit;

/// Reason that a call brought no reply.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum CallError {
    /// The other side answered with an error (`cmd.error`).
    #[error("{command}: {}", Escaped(message))]
    Remote {
        /// Command that was called.
        command: String,
        /// Error message of the other side.
        message: String,
    },
    /// The connection ended before the reply came, or before the call.
    ///
    /// `Display` writes up to three lines: this one and those of the [`Postmortem`].
    #[error("{command}: no reply, {reason}{postmortem}")]
    Closed {
        /// Command that was called.
        command: String,
        /// Reason that the connection ended.
        reason: Arc<CloseReason>,
        /// State of the connection at its end.
        postmortem: Arc<Postmortem>,
    },
    /// No reply came in time. The limit is the call's own, that of the wait, or the deadline of the
    /// request whose handler made the call. The call is given up, and a late reply is dropped.
    #[error("{command}: no reply within {}", Rounded(*.after))]
    TimedOut {
        /// Command that was called.
        command: String,
        /// Time that it was waited for.
        after: Duration,
    },
    /// The time was over before the call was sent: while the other side was behind with earlier
    /// chunks, or from the start. Nothing of the call has reached the other side.
    #[error("{command}: {}", not_sent(*.after, *.credit))]
    NotSent {
        /// Command that was called.
        command: String,
        /// Time that it waited to be sent. 0 if its deadline had passed when it was made.
        after: Duration,
        /// Credit that it waited for, if it waited for credit.
        credit: Option<Credit>,
    },
    /// As many calls as [`Options::calls`](crate::Options) allows are open.
    #[error("{command}: {limit} calls wait for a reply already, the limit is {limit}")]
    TooManyCalls {
        /// Command that was called.
        command: String,
        /// Limit of open calls.
        limit: usize,
    },
    /// The reply is larger than [`Options::limits`](crate::Options) allows and was skipped.
    #[error("{command}: the reply was skipped: {reason}")]
    ReplyTooLarge {
        /// Command that was called.
        command: String,
        /// Size and limit.
        reason: SkipReason,
    },
    /// The reply is no UTF-8 text, which `call` promises. `call_bytes` takes any bytes.
    #[error("{command}: the reply is no UTF-8 text ({source}); call_bytes takes any bytes")]
    NotText {
        /// Command that was called.
        command: String,
        /// Position of the first wrong byte.
        source: std::str::Utf8Error,
    },
    /// The command cannot be sent in the connection's format.
    #[error("{command}: {error}")]
    Encode {
        /// Command that was called.
        command: String,
        /// Byte or length that is not allowed.
        error: EncodeError,
    },
    /// More one-ways from the other side wait for handlers than
    /// [`Options::overrun`](crate::Options) allows. Its replies, which come behind them, cannot be
    /// read.
    #[error(
        "{command}: given up, since {held} bytes of one-ways from the other side wait for handlers, the limit is {limit}"
    )]
    Overrun {
        /// Command that was called.
        command: String,
        /// Weight that waits for handlers, in bytes.
        held: usize,
        /// Limit of that weight, in bytes.
        limit: usize,
    },
    /// The parts of the reply ended before the reply.
    #[error("{command}: {error}")]
    Stream {
        /// Command that was called.
        command: String,
        /// Reason that they ended.
        error: StreamError,
    },
    /// The other side has not negotiated a feature that the call needs.
    #[error("{command}: not sent: the other side does not know the feature {feature}")]
    Unsupported {
        /// Command that was called.
        command: String,
        /// Name of the feature (docs/protocol.md, "Negotiation").
        feature: &'static str,
    },
    /// The values of the call's context are too long.
    #[error("{command}: not sent: its context has {len} bytes, the limit is {limit}")]
    ContextTooLarge {
        /// Command that was called.
        command: String,
        /// Length of the values, as JSON.
        len: usize,
        /// Limit of that length.
        limit: usize,
    },
    /// This side gave the call up, through a [`CancelHandle`](crate::CancelHandle).
    #[error("{command}: cancelled by this side")]
    Cancelled {
        /// Command that was called.
        command: String,
    },
    /// The call would have had to wait before it was sent, and must not wait.
    #[error("{command}: the other side is behind, sending would have to wait")]
    WouldBlock {
        /// Command that was called.
        command: String,
    },
}

impl From<CallError> for io::Error {
    fn from(error: CallError) -> Self {
        let kind = match &error {
            CallError::Closed { .. } => io::ErrorKind::BrokenPipe,
            CallError::TimedOut { .. } | CallError::NotSent { .. } => io::ErrorKind::TimedOut,
            CallError::WouldBlock { .. } => io::ErrorKind::WouldBlock,
            _ => io::ErrorKind::Other,
        };
        Self::new(kind, error)
    }
}

fn not_sent(after: Duration, credit: Option<Credit>) -> String {
    if after.is_zero() {
        return "not sent: its deadline, or that of the request whose handler made it, had passed already"
            .into();
    }
    let after = Rounded(after);
    match credit {
        Some(credit) => format!("not sent within {after}: {credit}"),
        None => {
            format!("not sent within {after}: the other side is behind with what was sent before")
        }
    }
}

/// Shows a time rounded up to milliseconds if it is longer than one.
struct Rounded(Duration);

impl std::fmt::Display for Rounded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match u64::try_from(self.0.as_nanos().div_ceil(1_000_000)) {
            Ok(millis @ 2..) => write!(f, "{:?}", Duration::from_millis(millis)),
            _ => write!(f, "{:?}", self.0),
        }
    }
}

/// Reason that a one-way was not sent.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum NotifyError {
    /// The connection has ended.
    ///
    /// `Display` writes up to three lines: this one and those of the [`Postmortem`].
    #[error("{command}: not sent, {reason}{postmortem}")]
    Closed {
        /// Command of the one-way.
        command: String,
        /// Reason that the connection ended.
        reason: Arc<CloseReason>,
        /// State of the connection at its end.
        postmortem: Arc<Postmortem>,
    },
    /// The other side has not negotiated a feature that the one-way needs.
    #[error("{command}: not sent: the other side does not know the feature {feature}")]
    Unsupported {
        /// Command of the one-way.
        command: String,
        /// Name of the feature (docs/protocol.md, "Negotiation").
        feature: &'static str,
    },
    /// The command cannot be sent in the connection's format.
    #[error("{command}: {error}")]
    Encode {
        /// Command of the one-way.
        command: String,
        /// Byte or length that is not allowed.
        error: EncodeError,
    },
}
