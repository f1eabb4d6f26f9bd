//! Chunk boundaries in the classic format, and how much leaves in one write.
//!
//! The Go package reads a header byte by byte and a buffer with one read(2), and takes what that
//! returns for the whole buffer (docs/protocol.md, "Writes of the classic format"). A buffer must
//! therefore lie in the pipe as a whole before any of it can be read: it leaves in one write, and
//! only when the pipe has room for it. A write of at most `PIPE_BUF` bytes is taken as a whole or
//! not at all (pipe(7)). For a larger one the room is looked up first.

use std::collections::VecDeque;

use crate::sys::{ATOMIC_WRITE, Room, STRIDE};

/// Queued chunks, in order. Empty in the standard format, whose writes may end anywhere.
#[derive(Debug, Default)]
pub(super) struct ClassicChunks(VecDeque<ClassicChunk>);

/// Rest of a chunk that is not written yet, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct ClassicChunk {
    header: usize,
    buffer: usize,
    /// True once a part of the buffer was written without the rest.
    is_cut: bool,
}

/// Next step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WriteStep {
    /// Write this many bytes, or as many of them as the pipe takes.
    Write(usize),
    /// Wait until the pipe has more room.
    Wait,
}

impl ClassicChunks {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn push(&mut self, header: usize, buffer: usize) {
        self.0.push_back(ClassicChunk { header, buffer, is_cut: false });
    }

    pub(super) fn append(&mut self, other: &mut Self) {
        if !other.0.is_empty() {
            self.0.append(&mut other.0);
        }
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// Returns how much to write next. `room_for` makes room for a number of bytes, and returns the
    /// room if it is known.
    pub(super) fn step(&self, room_for: impl FnOnce(usize) -> Option<Room>) -> WriteStep {
        let Some(first) = self.0.front() else { return WriteStep::Write(STRIDE) };
        let total = first.header + first.buffer;
        if total <= ATOMIC_WRITE {
            return WriteStep::Write(self.joined());
        }
        let Some(room) = room_for(total) else { return WriteStep::Write(total.min(STRIDE)) };
        if total <= room.now {
            WriteStep::Write(total)
        } else if total <= room.empty && !first.is_cut {
            WriteStep::Wait
        } else if first.header > 0 {
            // The header goes first: the pipe holds the buffer without it, or not at all.
            WriteStep::Write(first.header.min(ATOMIC_WRITE))
        } else if first.buffer > room.empty || first.is_cut {
            // It has to be cut: no pipe holds it, or a part of it was written before.
            WriteStep::Write(first.buffer.min(STRIDE))
        } else {
            WriteStep::Wait
        }
    }

    /// Length of the first chunk and of those behind it that leave in the same write.
    fn joined(&self) -> usize {
        let mut joined = 0;
        for outline in &self.0 {
            let total = outline.header + outline.buffer;
            if joined + total > ATOMIC_WRITE {
                break;
            }
            joined += total;
        }
        joined
    }

    /// Notes that `bytes` bytes were written.
    pub(super) fn wrote(&mut self, mut bytes: usize) {
        while bytes > 0
            && let Some(first) = self.0.front_mut()
        {
            let header = bytes.min(first.header);
            first.header -= header;
            bytes -= header;
            let buffer = bytes.min(first.buffer);
            first.buffer -= buffer;
            bytes -= buffer;
            first.is_cut |= buffer > 0;
            if first.header + first.buffer > 0 {
                break;
            }
            self.0.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NO_ROOM: Room = Room { now: 0, empty: 65_536 };

    fn of(chunks: &[(usize, usize)]) -> ClassicChunks {
        let mut classic = ClassicChunks::default();
        chunks.iter().for_each(|(header, buffer)| classic.push(*header, *buffer));
        classic
    }

    fn unasked(_: usize) -> Option<Room> {
        panic!("a write that the pipe takes as a whole or not at all needs no look")
    }

    #[test]
    fn without_chunks_writes_may_end_anywhere() {
        assert_eq!(of(&[]).step(unasked), WriteStep::Write(STRIDE));
    }

    #[test]
    fn small_chunks_leave_together_up_to_the_end_of_one() {
        assert_eq!(
            of(&[(10, 3000), (10, 1000), (10, 1000)]).step(unasked),
            WriteStep::Write(3010 + 1010)
        );
        assert_eq!(of(&[(10, 3000), (10, 3000)]).step(unasked), WriteStep::Write(3010));
        assert_eq!(of(&[(10, 0), (96, 4000)]).step(unasked), WriteStep::Write(10));
        assert_eq!(of(&[(96, 4000)]).step(unasked), WriteStep::Write(4096));
    }

    #[test]
    fn a_large_chunk_waits_for_room_and_leaves_alone() {
        let classic = of(&[(10, 10_000), (10, 0)]);
        assert_eq!(classic.step(|len| (len == 10_010).then_some(NO_ROOM)), WriteStep::Wait);
        assert_eq!(
            classic.step(|_| Some(Room { now: 12_288, ..NO_ROOM })),
            WriteStep::Write(10_010)
        );
        assert_eq!(classic.step(|_| None), WriteStep::Write(10_010));
    }

    #[test]
    fn a_header_goes_ahead_of_a_buffer_that_the_pipe_just_holds() {
        let mut classic = of(&[(10, 65_530)]);
        assert_eq!(classic.step(|_| Some(Room { now: 65_536, ..NO_ROOM })), WriteStep::Write(10));
        classic.wrote(10);
        assert_eq!(classic.step(|_| Some(Room { now: 57_344, ..NO_ROOM })), WriteStep::Wait);
        assert_eq!(
            classic.step(|_| Some(Room { now: 65_536, ..NO_ROOM })),
            WriteStep::Write(65_530)
        );
    }

    #[test]
    fn what_no_pipe_holds_leaves_in_pieces() {
        let mut classic = of(&[(10, 1 << 20), (10, 0)]);
        assert_eq!(classic.step(|_| Some(NO_ROOM)), WriteStep::Write(10));
        classic.wrote(10);
        assert_eq!(classic.step(|_| Some(NO_ROOM)), WriteStep::Write(STRIDE));
        classic.wrote((1 << 20) - 60_000);
        assert_eq!(classic.step(|_| Some(NO_ROOM)), WriteStep::Write(60_000), "it is cut already");
        classic.wrote(60_000);
        assert_eq!(classic.step(unasked), WriteStep::Write(10));
    }
}
