//! Threads at work for a connection: how many there may be, who takes a seat, and who gives it up.

use std::sync::Arc;
use std::time::Duration;

use super::{Inbox, SLOW, Seen};
use crate::connection::Connection;
use crate::connection::cancellation::Place;
use crate::connection::handler::Incoming;
use crate::connection::serve::request::Job;
use crate::connection::shared::{Core, Undefer};
use crate::event_loop::thread_pool::{Awaits, Work};
use crate::sync::Instant;
use crate::sync::lock::lock;
use crate::writer::Push;

/// When no handler has returned for so long while others wait, one more thread comes.
const STALL: Duration = Duration::from_millis(1);
/// So many handlers are timed together: looking at the clock takes longer than many a handler.
const SAMPLE: u32 = 32;
/// Jobs that one thread does before it lets other connections have their turn.
const TURN: usize = 64;

impl Core {
    /// The connection's own reader begins to run handlers, unless as many run as may: those see to what waits.
    pub(crate) fn sit_down(&self) -> bool {
        let mut inbox = lock(&self.inbox);
        let may = inbox.has_work() && inbox.running < self.options.handlers.get();
        if may {
            inbox.running += 1;
        }
        may
    }

    /// Others run what waits.
    pub(crate) fn leave_to_others(self: &Arc<Self>) {
        let mut inbox = lock(&self.inbox);
        inbox.jobs.iter_mut().for_each(Job::own);
        let another = self.take_seat(&mut inbox);
        let watch = if inbox.has_work() { inbox.watch() } else { None };
        drop(inbox);
        if another {
            self.seat();
        }
        if let Some(seen) = watch {
            self.watch_for_stall(seen);
        }
    }

    /// Runs handlers until nothing waits, on a thread that was counted in; says whether it has the lead still, if it
    /// had it.
    pub(crate) fn serve(self: &Arc<Self>, mut leads: bool) -> bool {
        // Whether the lead is lent from one handler to the next, unless somebody has taken it over.
        let mut lends = false;
        let mut since = Instant::now();
        let mut done = 0;
        // The first ones tell soon whether handlers are slow.
        let mut sample = 1;
        let mut corked = false;
        let mut connection = None;
        let mut place = None;
        for turn in 1.. {
            let mut inbox = lock(&self.inbox);
            let place = *place.get_or_insert_with(|| inbox.handling.take_place());
            if lends && !self.is_lent() {
                lends = false;
                leads = self.end_lending();
            }
            let leave = !leads && inbox.running > self.options.handlers.get();
            let is_empty = leave || !inbox.has_work();
            if done > 0 && (is_empty || done >= sample || inbox.usual > SLOW) {
                let now = Instant::now();
                inbox.took((now - since) / done);
                (since, done) = (now, 0);
                sample = (sample * 2).min(SAMPLE);
            }
            let job = if leave { None } else { inbox.pop(place) };
            let Some(mut job) = job else {
                inbox.running -= 1;
                inbox.handling.leave(place);
                drop(inbox);
                if corked {
                    self.flush();
                }
                if lends {
                    leads = self.end_lending();
                }
                self.finish_if_idle();
                return leads;
            };
            let deadline = inbox.deadline_of(&job);
            let deferred = inbox.deferred;
            let report = inbox.report();
            let room = !inbox.is_full();
            let another = (!leads || inbox.usual > SLOW) && self.take_seat(&mut inbox);
            let more = inbox.has_work();
            let often = leads && turn == 1 && inbox.comes_often(since);
            let watch = if more || often { inbox.watch() } else { None };
            let lend = leads && inbox.watched && inbox.usual <= SLOW;
            if lend && !lends {
                // Under the lock, under which the loop looks whether it is lent.
                inbox.lent += 1;
                self.lend_lead();
                lends = true;
            }
            drop(inbox);
            if another {
                self.seat();
            }
            if let Some(seen) = watch {
                self.watch_for_stall(seen);
            }
            self.credit(report);
            if room {
                self.resume_reading();
            }
            if lend {
                // The last one of a batch takes the others' answers along.
                let push = if more { Push::Later } else { Push::Now };
                corked |= more;
                if let Some(job) = self.unless_too_many_are_deferred(job, deferred, push) {
                    self.run_incoming(&mut connection, job, place, deadline, push);
                }
            } else {
                if std::mem::take(&mut corked) {
                    self.flush();
                }
                if std::mem::take(&mut lends) {
                    leads = self.end_lending();
                }
                if leads {
                    self.give_lead_back();
                }
                // It may take long.
                job.own();
                if let Some(job) = self.unless_too_many_are_deferred(job, deferred, Push::Now) {
                    self.run_incoming(&mut connection, job, place, deadline, Push::Now);
                }
                leads = leads && self.take_lead_back();
            }
            done += 1;
            if turn % TURN == 0 {
                connection = None; // its owner may have given it up
            }
            if turn % TURN == 0 && self.events.pool().has_waiting() {
                lock(&self.inbox).handling.leave(place);
                // Its seat is kept, and goes to the end of the line.
                self.seat();
                if corked {
                    self.flush();
                }
                return if lends { self.end_lending() } else { leads };
            }
        }
        unreachable!("the turns end when nothing waits")
    }

