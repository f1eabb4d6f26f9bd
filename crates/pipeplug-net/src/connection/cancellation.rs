//! Cancellation of requests: how their handlers learn that they are no longer wanted.
//!
//! A handler that never asks pays only for the id of its request, which is noted where the serve
//! queue is locked anyway. The token that it shares with the thread that reads is made when it
//! asks.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use pipeplug_wire::ThreadId;

use super::serve::job::Job;
use super::shared::Shared;
use crate::clock::has_passed;
use crate::event_loop::thread_pool::{self, BlockedOn};
use crate::event_loop::timers::Timer;
use crate::protocol::deadline::sooner;
use crate::protocol::failure::{Failure, failure_code};
use crate::sync::lock::{guarded, lock, renew, wait_until};
use crate::sync::{
    Condvar, Instant, Mutex,
    atomic::{AtomicBool, Ordering},
};

/// Name of the feature in `pipeplug.features`.
pub(crate) const FEATURE: &str = "cancel";

/// Error message for a request that is cancelled before its handler: each request has one answer.
pub(crate) const CANCELLED: &str = "not handled: the request was cancelled";

/// Tells whether a request that is being handled is still wanted: look at it, wait for it, or
/// `.await` it.
///
/// It is set when the caller gives the call up and both sides negotiated `cancel`, when the
/// request's deadline passes, and when nothing comes from the other side any more. It stays set.
///
/// The answer of a cancelled request is sent all the same, and the caller drops it. Answer with an
/// error: a caller that stood still past its deadline (a suspended machine) takes any other answer
/// for one that came in time.
///
/// Cloning it is cheap, and it may outlive its handler. After the answer only the deadline or the
/// end of the connection sets it.
///
/// ```
/// use std::time::Duration;
/// use pipeplug_net::{HandlerError, Request, Reply};
///
/// fn count(incoming: &mut Request) -> Result<Reply, HandlerError> {
///     let cancellation = incoming.cancellation();
///     for second in 0..60 {
///         if cancellation.wait_timeout(Duration::from_secs(1)) {
///             return Err(format!("cancelled after {second} s").into());
///         }
///     }
///     Ok("60".into())
/// }
/// ```
#[must_use = "a cancellation only tells whether the request is wanted"]
pub struct Cancellation {
    shared: Arc<Shared>,
    token: Arc<CancelToken>,
    deadline: Option<Instant>,
    /// Key of its waker in the token, once it was polled.
    key: Option<u64>,
    timer: Option<Timer>,
}

impl Cancellation {
    pub(crate) fn new(
        shared: &Arc<Shared>,
        token: Arc<CancelToken>,
        deadline: Option<Instant>,
    ) -> Self {
        // After the token was put where the end of the connection finds it: one of the two sees the
        // other.
        if shared.close.ended().is_some() {
            token.cancel();
        }
        Self { shared: Arc::clone(shared), token, deadline, key: None, timer: None }
    }

    /// Returns true if the request is no longer wanted.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.token.is_cancelled.load(Ordering::Acquire) || self.deadline.is_some_and(has_passed)
    }

    /// Sleeps for `timeout`, or until the request is no longer wanted. Returns true if it is no
    /// longer wanted.
    ///
    /// # Blocking
    /// At most for `timeout`. Another thread runs handlers in place of this one meanwhile.
    #[must_use]
    pub fn wait_timeout(&self, timeout: Duration) -> bool {
        if self.is_cancelled() {
            return true;
        }
        let until = sooner(self.shared.options.clock.now().checked_add(timeout), self.deadline);
        thread_pool::while_blocked(BlockedOn::TimeOrCancel, || self.token.wait(until));
        self.is_cancelled()
    }
}

impl Clone for Cancellation {
    fn clone(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
            token: Arc::clone(&self.token),
            deadline: self.deadline,
            key: None,
            timer: None,
        }
    }
}

impl Future for Cancellation {
    type Output = ();

    /// # Blocking
    /// Never. The waker is woken on the thread that reads for the connection, or on the event
    /// loop's. It must not wait for anything of this loop.
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        let waker = context.waker();
        if this.is_cancelled() || this.token.register(&mut this.key, waker) == Registered::Cancelled
        {
            return Poll::Ready(());
        }
        if let Some(deadline) = this.deadline {
            match &this.timer {
                Some(timer) => timer.renew(waker),
                None => this.timer = Some(this.shared.timers.set(deadline, waker.clone())),
            }
        }
        Poll::Pending
    }
}

impl Drop for Cancellation {
    fn drop(&mut self) {
        if let Some(key) = self.key {
            let waker = lock(&self.token.waiters).wakers.remove(&key);
            drop(waker); // not under the lock: a waker's drop is code of the user
        }
    }
}

impl std::fmt::Debug for Cancellation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cancellation")
            .field("is_cancelled", &self.is_cancelled())
            .field("deadline", &self.deadline)
            .finish_non_exhaustive()
    }
}

