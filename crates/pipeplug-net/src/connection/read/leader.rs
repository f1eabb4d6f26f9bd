//! Decides which thread reads a connection: the reader role.
//!
//! This is the Leader/Followers pattern (Schmidt, Stal, Rohnert and Buschmann, "Pattern-Oriented
//! Software Architecture", volume 2): one thread at a time, the leader, has the right to read. No
//! thread hands to another one what it can do itself:
//!
//! - A caller that waits for its reply while no other thread does becomes the leader and reads its
//!   own reply.
//! - On a connection with a dedicated reader ([`Reading::Dedicated`]) that thread is the leader,
//!   and runs the handlers too, one after the other. Nothing may wait for a handler, so the event
//!   loop watches meanwhile. Either epoll does (`EventLoop`), or, where one call follows the other
//!   and two epoll_ctl(2) each are worth saving, the role is `Vacant`, and a tick of the event loop
//!   takes it from a handler that has not returned.
//! - A caller that has more calls open, or has made a thousand calls in quick succession, is likely
//!   to wait for the next one soon. It leaves the role `Vacant` in the same way.
//! - Where several callers wait, each one reads in turn, and leaves the role `Vacant` for the next
//!   one (yielding.rs).
//! - In every other case the role belongs to the event loop, which waits in epoll.
//!
//! The leader runs no user code and waits for no other thread: it completes calls, and queues
//! requests and one-ways.
//!
//! ```text
//!             event, caller, reader                too much is queued, no call is open
//!   EventLoop ---------------------> Leader ------------------------------------> Suspended
//!       ^  <------------------------  |  |  <------------------------------------  |
//!       |       nothing to read       |  |                                         |
//!       |                             |  | end of file,      room again, or a call |
//!       |    handler blocks,          |  | error             was opened            |
//!       |    or is slow               v  v                                         |
//!       +-------------------------- Vacant  Ended                                  |
//!       +--------------------------------------------------------------------------+
//! ```

use std::cell::Cell;
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;

use mio::Interest;

use super::yielding::Yielding;
use super::{ReadOutcome, ReadSequence, ReadUntil, Reader, ReaderKind};
use crate::clock::has_passed;
use crate::connection::shared::Shared;
use crate::error::CloseReason;
use crate::event_loop::Registration;
use crate::event_loop::wake_pipe::WakePipe;
use crate::options::Reading;
use crate::sync::lock::{lock, wait_until};
use crate::sync::{
    Condvar, Instant, Mutex,
    atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering},
    thread, thread_local,
};
use crate::sys::{self, Stream};

/// A caller that is done frees the input buffer if it has used more than this many bytes of it.
/// Memory that was never touched costs nothing.
const KEPT: usize = 8 << 10;

/// Holder of the right to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum ReaderRole {
    /// The event loop, as soon as epoll reports something.
    EventLoop,
    /// A thread that reads, or sleeps until there is something to read.
    Leader,
    /// No thread: the dedicated reader runs a handler, or a caller is between two calls. Any thread
    /// may take the role.
    Vacant,
    /// No thread, until there is room in the serve queue.
    Suspended,
    Ended,
}

/// State of the reader role.
pub(crate) struct Leader {
    // All operations on the role, on `sleepers`, on `dedicated_waits` and on the number of yielding
    // callers are SeqCst, except for the hint in `is_only_caller`. Pairs of threads hand over by
    // "store mine, then look at yours" (for example: leave the role vacant, then look for sleepers,
    // against: count as a sleeper, then look at the role). Release and Acquire would let both
    // threads look before the other's store is visible.
    /// A [`ReaderRole`].
    role: AtomicU8,
    /// True while the dedicated reader waits on `role_is_free`.
    dedicated_waits: AtomicBool,
    dedicated_lock: Mutex<()>,
    role_is_free: Condvar,
    pub(crate) reader: Mutex<Reader>,
    /// Number of reads, for the last read before a deadline passes; see final_read.rs.
    pub(crate) reads: ReadSequence,
    /// Registration of the reading descriptor in the event loop, with the descriptor. Locked for
    /// the length of an epoll_ctl(2).
    registered: Mutex<Option<(Registration, Arc<Stream>)>>,
    /// Threads that sleep until their call ends, and calls that are to wake a task.
    sleepers: AtomicUsize,
    /// Callers that yield to each other instead of sleeping; see yielding.rs.
    pub(crate) yielding: Yielding,
    /// Wake pipe of the leader, if it is not the event loop.
    wake_pipe: Mutex<Option<Arc<WakePipe>>>,
}

