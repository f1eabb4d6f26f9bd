//! Who reads.
//!
//! One thread at a time has the lead: the right to read. Nobody hands over to another thread what it can do itself:
//!
//! - A caller that waits for its reply while no other thread does takes the lead and reads its own reply.
//! - On a connection with a reader of its own ([`Reading::Dedicated`]) that thread has the lead and runs the handlers
//!   too, one after the other. So that nobody waits for a handler, the loop watches meanwhile: either epoll does
//!   (`Armed`), or, where one call follows the other and two epoll_ctl(2) each are worth saving, a tick of the loop
//!   takes over from a handler that has not returned (`Lent`).
//! - A caller that has more calls open, or has made a thousand in quick succession, is likely to wait for the next one
//!   soon: it leaves the lead `Lent` in the same way.
//! - Where several callers wait, each reads in passing and leaves the lead `Lent` to whoever comes next; see read/yielding.rs.
//! - Otherwise, and wherever nobody else has it, the lead is with the loop, which waits in epoll.
//!
//! Who reads runs no user code and waits for nobody: calls are completed, requests and one-ways are put into the inbox.
//!
//! ```text
//!               event, caller, reader                 held too much, no call open
//!     Armed ----------------------------------> Taken ------------------------------> Paused
//!       ^  <----------------------------------   | |  <------------------------------  |
//!       |           nothing left to read         | |                                   |
//!       |                  the reader runs fast  | | end of file,   room again, or a   |
//!       |      blocks, or  handlers              | | error          call was opened    |
//!       |      is slow                           v v                                   |
//!       +------------------------------------- Lent Ended                              |
//!       +------------------------------------------------------------------------------+
//! ```

use std::cell::Cell;
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use mio::Interest;

use crate::connection::call::Slot;
use crate::connection::read::{By, Reader, Turn, Until};
use crate::connection::shared::Core;
use crate::error::CloseReason;
use crate::event_loop::Registration;
use crate::event_loop::thread_pool;
use crate::event_loop::wake_pipe::Bell;
use crate::options::Reading;
use crate::sync::lock::{lock, wait_until};
use crate::sync::{Instant, thread, thread_local};
use crate::sys::{self, Stream};

/// A caller that is done gives the input buffer's memory back where it has used more of it than this, in bytes: what lies
/// untouched costs nothing.
const KEPT: usize = 8 << 10;

/// Who has the right to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Lead {
    /// The loop, as soon as epoll reports something.
    Armed,
    /// A thread that reads, or sleeps until there is something to read.
    Taken,
    /// Nobody, while the connection's reader runs a handler, or a caller is between two calls; anybody may take it.
    Lent,
    /// Nobody, until there is room in the inbox.
    Paused,
    Ended,
}

thread_local! {
    /// Whether this thread is a reader within a handler, with the lead lent.
    static LENDS: Cell<bool> = const { Cell::new(false) };
    /// Whether this thread took the lead for a call that it is about to make.
    static LEADS: Cell<bool> = const { Cell::new(false) };
}

impl Core {
    /// Begins to read.
    pub(crate) fn start_reading(self: &Arc<Self>) -> io::Result<()> {
        let Some(stream) = lock(&self.reader).stream.clone() else { return Ok(()) };
        let dedicated = self.options.reading == Reading::Dedicated;
        let interest = if dedicated { sys::no_interest() } else { Interest::READABLE };
        let registration = self.events.register(stream.as_fd(), interest, Arc::<Self>::clone(self))?;
        *lock(&self.registered) = Some((registration, stream));
        if dedicated {
            let core = Arc::clone(self);
            let name = "pipeplug-reader".into();
            match thread::Builder::new().name(name).spawn(move || core.read_and_serve()) {
                Ok(_) => return Ok(()),
                Err(error) => tracing::warn!(%error, "no reader of its own, the loop reads"),
            }
        }
        self.give_lead_back();
        Ok(())
    }

