//! One thread that waits for any number of descriptors.

pub(crate) mod buffer_cache;
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

use crate::connection::handler::Handler;
use crate::connection::{ConnectError, Connection, Endpoint};
use crate::event_loop::buffer_cache::Spent;
use crate::event_loop::thread_pool::{Pool, Work};
use crate::options::Options;
use crate::sync::lock::{guarded, lock};
use crate::sync::{
    Instant, Mutex, Poll,
    atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
};
use crate::sys;

const WAKER: Token = Token(0);

/// How long the system gets to have a thread to give again.
const AGAIN: Duration = Duration::from_millis(500);

/// A thread that waits for the descriptors of any number of connections, and the threads that run their handlers.
///
/// A handle: cloning it is cheap. The thread ends when the last handle and the last connection are gone.
#[derive(Clone)]
pub struct EventLoop {
    lifetime: Arc<Lifetime>,
}

/// Ends the thread when the last holder drops it.
struct Lifetime {
    shared: Arc<Shared>,
}

struct Shared {
    /// What a thread waits with; here while none does.
    poll: Mutex<Option<Poll>>,
    /// Whether `poll` is there.
    is_unattended: AtomicBool,
    registry: Registry,
    waker: Waker,
    state: Mutex<State>,
    stopping: AtomicBool,
    /// Whether the thread waits, or is about to look at `state` for the last time before it does.
    asleep: AtomicBool,
    next_token: AtomicUsize,
    pool: Arc<Pool>,
    aside: Arc<Pool>,
    spent: Spent,
}

#[derive(Default)]
struct State {
    sources: HashMap<Token, Arc<dyn Source>>,
    /// Sources that are ready without epoll's word: kinds that it refuses, readers that gave way to others, and what was
    /// left to be written here.
    ready: Vec<(Token, Ready)>,
    timers: BinaryHeap<Timer>,
}

impl State {
    /// Whether there is anything to wait for, or to do.
    fn is_waiting(&self) -> bool {
        !(self.sources.is_empty() && self.ready.is_empty() && self.timers.is_empty())
    }
}

/// What the thread tells when its descriptor is ready.
pub(crate) trait Source: Send + Sync {
    fn ready(self: Arc<Self>, what: Ready);
}

/// What a descriptor is ready for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ready {
    Readable,
    Writable,
    Both,
}

struct Timer {
    at: Instant,
    run: Box<dyn FnOnce() + Send>,
}

/// A descriptor's place in the loop.
pub(crate) struct Registration {
    events: EventLoop,
    pub(crate) token: Token,
    /// Whether epoll watches it; what epoll refuses is always ready.
    polled: bool,
}

impl EventLoop {
    /// Starts a loop with a thread of its own.
    ///
    /// Opens `/dev/null` first in place of a standard input, output or error that this process has closed: no descriptor of
    /// the loop is taken for one of them.
    ///
    /// # Errors
    /// Where the system gives no epoll descriptor or no thread.
    pub fn new() -> io::Result<Self> {
        Self::with_handler_threads(crate::event_loop::thread_pool::DEFAULT_THREADS)
    }

    /// As [`EventLoop::new`], with at most `threads` (1 or more) threads to run handlers of all connections.
    ///
    /// # Errors
    /// Where the system gives no epoll descriptor or no thread.
    pub fn with_handler_threads(threads: usize) -> io::Result<Self> {
        let events = Self::unattended(threads)?;
        events.attend()?;
        Ok(events)
    }

    /// A loop that starts its thread once there is something to wait for, unless another one is in
    /// [`serve_until`](EventLoop::serve_until) by then.
    ///
    /// # Errors
    /// Where the system gives no epoll descriptor.
    pub fn on_demand() -> io::Result<Self> {
        Self::unattended(crate::event_loop::thread_pool::DEFAULT_THREADS)
    }

    fn unattended(threads: usize) -> io::Result<Self> {
        // Ahead of the first descriptor of our own.
        sys::open_standard_descriptors()?;
        let poll = Poll::new()?;
        let shared = Arc::new(Shared {
            is_unattended: AtomicBool::new(true),
            registry: poll.registry().try_clone()?,
            waker: Waker::new(poll.registry(), WAKER)?,
            state: Mutex::default(),
            stopping: AtomicBool::new(false),
            asleep: AtomicBool::new(false),
            next_token: AtomicUsize::new(WAKER.0 + 1),
            pool: Pool::new(threads.max(1)),
            aside: Pool::aside(),
            spent: Spent::default(),
            poll: Mutex::new(Some(poll)),
        });
        Ok(Self { lifetime: Arc::new(Lifetime { shared }) })
    }