    /// Runs a handler; `connection` is kept from one to the next.
    pub(super) fn run_incoming(
        self: &Arc<Self>,
        connection: &mut Option<Connection>,
        job: Job,
        place: Place,
        deadline: Option<Instant>,
        push: Push,
    ) {
        match connection.take().or_else(|| self.connection()) {
            Some(found) => {
                *connection = Some(Incoming::new(found, job, place, deadline).run(&*self.handler, push))
            }
            None => tracing::debug!(peer = %self.options.name, command = %job.command.escape_debug(),
                "dropped: the connection was given up"),
        }
    }

    /// A handler of this connection waits: another one may run.
    pub(crate) fn handler_blocked(self: &Arc<Self>, awaits: Awaits) {
        self.lender_blocked();
        let mut inbox = lock(&self.inbox);
        inbox.running -= 1;
        *inbox.waiting(awaits) += 1;
        let another = self.take_seat(&mut inbox);
        let stranded = self.share_is_blocked(&inbox);
        drop(inbox);
        if another {
            self.seat();
        }
        if let Some(stranded) = stranded {
            self.refuse_waiting(stranded);
        }
    }

    /// It goes on; for a moment one more than the limit may run.
    pub(crate) fn handler_resumed(&self, awaits: Awaits) {
        let mut inbox = lock(&self.inbox);
        inbox.running += 1;
        *inbox.waiting(awaits) -= 1;
    }

    /// Counts one more thread in, if it is worth having.
    pub(super) fn take_seat(&self, inbox: &mut Inbox) -> bool {
        // One place in the line is enough where no thread is free: others have theirs behind it.
        let wanted = inbox.wants_thread(self.options.handlers.get())
            && inbox.threads() < self.events.pool().share()
            && (inbox.running == 0 || !self.events.pool().is_saturated());
        if wanted {
            inbox.running += 1;
        }
        wanted
    }

    /// Has a thread of the pool work for this connection; it was counted already.
    pub(super) fn seat(self: &Arc<Self>) {
        if let Err(exhausted) = self.events.pool().submit(Work::Serve(Arc::clone(self))) {
            self.refuse_waiting(exhausted);
        }
    }

    /// Runs one handler outside of the count, whatever is held back.
    pub(super) fn run_apart(self: &Arc<Self>, job: Job, deadline: Option<Instant>) {
        self.defer();
        let core = Arc::clone(self);
        let run = move || {
            let done = Undefer(core);
            let place = {
                let mut inbox = lock(&done.0.inbox);
                let place = inbox.handling.take_place();
                inbox.handling.begin(place, job.request());
                place
            };
            done.0.run_incoming(&mut None, job, place, deadline, Push::Now);
            lock(&done.0.inbox).handling.leave(place);
        };
        if let Err(exhausted) = self.events.pool().submit(Work::Once(Box::new(run))) {
            tracing::warn!("a request has to wait for a thread: {exhausted}");
        }
    }

    /// Runs something on a thread that no handler takes.
    pub(crate) fn once(&self, run: impl FnOnce() + Send + 'static) {
        self.events.spawn(run);
    }

    /// A call of ours has ended; whether the next one is likely to come soon.
    pub(crate) fn calls_often(&self) -> bool {
        lock(&self.inbox).calls_often(Instant::now())
    }

    /// Has the loop look whether the lead that was lent is taken up again.
    pub(crate) fn watch_lent(self: &Arc<Self>) {
        let mut inbox = lock(&self.inbox);
        inbox.lent += 1;
        let watch = inbox.watch();
        drop(inbox);
        if let Some(seen) = watch {
            self.watch_for_stall(seen);
        }
    }

    pub(super) fn watch_for_stall(self: &Arc<Self>, last: Seen) {
        let core = Arc::clone(self);
        self.events.after(STALL, move || {
            let mut inbox = lock(&core.inbox);
            let limit = core.options.handlers.get();
            let is_lent = core.is_lent();
            let seen = inbox.seen();
            if !inbox.has_work() && !is_lent && seen == last {
                inbox.watched = false;
                return;
            }
            let overdue = is_lent && seen == last;
            let stands = seen.begun == last.begun;
            // As many again as there are, so that a thousand sleepers are served within some ticks.
            let pool = core.events.pool();
            let exhausted = pool.exhausted().or_else(|| core.share_is_blocked(&inbox)).filter(|_| stands);
            let stalled = stands && exhausted.is_none() && !pool.is_saturated();
            let more = if stalled { inbox.running.max(1).min(limit - limit.min(inbox.running)) } else { 0 };
            let share = pool.share();
            let more = more.min(inbox.jobs.len()).min(share - share.min(inbox.threads()));
            inbox.running += more;
            drop(inbox);
            if overdue {
                core.take_over();
            }
            for _ in 0..more {
                core.seat();
            }
            if let Some(exhausted) = exhausted {
                // They came while a place in the line was taken that no thread comes to.
                core.refuse_waiting(exhausted);
            }
            core.watch_for_stall(seen);
        });
    }
}
