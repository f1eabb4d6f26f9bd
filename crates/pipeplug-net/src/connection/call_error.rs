//! Errors of calls and one-ways.

use std::error::Error;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use pipeplug_wire::{EncodeError, SkipReason};
use serde_json::Value;

use super::reserved::instead_of;
use super::stream::error::StreamError;
use crate::error::CloseReason;
use crate::escape::Escaped;
use crate::postmortem::Postmortem;
use crate::protocol::failure::failure_code;
use crate::protocol::flow::Credit;

/// Reason that a call brought no reply.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum CallError {
    /// The other side answered with an error (`cmd.failure` or `cmd.error`).
    #[error("{}: {}", Escaped(command), Escaped(message))]
    Remote {
        /// Command that was called.
        command: String,
        /// Code of the error. `None` if the handler gave none, or the other side has not negotiated
        /// `failure`. Codes of pipeplug itself are in [`failure_code`](crate::failure_code).
        code: Option<String>,
        /// Error message of the other side.
        message: String,
        /// Data of the error.
        data: Option<Box<Value>>,
    },
    /// The connection ended before the reply came, or before the call.
    ///
    /// `Display` writes up to three lines: this one and those of the [`Postmortem`].
    #[error("{}: {}, {reason}{postmortem}", Escaped(command), if *.sent == Sent::No { "not sent" } else { "no reply" })]
    Closed {
        /// Command that was called.
        command: String,
        /// Tells whether the request was sent before.
        sent: Sent,
        /// Reason that the connection ended.
        reason: Arc<CloseReason>,
        /// State of the connection at its end.
        postmortem: Arc<Postmortem>,
    },
    /// No reply came in time. The limit is the call's own, that of the wait, or the deadline of the
    /// request whose handler made the call. The call is given up, and a late reply is dropped.
    #[error("{}: no reply within {}", Escaped(command), Rounded(*.after))]
    TimedOut {
        /// Command that was called.
        command: String,
        /// Time that it was waited for.
        after: Duration,
    },
    /// The time was over before the call was sent: while the other side was behind with earlier
    /// chunks, or from the start. Nothing of the call has reached the other side.
    #[error("{}: {}", Escaped(command), not_sent(*.after, *.credit))]
    NotSent {
        /// Command that was called.
        command: String,
        /// Time that it waited to be sent. 0 if its deadline had passed when it was made.
        after: Duration,
        /// Credit that it waited for, if it waited for credit.
        credit: Option<Credit>,
    },
    /// As many calls as [`Options::calls`](crate::Options) allows are open.
    #[error("{}: {limit} calls wait for a reply already, the limit is {limit}", Escaped(command))]
    TooManyCalls {
        /// Command that was called.
        command: String,
        /// Limit of open calls.
        limit: usize,
    },
    /// The reply is larger than [`Options::limits`](crate::Options) allows and was skipped.
    #[error("{}: the reply was skipped: {reason}", Escaped(command))]
    ReplyTooLarge {
        /// Command that was called.
        command: String,
        /// Size and limit.
        reason: SkipReason,
    },
    /// The reply is no UTF-8 text, which `call` promises. `call_bytes` takes any bytes.
    #[error(
        "{}: the reply is no UTF-8 text ({source}); call_bytes takes any bytes",
        Escaped(command)
    )]
    NotText {
        /// Command that was called.
        command: String,
        /// Position of the first wrong byte.
        source: std::str::Utf8Error,
    },
    /// The command cannot be sent in the connection's format.
    #[error("{}: {error}", Escaped(command))]
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
        "{}: given up, since {held} bytes of one-ways from the other side wait for handlers, the limit is {limit}",
        Escaped(command)
    )]
    Overrun {
        /// Command that was called.
        command: String,
        /// Weight that waits for handlers, in bytes.
        held: usize,
        /// Limit of that weight, in bytes.
        limit: usize,
        /// Tells whether the request was sent before.
        sent: Sent,
    },
    /// The parts of the reply ended before the reply.
    #[error("{}: {error}", Escaped(command))]
    Stream {
        /// Command that was called.
        command: String,
        /// Reason that they ended.
        error: StreamError,
    },
    /// The command is one of the protocol's own (docs/protocol.md, "Reserved commands"), which
    /// pipeplug sends by itself.
    #[error("{}", reserved(command))]
    Reserved {
        /// Command that was called.
        command: String,
    },
    /// The other side has not negotiated a feature that the call needs.
    #[error("{}: not sent: the other side does not know the feature {feature}", Escaped(command))]
    Unsupported {
        /// Command that was called.
        command: String,
        /// Name of the feature (docs/protocol.md, "Negotiation").
        feature: &'static str,
    },
    /// The values of the call's context are too long.
    #[error("{}: not sent: its context has {len} bytes, the limit is {limit}", Escaped(command))]
    ContextTooLarge {
        /// Command that was called.
        command: String,
        /// Length of the values, as JSON.
        len: usize,
        /// Limit of that length.
        limit: usize,
    },
    /// This side gave the call up, through a [`CancelHandle`](crate::CancelHandle).
    #[error("{}: cancelled by this side{}", Escaped(command), if *.sent == Sent::No { " before it was sent" } else { "" })]
    Cancelled {
        /// Command that was called.
        command: String,
        /// Tells whether the request was sent before.
        sent: Sent,
    },
    /// The call would have had to wait before it was sent, and must not wait.
    #[error("{}: the other side is behind, sending would have to wait", Escaped(command))]
    WouldBlock {
        /// Command that was called.
        command: String,
    },
}

