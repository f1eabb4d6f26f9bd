//! Writes the queue to the descriptor.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::os::fd::AsFd as _;
use std::sync::Weak;
use std::time::Duration;

use mio::Interest;

use super::classic::{ClassicChunks, WriteStep};
use super::queue::{Ending, GATHER, Piece, WriteQueue};
use super::{Writer, lock};
use crate::error::CloseReason;
use crate::event_loop::Ready;
use crate::sync::MutexGuard;
use crate::sys::Stream;

/// Pieces in one writev(2). Linux takes 1,024, but room for 64 already costs a tenth of a call's
/// instructions.
const SLICES: usize = 16;
/// Number of writes after which a sender leaves the rest to the event loop.
const ROUNDS: usize = 16;
/// Pause before the first look for room for a large chunk. Each further pause is twice as long,
const FIRST_PAUSE: Duration = Duration::from_millis(1);
/// up to this one.
const LONGEST_PAUSE: Duration = Duration::from_millis(8);

/// Result of writing pieces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    All,
    /// The pipe is full.
    Full,
    /// The pipe is not full, but has no room for a chunk that has to leave in one write.
    NoRoom,
}

/// The descriptor takes nothing more.
pub(super) struct WriteFailure {
    pub(super) reason: CloseReason,
    /// Bytes that were written, of all that were ever queued.
    pub(super) written: u64,
}

impl Writer {
    /// Writes what the pipe takes, now that it takes something again.
    pub(crate) fn writable(&self) -> Result<(), CloseReason> {
        // A sender may come between the two locks and write first. This flush finds an empty queue
        // or no descriptor then, and either is right.
        lock(&self.queue).is_full = false;
        self.flush()
    }

    /// Writes what is queued, as far as the pipe takes it.
    pub(crate) fn flush(&self) -> Result<(), CloseReason> {
        let mut queue = lock(&self.queue);
        if queue.is_full {
            return Ok(()); // the event loop writes it when the pipe has room
        }
        if queue.pieces.is_empty() && matches!(queue.ending, Ending::No) {
            return Ok(()); // twice in each call
        }
        match queue.stream.take() {
            Some(stream) => self.write_queue(queue, stream).map_err(|failure| failure.reason),
            None => Ok(()), // the thread that writes goes on until everything is written
        }
    }

