//! Threads that run handlers, and threads for call-backs that must not wait for handlers.
//!
//! A thread is started when there is work and no idle thread, and ends after [`KEEP`] without work.
//! The owner of the work, a connection, decides how many threads work for it
//! (`connection/serve/workers.rs`). A thread that waits for a call of its own, or for room to send,
//! does not count there, so that handlers may nest to any depth.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use crate::sync::lock::{guarded, lock, wait_until};
use crate::sync::{Condvar, Instant, Mutex, MutexGuard, thread, thread_local};

/// Number of threads of a pool unless the user chooses another.
pub(crate) const DEFAULT_THREADS: usize = 1024;

/// Time that a thread stays without work before it ends.
const KEEP: Duration = Duration::from_secs(5);

pub(crate) struct ThreadPool {
    state: Mutex<PoolState>,
    work: Condvar,
    limit: usize,
    thread_name: &'static str,
}

#[derive(Default)]
struct PoolState {
    queue: VecDeque<Work>,
    threads: usize,
    idle: usize,
    /// Threads that wait for a call of their own, or for room to send.
    blocked: usize,
    /// True once the system refused a thread for work that waits.
    lacks_thread: bool,
    stopping: bool,
}

/// Owner of work that counts its own workers.
pub(crate) trait Serve: Send + Sync {
    /// Runs jobs until none is left. The thread was counted as a worker before.
    fn serve(self: Arc<Self>);

    /// A worker is about to block: another one may run in its place.
    fn worker_blocked(self: Arc<Self>, on: BlockedOn);

    /// The worker goes on. For a moment one more worker than the limit may run.
    fn worker_resumed(&self, on: BlockedOn);

    /// A worker is about to wait until the peer reads. It keeps its place.
    fn worker_waits_for_room(self: Arc<Self>);

    /// No thread will run what waits: requests are refused, so that the calls that block the
    /// threads can end.
    fn refuse_waiting(self: Arc<Self>, exhausted: Exhausted);
}

pub(crate) enum Work {
    /// Runs the owner's jobs until it has none.
    Serve(Arc<dyn Serve>),
    /// Runs once, and counts as no owner's worker.
    Once(Box<dyn FnOnce() + Send>),
}

/// Thing that a worker waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BlockedOn {
    /// Something from the peer, which may send it only after handlers have run that have no thread.
    /// Where all threads wait like this, some requests are refused.
    Peer,
    /// A cancellation or a time, which come without any handler.
    TimeOrCancel,
}

/// No thread will take the work: all threads that are allowed wait for calls of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Exhausted {
    pub(crate) limit: usize,
}

impl std::fmt::Display for Exhausted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.limit {
            0 => f.write_str(
                "not taken: the system gives no thread to handle it, since a limit of processes is reached: \
                 ulimit -u, or pids.max of its cgroup",
            ),
            limit => {
                write!(f, "not taken: all {limit} handler threads wait for calls of their own")
            }
        }
    }
}

/// The pool that a thread belongs to, and the owner that it works for.
type Serving = (Arc<ThreadPool>, Option<Arc<dyn Serve>>);

thread_local! {
    static SERVING: RefCell<Option<Serving>> = const { RefCell::new(None) };
}

