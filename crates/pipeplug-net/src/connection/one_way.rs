//! Sending one-ways.

use std::sync::Arc;

use pipeplug_wire::{Direction, Header, ThreadId, command};

use super::call_error::NotifyError;
use super::shared::Shared;
use crate::payload::Payload;
use crate::protocol::context::RequestContext;
use crate::sync::Instant;
use crate::writer::{Flush, SendClass, SendError, WaitPolicy};

impl Shared {
    /// Sends a one-way. `id` is 0, or that of its stream.
    pub(crate) fn notify(
        self: &Arc<Self>,
        command: &str,
        payload: Payload<'_>,
        id: ThreadId,
        context: Option<&RequestContext>,
    ) -> Result<(), NotifyError> {
        let header = Header {
            thread_id: id,
            direction: Direction::OneWay,
            command,
            buffer_len: payload.0.len() as u64,
        };
        let sent = self.send(one_way_class(command), &header, payload, context, Flush::Soon);
        sent.map_err(|error| match self.one_way_failed(error, command) {
            OneWayFailed::Now(error) => error,
            OneWayFailed::WithReason => self.wait_for_reason(command),
        })
    }

    /// Error of a one-way that was not sent.
    pub(crate) fn one_way_failed(
        self: &Arc<Self>,
        error: SendError,
        command: &str,
    ) -> OneWayFailed {
        let command = command.to_owned();
        OneWayFailed::Now(match error {
            SendError::Encode(error) => NotifyError::Encode { command, error },
            SendError::Closed(reason) => NotifyError::Closed {
                command,
                reason: self.close.reason_or(reason),
                postmortem: self.close.postmortem(),
            },
            SendError::WouldBlock | SendError::Late(_) | SendError::GivenUp => {
                unreachable!("a one-way waits for room")
            }
            SendError::Fatal(reason) => {
                self.end_after_reading(reason);
                return OneWayFailed::WithReason;
            }
        })
    }

    /// Error of a one-way that ended the connection.
    ///
    /// # Blocking
    /// At most for `reason_timeout`: the owner may be about to say why the peer is gone.
    pub(crate) fn wait_for_reason(&self, command: &str) -> NotifyError {
        let until = Instant::now().checked_add(self.options.reason_timeout);
        let reason = self.close.wait_ended(until).unwrap_or_else(|| self.close.reason());
        let (command, postmortem) = (command.to_owned(), self.close.postmortem());
        NotifyError::Closed { command, reason, postmortem }
    }
}

/// How a one-way failed.
pub(crate) enum OneWayFailed {
    Now(NotifyError),
    /// The connection ends because of it; see [`Shared::wait_for_reason`].
    WithReason,
}

/// Class of a one-way with this command.
pub(crate) fn one_way_class(command: &str) -> SendClass {
    if command::is_reserved(command) {
        SendClass::Control
    } else {
        SendClass::FlowControlled(WaitPolicy::WAIT)
    }
}
