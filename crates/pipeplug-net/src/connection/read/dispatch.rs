//! What a received chunk is for.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use pipeplug_wire::{
    Chunk, ChunkRef, Completion, Direction, Received, SkipReason, Skipped, ThreadId, command,
};

use crate::connection::call::{Outcome, Replied, Slot};
use crate::connection::read::By;
use crate::connection::serve::Admitted;
use crate::connection::serve::request::Job;
use crate::connection::shared::Core;
use crate::protocol::deadline::{self, Ahead};
use crate::protocol::flow;
use crate::sync::Instant;
use crate::sync::lock::lock;

/// How much of a credit that is none, or of an unknown command, is shown, in bytes.
const SHOWN: usize = 64;
/// A deadline is told in whole milliseconds, slept for in whole milliseconds, and who is woken runs a tick later at worst,
/// on a machine that is not overloaded.
const MOMENT: Duration = Duration::from_millis(5);
/// A longer error message from the peer is cut, in bytes.
const MESSAGE_MAX: usize = 64 << 10;

/// A chunk in the input buffer, or one whose buffer was read into its own memory.
#[derive(Debug)]
pub(crate) enum Got<'a> {
    Borrowed(ChunkRef<'a>),
    Owned(Chunk),
}

impl Got<'_> {
    pub(crate) fn as_ref(&self) -> ChunkRef<'_> {
        match self {
            Self::Borrowed(chunk) => *chunk,
            Self::Owned(chunk) => chunk.as_ref(),
        }
    }

    fn into_buffer(self) -> Vec<u8> {
        match self {
            Self::Borrowed(chunk) => chunk.buffer.to_vec(),
            Self::Owned(chunk) => chunk.buffer,
        }
    }

    fn into_job(self) -> Job {
        match self {
            Self::Borrowed(chunk) => chunk.into(),
            Self::Owned(chunk) => chunk.into(),
        }
    }
}

impl Core {
    /// Deals with one chunk, on the thread that reads. `ahead` is what the last one said of it, and gets what it says of the
    /// next one.
    pub(crate) fn dispatch(
        self: &Arc<Self>,
        received: Received<'_>,
        ahead: &mut Option<Ahead>,
        by: By,
    ) -> Admitted {
        let last = ahead.take();
        let got = match received {
            Received::Chunk(chunk) => Got::Borrowed(chunk),
            Received::Large(chunk) => Got::Owned(chunk),
            Received::Skipped(skipped) => {
                self.skipped(&skipped);
                return Admitted::Yes;
            }
        };
        let chunk = got.as_ref();
        let id = chunk.thread_id;
        match (chunk.direction, chunk.command) {
            (Direction::Response, _) => {
                if let Some(slot) = self.waiting(id) {
                    let outcome = if self.is_late(id, &slot, chunk.command) {
                        Outcome::Late
                    } else if chunk.command == command::ERROR {
                        Outcome::Refused(message(chunk.buffer))
                    } else {
                        let command = (chunk.command != slot.command).then(|| chunk.command.into());
                        Outcome::Reply(Replied { buffer: got.into_buffer(), command })
                    };
                    slot.complete(outcome);
                }
                Admitted::Yes
            }
            (Direction::Request, command::PING) => {
                self.send_control(id, Direction::Response, command::PING, Vec::new());
                Admitted::Yes
            }
            (Direction::OneWay, command::STOP) => {
                // Told once: each takes a thread.
                if !self.is_stopped.swap(true, Ordering::SeqCst)
                    && let Some(connection) = self.connection()
                {
                    let core = Arc::clone(self);
                    self.once(move || core.handler.stop(&connection));
                }
                Admitted::Yes
            }
            (Direction::OneWay, command::CREDIT) => {
                let total = std::str::from_utf8(chunk.buffer).ok().and_then(flow::number);
                if !total.is_some_and(|total| self.outbox.credit(total))
                    && let Some(times) = self.counters.unexpected.count()
                {
                    let buffer = chunk.buffer[..chunk.buffer.len().min(SHOWN)].escape_ascii();
                    tracing::warn!(peer = %self.options.name, %buffer, times, "a credit that cannot be was ignored");
                }
                Admitted::Yes
            }
            (Direction::OneWay, command::CONTEXT) => {
                *ahead = self.context(&chunk);
                Admitted::Yes
            }
            (Direction::OneWay, command::CANCEL) => {
                self.cancel_request(id);
                Admitted::Yes
            }
            (Direction::Request, name) if command::is_reserved(name) => {
                let message = unknown_command(name);
                self.send_control(id, Direction::Response, command::ERROR, message.into_bytes());
                Admitted::Yes
            }
            (Direction::OneWay, name) if command::is_reserved(name) => {
                if let Some(times) = self.counters.unexpected.count() {
                    let message = unknown_command(name);
                    tracing::warn!(peer = %self.options.name, times, "a one-way was ignored: {message}");
                }
                Admitted::Yes
            }
            (Direction::Request | Direction::OneWay, _) => {
                let deadline = last.and_then(|last| last.deadline_for(&chunk));
                self.admit(got.into_job(), deadline, by)
            }
        }
    }

