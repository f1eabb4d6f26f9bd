//! Event loop: one thread that waits for any number of descriptors.
//!
//! The loop knows descriptors, times and threads, and no connection: a connection registers its
//! descriptors as [`Source`]s, and its work as `thread_pool::Serve`.

pub(crate) mod buffer_cache;
pub(crate) mod offload;
pub(crate) mod thread_pool;
pub(crate) mod timers;
pub(crate) mod wake_pipe;
pub(crate) mod watch;

use std::cmp::Ordering as Order;
use std::collections::{BinaryHeap, HashMap};
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use mio::{Events, Interest, Registry, Token, Waker};

use crate::sync::lock::{guarded, lock};
use crate::sync::{
    Instant, Mutex, Poll,
    atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
};
use crate::sys;
use buffer_cache::{BufferCache, Expiry};
use thread_pool::{DEFAULT_THREADS, ThreadPool, Work};

const WAKER: Token = Token(0);

/// Pause after which a thread is tried for again that the system has refused.
const RETRY_THREAD: Duration = Duration::from_millis(500);

/// A thread that waits for the descriptors of any number of connections, and the threads that run
/// their handlers.
///
/// This is a handle: cloning it is cheap. The thread ends when the last handle and the last
/// connection are gone.
#[derive(Clone)]
pub struct EventLoop {
    lifetime: Arc<Lifetime>,
}

/// Ends the thread when the last holder drops it.
struct Lifetime {
    shared: Arc<LoopShared>,
}

struct LoopShared {
    /// The selector. Taken out by the thread that waits with it.
    poll: Mutex<Option<Poll>>,
    /// True while `poll` is here, which means that no thread waits.
    is_unattended: AtomicBool,
    registry: Registry,
    waker: Waker,
    state: Mutex<LoopState>,
    stopping: AtomicBool,
    /// True while the thread waits, or is about to look at `state` for the last time before it
    /// waits.
    asleep: AtomicBool,
    next_token: AtomicUsize,
    handlers: Arc<ThreadPool>,
    call_backs: Arc<ThreadPool>,
    buffer_cache: BufferCache,
}

#[derive(Default)]
struct LoopState {
    sources: HashMap<Token, Arc<dyn Source>>,
    /// Sources that are ready though epoll does not say so: kinds of descriptors that epoll
    /// refuses, readers that let others have their turn, and writers with something left to write.
    ready: Vec<(Token, Ready)>,
    scheduled: BinaryHeap<Scheduled>,
}

impl LoopState {
    /// Returns true if there is anything to wait for or to do.
    fn is_waiting(&self) -> bool {
        !(self.sources.is_empty() && self.ready.is_empty() && self.scheduled.is_empty())
    }
}

/// Receiver of readiness. Called on the loop's thread.
pub(crate) trait Source: Send + Sync {
    fn ready(self: Arc<Self>, what: Ready);
}

/// Operations that a descriptor is ready for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ready {
    Readable,
    Writable,
    Both,
}

struct Scheduled {
    at: Instant,
    run: Box<dyn FnOnce() + Send>,
}

/// Registration of a descriptor in the loop.
pub(crate) struct Registration {
    events: EventLoop,
    pub(crate) token: Token,
    /// True if epoll watches the descriptor. One that epoll refuses is always ready.
    polled: bool,
}

impl EventLoop {
    /// Starts a loop with a thread of its own.
    ///
    /// If this process has closed its standard input, output or error, `/dev/null` is opened in its
    /// place first, so that no descriptor of the loop is taken for one of them.
    ///
    /// # Errors
    /// The system gives no epoll descriptor or no thread.
    pub fn new() -> io::Result<Self> {
        Self::with_handler_threads(DEFAULT_THREADS)
    }