thread_local! {
    /// On a dedicated reader that runs a handler and has left its role vacant: address of the
    /// [`Leader`]. The handler may wait for streams of other connections. Null otherwise.
    static LEFT_VACANT: Cell<*const Leader> = const { Cell::new(std::ptr::null()) };
    /// True on a thread that became the leader for a call that it is about to make.
    static IS_EARLY_LEADER: Cell<bool> = const { Cell::new(false) };
}

impl Leader {
    pub(crate) fn new(reader: Reader) -> Self {
        Self {
            role: AtomicU8::new(ReaderRole::Leader as u8),
            dedicated_waits: AtomicBool::new(false),
            dedicated_lock: Mutex::new(()),
            role_is_free: Condvar::new(),
            reader: Mutex::new(reader),
            reads: ReadSequence::default(),
            registered: Mutex::new(None),
            sleepers: AtomicUsize::new(0),
            yielding: Yielding::default(),
            wake_pipe: Mutex::new(None),
        }
    }

    /// Returns true if the role is held like this at the moment.
    pub(crate) fn is(&self, role: ReaderRole) -> bool {
        self.role.load(Ordering::SeqCst) == role as u8
    }

    /// Sets the role, which this thread holds.
    pub(crate) fn set(&self, role: ReaderRole) {
        self.role.store(role as u8, Ordering::SeqCst);
    }

