//! Progress of calls: reports of a handler, and how the caller gets them.
//!
//! The leader puts each report into the slot of its call, in place of an earlier one that was not
//! taken yet. A caller that waits for reports reads for the connection meanwhile if no other thread
//! does, as one that waits for its reply.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};

use pipeplug_wire::{ChunkRef, Direction, Header, ThreadId, command};

use super::shared::Shared;
use super::stream::receive::Waiter;
use crate::clock::has_passed;
use crate::event_loop::timers::Timer;
use crate::protocol::progress::{Coalesce, Progress, Step};
use crate::sync::lock::{lock, wait_until};
use crate::sync::{
    Condvar, Instant, Mutex, MutexGuard,
    atomic::{AtomicUsize, Ordering},
};
use crate::writer::{Flush, Next as AfterSend, SendClass, SendError};

/// Reports of the progress of a call; see [`RequestBuilder::progress`].
///
/// Iterate over it, or await it ([`Stream`](futures_core::Stream)). It has the latest report: one
/// that was not taken before the next came is left out. It ends with the call: with the reply, an
/// error, the call's deadline, when the call is given up, and when it is not sent. It is empty if
/// the other side has not negotiated `progress`.
///
/// Take the reports on one thread between `begin` and `wait`, on another thread, or in a task:
///
/// ```
/// # use pipeplug_net::{CallError, Connection};
/// # fn example(connection: &Connection) -> Result<(), CallError> {
/// let (request, progress) = connection.request("index", "").progress();
/// let call = request.begin()?;
/// for report in progress {
///     println!("{} of {:?} {}", report.done, report.total, report.message);
/// }
/// println!("{:?}", call.wait()?);
/// # Ok(())
/// # }
/// ```
///
/// # Blocking
/// `next` blocks until a report comes or the call ends; before the call is sent, until that. While
/// it waits for a call, this thread may read for the connection.
///
/// [`RequestBuilder::progress`]: crate::RequestBuilder::progress
#[derive(Debug)]
pub struct ProgressReports {
    slot: Arc<ProgressSlot>,
    /// Wakes the task at the deadline of the call.
    timer: Option<Timer>,
    is_over: bool,
}

/// Destination of the reports of a request, which ends the [`ProgressReports`] when it is dropped.
/// The last of its clones does.
#[derive(Debug, Clone)]
pub struct ProgressSender(Arc<ProgressFeed>);

/// Makes the two ends of the reports of a request.
pub fn channel() -> (ProgressSender, ProgressReports) {
    let slot = Arc::<ProgressSlot>::default();
    let feed = Arc::new(ProgressFeed(Arc::clone(&slot)));
    (ProgressSender(feed), ProgressReports { slot, timer: None, is_over: false })
}

#[derive(Debug)]
struct ProgressFeed(Arc<ProgressSlot>);

#[derive(Debug, Default)]
struct ProgressSlot {
    state: Mutex<SlotState>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct SlotState {
    latest: Option<Progress>,
    /// The call while it is open. A request that is made again has one call after the other.
    call: Option<FollowedCall>,
    /// True once no call follows.
    has_ended: bool,
    waiter: Waiter,
}

#[derive(Debug, Clone)]
struct FollowedCall {
    shared: Weak<Shared>,
    id: ThreadId,
    deadline: Option<Instant>,
}

impl FollowedCall {
    fn is(&self, other: &Self) -> bool {
        self.id == other.id && self.shared.ptr_eq(&other.shared)
    }

    fn is_late(&self) -> bool {
        self.deadline.is_some_and(has_passed)
    }
}

/// Result of a look at a slot.
enum Next {
    Report(Progress),
    Ended,
    /// Nothing yet, and the call, if it was sent.
    Nothing(Option<FollowedCall>),
}

impl ProgressSlot {
    /// Changes the state, and wakes what waits.
    fn change(&self, change: impl FnOnce(&mut SlotState)) {
        let mut state = lock(&self.state);
        change(&mut state);
        let waiter = std::mem::take(&mut state.waiter);
        drop(state);
        waiter.wake(&self.changed);
    }

    fn next(&self, context: Option<&Context<'_>>) -> Next {
        let mut state = lock(&self.state);
        if let Some(report) = state.latest.take() {
            return Next::Report(report);
        }
        if state.has_ended {
            return Next::Ended;
        }
        let earlier = context.and_then(|context| state.waiter.set_task(context.waker()));
        let call = state.call.clone();
        drop(state);
        drop(earlier); // not under the lock: a waker's drop is code of the user
        Next::Nothing(call)
    }