    /// Starts a loop like [`EventLoop::new`], with at most `threads` threads (1 or more) for the
    /// handlers of all its connections.
    ///
    /// # Errors
    /// The system gives no epoll descriptor or no thread.
    pub fn with_handler_threads(threads: usize) -> io::Result<Self> {
        let events = Self::unattended(threads)?;
        events.attend()?;
        Ok(events)
    }

    /// Creates a loop that starts its thread once there is something to wait for, unless another
    /// thread runs [`serve_until`](EventLoop::serve_until) by then.
    ///
    /// # Errors
    /// The system gives no epoll descriptor.
    pub fn on_demand() -> io::Result<Self> {
        Self::unattended(DEFAULT_THREADS)
    }

    fn unattended(threads: usize) -> io::Result<Self> {
        // Before the first descriptor of our own, which would take the place of a closed one.
        sys::open_standard_descriptors()?;
        let poll = Poll::new()?;
        let shared = Arc::new(LoopShared {
            is_unattended: AtomicBool::new(true),
            registry: poll.registry().try_clone()?,
            waker: Waker::new(poll.registry(), WAKER)?,
            state: Mutex::default(),
            stopping: AtomicBool::new(false),
            asleep: AtomicBool::new(false),
            next_token: AtomicUsize::new(WAKER.0 + 1),
            handlers: ThreadPool::new(threads.max(1)),
            call_backs: ThreadPool::for_call_backs(),
            buffer_cache: BufferCache::default(),
            poll: Mutex::new(Some(poll)),
        });
        Ok(Self { lifetime: Arc::new(Lifetime { shared }) })
    }

    /// Makes the calling thread the loop's thread until `done` returns true. Returns at once if the
    /// loop has a thread already. Afterwards the loop starts another thread if there is still
    /// something to wait for.
    ///
    /// `done` is called each time that something happened. To have it called, schedule an
    /// [`after`](EventLoop::after) without delay.
    ///
    /// # Blocking
    /// Until `done` returns true.
    pub fn serve_until(&self, done: impl Fn() -> bool) {
        let Some(poll) = self.inner().take_poll() else { return };
        let poll = self.inner().run(poll, done);
        *lock(&self.inner().poll) = Some(poll);
        self.inner().is_unattended.store(true, Ordering::SeqCst);
        // A registration before the line above saw a thread, and started none.
        if lock(&self.inner().state).is_waiting() {
            self.attend_or_log();
        }
    }

    /// Starts the loop's thread if the loop has none.
    fn attend(&self) -> io::Result<()> {
        let is_unattended = &self.inner().is_unattended;
        // The swap decides which of several threads starts the loop's thread. The load before it
        // keeps the common case, a loop that has one, from writing to the shared cache line.
        if !is_unattended.load(Ordering::SeqCst) || !is_unattended.swap(false, Ordering::SeqCst) {
            return Ok(());
        }
        let thread = Arc::clone(&self.lifetime.shared);
        let run = move || {
            // A thread in `serve_until` may have taken it in between.
            if let Some(poll) = thread.take_poll() {
                drop(thread.run(poll, || false));
            }
        };
        let spawned = thread::Builder::new().name("pipeplug-loop".into()).spawn(run);
        // The next registration tries again.
        spawned.inspect_err(|_| is_unattended.store(true, Ordering::SeqCst))?;
        Ok(())
    }

    fn attend_or_log(&self) {
        if let Err(error) = self.attend() {
            tracing::error!(%error, "the event loop has no thread");
        }
    }

    /// Returns the loop that the process shares where no other one was chosen.
    ///
    /// # Errors
    /// As for [`EventLoop::new`], at the first call.
    pub fn shared() -> io::Result<Self> {
        static SHARED: OnceLock<EventLoop> = OnceLock::new();
        if let Some(events) = SHARED.get() {
            return Ok(events.clone());
        }
        let events = Self::new()?;
        Ok(SHARED.get_or_init(|| events).clone())
    }