    /// Makes this thread the leader if the role is held by `from`.
    pub(crate) fn take(&self, from: ReaderRole) -> bool {
        let (from, to) = (from as u8, ReaderRole::Leader as u8);
        self.role.compare_exchange(from, to, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }

    /// Makes this thread the leader in place of the event loop.
    pub(crate) fn take_from_event_loop(&self) -> bool {
        // Taken first, disarmed afterwards. In between epoll may report the pipe to the loop, whose
        // `read_on_loop` then finds the role taken and does nothing. The report is not lost: `arm`
        // has what is in the pipe reported again. A thread that returned the role just before may
        // arm the descriptor after this; the loop finds the role taken then, too.
        let took = self.take(ReaderRole::EventLoop);
        if took
            && let Some((registration, stream)) = &*lock(&self.registered)
            && let Err(error) = registration.disarm(stream.as_fd())
        {
            tracing::debug!(%error, "the loop goes on watching");
        }
        took
    }

    /// Leaves the role vacant while a handler runs on the dedicated reader.
    pub(crate) fn leave_for_handler(&self) {
        LEFT_VACANT.set(self);
        self.set(ReaderRole::Vacant);
    }

    /// Takes the role again after handlers. Returns false if another thread has taken it meanwhile.
    pub(crate) fn retake_after_handler(&self) -> bool {
        self.take_mark();
        self.take(ReaderRole::Vacant)
    }

    /// Clears the mark of this thread. Returns true if it has left this role vacant.
    fn take_mark(&self) -> bool {
        let is_marked = std::ptr::eq(LEFT_VACANT.get(), self);
        if is_marked {
            LEFT_VACANT.set(std::ptr::null());
        }
        is_marked
    }

    /// Returns true if no other caller waits, except for one that reads.
    pub(crate) fn is_only_caller(&self) -> bool {
        // Relaxed: a hint. If it is outdated, this thread sleeps or yields where it could have
        // read, or reads for a sleeper too. The role itself is decided by `take`, and where it is
        // left vacant sleepers are looked for in order (`leave_between_calls`).
        self.sleepers.load(Ordering::Relaxed) == 0 && self.yielding.is_empty()
    }

    /// Returns true if a thread sleeps that no yielding caller reads for.
    pub(crate) fn leaves_sleepers(&self) -> bool {
        self.sleepers.load(Ordering::SeqCst) > 0 && self.yielding.is_empty()
    }

    /// Notes that a sleeper, counted by [`Shared::sleep_begins`], has woken up.
    pub(crate) fn sleep_ends(&self) {
        self.sleepers.fetch_sub(1, Ordering::SeqCst);
    }

    #[cfg(all(test, shuttle))]
    pub(crate) fn sleepers(&self) -> usize {
        self.sleepers.load(Ordering::SeqCst)
    }

    /// Wakes the leader if it sleeps in poll(2).
    pub(crate) fn wake(&self) {
        // Under the lock under which the leader removes its wake pipe: no byte is written to a pipe
        // after its thread has cleared it, where it would wake the thread's next wait for nothing.
        if let Some(wake_pipe) = &*lock(&self.wake_pipe) {
            wake_pipe.wake();
        }
    }

    /// Gives the role up for good.
    pub(crate) fn end(&self) {
        self.set(ReaderRole::Ended);
        self.notify_dedicated();
    }

    fn set_event_loop(&self) {
        self.set(ReaderRole::EventLoop);
        self.notify_dedicated();
    }

    /// Removes the reading descriptor from the event loop.
    pub(crate) fn deregister(&self) {
        if let Some((registration, stream)) = lock(&self.registered).take() {
            registration.remove(stream.as_fd());
        }
    }

    /// The reading descriptor, until it has ended.
    pub(crate) fn stream(&self) -> Option<Arc<Stream>> {
        lock(&self.registered).as_ref().map(|(_, stream)| Arc::clone(stream))
    }

    /// Has the event loop call the connection soon, as if its descriptor were ready. Returns false
    /// if it is not registered any more.
    pub(crate) fn mark_ready(&self, what: crate::event_loop::Ready) -> bool {
        match &*lock(&self.registered) {
            Some((registration, _)) => {
                registration.mark_ready(what);
                true
            }
            None => false,
        }
    }

    /// Waits until the dedicated reader can take the role again. Returns false once the role has
    /// ended.
    fn wait_for_role(&self) -> bool {
        let mut guard = lock(&self.dedicated_lock);
        loop {
            // Set before the look at the role, which another thread stores before it looks at this
            // flag: one of the two sees the other.
            self.dedicated_waits.store(true, Ordering::SeqCst);
            if self.take_from_event_loop() {
                self.dedicated_waits.store(false, Ordering::SeqCst);
                return true;
            }
            if self.is(ReaderRole::Ended) {
                return false;
            }
            guard = wait_until(&self.role_is_free, guard, None);
        }
    }

    fn notify_dedicated(&self) {
        if self.dedicated_waits.load(Ordering::SeqCst) {
            // With the lock taken once, the dedicated reader either sleeps by now or has not looked
            // yet.
            drop(lock(&self.dedicated_lock));
            self.role_is_free.notify_one();
        }
    }
}

/// Returns true if this thread became the leader for the call that it is about to make.
pub(crate) fn is_early_leader() -> bool {
    IS_EARLY_LEADER.get()
}

impl Shared {
    /// Begins to read.
    pub(crate) fn start_reading(self: &Arc<Self>) -> io::Result<()> {
        let Some(stream) = lock(&self.leader.reader).stream.clone() else { return Ok(()) };
        let is_dedicated = self.options.reading == Reading::Dedicated;
        let interest = if is_dedicated { sys::no_interest() } else { Interest::READABLE };
        let registration =
            self.events.register(stream.as_fd(), interest, Arc::<Self>::clone(self))?;
        *lock(&self.leader.registered) = Some((registration, stream));
        if is_dedicated {
            let shared = Arc::clone(self);
            let name = "pipeplug-reader".into();
            match thread::Builder::new().name(name).spawn(move || shared.run_dedicated_reader()) {
                Ok(_) => return Ok(()),
                Err(error) => tracing::warn!(%error, "no dedicated reader: the event loop reads"),
            }
        }
        self.return_role_to_loop();
        Ok(())
    }

