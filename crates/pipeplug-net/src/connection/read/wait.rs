//! Waits for input: spins, or sleeps in poll(2), and reads.

use std::sync::Arc;
use std::time::Duration;

use super::{ReadOutcome, ReadUntil, Reader, ReaderKind};
use crate::connection::shared::Shared;
use crate::event_loop::wake_pipe::WakePipe;
use crate::sync::{Instant, thread};

impl Shared {
    /// Reads as soon as there is something: spins for as long as that has paid lately, then sleeps
    /// until the pipe is readable, the wake pipe is woken, or `deadline` passes.
    pub(super) fn read_next(
        self: &Arc<Self>,
        reader: &mut Reader,
        by: ReaderKind,
        wake_pipe: &WakePipe,
        deadline: Option<Instant>,
        last: ReadOutcome,
    ) -> ReadOutcome {
        if last == ReadOutcome::Unfinished {
            return self.read(reader, ReadUntil::OneRead, by);
        }
        if let Some(budget) = reader.spin(by).budget() {
            let outcome = self.read(reader, ReadUntil::OneRead, by);
            if outcome != ReadOutcome::Nothing {
                return outcome; // this says nothing about whether spinning pays
            }
            if std::mem::take(&mut reader.read_many) {
                // They may have come from many threads, some of which wait for this CPU.
                thread::yield_now();
            }
            if let Some(outcome) = self.spin(budget, reader, by, wake_pipe) {
                return outcome;
            }
        }
        let Some(stream) = &reader.stream else { return ReadOutcome::Ended };
        let is_readable = stream.wait_readable(wake_pipe, deadline);
        if wake_pipe.is_woken() {
            // The caller looks next at what it was woken for, which was changed before the wake. A
            // later wake-up ends the next poll(2).
            wake_pipe.clear();
        }
        match is_readable {
            Ok(true) => self.read(reader, ReadUntil::OneRead, by),
            Ok(false) => ReadOutcome::Nothing,
            Err(error) => {
                // poll(2) fails only for lack of memory. It is called again, and logged, until
                // there is some.
                tracing::debug!(%error, "poll failed");
                thread::yield_now();
                ReadOutcome::Nothing
            }
        }
    }

    /// Reads in a loop for at most `budget`, until something comes.
    fn spin(
        self: &Arc<Self>,
        budget: Duration,
        reader: &mut Reader,
        by: ReaderKind,
        wake_pipe: &WakePipe,
    ) -> Option<ReadOutcome> {
        let start = Instant::now();
        loop {
            std::hint::spin_loop();
            let outcome = self.read(reader, ReadUntil::OneRead, by);
            let took = start.elapsed();
            if outcome != ReadOutcome::Nothing {
                // Input that took longer came while another thread had this CPU. That may have been
                // the peer, which spinning keeps from running.
                if took <= budget {
                    reader.spin(by).hit(took);
                } else {
                    reader.spin(by).miss();
                }
                return Some(outcome);
            }
            if took >= budget || wake_pipe.is_woken() {
                reader.spin(by).miss();
                return None;
            }
        }
    }
}