    /// Is the loop's thread until `done`, which is asked each time something happened; returns at once where the loop
    /// has a thread already. What is to be waited for behind that, another thread goes on with.
    ///
    /// `done` is asked anew once an [`after`](EventLoop::after) of no delay has come.
    ///
    /// # Blocking
    /// Until `done`.
    pub fn serve_until(&self, done: impl Fn() -> bool) {
        let Some(poll) = self.inner().take_poll() else { return };
        let poll = self.inner().run(poll, done);
        *lock(&self.inner().poll) = Some(poll);
        self.inner().is_unattended.store(true, Ordering::SeqCst);
        // Whoever came ahead of the line above saw a thread.
        if lock(&self.inner().state).is_waiting() {
            self.attend_or_say();
        }
    }

    /// Sees to it that a thread waits for what there is to wait for.
    fn attend(&self) -> io::Result<()> {
        let is_unattended = &self.inner().is_unattended;
        if !is_unattended.load(Ordering::SeqCst) || !is_unattended.swap(false, Ordering::SeqCst) {
            return Ok(());
        }
        let thread = Arc::clone(&self.lifetime.shared);
        let run = move || {
            // Whoever came into `serve_until` in between has it.
            if let Some(poll) = thread.take_poll() {
                drop(thread.run(poll, || false));
            }
        };
        let spawned = thread::Builder::new().name("pipeplug-loop".into()).spawn(run);
        // Where there was none to be had, whoever has the loop wait for something next tries again.
        spawned.inspect_err(|_| is_unattended.store(true, Ordering::SeqCst))?;
        Ok(())
    }

    fn attend_or_say(&self) {
        if let Err(error) = self.attend() {
            tracing::error!(%error, "the event loop has no thread");
        }
    }

    /// The loop that a process shares where nobody asks for another.
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

    /// Makes a connection of two descriptors: `reader` brings the peer's chunks, `writer` takes ours.
    ///
    /// # Errors
    /// Where a descriptor is closed, of the wrong direction, or cannot be watched.
    pub fn connect(
        &self,
        reader: Endpoint,
        writer: Endpoint,
        options: Options,
        handler: impl Handler,
    ) -> Result<Connection, ConnectError> {
        Connection::open(self.clone(), reader, writer, options, Arc::new(handler))
    }

    /// Runs something that may block, on a thread that handlers do not take: there is always one more.
    pub fn spawn(&self, run: impl FnOnce() + Send + 'static) {
        // That it has to wait for a thread is logged there.
        let _ = self.inner().aside.submit(Work::Once(Box::new(run)));
        self.see_to_a_thread();
    }

    /// Tries for a thread again where there was none to be had: it may be the end of a connection that waits for it, of
    /// which nobody else would be told.
    fn see_to_a_thread(&self) {
        if self.inner().aside.lacked_thread() {
            let lifetime = Arc::downgrade(&self.lifetime);
            self.after(AGAIN, move || {
                let Some(lifetime) = lifetime.upgrade() else { return };
                lifetime.shared.aside.try_again();
                Self { lifetime }.see_to_a_thread();
            });
        }
    }

    /// Calls `run` on the loop's thread after `delay`; `run` must not block.
    pub fn after(&self, delay: Duration, run: impl FnOnce() + Send + 'static) {
        // What is too far off to be named never comes.
        let Some(at) = Instant::now().checked_add(delay) else { return };
        let timer = Timer { at, run: Box::new(run) };
        let mut state = lock(&self.inner().state);
        let earliest = state.timers.peek().is_none_or(|first| timer.at < first.at);
        state.timers.push(timer);
        drop(state);
        self.attend_or_say();
        if earliest {
            self.wake();
        }
    }

    /// Keeps a large buffer's memory, which nobody needs any more, for the next one.
    pub(crate) fn keep_spent(&self, memory: Vec<u8>) {
        if self.inner().spent.keep(memory) == buffer_cache::Watch::Begin {
            self.watch_spent();
        }
    }

    /// Memory for a buffer of `len` bytes, where some is kept that suits.
    pub(crate) fn take_spent(&self, len: usize) -> Option<Vec<u8>> {
        self.inner().spent.take(len)
    }

    fn watch_spent(&self) {
        let lifetime = Arc::downgrade(&self.lifetime);
        self.after(buffer_cache::LOOK, move || {
            let Some(lifetime) = lifetime.upgrade() else { return };
            if lifetime.shared.spent.look() == buffer_cache::Watch::Begin {
                Self { lifetime }.watch_spent();
            }
        });
    }

    pub(crate) fn pool(&self) -> &Arc<Pool> {
        &self.inner().pool
    }

