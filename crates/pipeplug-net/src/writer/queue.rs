//! Queue of bytes to write.

use std::borrow::Cow;
use std::collections::{BTreeMap, VecDeque};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use pipeplug_wire::{Direction, EncodeError, Format, Header, command};

use super::classic::ClassicChunks;
use super::unflushed::Unflushed;
use super::{SendClass, SendError};
use crate::clock::time_until;
use crate::error::CloseReason;
use crate::event_loop::Registration;
use crate::postmortem::Recent;
use crate::protocol::context::{self, RequestContext};
use crate::protocol::flow::{Credit, SendWindow};
use crate::recording::tap::Tap;
use crate::sync::Instant;
use crate::sys::Stream;

/// Size of a piece in which small chunks gather, in bytes.
pub(super) const GATHER: usize = 64 << 10;
/// Payloads up to this size are copied behind their headers. A larger one is written from where it
/// is.
const COPY_MAX: usize = 4096;
/// Longest time between two chunks of one burst.
const BURST_GAP: Duration = Duration::from_micros(20);
/// Number of chunks in quick succession from which they count as a burst.
const BURST_MIN: u32 = 4;

/// State of the writer, under its lock.
pub(super) struct WriteQueue {
    /// The descriptor. Taken out by the thread that writes.
    pub(super) stream: Option<Stream>,
    pub(super) registration: Option<Registration>,
    pub(super) pieces: VecDeque<Piece>,
    /// Chunk boundaries of `pieces`, in the classic format.
    pub(super) classic: ClassicChunks,
    /// Looks in a row that found no room for the next chunk of the classic format.
    pub(super) looks: u32,
    /// Memory of a piece that was written, for the next one.
    pub(super) spare: Option<Vec<u8>>,
    pub(super) queued: usize,
    pub(super) unflushed: Unflushed,
    pub(super) format: Option<Format>,
    pub(super) window: SendWindow,
    /// True if the peer negotiated `context`.
    pub(super) tells_contexts: bool,
    pub(super) ending: Ending,
    /// Bytes that were written before the rest of the queue was discarded.
    pub(super) discarded_after: Option<u64>,
    /// Bytes of the queue that a thread has taken out to write them.
    pub(super) in_flight: usize,
    /// True if a sender that waits long for credit is logged.
    pub(super) logs_missing_credit: bool,
    /// Reason that nothing comes from the peer any more.
    pub(super) silent: Option<Arc<CloseReason>>,
    /// True while the pipe takes no more, and the event loop waits until it does.
    pub(super) is_full: bool,
    pub(super) burst: Burst,
    pub(super) recent: Recent,
    /// Recording of the chunks.
    tap: Option<Arc<Tap>>,
    /// Threads that wait on `Writer::room`.
    pub(super) senders_waiting: usize,
    /// Tasks that wait, in the order in which they began to, and what they want to send.
    pub(super) wakers: BTreeMap<u64, (SendClass, Waker)>,
    /// Number of the task that waited last.
    pub(super) last_waker: u64,
}

/// Detects a sender that sends chunk after chunk.
#[derive(Debug, Default)]
pub(super) struct Burst {
    last: Option<Instant>,
    length: u32,
}

impl Burst {
    /// Notes a chunk at `now`. Returns true if it is one of a burst.
    pub(super) fn is_on(&mut self, now: Instant) -> bool {
        let follows = self
            .last
            .replace(now)
            .is_some_and(|last| now.saturating_duration_since(last) < BURST_GAP);
        self.length = if follows { self.length.saturating_add(1) } else { 0 };
        self.length >= BURST_MIN
    }
}

pub(super) enum Ending {
    No,
    /// Only responses are accepted. The descriptor is closed when everything is written.
    AfterFlush,
    Ended(Arc<CloseReason>),
}

/// Bytes to write. Those before `start` are written already.
pub(super) struct Piece {
    pub(super) bytes: Vec<u8>,
    pub(super) start: usize,
}

impl Piece {
    pub(super) fn rest(&self) -> &[u8] {
        &self.bytes[self.start..]
    }
}

impl WriteQueue {
    pub(super) fn new(stream: Stream, format: Option<Format>, tap: Option<Arc<Tap>>) -> Self {
        Self {
            stream: Some(stream),
            registration: None,
            pieces: VecDeque::new(),
            classic: ClassicChunks::default(),
            looks: 0,
            spare: None,
            queued: 0,
            unflushed: Unflushed::default(),
            format,
            window: SendWindow::default(),
            tells_contexts: false,
            ending: Ending::No,
            discarded_after: None,
            in_flight: 0,
            logs_missing_credit: true,
            silent: None,
            is_full: false,
            burst: Burst::default(),
            recent: Recent::default(),
            tap,
            senders_waiting: 0,
            wakers: BTreeMap::new(),
            last_waker: 0,
        }
    }

