//! The threads that run handlers, and those that run what must not wait for handlers.
//!
//! A thread is started when there is work and no idle one, and ends after it had none for [`KEEP`]. How many work for
//! one connection is the connection's to say (`serve/workers.rs`); a thread that waits for a call of its own, or for room to
//! send, does not count there, so that handlers may nest to any depth.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use crate::connection::shared::Core;
use crate::sync::lock::{guarded, lock, wait_until};
use crate::sync::{Condvar, Instant, Mutex, MutexGuard, thread, thread_local};

/// Threads of one pool, unless said otherwise.
pub(crate) const DEFAULT_THREADS: usize = 1024;

/// How long a thread stays without work.
const KEEP: Duration = Duration::from_secs(5);

pub(crate) struct Pool {
    state: Mutex<State>,
    work: Condvar,
    limit: usize,
    thread_name: &'static str,
}

#[derive(Default)]
struct State {
    queue: VecDeque<Work>,
    threads: usize,
    idle: usize,
    /// Threads that wait for a call of their own, or for room to send.
    blocked: usize,
    /// Whether the system gave no thread for what waits.
    lacks_thread: bool,
    stopping: bool,
}

pub(crate) enum Work {
    /// Run jobs of this connection until it has none.
    Serve(Arc<Core>),
    /// One thing outside of any connection's count.
    Once(Box<dyn FnOnce() + Send>),
}

/// No thread will take the work: all there may be wait for calls of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Exhausted {
    pub(crate) limit: usize,
}

impl std::fmt::Display for Exhausted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.limit {
            0 => f.write_str("not taken: the system gives no thread to handle it"),
            limit => write!(f, "not taken: all {limit} handler threads wait for calls of their own"),
        }
    }
}

/// The pool that a thread is of, and the connection whose handler it runs.
type Serving = (Arc<Pool>, Option<Arc<Core>>);

thread_local! {
    static SERVING: RefCell<Option<Serving>> = const { RefCell::new(None) };
}

impl Pool {
    /// Handlers' threads.
    pub(crate) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::default(),
            work: Condvar::new(),
            limit,
            thread_name: "pipeplug-handler",
        })
    }

    /// Threads for what no busy handler may keep waiting: a connection's stop and end, and what a plugin prints. As many
    /// as have work: a connection has a few of these at most, whatever its peer does.
    pub(crate) fn aside() -> Arc<Self> {
        let (state, work) = (Mutex::default(), Condvar::new());
        Arc::new(Self { state, work, limit: usize::MAX, thread_name: "pipeplug-aside" })
    }

    /// How many threads one connection may take, those that wait included: what is left is for the others.
    pub(crate) fn share(&self) -> usize {
        self.limit - self.limit / 4
    }

    /// Has a thread do `work`; an error where none ever might.
    pub(crate) fn submit(self: &Arc<Self>, work: Work) -> Result<(), Exhausted> {
        let mut state = lock(&self.state);
        state.queue.push_back(work);
        if state.idle >= state.queue.len() {
            drop(state);
            self.work.notify_one();
            return Ok(());
        }
        if state.threads < self.limit {
            match self.start_thread(state) {
                None => return Ok(()),
                Some(again) => state = again,
            }
        }
        if state.idle == 0 && state.blocked >= state.threads {
            return Err(Exhausted { limit: state.threads });
        }
        Ok(())
    }

    /// Starts a thread; gives the lock back where there is none to be had.
    fn start_thread<'a>(
        self: &'a Arc<Self>,
        mut state: MutexGuard<'a, State>,
    ) -> Option<MutexGuard<'a, State>> {
        state.threads += 1;
        drop(state);
        let pool = Arc::clone(self);
        let spawned = thread::Builder::new().name(self.thread_name.into()).spawn(move || pool.run());
        let error = spawned.err()?;
        tracing::warn!(%error, thread = self.thread_name, "no further thread can be started");
        let mut state = lock(&self.state);
        state.threads -= 1;
        state.lacks_thread = true;
        Some(state)
    }

    /// Whether the system gave no thread for what waits, since this was asked last.
    pub(crate) fn lacked_thread(&self) -> bool {
        std::mem::take(&mut lock(&self.state).lacks_thread)
    }

    /// Has a thread more do what waits still.
    pub(crate) fn try_again(self: &Arc<Self>) {
        let state = lock(&self.state);
        if state.queue.len() > state.idle {
            self.start_thread(state);
        }
    }

    /// Whether work waits that no thread has taken.
    pub(crate) fn has_waiting(&self) -> bool {
        !lock(&self.state).queue.is_empty()
    }

    /// Whether work waits for a thread that will be free when its handler returns.
    pub(crate) fn is_saturated(&self) -> bool {
        let state = lock(&self.state);
        !state.queue.is_empty() && state.is_full(self.limit) && state.blocked < state.threads
    }

    /// Whether every thread there may be waits for a call of its own.
    pub(crate) fn exhausted(&self) -> Option<Exhausted> {
        lock(&self.state).exhausted(self.limit)
    }

    /// Idle threads end; busy ones when they are done.
    pub(crate) fn stop(&self) {
        lock(&self.state).stopping = true;
        self.work.notify_all();
    }

    fn run(self: Arc<Self>) {
        let mut state = lock(&self.state);
        loop {
            if let Some(work) = state.queue.pop_front() {
                drop(state);
                self.do_work(work);
                state = lock(&self.state);
                continue;
            }
            let until = Instant::now() + KEEP;
            state.idle += 1;
            while state.queue.is_empty() && !state.stopping && Instant::now() < until {
                state = wait_until(&self.work, state, Some(until));
            }
            state.idle -= 1;
            if state.queue.is_empty() {
                state.threads -= 1;
                return;
            }
        }
    }

    /// A thread that is none of the pool's is one of it from here on, if there may be one more.
    fn step_in(&self) -> bool {
        let mut state = lock(&self.state);
        let may = state.threads < self.limit;
        if may {
            state.threads += 1;
        }
        may
    }

    /// It goes; what came meanwhile and found no room for a thread has some now.
    fn step_out(self: &Arc<Self>) {
        let mut state = lock(&self.state);
        state.threads -= 1;
        if !state.queue.is_empty() && state.idle == 0 && state.threads < self.limit {
            self.start_thread(state);
        }
    }

    fn do_work(self: &Arc<Self>, work: Work) {
        let (core, once) = match work {
            Work::Serve(core) => (Some(core), None),
            Work::Once(once) => (None, Some(once)),
        };
        SERVING.set(Some((Arc::clone(self), core.clone())));
        guarded("a call-back of a connection", || {
            if let Some(core) = core {
                core.serve(false);
            }
            if let Some(once) = once {
                once();
            }
        });
        SERVING.set(None);
    }

    /// One more thread waits; where it was the last one, gives the connections whose work is left without any.
    fn thread_blocked(&self) -> Option<(Exhausted, Vec<Arc<Core>>)> {
        let mut state = lock(&self.state);
        state.blocked += 1;
        let exhausted = state.exhausted(self.limit)?;
        let stranded: Vec<_> = state
            .queue
            .iter()
            .filter_map(|work| match work {
                Work::Serve(core) => Some(Arc::clone(core)),
                Work::Once(_) => None,
            })
            .collect();
        (!stranded.is_empty()).then_some((exhausted, stranded))
    }

    fn thread_resumed(&self) {
        lock(&self.state).blocked -= 1;
    }
}

