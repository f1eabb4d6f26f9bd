//! What waits for a handler.

mod refuse;
pub(crate) mod request;
mod workers;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use pipeplug_wire::{Direction, ThreadId};

use crate::connection::cancellation::{Cancelled, Handling, Place};
use crate::connection::read::By;
use crate::connection::serve::request::{Job, Noted};
use crate::connection::shared::Core;
use crate::event_loop::thread_pool::Awaits;
use crate::options::{Hold, Options};
use crate::protocol::flow::ReceiveWindow;
use crate::sync::lock::lock;
use crate::sync::{Instant, atomic::Ordering};

/// Handlers that take longer than this, on average, get a thread each as they come.
const SLOW: Duration = Duration::from_micros(50);
/// When the connection's own reader comes with jobs again, or a caller with a call, within this time, it is worth to have
/// the loop tick.
const OFTEN: Duration = Duration::from_micros(500);
/// After so many calls, each so soon after the one before, the next one is waited for with the lead lent. Where something
/// comes unasked in place of it, which is read late then, it is left be for as many.
const STREAK: u32 = 1024;

#[derive(Debug)]
pub(crate) struct Inbox {
    jobs: VecDeque<Job>,
    /// By when those have to be answered whose senders said so. Few have one, and a job is as long as a cache line.
    deadlines: HashMap<ThreadId, Instant>,
    /// How many of them are requests.
    requests: usize,
    weight: usize,
    /// Threads at work for this connection, without those that wait,
    running: usize,
    /// for calls of their own,
    blocked: usize,
    /// or for nothing but a cancel or their time.
    dozing: usize,
    /// Answers that were taken away to be given later.
    deferred: usize,
    hold: Hold,
    /// A moving average of what a handler takes.
    usual: Duration,
    /// Jobs begun so far, and times that the lead was lent, by which a stall is seen.
    begun: u64,
    lent: u64,
    /// Whether the loop looks each millisecond whether handlers return.
    watched: bool,
    /// When the connection's own reader last came with jobs, or a caller's call ended.
    came: Option<Instant>,
    /// Calls of ours that ended one soon after the other.
    streak: u32,
    receive: ReceiveWindow,
    /// With so much weight nothing more is read while no call of ours is open, unless the peer stops by itself,
    window: usize,
    /// which it did not: it agreed to, and one more chunk came.
    is_exceeded: bool,
    /// Whether a thread sends credits: one at a time, so that the totals go out in order.
    crediting: bool,
    pub(crate) handling: Handling,
    cancelled: Cancelled,
}

impl Inbox {
    pub(crate) fn new(options: &Options) -> Self {
        Self {
            jobs: VecDeque::new(),
            deadlines: HashMap::new(),
            requests: 0,
            weight: 0,
            running: 0,
            blocked: 0,
            dozing: 0,
            deferred: 0,
            hold: options.hold.clone(),
            usual: Duration::ZERO,
            begun: 0,
            lent: 0,
            watched: false,
            came: None,
            streak: 0,
            receive: ReceiveWindow::new(options.window),
            window: options.window.max(1),
            is_exceeded: false,
            crediting: false,
            handling: Handling::default(),
            cancelled: Cancelled::default(),
        }
    }

    /// Whether more is held than is read on for.
    ///
    /// A peer that counts stops with a full window, and what comes behind it is never held back, credits among it: two
    /// sides that wait for each other's would stand still.
    fn is_full(&self) -> bool {
        self.weight >= self.window && (self.is_exceeded || !self.receive.is_negotiated())
    }

    /// So much waits now too, `last` of it the last chunk; whether a peer that counts should have stopped ahead of that
    /// one.
    fn add(&mut self, weight: usize, last: usize) -> bool {
        self.weight = self.weight.saturating_add(weight);
        let exceeds = self.receive.is_negotiated() && self.weight - last >= self.window;
        exceeds && !std::mem::replace(&mut self.is_exceeded, true)
    }

