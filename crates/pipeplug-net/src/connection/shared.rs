//! What the two halves of a connection share, and its end.

use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use pipeplug_wire::{Calls, Direction, Header, OpenError, ThreadId, command};

use crate::connection::call::{CallError, NotifyError, Outcome, Slot};
use crate::connection::handler::Handler;
use crate::connection::read::Reader;
use crate::connection::read::last_look::Turns;
use crate::connection::read::leader::{Lead, Registered};
use crate::connection::read::yielding::Crowd;
use crate::connection::serve::Inbox;
use crate::connection::{Connection, Handle};
use crate::error::CloseReason;
use crate::event_loop::timers::Alarms;
use crate::event_loop::wake_pipe::Bell;
use crate::event_loop::{EventLoop, Ready, Source};
use crate::options::Options;
use crate::payload::Body;
use crate::postmortem::{self, ChunkHead, OpenCall, Postmortem};
use crate::protocol::deadline::Deadline;
use crate::sync::clock::coarse_now;
use crate::sync::lock::{lock, wait_until};
use crate::sync::{
    Condvar, Instant, Mutex,
    atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering},
};
use crate::writer::{Class, Outbox, Patience, Push, SendFault, Terms};

pub(crate) struct Core {
    pub(crate) options: Options,
    pub(crate) events: EventLoop,
    pub(crate) handler: Arc<dyn Handler>,
    /// What the owner holds; gone once the owner gave the connection up.
    pub(crate) handle: OnceLock<Weak<Handle>>,
    pub(crate) calls: Mutex<Calls<Arc<Slot>>>,
    pub(crate) inbox: Mutex<Inbox>,
    /// Whether one-ways have come that no call may be opened for; set under the lock of the inbox.
    pub(crate) is_overrun: AtomicBool,
    pub(crate) outbox: Outbox,
    /// Whether the peer is told of calls that are given up.
    pub(crate) tells_cancels: AtomicBool,
    /// Whether the peer has said what it knows, and contexts are not among it. Until then it may be about to: its first
    /// request can be read ahead of what its answer says being taken.
    pub(crate) ignores_contexts: AtomicBool,
    /// What is awaited with a deadline.
    pub(crate) alarms: Mutex<Alarms>,

    /// Who reads; see read/leader.rs.
    pub(crate) lead: AtomicU8,
    /// Whether the connection's own reader waits on `lead_is_free`.
    pub(crate) reader_is_out: AtomicBool,
    pub(crate) reader_waits: Mutex<()>,
    pub(crate) lead_is_free: Condvar,
    pub(crate) reader: Mutex<Reader>,
    /// How often somebody has read; see read/last_look.rs.
    pub(crate) turns: Turns,
    /// The reading descriptor's place in the loop, and the descriptor: held for the length of an epoll_ctl(2).
    pub(crate) registered: Mutex<Registered>,
    /// Threads that sleep until their call ends, and calls that are to wake a task.
    pub(crate) waiting: AtomicUsize,
    /// Those that do not sleep yet; see read/yielding.rs.
    pub(crate) crowd: Crowd,
    /// Wakes the thread that reads, if it is not the loop's.
    pub(crate) bell: Mutex<Option<Arc<Bell>>>,

    /// Why the connection is to end; whoever reads ends it.
    pub(crate) ending: Mutex<Option<Arc<CloseReason>>>,
    pub(crate) is_ending: AtomicBool,
    /// The peer is gone for this reason, unless a better one comes in time; see [`Options::reason_patience`].
    pub(crate) lost: Mutex<Option<Arc<CloseReason>>>,
    /// Why nothing is read any more.
    pub(crate) ended: OnceLock<Arc<CloseReason>>,
    opened: Duration,
    /// The headers of the last chunks that came, once no more come.
    pub(crate) received: OnceLock<Vec<ChunkHead>>,
    postmortem: OnceLock<Arc<Postmortem>>,
    finished: Mutex<Finish>,
    /// Whether somebody ever waited for it to be idle.
    is_awaited: AtomicBool,
    finished_changed: Condvar,
    pub(crate) counters: Counters,
    /// Whether the peer has said stop.
    pub(crate) is_stopped: AtomicBool,
}

/// How far the end has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Finish {
    No,
    /// `Handler::closed` is on its way.
    Telling,
    Done,
}

