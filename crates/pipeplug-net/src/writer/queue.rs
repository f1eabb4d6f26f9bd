//! What waits to be written, as whoever holds the lock sees it.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use mio::Interest;
use pipeplug_wire::{Direction, EncodeError, Format, Header, command};

use super::classic::Outlines;
use super::{Class, GATHER, SendFault};
use crate::connection::shared::Core;
use crate::error::CloseReason;
use crate::event_loop::{Ready, Registration, Source};
use crate::postmortem::Recent;
use crate::protocol::deadline;
use crate::protocol::flow::{Credit, SendWindow};
use crate::sync::Instant;
use crate::sys::Stream;
use crate::writer::unflushed::Unread;

/// Chunks up to this size are copied next to each other; a larger buffer is written from where it is.
const COPY_MAX: usize = 4096;
/// How long a sender waits for credit before that is logged.
const CREDIT_NOTICE: Duration = Duration::from_secs(5);
/// How long the first look for room of a large chunk is away, and the last ones of many.
const LOOK_FIRST: Duration = Duration::from_millis(1);
const LOOK_LAST: Duration = Duration::from_millis(8);
/// What a sender sends again within this time belongs to a burst,
const BURST_GAP: Duration = Duration::from_micros(20);
/// from so many chunks on.
const BURST_MIN: u32 = 4;

pub(super) struct State {
    /// Who writes has taken it out.
    pub(super) stream: Option<Stream>,
    pub(super) registration: Option<Registration>,
    pub(super) queue: VecDeque<Piece>,
    /// Of the chunks in the queue, in the classic format.
    pub(super) outlines: Outlines,
    /// Looks in a row that found no room for the next one of them.
    pub(super) looks: u32,
    /// The memory of a piece that was written, for the next one.
    pub(super) spare: Option<Vec<u8>>,
    pub(super) queued: usize,
    pub(super) unread: Unread,
    pub(super) format: Option<Format>,
    pub(super) window: SendWindow,
    /// Whether the peer knows of contexts.
    pub(super) tells_deadlines: bool,
    pub(super) ending: Ending,
    /// How much was written before the rest of the queue was forgotten, in bytes.
    pub(super) given_up: Option<u64>,
    /// How much of the queue a thread has taken out to write it, in bytes.
    pub(super) in_flight: usize,
    /// Whether a sender that waits long for credit says so in the log.
    pub(super) tells_credit: bool,
    /// Why nothing comes from the peer any more.
    pub(super) silent: Option<Arc<CloseReason>>,
    /// Whether the pipe took no more, and the loop's thread waits until it does.
    pub(super) is_full: bool,
    pub(super) burst: Burst,
    pub(super) recent: Recent,
    /// Threads that wait on `room`.
    pub(super) waiting: usize,
}

/// Whether one chunk follows the other.
#[derive(Debug, Default)]
pub(super) struct Burst {
    pub(super) last: Option<Instant>,
    pub(super) length: u32,
}

impl Burst {
    /// One more comes; whether it is one of many.
    pub(super) fn is_on(&mut self, now: Instant) -> bool {
        let follows =
            self.last.replace(now).is_some_and(|last| now.saturating_duration_since(last) < BURST_GAP);
        self.length = if follows { self.length.saturating_add(1) } else { 0 };
        self.length >= BURST_MIN
    }
}

pub(super) enum Ending {
    No,
    /// Nothing new but replies; the descriptor is closed when all is written.
    AfterFlush,
    Ended(Arc<CloseReason>),
}

/// Bytes to write; those before `start` have been.
pub(super) struct Piece {
    pub(super) bytes: Vec<u8>,
    pub(super) start: usize,
}

/// How much of what there was the pipe has taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Taken {
    All,
    /// It is full now.
    Some,
    /// It is not full, and has no room for what has to leave in one write.
    NoRoom,
}

/// The pipe takes nothing more.
pub(super) struct Broken {
    pub(super) reason: CloseReason,
    /// How much was written of all that was ever put into the queue, in bytes.
    pub(super) written: u64,
}

impl Piece {
    pub(super) fn rest(&self) -> &[u8] {
        &self.bytes[self.start..]
    }
}

impl State {
    /// Inlined where it is not for a context: it is half of what a small chunk costs its sender.
    #[inline(always)]
    pub(super) fn append(
        &mut self,
        format: Format,
        header: &Header<'_>,
        body: Cow<'_, [u8]>,
    ) -> Result<(), EncodeError> {
        let needed = header.encoded_len(format) + if body.len() <= COPY_MAX { body.len() } else { 0 };
        if self.queue.back().is_none_or(|last| last.bytes.capacity() - last.bytes.len() < needed) {
            let room = needed.max(if self.queue.is_empty() { COPY_MAX } else { GATHER });
            let spare = self.spare.take().filter(|spare| spare.capacity() >= room);
            let bytes = spare.unwrap_or_else(|| Vec::with_capacity(room));
            self.queue.push_back(Piece { bytes, start: 0 });
        }
        let Some(last) = self.queue.back_mut() else { unreachable!("a piece was just put there") };
        let before = last.bytes.len();
        if let Err(error) = header.encode_to(format, &mut last.bytes) {
            if last.rest().is_empty() {
                self.queue.pop_back();
            }
            return Err(error);
        }
        let header_len = last.bytes.len() - before;
        let len = header_len + body.len();
        if format == Format::Classic {
            self.outlines.push(header_len, body.len());
        }
        if body.len() <= COPY_MAX {
            last.bytes.extend_from_slice(&body);
        } else {
            self.queue.push_back(Piece { bytes: body.into_owned(), start: 0 });
        }
        let (start, written) = (self.unread.total(), self.sent());
        self.queued += len;
        self.unread.appended(len);
        self.recent.note_to_send(start, written, header);
        Ok(())
    }