/// Tells whether a request was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    /// No: the other side has seen nothing of it.
    No,
    /// All or a part of it may have been sent, and it may have been handled.
    Maybe,
    /// Yes: the other side has answered.
    Yes,
}

/// Tells whether the same call may be made again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// Yes. The request was not handled, and the reason may pass: make the call again later, or
    /// over another connection if this one has ended.
    Yes,
    /// Only if the call does no harm when it is made twice. The request may have been handled, and
    /// the reason may pass.
    IfIdempotent,
    /// No: the same call would fail in the same way, or was given up on purpose.
    No,
}

impl CallError {
    /// Command that was called.
    #[must_use]
    pub fn command(&self) -> &str {
        match self {
            Self::Remote { command, .. }
            | Self::Closed { command, .. }
            | Self::TimedOut { command, .. }
            | Self::Cancelled { command, .. }
            | Self::NotSent { command, .. }
            | Self::TooManyCalls { command, .. }
            | Self::ReplyTooLarge { command, .. }
            | Self::NotText { command, .. }
            | Self::Encode { command, .. }
            | Self::Overrun { command, .. }
            | Self::Stream { command, .. }
            | Self::Unsupported { command, .. }
            | Self::ContextTooLarge { command, .. }
            | Self::Reserved { command }
            | Self::WouldBlock { command } => command,
        }
    }

    /// Code of the error, for programs: that of the other side's answer, or one of
    /// [`failure_code`](crate::failure_code). `None` for an answer without a code.
    #[must_use]
    pub fn code(&self) -> Option<&str> {
        Some(match self {
            Self::Remote { code, .. } => return code.as_deref(),
            Self::Closed { .. } => failure_code::CLOSED,
            Self::TimedOut { .. } | Self::NotSent { .. } => failure_code::DEADLINE,
            Self::Cancelled { .. } => failure_code::CANCELLED,
            Self::TooManyCalls { .. } | Self::Overrun { .. } | Self::WouldBlock { .. } => {
                failure_code::OVERLOADED
            }
            Self::ReplyTooLarge { .. }
            | Self::ContextTooLarge { .. }
            | Self::Stream { error: StreamError::TooLarge(_), .. } => failure_code::TOO_LARGE,
            Self::Unsupported { .. } => failure_code::UNSUPPORTED,
            Self::NotText { .. }
            | Self::Encode { .. }
            | Self::Reserved { .. }
            | Self::Stream { .. } => failure_code::INVALID,
        })
    }

    /// Data of the other side's answer.
    #[must_use]
    pub fn data(&self) -> Option<&Value> {
        match self {
            Self::Remote { data, .. } => data.as_deref(),
            _ => None,
        }
    }

    /// Returns true if the other side has answered: with an error, or with a reply that cannot be
    /// taken. Returns false if there is no answer, because of the connection, the time, or a limit
    /// of this side.
    #[must_use]
    pub fn is_answer(&self) -> bool {
        self.sent() == Sent::Yes
    }

