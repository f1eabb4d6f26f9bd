//! Who reads, and what becomes of what was read.
//!
//! One thread at a time has the lead: the right to read. At rest it is with the loop, which waits in epoll. A caller
//! that waits for its reply, with no other call open, takes it: it reads its reply by itself, on its own thread, with
//! no hand-over, and gives the lead back. Whoever reads runs no user code and waits for nobody: calls are completed,
//! requests and one-ways are put into the inbox.
//!
//! ```text
//!            event, or a caller that waits            held too much, no call open
//!   Armed ------------------------------> Taken ------------------------------> Paused
//!     ^  <------------------------------    |     <------------------------------  |
//!     |          nothing left to read       | end of file, error                   | room again, or a call opened
//!     |                                     v                                      |
//!     |                                   Ended                                    |
//!     +--------------------------------------------------------------------------- +
//! ```

use std::io::{self, PipeReader, PipeWriter, Read as _, Write as _};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use mio::Interest;
use pipeplug_wire::{DecodeError, Received, Receiver};

use crate::call::Slot;
use crate::core::Core;
use crate::error::CloseReason;
use crate::inbox::Admitted;
use crate::lock::lock;
use crate::options::Options;
use crate::sys::{Read, Stream};

/// What is shown of what is no chunk, in bytes.
const SHOWN: usize = 64;
/// After so many bytes others have their turn.
const TURN: usize = 1 << 20;

/// Who has the right to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Lead {
    Armed,
    Taken,
    Paused,
    Ended,
}

/// The reading half.
pub(crate) struct Reader {
    /// `None` once it has ended.
    stream: Option<Arc<Stream>>,
    receiver: Receiver,
}

/// How a turn of reading ended.
#[derive(Debug, PartialEq, Eq)]
enum Turn {
    /// Nothing is left to read.
    Drained,
    /// There may be more.
    Unfinished,
    Paused,
    Ended,
}

/// When a turn of reading is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Until {
    /// When a read says that nothing is left. The loop needs that: epoll reports an end of file only once, and it may
    /// have come together with the last bytes.
    Empty,
    /// When a read brings less than was asked for, which spares the read that says that nothing is left. For who
    /// asks poll(2) next, which tells an end of file each time.
    Short,
}

/// Wakes a caller that sleeps in poll(2) on the connection.
#[derive(Debug)]
pub(crate) struct Bell {
    reader: PipeReader,
    writer: PipeWriter,
    rung: AtomicBool,
}

thread_local! {
    /// One for each thread that ever slept as a reader.
    static BELL: std::cell::OnceCell<Arc<Bell>> = const { std::cell::OnceCell::new() };
}

impl Reader {
    pub(crate) fn new(stream: Stream, options: &Options) -> Self {
        Self { stream: Some(Arc::new(stream)), receiver: Receiver::new(options.format, options.limits) }
    }
}

impl Core {
    /// Begins to read.
    pub(crate) fn start_reading(self: &Arc<Self>) -> io::Result<()> {
        let Some(stream) = lock(&self.reader).stream.clone() else { return Ok(()) };
        let source = Arc::<Self>::clone(self);
        let registration = self.events.register(stream.as_fd(), Interest::READABLE, source)?;
        *lock(&self.registered) = Some((registration, stream));
        self.give_lead_back();
        Ok(())
    }

    /// The loop's turn: the pipe is readable.
    pub(crate) fn read_on_loop(self: &Arc<Self>) {
        if !self.take_lead(Lead::Armed) {
            return; // a caller reads, and what it leaves is reported when it gives the lead back
        }
        let mut reader = lock(&self.reader);
        let turn = self.read(&mut reader, Until::Empty);
        if turn == Turn::Drained {
            reader.receiver.release();
        }
        drop(reader);
        match turn {
            Turn::Ended | Turn::Paused => {}
            Turn::Unfinished => self.give_lead_back(),
            Turn::Drained => {
                // Still armed in epoll, which reports anew what comes after the last read.
                self.lead.store(Lead::Armed as u8, Ordering::SeqCst);
                self.end_if_asked();
            }
        }
    }