    /// Tells how much time is left for the request that is appended next.
    #[cold]
    pub(super) fn append_context(
        &mut self,
        format: Format,
        request: &Header<'_>,
        deadline: Instant,
    ) -> Result<(), SendFault> {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(SendFault::Late(None));
        }
        let context = deadline::encode(left);
        let header = Header {
            thread_id: request.thread_id,
            direction: Direction::OneWay,
            command: command::CONTEXT,
            buffer_len: context.len() as u64,
        };
        self.append(format, &header, context.into()).map_err(SendFault::Encode)
    }

    /// How much of what was ever put into the queue was written, in bytes.
    pub(super) fn written(&self) -> u64 {
        self.given_up.unwrap_or(self.unread.total() - self.queued as u64)
    }

    /// The same with what a thread writes at this moment.
    pub(super) fn sent(&self) -> u64 {
        self.written() + self.in_flight as u64
    }

    /// The credit that a sender of this class waits for, if that is what it waits for.
    pub(super) fn awaited_credit(&self, class: Class) -> Option<Credit> {
        self.window.missing().filter(|_| matches!(class, Class::HeldBack(_)))
    }

    /// Until when a sender that has waited since `begun` waits for credit before that is logged; logs it when it is time.
    pub(super) fn notice_of_credit(&mut self, class: Class, begun: Instant, core: &Core) -> Option<Instant> {
        let credit = self.awaited_credit(class).filter(|_| self.tells_credit)?;
        let at = begun.checked_add(CREDIT_NOTICE)?;
        if Instant::now() < at {
            return Some(at);
        }
        self.tells_credit = false; // once, until there is some
        tracing::warn!(peer = %core.options.name, "what is sent has waited for {CREDIT_NOTICE:?}: {credit}");
        None
    }

    pub(super) fn forget_queue(&mut self) {
        self.given_up = Some(self.written());
        self.queue.clear();
        self.outlines.clear();
        self.queued = 0;
        self.unread.left(0);
    }

    /// Who cannot write puts the descriptor back, for whoever ends the connection, or closes it if that was done.
    pub(super) fn give_back(&mut self, stream: Stream) {
        if let Ending::Ended(_) = self.ending {
            self.forget_queue();
            self.close(stream);
        } else {
            self.stream = Some(stream);
        }
    }

    /// What has been written when that fails.
    pub(super) fn broken(&self, error: io::Error) -> Broken {
        // At the end the rest is forgotten, and does not count as queued.
        let was_forgotten = matches!(self.ending, Ending::Ended(_));
        let written = if was_forgotten { 0 } else { self.unread.total() - self.queued as u64 };
        Broken { reason: CloseReason::WriteFailed(error), written }
    }

    pub(super) fn wait_writable(&mut self, stream: Stream, core: &Arc<Core>) -> Result<(), Broken> {
        let armed = match &self.registration {
            Some(registration) => registration.arm(stream.as_fd(), Interest::WRITABLE),
            None => core
                .events
                .register(stream.as_fd(), Interest::WRITABLE, Arc::<Core>::clone(core) as Arc<dyn Source>)
                .map(|registration| self.registration = Some(registration)),
        };
        self.stream = Some(stream);
        self.is_full = true;
        armed.map_err(|error| self.broken(error))
    }

    /// Has the loop look again soon whether there is room for the next chunk.
    ///
    /// Readiness does not tell: a pipe wakes a writer only when it was full (`pipe_read` in Linux's fs/pipe.c).
    pub(super) fn wait_for_room(&mut self, stream: Stream, core: &Arc<Core>) {
        self.stream = Some(stream);
        self.is_full = true;
        let pause = LOOK_FIRST.saturating_mul(1 << self.looks.min(16)).min(LOOK_LAST);
        self.looks = self.looks.saturating_add(1);
        let weak = Arc::downgrade(core);
        core.events.after(pause, move || {
            if let Some(core) = weak.upgrade() {
                core.ready(Ready::Writable);
            }
        });
    }

    pub(super) fn close(&mut self, stream: Stream) {
        if let Some(registration) = self.registration.take() {
            registration.remove(stream.as_fd());
        }
        if !matches!(self.ending, Ending::Ended(_)) {
            self.ending = Ending::Ended(Arc::new(CloseReason::Local));
        }
        stream.end_writing();
        drop(stream);
    }
}