/// State that the cancellations of one request share.
#[derive(Debug, Default)]
pub(crate) struct CancelToken {
    is_cancelled: AtomicBool,
    waiters: Mutex<Waiters>,
    told: Condvar,
}

#[derive(Debug, Default)]
struct Waiters {
    wakers: BTreeMap<u64, Waker>,
    next: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Registered {
    Yes,
    Cancelled,
}

impl CancelToken {
    pub(crate) fn cancel(&self) {
        let wakers = {
            // Stored under the lock under which a waiter looks at the flag before it sleeps, and a
            // task before it leaves its waker: each sees the flag or is woken. Release is for
            // `is_cancelled`, which looks without the lock: what was written before the cancel is
            // visible after it.
            let mut waiters = lock(&self.waiters);
            self.is_cancelled.store(true, Ordering::Release);
            std::mem::take(&mut waiters.wakers)
        };
        self.told.notify_all();
        for waker in wakers.into_values() {
            guarded("a waker", || waker.wake());
        }
    }

    fn register(&self, key: &mut Option<u64>, waker: &Waker) -> Registered {
        let mut waiters = lock(&self.waiters);
        // Relaxed, here and in `wait`: the lock orders it.
        if self.is_cancelled.load(Ordering::Relaxed) {
            return Registered::Cancelled;
        }
        let key = *key.get_or_insert_with(|| {
            waiters.next += 1;
            waiters.next
        });
        let earlier = match waiters.wakers.entry(key) {
            Entry::Occupied(mut kept) => renew(kept.get_mut(), waker),
            Entry::Vacant(place) => {
                place.insert(waker.clone());
                None
            }
        };
        drop(waiters);
        drop(earlier); // not under the lock: a waker's drop is code of the user
        Registered::Yes
    }

    fn wait(&self, until: Option<Instant>) {
        let mut waiters = lock(&self.waiters);
        while !self.is_cancelled.load(Ordering::Relaxed) && !until.is_some_and(has_passed) {
            waiters = wait_until(&self.told, waiters, until);
        }
    }
}

/// Requests that are being handled, where a cancel finds them.
#[derive(Debug, Default)]
pub(crate) struct ActiveRequests {
    /// One slot for each worker of the connection. A cancel looks at all of them.
    slots: Vec<SlotRequest>,
    free: Vec<WorkerSlot>,
    /// Requests that will be answered later, from any thread.
    later: HashMap<ThreadId, TokenState>,
    /// One-ways that tasks handle, by a number of their own.
    one_ways: HashMap<u64, Arc<CancelToken>>,
    last_one_way: u64,
}

/// Index of a worker's slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct WorkerSlot(usize);

#[derive(Debug, Default)]
struct SlotRequest {
    /// `None` for a one-way, and for nothing.
    id: Option<ThreadId>,
    state: TokenState,
}

#[derive(Debug, Default)]
enum TokenState {
    /// No handler has asked for the token.
    #[default]
    Unasked,
    /// Cancelled before a handler has asked for the token.
    Cancelled,
    Asked(Arc<CancelToken>),
}

/// Receiver of a cancel.
#[derive(Debug)]
enum Reached {
    Token(Arc<CancelToken>),
    /// A handler that has not asked: it is noted for when it does.
    Handler,
    NotFound,
}

impl ActiveRequests {
    /// Claims a slot for a worker.
    pub(crate) fn claim_slot(&mut self) -> WorkerSlot {
        self.free.pop().unwrap_or_else(|| {
            self.slots.push(SlotRequest::default());
            WorkerSlot(self.slots.len() - 1)
        })
    }

    /// Notes that the worker runs the handler of this request next, or of a one-way.
    #[inline]
    pub(crate) fn begin(&mut self, slot: WorkerSlot, request: Option<ThreadId>) {
        // Dropping a token here wakes no task: a task that waits on it holds it too.
        self.slots[slot.0] = SlotRequest { id: request, state: TokenState::Unasked };
    }

    /// Returns a worker's slot.
    pub(crate) fn leave(&mut self, slot: WorkerSlot) {
        self.begin(slot, None);
        self.free.push(slot);
    }

    /// Notes that the request in this slot will be answered later, whatever its worker does
    /// meanwhile.
    pub(crate) fn answer_later(&mut self, slot: WorkerSlot) {
        // With the state: a cancel that came before the handler took the responder is not
        // forgotten.
        let request = std::mem::take(&mut self.slots[slot.0]);
        if let Some(id) = request.id {
            self.later.insert(id, request.state);
        }
    }