    /// The loop's turn: the pipe is readable.
    pub(crate) fn read_on_loop(self: &Arc<Self>) {
        if !self.take_lead(Lead::Armed) {
            return; // another thread reads, and what it leaves is reported when it gives the lead back
        }
        let mut reader = lock(&self.reader);
        let turn = self.read(&mut reader, Until::Empty, By::Other);
        if matches!(turn, Turn::Nothing | Turn::Drained) {
            reader.receiver.release();
        }
        drop(reader);
        match turn {
            Turn::Ended | Turn::Paused => {}
            Turn::Unfinished => self.give_lead_back(),
            Turn::Nothing | Turn::Drained => {
                // Still armed in epoll, which reports anew what comes after the last read.
                self.set_armed();
                self.end_if_asked();
            }
        }
    }

    /// Takes the lead for a caller that is about to send its request, if nobody else reads or waits until another call
    /// ends: were it taken after that, the reply might wake the loop in between.
    pub(crate) fn lead_ahead(self: &Arc<Self>) {
        if self.is_alone() && self.take_lead_to_call() {
            LEADS.set(true);
        }
    }

    /// Whether no other caller waits, but one that reads.
    pub(crate) fn is_alone(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) == 0 && self.crowd.is_empty()
    }

    /// Whether this thread took the lead for the call that it makes.
    pub(crate) fn leads_ahead() -> bool {
        LEADS.get()
    }

    /// Whoever took it ahead has to wait for room first, which somebody has to read for.
    pub(crate) fn end_leading_ahead(self: &Arc<Self>) {
        if LEADS.take() {
            self.give_lead_back();
            // What was left to be written by whoever leads next.
            self.flush();
        }
    }

    /// Reads for a caller until its call is done, if it has the lead or can take it: if nobody else reads or
    /// waits until another call ends.
    pub(crate) fn lead_for(self: &Arc<Self>, slot: &Slot, deadline: Option<Instant>) {
        let leads = LEADS.take() || (self.is_alone() && self.take_lead_to_call());
        if !leads {
            return;
        }
        // Behind taking the lead: until then others left it to this thread to write.
        self.flush();
        let Ok(bell) = Bell::of_this_thread() else {
            return self.give_lead_back(); // no descriptor left: the loop reads
        };
        let mut reader = lock(&self.reader);
        *lock(&self.bell) = Some(Arc::clone(&bell));
        let mut turn = Turn::Nothing;
        // The first look is behind the bell: what came ahead of it rang none.
        while !(matches!(turn, Turn::Ended | Turn::Paused)
            || slot.is_done()
            || self.is_ending.load(Ordering::SeqCst)
            // A peer that never pauses would have it read for good.
            || deadline.is_some_and(|deadline| Instant::now() >= deadline))
        {
            turn = self.read_next(&mut reader, By::Other, &bell, deadline, turn);
        }
        if !matches!(turn, Turn::Ended | Turn::Paused) && deadline.is_some() && !slot.is_done() {
            turn = self.read(&mut reader, Until::Empty, By::Other); // see read/last_look.rs
        }
        *lock(&self.bell) = None;
        bell.silence();
        let has_more = !lock(&self.calls).is_empty();
        if !has_more && reader.receiver.input().len() > KEPT {
            reader.receiver.release();
        }
        drop(reader);
        if matches!(turn, Turn::Ended | Turn::Paused) {
            return;
        }
        if self.options.reading == Reading::Shared && (has_more || self.calls_often()) {
            self.lend_between_calls();
        } else {
            self.give_lead_back();
        }
    }

    /// A caller with further calls open, or after many in quick succession, will wait for one again soon, it seems: until
    /// then nobody reads, unless somebody needs it or nothing comes of it for a while.
    pub(crate) fn lend_between_calls(self: &Arc<Self>) {
        self.lead.store(Lead::Lent as u8, Ordering::SeqCst);
        if self.leaves_sleepers() || self.is_ending.load(Ordering::SeqCst) {
            self.take_over();
        } else {
            self.watch_lent();
        }
    }

    /// This thread is about to sleep until somebody else has read its reply, or a task is.
    pub(crate) fn wait_begins(self: &Arc<Self>) {
        self.waiting.fetch_add(1, Ordering::SeqCst);
        // Who lends it looks for those who wait after that, and so does the last one of a crowd, which reads meanwhile.
        if self.is_between_calls() && self.crowd.is_empty() {
            self.take_over();
        }
    }

    /// Whether somebody sleeps whom no other caller reads for.
    pub(crate) fn leaves_sleepers(&self) -> bool {
        self.waiting.load(Ordering::SeqCst) > 0 && self.crowd.is_empty()
    }

    pub(crate) fn wait_ends(&self) {
        self.waiting.fetch_sub(1, Ordering::SeqCst);
    }

    pub(crate) fn take_lead_to_call(self: &Arc<Self>) -> bool {
        (self.options.reading == Reading::Shared && self.take_lead(Lead::Lent)) || self.take_lead_back()
    }

    /// What a connection's own reader does: reads and runs handlers until the connection ends.
    fn read_and_serve(self: &Arc<Self>) {
        let Ok(bell) = Bell::of_this_thread() else {
            return self.give_lead_back(); // no descriptor left: the loop reads
        };
        let mut turn = Turn::Nothing;
        loop {
            let mut reader = lock(&self.reader);
            *lock(&self.bell) = Some(Arc::clone(&bell));
            while !self.is_ending.load(Ordering::SeqCst) {
                turn = self.read_next(&mut reader, By::Server, &bell, None, turn);
                if matches!(turn, Turn::Ended | Turn::Paused) || self.has_jobs() {
                    break;
                }
            }
            *lock(&self.bell) = None;
            bell.silence();
            drop(reader);
            let mut leads = !matches!(turn, Turn::Ended | Turn::Paused);
            if leads && self.is_ending.load(Ordering::SeqCst) {
                leads = false;
                self.give_lead_back();
            }
            leads = thread_pool::serve_with(self.events.pool(), self, leads);
            if !leads {
                if !self.wait_for_lead() {
                    return;
                }
                turn = Turn::Nothing;
            }
        }
    }

    /// Lends the lead while a handler runs on the reader's thread.
    pub(crate) fn lend_lead(&self) {
        LENDS.set(true);
        self.lead.store(Lead::Lent as u8, Ordering::SeqCst);
    }

    /// Takes it again, unless somebody took it over.
    pub(crate) fn end_lending(&self) -> bool {
        LENDS.set(false);
        self.take_lead(Lead::Lent)
    }

    /// Takes the lead from the loop.
    pub(crate) fn take_lead_back(self: &Arc<Self>) -> bool {
        let took = self.take_lead(Lead::Armed);
        if took {
            self.disarm();
        }
        took
    }

    /// A handler is about to wait: where it has the lead lent, the loop takes over.
    pub(crate) fn lender_blocked(self: &Arc<Self>) {
        if LENDS.take() {
            self.take_over();
        }
    }

    /// The reader is in a handler that does not return: the loop reads from here on.
    pub(crate) fn take_over(self: &Arc<Self>) {
        if self.take_lead(Lead::Lent) {
            self.give_lead_back();
        }
        // What earlier handlers answered may have been left for the end of the batch.
        self.flush();
    }

    /// Whether a caller has left the lead since it is likely to wait for another call soon.
    pub(crate) fn is_between_calls(&self) -> bool {
        self.options.reading == Reading::Shared && self.is_lent()
    }

    pub(crate) fn is_lent(&self) -> bool {
        self.lead.load(Ordering::SeqCst) == Lead::Lent as u8
    }

    /// There is room again, or a call was opened: reading goes on if it had paused.
    pub(crate) fn resume_reading(self: &Arc<Self>) {
        if self.lead.load(Ordering::SeqCst) == Lead::Paused as u8
            && self.take_lead(Lead::Paused)
            // Somebody else may have had it read on since there was room.
            && !(self.is_overfull() && self.pause())
        {
            self.give_lead_back();
        }
    }

    pub(crate) fn take_lead(&self, from: Lead) -> bool {
        let (from, to) = (from as u8, Lead::Taken as u8);
        self.lead.compare_exchange(from, to, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }

    pub(crate) fn give_lead_back(self: &Arc<Self>) {
        self.set_armed();
        // After the store: the loop may be told within this call, and takes the lead then. Where another thread took
        // it in between, the loop is told for nothing.
        self.arm();
        self.end_if_asked();
    }

    /// Nobody will read any more.
    pub(crate) fn end_lead(&self) {
        self.lead.store(Lead::Ended as u8, Ordering::SeqCst);
        self.tell_reader();
    }

    fn set_armed(&self) {
        self.lead.store(Lead::Armed as u8, Ordering::SeqCst);
        self.tell_reader();
    }

    /// Waits until the lead can be had again; `false` once nobody reads any more.
    fn wait_for_lead(self: &Arc<Self>) -> bool {
        let mut waits = lock(&self.reader_waits);
        loop {
            self.reader_is_out.store(true, Ordering::SeqCst);
            if self.take_lead_back() {
                self.reader_is_out.store(false, Ordering::SeqCst);
                return true;
            }
            if self.lead.load(Ordering::SeqCst) == Lead::Ended as u8 {
                return false;
            }
            waits = wait_until(&self.lead_is_free, waits, None);
        }
    }

    fn tell_reader(&self) {
        if self.reader_is_out.load(Ordering::SeqCst) {
            drop(lock(&self.reader_waits)); // it sleeps by now, or has not looked yet
            self.lead_is_free.notify_one();
        }
    }

    fn arm(self: &Arc<Self>) {
        let registered = lock(&self.registered);
        if let Some((registration, stream)) = &*registered
            && let Err(error) = registration.arm(stream.as_fd(), Interest::READABLE)
        {
            drop(registered);
            self.end_after_reading(CloseReason::ReadFailed(error));
        }
    }

    fn disarm(&self) {
        if let Some((registration, stream)) = &*lock(&self.registered)
            && let Err(error) = registration.disarm(stream.as_fd())
        {
            tracing::debug!(%error, "the loop goes on watching");
        }
    }

    /// Reads as soon as there is something: looks for it for as long as that has paid lately, then sleeps until the
    /// pipe is readable, the bell rings, or `deadline` comes.
    fn read_next(
        self: &Arc<Self>,
        reader: &mut Reader,
        by: By,
        bell: &Bell,
        deadline: Option<Instant>,
        last: Turn,
    ) -> Turn {
        if last == Turn::Unfinished {
            return self.read(reader, Until::Short, by);
        }
        if let Some(budget) = reader.spin(by).budget() {
            let turn = self.read(reader, Until::Short, by);
            if turn != Turn::Nothing {
                return turn; // which tells nothing of whether looking pays
            }
            if std::mem::take(&mut reader.read_many) {
                // They came from many threads, maybe, of which some wait for this CPU.
                thread::yield_now();
            }
            if let Some(turn) = self.look_for(budget, reader, by, bell) {
                return turn;
            }
        }
        let Some(stream) = &reader.stream else { return Turn::Ended };
        match stream.wait_readable(bell, deadline) {
            Ok(true) => self.read(reader, Until::Short, by),
            Ok(false) => Turn::Nothing,
            Err(error) => {
                // poll(2) fails only for want of memory: it is asked again, and says so until there is some.
                tracing::debug!(%error, "poll failed");
                thread::yield_now();
                Turn::Nothing
            }
        }
    }

    /// Reads as soon as there is something, for as long as `budget`.
    fn look_for(
        self: &Arc<Self>,
        budget: Duration,
        reader: &mut Reader,
        by: By,
        bell: &Bell,
    ) -> Option<Turn> {
        let start = Instant::now();
        loop {
            std::hint::spin_loop();
            let turn = self.read(reader, Until::Short, by);
            let took = start.elapsed();
            if turn != Turn::Nothing {
                // What took longer came while another thread had this CPU: maybe the other side, which looking keeps
                // from running.
                if took <= budget {
                    reader.spin(by).hit(took)
                } else {
                    reader.spin(by).miss()
                }
                return Some(turn);
            }
            if took >= budget || bell.is_rung() {
                reader.spin(by).miss();
                return None;
            }
        }
    }
}

/// A connection's reading descriptor in the loop.
pub(crate) type Registered = Option<(Registration, Arc<Stream>)>;
