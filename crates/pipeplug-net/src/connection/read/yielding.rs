//! Callers that yield to each other instead of sleeping.
//!
//! A thread that sleeps until its reply is there costs two system calls and two context switches,
//! and on a virtual machine often an interrupt of another CPU, which is most of what a call takes.
//! Where many threads call at once, one of them can always run instead. A caller yields to the
//! others (sched_yield(2)), and when it runs again its reply is there most of the time, though no
//! thread has woken another. What all of them left in the queue leaves in one write of the first
//! that runs again, and the first that finds no reply reads the replies of all.
//!
//! Between two looks the reader role is `Vacant`, as it is between two calls of one thread. The
//! tick of the event loop makes sure that a thread reads if all of them are kept from running. A
//! caller that finds nothing after some rounds sleeps. Whether yielding pays is learned from that.

use std::sync::Arc;
use std::time::Duration;

use super::leader::is_early_leader;
use super::spin::skips_after;
use super::{ReadOutcome, ReadUntil, ReaderKind};
use crate::clock::has_passed_at;
use crate::connection::call::CallSlot;
use crate::connection::shared::Shared;
use crate::options::Reading;
use crate::sync::lock::lock;
use crate::sync::{
    Instant,
    atomic::{AtomicU32, AtomicUsize, Ordering},
    thread,
};

/// Number of times that a caller looks for its reply before it sleeps: about as much CPU time as a
/// wake-up takes.
const ROUNDS: u32 = 32;
/// Longest time of one turn of all callers, for each of them. What takes longer was spent on other
/// programs, and a thread that sleeps need not wait for those.
const TURN_EACH: Duration = Duration::from_micros(20);

/// The yielding callers, and whether yielding has paid.
///
/// All callers write it, so it has a cache line of its own.
#[derive(Debug, Default)]
#[repr(align(64))]
pub(crate) struct Yielding {
    callers: AtomicUsize,
    /// Waits in a row in which yielding brought nothing.
    misses: AtomicU32,
    /// Number of waits to go without yielding.
    skip: AtomicU32,
}

impl Yielding {
    /// Returns true if no caller yields.
    pub(crate) fn is_empty(&self) -> bool {
        self.callers.load(Ordering::SeqCst) == 0
    }

    /// Returns true if yielding has paid lately.
    fn pays(&self) -> bool {
        // Relaxed, here and below: hints about how often to try. Updates that race lose a count or
        // two.
        let one_less = |skip: u32| skip.checked_sub(1);
        self.skip.load(Ordering::Relaxed) == 0
            || self.skip.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less).is_err()
    }

    fn hit(&self) {
        // Mostly nothing changes, and a write would take the cache line from the other CPUs.
        if self.misses.load(Ordering::Relaxed) != 0 {
            self.misses.store(0, Ordering::Relaxed);
            self.skip.store(0, Ordering::Relaxed);
        }
    }

    fn miss(&self) {
        let misses = self.misses.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        self.skip.store(skips_after(misses), Ordering::Relaxed);
    }
}

impl Shared {
    /// Returns true if other callers wait for replies, to which this one could yield.
    pub(crate) fn has_other_callers(&self) -> bool {
        !is_early_leader()
            && self.options.reading == Reading::Shared
            && !self.options.spin.is_zero()
            && !self.leader.is_only_caller()
    }

    /// Yields to other callers until the call is done, as long as that has paid lately.
    pub(crate) fn yield_to_callers(self: &Arc<Self>, slot: &CallSlot, deadline: Option<Instant>) {
        let yielding = &self.leader.yielding;
        if !yielding.pays() {
            return;
        }
        // Counted before the first look. From here on a thread that goes to sleep leaves a vacant
        // role as it is, and relies on this thread to read, or to return the role when it leaves.
        let others = yielding.callers.fetch_add(1, Ordering::SeqCst);
        let start = Instant::now();
        let longest = TURN_EACH.saturating_mul(u32::try_from(others + 1).unwrap_or(u32::MAX));
        let mut rounds = 0..ROUNDS;
        let found = loop {
            thread::yield_now();
            if slot.is_done() {
                break true;
            }
            // The requests of all callers that yielded since the last flush leave in this write.
            // Without it two callers could yield to each other for replies to requests that are
            // still queued.
            self.flush();
            self.read_in_passing();
            if slot.is_done() {
                break true;
            }
            let now = Instant::now();
            if rounds.next().is_none()
                || now.saturating_duration_since(start) > longest
                || deadline.is_some_and(|deadline| has_passed_at(deadline, now))
            {
                break false;
            }
        };
        if found && start.elapsed() <= longest {
            yielding.hit();
        } else {
            yielding.miss();
        }
        // A caller that goes to sleep counts itself first and looks for yielding callers then. This
        // is the other way round, so that one of the two sees the other. Where no call is open, no
        // caller comes back for the vacant role: the loop gets it now and not at its next tick.
        if yielding.callers.fetch_sub(1, Ordering::SeqCst) == 1
            && (self.leader.leaves_sleepers() || lock(&self.calls).is_empty())
        {
            self.return_vacant_role();
        }
    }

    /// Reads what is there, unless another thread reads.
    fn read_in_passing(self: &Arc<Self>) {
        if !self.take_role_to_call() {
            return;
        }
        let outcome =
            self.read(&mut lock(&self.leader.reader), ReadUntil::OneRead, ReaderKind::Other);
        // An ended or suspended role is not this thread's any more.
        if !matches!(outcome, ReadOutcome::Ended | ReadOutcome::Suspended) {
            self.leave_between_calls();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_never_pays_is_hardly_tried() {
        let yielding = Yielding::default();
        let mut tried = 0;
        for _ in 0..10_000 {
            if yielding.pays() {
                tried += 1;
                yielding.miss();
            }
        }
        assert!((10..25).contains(&tried), "{tried}");
    }

    #[test]
    fn once_it_pays_it_is_done_each_time_again() {
        let yielding = Yielding::default();
        for _ in 0..5 {
            yielding.miss();
        }
        while !yielding.pays() {}
        yielding.hit();
        assert!((0..10).all(|_| yielding.pays()));
    }
}
