//! Requests that are no longer wanted: how their handlers are told.
//!
//! A handler that never asks pays for none of this but for its request's id being noted where the inbox is locked anyway.
//! What is shared between it and whoever reads is made when it asks.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use pipeplug_wire::ThreadId;

use crate::connection::serve::request::Job;
use crate::connection::shared::Core;
use crate::event_loop::thread_pool::{self, Awaits};
use crate::event_loop::timers::Alarm;
use crate::protocol::deadline::sooner;
use crate::sync::lock::{guarded, lock, renew, wait_until};
use crate::sync::{
    Condvar, Instant, Mutex,
    atomic::{AtomicBool, Ordering},
};

/// The feature's name in `pipeplug.features`.
pub(crate) const FEATURE: &str = "cancel";

/// Says whether a request that is being handled is still wanted: look at it, wait for it, or `.await` it.
///
/// It is set when the caller gives the call up and both sides know of `cancel`, when the request's deadline passes, and when
/// nothing comes from the other side any more. It stays set. The answer of a request that was cancelled is sent all the
/// same, and dropped by the caller.
///
/// Cloning it is cheap, and it may outlive its handler: behind the answer it is set by the deadline or the connection's end
/// alone, if at all.
///
/// ```
/// use std::time::Duration;
/// use pipeplug_net::{HandlerError, Incoming, Reply};
///
/// fn count(incoming: &mut Incoming) -> Result<Reply, HandlerError> {
///     let cancellation = incoming.cancellation();
///     for second in 0..60 {
///         if cancellation.wait_timeout(Duration::from_secs(1)) {
///             return Err(format!("cancelled after {second} s").into());
///         }
///     }
///     Ok("60".into())
/// }
/// ```
#[must_use = "it does nothing but say whether the request is wanted"]
pub struct Cancellation {
    core: Arc<Core>,
    token: Arc<Token>,
    deadline: Option<Instant>,
    /// Under which its waker is kept, once it was polled.
    key: Option<u64>,
    alarm: Option<Alarm>,
}

impl Cancellation {
    pub(crate) fn new(core: &Arc<Core>, token: Arc<Token>, deadline: Option<Instant>) -> Self {
        // Behind the token's being where the end finds it: one of the two sees the other.
        if core.ended.get().is_some() {
            token.cancel();
        }
        Self { core: Arc::clone(core), token, deadline, key: None, alarm: None }
    }

    /// Whether the request is no longer wanted.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.token.is_cancelled.load(Ordering::Acquire)
            || self.deadline.is_some_and(|deadline| Instant::now() >= deadline)
    }

    /// Waits until the request is no longer wanted, for at most `timeout`, and says whether it is so: a sleep that ends when
    /// there is no point in it any more.
    ///
    /// # Blocking
    /// At most for `timeout`. Another thread runs handlers in this one's place meanwhile.
    #[must_use]
    pub fn wait_timeout(&self, timeout: Duration) -> bool {
        if self.is_cancelled() {
            return true;
        }
        let until = sooner(Instant::now().checked_add(timeout), self.deadline);
        thread_pool::while_blocked(Awaits::Nothing, || self.token.wait(until));
        self.is_cancelled()
    }
}

impl Clone for Cancellation {
    fn clone(&self) -> Self {
        Self {
            core: Arc::clone(&self.core),
            token: Arc::clone(&self.token),
            deadline: self.deadline,
            key: None,
            alarm: None,
        }
    }
}

impl Future for Cancellation {
    type Output = ();

    /// # Blocking
    /// Never. The waker is woken on the thread that reads for the connection, or on the loop's, and must not wait for
    /// anything of this loop.
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        let waker = context.waker();
        if this.is_cancelled() || this.token.register(&mut this.key, waker) == Registered::Cancelled {
            return Poll::Ready(());
        }
        if let Some(deadline) = this.deadline {
            match &this.alarm {
                Some(alarm) => alarm.renew(waker),
                None => this.alarm = Some(Alarm::set(&this.core, deadline, waker.clone())),
            }
        }
        Poll::Pending
    }
}

