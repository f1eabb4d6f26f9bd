//! Reads chunks from the descriptor and passes them on. Which thread reads is decided in leader.rs.

pub(crate) mod dispatch;
pub(crate) mod final_read;
pub(crate) mod leader;
pub(crate) mod spin;
mod wait;
pub(crate) mod yielding;

use std::sync::Arc;

use pipeplug_wire::{ChunkRef, DecodeError, Direction, Received, Receiver, ThreadId, command};
use smol_str::SmolStr;

use super::serve::Admission;
use super::serve::job::JobInPlace;
use super::shared::Shared;
use super::stream::receive::GatheredParts;
use crate::error::CloseReason;
use crate::options::Options;
use crate::postmortem::Recent;
use crate::protocol::context::{PendingContext, RequestContext};
use crate::recording::tap::Tap;
use crate::sync::lock::lock;
use crate::sys::{Read, Stream};
use final_read::ReadSequence;
use leader::ReaderRole;
use spin::Spin;

/// Bytes of a broken chunk that an error shows.
const SHOWN: usize = 64;
/// Bytes after which other connections have their turn.
const TURN: usize = 1 << 20;
/// Number of requests and one-ways in one read from which they count as many.
const MANY: usize = 4;

/// Reading half of a connection, used by the leader.
pub(crate) struct Reader {
    /// `None` once it has ended.
    pub(crate) stream: Option<Arc<Stream>>,
    pub(crate) receiver: Receiver,
    /// True until the first chunk has told the format. A first chunk that has begun does not tell
    /// it: the format is set once the chunk is complete.
    format_is_open: bool,
    /// Requests and one-ways that lie in the receiver's input buffer.
    in_place: Vec<JobInPlace>,
    /// Contexts of those of them that have one.
    contexts: Vec<(ThreadId, RequestContext)>,
    /// Command of the last one of them.
    command: SmolStr,
    /// Parts of one stream that came one behind the other.
    parts: GatheredParts,
    /// Context that the last chunk was, for the request that follows it.
    pending_context: Option<PendingContext>,
    pub(crate) recent: Recent,
    /// Recording of the chunks.
    pub(crate) tap: Option<Arc<Tap>>,
    /// True if many of them came together in the last read, until it was made use of.
    read_many: bool,
    /// Input buffer that was taken out of the receiver last.
    taken: Option<Arc<Vec<u8>>>,
    /// Spinning of callers, for their replies.
    replies: Spin,
    /// Spinning of the dedicated reader, for requests.
    requests: Spin,
}

/// Result of reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReadOutcome {
    /// Nothing was there to read.
    Nothing,
    /// Nothing is left to read.
    Drained,
    /// There may be more.
    Unfinished,
    Suspended,
    Ended,
}

/// When to stop reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReadUntil {
    /// When a read finds nothing. The event loop needs that: epoll reports an end of file only
    /// once, and it may have come together with the last bytes.
    Empty,
    /// After one read that brings something, which saves the read that finds nothing. For a thread
    /// that calls poll(2) next, which reports an end of file each time.
    OneRead,
}

/// Thread that reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReaderKind {
    /// The dedicated reader, which runs handlers next: no other thread need be woken.
    Dedicated,
    Other,
}

impl Reader {
    pub(crate) fn new(stream: Stream, options: &Options, tap: Option<Arc<Tap>>) -> Self {
        Self {
            stream: Some(Arc::new(stream)),
            receiver: Receiver::new(options.format, options.limits),
            format_is_open: options.format.is_none(),
            in_place: Vec::new(),
            contexts: Vec::new(),
            command: SmolStr::default(),
            pending_context: None,
            parts: GatheredParts::default(),
            recent: Recent::default(),
            tap,
            read_many: false,
            taken: None,
            replies: Spin::new(options.spin),
            requests: Spin::new(options.spin),
        }
    }

    fn spin(&mut self, by: ReaderKind) -> &mut Spin {
        match by {
            ReaderKind::Dedicated => &mut self.requests,
            ReaderKind::Other => &mut self.replies,
        }
    }
}

impl Shared {
    /// Reads, and deals with what has come. Called by the leader.
    pub(crate) fn read(
        self: &Arc<Self>,
        reader: &mut Reader,
        until: ReadUntil,
        by: ReaderKind,
    ) -> ReadOutcome {
        self.leader.reads.begin();
        let outcome = self.read_uncounted(reader, until, by);
        self.leader.reads.end();
        outcome
    }