    fn push(&mut self, job: Job) {
        self.requests += usize::from(job.request().is_some());
        self.jobs.push_back(job);
    }

    /// Threads that are taken, at work or waiting.
    fn threads(&self) -> usize {
        self.running + self.blocked + self.dozing
    }

    /// Those of them that wait so.
    fn waiting(&mut self, awaits: Awaits) -> &mut usize {
        match awaits {
            Awaits::Peer => &mut self.blocked,
            Awaits::Nothing => &mut self.dozing,
        }
    }

    fn is_held(&self) -> bool {
        self.hold != Hold::Nothing
    }

    /// Whether another thread is worth having.
    fn wants_thread(&self, limit: usize) -> bool {
        !self.jobs.is_empty()
            && !self.is_held()
            && self.running < limit
            && (self.running == 0 || self.usual > SLOW)
    }

    /// The next one, for the thread in this place.
    fn pop(&mut self, place: Place) -> Option<Job> {
        if self.is_held() {
            return None;
        }
        let mut job = self.jobs.pop_front()?;
        self.has_left(&job);
        self.begun += 1;
        if !self.cancelled.is_empty() {
            job.is_cancelled = self.cancelled.take(&job, self.jobs.len());
        }
        self.handling.begin(place, job.request());
        Some(job)
    }

    /// By when a job that has come out has to be answered.
    #[inline]
    fn deadline_of(&mut self, job: &Job) -> Option<Instant> {
        if self.deadlines.is_empty() {
            return None; // nearly always
        }
        job.request().and_then(|id| self.deadlines.remove(&id))
    }

    /// It does not wait any more.
    fn has_left(&mut self, job: &Job) {
        let weight = job.weight();
        self.requests -= usize::from(job.request().is_some());
        self.weight -= usize::try_from(weight).unwrap_or(usize::MAX).min(self.weight);
        self.is_exceeded &= self.weight >= self.window;
        self.receive.taken(weight);
    }

    /// Takes out those that will not be handled.
    fn take_out(&mut self, which: impl Fn(&Job) -> bool) -> Vec<Job> {
        let (out, rest) = std::mem::take(&mut self.jobs).into_iter().partition::<Vec<_>, _>(which);
        self.jobs = rest.into();
        for job in &out {
            self.has_left(job);
            self.deadline_of(job);
        }
        out
    }

    /// The request is not to be handled, if it waits; gives those to refuse, this one maybe among them.
    pub(crate) fn cancel_waiting(&mut self, id: ThreadId) -> Vec<Job> {
        if !self.cancelled.add(id, self.jobs.len()) {
            return Vec::new();
        }
        let cancelled = std::mem::take(&mut self.cancelled);
        self.take_out(|job| cancelled.contains(job))
    }

    fn seen(&self) -> Seen {
        Seen { begun: self.begun, lent: self.lent }
    }

    /// Has the loop look for handlers that do not return, if it does not yet; gives what there is to see now.
    fn watch(&mut self) -> Option<Seen> {
        (!std::mem::replace(&mut self.watched, true)).then(|| self.seen())
    }

    fn has_work(&self) -> bool {
        !self.jobs.is_empty() && !self.is_held()
    }

    /// Handlers took so long on average.
    fn took(&mut self, each: Duration) {
        self.usual = (self.usual * 7 + each) / 8;
    }

    /// The connection's own reader comes with jobs, and did a moment ago.
    fn comes_often(&mut self, now: Instant) -> bool {
        self.came.replace(now).is_some_and(|last| now.saturating_duration_since(last) < OFTEN)
    }

    /// A call of ours has ended; whether the next one is likely to come soon.
    fn calls_often(&mut self, now: Instant) -> bool {
        self.streak = if self.comes_often(now) { self.streak.saturating_add(1) } else { 0 };
        self.streak >= STREAK
    }

