//! What becomes of what is read, and how reading ends. Who reads is said in read/leader.rs.

pub(crate) mod dispatch;
pub(crate) mod last_look;
pub(crate) mod leader;
pub(crate) mod spin;
pub(crate) mod yielding;

use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use pipeplug_wire::{DecodeError, Direction, Received, Receiver, ThreadId, command};
use smol_str::SmolStr;

use crate::connection::read::leader::Lead;
use crate::connection::read::spin::Spin;
use crate::connection::serve::Admitted;
use crate::connection::serve::request::Noted;
use crate::connection::shared::Core;
use crate::error::CloseReason;
use crate::options::Options;
use crate::postmortem::Recent;
use crate::protocol::deadline::Ahead;
use crate::sync::Instant;
use crate::sync::lock::lock;
use crate::sys::{Read, Stream};

/// What is shown of what is no chunk, in bytes.
const SHOWN: usize = 64;
/// After so many bytes others have their turn.
const TURN: usize = 1 << 20;
/// So many requests and one-ways that come together are many.
const MANY: usize = 4;

/// The reading half, for whoever has the lead.
pub(crate) struct Reader {
    /// `None` once it has ended.
    pub(crate) stream: Option<Arc<Stream>>,
    pub(crate) receiver: Receiver,
    /// Whether no chunk has told the format yet. That a first chunk has begun does not: it is given out once it is whole.
    format_is_open: bool,
    /// Requests and one-ways that lie in the receiver's input buffer.
    noted: Vec<Noted>,
    /// Those of them that have a deadline.
    deadlines: Vec<(ThreadId, Instant)>,
    /// The command of the last one of them.
    command: SmolStr,
    /// What the last chunk said of the one behind it.
    ahead: Option<Ahead>,
    recent: Recent,
    /// Whether many of them came together last time, until somebody has made use of that.
    pub(crate) read_many: bool,
    /// The input buffer that was taken away last.
    taken: Option<Arc<Vec<u8>>>,
    /// How long callers look for their replies before they sleep.
    replies: Spin,
    /// How long the connection's own reader looks for requests.
    requests: Spin,
}

/// How a turn of reading ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turn {
    /// Nothing was there to read.
    Nothing,
    /// Nothing is left to read.
    Drained,
    /// There may be more.
    Unfinished,
    Paused,
    Ended,
}

/// When a turn of reading is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Until {
    /// When a read says that nothing is left. The loop needs that: epoll reports an end of file only once, and it may
    /// have come together with the last bytes.
    Empty,
    /// After one read that brings something, which spares the read that says that nothing is left. For who asks
    /// poll(2) next, which tells an end of file each time.
    Short,
}

/// Who reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum By {
    /// The connection's own reader, which runs handlers next: no other thread need be told.
    Server,
    Other,
}

impl Reader {
    pub(crate) fn new(stream: Stream, options: &Options) -> Self {
        Self {
            stream: Some(Arc::new(stream)),
            receiver: Receiver::new(options.format, options.limits),
            format_is_open: options.format.is_none(),
            noted: Vec::new(),
            deadlines: Vec::new(),
            command: SmolStr::default(),
            ahead: None,
            recent: Recent::default(),
            read_many: false,
            taken: None,
            replies: Spin::new(options.spin),
            requests: Spin::new(options.spin),
        }
    }

    pub(crate) fn spin(&mut self, by: By) -> &mut Spin {
        match by {
            By::Server => &mut self.requests,
            By::Other => &mut self.replies,
        }
    }
}

impl Core {
    /// Ends the connection for `reason`, after what lies in the pipe has been read.
    pub(crate) fn end_after_reading(self: &Arc<Self>, reason: CloseReason) {
        let explains = matches!(reason, CloseReason::Ended(_));
        {
            let mut ending = lock(&self.ending);
            // The owner knows better what a failed write meant.
            if ending.as_deref().is_none_or(|earlier| explains && is_loss(earlier)) {
                *ending = Some(Arc::new(reason));
            }
        }
        if let Some(ended) = self.ended.get() {
            // Nothing is read any more, so that nobody comes by to end it: what could not be written is given up here.
            self.outbox.end(ended);
            return self.finish_if_idle();
        }
        self.is_ending.store(true, Ordering::SeqCst);
        if let Some(bell) = &*lock(&self.bell) {
            bell.ring();
        }
        self.end_if_asked();
        if explains {
            self.end_lost();
        }
    }