    fn read_uncounted(
        self: &Arc<Self>,
        reader: &mut Reader,
        until: ReadUntil,
        by: ReaderKind,
    ) -> ReadOutcome {
        let mut total = 0;
        loop {
            let Some(stream) = &reader.stream else { return ReadOutcome::Ended };
            if let Some(len) = reader.receiver.begun() {
                let memory = self.events.take_buffer(len);
                stream.begin_buffer(memory.as_ref());
                if let Some(memory) = memory {
                    reader.receiver.receive_into(memory);
                }
            }
            let space = reader.receiver.space();
            let max = space.max.min(self.options.transfer.get());
            match stream.read(space.into, max) {
                Ok(Read::Data(count)) => {
                    total += count;
                    let taken_in = match by {
                        ReaderKind::Dedicated => self.take_in_place(reader),
                        ReaderKind::Other => self.take_in(reader, by),
                    };
                    let is_full = match taken_in {
                        Ok(admission) => admission == Admission::Full,
                        Err(error) => {
                            let first = reader.receiver.first_bytes(SHOWN);
                            self.reading_stopped(reader, CloseReason::Broken { error, first });
                            return ReadOutcome::Ended;
                        }
                    };
                    // After all chunks of this read were dealt with: none stays undecoded while
                    // reading is suspended.
                    if is_full && self.suspend() {
                        return ReadOutcome::Suspended;
                    }
                    // A read that was given more room than it filled has emptied the pipe. Where
                    // that is wrong, as on some sockets, the poll(2) of the caller returns at once.
                    if until == ReadUntil::OneRead && count < max {
                        return ReadOutcome::Drained;
                    }
                    if until == ReadUntil::OneRead || total >= TURN {
                        return ReadOutcome::Unfinished;
                    }
                }
                Ok(Read::WouldBlock) if total == 0 => return ReadOutcome::Nothing,
                Ok(Read::WouldBlock) => return ReadOutcome::Drained,
                Ok(Read::End) => {
                    let first = reader.receiver.first_bytes(SHOWN);
                    let reason = match reader.receiver.finish() {
                        Ok(()) => CloseReason::EndOfFile,
                        Err(error) => CloseReason::Broken { error, first },
                    };
                    self.reading_stopped(reader, reason);
                    return ReadOutcome::Ended;
                }
                Err(error) => {
                    self.reading_stopped(reader, CloseReason::ReadFailed(error));
                    return ReadOutcome::Ended;
                }
            }
        }
    }

    /// Suspends reading until a handler takes something, unless a call or stream waits for what comes
    /// next.
    /// Returns true if the role is no longer this thread's.
    fn suspend(&self) -> bool {
        self.leader.set(ReaderRole::Suspended);
        // After the store, for a thread that opens a call or makes room: it looks at the role
        // afterwards, and this thread at what it did. If that thread took the role out of the
        // suspension, it is the leader now.
        // If both threads see each other's step, both try to take the role out of the suspension,
        // and one of them succeeds: the role is neither lost nor held twice.
        self.is_overfull() || !self.leader.take(ReaderRole::Suspended)
    }

    /// Returns true if so much waits for handlers that nothing more is read.
    fn is_overfull(&self) -> bool {
        // An open stream waits for parts, for credit or for its end, as a call for its reply.
        self.is_full()
            && lock(&self.calls).is_empty()
            && !self.streams.any_open()
            && !self.close.is_ending()
    }