impl Drop for Cancellation {
    fn drop(&mut self) {
        if let Some(key) = self.key {
            let waker = lock(&self.token.waiters).wakers.remove(&key);
            drop(waker); // outside of the lock: it is somebody's code
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

/// What those share who want to know whether a request is still wanted.
#[derive(Debug, Default)]
pub(crate) struct Token {
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

impl Token {
    pub(crate) fn cancel(&self) {
        let wakers = {
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
        drop(earlier); // outside of the lock: it is somebody's code
        Registered::Yes
    }

    fn wait(&self, until: Option<Instant>) {
        let mut waiters = lock(&self.waiters);
        while !self.is_cancelled.load(Ordering::Relaxed) && until.is_none_or(|until| Instant::now() < until) {
            waiters = wait_until(&self.told, waiters, until);
        }
    }
}

/// The requests that are being handled, so that a cancel finds them.
#[derive(Debug, Default)]
pub(crate) struct Handling {
    /// One for each thread that runs handlers of the connection: a cancel looks at all of them.
    places: Vec<Occupant>,
    free: Vec<Place>,
    /// Those that will be answered later, from anywhere.
    later: HashMap<ThreadId, State>,
}

/// A thread's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place(usize);

#[derive(Debug, Default)]
struct Occupant {
    /// `None`: nothing that could be cancelled.
    id: Option<ThreadId>,
    state: State,
}

#[derive(Debug, Default)]
enum State {
    /// Nobody wants to know whether it is wanted.
    #[default]
    Unasked,
    /// It is not, and nobody has asked yet.
    Cancelled,
    Asked(Arc<Token>),
}

/// Whom a cancel reaches.
#[derive(Debug)]
enum Reached {
    Token(Arc<Token>),
    /// It is noted, for whoever may ask.
    Handler,
    Nobody,
}

impl Handling {
    /// A place for a thread that begins to run handlers.
    pub(crate) fn take_place(&mut self) -> Place {
        self.free.pop().unwrap_or_else(|| {
            self.places.push(Occupant::default());
            Place(self.places.len() - 1)
        })
    }

    /// The thread runs the handler of this request next, or of a one-way.
    #[inline]
    pub(crate) fn begin(&mut self, place: Place, request: Option<ThreadId>) {
        // A token that is dropped here wakes nobody: who waits on one holds it too.
        self.places[place.0] = Occupant { id: request, state: State::Unasked };
    }

    pub(crate) fn leave(&mut self, place: Place) {
        self.begin(place, None);
        self.free.push(place);
    }

    /// The request in this place will be answered later, whatever its thread does meanwhile.
    pub(crate) fn answer_later(&mut self, place: Place) {
        let occupant = std::mem::take(&mut self.places[place.0]);
        if let Some(id) = occupant.id {
            self.later.insert(id, occupant.state);
        }
    }

    pub(crate) fn answered_later(&mut self, id: ThreadId) {
        self.later.remove(&id);
    }

    /// The token of what the thread in this place handles.
    pub(crate) fn token(&mut self, place: Place, request: Option<ThreadId>) -> Arc<Token> {
        let later = request.and_then(|id| self.later.get_mut(&id));
        match later {
            Some(state) if self.places[place.0].id.is_none() => state.ask(),
            _ => self.places[place.0].state.ask(),
        }
    }

    /// The token of a request that will be answered later.
    pub(crate) fn token_of_later(&mut self, id: ThreadId) -> Arc<Token> {
        self.later.get_mut(&id).map(State::ask).unwrap_or_default()
    }

    fn cancel(&mut self, id: ThreadId) -> Reached {
        let handled = self.places.iter_mut().find(|occupant| occupant.id == Some(id));
        match handled.map(|occupant| &mut occupant.state).or_else(|| self.later.get_mut(&id)) {
            None => Reached::Nobody,
            Some(State::Asked(token)) => Reached::Token(Arc::clone(token)),
            Some(state) => {
                *state = State::Cancelled;
                Reached::Handler
            }
        }
    }

    fn tokens(&self) -> Vec<Arc<Token>> {
        let handled = self.places.iter().map(|occupant| &occupant.state);
        let asked = handled.chain(self.later.values()).filter_map(|state| match state {
            State::Asked(token) => Some(Arc::clone(token)),
            State::Unasked | State::Cancelled => None,
        });
        asked.collect()
    }
}

impl State {
    fn ask(&mut self) -> Arc<Token> {
        if let Self::Asked(token) = self {
            return Arc::clone(token);
        }
        let token = Arc::new(Token::default());
        if matches!(self, Self::Cancelled) {
            token.cancel();
        }
        *self = Self::Asked(Arc::clone(&token));
        token
    }
}

impl Core {
    /// The other side has no use for the answer to this request any more: called by whoever reads.
    pub(crate) fn cancel_request(self: &Arc<Self>, id: ThreadId) {
        let mut inbox = lock(&self.inbox);
        match inbox.handling.cancel(id) {
            Reached::Handler => {}
            Reached::Token(token) => {
                drop(inbox);
                token.cancel();
            }
            Reached::Nobody => {
                let dropped = inbox.cancel_waiting(id);
                drop(inbox);
                self.refuse(dropped, CANCELLED);
            }
        }
    }

    /// Nobody waits for any answer any more.
    pub(crate) fn cancel_all(&self) {
        let tokens = lock(&self.inbox).handling.tokens();
        tokens.iter().for_each(|token| token.cancel());
    }
}

/// What a request is answered that is cancelled ahead of its handler: each has one answer.
pub(crate) const CANCELLED: &str = "not handled: the request was cancelled";

/// Requests that are cancelled while they wait.
#[derive(Debug, Default)]
pub(crate) struct Cancelled(std::collections::HashSet<ThreadId>);

/// For so many requests that wait, one cancelled one is left in its place until its turn comes. They are taken out
/// together: to look through all for each would let a peer that cancels much hold up whoever reads.
const WAITING_EACH: usize = 16;

impl Cancelled {
    /// One more; whether it is time to take them out of so many that wait.
    pub(crate) fn add(&mut self, id: ThreadId, waiting: usize) -> bool {
        waiting > 0 && self.0.insert(id) && self.0.len() * WAITING_EACH >= waiting
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether what comes out of the inbox was cancelled; so many wait on.
    #[cold]
    pub(crate) fn take(&mut self, job: &Job, waiting: usize) -> bool {
        let was_cancelled = job.request().is_some_and(|id| self.0.remove(&id));
        if waiting == 0 {
            self.0.clear(); // what was never found had been answered already
        }
        was_cancelled
    }

    pub(crate) fn contains(&self, job: &Job) -> bool {
        job.request().is_some_and(|id| self.0.contains(&id))
    }
}