    /// Reads for a caller until its call is done, if nobody else reads and no other call waits.
    pub(crate) fn lead_for(self: &Arc<Self>, slot: &Slot, deadline: Option<Instant>) {
        if lock(&self.calls).len() > 1 || !self.take_lead(Lead::Armed) {
            return;
        }
        let Ok(bell) = Bell::of_this_thread() else {
            return self.give_lead_back(); // no descriptor left: the loop reads
        };
        let mut reader = lock(&self.reader);
        if let Some((registration, stream)) = &*lock(&self.registered)
            && let Err(error) = registration.disarm(stream.as_fd())
        {
            tracing::debug!(%error, "the loop goes on watching");
        }
        *lock(&self.bell) = Some(Arc::clone(&bell));
        let turn = loop {
            let turn = self.read(&mut reader, Until::Short);
            if turn == Turn::Ended
                || turn == Turn::Paused
                || slot.is_done()
                || self.is_ending.load(Ordering::SeqCst)
                // A peer that never pauses would have it read for good.
                || deadline.is_some_and(|deadline| Instant::now() >= deadline)
            {
                break turn;
            }
            if turn == Turn::Drained {
                let Some(stream) = &reader.stream else { break turn };
                match stream.wait_readable(&bell.reader, deadline) {
                    Ok(true) => {}
                    Ok(false) => break turn,
                    Err(error) => {
                        tracing::debug!(%error, "poll failed, the loop reads on");
                        break turn;
                    }
                }
            }
        };
        *lock(&self.bell) = None;
        bell.silence();
        drop(reader);
        match turn {
            Turn::Ended | Turn::Paused => {}
            Turn::Drained | Turn::Unfinished => self.give_lead_back(),
        }
    }

    /// There is room again, or a call was opened: reading goes on if it had paused.
    pub(crate) fn resume_reading(self: &Arc<Self>) {
        if self.lead.load(Ordering::SeqCst) == Lead::Paused as u8 && self.take_lead(Lead::Paused) {
            self.give_lead_back();
        }
    }

    /// What is held, where it is so much that not even an open call has more read: one call after the other would have
    /// it grow without bound.
    pub(crate) fn overrun_while_paused(&self) -> Option<usize> {
        if self.lead.load(Ordering::SeqCst) != Lead::Paused as u8 {
            return None;
        }
        Some(self.held()).filter(|held| *held > self.options.overrun)
    }

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

    fn end_if_asked(self: &Arc<Self>) {
        if !self.is_ending.load(Ordering::SeqCst)
            || !(self.take_lead(Lead::Armed) || self.take_lead(Lead::Paused))
        {
            return; // whoever has the lead looks here again when it gives it back
        }
        let mut reader = lock(&self.reader);
        if self.read(&mut reader, Until::Empty) != Turn::Ended {
            self.end(&mut reader, CloseReason::Local);
        }
    }