/// What the peer did that is logged.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) skipped: Count,
    pub(crate) unexpected: Count,
    /// One-ways whose handler failed.
    pub(crate) failed: Count,
    /// Times that more came than the window that was agreed on.
    pub(crate) exceeded: Count,
}

/// How often something happened that a peer may do as often as it likes.
#[derive(Debug, Default)]
pub(crate) struct Count(AtomicU64);

impl Count {
    /// Once more; gives the number where it is to be logged: a peer must not fill the host's log.
    pub(crate) fn count(&self) -> Option<u64> {
        Some(self.0.fetch_add(1, Ordering::Relaxed) + 1).filter(|times| times.is_power_of_two())
    }

    pub(crate) fn total(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Core {
    pub(crate) fn new(
        events: EventLoop,
        reader: Reader,
        outbox: Outbox,
        options: Options,
        handler: Arc<dyn Handler>,
    ) -> Arc<Self> {
        Arc::new(Self {
            events,
            handler,
            handle: OnceLock::new(),
            calls: Mutex::new(Calls::new(options.calls)),
            inbox: Mutex::new(Inbox::new(&options)),
            is_overrun: AtomicBool::new(false),
            outbox,
            tells_cancels: AtomicBool::new(false),
            ignores_contexts: AtomicBool::new(false),
            alarms: Mutex::default(),
            lead: AtomicU8::new(Lead::Taken as u8),
            reader_is_out: AtomicBool::new(false),
            reader_waits: Mutex::new(()),
            lead_is_free: Condvar::new(),
            reader: Mutex::new(reader),
            turns: Turns::default(),
            registered: Mutex::new(None),
            waiting: AtomicUsize::new(0),
            crowd: Crowd::default(),
            bell: Mutex::new(None),
            ending: Mutex::new(None),
            is_ending: AtomicBool::new(false),
            lost: Mutex::new(None),
            ended: OnceLock::new(),
            opened: coarse_now(),
            received: OnceLock::new(),
            postmortem: OnceLock::new(),
            finished: Mutex::new(Finish::No),
            is_awaited: AtomicBool::new(false),
            finished_changed: Condvar::new(),
            counters: Counters::default(),
            is_stopped: AtomicBool::new(false),
            options,
        })
    }

    pub(crate) fn connection(&self) -> Option<Connection> {
        self.handle.get().and_then(Weak::upgrade).map(Connection::from)
    }

    /// Sends a request whose reply will come to the slot.
    pub(crate) fn begin(
        self: &Arc<Self>,
        command: &str,
        body: Body<'_>,
        patience: Patience,
        deadline: Option<Deadline>,
        push: Push,
    ) -> Result<(ThreadId, Arc<Slot>), CallError> {
        let owned = || command.to_owned();
        if deadline.is_some_and(|deadline| deadline.is_over()) {
            return Err(CallError::NotSent { command: owned(), after: Duration::ZERO, credit: None });
        }
        let slot = Slot::new(command, deadline.map(|deadline| deadline.at));
        if let Some(held) = self.overrun_by_now() {
            return Err(CallError::Overrun { command: owned(), held, limit: self.options.overrun });
        }
        let id = match lock(&self.calls).open(Arc::clone(&slot)) {
            Ok(id) => id,
            Err(OpenError::TooMany { limit, .. }) => {
                return Err(CallError::TooManyCalls { command: owned(), limit });
            }
            Err(OpenError::Closed { .. }) => {
                return Err(self.closed(owned()));
            }
        };
        // A reader that paused with no call open looks at the calls after it said so, and this looks after the call
        // is open: one of the two sees the other.
        self.resume_reading();
        let header =
            Header { thread_id: id, direction: Direction::Request, command, buffer_len: body.0.len() as u64 };
        let terms = Terms { patience, deadline: deadline.map(|deadline| deadline.at) };
        let class =
            if command::is_reserved(command) { Class::Unweighed(terms) } else { Class::HeldBack(terms) };
        match self.outbox.send(class, &header, body.0, push, self) {
            Ok(()) => Ok((id, slot)),
            // It fails with the others, and with their reason, once the owner has said why the peer is gone.
            Err(SendFault::Fatal(reason)) if !self.options.reason_patience.is_zero() => {
                self.end_after_reading(reason);
                Ok((id, slot))
            }
            Err(fault) => {
                lock(&self.calls).cancel(id);
                Err(match fault {
                    SendFault::Encode(error) => CallError::Encode { command: owned(), error },
                    SendFault::WouldBlock => CallError::WouldBlock { command: owned() },
                    SendFault::Late(credit) => {
                        let after = deadline.map_or(Duration::ZERO, |deadline| deadline.within);
                        CallError::NotSent { command: owned(), after, credit }
                    }
                    SendFault::Closed(reason) => {
                        let (reason, postmortem) = (self.reason_or(reason), self.postmortem());
                        CallError::Closed { command: owned(), reason, postmortem }
                    }
                    SendFault::Fatal(reason) => {
                        self.end_after_reading(reason);
                        self.closed(owned())
                    }
                })
            }
        }
    }

    /// Sends a one-way.
    pub(crate) fn notify(self: &Arc<Self>, command: &str, body: Body<'_>) -> Result<(), NotifyError> {
        let class = if command::is_reserved(command) { Class::Control } else { Class::HeldBack(Terms::WAIT) };
        let header = Header {
            thread_id: ThreadId::new(0),
            direction: Direction::OneWay,
            command,
            buffer_len: body.0.len() as u64,
        };
        self.outbox.send(class, &header, body.0, Push::Soon, self).map_err(|fault| {
            let command = command.to_owned();
            match fault {
                SendFault::Encode(error) => NotifyError::Encode { command, error },
                SendFault::Closed(reason) => {
                    let (reason, postmortem) = (self.reason_or(reason), self.postmortem());
                    NotifyError::Closed { command, reason, postmortem }
                }
                SendFault::WouldBlock | SendFault::Late(_) => unreachable!("a one-way waits for room"),
                SendFault::Fatal(reason) => {
                    self.end_after_reading(reason);
                    // The owner may be about to say why the peer is gone.
                    let known = self.wait_ended(Instant::now().checked_add(self.options.reason_patience));
                    let reason = known.unwrap_or_else(|| self.close_reason());
                    NotifyError::Closed { command, reason, postmortem: self.postmortem() }
                }
            }
        })
    }

    /// Sends a handler's answer; where the connection has ended, nobody waits for it.
    pub(crate) fn respond(self: &Arc<Self>, id: ThreadId, command: &str, body: Vec<u8>, push: Push) {
        self.send_answer(Class::Reply, id, Direction::Response, command, body, push);
    }

    /// Sends what nobody waits for room with: the thread that reads calls this.
    pub(crate) fn send_control(
        self: &Arc<Self>,
        id: ThreadId,
        direction: Direction,
        command: &str,
        body: Vec<u8>,
    ) {
        self.send_answer(Class::Control, id, direction, command, body, Push::Now);
    }

    /// Tells the peer that nobody waits for the answer to this request any more, if it wants to know.
    fn send_cancel(self: &Arc<Self>, id: ThreadId) {
        if self.tells_cancels.load(Ordering::Relaxed) {
            let body = Vec::new();
            self.send_answer(Class::Control, id, Direction::OneWay, command::CANCEL, body, Push::Soon);
        }
    }

    pub(crate) fn send_credit(self: &Arc<Self>, total: u64) {
        let body = total.to_string().into_bytes();
        self.send_control(ThreadId::new(0), Direction::OneWay, command::CREDIT, body);
    }

    fn send_answer(
        self: &Arc<Self>,
        class: Class,
        thread_id: ThreadId,
        direction: Direction,
        command: &str,
        body: Vec<u8>,
        push: Push,
    ) {
        let header = Header { thread_id, direction, command, buffer_len: body.len() as u64 };
        match self.outbox.send(class, &header, body.into(), push, self) {
            Ok(()) | Err(SendFault::Closed(_)) => {}
            Err(SendFault::Fatal(reason)) => self.end_after_reading(reason),
            Err(fault @ (SendFault::Encode(_) | SendFault::WouldBlock | SendFault::Late(_))) => {
                // The command of an answer is one that was received, or our own: it can be encoded; and answers wait.
                tracing::error!(peer = %self.options.name, ?fault, "an answer could not be sent");
            }
        }
    }

    /// Has the loop's thread write what waits, soon.
    pub(crate) fn flush_on_loop(self: &Arc<Self>) {
        if let Some((registration, _)) = &*lock(&self.registered) {
            return registration.mark_ready(Ready::Writable);
        }
        self.flush();
    }

    /// Writes what was left for later.
    pub(crate) fn flush(self: &Arc<Self>) {
        if let Err(reason) = self.outbox.flush(self) {
            self.end_after_reading(reason);
        }
    }

    /// Nobody waits for this call any more.
    pub(crate) fn forget(self: &Arc<Self>, id: ThreadId) {
        let slot = lock(&self.calls).cancel(id); // outside of the lock from here on: it may hold somebody's waker
        if slot.is_some() {
            self.send_cancel(id);
        }
    }

    /// Every open call fails, since reading on would hold more than the limit.
    pub(crate) fn give_up_calls(self: &Arc<Self>, held: usize, limit: usize) {
        let open: Vec<_> = {
            let mut calls = lock(&self.calls);
            let ids: Vec<_> = calls.iter().map(|(id, _)| id).collect();
            ids.into_iter().filter_map(|id| Some((id, calls.cancel(id)?))).collect()
        };
        if open.is_empty() {
            return;
        }
        tracing::warn!(peer = %self.options.name, held, limit, calls = open.len(),
            "calls are given up: too many one-ways wait for handlers");
        for (id, slot) in open {
            slot.complete(Outcome::Overrun { held, limit });
            self.send_cancel(id);
        }
    }

    fn closed(&self, command: String) -> CallError {
        CallError::Closed { command, reason: self.close_reason(), postmortem: self.postmortem() }
    }

    /// What was going on when it ended; empty while it has not.
    pub(crate) fn postmortem(&self) -> Arc<Postmortem> {
        self.postmortem.get().cloned().unwrap_or_default()
    }

    fn examine(&self) -> Postmortem {
        let now = coarse_now();
        let calls = lock(&self.calls);
        let mut open: Vec<_> = calls.iter().map(|(id, slot)| (id, Arc::clone(slot))).collect();
        drop(calls);
        let open_count = open.len();
        if open_count > postmortem::CALLS {
            open.select_nth_unstable_by_key(postmortem::CALLS, |(id, _)| *id);
            open.truncate(postmortem::CALLS);
        }
        open.sort_unstable_by_key(|(id, _)| *id);
        let open_calls = open.into_iter().map(|(thread_id, slot)| OpenCall {
            thread_id,
            command: slot.command.to_string(),
            age: now.saturating_sub(slot.begun),
        });
        let explain = std::panic::AssertUnwindSafe(|| self.handler.explain());
        Postmortem {
            lasted: now.saturating_sub(self.opened),
            open_calls: open_calls.collect(),
            open_count,
            received: self.received.get().cloned().unwrap_or_default(),
            sent: self.outbox.recent(),
            owner: std::panic::catch_unwind(explain).unwrap_or_default(),
        }
    }

    /// Why it ended, or is about to.
    pub(crate) fn close_reason(&self) -> Arc<CloseReason> {
        let ended = self.ended.get().cloned().or_else(|| lock(&self.ending).clone());
        ended.unwrap_or_else(|| Arc::new(CloseReason::Local))
    }

    /// The reason for which the connection ended, which says more than that this side closed its writer after it.
    fn reason_or(&self, reason: Arc<CloseReason>) -> Arc<CloseReason> {
        self.ended.get().cloned().unwrap_or(reason)
    }

    /// Accepts no further calls; what waits is still written, and then the peer sees its end of file.
    pub(crate) fn close(self: &Arc<Self>) {
        if let Err(reason) = self.outbox.close_after_flush(self) {
            self.end_after_reading(reason);
        }
    }

    /// Nothing is read any more, for `reason`: called by whoever reads.
    pub(crate) fn reading_ended(self: &Arc<Self>, reason: Arc<CloseReason>) {
        // Ahead of the line below, behind which calls fail with it.
        let postmortem = Arc::new(self.examine());
        // Counted as an answer to come, so that `closed` is told after `ended`: ahead of the lines below, behind which a
        // handler that returns may be the last one.
        self.defer();
        let postmortem = Arc::clone(self.postmortem.get_or_init(|| postmortem));
        let reason = Arc::clone(self.ended.get_or_init(|| reason));
        // Behind the line above: whoever fails to write leaves its reason first, and then looks whether all has ended.
        let flush = matches!(*reason, CloseReason::EndOfFile) && lock(&self.ending).is_none();
        tracing::debug!(peer = %self.options.name, %reason, "the connection has ended");
        drop(lock(&self.finished)); // whoever looked ahead of the line above sleeps by now, and is woken
        self.finished_changed.notify_all();
        if flush {
            self.outbox.reading_ended(&reason);
        } else {
            self.outbox.end(&reason);
        }
        let open = lock(&self.calls).close();
        for (_, slot) in open {
            slot.complete(Outcome::Closed(Arc::clone(&reason), Arc::clone(&postmortem)));
        }
        self.cancel_all();
        let core = Arc::clone(self);
        self.once(move || {
            let done = Undefer(core);
            done.0.handler.ended(&reason);
        });
    }

    /// Waits until no request or one-way waits or is being handled.
    pub(crate) fn wait_idle(&self, deadline: Option<Instant>) -> bool {
        let mut finished = lock(&self.finished);
        self.is_awaited.store(true, Ordering::SeqCst);
        while !self.is_idle() {
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                return false;
            }
            finished = wait_until(&self.finished_changed, finished, deadline);
        }
        true
    }

    /// Tells [`Core::wait_idle`] to look again.
    pub(crate) fn idle_may_have_changed(&self) {
        if self.is_awaited.load(Ordering::SeqCst) {
            drop(lock(&self.finished));
            self.finished_changed.notify_all();
        }
    }

    /// Once nothing is read and no handler runs any more: writes the rest and tells the handler.
    pub(crate) fn finish_if_idle(self: &Arc<Self>) {
        self.idle_may_have_changed();
        let Some(reason) = self.ended.get() else { return };
        if !self.is_idle() {
            return;
        }
        {
            let mut finished = lock(&self.finished);
            if *finished != Finish::No {
                return;
            }
            *finished = Finish::Telling;
        }
        if let Err(error) = self.outbox.close_after_flush(self) {
            let error = Arc::new(error);
            tracing::debug!(peer = %self.options.name, %error, "the last answers could not be written");
            self.outbox.end(&error);
        }
        let core = Arc::clone(self);
        let reason = Arc::clone(reason);
        self.once(move || {
            // A panic in here must not leave others waiting.
            let told = Told(Arc::clone(&core));
            core.handler.closed(&reason, core.connection().as_ref());
            drop(told);
        });
    }

    /// Waits until nothing is read any more.
    pub(crate) fn wait_ended(&self, deadline: Option<Instant>) -> Option<Arc<CloseReason>> {
        let mut finished = lock(&self.finished);
        loop {
            if let Some(reason) = self.ended.get() {
                return Some(Arc::clone(reason));
            }
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                return None;
            }
            finished = wait_until(&self.finished_changed, finished, deadline);
        }
    }

