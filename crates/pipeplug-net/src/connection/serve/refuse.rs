//! What is not taken, and what the peer is told of that.

use std::sync::Arc;

use pipeplug_wire::{Direction, ThreadId, command};

use super::Inbox;
use crate::connection::read::leader::Lead;
use crate::connection::serve::request::Job;
use crate::connection::shared::Core;
use crate::event_loop::thread_pool::Exhausted;
use crate::sync::atomic::Ordering;
use crate::sync::lock::lock;
use crate::writer::Push;

impl Core {
    /// What is held, where it is so much that not even an open call has more read: one call after the other, or many at
    /// once, would have it grow without bound.
    pub(crate) fn overrun_by_now(&self) -> Option<usize> {
        let is_overrun = self.is_overrun.load(Ordering::Relaxed);
        if !is_overrun && self.lead.load(Ordering::SeqCst) != Lead::Paused as u8 {
            return None; // nearly always
        }
        let inbox = lock(&self.inbox);
        let held = Some(inbox.weight).filter(|held| *held > self.options.overrun);
        if held.is_none() {
            // Under the lock, under which it is set.
            self.is_overrun.store(false, Ordering::Relaxed);
        }
        held
    }

    /// More is held than even open calls excuse: a request is refused, and where one-ways come what waits for replies
    /// behind them is given up, since those cannot be read without bound.
    pub(super) fn overrun(self: &Arc<Self>, job: &Job, held: usize, limit: usize) {
        match job.request() {
            Some(id) => self.send_refusal(
                id,
                format!(
                    "not taken: {held} bytes of requests and one-ways wait for handlers, the limit is {limit}"
                ),
            ),
            None => self.give_up_calls(held, limit),
        }
    }

    /// The peer agreed to stop at its window, and did not: it is held back like one that agreed to nothing.
    pub(super) fn window_exceeded(&self) {
        if let Some(times) = self.counters.exceeded.count() {
            tracing::warn!(peer = %self.options.name, window = self.options.window, times,
                "the other side sends past the window that it agreed to; no more is read until handlers took some");
        }
    }

    /// Refuses a request where so many answers have been put off that it must not add one; gives what is to be handled.
    pub(super) fn unless_too_many_are_deferred(
        self: &Arc<Self>,
        job: Job,
        deferred: usize,
        push: Push,
    ) -> Option<Job> {
        match job.request() {
            Some(id) if !self.may_defer(deferred) => {
                self.respond(id, command::ERROR, self.too_many_deferred(deferred).into_bytes(), push);
                None
            }
            _ => Some(job),
        }
    }

    pub(super) fn may_defer(&self, deferred: usize) -> bool {
        deferred < self.options.deferred
    }

    pub(super) fn too_many_deferred(&self, deferred: usize) -> String {
        let limit = self.options.deferred;
        format!("not taken: {deferred} requests wait for their answers, the limit is {limit}")
    }

    /// Whether each thread that this connection may have waits for a call of its own.
    pub(super) fn share_is_blocked(&self, inbox: &Inbox) -> Option<Exhausted> {
        let limit = self.events.pool().share();
        (inbox.blocked >= limit).then_some(Exhausted { limit })
    }

    /// No thread is left and all there may be wait for calls: refusing requests lets those end. One-ways wait on.
    pub(crate) fn refuse_waiting(self: &Arc<Self>, exhausted: Exhausted) {
        let requests = {
            let mut inbox = lock(&self.inbox);
            // One-ways may be many, and whoever sends them could have them gone through again and again.
            if inbox.requests == 0 {
                return;
            }
            inbox.take_out(|job| job.direction == Direction::Request)
        };
        self.refuse(requests, &exhausted.to_string());
    }

    /// Answers requests with an error that were taken out of the inbox.
    pub(crate) fn refuse(self: &Arc<Self>, requests: Vec<Job>, message: &str) {
        if requests.is_empty() {
            return;
        }
        for job in requests {
            self.send_refusal(job.thread_id, message.to_owned());
        }
        let report = lock(&self.inbox).report();
        self.credit(report);
        self.resume_reading();
        self.finish_if_idle();
    }

    pub(super) fn send_refusal(self: &Arc<Self>, id: ThreadId, message: String) {
        self.send_control(id, Direction::Response, command::ERROR, message.into_bytes());
    }
}