    /// Runs a function that may block, on a thread that no handler takes: there is always one more.
    #[doc(hidden)] // for pipeplug-host and pipeplug-guest: see internal.rs
    pub fn spawn(&self, run: impl FnOnce() + Send + 'static) {
        // The pool logs that the work has to wait for a thread.
        let _ = self.inner().call_backs.submit(Work::Once(Box::new(run)));
        self.retry_thread();
    }

    /// Tries again for a thread that the system refused. The work may be the end of a connection,
    /// which nothing else would report.
    fn retry_thread(&self) {
        if self.inner().call_backs.lacked_thread() {
            let lifetime = Arc::downgrade(&self.lifetime);
            self.after(RETRY_THREAD, move || {
                let Some(lifetime) = lifetime.upgrade() else { return };
                lifetime.shared.call_backs.try_again();
                Self { lifetime }.retry_thread();
            });
        }
    }

    /// Calls `run` on the loop's thread after `delay`. `run` must not block.
    pub fn after(&self, delay: Duration, run: impl FnOnce() + Send + 'static) {
        // A time that no `Instant` can hold never comes.
        let Some(at) = Instant::now().checked_add(delay) else { return };
        let scheduled = Scheduled { at, run: Box::new(run) };
        let mut state = lock(&self.inner().state);
        // A later one needs no wake-up: the thread wakes for the earliest, and computes its next
        // wait then.
        let is_earliest = state.scheduled.peek().is_none_or(|first| scheduled.at < first.at);
        state.scheduled.push(scheduled);
        drop(state);
        self.attend_or_log();
        if is_earliest {
            self.inner().wake();
        }
    }

    /// Keeps the memory of a large buffer that is no longer needed, for the next one.
    pub(crate) fn cache_buffer(&self, memory: Vec<u8>) {
        if self.inner().buffer_cache.keep(memory) == Expiry::Schedule {
            self.schedule_expiry();
        }
    }

    /// Returns cached memory that suits a buffer of `len` bytes, if there is any.
    pub(crate) fn take_buffer(&self, len: usize) -> Option<Vec<u8>> {
        self.inner().buffer_cache.take(len)
    }

    fn schedule_expiry(&self) {
        let lifetime = Arc::downgrade(&self.lifetime);
        self.after(buffer_cache::EXPIRY_INTERVAL, move || {
            let Some(lifetime) = lifetime.upgrade() else { return };
            if lifetime.shared.buffer_cache.expire() == Expiry::Schedule {
                Self { lifetime }.schedule_expiry();
            }
        });
    }

    /// The threads for handlers.
    pub(crate) fn handlers(&self) -> &Arc<ThreadPool> {
        &self.inner().handlers
    }

    /// Adds a descriptor. `source` is called when it is ready for `interest`.
    pub(crate) fn register(
        &self,
        fd: BorrowedFd<'_>,
        interest: Interest,
        source: Arc<dyn Source>,
    ) -> io::Result<Registration> {
        // Relaxed: it only has to be another number each time. It is never used twice, so that an
        // event that epoll reported before a descriptor was removed reaches no other source.
        let token = Token(self.inner().next_token.fetch_add(1, Ordering::Relaxed));
        // Before the registration: the loop may report the descriptor before `register` returns.
        lock(&self.inner().state).sources.insert(token, source);
        let registered =
            sys::register(&self.inner().registry, fd, token, interest).and_then(|polled| {
                if interest != sys::no_interest() {
                    self.attend()?;
                }
                Ok(polled)
            });
        match registered {
            Ok(polled) => {
                if !polled {
                    self.mark_ready(token, Ready::Both);
                }
                Ok(Registration { events: self.clone(), token, polled })
            }
            Err(e) => {
                lock(&self.inner().state).sources.remove(&token);
                Err(e)
            }
        }
    }

    /// Has the loop call a source soon, as if its descriptor were ready.
    pub(crate) fn mark_ready(&self, token: Token, what: Ready) {
        // Pushed before the wake-up, which the loop's thread answers by looking at the list.
        lock(&self.inner().state).ready.push((token, what));
        self.attend_or_log();
        self.inner().wake();
    }

