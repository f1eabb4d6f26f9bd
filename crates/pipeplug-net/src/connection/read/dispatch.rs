//! Decides what a received chunk is for.

use std::sync::Arc;
use std::time::Duration;

use pipeplug_wire::{
    Chunk, ChunkRef, Completion, Direction, Received, SkipReason, Skipped, ThreadId, command,
};

use super::ReaderKind;
use crate::clock::{has_passed_at, system_time_since};
use crate::connection::call::{CallOutcome, CallSlot, ReplyParts};
use crate::connection::serve::Admission;
use crate::connection::serve::job::Job;
use crate::connection::shared::Shared;
use crate::escape::beginning;
use crate::protocol::context::{self, PendingContext};
use crate::protocol::failure::{self, Failure, failure_code};
use crate::protocol::flow;
use crate::sync::lock::lock;
use crate::sync::{Instant, atomic::Ordering};

/// Bytes of a wrong credit or of an unknown command that are shown.
const SHOWN: usize = 64;
/// Time after a deadline within which the peer's handler answers because of it. The deadline is
/// sent in whole milliseconds, slept for in whole milliseconds, and the sleeper runs a tick later
/// at worst, on a machine that is not overloaded.
const MOMENT: Duration = Duration::from_millis(5);

/// A chunk in the input buffer, or one whose buffer was read into memory of its own.
#[derive(Debug)]
pub(crate) enum ReceivedChunk<'a> {
    Borrowed(ChunkRef<'a>),
    Owned(Chunk),
}

