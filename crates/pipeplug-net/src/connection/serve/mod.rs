//! Serves the peer's requests and one-ways: queues them, and runs their handlers.

pub(crate) mod job;
pub(crate) mod lanes;
pub(crate) mod queue;
pub(crate) mod refuse;
mod workers;

use std::sync::Arc;

use pipeplug_wire::{Direction, ThreadId};

use super::cancellation::{CancelToken, WorkerSlot};
use super::read::ReaderKind;
use super::shared::Shared;
use crate::options::Order;
use crate::protocol::context::RequestContext;
use crate::protocol::failure::Failure;
use crate::sync::atomic::Ordering;
use crate::sync::lock::lock;
use job::{Job, JobInPlace};
use lanes::LaneIndex;
use queue::SLOW;
use refuse::overloaded;

/// Result of queueing a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Admission {
    Continue,
    /// Reading is suspended: the queue is full.
    Full,
}

impl Shared {
    /// Queues a request or one-way, on the thread that reads.
    pub(crate) fn admit(
        self: &Arc<Self>,
        job: Job,
        context: Option<RequestContext>,
        by: ReaderKind,
    ) -> Admission {
        let weight = job.weight();
        let mut queue = lock(&self.serve_queue);
        if queue.is_exempt(&job.command) {
            let context = context.unwrap_or_else(|| queue.take_context(&job));
            let deferred = queue.deferred;
            // Released before each send of this function: sending takes the lock of the writer,
            // which is taken before that of the queue (see `Shared`).
            drop(queue);
            if self.may_defer(deferred) {
                self.run_unqueued(job, context);
            } else if let Some(id) = job.request_id() {
                self.send_refusal(id, &self.too_many_deferred(deferred));
            }
            self.credit_unqueued(weight);
            return Admission::Continue;
        }
        let more = usize::try_from(weight).unwrap_or(usize::MAX);
        let limit = self.options.overrun;
        // As with the window, one chunk may go past it, so that none is too large to be ever taken.
        if queue.weight >= limit && queue.len() > 0 {
            let held = queue.weight.saturating_add(more);
            queue.take_context(&job);
            if job.direction != Direction::Request {
                // A caller that reads the flag too early may open its call after `give_up_calls`
                // below. If the weight is still over the limit then, the next one-way comes here
                // and gives that call up.
                self.is_overrun.store(true, Ordering::Relaxed);
            }
            drop(queue);
            self.overrun(&job, held, limit);
            if job.direction == Direction::Request {
                self.credit_unqueued(weight);
                return Admission::Full;
            }
            queue = lock(&self.serve_queue);
        }
        if let (Some(id), Some(exhausted)) = (job.request_id(), self.share_is_blocked(&queue)) {
            queue.take_context(&job);
            drop(queue);
            self.send_refusal(id, &overloaded(exhausted.to_string()));
            self.credit_unqueued(weight);
            return Admission::Continue;
        }
        let exceeds = queue.add_weight(more, more);
        if let Some(context) = context {
            queue.set_context(job.thread_id, context);
        }
        queue.push(job);
        let is_full = queue.is_full();
        // The dedicated reader takes jobs by itself. Beside slow handlers it gets other workers.
        let another =
            (by == ReaderKind::Other || queue.usual > SLOW) && self.claim_worker(&mut queue);
        // The job waits behind handlers that run. If one of them does not return, the tick of the
        // event loop starts another worker: no other thread would look at the queue again.
        let waits = !another && queue.running > 0 && !queue.is_held();
        let watch = if waits { queue.begin_watch() } else { None };
        drop(queue);
        // Counted under the lock and started after it. Another thread that admits a job in between
        // sees the worker as running, and `is_idle` does not see the connection as idle.
        if another {
            self.start_worker();
        }
        if let Some(progress) = watch {
            self.watch_for_stall(progress);
        }
        if exceeds {
            self.log_window_exceeded();
        }
        if is_full { Admission::Full } else { Admission::Continue }
    }

    /// Queues the jobs that lie in `input`, for the dedicated reader.
    pub(crate) fn admit_in_place(
        self: &Arc<Self>,
        in_place: &mut Vec<JobInPlace>,
        contexts: &mut Vec<(ThreadId, RequestContext)>,
        input: &Arc<Vec<u8>>,
    ) -> Admission {
        let weight_of = |job: &JobInPlace| usize::try_from(job.weight()).unwrap_or(usize::MAX);
        let total = in_place.iter().map(weight_of).fold(0, usize::saturating_add);
        let last = in_place.last().map_or(0, weight_of);
        let mut jobs = in_place.drain(..).map(|job| job.into_job(input));
        let mut queue = lock(&self.serve_queue);
        queue.set_contexts(contexts);
        // A job that waits for other workers must not keep the whole input, of which it may be a
        // small part. Jobs that may have to be refused are admitted one by one.
        if queue.running > 0
            || queue.is_held()
            || queue.weight.saturating_add(total) > self.options.overrun
        {
            drop(queue);
            let mut admission = Admission::Continue;
            for mut job in jobs {
                job.own();
                if self.admit(job, None, ReaderKind::Dedicated) == Admission::Full {
                    admission = Admission::Full;
                }
            }
            return admission;
        }
        let exceeds = queue.add_weight(total, last);
        jobs.by_ref().for_each(|job| queue.push(job));
        let is_full = queue.is_full();
        let another = queue.usual > SLOW && self.claim_worker(&mut queue);
        drop((queue, jobs));
        if another {
            self.start_worker();
        }
        if exceeds {
            self.log_window_exceeded();
        }
        if is_full { Admission::Full } else { Admission::Continue }
    }