    /// True if the call's deadline has passed and brought about this response.
    ///
    /// A handler that is told of the deadline sees it pass a moment after it has passed here, and what it answers then is none
    /// in time; whether that is read ahead of giving the call up is chance. A reply that is read later than in a moment may
    /// have come in time, while this process was stopped.
    #[inline]
    fn is_late(&self, id: ThreadId, slot: &Slot, command: &str) -> bool {
        let Some(deadline) = slot.deadline else { return false };
        let now = Instant::now();
        let is_late = now >= deadline
            && (command == command::ERROR || now.saturating_duration_since(deadline) < MOMENT)
            && self.outbox.tells_deadlines();
        if is_late {
            // Counted like one that comes after the call was given up: as for a call that is not open any more.
            let _: Completion<_> = lock(&self.calls).complete(id);
        }
        is_late
    }

    /// What a `cmd.context` says of the request behind it.
    fn context(&self, chunk: &ChunkRef<'_>) -> Option<Ahead> {
        if self.ignores_contexts.load(Ordering::Relaxed) {
            if let Some(times) = self.counters.unexpected.count() {
                let id = chunk.thread_id;
                tracing::warn!(peer = %self.options.name, %id, times, "a context that was not agreed to was ignored");
            }
            return None;
        }
        match deadline::parse(chunk.buffer, Instant::now()) {
            Ok(deadline) => deadline.map(|deadline| Ahead { id: chunk.thread_id, deadline }),
            Err(error) => {
                if let Some(times) = self.counters.unexpected.count() {
                    let id = chunk.thread_id;
                    tracing::warn!(peer = %self.options.name, %id, %error, times, "a context was ignored");
                }
                None
            }
        }
    }

    /// Who waits for this response; others are counted.
    fn waiting(&self, id: ThreadId) -> Option<Arc<Slot>> {
        let (completion, unknown) = {
            let mut calls = lock(&self.calls);
            (calls.complete(id), calls.unknown())
        };
        match completion {
            Completion::Waiter(slot) => Some(slot),
            Completion::Late => {
                tracing::debug!(peer = %self.options.name, %id, "the reply of a call that was given up");
                None
            }
            Completion::Unknown => {
                if unknown.is_power_of_two() {
                    let times = unknown;
                    tracing::warn!(peer = %self.options.name, %id, times, "a reply that nobody had asked for");
                }
                None
            }
        }
    }

    fn skipped(self: &Arc<Self>, skipped: &Skipped) {
        let (id, reason) = (skipped.thread_id, skipped.reason);
        let direction = Direction::from_u64(skipped.direction);
        if let Some(times) = self.counters.skipped.count() {
            let peer = &self.options.name;
            match (direction, reason) {
                // Its call fails with the same reason, which the caller tells as it likes.
                (Some(Direction::Response), reason) if reason != SkipReason::UnknownDirection => {
                    tracing::debug!(%peer, %id, %reason, times, "a reply was skipped");
                }
                _ => {
                    let direction = skipped.direction;
                    tracing::warn!(%peer, %id, direction, %reason, times, "a chunk was skipped");
                }
            }
        }
        if matches!(direction, Some(Direction::Request | Direction::OneWay)) && !skipped.reserved {
            // The sender has counted it, and no handler will take it.
            self.passed_by(flow::weight_of(skipped.command_len, skipped.buffer_len));
        }
        match (direction, reason) {
            (_, SkipReason::UnknownDirection) | (None | Some(Direction::OneWay), _) => {}
            (Some(Direction::Request), _) => {
                let message = format!("not taken: {reason}");
                self.send_control(id, Direction::Response, command::ERROR, message.into_bytes());
            }
            (Some(Direction::Response), _) => {
                if let Some(slot) = self.waiting(id) {
                    slot.complete(Outcome::Skipped(reason));
                }
            }
        }
    }
}

/// The peer's error message, as much of it as somebody might read.
fn message(bytes: &[u8]) -> String {
    match bytes.get(..MESSAGE_MAX) {
        None => String::from_utf8_lossy(bytes).into_owned(),
        Some(start) => format!("{}… ({} bytes in all)", String::from_utf8_lossy(start), bytes.len()),
    }
}

/// The answer to a command that nobody knows; a peer must not get much more than it sent.
pub(crate) fn unknown_command(command: &str) -> String {
    let end = command.floor_char_boundary(SHOWN);
    let rest = if end < command.len() { "…" } else { "" };
    format!("unknown command \"{}{rest}\"", command[..end].escape_debug())
}