    /// Appends a chunk.
    ///
    /// Always inlined: this is half of what sending a small chunk costs.
    #[inline(always)]
    pub(super) fn append(
        &mut self,
        format: Format,
        header: &Header<'_>,
        payload: Cow<'_, [u8]>,
    ) -> Result<(), EncodeError> {
        let copied = if payload.len() <= COPY_MAX { payload.len() } else { 0 };
        let needed = header.encoded_len(format) + copied;
        // A piece is not grown, which would copy what is in it. The first one is small, for a chunk
        // that leaves alone; further ones gather what waits.
        if self.pieces.back().is_none_or(|last| last.bytes.capacity() - last.bytes.len() < needed) {
            let room = needed.max(if self.pieces.is_empty() { COPY_MAX } else { GATHER });
            let spare = self.spare.take().filter(|spare| spare.capacity() >= room);
            let bytes = spare.unwrap_or_else(|| Vec::with_capacity(room));
            self.pieces.push_back(Piece { bytes, start: 0 });
        }
        let Some(last) = self.pieces.back_mut() else { unreachable!("a piece was just put there") };
        let before = last.bytes.len();
        if let Err(error) = header.encode_to(format, &mut last.bytes) {
            // Nothing was appended. An empty piece must not stay: the writer takes a queue with
            // pieces for one with something to write.
            if last.rest().is_empty() {
                self.pieces.pop_back();
            }
            return Err(error);
        }
        let header_len = last.bytes.len() - before;
        if let Some(tap) = &self.tap {
            tap.sent(header, &payload);
        }
        let len = header_len + payload.len();
        if format == Format::Classic {
            self.classic.push(header_len, payload.len());
        }
        if payload.len() <= COPY_MAX {
            last.bytes.extend_from_slice(&payload);
        } else {
            self.pieces.push_back(Piece { bytes: payload.into_owned(), start: 0 });
        }
        let (start, written) = (self.unflushed.total(), self.sent());
        self.queued += len;
        self.unflushed.appended(len);
        self.recent.note_to_send(start, written, header);
        Ok(())
    }

    /// Appends the `cmd.context` of `request`, which is appended next.
    #[cold]
    pub(super) fn append_context(
        &mut self,
        format: Format,
        request: &Header<'_>,
        context: Option<&RequestContext>,
        deadline: Option<Instant>,
    ) -> Result<(), SendError> {
        let left = deadline.map(time_until);
        if left.is_some_and(|left| left.is_zero()) {
            return Err(SendError::Late(None));
        }
        let none = RequestContext::default();
        let context = context::encode(context.unwrap_or(&none), left);
        let header = Header {
            thread_id: request.thread_id,
            direction: Direction::OneWay,
            command: command::CONTEXT,
            buffer_len: context.len() as u64,
        };
        self.append(format, &header, context.into()).map_err(SendError::Encode)
    }

    /// Returns true if a thread or a task waits for room.
    pub(super) fn has_waiting(&self) -> bool {
        self.senders_waiting > 0 || !self.wakers.is_empty()
    }

    /// Bytes that were written, of all that were ever queued.
    fn written(&self) -> u64 {
        self.discarded_after.unwrap_or(self.unflushed.total() - self.queued as u64)
    }

    /// Bytes that were written or are being written at this moment.
    pub(super) fn sent(&self) -> u64 {
        self.written() + self.in_flight as u64
    }

    /// The credit that a sender of this class waits for, if it waits for credit.
    pub(super) fn awaited_credit(&self, class: SendClass) -> Option<Credit> {
        self.window.missing().filter(|_| matches!(class, SendClass::FlowControlled(_)))
    }

    /// Drops everything that is queued.
    pub(super) fn discard(&mut self) {
        self.discarded_after = Some(self.written());
        self.pieces.clear();
        self.classic.clear();
        self.queued = 0;
        self.unflushed.left(0);
    }

    /// Closes the descriptor.
    pub(super) fn close(&mut self, stream: Stream) {
        // Removed before the descriptor is closed: epoll(7) forgets a closed descriptor only with
        // its last duplicate, and the number may be taken again at once.
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