    /// Returns true if there is something to take, or the call is no longer `call`.
    fn is_ready(state: &SlotState, call: Option<&FollowedCall>) -> bool {
        let is_same = match (&state.call, call) {
            (Some(one), Some(other)) => one.is(other),
            (one, other) => one.is_none() && other.is_none(),
        };
        state.latest.is_some() || state.has_ended || !is_same
    }

    fn sleep(&self, call: Option<&FollowedCall>) {
        let deadline = call.and_then(|call| call.deadline);
        let mut state = lock(&self.state);
        while !Self::is_ready(&state, call) && !deadline.is_some_and(has_passed) {
            state.waiter = Waiter::Thread;
            state = wait_until(&self.changed, state, deadline);
        }
        state.waiter = Waiter::None;
    }

    fn wait(&self, call: Option<&FollowedCall>) {
        match call.and_then(|call| call.shared.upgrade()) {
            Some(shared) => shared.wait_for_peer(
                call.and_then(|call| call.deadline),
                || Self::is_ready(&lock(&self.state), call),
                || self.sleep(call),
            ),
            // Not sent yet; or the connection is gone, which ends the call.
            None => self.sleep(call),
        }
    }
}

impl Drop for ProgressFeed {
    fn drop(&mut self) {
        self.0.change(|state| state.has_ended = true);
    }
}

impl Iterator for ProgressReports {
    type Item = Progress;

    fn next(&mut self) -> Option<Progress> {
        while !self.is_over {
            match self.slot.next(None) {
                Next::Report(report) => return Some(report),
                Next::Ended => self.is_over = true,
                Next::Nothing(Some(call)) if call.is_late() => self.is_over = true,
                Next::Nothing(call) => self.slot.wait(call.as_ref()),
            }
        }
        None
    }
}

impl futures_core::Stream for ProgressReports {
    type Item = Progress;

    /// # Blocking
    /// Never. The waker is woken on the thread that reads for the connection.
    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Progress>> {
        let this = &mut *self;
        if this.is_over {
            return Poll::Ready(None);
        }
        match this.slot.next(Some(context)) {
            Next::Report(report) => return Poll::Ready(Some(report)),
            Next::Nothing(None) => return Poll::Pending,
            Next::Nothing(Some(call)) if !call.is_late() => {
                if let Some(deadline) = call.deadline
                    && let Some(shared) = call.shared.upgrade()
                {
                    this.timer = Some(shared.timers.set(deadline, context.waker().clone()));
                }
                return Poll::Pending;
            }
            Next::Ended | Next::Nothing(Some(_)) => {}
        }
        (this.is_over, this.timer) = (true, None);
        Poll::Ready(None)
    }
}

/// Open calls of a connection whose progress is wanted.
#[derive(Debug, Default)]
pub(crate) struct ProgressFeeds {
    open: Mutex<HashMap<ThreadId, ProgressSender>>,
    /// Number of them, for a look without the lock.
    count: AtomicUsize,
}

impl ProgressFeeds {
    /// Returns true if no progress is wanted, as nearly always.
    #[inline]
    fn is_empty(&self) -> bool {
        self.count.load(Ordering::Acquire) == 0
    }

    fn change<T>(&self, change: impl FnOnce(&mut HashMap<ThreadId, ProgressSender>) -> T) -> T {
        let mut open = lock(&self.open);
        let result = change(&mut open);
        self.count.store(open.len(), Ordering::Release);
        result
    }
}

impl Shared {
    /// Has the reports of a call that is about to be sent go to `sender`.
    pub(super) fn follow_progress(
        self: &Arc<Self>,
        id: ThreadId,
        sender: &ProgressSender,
        deadline: Option<Instant>,
    ) {
        let call = FollowedCall { shared: Arc::downgrade(self), id, deadline };
        sender.0.0.change(|state| state.call = Some(call));
        self.progress.change(|open| open.insert(id, sender.clone()));
        // After it was put there: the end of the connection sets `ended` before it looks for them,
        // so that one of the two sees the other.
        if self.close.ended().is_some() {
            self.end_progress(id);
        }
    }

    /// Ends the reports of a call of this side, which has ended.
    #[inline]
    pub(crate) fn end_progress(self: &Arc<Self>, id: ThreadId) {
        if !self.progress.is_empty() {
            self.end_open_progress(id);
        }
    }

    #[cold]
    fn end_open_progress(self: &Arc<Self>, id: ThreadId) {
        let Some(sender) = self.progress.change(|open| open.remove(&id)) else { return };
        let ended = FollowedCall { shared: Arc::downgrade(self), id, deadline: None };
        // The next call of the same request may be open by now.
        sender.0.0.change(|state| {
            state.call.take_if(|call| call.is(&ended));
        });
        // Dropped here, without a lock: the last one ends the reports.
    }

