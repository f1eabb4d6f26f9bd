//! Counts the queued bytes of responses that no thread can wait for.
//!
//! Positions count all bytes that were ever queued. Bytes that are no longer queued are written.

use std::collections::VecDeque;

#[derive(Debug, Default)]
pub(super) struct Unflushed {
    /// Bytes that were ever queued.
    total: u64,
    /// End position and length of each response in the queue.
    answers: VecDeque<(u64, usize)>,
    bytes: usize,
}

impl Unflushed {
    /// Notes `len` bytes at the end of the queue.
    pub(super) fn appended(&mut self, len: usize) {
        self.total += len as u64;
    }

    /// Notes that the last `len` bytes of the queue are such a response.
    pub(super) fn answered(&mut self, len: usize) {
        self.answers.push_back((self.total, len));
        self.bytes += len;
    }

    /// Notes that only `queued` bytes of the queue are left.
    pub(super) fn left(&mut self, queued: usize) {
        let written = self.total - queued as u64;
        while let Some(&(end, len)) = self.answers.front()
            && end <= written
        {
            self.answers.pop_front();
            self.bytes -= len;
        }
    }

    /// Bytes that were ever queued.
    pub(super) fn total(&self) -> u64 {
        self.total
    }

    /// Bytes of responses that are not completely written.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_counts_until_its_last_byte_is_written() {
        let mut unread = Unflushed::default();
        unread.appended(100);
        unread.appended(10);
        unread.answered(10);
        unread.appended(5);
        unread.answered(5);
        assert_eq!(unread.bytes(), 15);
        unread.left(6);
        assert_eq!(unread.bytes(), 15);
        unread.left(5);
        assert_eq!(unread.bytes(), 5);
        unread.left(0);
        assert_eq!(unread.bytes(), 0);
    }
}
