//! The receiving half of a stream.

use std::any::Any;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use pipeplug_wire::{ChunkRef, command};

use super::error::StreamError;
use super::part::{self, Batch, Part, PartQueue};
use super::past_windows::PastWindows;
use super::{CallStream, IGNORED, StreamKey};
use crate::clock::has_passed;
use crate::connection::shared::Shared;
use crate::event_loop::timers::Timer;
use crate::protocol::flow::{ReceiveWindow, weight};
use crate::sync::lock::{guarded, lock, wait_until};
use crate::sync::{Condvar, Instant};

/// Largest number of parts that are taken together.
const BATCH_MAX: usize = 1024;

/// Parts that were received and not taken yet.
#[derive(Debug)]
pub(crate) struct Receiving {
    batches: VecDeque<Batch>,
    /// Weight of the parts that were received and not taken, in bytes.
    held: u64,
    window: u64,
    /// End of the parts. Those before it are taken first.
    end: Option<Result<(), StreamError>>,
    /// Time at which the end was received, if it was.
    ended_at: Option<Instant>,
    /// Receiver that waits.
    waiter: Waiter,
    credit: ReceiveWindow,
    /// Weight that is counted at a time.
    lock_each: u64,
    past: PastWindows,
}

/// Thread or task that waits for a change.
#[derive(Debug, Default)]
pub(crate) enum Waiter {
    #[default]
    None,
    Thread,
    Task(Waker),
}

impl Waiter {
    /// Replaces the waker. The earlier one is dropped by the caller, outside its lock.
    #[must_use]
    pub(crate) fn set_task(&mut self, waker: &Waker) -> Option<Self> {
        match self {
            Self::Task(earlier) if earlier.will_wake(waker) => None,
            _ => Some(std::mem::replace(self, Self::Task(waker.clone()))),
        }
    }

    /// Wakes it. A thread sleeps on `condvar`. Called without a lock: a waker is code of the user.
    pub(crate) fn wake(self, condvar: &Condvar) {
        match self {
            Self::None => {}
            Self::Thread => condvar.notify_one(),
            Self::Task(waker) => guarded("a waker", || waker.wake()),
        }
    }
}

impl Receiving {
    /// `credits_each` has the sender told of each part that is taken, not of each half window.
    pub(super) fn new(window: u64, receives: bool, credits_each: bool, past: PastWindows) -> Self {
        let reported = if credits_each { 1 } else { window };
        let mut credit = ReceiveWindow::new(usize::try_from(reported).unwrap_or(usize::MAX));
        credit.negotiated();
        let end = (!receives).then_some(Ok(()));
        Self {
            batches: VecDeque::new(),
            held: 0,
            window: window.max(1),
            end,
            ended_at: None,
            waiter: Waiter::None,
            lock_each: lock_each(reported),
            credit,
            past,
        }
    }

    pub(super) fn fail(&mut self, error: StreamError) {
        self.end = Some(Err(error));
    }

    fn is_ready(&self) -> bool {
        !self.batches.is_empty() || self.end.is_some()
    }

    /// Returns true if there are parts, or may be, that a handler which takes none ignores.
    pub(super) fn is_ignored(&self) -> bool {
        !self.batches.is_empty() || self.end.is_none()
    }
}

/// Parts of one stream that the leader has received one behind the other, and hands over together.
#[derive(Debug, Default)]
pub(crate) struct GatheredParts {
    /// Stream of the last parts. Kept, since that of the next ones is mostly the same.
    stream: Option<Arc<CallStream>>,
    batches: VecDeque<Batch>,
    weight: u64,
    last: u64,
}

impl Shared {
    /// Gathers a part. Called by the leader.
    pub(crate) fn gather_part(self: &Arc<Self>, parts: &mut GatheredParts, chunk: &ChunkRef<'_>) {
        let key = StreamKey::of(chunk);
        if parts.stream.as_ref().is_none_or(|stream| stream.key != key) {
            self.deliver_parts(parts);
            parts.stream = self.streams.get(key);
        }
        // Parts may come behind the end of their stream, which the sender did not know of.
        if parts.stream.is_some() {
            parts.last = weight_of(chunk.buffer);
            parts.weight += parts.last;
            part::add(&mut parts.batches, chunk.buffer);
        }
    }

    /// Hands gathered parts over to their receiver. Called by the leader.
    #[inline]
    pub(crate) fn deliver_parts(self: &Arc<Self>, parts: &mut GatheredParts) {
        if let Some(stream) = parts.stream.take() {
            let weight = std::mem::take(&mut parts.weight);
            self.deliver(&stream, &mut parts.batches, weight, parts.last);
        }
    }