    /// Writes until the queue is empty or the pipe takes no more. Puts the descriptor back in
    /// either case.
    pub(super) fn write_queue<'a>(
        &'a self,
        mut queue: MutexGuard<'a, WriteQueue>,
        mut stream: Stream,
    ) -> Result<(), WriteFailure> {
        for round in 0.. {
            // The connection ended while this thread wrote. The thread that ended it found no
            // descriptor to close, and left that to this one.
            if let Ending::Ended(_) = queue.ending {
                queue.discard();
                queue.close(stream);
                return Ok(());
            }
            // The descriptor goes back under the lock under which the queue was found empty. A
            // chunk that was queued while this thread wrote is seen here; a chunk that is queued
            // after this is written by its sender. None is left without a writer.
            if queue.pieces.is_empty() {
                if let Ending::AfterFlush = queue.ending {
                    queue.close(stream);
                } else {
                    queue.stream = Some(stream);
                }
                if queue.has_waiting() {
                    self.notify_room(&mut queue);
                }
                return Ok(());
            }
            // Others may queue as fast as this thread writes, and it has a call or a handler to go
            // on with. The pipe is not full: armed, it is reported writable at once, and the loop
            // writes on.
            if round == ROUNDS {
                return self.wait_writable(&mut queue, stream);
            }
            let mut pieces = std::mem::take(&mut queue.pieces);
            let mut classic = std::mem::take(&mut queue.classic);
            let mut spare = queue.spare.take();
            // The lock is not held during the write(2): senders queue meanwhile, and the next round
            // takes what they queued in one write.
            queue.in_flight = queue.queued;
            drop(queue);
            let (bytes, progress) =
                self.write_pieces(&mut stream, &mut pieces, &mut classic, &mut spare);
            queue = lock(&self.queue);
            queue.spare = spare;
            queue.in_flight = 0;
            if let Some(written) = &mut queue.discarded_after {
                *written += bytes as u64;
            }
            // Zero after a discard, whose bytes do not count as queued any more.
            let left = queue.queued.saturating_sub(bytes);
            queue.queued = left;
            queue.unflushed.left(left);
            if bytes > 0 {
                queue.looks = 0;
            }
            let progress = match progress {
                Ok(progress) => progress,
                Err(error) => {
                    let failure = queue.failure(error);
                    queue.give_back(stream);
                    return Err(failure);
                }
            };
            // Chunks that came meanwhile go behind what is left.
            pieces.append(&mut queue.pieces);
            queue.pieces = pieces;
            classic.append(&mut queue.classic);
            queue.classic = classic;
            if queue.has_waiting() && queue.queued < self.outgoing {
                self.notify_room(&mut queue);
            }
            match progress {
                _ if matches!(queue.ending, Ending::Ended(_)) => {}
                Progress::All => {}
                Progress::Full => return self.wait_writable(&mut queue, stream),
                Progress::NoRoom => {
                    self.wait_for_room(&mut queue, stream);
                    return Ok(());
                }
            }
        }
        unreachable!("the rounds end with their number")
    }

    /// Writes pieces from the front and removes what was written. Returns the number of bytes, also
    /// with an error.
    fn write_pieces(
        &self,
        stream: &mut Stream,
        pieces: &mut VecDeque<Piece>,
        classic: &mut ClassicChunks,
        spare: &mut Option<Vec<u8>>,
    ) -> (usize, io::Result<Progress>) {
        let mut total = 0;
        while !pieces.is_empty() {
            let mut slices = [IoSlice::new(&[]); SLICES];
            let in_classic = !classic.is_empty();
            let (mut count, mut room) = match classic.step(|len| stream.room_for(len)) {
                WriteStep::Write(len) => (0, len),
                WriteStep::Wait => return (total, Ok(Progress::NoRoom)),
            };
            for (slice, piece) in slices.iter_mut().zip(pieces.iter()) {
                let rest = piece.rest();
                if !in_classic {
                    stream.make_room(rest.len());
                }
                *slice = IoSlice::new(&rest[..rest.len().min(room)]);
                room -= slice.len();
                count += 1;
                if room == 0 {
                    break;
                }
            }
            let mut written = match stream.write(&slices[..count], self.transfer.get()) {
                Ok(Some(written)) => written,
                Ok(None) => return (total, Ok(Progress::Full)),
                Err(error) => return (total, Err(error)),
            };
            total += written;
            classic.wrote(written);
            while written > 0
                && let Some(piece) = pieces.front_mut()
            {
                let step = written.min(piece.rest().len());
                piece.start += step;
                written -= step;
                if piece.rest().is_empty()
                    && let Some(Piece { mut bytes, .. }) = pieces.pop_front()
                {
                    if bytes.capacity() <= GATHER {
                        bytes.clear();
                        *spare = Some(bytes);
                    } else {
                        self.events.cache_buffer(bytes);
                    }
                }
            }
        }
        (total, Ok(Progress::All))
    }

    /// Has the event loop flush when the pipe takes something again.
    fn wait_writable(&self, queue: &mut WriteQueue, stream: Stream) -> Result<(), WriteFailure> {
        // Armed under the lock of the queue: the loop may report the pipe at once, and `writable`
        // then waits for this lock, so that it clears `is_full` after it was set below.
        let armed = match (&queue.registration, self.source.upgrade()) {
            (Some(registration), _) => registration.arm(stream.as_fd(), Interest::WRITABLE),
            (None, Some(source)) => self
                .events
                .register(stream.as_fd(), Interest::WRITABLE, source)
                .map(|registration| queue.registration = Some(registration)),
            (None, None) => Ok(()), // the owner is being dropped
        };
        queue.stream = Some(stream);
        queue.is_full = true;
        armed.map_err(|error| queue.failure(error))
    }

    /// Has the event loop look again soon for room for the next chunk.
    ///
    /// Readiness does not tell: a pipe wakes a writer only if it was full (`pipe_read` in Linux's
    /// fs/pipe.c).
    fn wait_for_room(&self, queue: &mut WriteQueue, stream: Stream) {
        queue.stream = Some(stream);
        queue.is_full = true;
        let pause = FIRST_PAUSE.saturating_mul(1 << queue.looks.min(16)).min(LONGEST_PAUSE);
        queue.looks = queue.looks.saturating_add(1);
        let source = Weak::clone(&self.source);
        self.events.after(pause, move || {
            if let Some(source) = source.upgrade() {
                source.ready(Ready::Writable);
            }
        });
    }
}

impl WriteQueue {
    /// Puts the descriptor back after a failed write, for the thread that ends the connection.
    /// Closes it if the connection has ended already.
    fn give_back(&mut self, stream: Stream) {
        if let Ending::Ended(_) = self.ending {
            self.discard();
            self.close(stream);
        } else {
            self.stream = Some(stream);
        }
    }

    fn failure(&self, error: io::Error) -> WriteFailure {
        // After the end the rest was discarded, and does not count as queued.
        let was_discarded = matches!(self.ending, Ending::Ended(_));
        let written = if was_discarded { 0 } else { self.unflushed.total() - self.queued as u64 };
        WriteFailure { reason: CloseReason::WriteFailed(error), written }
    }
}
