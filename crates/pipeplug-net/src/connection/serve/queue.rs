//! Queue of requests and one-ways that wait for a handler, and the counts of the workers that take
//! them. No threads, no I/O.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use pipeplug_wire::ThreadId;

use super::job::Job;
use super::lanes::{LaneIndex, Lanes};
use crate::connection::cancellation::{ActiveRequests, CancelledInQueue, WorkerSlot};
use crate::event_loop::thread_pool::BlockedOn;
use crate::options::{Hold, Options};
use crate::protocol::context::RequestContext;
use crate::protocol::flow::ReceiveWindow;
use crate::sync::Instant;

/// Handlers that take longer than this on average get a thread each as their requests come.
pub(super) const SLOW: Duration = Duration::from_micros(50);
/// The dedicated reader that comes with jobs again within this time, or a caller with a call, is
/// worth a tick of the event loop.
const OFTEN: Duration = Duration::from_micros(500);
/// Number of calls in quick succession after which the next one is waited for with the reader role
/// vacant. If something else comes in place of it, which is read late then, the role is left to the
/// event loop for as many calls.
const STREAK: u32 = 1024;

#[derive(Debug)]
pub(crate) struct ServeQueue {
    jobs: VecDeque<Job>,
    /// Jobs of the commands that are handled in order, if there are such commands.
    lanes: Option<Box<Lanes>>,
    /// Contexts of the queued jobs that have one. Apart from the jobs: few have one, and a job fills
    /// a cache line.
    contexts: HashMap<ThreadId, RequestContext>,
    /// Number of the jobs that are requests.
    requests: usize,
    /// Weight of the jobs, in bytes.
    pub(super) weight: usize,
    /// Workers that run handlers.
    pub(super) running: usize,
    /// Workers that wait for calls of their own.
    blocked: usize,
    /// Workers that wait for nothing but a cancellation or a time.
    dozing: usize,
    /// Requests whose answers a handler has deferred.
    pub(super) deferred: usize,
    hold: Hold,
    /// Moving average of the time that a handler takes.
    pub(super) usual: Duration,
    /// Jobs begun so far, and times that the reader role was left vacant: a stall shows by them.
    begun: u64,
    vacancies: u64,
    /// True while the event loop ticks to look for handlers that do not return.
    pub(super) is_watched: bool,
    /// Last time that the dedicated reader came with jobs, or that a caller's call ended.
    came: Option<Instant>,
    /// Calls of this side that ended in quick succession.
    streak: u32,
    receive: ReceiveWindow,
    /// Weight from which nothing more is read while no call is open, in bytes. A peer that
    /// negotiated `flow` stops by itself,
    window: usize,
    /// unless it does not keep to that: one more chunk came.
    is_exceeded: bool,
    /// True while a thread sends credits. One at a time does, so that the totals are sent in order.
    is_crediting: bool,
    pub(crate) active: ActiveRequests,
    cancelled: CancelledInQueue,
}

/// Progress of the handlers, as the tick of the event loop saw it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct HandlerProgress {
    pub(super) begun: u64,
    vacancies: u64,
}

impl ServeQueue {
    pub(crate) fn new(options: &Options) -> Self {
        Self {
            jobs: VecDeque::new(),
            lanes: Lanes::new(&options.order),
            contexts: HashMap::new(),
            requests: 0,
            weight: 0,
            running: 0,
            blocked: 0,
            dozing: 0,
            deferred: 0,
            hold: options.hold.clone(),
            usual: Duration::ZERO,
            begun: 0,
            vacancies: 0,
            is_watched: false,
            came: None,
            streak: 0,
            receive: ReceiveWindow::new(options.window),
            window: options.window.max(1),
            is_exceeded: false,
            is_crediting: false,
            active: ActiveRequests::default(),
            cancelled: CancelledInQueue::default(),
        }
    }

    /// Returns true if so much is queued that reading is suspended.
    ///
    /// A peer that negotiated `flow` stops when its window is full. What it sends behind that is
    /// never held back, credits among it: two sides that wait for each other's credits would stand
    /// still.
    pub(super) fn is_full(&self) -> bool {
        self.weight >= self.window && (self.is_exceeded || !self.receive.is_negotiated())
    }