    /// A total that the peer is to be told with [`Core::credit`], if one is due.
    fn report(&mut self) -> Option<u64> {
        if self.crediting {
            return None; // who sends one looks again behind it
        }
        let total = self.receive.report();
        self.crediting = total.is_some();
        total
    }
}

/// What the loop saw at its last look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Seen {
    begun: u64,
    lent: u64,
}

/// Whether to go on reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Admitted {
    Yes,
    /// More is held than is read on for.
    Full,
}

impl Core {
    /// Takes a request or one-way in, on the reading thread.
    pub(crate) fn admit(self: &Arc<Self>, job: Job, deadline: Option<Instant>, by: By) -> Admitted {
        let weight = job.weight();
        let mut inbox = lock(&self.inbox);
        if let Hold::AllBut(commands) = &inbox.hold
            && commands.iter().any(|command| *command == *job.command)
        {
            let deadline = deadline.or_else(|| inbox.deadline_of(&job));
            let deferred = inbox.deferred;
            drop(inbox);
            if self.may_defer(deferred) {
                self.run_apart(job, deadline);
            } else if let Some(id) = job.request() {
                self.send_refusal(id, self.too_many_deferred(deferred));
            }
            self.passed_by(weight);
            return Admitted::Yes;
        }
        let more = usize::try_from(weight).unwrap_or(usize::MAX);
        let limit = self.options.overrun;
        // As with the window, one chunk may go past it, so that none is too large to be ever taken.
        if inbox.weight >= limit && !inbox.jobs.is_empty() {
            let held = inbox.weight.saturating_add(more);
            inbox.deadline_of(&job);
            if job.direction != Direction::Request {
                self.is_overrun.store(true, Ordering::Relaxed);
            }
            drop(inbox);
            self.overrun(&job, held, limit);
            if job.direction == Direction::Request {
                self.passed_by(weight);
                return Admitted::Full;
            }
            inbox = lock(&self.inbox);
        }
        if let (Some(id), Some(exhausted)) = (job.request(), self.share_is_blocked(&inbox)) {
            inbox.deadline_of(&job);
            drop(inbox);
            self.send_refusal(id, exhausted.to_string());
            self.passed_by(weight);
            return Admitted::Yes;
        }
        let exceeds = inbox.add(more, more);
        if let Some(deadline) = deadline {
            inbox.deadlines.insert(job.thread_id, deadline);
        }
        inbox.push(job);
        let full = inbox.is_full();
        // The connection's own reader looks at the jobs by itself; what is slow has other threads beside it.
        let another = (by == By::Other || inbox.usual > SLOW) && self.take_seat(&mut inbox);
        let waits = !another && inbox.running > 0 && !inbox.is_held();
        let watch = if waits { inbox.watch() } else { None };
        drop(inbox);
        if another {
            self.seat();
        }
        if let Some(seen) = watch {
            self.watch_for_stall(seen);
        }
        if exceeds {
            self.window_exceeded();
        }
        if full { Admitted::Full } else { Admitted::Yes }
    }

    /// Takes in what was noted in `input`, for the connection's own reader.
    pub(crate) fn admit_noted(
        self: &Arc<Self>,
        noted: &mut Vec<Noted>,
        deadlines: &mut Vec<(ThreadId, Instant)>,
        input: &Arc<Vec<u8>>,
    ) -> Admitted {
        let total = noted.iter().map(Noted::weight).fold(0, u64::saturating_add);
        let total = usize::try_from(total).unwrap_or(usize::MAX);
        let last = noted.last().map_or(0, |last| usize::try_from(last.weight()).unwrap_or(usize::MAX));
        let mut jobs = noted.drain(..).map(|noted| noted.into_job(input));
        let mut inbox = lock(&self.inbox);
        if !deadlines.is_empty() {
            inbox.deadlines.extend(deadlines.drain(..));
        }
        // Where others have to come to it first, it must not keep the whole input, of which it is a small part, maybe;
        // and what may have to be refused goes the long way.
        if inbox.running > 0 || inbox.is_held() || inbox.weight.saturating_add(total) > self.options.overrun {
            drop(inbox);
            let mut admitted = Admitted::Yes;
            for mut job in jobs {
                job.own();
                if self.admit(job, None, By::Server) == Admitted::Full {
                    admitted = Admitted::Full;
                }
            }
            return admitted;
        }
        let exceeds = inbox.add(total, last);
        jobs.by_ref().for_each(|job| inbox.push(job));
        let full = inbox.is_full();
        let another = inbox.usual > SLOW && self.take_seat(&mut inbox);
        drop((inbox, jobs));
        if another {
            self.seat();
        }
        if exceeds {
            self.window_exceeded();
        }
        if full { Admitted::Full } else { Admitted::Yes }
    }

