//! What waits to be written, and who writes it.
//!
//! Whoever has something to send writes it itself, straight from its own memory, where nothing else waits; while
//! one thread writes, the others leave their chunks in the queue and go, and the writer takes all of them in one
//! write (group commit). What the pipe does not take now is written by the loop's thread when it does.

mod classic;
mod queue;
pub(crate) mod unflushed;

use std::borrow::Cow;
use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::num::NonZeroUsize;
use std::sync::Arc;

use pipeplug_wire::{Direction, EncodeError, Format, Header, command};

use crate::connection::shared::Core;
use crate::error::CloseReason;
use crate::event_loop::thread_pool::{self, Awaits};
use crate::options::Options;
use crate::postmortem::{ChunkHead, Recent};
use crate::protocol::deadline::sooner;
use crate::protocol::flow::{Credit, SendWindow, weight};
use crate::sync::lock::{lock, wait_until};
use crate::sync::{Condvar, Instant, Mutex, MutexGuard};
use crate::sys::Stream;
use crate::writer::unflushed::Unread;
use classic::{Outlines, Step};
use queue::{Broken, Burst, Ending, Piece, State, Taken};

/// How much small chunks gather in one piece of the queue.
const GATHER: usize = 64 << 10;
/// What waits to be written together is written when it is this much, in bytes: half of a pipe of the usual size.
const ENOUGH: usize = 32 << 10;
/// Pieces in one writev(2). Linux takes 1,024, but to make room for 64 took a tenth of a call's instructions already.
const SLICES: usize = 16;
/// After so many writes for others a caller leaves the rest to the loop's thread.
const ROUNDS: usize = 16;

/// Whether, and for what, a sender waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    /// A request or one-way: waits for room in the queue and in the peer's window.
    HeldBack(Terms),
    /// A request that the peer's reading thread answers by itself: waits for nothing but the format, so that a ping finds
    /// out about a peer that reads no more.
    Unweighed(Terms),
    /// A reply of a handler: waits for room in the queue.
    Reply,
    /// What the reading thread itself sends, and `cmd.*`: never waits.
    Control,
}

/// How long a sender waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Terms {
    pub(crate) patience: Patience,
    /// No longer than until then; a peer that knows of contexts is told.
    pub(crate) deadline: Option<Instant>,
}

impl Terms {
    pub(crate) const WAIT: Self = Self { patience: Patience::Wait, deadline: None };
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Patience {
    Wait,
    None,
}

/// When a chunk is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Push {
    Now,
    /// At once, unless much was sent a moment ago: then with what comes next, or by the loop's thread, which is told.
    Soon,
    /// With what comes next, or when the sender flushes, which it does soon.
    Later,
}

/// Why a chunk was not sent.
#[derive(Debug)]
pub(crate) enum SendFault {
    Closed(Arc<CloseReason>),
    Encode(EncodeError),
    WouldBlock,
    /// The deadline came first, while it waited for the peer's credit, or for something else.
    Late(Option<Credit>),
    /// The connection has to end for this.
    Fatal(CloseReason),
}

pub(crate) struct Outbox {
    state: Mutex<State>,
    room: Condvar,
    outgoing: usize,
    unread: usize,
    transfer: NonZeroUsize,
}

impl Outbox {
    pub(crate) fn new(stream: Stream, options: &Options) -> Self {
        Self {
            state: Mutex::new(State {
                stream: Some(stream),
                registration: None,
                queue: VecDeque::new(),
                outlines: Outlines::default(),
                looks: 0,
                given_up: None,
                in_flight: 0,
                tells_credit: true,
                spare: None,
                queued: 0,
                unread: Unread::default(),
                format: options.format,
                window: SendWindow::default(),
                tells_deadlines: false,
                ending: Ending::No,
                silent: None,
                is_full: false,
                burst: Burst::default(),
                recent: Recent::default(),
                waiting: 0,
            }),
            room: Condvar::new(),
            outgoing: options.outgoing.max(1),
            unread: options.unread,
            transfer: options.transfer,
        }
    }