    /// Hands parts over to the receiver. `last` is the weight of the last one.
    pub(super) fn deliver(
        self: &Arc<Self>,
        stream: &CallStream,
        batches: &mut VecDeque<Batch>,
        weight: u64,
        last: u64,
    ) {
        if let Err(error) = stream.received(batches, weight, last) {
            batches.clear();
            tracing::warn!(peer = %self.options.name, id = %stream.key.id, "{error}");
            self.send_enough(stream, &error.to_string());
        }
    }
}

fn weight_of(part: &[u8]) -> u64 {
    weight(command::PART.len(), part.len())
}

impl CallStream {
    /// Adds parts. `last` is the weight of the last one.
    fn received(
        &self,
        batches: &mut VecDeque<Batch>,
        weight: u64,
        last: u64,
    ) -> Result<(), StreamError> {
        let mut receiving = lock(&self.receiving);
        if receiving.end.is_some() {
            batches.clear();
            return Ok(()); // behind the end, or no longer wanted
        }
        // One part may go past the window.
        if receiving.held.saturating_add(weight - last) >= receiving.window {
            let (held, window) = (receiving.held, receiving.window);
            drop(receiving);
            let error = StreamError::PastWindow { held, window };
            self.end_received(Err(error.clone()));
            return Err(error);
        }
        let held = receiving.held + weight;
        let past = held.saturating_sub(receiving.window);
        if let Err((total, limit)) = receiving.past.set(past) {
            drop(receiving);
            let [held, limit] = [total, limit].map(|n| usize::try_from(n).unwrap_or(usize::MAX));
            let error = StreamError::Overrun { held, limit };
            self.end_received(Err(error.clone()));
            return Err(error);
        }
        receiving.held = held;
        receiving.batches.append(batches);
        let waiter = std::mem::take(&mut receiving.waiter);
        drop(receiving);
        waiter.wake(&self.received);
        Ok(())
    }

    /// Ends the parts that come, unless they have ended.
    pub(super) fn end_received(&self, end: Result<(), StreamError>) {
        let mut receiving = lock(&self.receiving);
        if receiving.end.is_none() {
            (receiving.end, receiving.ended_at) = (Some(end), Some(Instant::now()));
        }
        let waiter = std::mem::take(&mut receiving.waiter);
        drop(receiving);
        waiter.wake(&self.received);
    }

    fn is_ready(&self) -> bool {
        lock(&self.receiving).is_ready()
    }

    /// Sleeps until something comes or `deadline` passes.
    fn sleep_for_parts(&self, deadline: Option<Instant>) {
        let mut receiving = lock(&self.receiving);
        while !receiving.is_ready() && !deadline.is_some_and(has_passed) {
            receiving.waiter = Waiter::Thread;
            receiving = wait_until(&self.received, receiving, deadline);
        }
        receiving.waiter = Waiter::None;
    }
}

/// The part of a receiving half that a caller and a handler have in common.
#[derive(Debug)]
pub(super) struct PartReader {
    pub(super) shared: Arc<Shared>,
    pub(super) stream: Arc<CallStream>,
    queue: PartQueue,
    /// Weight of the parts that were taken and not reported to the lock's counters yet.
    taken: u64,
    /// Weight that is counted at a time.
    lock_each: u64,
}

/// Result of a look at a stream.
pub(super) enum Next {
    Part(Part),
    Ended(Result<(), StreamError>),
    Nothing,
}

impl PartReader {
    pub(super) fn new(shared: Arc<Shared>, stream: Arc<CallStream>) -> Self {
        let lock_each = lock(&stream.receiving).lock_each;
        Self { shared, stream, queue: PartQueue::default(), taken: 0, lock_each }
    }

    /// Takes the next one of the parts that were handed over together with the last one.
    #[inline]
    pub(super) fn next_here(&mut self) -> Option<Part> {
        let part = self.queue.pop()?;
        self.took(&part);
        Some(part)
    }

    /// Takes the next part, without waiting. If there is none, `waker` is woken when there is.
    ///
    /// Follows [`next_here`](Self::next_here): a deadline is looked at in between, not for each
    /// part.
    pub(super) fn next(&mut self, waker: Option<&Waker>) -> Next {
        let mut receiving = lock(&self.stream.receiving);
        std::mem::swap(&mut self.queue.rest, &mut receiving.batches);
        if let Some(part) = self.queue.pop() {
            drop(receiving);
            self.took(&part);
            return Next::Part(part);
        }
        if let Some(end) = &receiving.end {
            return Next::Ended(end.clone());
        }
        let earlier = waker.and_then(|waker| receiving.waiter.set_task(waker));
        drop(receiving);
        drop(earlier); // not under the lock: a waker's drop is code of the user
        Next::Nothing
    }