impl ReceivedChunk<'_> {
    pub(crate) fn as_ref(&self) -> ChunkRef<'_> {
        match self {
            Self::Borrowed(chunk) => *chunk,
            Self::Owned(chunk) => chunk.as_ref(),
        }
    }

    pub(crate) fn into_buffer(self) -> Vec<u8> {
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

impl Shared {
    /// Deals with one chunk, on the thread that reads. `pending_context` is the context that the
    /// last chunk was, and is set if this one is a context.
    pub(crate) fn dispatch(
        self: &Arc<Self>,
        received: Received<'_>,
        pending_context: &mut Option<PendingContext>,
        by: ReaderKind,
    ) -> Admission {
        let context = pending_context.take();
        let received = match received {
            Received::Chunk(chunk) => ReceivedChunk::Borrowed(chunk),
            Received::Large(chunk) => ReceivedChunk::Owned(chunk),
            Received::Skipped(skipped) => {
                let opens_stream = context.is_some_and(|context| {
                    context.id == skipped.thread_id && context.context.stream.is_some()
                });
                self.skipped(&skipped, opens_stream);
                return Admission::Continue;
            }
        };
        let chunk = received.as_ref();
        let id = chunk.thread_id;
        match (chunk.direction, chunk.command) {
            (
                Direction::OneWay | Direction::Response,
                command::PART | command::END | command::PART_CREDIT | command::ENOUGH,
            ) => self.stream_chunk(received),
            (Direction::Response, command::PROGRESS) => self.progress_chunk(&chunk),
            (Direction::Response, _) => {
                // The table of calls decides between a reply and a caller that gives up at the same
                // moment: each takes the entry out under the lock of the table, and one of them
                // finds it.
                if let Some(slot) = self.waiting(id) {
                    let outcome = if self.is_late(id, &slot, chunk.command) {
                        CallOutcome::Late
                    } else if chunk.command == command::ERROR {
                        CallOutcome::Refused(Failure::plain(failure::message(chunk.buffer)).into())
                    } else if chunk.command == command::FAILURE {
                        CallOutcome::Refused(Failure::parse(chunk.buffer).into())
                    } else {
                        let command = (chunk.command != slot.command).then(|| chunk.command.into());
                        CallOutcome::Reply(ReplyParts { buffer: received.into_buffer(), command })
                    };
                    // Not under the lock of the table: this may run the waker of a task.
                    slot.complete(outcome);
                    self.end_own_stream(id);
                }
            }
            (Direction::Request, command::PING) => {
                // Answered here, on the thread that reads, and without waiting for room: a ping
                // tells whether this side reads, whatever its handlers do.
                self.send_control(id, Direction::Response, command::PING, Vec::new());
            }
            (Direction::OneWay, command::STOP) => {
                // Once: each call of the handler takes a thread.
                if self.close.stop()
                    && let Some(connection) = self.connection()
                {
                    let shared = Arc::clone(self);
                    self.events.spawn(move || shared.handler.stop(&connection));
                }
            }
            (Direction::OneWay, command::CREDIT) => {
                let total = std::str::from_utf8(chunk.buffer).ok().and_then(flow::number);
                if !total.is_some_and(|total| self.writer.credit(total))
                    && let Some(times) = self.counters.unexpected.count()
                {
                    let buffer = chunk.buffer[..chunk.buffer.len().min(SHOWN)].escape_ascii();
                    tracing::warn!(peer = %self.options.name, %buffer, times, "a credit that cannot be was ignored");
                }
            }
            (Direction::OneWay, command::CONTEXT) => *pending_context = self.context(&chunk),
            (Direction::OneWay, command::CANCEL) => self.cancel_request(id),
            (Direction::Request, name) if command::is_reserved(name) => {
                let failure = Failure::new(failure_code::UNKNOWN_COMMAND, unknown_command(name));
                self.send_refusal(id, &failure);
            }
            (Direction::OneWay, command::LOG_LEVEL)
                if std::str::from_utf8(chunk.buffer)
                    .is_ok_and(|level| self.handler.log_level(level)) => {}
            (Direction::OneWay, name) if command::is_reserved(name) => {
                if let Some(times) = self.counters.unexpected.count() {
                    let message = unknown_command(name);
                    tracing::warn!(peer = %self.options.name, times, "a one-way was ignored: {message}");
                }
            }
            (Direction::Request | Direction::OneWay, _) => {
                let context = context.and_then(|context| context.context_for(&chunk));
                if let Some(context) = &context
                    && !self.open_or_refuse_stream(&chunk, context)
                {
                    return Admission::Continue;
                }
                return self.admit(received.into_job(), context, by);
            }
        }
        Admission::Continue
    }

    /// Returns true if the call's deadline has passed and caused this response.
    ///
    /// A handler that knows the deadline sees it pass a moment after it has passed here, and what
    /// it answers then is no answer in time. Whether that is read before the call is given up is
    /// chance. A reply that is read later than a moment after the deadline may have come in time,
    /// while this process was stopped.
    #[inline]
    fn is_late(&self, id: ThreadId, slot: &CallSlot, command: &str) -> bool {
        let Some(deadline) = slot.deadline else { return false };
        let now = Instant::now();
        let is_late = has_passed_at(deadline, now)
            && (matches!(command, command::ERROR | command::FAILURE)
                || system_time_since(deadline, now).is_none_or(|passed| passed < MOMENT))
            && self.writer.tells_contexts();
        if is_late {
            // Counted as a late reply: completed again, it is not open any more.
            let _: Completion<_> = lock(&self.calls).complete(id);
        }
        is_late
    }

    /// Parses the `cmd.context` for the chunk that follows it.
    fn context(&self, chunk: &ChunkRef<'_>) -> Option<PendingContext> {
        let id = chunk.thread_id;
        // Relaxed: the flag publishes nothing else, and the thread that accepts the metadata is not
        // ordered with this one. A context that is read at the same moment may be taken or not.
        if self.peer.ignores_contexts.load(Ordering::Relaxed) {
            if let Some(times) = self.counters.unexpected.count() {
                tracing::warn!(peer = %self.options.name, %id, times, "a context that was not agreed to was ignored");
            }
            return None;
        }
        match context::parse(chunk.buffer, self.options.clock.now()) {
            Ok(context) if context.is_empty() => None,
            Ok(context) => Some(PendingContext { id, context }),
            Err(error) => {
                if let Some(times) = self.counters.unexpected.count() {
                    tracing::warn!(peer = %self.options.name, %id, %error, times, "a context was ignored");
                }
                None
            }
        }
    }

    /// Takes the slot of the call that waits for this response. Other responses are counted.
    fn waiting(&self, id: ThreadId) -> Option<Arc<CallSlot>> {
        let (completion, unknown) = {
            // One lock for both, so that the number is the one of this reply.
            let mut calls = lock(&self.calls);
            (calls.complete(id), calls.unknown())
        };
        match completion {
            Completion::Waiter(slot) => {
                if let Some(times) = &self.call_times
                    && !command::is_of_protocol(&slot.command)
                {
                    times.replied(slot.begun);
                }
                Some(slot)
            }
            Completion::Late => {
                tracing::debug!(peer = %self.options.name, %id, "the reply of a call that was given up");
                None
            }
            Completion::Unknown => {
                if unknown.is_power_of_two() {
                    let times = unknown;
                    tracing::warn!(peer = %self.options.name, %id, times, "a reply to no request was dropped");
                }
                None
            }
        }
    }

    fn skipped(self: &Arc<Self>, skipped: &Skipped, opens_stream: bool) {
        let (id, reason) = (skipped.thread_id, skipped.reason);
        let direction = Direction::from_u64(skipped.direction);
        if let Some(times) = self.counters.skipped.count() {
            let peer = &self.options.name;
            match (direction, reason) {
                // Its call fails with the same reason, and the caller reports it.
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
            self.credit_unqueued(flow::weight_of(skipped.command_len, skipped.buffer_len));
        }
        match (direction, reason) {
            (_, SkipReason::UnknownDirection) | (None, _) => {}
            (Some(Direction::OneWay), _) => {
                if skipped.reserved {
                    self.part_was_skipped(id, reason);
                } else if opens_stream {
                    // Its sender would wait for credit for ever.
                    let message = format!("not taken: {reason}").into_bytes();
                    self.send_control(id, Direction::Response, command::ENOUGH, message);
                }
            }
            (Some(Direction::Request), _) => {
                let failure = Failure::new(failure_code::TOO_LARGE, format!("not taken: {reason}"));
                self.send_refusal(id, &failure);
            }
            (Some(Direction::Response), _) => {
                if let Some(slot) = self.waiting(id) {
                    slot.complete(CallOutcome::Skipped(reason));
                    self.end_own_stream(id);
                    if skipped.reserved {
                        // It may have been a part, whose handler would wait for credit for ever.
                        self.send_cancel(id);
                    }
                }
            }
        }
    }
}

/// The error message for an unknown command. It is short: a peer must not get much more than it
/// sent.
pub(crate) fn unknown_command(command: &str) -> String {
    let shown = beginning(command, SHOWN);
    let rest = if shown.len() < command.len() { "…" } else { "" };
    format!("unknown command {:?}", format!("{shown}{rest}"))
}