    fn inner(&self) -> &LoopShared {
        &self.lifetime.shared
    }
}

impl std::fmt::Debug for EventLoop {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let sources = lock(&self.inner().state).sources.len();
        f.debug_struct("EventLoop").field("sources", &sources).finish()
    }
}

impl Drop for Lifetime {
    fn drop(&mut self) {
        // Before the wake-up. The thread sets `asleep` and looks at this flag then; here it is the
        // other way round, so that the thread sees the flag or is woken.
        self.shared.stopping.store(true, Ordering::SeqCst);
        self.shared.handlers.stop();
        self.shared.call_backs.stop();
        self.shared.wake();
    }
}

impl LoopShared {
    fn wake(&self) {
        // A thread that is awake looks at everything again before it sleeps.
        if self.asleep.swap(false, Ordering::SeqCst)
            && let Err(error) = self.waker.wake()
        {
            // An eventfd refuses only when its counter is full, and then the thread is awake
            // anyway.
            tracing::error!(%error, "the event loop cannot be woken");
        }
    }

    fn take_poll(&self) -> Option<Poll> {
        let mut place = lock(&self.poll);
        let poll = place.take();
        if poll.is_some() {
            self.is_unattended.store(false, Ordering::SeqCst);
        }
        poll
    }

    /// Waits and calls sources until `done` returns true or the loop is dropped.
    fn run(&self, mut poll: Poll, done: impl Fn() -> bool) -> Poll {
        let mut events = Events::with_capacity(256);
        let mut due = Vec::new();
        loop {
            // Set before the last look at what there is to do: a wake-up after that look writes to
            // the waker.
            self.asleep.store(true, Ordering::SeqCst);
            if self.stopping.load(Ordering::SeqCst) || done() {
                self.asleep.store(false, Ordering::SeqCst);
                return poll;
            }
            // `timeout` is the last look: it returns zero if a source was marked ready. What comes
            // after it finds `asleep` set and wakes the poll.
            let polled = poll.poll(&mut events, self.timeout());
            self.asleep.store(false, Ordering::SeqCst);
            if let Err(error) = polled {
                if error.kind() == io::ErrorKind::Interrupted {
                    continue;
                }
                // Otherwise epoll_wait(2) fails only for a wrong descriptor: nothing can be served
                // any more.
                tracing::error!(%error, "the event loop ends");
                return poll;
            }
            for event in &events {
                let readable = event.is_readable() || event.is_read_closed() || event.is_error();
                let writable = event.is_writable() || event.is_write_closed() || event.is_error();
                let what = match (readable, writable) {
                    (true, false) => Ready::Readable,
                    (false, true) => Ready::Writable,
                    (true, true) => Ready::Both,
                    (false, false) => continue,
                };
                self.call_source(event.token(), what);
            }
            // Not in the head of the `for`, which would hold the lock for the length of the loop.
            let ready = std::mem::take(&mut lock(&self.state).ready);
            for (token, what) in ready {
                self.call_source(token, what);
            }
            self.take_due(&mut due);
            due.drain(..).for_each(|run| guarded("a scheduled call-back", run));
        }
    }

    fn call_source(&self, token: Token, what: Ready) {
        // Not under the lock: a source registers descriptors and removes itself in this call.
        let source = lock(&self.state).sources.get(&token).cloned();
        if let Some(source) = source {
            source.ready(what);
        }
    }

    fn timeout(&self) -> Option<Duration> {
        let state = lock(&self.state);
        if !state.ready.is_empty() {
            return Some(Duration::ZERO);
        }
        state.scheduled.peek().map(|first| first.at.saturating_duration_since(Instant::now()))
    }

    fn take_due(&self, due: &mut Vec<Box<dyn FnOnce() + Send>>) {
        let mut state = lock(&self.state);
        if state.scheduled.is_empty() {
            return;
        }
        let now = Instant::now();
        while state.scheduled.peek().is_some_and(|first| first.at <= now) {
            due.extend(state.scheduled.pop().map(|first| first.run));
        }
    }
}