impl State {
    fn is_full(&self, limit: usize) -> bool {
        self.idle == 0 && self.threads >= limit
    }

    fn exhausted(&self, limit: usize) -> Option<Exhausted> {
        (self.is_full(limit) && self.blocked >= self.threads).then_some(Exhausted { limit: self.threads })
    }
}

/// Runs the handlers of what a connection's own reader has read, on its thread; says whether it has the lead still.
pub(crate) fn serve_with(pool: &Arc<Pool>, core: &Arc<Core>, leads: bool) -> bool {
    if !pool.step_in() {
        core.leave_to_others();
        return leads;
    }
    let mut leads = leads;
    if core.sit_down() {
        SERVING.set(Some((Arc::clone(pool), Some(Arc::clone(core)))));
        leads = core.serve(leads);
        SERVING.set(None);
    }
    pool.step_out();
    leads
}

/// Runs what may block until the other side reads, which it does whatever its handlers do. A handler's thread keeps its
/// place for so long: a peer that does not read must not get one thread after the other.
pub(crate) fn while_unread<T>(wait: impl FnOnce() -> T) -> T {
    if let Some((_, Some(core))) = SERVING.with_borrow(Clone::clone) {
        core.lender_blocked();
    }
    wait()
}

/// What a handler's thread waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Awaits {
    /// What the other side may send only once handlers have run that have no thread: where all wait so, some are refused.
    Peer,
    /// A cancel, or the time, which come without any.
    Nothing,
}

/// Runs what may block until something comes from the other side; where this is a handler's thread, another one takes
/// its place for so long.
pub(crate) fn while_blocked<T>(awaits: Awaits, wait: impl FnOnce() -> T) -> T {
    let Some((pool, core)) = SERVING.with_borrow(Clone::clone) else { return wait() };
    let exhausted = match awaits {
        Awaits::Peer => pool.thread_blocked(),
        Awaits::Nothing => None,
    };
    if let Some(core) = &core {
        core.handler_blocked(awaits);
    }
    if let Some((exhausted, stranded)) = exhausted {
        stranded.iter().for_each(|core| core.refuse_waiting(exhausted));
    }
    let result = wait();
    if awaits == Awaits::Peer {
        pool.thread_resumed();
    }
    if let Some(core) = &core {
        core.handler_resumed(awaits);
    }
    result
}