    pub(crate) fn register(
        &self,
        fd: BorrowedFd<'_>,
        interest: Interest,
        source: Arc<dyn Source>,
    ) -> io::Result<Registration> {
        let token = Token(self.inner().next_token.fetch_add(1, Ordering::Relaxed));
        lock(&self.inner().state).sources.insert(token, source);
        let registered = sys::register(&self.inner().registry, fd, token, interest).and_then(|polled| {
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

    pub(crate) fn mark_ready(&self, token: Token, what: Ready) {
        lock(&self.inner().state).ready.push((token, what));
        self.attend_or_say();
        self.wake();
    }

    fn inner(&self) -> &Shared {
        &self.lifetime.shared
    }

    fn wake(&self) {
        self.inner().wake();
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
        self.shared.stopping.store(true, Ordering::SeqCst);
        self.shared.pool.stop();
        self.shared.aside.stop();
        self.shared.wake();
    }
}

impl Shared {
    fn wake(&self) {
        // Who is awake looks at everything again before it sleeps.
        if self.asleep.swap(false, Ordering::SeqCst)
            && let Err(error) = self.waker.wake()
        {
            // An eventfd refuses only when its counter is full, and then the thread is awake anyway.
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

    /// Waits, and tells whom it concerns, until `done` or the end.
    fn run(&self, mut poll: Poll, done: impl Fn() -> bool) -> Poll {
        let mut events = Events::with_capacity(256);
        let mut due = Vec::new();
        loop {
            self.asleep.store(true, Ordering::SeqCst);
            if self.stopping.load(Ordering::SeqCst) || done() {
                self.asleep.store(false, Ordering::SeqCst);
                return poll;
            }
            let polled = poll.poll(&mut events, self.timeout());
            self.asleep.store(false, Ordering::SeqCst);
            if let Err(error) = polled {
                if error.kind() == io::ErrorKind::Interrupted {
                    continue;
                }
                // epoll_wait(2) fails otherwise only for a descriptor that is none: nothing can be served any more.
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
                self.tell(event.token(), what);
            }
            // Not in the head of the `for`, which would hold the lock for the length of the loop.
            let ready = std::mem::take(&mut lock(&self.state).ready);
            for (token, what) in ready {
                self.tell(token, what);
            }
            self.take_due(&mut due);
            due.drain(..).for_each(|run| guarded("a timer", run));
        }
    }

    fn tell(&self, token: Token, what: Ready) {
        // Not under the lock: a source registers and takes itself out from in here.
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
        state.timers.peek().map(|timer| timer.at.saturating_duration_since(Instant::now()))
    }

    fn take_due(&self, due: &mut Vec<Box<dyn FnOnce() + Send>>) {
        let mut state = lock(&self.state);
        if state.timers.is_empty() {
            return;
        }
        let now = Instant::now();
        while state.timers.peek().is_some_and(|timer| timer.at <= now) {
            due.extend(state.timers.pop().map(|timer| timer.run));
        }
    }
}

impl Registration {
    /// Watches for `interest`; what is ready already is reported again.
    pub(crate) fn arm(&self, fd: BorrowedFd<'_>, interest: Interest) -> io::Result<()> {
        if self.polled {
            sys::reregister(&self.events.inner().registry, fd, self.token, interest)?;
            self.events.attend()
        } else {
            self.events.mark_ready(self.token, Ready::Both);
            Ok(())
        }
    }

    /// Stops watching, for as long as another thread does the reading.
    pub(crate) fn disarm(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
        if self.polled {
            sys::reregister(&self.events.inner().registry, fd, self.token, sys::no_interest())
        } else {
            Ok(())
        }
    }

    /// Has the loop tell the source soon, as if its descriptor were ready.
    pub(crate) fn mark_ready(&self, what: Ready) {
        self.events.mark_ready(self.token, what);
    }

    /// Takes the descriptor out of the loop; it must not have been closed yet.
    pub(crate) fn remove(&self, fd: BorrowedFd<'_>) {
        if self.polled
            && let Err(error) = sys::deregister(&self.events.inner().registry, fd)
        {
            tracing::debug!(%error, "a descriptor was not registered any more");
        }
        let source = lock(&self.events.inner().state).sources.remove(&self.token);
        drop(source); // outside of the lock: it may be the last holder of a connection
    }
}

impl PartialEq for Timer {
    fn eq(&self, other: &Self) -> bool {
        self.at == other.at
    }
}

impl Eq for Timer {}

impl PartialOrd for Timer {
    fn partial_cmp(&self, other: &Self) -> Option<Order> {
        Some(self.cmp(other))
    }
}

impl Ord for Timer {
    /// The heap gives the greatest first; the earliest is to be the greatest.
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
        // Nobody may wait for it any more.
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
