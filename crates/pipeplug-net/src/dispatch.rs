//! What a received chunk is for.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use pipeplug_wire::{
    Chunk, ChunkRef, Completion, Direction, Received, SkipReason, Skipped, ThreadId, command,
};

use crate::call::{Outcome, Replied, Slot};
use crate::core::Core;
use crate::deadline::{self, Ahead};
use crate::flow;
use crate::inbox::Admitted;
use crate::job::Job;
use crate::lock::lock;
use crate::reading::By;
use crate::sync::Instant;

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
                    slot.complete(if chunk.command == command::ERROR {
                        Outcome::Refused(String::from_utf8_lossy(chunk.buffer).into_owned())
                    } else {
                        let command = (chunk.command != slot.command).then(|| chunk.command.into());
                        Outcome::Reply(Replied { buffer: got.into_buffer(), command })
                    });
                }
                Admitted::Yes
            }
            (Direction::Request, command::PING) => {
                self.send_control(id, Direction::Response, command::PING, Vec::new());
                Admitted::Yes
            }
            (Direction::OneWay, command::STOP) => {
                if let Some(connection) = self.connection() {
                    let core = Arc::clone(self);
                    self.once(move || core.handler.stop(&connection));
                }
                Admitted::Yes
            }
            (Direction::OneWay, command::CREDIT) => {
                let total = std::str::from_utf8(chunk.buffer).ok().and_then(|text| text.parse().ok());
                if !total.is_some_and(|total| self.outbox.credit(total)) {
                    self.add_unexpected();
                    let buffer = chunk.buffer.escape_ascii();
                    tracing::warn!(peer = %self.options.name, %buffer, "a credit that cannot be was ignored");
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
                let message = format!("unknown command \"{}\"", name.escape_debug());
                self.send_control(id, Direction::Response, command::ERROR, message.into_bytes());
                Admitted::Yes
            }
            (Direction::OneWay, name) if command::is_reserved(name) => {
                self.add_unexpected();
                let command = name.escape_debug();
                tracing::warn!(peer = %self.options.name, %command, "an unknown one-way was ignored");
                Admitted::Yes
            }
            (Direction::Request | Direction::OneWay, _) => {
                let deadline = last.and_then(|last| last.deadline_for(&chunk));
                self.admit(got.into_job(), deadline, by)
            }
        }
    }

    /// What a `cmd.context` says of the request behind it.
    fn context(&self, chunk: &ChunkRef<'_>) -> Option<Ahead> {
        match deadline::parse(chunk.buffer, Instant::now()) {
            Ok(deadline) => deadline.map(|deadline| Ahead { id: chunk.thread_id, deadline }),
            Err(error) => {
                self.add_unexpected();
                tracing::warn!(peer = %self.options.name, id = %chunk.thread_id, %error, "a context was ignored");
                None
            }
        }
    }

    /// Who waits for this response; others are counted.
    fn waiting(&self, id: ThreadId) -> Option<Arc<Slot>> {
        let completion = lock(&self.calls).complete(id);
        match completion {
            Completion::Waiter(slot) => Some(slot),
            Completion::Late => {
                tracing::debug!(peer = %self.options.name, %id, "the reply of a call that was given up");
                None
            }
            Completion::Unknown => {
                tracing::warn!(peer = %self.options.name, %id, "a reply that nobody had asked for");
                None
            }
        }
    }

    fn skipped(self: &Arc<Self>, skipped: &Skipped) {
        self.counters.skipped.fetch_add(1, Ordering::Relaxed);
        let (id, reason) = (skipped.thread_id, skipped.reason);
        tracing::warn!(peer = %self.options.name, %id, direction = skipped.direction, %reason, "a chunk was skipped");
        let direction = Direction::from_u64(skipped.direction);
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