    /// Takes the parts that were handed over, up to [`BATCH_MAX`] with the first one.
    pub(super) fn with_those_here(&mut self, first: Part) -> Vec<Part> {
        let mut parts = vec![first];
        while parts.len() < BATCH_MAX
            && let Some(part) = self.next_here()
        {
            parts.push(part);
        }
        parts
    }

    /// Counts a part as taken, and gives the sender credit when it is due.
    fn took(&mut self, part: &Part) {
        self.taken += weight_of(part);
        // With a lock for each part small ones would cost twice as much.
        if self.taken < self.lock_each {
            return;
        }
        let taken = std::mem::take(&mut self.taken);
        let total = {
            let mut receiving = lock(&self.stream.receiving);
            receiving.held = receiving.held.saturating_sub(taken);
            let past = receiving.held.saturating_sub(receiving.window);
            // Less is never too much.
            let _ = receiving.past.set(past);
            receiving.credit.taken(taken);
            if receiving.end.is_some() { None } else { receiving.credit.report() }
        };
        if let Some(total) = total {
            let key = self.stream.key;
            let buffer = total.to_string().into_bytes();
            self.shared.send_control(key.id, key.direction(), command::PART_CREDIT, buffer);
        }
    }

    /// Ends the parts, since `deadline` has passed, unless they had ended before it. Those that were
    /// received are still taken; later ones are dropped.
    fn end_late(&self, deadline: Instant) {
        let mut receiving = lock(&self.stream.receiving);
        // By the system's clock. An end that came before this look is in time by a manual clock.
        let is_in_time = receiving.ended_at.is_none_or(|ended| ended < deadline);
        match &receiving.end {
            Some(Ok(()) | Err(StreamError::Aborted { .. })) if is_in_time => {}
            // These end a stream at any time.
            Some(Err(error)) if !matches!(error, StreamError::Aborted { .. }) => {}
            _ => receiving.end = Some(Err(StreamError::DeadlinePassed)),
        }
    }

    /// Waits until there is a part or the end, or `deadline` passes.
    pub(super) fn wait(&self, deadline: Option<Instant>) {
        let stream = &self.stream;
        self.shared.wait_for_peer(
            deadline,
            || stream.is_ready(),
            || stream.sleep_for_parts(deadline),
        );
    }

    /// Takes no more parts, and tells the sender, unless they have ended.
    pub(super) fn enough(&self, reason: &str) {
        let has_ended = {
            let mut receiving = lock(&self.stream.receiving);
            receiving.batches.clear();
            // Less is never too much.
            let _ = receiving.past.set(0);
            receiving.end.replace(Ok(())).is_some()
        };
        if !has_ended {
            self.shared.send_enough(&self.stream, reason);
        }
    }
}

/// Weight that is counted at a time, for a window of this size.
fn lock_each(window: u64) -> u64 {
    (window / 16).min(16 << 10)
}

/// Parts of a request or one-way, for its handler.
///
/// Iterate over it, read it as bytes ([`Read`](std::io::Read)), or await it
/// ([`Stream`](futures_core::Stream)). The parts come in the order in which they were sent. After
/// an error there are no more. Dropping it tells the sender that no more parts are wanted.
///
/// After the deadline of the request, the parts that were received are still given, and then
/// [`StreamError::DeadlinePassed`], unless the stream had ended before.
///
/// # Blocking
/// `next` and `read` block until a part comes or the stream ends: by its sender, by the deadline of
/// the request, when the caller gives it up, or with the connection.
#[derive(Debug)]
pub struct Parts {
    reader: PartReader,
    deadline: Option<Instant>,
    timer: Option<Timer>,
    has_ended: bool,
    /// Reason that a drop gives the sender.
    drop_reason: &'static str,
    /// Part that is being read as bytes.
    bytes: Bytes,
}

impl Parts {
    pub(crate) fn new(
        shared: Arc<Shared>,
        stream: Arc<CallStream>,
        deadline: Option<Instant>,
    ) -> Self {
        Self {
            reader: PartReader::new(shared, stream),
            deadline,
            timer: None,
            has_ended: false,
            drop_reason: "",
            bytes: Bytes::default(),
        }
    }

    /// Has a drop tell the sender that the handler has ignored the parts.
    pub(crate) fn ignored(self) -> Self {
        self.with_drop_reason(IGNORED)
    }

    /// Has a drop give the sender no reason.
    pub(crate) fn taken(self) -> Self {
        self.with_drop_reason("")
    }

    fn with_drop_reason(mut self, reason: &'static str) -> Self {
        self.drop_reason = reason;
        self
    }

    /// Takes no more parts, and gives the sender the reason.
    pub fn enough(mut self, reason: &str) {
        self.has_ended = true;
        self.reader.enough(reason);
    }