impl ThreadPool {
    /// Creates the pool for handlers.
    pub(crate) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::default(),
            work: Condvar::new(),
            limit,
            thread_name: "pipeplug-handler",
        })
    }

    /// Creates the pool for call-backs that no busy handler may delay: a connection's stop and end,
    /// and the lines that a plugin prints. It has as many threads as have work. A connection has a
    /// few of these call-backs at most, whatever its peer does.
    pub(crate) fn for_call_backs() -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::default(),
            work: Condvar::new(),
            limit: usize::MAX,
            thread_name: "pipeplug-aside",
        })
    }

    /// Number of threads that one owner may have, including those that wait. The rest is for other
    /// owners.
    pub(crate) fn share(&self) -> usize {
        self.limit - self.limit / 4
    }

    /// Queues `work` for a thread. Returns an error if no thread may ever take it; it stays queued.
    pub(crate) fn submit(self: &Arc<Self>, work: Work) -> Result<(), Exhausted> {
        let mut state = lock(&self.state);
        state.queue.push_back(work);
        // An idle thread counts until it has the lock again, so this compares threads that are free
        // or already notified with all work that waits for one, this included. Each work gets a
        // thread of its own, and no notification is counted twice.
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
        // Every thread waits for the peer, which may wait for this work. The owner refuses requests
        // then.
        if state.idle == 0 && state.blocked >= state.threads {
            return Err(Exhausted { limit: state.threads });
        }
        Ok(())
    }

    /// Starts a thread. Returns the lock if the system refuses one.
    fn start_thread<'a>(
        self: &'a Arc<Self>,
        mut state: MutexGuard<'a, PoolState>,
    ) -> Option<MutexGuard<'a, PoolState>> {
        state.threads += 1;
        drop(state);
        let pool = Arc::clone(self);
        let spawned =
            thread::Builder::new().name(self.thread_name.into()).spawn(move || pool.run());
        let error = spawned.err()?;
        tracing::warn!(%error, thread = self.thread_name, "no further thread can be started");
        let mut state = lock(&self.state);
        state.threads -= 1;
        state.lacks_thread = true;
        Some(state)
    }

    /// Returns true if the system has refused a thread since the last call of this function.
    pub(crate) fn lacked_thread(&self) -> bool {
        std::mem::take(&mut lock(&self.state).lacks_thread)
    }

    /// Tries to start a thread for work that still waits.
    pub(crate) fn try_again(self: &Arc<Self>) {
        let state = lock(&self.state);
        if state.queue.len() > state.idle {
            self.start_thread(state);
        }
    }

    /// Returns true if work waits that no thread has taken.
    pub(crate) fn has_waiting(&self) -> bool {
        !lock(&self.state).queue.is_empty()
    }

    /// Returns true if work waits, and a thread will take it when its handler returns.
    pub(crate) fn is_saturated(&self) -> bool {
        let state = lock(&self.state);
        !state.queue.is_empty() && state.is_full(self.limit) && state.blocked < state.threads
    }

    /// The exhaustion, if all threads that are allowed wait for calls of their own.
    pub(crate) fn exhausted(&self) -> Option<Exhausted> {
        lock(&self.state).exhausted(self.limit)
    }

    /// Ends idle threads now, and busy ones when they are done.
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
            // Under the lock under which the queue was found empty: work that is queued after this
            // sees one thread less and starts one.
            if state.queue.is_empty() {
                state.threads -= 1;
                return;
            }
        }
    }

    /// Counts this thread, which is not the pool's, as one of its threads while `run` runs. Returns
    /// `None` without running it if the pool may not have another thread.
    pub(crate) fn as_worker<T>(self: &Arc<Self>, run: impl FnOnce() -> T) -> Option<T> {
        {
            let mut state = lock(&self.state);
            if state.threads >= self.limit {
                return None;
            }
            state.threads += 1;
        }
        let result = run();
        let mut state = lock(&self.state);
        state.threads -= 1;
        // Work that came meanwhile may have found no room for a thread, and no other thread looks
        // for it.
        if !state.queue.is_empty() && state.idle == 0 && state.threads < self.limit {
            self.start_thread(state);
        }
        Some(result)
    }

    /// Runs `run` as work for `owner`, which is told where it blocks.
    pub(crate) fn serving<T>(
        self: &Arc<Self>,
        owner: Option<Arc<dyn Serve>>,
        run: impl FnOnce() -> T,
    ) -> T {
        SERVING.set(Some((Arc::clone(self), owner)));
        let result = run();
        SERVING.set(None);
        result
    }

    fn do_work(self: &Arc<Self>, work: Work) {
        const WHAT: &str = "a call-back of a connection";
        match work {
            Work::Serve(owner) => {
                self.serving(Some(Arc::clone(&owner)), || guarded(WHAT, || owner.serve()));
            }
            Work::Once(once) => self.serving(None, || guarded(WHAT, once)),
        }
    }

    /// Counts one more blocked thread. If it was the last one that could take work, returns the
    /// owners whose work waits without any.
    fn thread_blocked(&self) -> Option<(Exhausted, Vec<Arc<dyn Serve>>)> {
        let mut state = lock(&self.state);
        // Counted and looked at under one lock: of two threads that block at once, the second one
        // sees that no thread is left.
        state.blocked += 1;
        let exhausted = state.exhausted(self.limit)?;
        let stranded: Vec<_> = state
            .queue
            .iter()
            .filter_map(|work| match work {
                Work::Serve(owner) => Some(Arc::clone(owner)),
                Work::Once(_) => None,
            })
            .collect();
        (!stranded.is_empty()).then_some((exhausted, stranded))
    }

    fn thread_resumed(&self) {
        lock(&self.state).blocked -= 1;
    }
}

impl PoolState {
    fn is_full(&self, limit: usize) -> bool {
        self.idle == 0 && self.threads >= limit
    }

    fn exhausted(&self, limit: usize) -> Option<Exhausted> {
        (self.is_full(limit) && self.blocked >= self.threads)
            .then_some(Exhausted { limit: self.threads })
    }
}

/// Runs `wait`, which may block until the peer reads. The peer reads whatever its handlers do.
///
/// A worker keeps its place: a peer that does not read must not cost one thread after the other.
pub(crate) fn while_unread<T>(wait: impl FnOnce() -> T) -> T {
    if let Some((_, Some(owner))) = SERVING.with_borrow(Clone::clone) {
        owner.worker_waits_for_room();
    }
    wait()
}

/// Runs `wait`, which may block until something comes from the peer. If this thread is a worker,
/// another one takes its place meanwhile.
pub(crate) fn while_blocked<T>(on: BlockedOn, wait: impl FnOnce() -> T) -> T {
    let Some((pool, owner)) = SERVING.with_borrow(Clone::clone) else { return wait() };
    let exhausted = match on {
        // The pool first, so that a worker that the owner starts next is refused if no thread can
        // take it.
        BlockedOn::Peer => pool.thread_blocked(),
        BlockedOn::TimeOrCancel => None,
    };
    if let Some(owner) = &owner {
        Arc::clone(owner).worker_blocked(on);
    }
    if let Some((exhausted, stranded)) = exhausted {
        stranded.into_iter().for_each(|owner| owner.refuse_waiting(exhausted));
    }
    // `result` may hold the lock of the writer's queue: what follows may take that of the serve
    // queue and of the pool, and must not send (see `Shared` in connection/shared.rs).
    let result = wait();
    if on == BlockedOn::Peer {
        pool.thread_resumed();
    }
    if let Some(owner) = &owner {
        owner.worker_resumed(on);
    }
    result
}