    /// Sends a chunk: writes it, or leaves it in the queue.
    pub(crate) fn send(
        &self,
        class: Class,
        header: &Header<'_>,
        body: Cow<'_, [u8]>,
        push: Push,
        core: &Arc<Core>,
    ) -> Result<(), SendFault> {
        let mut state = self.wait_for_room(class, core)?;
        let format = state.format.unwrap_or_default();
        let weight = match class {
            Class::HeldBack(_) => weight(header.command.len(), body.len()),
            Class::Unweighed(_) | Class::Reply | Class::Control => 0,
        };
        let before = state.queued;
        if let Class::HeldBack(Terms { deadline: Some(deadline), .. }) = class
            && state.tells_deadlines
        {
            // Under one lock with its request: nothing may come in between.
            header.check(format).map_err(SendFault::Encode)?;
            state.append_context(format, header, deadline)?;
        }
        state.append(format, header, body).map_err(SendFault::Encode)?;
        state.window.sent(weight);
        // The peer has these come by what it sends; of cancels and stops there are as many as this side likes.
        let is_asked_for = header.direction == Direction::Response || header.command == command::CREDIT;
        if class == Class::Control && is_asked_for {
            let len = state.queued - before;
            state.unread.answered(len);
            let (queued, limit) = (state.unread.bytes(), self.unread);
            if queued > limit {
                return Err(SendFault::Fatal(CloseReason::Unread { queued, limit }));
            }
        }
        if state.is_full || state.stream.is_none() {
            return Ok(()); // the loop's thread waits for the pipe, or another thread writes and takes this along
        }
        let was_empty = before == 0;
        let leave = match push {
            Push::Now => false,
            Push::Later => true,
            Push::Soon if was_empty => state.burst.is_on(Instant::now()),
            Push::Soon => true, // whoever left something there saw to it that it is written
        };
        if leave && state.queued < ENOUGH.min(self.outgoing) {
            drop(state);
            // A caller between two calls flushes when it waits, and the loop, which watches it, where it does not.
            if push == Push::Soon && was_empty && !core.is_between_calls() {
                core.flush_on_loop();
            }
            return Ok(());
        }
        let Some(stream) = state.stream.take() else { unreachable!("it was there above") };
        let end = state.unread.total();
        match self.pump(state, stream, core) {
            Err(Broken { reason, written }) if written >= end => {
                // It was another one's, behind this one, that could not be written.
                core.end_after_reading(reason);
                Ok(())
            }
            other => other.map_err(|broken| SendFault::Fatal(broken.reason)),
        }
    }

    /// The pipe takes something again.
    pub(crate) fn writable(&self, core: &Arc<Core>) -> Result<(), CloseReason> {
        lock(&self.state).is_full = false;
        self.flush(core)
    }

    /// Writes what waits, as far as the pipe takes it.
    pub(crate) fn flush(&self, core: &Arc<Core>) -> Result<(), CloseReason> {
        let mut state = lock(&self.state);
        if state.is_full {
            return Ok(()); // the loop's thread writes it when it can
        }
        if state.queue.is_empty() && matches!(state.ending, Ending::No) {
            return Ok(()); // each call comes by here twice
        }
        match state.stream.take() {
            Some(stream) => self.pump(state, stream, core).map_err(|broken| broken.reason),
            None => Ok(()), // whoever writes now goes on until all is written
        }
    }

    /// The format of the peer is known from its first chunk.
    pub(crate) fn set_format(&self, format: Format) {
        let mut state = lock(&self.state);
        if state.format.is_none() {
            state.format = Some(format);
            self.room.notify_all();
        }
    }

    /// The peer takes contexts.
    pub(crate) fn tell_deadlines(&self) {
        lock(&self.state).tells_deadlines = true;
    }

    /// Whether it is told of the deadlines of calls.
    pub(crate) fn tells_deadlines(&self) -> bool {
        lock(&self.state).tells_deadlines
    }

    pub(crate) fn negotiated(&self, window: u64) {
        lock(&self.state).window.negotiated(window);
    }