    /// Lets handlers run from now on.
    pub(crate) fn release(self: &Arc<Self>) {
        let mut inbox = lock(&self.inbox);
        inbox.hold = Hold::Nothing;
        let another = self.take_seat(&mut inbox);
        drop(inbox);
        if another {
            self.seat();
        }
        self.finish_if_idle();
    }

    /// Both sides count what they hold.
    pub(crate) fn count_received(self: &Arc<Self>) {
        let report = {
            let mut inbox = lock(&self.inbox);
            inbox.receive.negotiated();
            inbox.report()
        };
        // What was taken until now may be all that the peer is allowed to send.
        self.credit(report);
        self.resume_reading();
    }

    /// A chunk that never waited in here counts as taken.
    pub(crate) fn passed_by(self: &Arc<Self>, weight: u64) {
        let report = {
            let mut inbox = lock(&self.inbox);
            inbox.receive.taken(weight);
            inbox.report()
        };
        self.credit(report);
    }

    /// Tells the peer how much was taken, and what was taken meanwhile.
    fn credit(self: &Arc<Self>, report: Option<u64>) {
        let mut report = report;
        while let Some(total) = report {
            self.send_credit(total);
            let mut inbox = lock(&self.inbox);
            inbox.crediting = false;
            report = inbox.report();
        }
    }

    /// Whether more waits for a handler than is read on for.
    pub(crate) fn is_full(&self) -> bool {
        lock(&self.inbox).is_full()
    }

    /// Weight that waits for a handler.
    pub(crate) fn held(&self) -> usize {
        lock(&self.inbox).weight
    }

    /// Whether nothing waits, runs, or is to be answered later.
    pub(crate) fn is_idle(&self) -> bool {
        let inbox = lock(&self.inbox);
        inbox.jobs.is_empty() && inbox.threads() == 0 && inbox.deferred == 0
    }

    /// An answer was taken away from its handler.
    pub(crate) fn defer(&self) {
        lock(&self.inbox).deferred += 1;
    }

    /// The request in this place will be answered later.
    pub(crate) fn answer_later(&self, place: Place) {
        let mut inbox = lock(&self.inbox);
        inbox.deferred += 1;
        inbox.handling.answer_later(place);
    }

    /// It was.
    pub(crate) fn answered_later(self: &Arc<Self>, id: ThreadId) {
        lock(&self.inbox).handling.answered_later(id);
        self.deferred_done();
    }

    /// It was given.
    pub(crate) fn deferred_done(self: &Arc<Self>) {
        lock(&self.inbox).deferred -= 1;
        self.finish_if_idle();
    }

    /// Whether a handler could run.
    pub(crate) fn has_jobs(&self) -> bool {
        lock(&self.inbox).has_work()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_come_often_after_many_in_quick_succession_until_one_is_late() {
        let mut inbox = Inbox::new(&Options::default());
        let mut now = Instant::now();
        let mut often = |after| {
            now += after;
            inbox.calls_often(now)
        };
        let soon = OFTEN / 2;
        for _ in 0..3 {
            assert!(!often(OFTEN));
            assert!((1..STREAK).all(|_| !often(soon)));
            assert!((0..10).all(|_| often(soon)));
        }
    }
}