    /// Adds `weight`, of which `last` is the last chunk's. Returns true if a peer that negotiated
    /// `flow` should have stopped before that chunk, the first time.
    pub(super) fn add_weight(&mut self, weight: usize, last: usize) -> bool {
        self.weight = self.weight.saturating_add(weight);
        let exceeds = self.receive.is_negotiated() && self.weight - last >= self.window;
        exceeds && !std::mem::replace(&mut self.is_exceeded, true)
    }

    /// Queues a job whose weight was added.
    pub(super) fn push(&mut self, job: Job) {
        self.requests += usize::from(job.request_id().is_some());
        let job = match &mut self.lanes {
            None => Some(job),
            Some(lanes) => lanes.push(job),
        };
        self.jobs.extend(job);
    }

    pub(super) fn set_context(&mut self, id: ThreadId, context: RequestContext) {
        self.contexts.insert(id, context);
    }

    pub(super) fn set_contexts(&mut self, contexts: &mut Vec<(ThreadId, RequestContext)>) {
        if !contexts.is_empty() {
            self.contexts.extend(contexts.drain(..));
        }
    }

    /// Number of jobs.
    pub(super) fn len(&self) -> usize {
        self.jobs.len() + self.lanes.as_ref().map_or(0, |lanes| lanes.len())
    }

    /// Number of jobs that may start.
    pub(super) fn ready(&self) -> usize {
        self.jobs.len() + self.lanes.as_ref().map_or(0, |lanes| lanes.ready())
    }

    pub(super) fn has_requests(&self) -> bool {
        self.requests > 0
    }

    pub(super) fn jobs_mut(&mut self) -> impl Iterator<Item = &mut Job> {
        let in_lanes = self.lanes.iter_mut().flat_map(|lanes| lanes.jobs_mut());
        self.jobs.iter_mut().chain(in_lanes)
    }

    /// Number of workers, running or waiting.
    pub(super) fn workers(&self) -> usize {
        self.running + self.blocked + self.dozing
    }

    /// Moves a worker from those that run to those that wait.
    pub(super) fn worker_blocked(&mut self, on: BlockedOn) {
        self.running -= 1;
        *self.waiting(on) += 1;
    }

    /// Moves a worker from those that wait to those that run.
    pub(super) fn worker_resumed(&mut self, on: BlockedOn) {
        self.running += 1;
        *self.waiting(on) -= 1;
    }

    fn waiting(&mut self, on: BlockedOn) -> &mut usize {
        match on {
            BlockedOn::Peer => &mut self.blocked,
            BlockedOn::TimeOrCancel => &mut self.dozing,
        }
    }

    /// Number of workers that wait for calls of their own.
    pub(super) fn blocked(&self) -> usize {
        self.blocked
    }

    pub(super) fn is_held(&self) -> bool {
        self.hold != Hold::Nothing
    }

    /// Returns true if this command is handled though others are held back.
    pub(super) fn is_exempt(&self, command: &str) -> bool {
        match &self.hold {
            Hold::AllBut(commands) => commands.iter().any(|exempt| exempt == command),
            Hold::Nothing => false,
        }
    }

    pub(super) fn release(&mut self) {
        self.hold = Hold::Nothing;
    }

    /// Returns true if a job can be handled now.
    pub(super) fn has_work(&self) -> bool {
        self.ready() > 0 && !self.is_held()
    }

    /// Returns true if nothing is queued, runs, or is to be answered later.
    pub(super) fn is_idle(&self) -> bool {
        self.len() == 0 && self.workers() == 0 && self.deferred == 0
    }

    /// Returns true if one more worker pays, `limit` being how many may run.
    pub(super) fn wants_worker(&self, limit: usize) -> bool {
        // A worker that runs looks at the queue again after each handler. So one is enough for fast
        // handlers, and a further one would cost a wake-up for less than it saves.
        self.has_work() && self.running < limit && (self.running == 0 || self.usual > SLOW)
    }

