//! Calls of a supervised plugin from tasks: all waits are awaited.

use std::collections::BTreeMap;
use std::fmt;
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use pipeplug_net::internal::CancelWatch;
use pipeplug_net::{
    Caller as _, CancelHandle, EventLoop, OutgoingRequest, PartSender, Payload, Reply, StreamCall,
    StreamSides,
};

use super::calls::{Attempts, Leases, Patience, acquired, start_clock};
use super::error::{SupervisedCallError, SupervisedNotifyError, Unavailable};
use super::instance::{Lease, SupervisedCall};
use super::state::{Job, Phase, Shared};

/// A call of a supervised plugin that is awaited: the start of the plugin, or its restart, the
/// sending and the reply.
///
/// Dropping it gives the call up. A start that it has begun goes on.
#[must_use = "a future does nothing unless it is awaited"]
pub struct AwaitedSupervisedCall<'a>(CallFuture<'a>);

type CallFuture<'a> = Pin<Box<dyn Future<Output = Result<Reply, SupervisedCallError>> + Send + 'a>>;

impl<'a> AwaitedSupervisedCall<'a> {
    pub(super) fn new(leases: &'a impl Leases, request: OutgoingRequest<'a>) -> Self {
        Self(Box::pin(call(leases, request)))
    }
}

impl Future for AwaitedSupervisedCall<'_> {
    type Output = Result<Reply, SupervisedCallError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.as_mut().poll(context)
    }
}

impl fmt::Debug for AwaitedSupervisedCall<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AwaitedSupervisedCall").finish_non_exhaustive()
    }
}

/// Makes a call, as [`wait`](super::calls::wait) does.
async fn call(
    leases: &impl Leases,
    mut request: OutgoingRequest<'_>,
) -> Result<Reply, SupervisedCallError> {
    start_clock(&mut request);
    let mut attempts = Attempts::of(&request, leases);
    loop {
        let lease = match acquire(leases, &request).await {
            Ok(lease) => lease,
            Err(error) => {
                attempts.not_started(error)?;
                continue;
            }
        };
        if attempts.is_last() {
            let reply = lease.plugin().await_request(request).await;
            return reply.map_err(|error| attempts.failed(error.into()));
        }
        let attempt =
            OutgoingRequest { payload: request.payload.as_bytes().into(), ..request.clone() };
        match lease.plugin().await_request(attempt).await {
            Err(error) => attempts.ended(lease.plugin().name(), error)?,
            Ok(reply) => return Ok(reply),
        }
    }
}

pub(super) async fn begin(
    leases: &impl Leases,
    mut request: OutgoingRequest<'_>,
) -> Result<SupervisedCall, SupervisedCallError> {
    start_clock(&mut request);
    let lease = acquire(leases, &request).await?;
    let call = lease.plugin().begin_request_async(request).await?;
    Ok(SupervisedCall::new(call, lease))
}

pub(super) async fn open_stream(
    leases: &impl Leases,
    mut request: OutgoingRequest<'_>,
    sides: StreamSides,
) -> Result<StreamCall, SupervisedCallError> {
    start_clock(&mut request);
    let lease = acquire(leases, &request).await?;
    let mut call = lease.plugin().open_stream_async(request, sides).await?;
    call.keep(lease);
    Ok(call)
}

pub(super) async fn send_one_way(
    leases: &impl Leases,
    command: &str,
    payload: Payload<'_>,
) -> Result<(), SupervisedNotifyError> {
    let lease = leases.acquire_for_one_way_async().await?;
    Ok(lease.plugin().send_one_way_async(command, payload).await?)
}

pub(super) async fn open_one_way_stream(
    leases: &impl Leases,
    command: &str,
    payload: Payload<'_>,
) -> Result<PartSender, SupervisedNotifyError> {
    let lease = leases.acquire_for_one_way_async().await?;
    let mut sender = lease.plugin().open_one_way_stream_async(command, payload).await?;
    sender.keep(lease);
    Ok(sender)
}