impl Registration {
    /// Watches for `interest`. Readiness that was reported before is reported again.
    pub(crate) fn arm(&self, fd: BorrowedFd<'_>, interest: Interest) -> io::Result<()> {
        if self.polled {
            sys::reregister(&self.events.inner().registry, fd, self.token, interest)?;
            self.events.attend()
        } else {
            self.events.mark_ready(self.token, Ready::Both);
            Ok(())
        }
    }

    /// Stops watching while another thread reads.
    pub(crate) fn disarm(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
        if self.polled {
            sys::reregister(&self.events.inner().registry, fd, self.token, sys::no_interest())
        } else {
            Ok(())
        }
    }

    /// Has the loop call the source soon, as if its descriptor were ready.
    pub(crate) fn mark_ready(&self, what: Ready) {
        self.events.mark_ready(self.token, what);
    }

    /// Removes the descriptor from the loop. It must still be open.
    pub(crate) fn remove(&self, fd: BorrowedFd<'_>) {
        if self.polled
            && let Err(error) = sys::deregister(&self.events.inner().registry, fd)
        {
            tracing::debug!(%error, "a descriptor was not registered any more");
        }
        let source = lock(&self.events.inner().state).sources.remove(&self.token);
        drop(source); // not under the lock: it may be the last holder of a connection
    }
}

impl PartialEq for Scheduled {
    fn eq(&self, other: &Self) -> bool {
        self.at == other.at
    }
}

impl Eq for Scheduled {}

impl PartialOrd for Scheduled {
    fn partial_cmp(&self, other: &Self) -> Option<Order> {
        Some(self.cmp(other))
    }
}

impl Ord for Scheduled {
    /// `BinaryHeap` returns the greatest element first, so the earliest time is the greatest.
    fn cmp(&self, other: &Self) -> Order {
        other.at.cmp(&self.at)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::mpsc;
    use std::thread;
    use std::time::Duration;

    use super::EventLoop;

    const LONG: Duration = Duration::from_secs(60);

    /// The thread that the loop is on, once it has come to it.
    fn thread_of(events: &EventLoop, after: Duration) -> mpsc::Receiver<thread::ThreadId> {
        let (tell, told) = mpsc::channel();
        // Perhaps no thread waits for it any more.
        events.after(after, move || tell.send(thread::current().id()).unwrap());
        told
    }

    #[test]
    fn a_loop_on_demand_has_the_thread_that_waits_in_it_and_then_another() {
        let events = EventLoop::on_demand().unwrap();
        let done = AtomicBool::new(false);
        let (serves, served) = mpsc::channel();
        let (on, later) = thread::scope(|scope| {
            let (events, done) = (&events, &done);
            let asking = scope.spawn(move || {
                served.recv_timeout(LONG).unwrap();
                let on = thread_of(events, Duration::ZERO).recv_timeout(LONG).unwrap();
                let later = thread_of(events, Duration::from_millis(50));
                done.store(true, Ordering::SeqCst);
                events.after(Duration::ZERO, || ());
                (on, later)
            });
            events.serve_until(|| {
                // Only the first time is waited for.
                let _ = serves.send(());
                done.load(Ordering::SeqCst)
            });
            asking.join().unwrap()
        });
        assert_eq!(on, thread::current().id());
        assert_ne!(later.recv_timeout(LONG).unwrap(), thread::current().id());
    }

    #[test]
    fn a_loop_on_demand_starts_a_thread_where_nobody_waits_in_it() {
        let events = EventLoop::on_demand().unwrap();
        let on = thread_of(&events, Duration::ZERO).recv_timeout(LONG).unwrap();
        assert_ne!(on, thread::current().id());
        events.serve_until(|| unreachable!("it has a thread"));
    }
}