    pub(super) fn with_those_here(&mut self, first: Part) -> Vec<Part> {
        self.reader.with_those_here(first)
    }

    /// Takes the next part, without waiting.
    fn look(&mut self, waker: Option<&Waker>) -> Next {
        if let Some(part) = self.reader.next_here() {
            return Next::Part(part);
        }
        if let Some(deadline) = self.deadline
            && has_passed(deadline)
        {
            // Before the next look: a sender that goes on would be listened to for ever.
            self.reader.end_late(deadline);
        }
        self.reader.next(waker)
    }

    fn ended(&mut self, end: Result<(), StreamError>) -> Option<Result<Part, StreamError>> {
        self.has_ended = true;
        end.err().map(Err)
    }
}

impl Parts {
    /// Takes the next part as `next` does, and awaits it. `None` at the end.
    ///
    /// # Errors
    /// As for `next`.
    ///
    /// # Cancellation
    /// Dropping the future loses no part.
    pub async fn next_async(&mut self) -> Option<Result<Part, StreamError>> {
        poll_fn(|context| futures_core::Stream::poll_next(Pin::new(&mut *self), context)).await
    }
}

impl Iterator for Parts {
    type Item = Result<Part, StreamError>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.has_ended {
            match self.look(None) {
                Next::Part(part) => return Some(Ok(part)),
                Next::Ended(end) => return self.ended(end),
                Next::Nothing => self.reader.wait(self.deadline),
            }
        }
        None
    }
}

impl futures_core::Stream for Parts {
    type Item = Result<Part, StreamError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        if this.has_ended {
            return Poll::Ready(None);
        }
        match this.look(Some(context.waker())) {
            Next::Part(part) => Poll::Ready(Some(Ok(part))),
            Next::Ended(end) => Poll::Ready(this.ended(end)),
            Next::Nothing => {
                if let Some(deadline) = this.deadline {
                    match &this.timer {
                        Some(timer) => timer.renew(context.waker()),
                        None => {
                            let timers = &this.reader.shared.timers;
                            this.timer = Some(timers.set(deadline, context.waker().clone()));
                        }
                    }
                }
                Poll::Pending
            }
        }
    }
}

impl Drop for Parts {
    fn drop(&mut self) {
        if !self.has_ended {
            self.reader.enough(self.drop_reason);
        }
        let stream = &self.reader.stream;
        if stream.is_one_way {
            self.reader.shared.streams.remove(stream.key);
        }
    }
}

/// A value that lives as long as one half of a stream.
#[derive(Default)]
pub(super) struct Kept(pub(super) Option<Box<dyn Any + Send + Sync>>);

impl std::fmt::Debug for Kept {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Kept").field(&self.0.is_some()).finish()
    }
}

/// A part that is read as bytes.
#[derive(Debug, Default)]
pub(super) struct Bytes {
    pub(super) part: Option<Part>,
    start: usize,
}

impl Bytes {
    pub(super) fn read(&mut self, into: &mut [u8]) -> usize {
        let Some(part) = &self.part else { return 0 };
        let rest = &part[self.start..];
        let len = rest.len().min(into.len());
        into[..len].copy_from_slice(&rest[..len]);
        self.start += len;
        if self.start == part.len() {
            self.part = None;
        }
        len
    }

    pub(super) fn set(&mut self, part: Part) {
        // An empty part is no end of the bytes.
        if !part.is_empty() {
            (self.part, self.start) = (Some(part), 0);
        }
    }
}

macro_rules! read_as_bytes {
    ($type:ty) => {
        impl std::io::Read for $type {
            fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
                while self.bytes.part.is_none() && !into.is_empty() {
                    match self.next().transpose()? {
                        Some(part) => self.bytes.set(part),
                        None => return Ok(0),
                    }
                }
                Ok(self.bytes.read(into))
            }
        }

        impl futures_io::AsyncRead for $type {
            fn poll_read(
                mut self: Pin<&mut Self>,
                context: &mut Context<'_>,
                into: &mut [u8],
            ) -> Poll<std::io::Result<usize>> {
                use futures_core::Stream as _;
                while self.bytes.part.is_none() && !into.is_empty() {
                    match self.as_mut().poll_next(context) {
                        Poll::Ready(Some(part)) => {
                            let part = part?;
                            self.bytes.set(part);
                        }
                        Poll::Ready(None) => return Poll::Ready(Ok(0)),
                        Poll::Pending => return Poll::Pending,
                    }
                }
                Poll::Ready(Ok(self.bytes.read(into)))
            }
        }
    };
}

read_as_bytes!(Parts);
pub(super) use read_as_bytes;
