//! How callers wait where others do too.
//!
//! A thread that sleeps until its reply is there costs two system calls and two switches, and on a virtual machine
//! often an interrupt of another CPU, which is most of what a call takes. Where many threads call at once there is
//! always one of them that can run instead: a caller gives way to the others (sched_yield(2)), and when its turn comes
//! again its reply is there, most of the time, without anybody having woken anybody. What all of them left in the outbox
//! meanwhile leaves in one write of the first that comes round, and the first that finds no reply reads those of all.
//!
//! Between two looks the lead is `Lent`, as it is between two calls of one thread: the loop's tick sees to it that somebody
//! reads where all of them are kept from running. Who finds nothing after some rounds sleeps, and whether it is worth
//! giving way is learned from that.

use std::sync::Arc;
use std::time::Duration;

use crate::connection::call::Slot;
use crate::connection::read::{By, Turn, Until};
use crate::connection::shared::Core;
use crate::options::Reading;
use crate::sync::lock::lock;
use crate::sync::{
    Instant,
    atomic::{AtomicU32, AtomicUsize, Ordering},
    thread,
};

/// So often a caller looks for its reply before it sleeps: about as much CPU time as being woken takes.
const ROUNDS: u32 = 32;
/// For each caller that is there a turn of all of them may take so long. What takes longer was spent on other programs,
/// and who is woken need not wait for those.
const EACH: Duration = Duration::from_micros(20);
/// At most 2 to the power of this many waits go by without giving way.
const MAX_SKIPPED: u32 = 10;

/// The callers that look for their replies each time that they run, and what has come of it. All of them write it: it
/// has a cache line of its own.
#[derive(Debug, Default)]
#[repr(align(64))]
pub(crate) struct Crowd {
    here: AtomicUsize,
    /// How often in a row it brought nothing.
    misses: AtomicU32,
    /// So many waits go by without it.
    skip: AtomicU32,
}

impl Crowd {
    /// Whether nobody is going to look.
    pub(crate) fn is_empty(&self) -> bool {
        self.here.load(Ordering::SeqCst) == 0
    }

    /// Whether it has paid lately.
    fn pays(&self) -> bool {
        let one_less = |skip: u32| skip.checked_sub(1);
        self.skip.load(Ordering::Relaxed) == 0
            || self.skip.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less).is_err()
    }

    fn hit(&self) {
        // Most of the time there is nothing to change, and writing would take the cache line from the other CPUs.
        if self.misses.load(Ordering::Relaxed) != 0 {
            self.misses.store(0, Ordering::Relaxed);
            self.skip.store(0, Ordering::Relaxed);
        }
    }

    fn miss(&self) {
        let misses = self.misses.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        // The first one may be an accident.
        let skip = if misses == 1 { 0 } else { 1 << misses.min(MAX_SKIPPED) };
        self.skip.store(skip, Ordering::Relaxed);
    }
}

impl Core {
    /// Whether other callers wait for replies, so that there is somebody to give way to.
    pub(crate) fn is_crowded(&self) -> bool {
        !Self::leads_ahead()
            && self.options.reading == Reading::Shared
            && !self.options.spin.is_zero()
            && !self.is_alone()
    }

    /// Gives way to other callers until the call is done, as long as that has paid lately.
    pub(crate) fn give_way(self: &Arc<Self>, slot: &Slot, deadline: Option<Instant>) {
        if !self.crowd.pays() {
            return;
        }
        let others = self.crowd.here.fetch_add(1, Ordering::SeqCst);
        let start = Instant::now();
        let longest = EACH.saturating_mul(u32::try_from(others + 1).unwrap_or(u32::MAX));
        let mut rounds = 0..ROUNDS;
        let found = loop {
            thread::yield_now();
            if slot.is_done() {
                break true;
            }
            self.flush();
            self.read_in_passing();
            if slot.is_done() {
                break true;
            }
            let now = Instant::now();
            if rounds.next().is_none()
                || now.saturating_duration_since(start) > longest
                || deadline.is_some_and(|deadline| now >= deadline)
            {
                break false;
            }
        };
        if found && start.elapsed() <= longest {
            self.crowd.hit();
        } else {
            self.crowd.miss();
        }
        // Who goes to sleep counts itself first and looks for the crowd then; this is the other way round.
        if self.crowd.here.fetch_sub(1, Ordering::SeqCst) == 1
            && (self.leaves_sleepers() || lock(&self.calls).is_empty())
        {
            self.take_over();
        }
    }

    /// Reads what is there, unless somebody else reads.
    fn read_in_passing(self: &Arc<Self>) {
        if !self.take_lead_to_call() {
            return;
        }
        let turn = self.read(&mut lock(&self.reader), Until::Short, By::Other);
        if !matches!(turn, Turn::Ended | Turn::Paused) {
            self.lend_between_calls();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_never_pays_is_hardly_tried() {
        let crowd = Crowd::default();
        let mut tried = 0;
        for _ in 0..10_000 {
            if crowd.pays() {
                tried += 1;
                crowd.miss();
            }
        }
        assert!((10..25).contains(&tried), "{tried}");
    }

    #[test]
    fn once_it_pays_it_is_done_each_time_again() {
        let crowd = Crowd::default();
        for _ in 0..5 {
            crowd.miss();
        }
        while !crowd.pays() {}
        crowd.hit();
        assert!((0..10).all(|_| crowd.pays()));
    }
}
