//! Calls of a supervised plugin, by a supervisor or a pool.

use std::time::{Duration, Instant};

use pipeplug_net::{
    CallError, Caller as _, CancelHandle, OutgoingRequest, PartSender, Payload, Reply, Sent,
    StreamCall, StreamSides,
};

use super::error::{SupervisedCallError, SupervisedNotifyError, Unavailable, UnavailableKind};
use super::instance::{Lease, SupervisedCall};

/// Limits of the wait for a process.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Patience<'a> {
    /// Maximum time to wait. `None` for that of the supervisor.
    pub(super) within: Option<Duration>,
    /// Handle that ends the wait. The error is any one; [`acquired`] replaces it.
    pub(super) cancel: Option<&'a CancelHandle>,
}

impl<'a> Patience<'a> {
    /// The rest of the time of a request whose clock was started.
    pub(super) fn of(request: &OutgoingRequest<'a>) -> Self {
        let passed = request.begun.map_or(Duration::ZERO, |begun| begun.elapsed());
        let within = request.timeout.map(|timeout| timeout.saturating_sub(passed));
        Self { within, cancel: request.cancel }
    }

    pub(super) fn is_cancelled(self) -> bool {
        self.cancel.is_some_and(CancelHandle::is_cancelled)
    }
}

/// Source of processes to call.
pub(super) trait Leases: Sync {
    /// Leases a process for a call. Starts one if none runs, and waits for it.
    fn acquire(&self, patience: Patience<'_>) -> Result<Lease, Unavailable>;

    /// Leases a process for a one-way.
    fn acquire_for_one_way(&self) -> Result<Lease, Unavailable> {
        self.acquire(Patience::default())
    }

    /// Leases a process as [`acquire`](Leases::acquire) does, and awaits it.
    fn acquire_async(
        &self,
        patience: Patience<'_>,
    ) -> impl Future<Output = Result<Lease, Unavailable>> + Send;

    /// Leases a process for a one-way, and awaits it.
    fn acquire_for_one_way_async(&self) -> impl Future<Output = Result<Lease, Unavailable>> + Send {
        self.acquire_async(Patience::default())
    }

    /// Number of times that an idempotent call is made again.
    fn retries(&self) -> u32;
}

pub(super) fn begin(
    leases: &impl Leases,
    mut request: OutgoingRequest<'_>,
) -> Result<SupervisedCall, SupervisedCallError> {
    start_clock(&mut request);
    // Leased before the request is sent and until the call has ended: `replace` and the idle timer
    // see the call as open.
    let lease = acquire(leases, &request)?;
    let call = lease.plugin().begin_request(request)?;
    Ok(SupervisedCall::new(call, lease))
}

/// Makes a call. Makes it again on another process if it is idempotent and the plugin ended before
/// it has answered, or while it was started.
pub(super) fn wait(
    leases: &impl Leases,
    mut request: OutgoingRequest<'_>,
) -> Result<Reply, SupervisedCallError> {
    start_clock(&mut request);
    let mut attempts = Attempts::of(&request, leases);
    loop {
        let lease = match acquire(leases, &request) {
            Ok(lease) => lease,
            Err(error) => {
                attempts.not_started(error)?;
                continue;
            }
        };
        if attempts.is_last() {
            let reply = lease.plugin().wait_for_request(request);
            return reply.map_err(|error| attempts.failed(error.into()));
        }
        let attempt =
            OutgoingRequest { payload: request.payload.as_bytes().into(), ..request.clone() };
        match lease.plugin().wait_for_request(attempt) {
            // The request may have been handled: only an idempotent one gets here. The lease of
            // this attempt ends with this turn, before the next process is leased, so that a
            // process which is being drained is not kept waiting.
            Err(error) => attempts.ended(lease.plugin().name(), error)?,
            Ok(reply) => return Ok(reply),
        }
    }
}

/// Makes a call with a stream. The process is leased until the caller has the reply.
pub(super) fn open_stream(
    leases: &impl Leases,
    mut request: OutgoingRequest<'_>,
    sides: StreamSides,
) -> Result<StreamCall, SupervisedCallError> {
    start_clock(&mut request);
    let lease = acquire(leases, &request)?;
    let mut call = lease.plugin().open_stream(request, sides)?;
    call.keep(lease);
    Ok(call)
}

/// Sends a one-way with a stream. The process is leased until the sender is dropped.
pub(super) fn open_one_way_stream(
    leases: &impl Leases,
    command: &str,
    payload: Payload<'_>,
) -> Result<PartSender, SupervisedNotifyError> {
    let lease = leases.acquire_for_one_way()?;
    let mut sender = lease.plugin().open_one_way_stream(command, payload)?;
    sender.keep(lease);
    Ok(sender)
}

/// Leases a process within the rest of the request's time.
fn acquire(
    leases: &impl Leases,
    request: &OutgoingRequest<'_>,
) -> Result<Lease, SupervisedCallError> {
    acquired(leases.acquire(Patience::of(request)), request)
}

/// Result of leasing a process for this request. The error is that the request was cancelled, if
/// it was, or names the whole time of the request.
pub(super) fn acquired(
    acquired: Result<Lease, Unavailable>,
    request: &OutgoingRequest<'_>,
) -> Result<Lease, SupervisedCallError> {
    acquired.map_err(|error| {
        if Patience::of(request).is_cancelled() {
            let (command, sent) = (request.command.to_owned(), Sent::No);
            return CallError::Cancelled { command, sent }.into();
        }
        SupervisedCallError::Unavailable(match request.timeout {
            Some(timeout) => error.within(timeout),
            None => error,
        })
    })
}

/// Attempts to make one call.
pub(super) struct Attempts<'a> {
    command: &'a str,
    left: u32,
    /// Tells whether the request of an earlier attempt was sent.
    sent: Sent,
}