    /// Ends what was only kept open for a better reason.
    fn end_lost(self: &Arc<Self>) {
        let Some(reason) = lock(&self.lost).take() else { return };
        let asked = lock(&self.ending).clone();
        self.reading_ended(asked.unwrap_or(reason));
    }

    pub(crate) fn end_if_asked(self: &Arc<Self>) {
        if !self.is_ending.load(Ordering::SeqCst)
            || ![Lead::Armed, Lead::Paused, Lead::Lent].into_iter().any(|from| self.take_lead(from))
        {
            return; // whoever has the lead looks here again when it gives it back
        }
        let mut reader = lock(&self.reader);
        if self.read(&mut reader, Until::Empty, By::Other) != Turn::Ended {
            self.end(&mut reader, CloseReason::Local);
        }
    }

    /// Reads and deals with what is there.
    pub(crate) fn read(self: &Arc<Self>, reader: &mut Reader, until: Until, by: By) -> Turn {
        self.turns.begin();
        let turn = self.read_turn(reader, until, by);
        self.turns.end();
        turn
    }

    fn read_turn(self: &Arc<Self>, reader: &mut Reader, until: Until, by: By) -> Turn {
        let mut total = 0;
        loop {
            let Some(stream) = &reader.stream else { return Turn::Ended };
            if let Some(len) = reader.receiver.begun() {
                let memory = self.events.take_spent(len);
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
                    let dealt = match by {
                        By::Server => self.deal_in_place(reader),
                        By::Other => self.deal(reader, by),
                    };
                    let full = match dealt {
                        Ok(admitted) => admitted == Admitted::Full,
                        Err(error) => {
                            let reason = broken(error, reader.receiver.first_bytes(SHOWN));
                            self.end(reader, reason);
                            return Turn::Ended;
                        }
                    };
                    if full && self.pause() {
                        return Turn::Paused;
                    }
                    if until == Until::Short && count < max {
                        return Turn::Drained;
                    }
                    if until == Until::Short || total >= TURN {
                        return Turn::Unfinished;
                    }
                }
                Ok(Read::WouldBlock) => return if total == 0 { Turn::Nothing } else { Turn::Drained },
                Ok(Read::End) => {
                    let first = reader.receiver.first_bytes(SHOWN);
                    let reason = match reader.receiver.finish() {
                        Ok(()) => CloseReason::EndOfFile,
                        Err(error) => broken(error, first),
                    };
                    self.end(reader, reason);
                    return Turn::Ended;
                }
                Err(error) => {
                    self.end(reader, CloseReason::ReadFailed(error));
                    return Turn::Ended;
                }
            }
        }
    }

    /// Stops reading until a handler took something, unless a call of ours waits for what comes behind.
    pub(crate) fn pause(&self) -> bool {
        self.lead.store(Lead::Paused as u8, Ordering::SeqCst);
        // Somebody may have taken the lead out of the pause meanwhile: then it is theirs.
        self.is_overfull() || !self.take_lead(Lead::Paused)
    }

    /// Whether so much waits for handlers that nothing more is read.
    pub(crate) fn is_overfull(&self) -> bool {
        self.is_full() && lock(&self.calls).is_empty() && !self.is_ending.load(Ordering::SeqCst)
    }

    fn end(self: &Arc<Self>, reader: &mut Reader, reason: CloseReason) {
        self.end_lead();
        reader.stream = None;
        // Once: nothing is read any more.
        let _ = self.received.set(reader.recent.heads());
        if let Some((registration, stream)) = lock(&self.registered).take() {
            registration.remove(stream.as_fd());
        }
        let asked = lock(&self.ending).clone();
        let reason = match (reason, asked) {
            // What this side saw first says more than the end of file that followed it.
            (CloseReason::EndOfFile | CloseReason::Local, Some(asked)) => asked,
            (reason, _) => Arc::new(reason),
        };
        let patience = self.options.reason_patience;
        if patience.is_zero() || !is_loss(&reason) {
            return self.reading_ended(reason);
        }
        *lock(&self.lost) = Some(reason);
        if lock(&self.ending).as_deref().is_some_and(|asked| !is_loss(asked)) {
            return self.end_lost(); // the reason came in between
        }
        let core = Arc::clone(self);
        self.events.after(patience, move || core.end_lost());
    }

    /// As [`deal`](Core::deal), for who runs the handlers next: requests and one-ways stay where they were read.
    fn deal_in_place(self: &Arc<Self>, reader: &mut Reader) -> Result<Admitted, DecodeError> {
        if reader.format_is_open {
            return self.deal(reader, By::Server);
        }
        let mut admitted = Admitted::Yes;
        let result = loop {
            let base = reader.receiver.input().as_ptr() as usize;
            let received = match reader.receiver.next() {
                Ok(Some(received)) => received,
                Ok(None) => break Ok(()),
                Err(error) => break Err(error),
            };
            note(&mut reader.recent, &received);
            if let Received::Chunk(chunk) = &received
                && chunk.direction != Direction::Response
                && !command::is_reserved(chunk.command)
                && let Some(noted) = Noted::new(chunk, base, &mut reader.command)
            {
                if let Some(deadline) = reader.ahead.take().and_then(|ahead| ahead.deadline_for(chunk)) {
                    reader.deadlines.push((chunk.thread_id, deadline));
                }
                reader.noted.push(noted);
                continue;
            }
            let is_response =
                matches!(&received, Received::Chunk(chunk) if chunk.direction == Direction::Response);
            if is_response || reader.noted.is_empty() {
                if self.dispatch(received, &mut reader.ahead, By::Server) == Admitted::Full {
                    admitted = Admitted::Full;
                }
                continue;
            }
            // What came ahead of it starts ahead of it.
            let received = match received {
                Received::Chunk(chunk) => Received::Large(chunk.to_chunk()),
                Received::Large(chunk) => Received::Large(chunk),
                Received::Skipped(skipped) => Received::Skipped(skipped),
            };
            for full in [self.admit_from(reader), self.dispatch(received, &mut reader.ahead, By::Server)] {
                if full == Admitted::Full {
                    admitted = Admitted::Full;
                }
            }
        };
        if !reader.noted.is_empty() && self.admit_from(reader) == Admitted::Full {
            admitted = Admitted::Full;
        }
        result.map(|()| admitted)
    }

    /// Takes in what was noted, with the memory that it lies in.
    fn admit_from(self: &Arc<Self>, reader: &mut Reader) -> Admitted {
        // The memory of the last time, where all that lay in it has been handled.
        let spare = reader.taken.take().and_then(Arc::into_inner).unwrap_or_default();
        let input = Arc::new(reader.receiver.swap_input(spare));
        reader.read_many = reader.noted.len() >= MANY;
        let admitted = self.admit_noted(&mut reader.noted, &mut reader.deadlines, &input);
        reader.taken = Some(input);
        admitted
    }

    /// Deals with every chunk that lies whole in the receiver.
    fn deal(self: &Arc<Self>, reader: &mut Reader, by: By) -> Result<Admitted, DecodeError> {
        let Reader { receiver, recent, ahead, format_is_open, .. } = reader;
        let mut admitted = Admitted::Yes;
        if *format_is_open {
            // The first chunk tells the format, which whatever answers it has to know already.
            let first = match receiver.next()? {
                None => return Ok(admitted),
                Some(Received::Chunk(chunk)) => Received::Large(chunk.to_chunk()),
                Some(Received::Large(chunk)) => Received::Large(chunk),
                Some(Received::Skipped(skipped)) => Received::Skipped(skipped),
            };
            *format_is_open = false;
            self.outbox.set_format(receiver.format().unwrap_or_default());
            note(recent, &first);
            admitted = self.dispatch(first, ahead, by);
        }
        while let Some(received) = receiver.next()? {
            note(recent, &received);
            if self.dispatch(received, ahead, by) == Admitted::Full {
                admitted = Admitted::Full;
            }
        }
        Ok(admitted)
    }
}

fn note(recent: &mut Recent, received: &Received<'_>) {
    match received {
        Received::Chunk(chunk) => recent.note(&chunk.header()),
        Received::Large(chunk) => recent.note(&chunk.header()),
        Received::Skipped(_) => {} // it was logged, and has no command
    }
}

/// What stood where, and what it was part of.
fn broken(error: DecodeError, first: Vec<u8>) -> CloseReason {
    CloseReason::Broken { error, first }
}

/// Whether this only says that the peer is gone.
fn is_loss(reason: &CloseReason) -> bool {
    matches!(reason, CloseReason::EndOfFile | CloseReason::WriteFailed(_))
}
