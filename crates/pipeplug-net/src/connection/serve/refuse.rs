//! Refuses requests that cannot be taken, and tells the peer why.

use std::sync::Arc;

use pipeplug_wire::{Direction, ThreadId, command};

use super::job::Job;
use super::queue::ServeQueue;
use crate::connection::read::leader::ReaderRole;
use crate::connection::shared::Shared;
use crate::event_loop::thread_pool::Exhausted;
use crate::protocol::failure::{Failure, failure_code};
use crate::sync::atomic::Ordering;
use crate::sync::lock::lock;
use crate::writer::{Flush, SendClass};

impl Shared {
    /// Weight that is queued, if it is so much that no call may be opened: an open call has more
    /// read, and one call after the other would let the queue grow without bound.
    pub(crate) fn overrun_by_now(&self) -> Option<usize> {
        // Relaxed and without the lock of the queue, for each call passes here. A call that misses
        // the flag is given up by the next one-way; see `admit`. A call has suspended reading go
        // on, so the weight is looked at for that, whatever the flag says.
        let is_overrun = self.is_overrun.load(Ordering::Relaxed);
        if !is_overrun && !self.leader.is(ReaderRole::Suspended) {
            return None; // nearly always
        }
        let queue = lock(&self.serve_queue);
        let held = Some(queue.weight).filter(|held| *held > self.options.overrun);
        if held.is_none() {
            // Under the lock under which it is set.
            self.is_overrun.store(false, Ordering::Relaxed);
        }
        held
    }

    /// Deals with more than open calls excuse: a request is refused. After a one-way open calls are
    /// given up, since their replies, which come behind it, cannot be read without bound.
    pub(super) fn overrun(self: &Arc<Self>, job: &Job, held: usize, limit: usize) {
        match job.request_id() {
            Some(id) => self.send_refusal(
                id,
                &overloaded(format!(
                    "not taken: {held} bytes of requests and one-ways wait for handlers, the limit is {limit}"
                )),
            ),
            None => self.give_up_calls(held, limit),
        }
    }

    /// Logs that the peer does not keep to the window it agreed to. It is held back like a peer
    /// without `flow`.
    pub(super) fn log_window_exceeded(&self) {
        if let Some(times) = self.counters.exceeded.count() {
            tracing::warn!(peer = %self.options.name, window = self.options.window, times,
                "the other side sends past the window that it agreed to; no more is read until handlers took some");
        }
    }

    /// Refuses a request if so many answers are deferred that it must not add one. Returns true if
    /// it was refused.
    #[inline]
    pub(super) fn refused_for_deferred(
        self: &Arc<Self>,
        job: &Job,
        deferred: usize,
        flush: Flush,
    ) -> bool {
        // By reference, since jobs that are moved once more cost a tenth of a one-way.
        let is_refused = !self.may_defer(deferred) && job.request_id().is_some();
        if is_refused {
            self.respond_failure(job.thread_id, &self.too_many_deferred(deferred), flush);
        }
        is_refused
    }

    pub(super) fn may_defer(&self, deferred: usize) -> bool {
        deferred < self.options.deferred
    }

    pub(super) fn too_many_deferred(&self, deferred: usize) -> Failure {
        let limit = self.options.deferred;
        overloaded(format!(
            "not taken: {deferred} requests wait for their answers, the limit is {limit}"
        ))
    }

    /// The exhaustion, if each thread that this connection may have waits for a call of its own.
    pub(super) fn share_is_blocked(&self, queue: &ServeQueue) -> Option<Exhausted> {
        let limit = self.events.handlers().share();
        (queue.blocked() >= limit).then_some(Exhausted { limit })
    }

    /// Refuses the queued requests: no thread is left, and all threads wait for calls, which end by
    /// that. One-ways stay.
    pub(super) fn refuse_queued(self: &Arc<Self>, exhausted: Exhausted) {
        let requests = {
            let mut queue = lock(&self.serve_queue);
            // There may be many one-ways, and a peer could have them searched again and again.
            if !queue.has_requests() {
                return;
            }
            // Taken out under the lock, and answered after it: a worker that comes meanwhile finds
            // each request either in the queue or refused, so each gets one answer.
            queue.take_out(|job| job.direction == Direction::Request)
        };
        self.refuse(requests, &overloaded(exhausted.to_string()));
    }

    /// Answers requests that were taken out of the queue with an error.
    pub(crate) fn refuse(self: &Arc<Self>, requests: Vec<Job>, failure: &Failure) {
        if requests.is_empty() {
            return;
        }
        for job in requests {
            self.send_refusal(job.thread_id, failure);
        }
        let credit = lock(&self.serve_queue).credit_due();
        self.send_credits(credit);
        self.resume_reading();
        self.finish_if_idle();
    }

    /// Sends an error response without waiting for room, for a request that was dropped.
    pub(crate) fn respond_dropped(self: &Arc<Self>, id: ThreadId, failure: &Failure) {
        self.end_peers_stream(id);
        let (command, buffer) = self.failure_chunk(failure);
        let (class, direction) = (SendClass::Admitted, Direction::Response);
        self.send_or_log(class, id, direction, command, buffer, Flush::Now);
    }

    /// Sends the error of a handler as its response.
    pub(crate) fn respond_failure(self: &Arc<Self>, id: ThreadId, failure: &Failure, flush: Flush) {
        let (command, buffer) = self.failure_chunk(failure);
        self.respond(id, command, buffer, flush);
    }

    /// Command and buffer of a response that is a failure. With a peer of the base protocol, only
    /// the message is sent.
    pub(crate) fn failure_chunk(&self, failure: &Failure) -> (&'static str, Vec<u8>) {
        // Relaxed: the flag publishes nothing else, and a peer that has named the feature takes
        // both.
        if failure.is_plain() || !self.peer.takes_failures.load(Ordering::Relaxed) {
            (command::ERROR, failure.message.clone().into_bytes())
        } else {
            (command::FAILURE, failure.encode())
        }
    }

    pub(crate) fn send_refusal(self: &Arc<Self>, id: ThreadId, failure: &Failure) {
        self.end_peers_stream(id);
        let (command, buffer) = self.failure_chunk(failure);
        self.send_control(id, Direction::Response, command, buffer);
    }
}

/// Failure of a request that is not taken, since too much waits or runs already.
pub(crate) fn overloaded(message: String) -> Failure {
    Failure::new(failure_code::OVERLOADED, message)
}