    /// Lets handlers run that were held back by [`Options::hold`](crate::Options).
    pub(crate) fn release(self: &Arc<Self>) {
        let mut queue = lock(&self.serve_queue);
        queue.release();
        let another = self.claim_worker(&mut queue);
        drop(queue);
        if another {
            self.start_worker();
        }
        self.finish_if_idle();
    }

    /// Sends credits from now on: both sides negotiated `flow`.
    pub(crate) fn count_received(self: &Arc<Self>) {
        let credit = {
            let mut queue = lock(&self.serve_queue);
            queue.negotiated();
            queue.credit_due()
        };
        // What was taken until now may be all that the peer is allowed to send.
        self.send_credits(credit);
        self.resume_reading();
    }

    /// Counts the weight of a chunk that was never queued as taken.
    pub(crate) fn credit_unqueued(self: &Arc<Self>, weight: u64) {
        let credit = {
            let mut queue = lock(&self.serve_queue);
            queue.took_unqueued(weight);
            queue.credit_due()
        };
        self.send_credits(credit);
    }

    /// Sends a credit, and those that become due meanwhile.
    fn send_credits(self: &Arc<Self>, credit: Option<u64>) {
        let mut credit = credit;
        // Not under the lock of the queue, since sending takes that of the writer. One thread sends
        // at a time (`ServeQueue::credit_due`), so the totals leave in ascending order, and looks
        // again after each: a total that became due meanwhile, when another thread was turned away,
        // is sent here.
        while let Some(total) = credit {
            self.send_credit(total);
            credit = lock(&self.serve_queue).credit_sent();
        }
    }

    /// Returns true if so much is queued that reading is suspended.
    pub(crate) fn is_full(&self) -> bool {
        lock(&self.serve_queue).is_full()
    }

    /// Weight that is queued, in bytes.
    pub(crate) fn held(&self) -> usize {
        lock(&self.serve_queue).weight
    }

    /// Returns true if nothing is queued, runs, or is to be answered later.
    pub(crate) fn is_idle(&self) -> bool {
        lock(&self.serve_queue).is_idle()
    }

    /// Returns true if a handler could run.
    pub(crate) fn has_jobs(&self) -> bool {
        lock(&self.serve_queue).has_work()
    }

    /// Counts one more deferred answer.
    pub(crate) fn defer(&self) {
        lock(&self.serve_queue).deferred += 1;
    }

    /// Counts a deferred answer as given.
    pub(crate) fn deferred_done(self: &Arc<Self>) {
        // An answer was sent before: `finish_if_idle` may close the writer once this is counted.
        lock(&self.serve_queue).deferred -= 1;
        self.finish_if_idle();
    }

    /// Keeps the turn of the handler in this slot, if its command is handled in order.
    pub(crate) fn keep_turn(&self, slot: WorkerSlot) -> Option<LaneIndex> {
        if self.options.order == Order::Concurrent {
            return None;
        }
        let mut queue = lock(&self.serve_queue);
        let lane = queue.keep_turn(slot)?;
        // The worker counts as well until the handler returns. So the connection is idle at no
        // moment, though the jobs behind it could not start.
        queue.deferred += 1;
        Some(lane)
    }

    /// Ends a turn that was kept: the next job of the lane may start.
    pub(crate) fn end_turn(self: &Arc<Self>, lane: LaneIndex) {
        let mut queue = lock(&self.serve_queue);
        queue.end_turn(lane);
        let another = self.claim_worker(&mut queue);
        // As for a job that is admitted.
        let waits = !another && queue.has_work();
        let watch = if waits { queue.begin_watch() } else { None };
        drop(queue);
        if another {
            self.start_worker();
        }
        if let Some(progress) = watch {
            self.watch_for_stall(progress);
        }
        self.deferred_done();
    }

    /// Notes that the request in this slot will be answered later.
    pub(crate) fn answer_later(&self, slot: WorkerSlot) {
        let mut queue = lock(&self.serve_queue);
        // The worker that runs the handler still counts as well: the connection is idle at no
        // moment between the handler's return and the answer.
        queue.deferred += 1;
        queue.active.answer_later(slot);
    }

    /// Notes that a task handles the one-way in this slot. `Err` if as many requests and one-ways
    /// wait for tasks as may.
    pub(crate) fn detach_one_way(
        &self,
        slot: WorkerSlot,
    ) -> Result<(u64, Arc<CancelToken>), Failure> {
        let mut queue = lock(&self.serve_queue);
        if !self.may_defer(queue.deferred) {
            return Err(self.too_many_deferred(queue.deferred));
        }
        queue.deferred += 1;
        Ok(queue.active.detach_one_way(slot))
    }

    /// Notes that a task has handled a one-way.
    pub(crate) fn one_way_done(self: &Arc<Self>, number: u64) {
        lock(&self.serve_queue).active.one_way_done(number);
        self.deferred_done();
    }

    /// Notes that a request that was to be answered later is answered.
    pub(crate) fn answered_later(self: &Arc<Self>, id: ThreadId) {
        lock(&self.serve_queue).active.answered_later(id);
        self.deferred_done();
    }
}