    /// Takes the next job, for the worker with this slot.
    pub(super) fn pop(&mut self, slot: WorkerSlot) -> Option<Job> {
        if self.is_held() {
            return None;
        }
        // The job leaves the queue and enters its slot under one lock. A cancel, which looks at the
        // slots first and at the queue then, under the same lock, finds the request in one of the
        // two.
        let others = !self.jobs.is_empty();
        let of_lane = self.lanes.as_mut().and_then(|lanes| lanes.pop(slot, others));
        let mut job = match of_lane {
            Some(job) => job,
            None => self.jobs.pop_front()?,
        };
        self.has_left(&job);
        self.begun += 1;
        if !self.cancelled.is_empty() {
            // The request stays in the queue until its turn, and is answered without a call of the
            // handler.
            job.is_cancelled = self.cancelled.take(&job, self.len());
        }
        self.active.begin(slot, job.request_id());
        Some(job)
    }

    /// Notes that the handler in this slot has returned: the next one of its lane may start.
    #[inline]
    pub(super) fn returned(&mut self, slot: WorkerSlot) {
        if let Some(lanes) = &mut self.lanes {
            lanes.returned(slot);
        }
    }

    /// Keeps the turn of the handler in this slot, if it is one of a lane.
    pub(super) fn keep_turn(&mut self, slot: WorkerSlot) -> Option<LaneIndex> {
        self.lanes.as_mut()?.keep(slot)
    }

    /// Ends a turn that was kept.
    pub(super) fn end_turn(&mut self, lane: LaneIndex) {
        if let Some(lanes) = &mut self.lanes {
            lanes.free(lane);
        }
    }

    /// Takes the context of a job that was taken out.
    #[inline]
    pub(super) fn take_context(&mut self, job: &Job) -> RequestContext {
        if self.contexts.is_empty() {
            return RequestContext::default(); // nearly always
        }
        self.contexts.remove(&job.thread_id).unwrap_or_default()
    }

    fn has_left(&mut self, job: &Job) {
        let weight = job.weight();
        self.requests -= usize::from(job.request_id().is_some());
        self.weight -= usize::try_from(weight).unwrap_or(usize::MAX).min(self.weight);
        // A peer that did not keep to its window is trusted again once it is within it.
        self.is_exceeded &= self.weight >= self.window;
        self.receive.taken(weight);
    }

    /// Takes out the jobs that will not be handled.
    pub(super) fn take_out(&mut self, which: impl Fn(&Job) -> bool) -> Vec<Job> {
        // In one pass and under the lock. Its callers see to it that a peer cannot have the queue
        // searched once for each chunk it sends: `CancelledInQueue` collects, `refuse_queued` looks
        // for requests.
        let jobs = std::mem::take(&mut self.jobs);
        let (mut out, rest) = jobs.into_iter().partition::<Vec<_>, _>(&which);
        self.jobs = rest.into();
        if let Some(lanes) = &mut self.lanes {
            out.extend(lanes.take_out(which));
        }
        for job in &out {
            self.has_left(job);
            self.take_context(job);
        }
        out
    }

    /// Notes that a request is cancelled, if it is queued. Returns the requests to refuse now,
    /// maybe with this one.
    pub(crate) fn cancel_queued(&mut self, id: ThreadId) -> Vec<Job> {
        if !self.cancelled.add(id, self.len()) {
            return Vec::new();
        }
        let cancelled = std::mem::take(&mut self.cancelled);
        self.take_out(|job| cancelled.contains(job))
    }

    pub(super) fn progress(&self) -> HandlerProgress {
        HandlerProgress { begun: self.begun, vacancies: self.vacancies }
    }

    /// Begins the ticks of the event loop. Returns the progress at this time, or `None` if they
    /// have begun already.
    pub(super) fn begin_watch(&mut self) -> Option<HandlerProgress> {
        (!std::mem::replace(&mut self.is_watched, true)).then(|| self.progress())
    }

    /// Notes that the reader role is left vacant.
    pub(super) fn note_vacancy(&mut self) {
        self.vacancies += 1;
    }

