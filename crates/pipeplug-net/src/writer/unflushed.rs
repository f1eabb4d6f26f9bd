//! How much of what waits to be written are answers for which nobody can be made to wait.
//!
//! Positions count all bytes that were ever put into the queue; what is written is what is not queued any more.

use std::collections::VecDeque;

#[derive(Debug, Default)]
pub(crate) struct Unread {
    /// Bytes that were ever put into the queue.
    total: u64,
    /// Where each answer in the queue ends, and its length.
    answers: VecDeque<(u64, usize)>,
    bytes: usize,
}

impl Unread {
    /// Bytes went to the end of the queue.
    pub(crate) fn appended(&mut self, len: usize) {
        self.total += len as u64;
    }

    /// What went there last is an answer.
    pub(crate) fn answered(&mut self, len: usize) {
        self.answers.push_back((self.total, len));
        self.bytes += len;
    }

    /// Only so much of the queue is left.
    pub(crate) fn left(&mut self, queued: usize) {
        let written = self.total - queued as u64;
        while let Some((_, len)) = self.answers.pop_front_if(|(end, _)| *end <= written) {
            self.bytes -= len;
        }
    }

    /// Bytes that were ever put into the queue.
    pub(crate) fn total(&self) -> u64 {
        self.total
    }

    /// Bytes of answers that wait.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_counts_until_its_last_byte_is_written() {
        let mut unread = Unread::default();
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
