//! Last read before a call is given up whose deadline has passed.
//!
//! The reply may lie in the pipe: this process was stopped past the deadline (SIGSTOP, a suspended
//! machine), or had no CPU. A deadline ends the wait for what has not arrived, so what has arrived
//! is read first. The caller reads by itself. Where another thread is the leader, the caller waits
//! until that thread has dealt with what was in the pipe.

use std::sync::Arc;
use std::time::Duration;

use super::leader::ReaderRole;
use super::{ReadOutcome, ReadUntil, ReaderKind};
use crate::connection::call::CallSlot;
use crate::connection::shared::Shared;
use crate::sync::lock::lock;
use crate::sync::{
    Instant,
    atomic::{AtomicU32, Ordering, fence},
};

/// Pause before the next look while another thread reads.
pub(crate) const RETRY: Duration = Duration::from_millis(1);
/// Longest time for the last read: a pipe that never gets empty must not keep a call open.
pub(crate) const LONGEST: Duration = Duration::from_millis(50);

/// Number of reads. Odd while a thread reads, until what it has read is dealt with. Written by the
/// leader only.
#[derive(Debug, Default)]
pub(crate) struct ReadSequence(AtomicU32);

impl ReadSequence {
    pub(crate) fn begin(&self) {
        // No read-modify-write: one leader after the other writes it, and each sees the store of
        // the one before it through the role and the lock of the reader.
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
        // Before the read: a thread that finds the pipe empty after it finds the number odd, or
        // larger.
        fence(Ordering::Release);
    }

    pub(crate) fn end(&self) {
        // After the chunks were dealt with: a thread that loads this number finds their calls done.
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(1), Ordering::Release);
    }

    /// Returns true if everything that has arrived is dealt with: no thread is about to, and
    /// nothing `is_left` in the pipe.
    fn is_settled(&self, is_left: impl FnOnce() -> bool) -> bool {
        let before = self.0.load(Ordering::Acquire);
        if before % 2 == 1 || is_left() {
            return false;
        }
        // As in a seqlock: the look into the pipe stays between the two loads.
        fence(Ordering::Acquire);
        self.0.load(Ordering::Relaxed) == before
    }
}

/// Result of a last read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FinalRead {
    /// Everything that had arrived is dealt with.
    Complete,
    /// Another thread is about to deal with it: try again after [`RETRY`].
    Retry,
}

impl Shared {
    /// Deals with what has arrived, without waiting for another thread.
    pub(crate) fn final_read(self: &Arc<Self>) -> FinalRead {
        if self.leader.is(ReaderRole::Vacant) && !self.is_between_calls() {
            self.return_vacant_role(); // from the dedicated reader, which runs a handler
        }
        if self.take_role_to_call() {
            let outcome =
                self.read(&mut lock(&self.leader.reader), ReadUntil::Empty, ReaderKind::Other);
            if !matches!(outcome, ReadOutcome::Ended | ReadOutcome::Suspended) {
                self.return_role_to_loop();
            }
            return FinalRead::Complete;
        }
        if self.leader.is(ReaderRole::Suspended) || self.leader.is(ReaderRole::Ended) {
            return FinalRead::Complete; // no thread reads on
        }
        // Without a descriptor, reading has ended meanwhile.
        let stream = self.leader.stream();
        let is_left = || stream.is_some_and(|stream| stream.is_readable());
        if self.leader.reads.is_settled(is_left) { FinalRead::Complete } else { FinalRead::Retry }
    }

    /// Deals with what has arrived. Waits up to [`LONGEST`] for another thread that reads.
    pub(crate) fn final_read_blocking(self: &Arc<Self>, slot: &CallSlot) {
        let begun = Instant::now();
        // Polled, since the leader tells no thread when it is through. A leader that has this
        // call's reply completes the slot, which ends the wait at once.
        while self.final_read() == FinalRead::Retry
            && begun.elapsed() < LONGEST
            && !slot.wait_done(Instant::now().checked_add(RETRY))
        {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_reads_is_not_through_until_what_was_read_is_dealt_with() {
        let reads = ReadSequence::default();
        assert!(reads.is_settled(|| false));
        assert!(!reads.is_settled(|| true));
        reads.begin();
        assert!(!reads.is_settled(|| false));
        reads.end();
        assert!(reads.is_settled(|| false));
        assert!(!reads.is_settled(|| {
            reads.begin();
            reads.end();
            false
        }));
    }
}
