//! Commands of the protocol's own: what users must not send, and what sends them.

use std::time::Duration;

use pipeplug_wire::command;

use super::Connection;
use super::call::PendingCall;
use super::call_error::{CallError, NotifyError};
use super::caller::OutgoingRequest;
use crate::payload::Payload;
use crate::sync::Instant;
use crate::writer::Flush;

impl Connection {
    /// Begins a call of the protocol's own, such as `GetMetadata`.
    ///
    /// # Errors
    /// As for [`begin`](crate::RequestBuilder::begin).
    #[doc(hidden)] // for pipeplug-host: see internal.rs
    pub fn begin_by_protocol(
        &self,
        request: OutgoingRequest<'_>,
    ) -> Result<PendingCall, CallError> {
        self.begin_any(request, None, Flush::Soon).map(|(call, _)| call)
    }

    /// Sends a one-way of the protocol's own, such as `cmd.stop`.
    ///
    /// # Errors
    /// As for [`notify`](Connection::notify).
    #[doc(hidden)] // for pipeplug-host: see internal.rs
    pub fn notify_by_protocol(
        &self,
        command: &str,
        payload: Payload<'_>,
    ) -> Result<(), NotifyError> {
        let (id, context) = self.prepare_one_way();
        self.shared().notify(command, payload, id, context.as_ref())
    }

    /// Sends a ping and returns the time until its reply. The other side's reading thread answers
    /// it, whatever its handlers do.
    ///
    /// # Errors
    /// [`CallError::TimedOut`] if `timeout` passes first, or as for [`call`](Connection::call).
    ///
    /// # Blocking
    /// At most for `timeout`, however far behind the other side is. On the side that does not speak
    /// first, also until the first chunk has come.
    pub fn ping(&self, timeout: Duration) -> Result<Duration, CallError> {
        let start = Instant::now();
        let request = OutgoingRequest::new(command::PING, Payload::from([]));
        self.begin_by_protocol(request)?.wait_timeout(timeout)?;
        Ok(start.elapsed())
    }
}

/// Refuses the call of a user.
#[inline]
pub(crate) fn refuse_call(command: &str) -> Result<(), CallError> {
    if command::is_of_protocol(command) {
        return Err(CallError::Reserved { command: command.to_owned() });
    }
    Ok(())
}

/// Refuses the one-way of a user.
#[inline]
pub(crate) fn refuse_one_way(command: &str) -> Result<(), NotifyError> {
    if command::is_of_protocol(command) {
        return Err(NotifyError::Reserved { command: command.to_owned() });
    }
    Ok(())
}

/// The way to do what a user wanted with this command of the protocol.
pub(crate) fn instead_of(command: &str) -> &'static str {
    match command {
        command::GET_METADATA => "use Plugin::metadata, or Main::host in a plugin",
        command::PING => "use connection().ping()",
        command::STOP => "use Plugin::stop",
        command::CANCEL => "use PendingCall::cancel or a CancelHandle",
        command::LOG_LEVEL => "use Plugin::set_log_level",
        command::CONTEXT => "use timeout(…) and context(…) of request(…)",
        command::PART | command::END | command::ENOUGH | command::PART_CREDIT => {
            "use request(…).stream() or notify_stream(…)"
        }
        command::PROGRESS => "use Request::progress in a handler",
        command::ERROR | command::FAILURE => "return an error from the handler",
        command::CREDIT => "pipeplug sends it by itself",
        _ => "choose a name that does not begin with `cmd.`",
    }
}