    /// Notes the average time of handlers.
    pub(super) fn took(&mut self, each: Duration) {
        self.usual = (self.usual * 7 + each) / 8;
    }

    /// Notes that the dedicated reader comes with jobs. Returns true if it did a moment ago too.
    pub(super) fn comes_often(&mut self, now: Instant) -> bool {
        self.came.replace(now).is_some_and(|last| now.saturating_duration_since(last) < OFTEN)
    }

    /// Notes that a call of this side has ended. Returns true if the next one is likely to come
    /// soon.
    pub(super) fn calls_often(&mut self, now: Instant) -> bool {
        self.streak = if self.comes_often(now) { self.streak.saturating_add(1) } else { 0 };
        self.streak >= STREAK
    }

    /// Counts weight that was never queued as taken.
    pub(super) fn took_unqueued(&mut self, weight: u64) {
        self.receive.taken(weight);
    }

    /// Reports credits from now on: the peer negotiated `flow`.
    pub(super) fn negotiated(&mut self) {
        self.receive.negotiated();
    }

    /// Total that is to be sent as a credit, if one is due and no thread sends one.
    pub(super) fn credit_due(&mut self) -> Option<u64> {
        if self.is_crediting {
            return None; // the thread that sends one looks again afterwards
        }
        // The total counts all weight that was ever taken, so a credit that another thread was
        // about to send is part of the next one.
        let total = self.receive.report();
        self.is_crediting = total.is_some();
        total
    }

    /// Notes that a credit was sent. Returns the next one that is due.
    pub(super) fn credit_sent(&mut self) -> Option<u64> {
        self.is_crediting = false;
        self.credit_due()
    }
}

#[cfg(test)]
mod tests {
    use pipeplug_wire::{ChunkRef, Direction};

    use super::*;
    use crate::options::Order;

    fn job(id: u64) -> Job {
        let thread_id = ThreadId::new(id);
        Job::from(ChunkRef { thread_id, direction: Direction::Request, command: "c", buffer: b"" })
    }

    fn queue(window: usize) -> ServeQueue {
        ServeQueue::new(&Options { window, ..Options::default() })
    }

    fn add(queue: &mut ServeQueue, job: Job) -> bool {
        let weight = usize::try_from(job.weight()).unwrap();
        let exceeds = queue.add_weight(weight, weight);
        queue.push(job);
        exceeds
    }

    #[test]
    fn a_peer_without_flow_is_held_back_when_the_window_is_full() {
        let mut queue = queue(100);
        assert!(!add(&mut queue, job(1)) && !queue.is_full());
        assert!(!add(&mut queue, job(2)) && queue.is_full());
        let slot = queue.active.claim_slot();
        assert!(queue.pop(slot).is_some() && !queue.is_full());
    }

    #[test]
    fn a_peer_with_flow_is_held_back_once_it_does_not_keep_to_its_window() {
        let mut queue = queue(100);
        queue.negotiated();
        assert!(!add(&mut queue, job(1)));
        assert!(!add(&mut queue, job(2)) && !queue.is_full(), "one chunk may overshoot");
        assert!(add(&mut queue, job(3)) && queue.is_full());
        assert!(!add(&mut queue, job(4)), "told once");
    }

    #[test]
    fn jobs_leave_in_order_with_their_deadlines() {
        let mut queue = queue(1 << 20);
        let now = Instant::now();
        for id in 1..=3 {
            add(&mut queue, job(id));
        }
        let context = RequestContext { deadline: Some(now), ..RequestContext::default() };
        queue.set_context(ThreadId::new(2), context);
        let slot = queue.active.claim_slot();
        let left: Vec<_> = std::iter::from_fn(|| {
            let job = queue.pop(slot)?;
            Some((job.thread_id.as_u64(), queue.take_context(&job).deadline))
        })
        .collect();
        assert_eq!(left, [(1, None), (2, Some(now)), (3, None)]);
        assert!(queue.is_idle());
    }