    /// The peer's handlers have taken so much; `false` where that cannot be.
    pub(crate) fn credit(&self, total: u64) -> bool {
        let mut state = lock(&self.state);
        let valid = state.window.credit(total);
        state.tells_credit |= valid;
        if valid && state.waiting > 0 {
            self.room.notify_all();
        }
        valid
    }

    /// Accepts nothing more but replies, and closes the descriptor when all is written.
    pub(crate) fn close_after_flush(&self, core: &Arc<Core>) -> Result<(), CloseReason> {
        let mut state = lock(&self.state);
        if let Ending::No = state.ending {
            state.ending = Ending::AfterFlush;
        }
        if state.waiting > 0 {
            self.room.notify_all();
        }
        drop(state);
        self.flush(core)
    }

    /// Forgets what waits and closes the descriptor.
    pub(crate) fn end(&self, reason: &Arc<CloseReason>) {
        let mut state = lock(&self.state);
        if !matches!(state.ending, Ending::Ended(_)) {
            state.ending = Ending::Ended(Arc::clone(reason));
        }
        state.forget_queue();
        if let Some(stream) = state.stream.take() {
            state.close(stream);
        }
        self.room.notify_all();
    }

    /// No chunk will tell the format any more, and no credit will come: what would have to wait for the peer fails.
    pub(crate) fn reading_ended(&self, reason: &Arc<CloseReason>) {
        let mut state = lock(&self.state);
        if state.format.is_none() {
            state.ending = Ending::Ended(Arc::clone(reason));
        }
        state.silent = Some(Arc::clone(reason));
        self.room.notify_all();
    }

