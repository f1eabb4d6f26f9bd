//! The look into the pipe ahead of giving up a call whose deadline has passed.
//!
//! The reply may lie there: this process was stopped past the deadline (SIGSTOP, a suspended machine), or had no CPU. A
//! deadline ends the wait for what has not come, so what has come is read first. Who gives up reads by itself, or, where
//! another thread has the lead, sees to it that this one has dealt with what was in the pipe.

use std::sync::Arc;
use std::time::Duration;

use crate::connection::call::Slot;
use crate::connection::read::leader::Lead;
use crate::connection::read::{By, Turn, Until};
use crate::connection::shared::Core;
use crate::sync::lock::lock;
use crate::sync::{
    Instant,
    atomic::{AtomicU32, Ordering, fence},
};

/// How far off the next look is where another thread reads.
pub(crate) const EACH: Duration = Duration::from_millis(1);
/// No longer than this: a pipe that never gets empty must not keep a call open.
pub(crate) const LONGEST: Duration = Duration::from_millis(50);

/// How often somebody has read: odd while a thread does, until what it read is dealt with. Only who has the lead writes it.
#[derive(Debug, Default)]
pub(crate) struct Turns(AtomicU32);

impl Turns {
    pub(crate) fn begin(&self) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
        // Ahead of the read: who finds the pipe empty after it finds the number odd, or larger.
        fence(Ordering::Release);
    }

    pub(crate) fn end(&self) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(1), Ordering::Release);
    }

    /// Whether all that came has been dealt with: nobody is about to, and nothing `is_left` in the pipe.
    fn are_through(&self, is_left: impl FnOnce() -> bool) -> bool {
        let before = self.0.load(Ordering::Acquire);
        if before % 2 == 1 || is_left() {
            return false;
        }
        fence(Ordering::Acquire);
        self.0.load(Ordering::Relaxed) == before
    }
}

/// The outcome of a look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Look {
    /// All that had come has been dealt with.
    Through,
    /// Another thread is about to: look again a moment later.
    Later,
}

impl Core {
    /// Sees to it that what has come is dealt with, without waiting for another thread.
    pub(crate) fn look(self: &Arc<Self>) -> Look {
        if self.is_lent() && !self.is_between_calls() {
            self.take_over(); // from the connection's own reader, which is in a handler
        }
        if self.take_lead_to_call() {
            let turn = self.read(&mut lock(&self.reader), Until::Empty, By::Other);
            if !matches!(turn, Turn::Ended | Turn::Paused) {
                self.give_lead_back();
            }
            return Look::Through;
        }
        let lead = self.lead.load(Ordering::SeqCst);
        if lead == Lead::Paused as u8 || lead == Lead::Ended as u8 {
            return Look::Through; // nobody reads on
        }
        // A descriptor that is gone has ended meanwhile.
        let stream = lock(&self.registered).as_ref().map(|(_, stream)| Arc::clone(stream));
        let is_left = || stream.is_some_and(|stream| stream.is_readable());
        if self.turns.are_through(is_left) { Look::Through } else { Look::Later }
    }

    /// As [`look`](Core::look), and waits for another thread that reads, for a short time.
    pub(crate) fn look_until_through(self: &Arc<Self>, slot: &Slot) {
        let begun = Instant::now();
        while self.look() == Look::Later
            && begun.elapsed() < LONGEST
            && !slot.wait_done(Instant::now().checked_add(EACH))
        {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_reads_is_not_through_until_what_was_read_is_dealt_with() {
        let turns = Turns::default();
        assert!(turns.are_through(|| false));
        assert!(!turns.are_through(|| true));
        turns.begin();
        assert!(!turns.are_through(|| false));
        turns.end();
        assert!(turns.are_through(|| false));
        assert!(!turns.are_through(|| {
            turns.begin();
            turns.end();
            false
        }));
    }
}
