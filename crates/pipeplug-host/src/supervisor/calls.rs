//! Calls of a supervised plugin, by a [`Supervisor`] or a [`Pool`].

use std::time::{Duration, Instant};

use pipeplug_net::{CallError, Caller, OutgoingRequest, Payload, Reply, caller_methods};

use super::Supervisor;
use super::error::{SupervisedCallError, SupervisedNotifyError, Unavailable};
use super::instance::{Lease, SupervisedCall};
use super::pool::Pool;

/// Source of processes to call.
pub(super) trait Leases {
    /// Leases a process for a call. Starts one if none runs, and waits for it for at most `within`.
    fn acquire(&self, within: Option<Duration>) -> Result<Lease, Unavailable>;

    /// Leases a process for a one-way.
    fn acquire_for_one_way(&self) -> Result<Lease, Unavailable> {
        self.acquire(None)
    }

    /// Number of times that an idempotent call is made again.
    fn retries(&self) -> u32;
}

fn begin(
    leases: &impl Leases,
    mut request: OutgoingRequest<'_>,
) -> Result<SupervisedCall, SupervisedCallError> {
    if request.timeout.is_some() {
        // The time for a start counts too.
        request.begun.get_or_insert_with(Instant::now);
    }
    let lease = leases.acquire(request.timeout)?;
    let call = lease.plugin().begin_request(request)?;
    Ok(SupervisedCall::new(call, lease))
}

/// Makes a call. Makes it again on another process if it is idempotent and the plugin ended before
/// it has answered, or while it was started.
fn wait(
    leases: &impl Leases,
    mut request: OutgoingRequest<'_>,
) -> Result<Reply, SupervisedCallError> {
    if !request.is_idempotent {
        return begin(leases, request)?.wait();
    }
    if request.timeout.is_some() {
        request.begun.get_or_insert_with(Instant::now);
    }
    let mut left = leases.retries();
    loop {
        let lease = match leases.acquire(request.timeout) {
            Err(Unavailable::Start(error)) if left > 0 && error.is_crash() => {
                left -= 1;
                tracing::debug!(command = request.command, %error, left, "waits for the next start");
                continue;
            }
            acquired => acquired?,
        };
        let attempt = OutgoingRequest { payload: request.payload.as_bytes().into(), ..request };
        match lease.plugin().wait_for_request(attempt) {
            Err(CallError::Closed { reason, .. }) if left > 0 => {
                left -= 1;
                let (plugin, command) = (lease.plugin().name(), request.command);
                tracing::debug!(plugin, command, %reason, left, "called again");
            }
            other => return Ok(other?),
        }
    }
}

fn send_one_way(
    leases: &impl Leases,
    command: &str,
    payload: Payload<'_>,
) -> Result<(), SupervisedNotifyError> {
    Ok(leases.acquire_for_one_way()?.plugin().send_one_way(command, payload)?)
}

macro_rules! supervised_caller {
    ($type:ty) => {
        impl Caller for $type {
            type CallError = SupervisedCallError;
            type NotifyError = SupervisedNotifyError;
            type Pending = SupervisedCall;

            fn begin_request(
                &self,
                request: OutgoingRequest<'_>,
            ) -> Result<SupervisedCall, SupervisedCallError> {
                begin(self, request)
            }

            fn wait_for_request(
                &self,
                request: OutgoingRequest<'_>,
            ) -> Result<Reply, SupervisedCallError> {
                wait(self, request)
            }

            fn send_one_way(
                &self,
                command: &str,
                payload: Payload<'_>,
            ) -> Result<(), SupervisedNotifyError> {
                send_one_way(self, command, payload)
            }
        }

        caller_methods!($type, SupervisedCallError, SupervisedNotifyError);
    };
}

supervised_caller!(Supervisor);
supervised_caller!(Pool);
