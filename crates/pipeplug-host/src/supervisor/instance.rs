//! A process of a supervised plugin, and its open calls.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use pipeplug_net::wire::Chunk;
use pipeplug_net::{CancelHandle, PendingCall, PendingReply, Reply};

use super::error::SupervisedCallError;
use super::state::Shared;
use crate::plugin::Plugin;

/// A process that calls go to, or went to.
pub(super) struct Instance {
    pub(super) plugin: Plugin,
    pub(super) started: Instant,
    shared: Weak<Shared>,
    /// True if the supervisor needs the idle time.
    is_timed: bool,
    open: AtomicUsize,
    /// True if a thread waits for the last open call to end.
    is_awaited: AtomicBool,
    /// End of the last call, in microseconds since the start.
    used: AtomicU64,
}

impl Instance {
    pub(super) fn new(plugin: Plugin, shared: Weak<Shared>, is_timed: bool) -> Arc<Self> {
        Arc::new(Self {
            plugin,
            started: Instant::now(),
            shared,
            is_timed,
            open: AtomicUsize::new(0),
            is_awaited: AtomicBool::new(false),
            used: AtomicU64::new(0),
        })
    }

    /// Counts a new call. Called under the lock of the supervisor's state, so that no call begins
    /// once the process leaves that state.
    pub(super) fn lease(self: &Arc<Self>) -> Lease {
        self.open.fetch_add(1, Ordering::SeqCst);
        Lease(Arc::clone(self))
    }

    pub(super) fn open_calls(&self) -> usize {
        self.open.load(Ordering::SeqCst)
    }

    /// Tells whether a call is open. If so, the end of the last one notifies the supervisor.
    pub(super) fn await_idle(&self) -> bool {
        // A thread that ends a call decrements the counter first and reads this flag then. This
        // thread does both in the opposite order, so at least one of the two sees the other.
        self.is_awaited.store(true, Ordering::SeqCst);
        self.open_calls() > 0
    }

    /// Time without an open call. `None` if a call is open; its end then notifies the supervisor.
    pub(super) fn idle_or_await(&self) -> Option<Duration> {
        if self.await_idle() {
            return None;
        }
        // The notification that was asked for above has to be taken back, or the end of the next
        // call would set another timer. If the flag is gone by now, a call has ended in between,
        // and its end has set the timer.
        self.is_awaited.swap(false, Ordering::SeqCst).then(|| self.idle())
    }

    fn idle(&self) -> Duration {
        // Relaxed: the caller has read the number of open calls, which the end of the last call
        // decreased after it had stored this.
        let used = Duration::from_micros(self.used.load(Ordering::Relaxed));
        self.started.elapsed().saturating_sub(used)
    }

    fn end_of_call(self: &Arc<Self>) {
        if self.is_timed {
            let now = u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX);
            self.used.fetch_max(now, Ordering::Relaxed);
        }
        // The load before the swap: mostly no thread waits, and a swap would take the cache line.
        // Of the ends of two calls that both see the flag, one takes it and notifies.
        if self.open.fetch_sub(1, Ordering::SeqCst) == 1
            && self.is_awaited.load(Ordering::SeqCst)
            && self.is_awaited.swap(false, Ordering::SeqCst)
            && let Some(shared) = self.shared.upgrade()
        {
            shared.idle_begins(self);
        }
    }
}

/// Counts as an open call for as long as it is there.
pub(super) struct Lease(Arc<Instance>);

impl Lease {
    pub(super) fn plugin(&self) -> &Plugin {
        &self.0.plugin
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.0.end_of_call();
    }
}

/// A call of a supervised plugin that waits for its reply. Its supervisor counts it as open.
///
/// Dropping it gives the call up.
#[must_use = "dropping a pending call gives it up"]
pub struct SupervisedCall {
    call: PendingCall,
    /// Dropped after the call. `None` once the call has ended: a task may keep it longer.
    lease: Option<Lease>,
}

impl SupervisedCall {
    pub(super) fn new(call: PendingCall, lease: Lease) -> Self {
        Self { call, lease: Some(lease) }
    }

    /// Returns a handle with which another thread can give the call up.
    #[must_use]
    pub fn cancel_handle(&self) -> CancelHandle {
        self.call.cancel_handle()
    }

    /// Waits for the reply.
    ///
    /// # Errors
    /// As [`PendingCall::wait`].
    ///
    /// # Blocking
    /// As [`PendingCall::wait`].
    pub fn wait(self) -> Result<Reply, SupervisedCallError> {
        let Self { call, lease: _lease } = self;
        Ok(call.wait()?)
    }

    /// Waits for the reply as text.
    ///
    /// # Errors
    /// As [`PendingCall::wait_text`].
    ///
    /// # Blocking
    /// As [`PendingCall::wait`].
    pub fn wait_text(self) -> Result<String, SupervisedCallError> {
        let Self { call, lease: _lease } = self;
        Ok(call.wait_text()?)
    }

    /// Awaits the reply as text.
    ///
    /// # Errors
    /// As [`PendingCall::wait_text`].
    ///
    /// # Cancellation
    /// Dropping the future gives the call up.
    pub async fn wait_text_async(self) -> Result<String, SupervisedCallError> {
        let Self { call, lease: _lease } = self;
        Ok(call.wait_text_async().await?)
    }

    /// Waits for the reply as a chunk.
    ///
    /// # Errors
    /// As [`PendingCall::wait_chunk`].
    ///
    /// # Blocking
    /// As [`PendingCall::wait`].
    pub fn wait_chunk(self) -> Result<Chunk, SupervisedCallError> {
        let Self { call, lease: _lease } = self;
        Ok(call.wait_chunk()?)
    }

    /// Waits for the reply for at most `timeout`, and then gives the call up.
    ///
    /// # Errors
    /// As [`PendingCall::wait_timeout`].
    ///
    /// # Blocking
    /// At most for `timeout`.
    pub fn wait_timeout(self, timeout: Duration) -> Result<Reply, SupervisedCallError> {
        let Self { call, lease: _lease } = self;
        Ok(call.wait_timeout(timeout)?)
    }
}

impl PendingReply for SupervisedCall {
    type Error = SupervisedCallError;

    fn cancel_handle(&self) -> CancelHandle {
        self.cancel_handle()
    }

    fn wait(self) -> Result<Reply, SupervisedCallError> {
        self.wait()
    }

    fn wait_text(self) -> Result<String, SupervisedCallError> {
        self.wait_text()
    }

    fn wait_text_async(self) -> impl Future<Output = Result<String, SupervisedCallError>> + Send {
        self.wait_text_async()
    }

    fn wait_chunk(self) -> Result<Chunk, SupervisedCallError> {
        self.wait_chunk()
    }

    fn wait_timeout(self, timeout: Duration) -> Result<Reply, SupervisedCallError> {
        self.wait_timeout(timeout)
    }
}

impl Future for SupervisedCall {
    type Output = Result<Reply, SupervisedCallError>;

    /// # Blocking
    /// Never; see [`PendingCall`].
    ///
    /// # Panics
    /// When it is polled again after it was ready.
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let polled = Pin::new(&mut self.call).poll(context);
        if polled.is_ready() {
            self.lease = None;
        }
        polled.map_err(SupervisedCallError::from)
    }
}

impl fmt::Debug for SupervisedCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.call.fmt(f)
    }
}