    /// Reads on the event loop's thread: the pipe is readable.
    pub(crate) fn read_on_loop(self: &Arc<Self>) {
        // epoll reports an edge once. It is spent here if another thread reads, and comes again
        // when that thread arms the descriptor.
        if !self.leader.take(ReaderRole::EventLoop) {
            return;
        }
        let mut reader = lock(&self.leader.reader);
        let outcome = self.read(&mut reader, ReadUntil::Empty, ReaderKind::Other);
        if matches!(outcome, ReadOutcome::Nothing | ReadOutcome::Drained) {
            reader.receiver.release();
        }
        // Before the role is given on: the next leader locks the reader first of all.
        drop(reader);
        match outcome {
            ReadOutcome::Ended | ReadOutcome::Suspended => {}
            ReadOutcome::Unfinished => self.return_role_to_loop(),
            ReadOutcome::Nothing | ReadOutcome::Drained => {
                // No epoll_ctl(2): the registration is still armed, and epoll reports what comes
                // after the last read.
                self.leader.set_event_loop();
                self.end_if_asked();
            }
        }
    }

    /// Makes a caller that is about to send its request the leader, if no other thread reads or
    /// waits for a call.
    ///
    /// After the request the reply might wake the event loop before this thread takes the role.
    pub(crate) fn lead_early(self: &Arc<Self>) {
        // This thread gives the role back on every way out of the call: in `lead_until_done`, or in
        // `end_early_lead` where the request is not sent, has to wait, or is done already.
        if self.leader.is_only_caller() && self.take_role_to_call() {
            IS_EARLY_LEADER.set(true);
        }
    }

    /// Returns the role that [`lead_early`](Shared::lead_early) took: the caller has to wait for
    /// room first, and a thread has to read for that.
    pub(crate) fn end_early_lead(self: &Arc<Self>) {
        if IS_EARLY_LEADER.take() {
            self.return_role_to_loop();
            // Others left chunks for the leader to write.
            self.flush();
        }
    }

    /// Makes this thread the leader again if it is a dedicated reader that runs a handler and has
    /// left its role vacant. The handler is about to wait with
    /// [`lead_until_done`](Shared::lead_until_done). Returns true if the thread is the leader.
    pub(crate) fn lead_from_handler(&self) -> bool {
        let is_leader = self.leader.take_mark() && self.leader.take(ReaderRole::Vacant);
        if is_leader {
            IS_EARLY_LEADER.set(true);
        }
        is_leader
    }

    /// Leaves the role vacant again for the rest of a handler.
    fn leave_to_handler(self: &Arc<Self>) {
        self.watch_vacancy_of(|leader| leader.leave_for_handler());
        if self.close.is_ending() {
            self.return_role_of_handler();
        }
    }