    fn command(id: u64, command: &str) -> Job {
        let thread_id = ThreadId::new(id);
        Job::from(ChunkRef { thread_id, direction: Direction::Request, command, buffer: b"" })
    }

    fn ordered(order: Order) -> ServeQueue {
        ServeQueue::new(&Options { order, ..Options::default() })
    }

    fn take(queue: &mut ServeQueue, slot: WorkerSlot) -> Option<u64> {
        queue.pop(slot).map(|job| job.thread_id.as_u64())
    }

    #[test]
    fn a_job_of_a_lane_starts_once_the_one_before_has_returned() {
        let mut queue = ordered(Order::InOrder);
        for id in 1..=3 {
            add(&mut queue, job(id));
        }
        let (one, other) = (queue.active.claim_slot(), queue.active.claim_slot());
        assert_eq!(take(&mut queue, one), Some(1));
        assert_eq!(take(&mut queue, other), None);
        assert!(!queue.has_work() && !queue.is_idle() && queue.len() == 2);
        queue.returned(other);
        assert_eq!(take(&mut queue, other), None, "it has not run one");
        let lane = queue.keep_turn(one).unwrap();
        queue.returned(one);
        assert_eq!(take(&mut queue, one), None, "the turn is kept");
        queue.end_turn(lane);
        assert_eq!(take(&mut queue, other), Some(2));
        queue.returned(other);
        assert_eq!(take(&mut queue, other), Some(3));
        queue.returned(other);
        assert!(queue.is_idle());
    }

    #[test]
    fn lanes_and_other_commands_take_turns() {
        let sequences = [vec!["a".to_owned(), "b".to_owned()], vec!["c".to_owned()]];
        let mut queue = ordered(Order::InOrderFor(sequences.into()));
        for (id, name) in (0..).zip(["a", "b", "c", "x", "a", "y", "z"]) {
            add(&mut queue, command(id, name));
        }
        let slot = queue.active.claim_slot();
        let order: Vec<_> = std::iter::from_fn(|| {
            queue.returned(slot);
            take(&mut queue, slot)
        })
        .collect();
        assert_eq!(order, [0, 3, 2, 5, 1, 6, 4]);
    }

    #[test]
    fn jobs_of_lanes_are_cancelled_and_taken_out_like_others() {
        let mut queue = ordered(Order::InOrder);
        for id in 1..=2 {
            add(&mut queue, job(id));
        }
        assert_eq!(queue.cancel_queued(ThreadId::new(2)).len(), 1);
        assert_eq!(queue.take_out(|_| true).len(), 1);
        assert!(queue.is_idle() && !queue.has_work() && queue.weight == 0);
        add(&mut queue, job(3));
        let slot = queue.active.claim_slot();
        assert_eq!(take(&mut queue, slot), Some(3));
    }

    #[test]
    fn a_slow_handler_gets_another_worker_and_a_fast_one_does_not() {
        let mut queue = queue(1 << 20);
        add(&mut queue, job(1));
        assert!(queue.wants_worker(2), "no worker runs");
        queue.running = 1;
        assert!(!queue.wants_worker(2));
        queue.took(SLOW * 100);
        assert!(queue.wants_worker(2));
        assert!(!queue.wants_worker(1), "the limit is reached");
    }

    #[test]
    fn calls_come_often_after_many_in_quick_succession_until_one_is_late() {
        let mut queue = queue(1);
        let mut now = Instant::now();
        let mut often = |after| {
            now += after;
            queue.calls_often(now)
        };
        let soon = OFTEN / 2;
        for _ in 0..3 {
            assert!(!often(OFTEN));
            assert!((1..STREAK).all(|_| !often(soon)));
            assert!((0..10).all(|_| often(soon)));
        }
    }

    #[test]
    fn one_credit_is_sent_at_a_time() {
        let mut queue = queue(100);
        queue.negotiated();
        queue.took_unqueued(60);
        assert_eq!(queue.credit_due(), Some(60));
        queue.took_unqueued(60);
        assert_eq!(queue.credit_due(), None);
        assert_eq!(queue.credit_sent(), Some(120));
        assert_eq!(queue.credit_sent(), None);
    }
}