    /// Tells whether the request was sent.
    #[must_use]
    pub fn sent(&self) -> Sent {
        match self {
            Self::Remote { .. }
            | Self::ReplyTooLarge { .. }
            | Self::NotText { .. }
            | Self::Stream { .. } => Sent::Yes,
            Self::Closed { sent, .. }
            | Self::Overrun { sent, .. }
            | Self::Cancelled { sent, .. } => *sent,
            Self::TimedOut { .. } => Sent::Maybe,
            Self::NotSent { .. }
            | Self::TooManyCalls { .. }
            | Self::Encode { .. }
            | Self::Reserved { .. }
            | Self::Unsupported { .. }
            | Self::ContextTooLarge { .. }
            | Self::WouldBlock { .. } => Sent::No,
        }
    }

    /// Tells whether the same call may be made again.
    ///
    /// Of the answers, only those with the code [`OVERLOADED`](crate::failure_code::OVERLOADED)
    /// may: the request was not handled. For other codes the caller knows best.
    #[must_use]
    pub fn retry(&self) -> Retry {
        match self {
            Self::Remote { code, .. } if code.as_deref() == Some(failure_code::OVERLOADED) => {
                Retry::Yes
            }
            Self::Closed { sent, .. } | Self::Overrun { sent, .. } => match sent {
                Sent::No => Retry::Yes,
                Sent::Maybe | Sent::Yes => Retry::IfIdempotent,
            },
            Self::TimedOut { .. } => Retry::IfIdempotent,
            Self::NotSent { .. } | Self::TooManyCalls { .. } | Self::WouldBlock { .. } => {
                Retry::Yes
            }
            Self::Remote { .. }
            | Self::Cancelled { .. }
            | Self::ReplyTooLarge { .. }
            | Self::NotText { .. }
            | Self::Encode { .. }
            | Self::Stream { .. }
            | Self::Reserved { .. }
            | Self::Unsupported { .. }
            | Self::ContextTooLarge { .. } => Retry::No,
        }
    }
}

/// Error of a call of any [`Caller`](crate::Caller).
pub trait CallFailure: Error + From<CallError> + Send + Sync + 'static {
    /// The error of the call. `None` if there was nothing to call.
    fn call_error(&self) -> Option<&CallError>;

    /// Code of the error; see [`CallError::code`].
    fn code(&self) -> Option<&str>;

    /// Tells whether the request was sent.
    fn sent(&self) -> Sent;

    /// Tells whether the same call may be made again.
    fn retry(&self) -> Retry;
}

impl CallFailure for CallError {
    fn call_error(&self) -> Option<&CallError> {
        Some(self)
    }

    fn code(&self) -> Option<&str> {
        self.code()
    }

    fn sent(&self) -> Sent {
        self.sent()
    }

    fn retry(&self) -> Retry {
        self.retry()
    }
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

fn reserved(command: &str) -> String {
    let instead = instead_of(command);
    format!("{}: not sent: it is a command of the protocol; {instead}", Escaped(command))
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
    #[error("{}: not sent, {reason}{postmortem}", Escaped(command))]
    Closed {
        /// Command of the one-way.
        command: String,
        /// Reason that the connection ended.
        reason: Arc<CloseReason>,
        /// State of the connection at its end.
        postmortem: Arc<Postmortem>,
    },
    /// The command is one of the protocol's own (docs/protocol.md, "Reserved commands"), which
    /// pipeplug sends by itself.
    #[error("{}", reserved(command))]
    Reserved {
        /// Command of the one-way.
        command: String,
    },
    /// The other side has not negotiated a feature that the one-way needs.
    #[error("{}: not sent: the other side does not know the feature {feature}", Escaped(command))]
    Unsupported {
        /// Command of the one-way.
        command: String,
        /// Name of the feature (docs/protocol.md, "Negotiation").
        feature: &'static str,
    },
    /// The command cannot be sent in the connection's format.
    #[error("{}: {error}", Escaped(command))]
    Encode {
        /// Command of the one-way.
        command: String,
        /// Byte or length that is not allowed.
        error: EncodeError,
    },
}