/// Leases a process within the rest of the request's time.
async fn acquire(
    leases: &impl Leases,
    request: &OutgoingRequest<'_>,
) -> Result<Lease, SupervisedCallError> {
    acquired(leases.acquire_async(Patience::of(request)).await, request)
}

impl Shared {
    /// Notes that a task waits for the plugin.
    pub(super) fn note_awaited(&self) {
        if !self.is_awaited() {
            self.is_awaited.store(true, Ordering::Relaxed);
        }
    }

    fn is_awaited(&self) -> bool {
        self.is_awaited.load(Ordering::Relaxed)
    }

    /// Returns true if the thread that drops the last handle may be one of a runtime.
    pub(super) fn stops_in_background(&self) -> bool {
        self.is_awaited()
            || match &self.lock().phase {
                Phase::Up(instance)
                | Phase::Ending { instance, .. }
                | Phase::Due(Job::End(instance, _)) => instance.plugin.connection().is_awaited(),
                Phase::Down
                | Phase::Due(Job::Start)
                | Phase::Starting { .. }
                | Phase::Backoff { .. }
                | Phase::GaveUp(_)
                | Phase::Stopped => false,
            }
    }

    /// Leases the plugin as [`acquire`](Shared::acquire) does, without a thread that waits.
    pub(super) async fn acquire_async(
        self: &Arc<Self>,
        patience: Patience<'_>,
    ) -> Result<Lease, Unavailable> {
        self.note_awaited();
        let mut wait = AcquireWait::new(self, patience);
        poll_fn(|context| wait.poll(context)).await
    }

    /// Leases the plugin on a thread that a cancel wakes.
    pub(super) fn acquire_or_cancel(
        self: &Arc<Self>,
        patience: Patience<'_>,
    ) -> Result<Lease, Unavailable> {
        let mut wait = AcquireWait::new(self, patience);
        let waker = Waker::from(Arc::new(Unpark(thread::current())));
        let mut context = Context::from_waker(&waker);
        loop {
            match wait.poll(&mut context) {
                Poll::Ready(acquired) => return acquired,
                // Another use of `park` on this thread wakes it early at worst.
                Poll::Pending => thread::park(),
            }
        }
    }
}

/// Wakes a thread.
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// A task that waits for a plugin to call.
struct AcquireWait<'a> {
    shared: &'a Arc<Shared>,
    within: Option<Duration>,
    cancel: Option<CancelWatch<'a>>,
    /// Number of failed starts at the first look.
    failed_starts: Option<u64>,
    /// True while the start that this task has begun is under way. That one has its own limit.
    is_starter: bool,
    /// Latest time to wait until, once it waits. `Some(None)` for a time that never comes.
    deadline: Option<Option<Instant>>,
    task: Option<u64>,
}