    /// Deals with chunks like [`take_in`](Shared::take_in), for a thread that runs the handlers
    /// next: requests and one-ways stay where they were read.
    fn take_in_place(self: &Arc<Self>, reader: &mut Reader) -> Result<Admission, DecodeError> {
        if reader.format_is_open {
            return self.take_in(reader, ReaderKind::Dedicated);
        }
        let mut admission = Admission::Continue;
        let result = loop {
            // In each turn: `admit_from` below takes the input buffer away, and the rest goes on in
            // another one. Positions in `in_place` always refer to the buffer that is there now.
            let base = reader.receiver.input().as_ptr() as usize;
            let received = match reader.receiver.next() {
                Ok(Some(received)) => received,
                Ok(None) => break Ok(()),
                Err(error) => break Err(error),
            };
            note(&mut reader.recent, reader.tap.as_deref(), &received);
            if let Received::Chunk(chunk) = &received
                && is_part(chunk)
                && reader.in_place.is_empty()
            {
                reader.pending_context = None;
                self.gather_part(&mut reader.parts, chunk);
                continue;
            }
            self.deliver_parts(&mut reader.parts);
            if let Received::Chunk(chunk) = &received
                && chunk.direction != Direction::Response
                && !command::is_reserved(chunk.command)
                && let Some(job) = JobInPlace::new(chunk, base, &mut reader.command)
            {
                if let Some(context) = reader.pending_context.take()
                    && let Some(context) = context.context_for(chunk)
                {
                    if !self.open_or_refuse_stream(chunk, &context) {
                        continue;
                    }
                    reader.contexts.push((chunk.thread_id, context));
                }
                reader.in_place.push(job);
                continue;
            }
            // A response may overtake jobs that came before it: it ends a call, and starts no
            // handler.
            let is_response = matches!(&received, Received::Chunk(chunk) if chunk.direction == Direction::Response);
            if is_response || reader.in_place.is_empty() {
                let context = &mut reader.pending_context;
                if self.dispatch(received, context, ReaderKind::Dedicated) == Admission::Full {
                    admission = Admission::Full;
                }
                continue;
            }
            // Jobs that came before this chunk have to start before it is dealt with.
            let received = owned(received);
            let jobs = self.admit_from(reader);
            let chunk = self.dispatch(received, &mut reader.pending_context, ReaderKind::Dedicated);
            if jobs == Admission::Full || chunk == Admission::Full {
                admission = Admission::Full;
            }
        };
        self.deliver_parts(&mut reader.parts);
        if !reader.in_place.is_empty() && self.admit_from(reader) == Admission::Full {
            admission = Admission::Full;
        }
        result.map(|()| admission)
    }

    /// Queues the jobs in place, with the memory that they lie in.
    fn admit_from(self: &Arc<Self>, reader: &mut Reader) -> Admission {
        // The memory of the last time is used again if all its jobs are done: `into_inner` succeeds
        // for the last holder only.
        let spare = reader.taken.take().and_then(Arc::into_inner).unwrap_or_default();
        let input = Arc::new(reader.receiver.swap_input(spare));
        reader.read_many = reader.in_place.len() >= MANY;
        let admission = self.admit_in_place(&mut reader.in_place, &mut reader.contexts, &input);
        reader.taken = Some(input);
        admission
    }

    /// Deals with every chunk that is complete in the receiver.
    fn take_in(
        self: &Arc<Self>,
        reader: &mut Reader,
        by: ReaderKind,
    ) -> Result<Admission, DecodeError> {
        let Reader { receiver, recent, tap, pending_context, parts, format_is_open, .. } = reader;
        let mut admission = Admission::Continue;
        if *format_is_open {
            // The first chunk tells the format. It is set before the chunk is dispatched, which may
            // answer it.
            let Some(first) = receiver.next()?.map(owned) else { return Ok(admission) };
            *format_is_open = false;
            self.writer.set_format(receiver.format().unwrap_or_default());
            note(recent, tap.as_deref(), &first);
            admission = self.dispatch(first, pending_context, by);
        }
        // A broken chunk does not take those before it along.
        let result = loop {
            let received = match receiver.next() {
                Ok(Some(received)) => received,
                Ok(None) => break Ok(()),
                Err(error) => break Err(error),
            };
            note(recent, tap.as_deref(), &received);
            if let Received::Chunk(chunk) = &received
                && is_part(chunk)
            {
                *pending_context = None;
                self.gather_part(parts, chunk);
                continue;
            }
            self.deliver_parts(parts);
            if self.dispatch(received, pending_context, by) == Admission::Full {
                admission = Admission::Full;
            }
        };
        self.deliver_parts(parts);
        result.map(|()| admission)
    }
}

/// Returns true for a part of a stream. A request of that name is one for an unknown command.
fn is_part(chunk: &ChunkRef<'_>) -> bool {
    chunk.command == command::PART && chunk.direction != Direction::Request
}

/// The same with memory of its own.
fn owned(received: Received<'_>) -> Received<'static> {
    match received {
        Received::Chunk(chunk) => Received::Large(chunk.to_chunk()),
        Received::Large(chunk) => Received::Large(chunk),
        Received::Skipped(skipped) => Received::Skipped(skipped),
    }
}

fn note(recent: &mut Recent, tap: Option<&Tap>, received: &Received<'_>) {
    if let Some(tap) = tap {
        tap.received(received);
    }
    match received {
        Received::Chunk(chunk) => recent.note(&chunk.header()),
        Received::Large(chunk) => recent.note(&chunk.header()),
        Received::Skipped(_) => {} // logged, and without a command
    }
}
