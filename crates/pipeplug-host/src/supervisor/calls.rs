//! The calls of a [`Plugin`](crate::Plugin), for whoever has one to give.

use pipeplug_net::{Body, CallError};

use super::error::{SupervisedCallError, Unavailable};
use super::instance::Lease;

/// Makes a call, and makes it again on another process where the connection ended under it, or the plugin under its start.
pub(super) fn call_idempotent(
    command: &str,
    buffer: &Body<'_>,
    retries: u32,
    acquire: impl Fn() -> Result<Lease, Unavailable>,
) -> Result<Vec<u8>, SupervisedCallError> {
    let mut left = retries;
    loop {
        let lease = match acquire() {
            Err(Unavailable::Start(error)) if left > 0 && error.is_crash() => {
                left -= 1;
                tracing::debug!(command, %error, left, "waits for the next start");
                continue;
            }
            acquired => acquired?,
        };
        match lease.plugin().call_bytes(command, buffer.as_bytes()) {
            Err(CallError::Closed { reason, .. }) if left > 0 => {
                left -= 1;
                tracing::debug!(plugin = lease.plugin().name(), command, %reason, left, "called again");
            }
            other => return Ok(other?),
        }
    }
}

/// Bytes of a reply as the text that `call` promises.
pub(super) fn text(command: &str, bytes: Vec<u8>) -> Result<String, CallError> {
    String::from_utf8(bytes)
        .map_err(|error| CallError::NotText { command: command.to_owned(), source: error.utf8_error() })
}

/// The methods that call, for a type with `acquire` and `retries`; one-ways may go elsewhere.
macro_rules! calls_of {
    ($type:ty, $acquire_for_one_way:ident) => {
        impl $type {
            /// Calls the plugin and waits for its reply as text; `buffer` is a string or bytes. It is sent once, whatever
            /// happens.
            ///
            /// # Errors
            /// As for [`Connection::call`](crate::Connection::call), and where there is no plugin to call.
            ///
            /// # Blocking
            /// As for [`Connection::call`](crate::Connection::call); ahead of that, where the plugin does not run, for
            /// one start of it, and for the wait before a restart ([`SupervisorBuilder::ready_timeout`]).
            pub fn call<'a>(
                &self,
                command: &str,
                buffer: impl Into<Body<'a>>,
            ) -> Result<String, SupervisedCallError> {
                Ok(self.acquire(None)?.plugin().call(command, buffer)?)
            }

            /// As [`call`](Self::call), whatever the bytes of the reply.
            ///
            /// # Errors
            /// As for [`call`](Self::call), but for text.
            ///
            /// # Blocking
            /// As for [`call`](Self::call).
            pub fn call_bytes<'a>(
                &self,
                command: &str,
                buffer: impl Into<Body<'a>>,
            ) -> Result<Vec<u8>, SupervisedCallError> {
                Ok(self.acquire(None)?.plugin().call_bytes(command, buffer)?)
            }

            /// As [`call`](Self::call), given up where there is no reply within `timeout`: that counts from now, be it that
            /// the plugin has to be started first or waits for its restart, and takes the place of
            /// [`SupervisorBuilder::ready_timeout`]. The plugin is told of what is left of it with the request, as by
            /// [`Connection::call_within`](crate::Connection::call_within).
            ///
            /// # Errors
            /// As for [`call`](Self::call), and [`CallError::TimedOut`](crate::CallError::TimedOut) or
            /// [`CallError::NotSent`](crate::CallError::NotSent).
            ///
            /// # Blocking
            /// At most for `timeout`. A start that takes longer goes on.
            pub fn call_within<'a>(
                &self,
                timeout: Duration,
                command: &str,
                buffer: impl Into<Body<'a>>,
            ) -> Result<String, SupervisedCallError> {
                let begun = Instant::now();
                let lease = self.acquire(Some(timeout))?;
                Ok(lease.plugin().call_since(begun, timeout, command, buffer)?)
            }

            /// As [`call`](Self::call), for what does no harm when it is done twice: it is made again where the plugin
            /// ended under it, or while it started, up to [`SupervisorBuilder::retries`] times. An error that the plugin answered with, or any
            /// other, is given as it is.
            ///
            /// # Errors
            /// As for [`call`](Self::call); the last attempt's.
            ///
            /// # Blocking
            /// As for [`call`](Self::call), for each attempt.
            pub fn call_idempotent<'a>(
                &self,
                command: &str,
                buffer: impl Into<Body<'a>>,
            ) -> Result<String, SupervisedCallError> {
                let bytes = self.call_bytes_idempotent(command, buffer)?;
                Ok($crate::supervisor::calls::text(command, bytes)?)
            }

            /// As [`call_idempotent`](Self::call_idempotent), whatever the bytes of the reply.
            ///
            /// # Errors
            /// As for [`call_idempotent`](Self::call_idempotent), but for text.
            ///
            /// # Blocking
            /// As for [`call_idempotent`](Self::call_idempotent).
            pub fn call_bytes_idempotent<'a>(
                &self,
                command: &str,
                buffer: impl Into<Body<'a>>,
            ) -> Result<Vec<u8>, SupervisedCallError> {
                let acquire = || self.acquire(None);
                $crate::supervisor::calls::call_idempotent(command, &buffer.into(), self.retries(), acquire)
            }

            /// Calls the plugin and gives what to wait on, or to `.await`. It is sent once, whatever happens.
            ///
            /// # Errors
            /// Where the call could not be sent.
            ///
            /// # Blocking
            /// As for [`Connection::begin_call`](crate::Connection::begin_call), and as for [`call`](Self::call) where
            /// the plugin does not run.
            pub fn begin_call<'a>(
                &self,
                command: &str,
                buffer: impl Into<Body<'a>>,
            ) -> Result<SupervisedCall, SupervisedCallError> {
                let lease = self.acquire(None)?;
                let call = lease.plugin().begin_call(command, buffer)?;
                Ok(SupervisedCall::new(call, lease))
            }

            /// As [`begin_call`](Self::begin_call), for a call that is given up where there is no reply within `timeout` from
            /// now, however it is waited for; see [`call_within`](Self::call_within).
            ///
            /// # Errors
            /// Where the call could not be sent.
            ///
            /// # Blocking
            /// As for [`begin_call`](Self::begin_call), at most for `timeout`.
            pub fn begin_call_within<'a>(
                &self,
                timeout: Duration,
                command: &str,
                buffer: impl Into<Body<'a>>,
            ) -> Result<SupervisedCall, SupervisedCallError> {
                let begun = Instant::now();
                let lease = self.acquire(Some(timeout))?;
                let call = lease.plugin().begin_call_since(begun, timeout, command, buffer)?;
                Ok(SupervisedCall::new(call, lease))
            }

            /// Sends the plugin a one-way; `buffer` is a string or bytes.
            ///
            /// # Errors
            /// Where it was not sent. That it was sent does not say that it was handled.
            ///
            /// # Blocking
            /// As for [`Connection::notify`](crate::Connection::notify), and as for [`call`](Self::call) where the
            /// plugin does not run.
            pub fn notify<'a>(
                &self,
                command: &str,
                buffer: impl Into<Body<'a>>,
            ) -> Result<(), SupervisedNotifyError> {
                Ok(self.$acquire_for_one_way(None)?.plugin().notify(command, buffer)?)
            }
        }
    };
}
pub(super) use calls_of;