    /// Reads for a caller until `is_done`, if it is the leader or can become it: if no other thread
    /// reads or waits for a call.
    pub(crate) fn lead_until_done(
        self: &Arc<Self>,
        is_done: impl Fn() -> bool,
        deadline: Option<Instant>,
        is_handler: bool,
    ) {
        let is_leader =
            IS_EARLY_LEADER.take() || (self.leader.is_only_caller() && self.take_role_to_call());
        if !is_leader {
            return;
        }
        // After taking the role: until then others left their chunks for this thread to write.
        self.flush();
        let Ok(wake_pipe) = WakePipe::of_this_thread() else {
            return self.return_role_to_loop(); // no descriptor is left: the event loop reads
        };
        let mut reader = lock(&self.leader.reader);
        *lock(&self.leader.wake_pipe) = Some(Arc::clone(&wake_pipe));
        let mut outcome = ReadOutcome::Nothing;
        // The conditions are checked after the wake pipe was set: what happened before wrote to no
        // wake pipe.
        while !(matches!(outcome, ReadOutcome::Ended | ReadOutcome::Suspended)
            || is_done()
            || self.close.is_ending()
            // Checked each time: a peer that sends without a pause would have this thread read for
            // ever.
            || deadline.is_some_and(has_passed))
        {
            outcome = self.read_next(&mut reader, ReaderKind::Other, &wake_pipe, deadline, outcome);
            // A cancel of another call wakes this thread too. Before the conditions are looked at:
            // what comes after this look wakes it again.
            wake_pipe.clear_if_woken();
        }
        if !matches!(outcome, ReadOutcome::Ended | ReadOutcome::Suspended)
            && deadline.is_some()
            && !is_done()
        {
            outcome = self.read(&mut reader, ReadUntil::Empty, ReaderKind::Other); // see final_read.rs
        }
        // In this order: after the first line no thread writes to the pipe any more, so that the
        // second one leaves it empty for this thread's next connection.
        *lock(&self.leader.wake_pipe) = None;
        wake_pipe.clear();
        // Looked at while the role is still held. A call that another thread opens after this look
        // finds the role vacant or with the loop, and reads by itself or has the loop read.
        let has_more = !lock(&self.calls).is_empty();
        if !has_more && reader.receiver.input().len() > KEPT {
            reader.receiver.release();
        }
        drop(reader);
        if matches!(outcome, ReadOutcome::Ended | ReadOutcome::Suspended) {
            return;
        }
        if self.options.reading == Reading::Shared && (has_more || self.calls_often()) {
            self.leave_between_calls();
        } else if is_handler {
            self.leave_to_handler();
        } else {
            self.return_role_to_loop();
        }
    }

    /// Leaves the role vacant: a caller with further calls open, or after many in quick succession,
    /// is likely to wait for a call again soon. Until then no thread reads, unless one needs the
    /// role, or the tick of the event loop finds that nothing comes of it.
    pub(crate) fn leave_between_calls(self: &Arc<Self>) {
        self.leader.set(ReaderRole::Vacant);
        // After the store. A thread that goes to sleep counts itself first and looks for a vacant
        // role then (`sleep_begins`): one of the two sees the other. The same holds for a thread
        // that ends the connection: it sets `is_ending` first and tries to take the role then.
        if self.leader.leaves_sleepers() || self.close.is_ending() {
            self.return_vacant_role();
        } else {
            self.watch_vacancy();
        }
    }

    /// Notes that this thread is about to sleep until another one has read its reply, or that a
    /// task does so.
    pub(crate) fn sleep_begins(self: &Arc<Self>) {
        self.leader.sleepers.fetch_add(1, Ordering::SeqCst);
        // A yielding caller reads meanwhile, and the last one looks for sleepers when it leaves.
        // After the count; see `leave_between_calls`. This thread's own reply may have been read
        // meanwhile: that shows in its slot, whose state the sleep looks at under the slot's lock.
        if self.is_between_calls() && self.leader.yielding.is_empty() {
            self.return_vacant_role();
        }
    }

    /// Makes this thread, which waits for a call, the leader if no thread reads.
    pub(crate) fn take_role_to_call(self: &Arc<Self>) -> bool {
        // A vacant role of a dedicated reader is not taken here. That thread takes it back when its
        // handler returns, and the tick of the event loop returns it if the handler is slow.
        (self.options.reading == Reading::Shared && self.leader.take(ReaderRole::Vacant))
            || self.leader.take_from_event_loop()
    }