    /// Waits until nothing waits to be written and nobody writes.
    pub(crate) fn wait_written(&self, deadline: Option<Instant>) -> bool {
        let mut state = lock(&self.state);
        while state.queued > 0 || (state.stream.is_none() && !matches!(state.ending, Ending::Ended(_))) {
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                return false;
            }
            state.waiting += 1;
            state = wait_until(&self.room, state, deadline);
            state.waiting -= 1;
        }
        true
    }

    /// The credit that a sender waits for, if any.
    pub(crate) fn awaited_credit(&self) -> Option<Credit> {
        let state = lock(&self.state);
        state.window.missing().filter(|_| state.waiting > 0)
    }

    /// Bytes that wait.
    pub(crate) fn queued(&self) -> usize {
        lock(&self.state).queued
    }

    /// The headers of the last chunks that were sent.
    pub(crate) fn recent(&self) -> Vec<ChunkHead> {
        let state = lock(&self.state);
        state.recent.heads_sent(state.sent())
    }

    fn wait_for_room(&self, class: Class, core: &Arc<Core>) -> Result<MutexGuard<'_, State>, SendFault> {
        let mut state = lock(&self.state);
        let mut began = None;
        while self.must_wait(&state, class)? {
            let begun = *began.get_or_insert_with(Instant::now);
            let terms = match class {
                Class::HeldBack(terms) | Class::Unweighed(terms) => terms,
                Class::Reply | Class::Control => Terms::WAIT,
            };
            if terms.patience == Patience::None {
                return Err(SendFault::WouldBlock);
            }
            if terms.deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                return Err(SendFault::Late(state.awaited_credit(class)));
            }
            // Without a deadline there is no error that would say why the sender waits.
            let notice = state.notice_of_credit(class, begun, core);
            state.waiting += 1;
            drop(state);
            core.end_leading_ahead();
            let wait = || {
                let state = lock(&self.state);
                // What changed between the two locks was told to nobody: look again ahead of sleeping.
                match self.must_wait(&state, class) {
                    Ok(true) => wait_until(&self.room, state, sooner(terms.deadline, notice)),
                    Ok(false) | Err(_) => state,
                }
            };
            state = match class {
                Class::HeldBack(_) | Class::Unweighed(_) => thread_pool::while_blocked(Awaits::Peer, wait),
                Class::Reply | Class::Control => thread_pool::while_unread(wait),
            };
            state.waiting -= 1;
        }
        Ok(state)
    }

    fn must_wait(&self, state: &State, class: Class) -> Result<bool, SendFault> {
        let held_back = matches!(class, Class::HeldBack(_));
        let is_new = held_back || matches!(class, Class::Unweighed(_));
        match &state.ending {
            Ending::Ended(reason) => return Err(SendFault::Closed(Arc::clone(reason))),
            Ending::AfterFlush if is_new => return Err(SendFault::Closed(Arc::new(CloseReason::Local))),
            Ending::AfterFlush | Ending::No => {}
        }
        let must_wait = state.format.is_none()
            || (matches!(class, Class::HeldBack(_) | Class::Reply) && state.queued >= self.outgoing)
            || (held_back && !state.window.is_open());
        match &state.silent {
            Some(reason) if must_wait && is_new => Err(SendFault::Closed(Arc::clone(reason))),
            _ => Ok(must_wait),
        }
    }

    /// Writes until nothing waits or the pipe takes no more; gives the descriptor back in either case.
    fn pump<'a>(
        &'a self,
        mut state: MutexGuard<'a, State>,
        mut stream: Stream,
        core: &Arc<Core>,
    ) -> Result<(), Broken> {
        for round in 0.. {
            if let Ending::Ended(_) = state.ending {
                state.forget_queue();
                state.close(stream);
                return Ok(());
            }
            if state.queue.is_empty() {
                if let Ending::AfterFlush = state.ending {
                    state.close(stream);
                } else {
                    state.stream = Some(stream);
                }
                if state.waiting > 0 {
                    self.room.notify_all();
                }
                return Ok(());
            }
            if round == ROUNDS {
                return state.wait_writable(stream, core);
            }
            let mut pieces = std::mem::take(&mut state.queue);
            let mut outlines = std::mem::take(&mut state.outlines);
            let mut spare = state.spare.take();
            state.in_flight = state.queued;
            drop(state);
            let (bytes, taken) = self.write_pieces(&mut stream, &mut pieces, &mut outlines, &mut spare, core);
            state = lock(&self.state);
            state.spare = spare;
            state.in_flight = 0;
            if let Some(written) = &mut state.given_up {
                *written += bytes as u64;
            }
            let left = state.queued.saturating_sub(bytes);
            state.queued = left;
            state.unread.left(left);
            if bytes > 0 {
                state.looks = 0;
            }
            let taken = match taken {
                Ok(taken) => taken,
                Err(error) => {
                    let broken = state.broken(error);
                    state.give_back(stream);
                    return Err(broken);
                }
            };
            // What came meanwhile goes behind what is left.
            pieces.append(&mut state.queue);
            state.queue = pieces;
            outlines.append(&mut state.outlines);
            state.outlines = outlines;
            if state.waiting > 0 && state.queued < self.outgoing {
                self.room.notify_all();
            }
            match taken {
                _ if matches!(state.ending, Ending::Ended(_)) => {}
                Taken::All => {}
                Taken::Some => return state.wait_writable(stream, core),
                Taken::NoRoom => {
                    state.wait_for_room(stream, core);
                    return Ok(());
                }
            }
        }
        unreachable!("the rounds end with their number")
    }

    /// Writes pieces from the front, removes what was written; gives the bytes, also where it fails then.
    fn write_pieces(
        &self,
        stream: &mut Stream,
        pieces: &mut VecDeque<Piece>,
        outlines: &mut Outlines,
        spare: &mut Option<Vec<u8>>,
        core: &Core,
    ) -> (usize, io::Result<Taken>) {
        let mut total = 0;
        while !pieces.is_empty() {
            let mut slices = [IoSlice::new(&[]); SLICES];
            let in_classic = !outlines.is_empty();
            let (mut count, mut room) = match outlines.step(|len| stream.room_for(len)) {
                Step::Write(len) => (0, len),
                Step::Wait => return (total, Ok(Taken::NoRoom)),
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
                Ok(None) => return (total, Ok(Taken::Some)),
                Err(error) => return (total, Err(error)),
            };
            total += written;
            outlines.wrote(written);
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
                        core.events.keep_spent(bytes);
                    }
                }
            }
        }
        (total, Ok(Taken::All))
    }
}