impl<'a> Attempts<'a> {
    pub(super) fn of(request: &OutgoingRequest<'a>, leases: &impl Leases) -> Self {
        let left = if request.is_idempotent { leases.retries() } else { 0 };
        Self { command: request.command, left, sent: Sent::No }
    }

    pub(super) fn is_last(&self) -> bool {
        self.left == 0
    }

    /// Counts an attempt that ended before it had a process. Returns an error that ends the call.
    pub(super) fn not_started(
        &mut self,
        error: SupervisedCallError,
    ) -> Result<(), SupervisedCallError> {
        match &error {
            SupervisedCallError::Unavailable(unavailable)
                if self.left > 0
                    && matches!(unavailable.kind(), UnavailableKind::Start(start) if start.is_crash()) =>
            {
                self.left -= 1;
                let (command, left) = (self.command, self.left);
                tracing::debug!(command, %error, left, "waits for the next start");
                Ok(())
            }
            _ => Err(self.failed(error)),
        }
    }

    /// Counts an attempt whose connection ended. Returns an error that ends the call.
    pub(super) fn ended(
        &mut self,
        plugin: &str,
        error: CallError,
    ) -> Result<(), SupervisedCallError> {
        let CallError::Closed { sent, reason, .. } = &error else {
            return Err(self.failed(error.into()));
        };
        if *sent != Sent::No {
            self.sent = Sent::Maybe;
        }
        self.left -= 1;
        let (command, left) = (self.command, self.left);
        tracing::debug!(plugin, command, %reason, left, "called again");
        Ok(())
    }

    /// Error of the call. It was sent if any attempt was.
    pub(super) fn failed(&self, error: SupervisedCallError) -> SupervisedCallError {
        match error {
            SupervisedCallError::Call(CallError::Cancelled { command, sent: Sent::No }) => {
                CallError::Cancelled { command, sent: self.sent }.into()
            }
            error => error,
        }
    }
}

/// Starts the time of a request that has a time-out: the time for a start, and for each attempt,
/// counts too.
pub(super) fn start_clock(request: &mut OutgoingRequest<'_>) {
    if request.timeout.is_some() {
        request.begun.get_or_insert_with(Instant::now);
    }
}

pub(super) fn send_one_way(
    leases: &impl Leases,
    command: &str,
    payload: Payload<'_>,
) -> Result<(), SupervisedNotifyError> {
    Ok(leases.acquire_for_one_way()?.plugin().send_one_way(command, payload)?)
}