impl<'a> AcquireWait<'a> {
    fn new(shared: &'a Arc<Shared>, patience: Patience<'a>) -> Self {
        let Patience { within, cancel } = patience;
        let cancel = cancel.map(CancelHandle::watch);
        let (failed_starts, deadline, task) = (None, None, None);
        Self { shared, within, cancel, failed_starts, is_starter: false, deadline, task }
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Result<Lease, Unavailable>> {
        // Before a look that may begin a start. Not under the lock of the state, which a waker may
        // take.
        let is_cancelled = self.cancel.as_mut().is_some_and(|cancel| cancel.poll(context.waker()));
        let mut state = self.shared.lock();
        if is_cancelled {
            return Poll::Ready(Err(state.not_ready(Duration::ZERO)));
        }
        if let Some(lease) = self.shared.lease(&mut state) {
            return Poll::Ready(Ok(lease));
        }
        // As in `acquire`: a start that failed before is not this task's error.
        if *self.failed_starts.get_or_insert(state.failed_starts) != state.failed_starts
            && let Some(error) = &state.failed_start
        {
            return Poll::Ready(Err(error.clone()));
        }
        match &state.phase {
            Phase::Down => {
                state.phase = Phase::Due(Job::Start);
                self.is_starter = true;
                self.shared.work_soon();
            }
            Phase::Due(Job::Start) | Phase::Starting { .. } => {}
            Phase::Due(Job::End(..)) | Phase::Ending { .. } | Phase::Backoff { .. } => {
                self.is_starter = false;
            }
            Phase::Up(_) => unreachable!("it was leased above, or its end is due"),
            Phase::GaveUp(error) => return Poll::Ready(Err(error.clone())),
            Phase::Stopped => return Poll::Ready(Err(state.stopped())),
        }
        // Registered under the lock of the state: a change after this look wakes the task.
        let task = *self.task.get_or_insert_with(|| self.shared.tasks.next());
        let earlier = self.shared.tasks.register(task, context.waker());
        let has_limit = self.within.is_some() || !self.is_starter;
        let late = if has_limit { self.late(task) } else { None };
        let late = late.map(|after| state.not_ready(after));
        drop(state);
        drop(earlier); // not under the lock: a waker's drop is code of the host
        late.map_or(Poll::Pending, |error| Poll::Ready(Err(error)))
    }

    /// Returns the time waited if it is over. Else the task is woken when it is.
    fn late(&mut self, task: u64) -> Option<Duration> {
        let after = self.within.unwrap_or(self.shared.settings.ready_timeout);
        let deadline = match self.deadline {
            Some(deadline) => deadline,
            None => {
                self.deadline = Some(Instant::now().checked_add(after));
                if !after.is_zero() {
                    let shared = Arc::downgrade(self.shared);
                    let wake = move || {
                        if let Some(shared) = Weak::upgrade(&shared) {
                            shared.tasks.wake(task);
                        }
                    };
                    self.shared.events.after(after, wake);
                }
                Instant::now().checked_add(after)
            }
        };
        deadline.is_some_and(|deadline| Instant::now() >= deadline).then_some(after)
    }
}

impl Drop for AcquireWait<'_> {
    fn drop(&mut self) {
        if let Some(task) = self.task {
            self.shared.tasks.remove(task);
        }
    }
}

/// Tasks that wait for a change.
///
/// Its lock is taken last, under that of the state.
#[derive(Default)]
pub(super) struct Tasks {
    wakers: Mutex<BTreeMap<u64, Waker>>,
    last: AtomicU64,
}

impl Tasks {
    fn next(&self) -> u64 {
        self.last.fetch_add(1, Ordering::Relaxed)
    }

    /// Keeps the waker of a task. Returns one that it replaces.
    fn register(&self, task: u64, waker: &Waker) -> Option<Waker> {
        let mut wakers = self.lock();
        match wakers.get(&task) {
            Some(kept) if kept.will_wake(waker) => None,
            _ => wakers.insert(task, waker.clone()),
        }
    }

    /// Wakes all tasks, on a thread of the loop: a waker is code of the host, and this may be
    /// called under the lock of the state.
    pub(super) fn wake_all(&self, events: &EventLoop) {
        let wakers = std::mem::take(&mut *self.lock());
        if !wakers.is_empty() {
            events.spawn(move || wakers.into_values().for_each(wake));
        }
    }

    fn wake(&self, task: u64) {
        let waker = self.lock().remove(&task);
        waker.into_iter().for_each(wake);
    }

    fn remove(&self, task: u64) {
        let waker = self.lock().remove(&task);
        drop(waker); // not under the lock: a waker's drop is code of the host
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Waker>> {
        self.wakers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Wakes a task. One whose waker panics keeps no other task from being woken.
fn wake(waker: Waker) {
    if catch_unwind(AssertUnwindSafe(|| waker.wake())).is_err() {
        tracing::error!("a waker panicked");
    }
}