    /// Runs the dedicated reader: reads and runs handlers until the connection ends.
    fn run_dedicated_reader(self: &Arc<Self>) {
        let Ok(wake_pipe) = WakePipe::of_this_thread() else {
            return self.return_role_to_loop(); // no descriptor is left: the event loop reads
        };
        let mut outcome = ReadOutcome::Nothing;
        loop {
            let mut reader = lock(&self.leader.reader);
            *lock(&self.leader.wake_pipe) = Some(Arc::clone(&wake_pipe));
            // Checked after the wake pipe was set, as in `lead_until_done`: an end that is asked
            // for after this look wakes the poll(2) below.
            while !self.close.is_ending() {
                outcome =
                    self.read_next(&mut reader, ReaderKind::Dedicated, &wake_pipe, None, outcome);
                wake_pipe.clear_if_woken(); // as in `lead_until_done`
                if matches!(outcome, ReadOutcome::Ended | ReadOutcome::Suspended) || self.has_jobs()
                {
                    break;
                }
            }
            *lock(&self.leader.wake_pipe) = None;
            wake_pipe.clear();
            drop(reader);
            let mut is_leader = !matches!(outcome, ReadOutcome::Ended | ReadOutcome::Suspended);
            // The thread that asked for the end found the role taken. `return_role_to_loop` looks
            // for the end after it has given the role up, and makes it.
            if is_leader && self.close.is_ending() {
                is_leader = false;
                self.return_role_to_loop();
            }
            is_leader = self.serve_on_reader(is_leader);
            if !is_leader {
                if !self.leader.wait_for_role() {
                    return;
                }
                outcome = ReadOutcome::Nothing;
            }
        }
    }

    /// Returns a vacant role to the event loop if this handler's thread has left it: the handler is
    /// about to wait.
    pub(crate) fn return_role_of_handler(self: &Arc<Self>) {
        // The mark of this thread tells its own vacancy from that of another one, and makes it one
        // return for each vacancy, however often the handler waits. Another thread may have taken
        // the role before: `return_vacant_role` does nothing then.
        if self.leader.take_mark() {
            self.return_vacant_role();
        }
    }

    /// Returns a vacant role to the event loop, which reads from now on.
    pub(crate) fn return_vacant_role(self: &Arc<Self>) {
        if self.leader.take(ReaderRole::Vacant) {
            self.return_role_to_loop();
        }
        // Responses of earlier handlers may have been left for the end of their batch.
        self.flush();
    }

    /// Returns true if a caller has left the role vacant because it is likely to wait for another
    /// call soon.
    pub(crate) fn is_between_calls(&self) -> bool {
        self.options.reading == Reading::Shared && self.leader.is(ReaderRole::Vacant)
    }

    /// Reads on if reading was suspended: there is room again, or a call was opened.
    pub(crate) fn resume_reading(self: &Arc<Self>) {
        // The load first: reading is hardly ever suspended, and a failed exchange would take the
        // cache line from the leader's CPU.
        if self.leader.is(ReaderRole::Suspended)
            && self.leader.take(ReaderRole::Suspended)
            // Another thread may have resumed in between, and the queue may be full again.
            && !(self.is_overfull() && self.suspend())
        {
            self.return_role_to_loop();
        }
    }

    /// Gives the role, which this thread holds, to the event loop.
    pub(crate) fn return_role_to_loop(self: &Arc<Self>) {
        self.leader.set_event_loop();
        // After the store: the event loop may be called within this epoll_ctl(2), and takes the
        // role then. If another thread took it in between, the call of the event loop does nothing.
        self.arm();
        self.end_if_asked();
    }

    fn arm(self: &Arc<Self>) {
        let registered = lock(&self.leader.registered);
        if let Some((registration, stream)) = &*registered
            && let Err(error) = registration.arm(stream.as_fd(), Interest::READABLE)
        {
            drop(registered);
            self.end_after_reading(CloseReason::ReadFailed(error));
        }
    }
}