/// Implements [`Caller`](pipeplug_net::Caller) for a source of processes, and gives it the methods
/// of that trait as its own. Called where the type is defined.
macro_rules! supervised_caller {
    ($type:ty) => {
        impl pipeplug_net::Caller for $type {
            type CallError = $crate::supervisor::SupervisedCallError;
            type NotifyError = $crate::supervisor::SupervisedNotifyError;
            type Pending = $crate::supervisor::SupervisedCall;
            type CallFuture<'a> = $crate::supervisor::AwaitedSupervisedCall<'a>;

            fn await_request<'a>(
                &'a self,
                request: pipeplug_net::OutgoingRequest<'a>,
            ) -> Self::CallFuture<'a> {
                $crate::supervisor::AwaitedSupervisedCall::new(self, request)
            }

            async fn begin_request_async(
                &self,
                request: pipeplug_net::OutgoingRequest<'_>,
            ) -> Result<Self::Pending, Self::CallError> {
                $crate::supervisor::awaited::begin(self, request).await
            }

            async fn open_stream_async(
                &self,
                request: pipeplug_net::OutgoingRequest<'_>,
                sides: pipeplug_net::StreamSides,
            ) -> Result<pipeplug_net::StreamCall, Self::CallError> {
                $crate::supervisor::awaited::open_stream(self, request, sides).await
            }

            async fn send_one_way_async(
                &self,
                command: &str,
                payload: pipeplug_net::Payload<'_>,
            ) -> Result<(), Self::NotifyError> {
                $crate::supervisor::awaited::send_one_way(self, command, payload).await
            }

            async fn open_one_way_stream_async(
                &self,
                command: &str,
                payload: pipeplug_net::Payload<'_>,
            ) -> Result<pipeplug_net::PartSender, Self::NotifyError> {
                $crate::supervisor::awaited::open_one_way_stream(self, command, payload).await
            }

            fn begin_request(
                &self,
                request: pipeplug_net::OutgoingRequest<'_>,
            ) -> Result<Self::Pending, Self::CallError> {
                $crate::supervisor::calls::begin(self, request)
            }

            fn wait_for_request(
                &self,
                request: pipeplug_net::OutgoingRequest<'_>,
            ) -> Result<pipeplug_net::Reply, Self::CallError> {
                $crate::supervisor::calls::wait(self, request)
            }

            fn open_stream(
                &self,
                request: pipeplug_net::OutgoingRequest<'_>,
                sides: pipeplug_net::StreamSides,
            ) -> Result<pipeplug_net::StreamCall, Self::CallError> {
                $crate::supervisor::calls::open_stream(self, request, sides)
            }

            fn open_one_way_stream(
                &self,
                command: &str,
                payload: pipeplug_net::Payload<'_>,
            ) -> Result<pipeplug_net::PartSender, Self::NotifyError> {
                $crate::supervisor::calls::open_one_way_stream(self, command, payload)
            }

            fn send_one_way(
                &self,
                command: &str,
                payload: pipeplug_net::Payload<'_>,
            ) -> Result<(), Self::NotifyError> {
                $crate::supervisor::calls::send_one_way(self, command, payload)
            }
        }

        pipeplug_net::caller_methods!(
            $type,
            $crate::supervisor::SupervisedCallError,
            $crate::supervisor::SupervisedNotifyError
        );
    };
}
pub(super) use supervised_caller;

#[cfg(test)]
mod tests {
    use super::*;

    /// Never has a process.
    struct Never(std::sync::Mutex<Vec<Option<Duration>>>);

    impl Leases for Never {
        fn acquire(&self, Patience { within, .. }: Patience<'_>) -> Result<Lease, Unavailable> {
            self.0.lock().unwrap().push(within);
            let after = within.unwrap_or_default();
            Err(Unavailable::new("never", UnavailableKind::NotReady { after, last: None }))
        }

        async fn acquire_async(&self, patience: Patience<'_>) -> Result<Lease, Unavailable> {
            self.acquire(patience)
        }

        fn retries(&self) -> u32 {
            2
        }
    }

    fn request(timeout: Option<Duration>, begun: Option<Instant>) -> OutgoingRequest<'static> {
        let (command, payload, values) = ("c", Payload::from(""), Vec::new());
        OutgoingRequest {
            command,
            payload,
            timeout,
            begun,
            is_idempotent: true,
            is_nonblocking: false,
            values,
            progress: None,
            cancel: None,
        }
    }

    #[test]
    fn a_start_gets_the_rest_of_the_time_and_its_error_names_all_of_it() {
        let never = Never(Vec::new().into());
        let timeout = Duration::from_secs(10);
        let begun = Instant::now().checked_sub(Duration::from_secs(4));
        let error = wait(&never, request(Some(timeout), begun)).unwrap_err();
        let SupervisedCallError::Unavailable(error) = error else { panic!("{error:?}") };
        let UnavailableKind::NotReady { after, .. } = error.kind() else { panic!("{error:?}") };
        assert_eq!(*after, timeout);
        let within = never.0.lock().unwrap()[0].unwrap();
        assert!(within <= Duration::from_secs(6), "{within:?}");
        wait(&never, request(None, None)).unwrap_err();
        assert_eq!(never.0.lock().unwrap()[1..], [None]);
    }
}