    /// Waits until the connection has ended and every handler has returned.
    pub(crate) fn wait_finished(&self, deadline: Option<Instant>) -> Option<Arc<CloseReason>> {
        let mut finished = lock(&self.finished);
        while *finished != Finish::Done {
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                return None;
            }
            finished = wait_until(&self.finished_changed, finished, deadline);
        }
        self.ended.get().cloned()
    }
}

/// Marks the end when it is dropped.
struct Told(Arc<Core>);

impl Drop for Told {
    fn drop(&mut self) {
        *lock(&self.0.finished) = Finish::Done;
        self.0.finished_changed.notify_all();
    }
}

/// Counts an answer to come as given when it is dropped, whatever panicked.
pub(crate) struct Undefer(pub(crate) Arc<Core>);

impl Drop for Undefer {
    fn drop(&mut self) {
        self.0.deferred_done();
    }
}

impl Source for Core {
    fn ready(self: Arc<Self>, what: Ready) {
        if what != Ready::Writable {
            self.read_on_loop();
        }
        if what != Ready::Readable
            && let Err(reason) = self.outbox.writable(&self)
        {
            self.end_after_reading(reason);
        }
    }
}

impl std::fmt::Debug for Core {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Core").field("name", &self.options.name).finish_non_exhaustive()
    }
}