    fn take_lead(&self, from: Lead) -> bool {
        let (from, to) = (from as u8, Lead::Taken as u8);
        self.lead.compare_exchange(from, to, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }

    fn give_lead_back(self: &Arc<Self>) {
        self.lead.store(Lead::Armed as u8, Ordering::SeqCst);
        // After the store: the loop may be told within this call, and takes the lead then. Where another thread took
        // it in between, the loop is told for nothing.
        self.arm();
        self.end_if_asked();
    }

    fn arm(self: &Arc<Self>) {
        let registered = lock(&self.registered);
        if let Some((registration, stream)) = &*registered
            && let Err(error) = registration.arm(stream.as_fd(), Interest::READABLE)
        {
            drop(registered);
            self.end_after_reading(CloseReason::ReadFailed(error));
        }
    }

    /// Reads and deals with what is there.
    fn read(self: &Arc<Self>, reader: &mut Reader, until: Until) -> Turn {
        let mut total = 0;
        loop {
            let Some(stream) = &reader.stream else { return Turn::Ended };
            let space = reader.receiver.space();
            let max = space.max.min(self.options.transfer.get());
            match stream.read(space.into, max) {
                Ok(Read::Data(count)) => {
                    total += count;
                    let full = match self.deal(&mut reader.receiver) {
                        Ok(admitted) => admitted == Admitted::Full,
                        Err(error) => {
                            let reason = broken(error, &reader.receiver);
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
                    if total >= TURN {
                        return Turn::Unfinished;
                    }
                }
                Ok(Read::WouldBlock) => return Turn::Drained,
                Ok(Read::End) => {
                    let reason = match reader.receiver.finish() {
                        Ok(()) => CloseReason::EndOfFile,
                        Err(error) => broken(error, &reader.receiver),
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
    fn pause(&self) -> bool {
        self.lead.store(Lead::Paused as u8, Ordering::SeqCst);
        let go_on = !self.is_full() || !lock(&self.calls).is_empty() || self.is_ending.load(Ordering::SeqCst);
        // Somebody may have taken the lead out of the pause meanwhile: then it is theirs.
        !(go_on && self.take_lead(Lead::Paused))
    }

    fn end(self: &Arc<Self>, reader: &mut Reader, reason: CloseReason) {
        self.lead.store(Lead::Ended as u8, Ordering::SeqCst);
        reader.stream = None;
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

    /// Deals with every chunk that lies whole in the receiver.
    fn deal(self: &Arc<Self>, receiver: &mut Receiver) -> Result<Admitted, DecodeError> {
        let mut admitted = Admitted::Yes;
        if self.options.format.is_none() && receiver.offset() == 0 {
            // The first chunk tells the format, which whatever answers it has to know already.
            let first = match receiver.next()? {
                None => return Ok(admitted),
                Some(Received::Chunk(chunk)) => Received::Large(chunk.to_chunk()),
                Some(Received::Large(chunk)) => Received::Large(chunk),
                Some(Received::Skipped(skipped)) => Received::Skipped(skipped),
            };
            self.outbox.set_format(receiver.format().unwrap_or_default());
            admitted = self.dispatch(first);
        }
        while let Some(received) = receiver.next()? {
            if self.dispatch(received) == Admitted::Full {
                admitted = Admitted::Full;
            }
        }
        Ok(admitted)
    }
}

/// What stood where, and what it was part of.
fn broken(error: DecodeError, receiver: &Receiver) -> CloseReason {
    let chunk = receiver.unread();
    CloseReason::Broken { error, first: chunk[..chunk.len().min(SHOWN)].to_vec() }
}

/// Whether this only says that the peer is gone.
fn is_loss(reason: &CloseReason) -> bool {
    matches!(reason, CloseReason::EndOfFile | CloseReason::WriteFailed(_))
}

impl Bell {
    fn of_this_thread() -> io::Result<Arc<Self>> {
        BELL.with(|cell| {
            if let Some(bell) = cell.get() {
                return Ok(Arc::clone(bell));
            }
            let (reader, writer) = io::pipe()?;
            Ok(Arc::clone(
                cell.get_or_init(|| Arc::new(Self { reader, writer, rung: AtomicBool::new(false) })),
            ))
        })
    }

    fn ring(&self) {
        if !self.rung.swap(true, Ordering::SeqCst) && (&self.writer).write_all(&[0]).is_err() {
            // The reader stands beside it and an empty pipe takes a byte.
            tracing::error!("a reading caller could not be woken");
        }
    }

    fn silence(&self) {
        if self.rung.swap(false, Ordering::SeqCst) && (&self.reader).read_exact(&mut [0]).is_err() {
            tracing::error!("a bell could not be read");
        }
    }
}