    /// Notes that a task handles the one-way in this slot, whatever its worker does meanwhile.
    /// Returns its number, for [`one_way_done`](ActiveRequests::one_way_done), and its token.
    pub(crate) fn detach_one_way(&mut self, slot: WorkerSlot) -> (u64, Arc<CancelToken>) {
        let token = self.slots[slot.0].state.ask();
        self.last_one_way += 1;
        self.one_ways.insert(self.last_one_way, Arc::clone(&token));
        (self.last_one_way, token)
    }

    pub(crate) fn one_way_done(&mut self, number: u64) {
        self.one_ways.remove(&number);
    }

    pub(crate) fn answered_later(&mut self, id: ThreadId) {
        self.later.remove(&id);
    }

    /// Token of the request or one-way that the worker in this slot handles.
    pub(crate) fn token(
        &mut self,
        slot: WorkerSlot,
        request: Option<ThreadId>,
    ) -> Arc<CancelToken> {
        let later = request.and_then(|id| self.later.get_mut(&id));
        match later {
            Some(state) if self.slots[slot.0].id.is_none() => state.ask(),
            _ => self.slots[slot.0].state.ask(),
        }
    }

    /// Token of a request that will be answered later.
    pub(crate) fn token_of_later(&mut self, id: ThreadId) -> Arc<CancelToken> {
        self.later.get_mut(&id).map(TokenState::ask).unwrap_or_default()
    }

    fn cancel(&mut self, id: ThreadId) -> Reached {
        let handled = self.slots.iter_mut().find(|slot| slot.id == Some(id));
        match handled.map(|slot| &mut slot.state).or_else(|| self.later.get_mut(&id)) {
            None => Reached::NotFound,
            Some(TokenState::Asked(token)) => Reached::Token(Arc::clone(token)),
            Some(state) => {
                *state = TokenState::Cancelled;
                Reached::Handler
            }
        }
    }

    fn tokens(&self) -> Vec<Arc<CancelToken>> {
        let handled = self.slots.iter().map(|slot| &slot.state);
        let asked = handled.chain(self.later.values()).filter_map(|state| match state {
            TokenState::Asked(token) => Some(Arc::clone(token)),
            TokenState::Unasked | TokenState::Cancelled => None,
        });
        asked.chain(self.one_ways.values().cloned()).collect()
    }
}

impl TokenState {
    fn ask(&mut self) -> Arc<CancelToken> {
        if let Self::Asked(token) = self {
            return Arc::clone(token);
        }
        let token = Arc::new(CancelToken::default());
        if matches!(self, Self::Cancelled) {
            token.cancel();
        }
        *self = Self::Asked(Arc::clone(&token));
        token
    }
}

impl Shared {
    /// Cancels a request: the other side has no use for its answer any more. Called by the leader.
    pub(crate) fn cancel_request(self: &Arc<Self>, id: ThreadId) {
        self.cancel_peers_stream(id);
        let mut queue = lock(&self.serve_queue);
        // The slots first, then the queue, under one lock: `ServeQueue::pop` moves a request from
        // one to the other under the same lock, so that it is found in one of them.
        match queue.active.cancel(id) {
            Reached::Handler => {}
            Reached::Token(token) => {
                // Not under the lock of the queue: this runs wakers, which may ask for another
                // token.
                drop(queue);
                token.cancel();
            }
            Reached::NotFound => {
                let dropped = queue.cancel_queued(id);
                drop(queue);
                self.refuse(dropped, &Failure::new(failure_code::CANCELLED, CANCELLED));
            }
        }
    }

    /// Cancels all requests: the other side takes no answer any more.
    pub(crate) fn cancel_all(&self) {
        // Tokens that are asked for after this look are set by `Cancellation::new`.
        let tokens = lock(&self.serve_queue).active.tokens();
        tokens.iter().for_each(|token| token.cancel());
    }
}

/// Queued requests that are cancelled.
#[derive(Debug, Default)]
pub(crate) struct CancelledInQueue(HashSet<ThreadId>);

/// Number of queued jobs for which one cancelled request is left in the queue until its turn.
/// Cancelled requests are taken out together: with a search for each, a peer that cancels much
/// could hold up the thread that reads.
const QUEUED_EACH: usize = 16;

impl CancelledInQueue {
    /// Adds a request. Returns true if it is time to take the cancelled requests out of the
    /// `queued` jobs.
    pub(crate) fn add(&mut self, id: ThreadId, queued: usize) -> bool {
        queued > 0 && self.0.insert(id) && self.0.len() * QUEUED_EACH >= queued
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns true if a job that leaves the queue was cancelled. `queued` jobs are left.
    #[cold]
    pub(crate) fn take(&mut self, job: &Job, queued: usize) -> bool {
        let was_cancelled = job.request_id().is_some_and(|id| self.0.remove(&id));
        if queued == 0 {
            self.0.clear(); // requests that were never found had been answered before
        }
        was_cancelled
    }

    pub(crate) fn contains(&self, job: &Job) -> bool {
        job.request_id().is_some_and(|id| self.0.contains(&id))
    }
}