    /// Ends the reports of all calls: nothing comes any more.
    pub(crate) fn close_progress(self: &Arc<Self>) {
        let ids: Vec<_> = self.progress.change(|open| open.keys().copied().collect());
        ids.into_iter().for_each(|id| self.end_progress(id));
    }

    /// Deals with a `cmd.progress`. Called by the leader.
    pub(crate) fn progress_chunk(&self, chunk: &ChunkRef<'_>) {
        if self.progress.is_empty() {
            return; // of a call that has ended, or that did not ask for it
        }
        let sender = lock(&self.progress.open).get(&chunk.thread_id).cloned();
        let Some(sender) = sender else { return };
        match Progress::parse(chunk.buffer) {
            Some(report) => sender.0.0.change(|state| state.latest = Some(report)),
            None => {
                if let Some(times) = self.counters.unexpected.count() {
                    tracing::warn!(peer = %self.options.name, id = %chunk.thread_id, times,
                        "a report of progress that cannot be was ignored");
                }
            }
        }
    }
}

impl Shared {
    /// Sends a report of progress if there is room. The caller passes the result to
    /// [`after_sending`](Shared::after_sending), without a lock.
    pub(super) fn try_send_progress(
        &self,
        thread_id: ThreadId,
        buffer: Vec<u8>,
    ) -> Result<Option<AfterSend>, SendError> {
        let Some(permit) = self.writer.try_permit(SendClass::Reply)? else { return Ok(None) };
        let (direction, buffer_len) = (Direction::Response, buffer.len() as u64);
        let header = Header { thread_id, direction, command: command::PROGRESS, buffer_len };
        permit.send(&header, buffer.into(), None, Flush::Now).map(Some)
    }

    /// Sends the last report of progress, together with the answer that follows it.
    pub(super) fn send_last_progress(self: &Arc<Self>, id: ThreadId, buffer: Vec<u8>) {
        // Without waiting for room, for which the answer waits: the thread may be one of a runtime.
        let (class, direction) = (SendClass::Admitted, Direction::Response);
        self.send_or_log(class, id, direction, command::PROGRESS, buffer, Flush::Later);
    }
}

/// Sends the progress of one request of the other side.
#[derive(Debug)]
pub(crate) struct Reporter {
    shared: Arc<Shared>,
    id: ThreadId,
    reports: Mutex<Coalesce>,
}

impl Reporter {
    pub(crate) fn new(shared: &Arc<Shared>, id: ThreadId) -> Arc<Self> {
        Arc::new(Self { shared: Arc::clone(shared), id, reports: Mutex::default() })
    }

    /// Takes a report: sends it now, or soon, or before the answer, or a later one in its place.
    pub(crate) fn report(self: &Arc<Self>, done: u64, total: Option<u64>, message: &str) {
        let mut reports = lock(&self.reports);
        let step = reports.report(done, total, message, Instant::now);
        self.follow(reports, step);
    }

    fn follow(self: &Arc<Self>, mut reports: MutexGuard<'_, Coalesce>, step: Step) {
        let delay = match step {
            Step::Wait => return,
            Step::Schedule(delay) => delay,
            Step::Send => {
                // Under the lock, so that reports leave in their order, and none behind the answer.
                // It waits for no room, and runs no code of the user.
                match self.shared.try_send_progress(self.id, reports.pending().encode()) {
                    Ok(Some(next)) => {
                        reports.sent(Instant::now());
                        drop(reports);
                        return self.shared.after_sending(next);
                    }
                    // The other side does not read: a later report may have room.
                    Ok(None) => match reports.not_sent() {
                        Step::Schedule(delay) => delay,
                        Step::Send | Step::Wait => return,
                    },
                    Err(error) => {
                        reports.close();
                        drop(reports);
                        if let SendError::Fatal(reason) = error {
                            self.shared.end_after_reading(reason);
                        }
                        return;
                    }
                }
            }
        };
        drop(reports);
        // A request that is answered until then has nothing left to send.
        let this = Arc::downgrade(self);
        self.shared.events.after(delay, move || {
            let Some(this) = this.upgrade() else { return };
            let mut reports = lock(&this.reports);
            let step = reports.scheduled(Instant::now());
            this.follow(reports, step);
        });
    }

    /// Sends the last report if it was not sent. None follows it: the answer does.
    pub(crate) fn close(&self) {
        let last = lock(&self.reports).close();
        if let Some(last) = last {
            self.shared.send_last_progress(self.id, last.encode());
        }
    }
}
