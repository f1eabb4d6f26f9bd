//! Streams: parts of a request, parts of a reply, or both.
//!
//! A stream belongs to a request or one-way and has its id. Its parts are chunks with that id
//! (docs/protocol.md, "Streams"). Each direction has its own credit, so that a receiver that is
//! slow holds up no other stream and nothing else of the connection.
//!
//! The leader finds the stream of a chunk in [`Streams`] and puts the part into its queue, or notes
//! credit. The receiver and the sender wait as a caller waits for its reply: the thread that waits
//! reads for the connection if no other thread does.

mod batch;
pub(crate) mod error;
pub(crate) mod part;
mod past_windows;
pub(crate) mod receive;
pub(crate) mod reply_parts;
pub(crate) mod send;
pub(crate) mod stream_call;

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use pipeplug_wire::{ChunkRef, Direction, SkipReason, ThreadId, command};

use super::read::dispatch::ReceivedChunk;
use super::serve::refuse::overloaded;
use super::shared::{PeerFeatures, Shared};
use crate::error::CloseReason;
use crate::event_loop::thread_pool::{self, BlockedOn};
use crate::options::Options;
use crate::postmortem::Postmortem;
use crate::protocol::context::{RequestContext, StreamMode};
use crate::protocol::flow;
use crate::sync::lock::lock;
use crate::sync::{
    Condvar, Instant, Mutex,
    atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
};
use error::StreamError;
use part::Batch;
use past_windows::PastWindows;
use receive::Receiving;
use send::Sending;

/// Name of the feature in `pipeplug.features`.
pub(crate) const FEATURE: &str = "stream";

/// Reason of a handler that does not take the parts that follow its request or one-way.
pub(crate) const IGNORED: &str = "the handler takes no parts";

/// Bytes of the reason of an early end that are kept.
const REASON_MAX: usize = 4096;

/// Side that sent the request or one-way of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Origin {
    Own,
    Peer,
}

/// Name of a stream: both sides count their thread ids by themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct StreamKey {
    pub(crate) origin: Origin,
    pub(crate) id: ThreadId,
}

impl StreamKey {
    /// The stream that a chunk of this direction belongs to.
    pub(super) fn of(chunk: &ChunkRef<'_>) -> Self {
        let origin = match chunk.direction {
            Direction::Response => Origin::Own,
            Direction::Request | Direction::OneWay => Origin::Peer,
        };
        Self { origin, id: chunk.thread_id }
    }

    /// Direction of the chunks that this side sends for the stream.
    pub(crate) fn direction(self) -> Direction {
        match self.origin {
            Origin::Own => Direction::OneWay,
            Origin::Peer => Direction::Response,
        }
    }
}

/// Both directions of one stream.
#[derive(Debug)]
pub(crate) struct CallStream {
    pub(crate) key: StreamKey,
    /// True if no response will end it.
    is_one_way: bool,
    /// True once the handler has the parts of the peer.
    is_taken: AtomicBool,
    pub(super) receiving: Mutex<Receiving>,
    pub(super) received: Condvar,
    pub(super) sending: Mutex<Sending>,
    pub(super) may_send: Condvar,
}

/// Open streams of a connection.
#[derive(Debug, Default)]
pub(crate) struct Streams {
    open: Mutex<OpenStreams>,
    /// Number of open streams, for a look without the lock.
    count: AtomicUsize,
    /// Weight of parts past the windows of all streams that was received and not taken, in bytes.
    past_windows: Arc<AtomicU64>,
}

#[derive(Debug, Default)]
struct OpenStreams {
    map: HashMap<StreamKey, Arc<CallStream>>,
    /// Number of those that the peer has opened.
    of_peer: usize,
}

impl Streams {
    /// Returns true if no stream is open, as nearly always.
    #[inline]
    fn is_empty(&self) -> bool {
        self.count.load(Ordering::Acquire) == 0
    }

    /// Number of open streams.
    pub(crate) fn len(&self) -> usize {
        self.count.load(Ordering::Acquire)
    }

    /// Returns true if a stream is open, for a thread that has changed the reader role before it
    /// looks. A thread that opens a stream looks at the role afterwards.
    pub(crate) fn any_open(&self) -> bool {
        self.count.load(Ordering::SeqCst) > 0
    }

    /// Opens a stream. `None` if the peer has as many open as it may, or uses an id twice.
    pub(crate) fn open(
        &self,
        key: StreamKey,
        mode: StreamMode,
        is_one_way: bool,
        peer: &PeerFeatures,
        options: &Options,
    ) -> Option<Arc<CallStream>> {
        let (sends, receives) = match key.origin {
            Origin::Own => (mode.sends, mode.receives),
            Origin::Peer => (mode.receives && !is_one_way, mode.sends),
        };
        let mut open = lock(&self.open);
        if key.origin == Origin::Peer && open.of_peer >= options.streams {
            return None;
        }
        let Entry::Vacant(place) = open.map.entry(key) else { return None };
        // Under the lock. A window that is negotiated is stored first, and set for the open streams
        // under this lock then: it is seen here, or this stream is found.
        let window = peer.stream_window.load(Ordering::Relaxed);
        // Relaxed: credit for each part is never wrong.
        let credits_each = peer.lacks_stream_window.load(Ordering::Relaxed);
        let stream = Arc::new(CallStream {
            key,
            is_one_way,
            is_taken: AtomicBool::new(false),
            receiving: Mutex::new(Receiving::new(
                options.stream_window as u64,
                receives,
                credits_each,
                PastWindows::new(&self.past_windows, options.limits.buffer),
            )),
            received: Condvar::new(),
            sending: Mutex::new(Sending::new(window, sends)),
            may_send: Condvar::new(),
        });
        place.insert(Arc::clone(&stream));
        open.of_peer += usize::from(key.origin == Origin::Peer);
        self.count.store(open.map.len(), Ordering::SeqCst);
        Some(stream)
    }

    /// Sets the peer's window of the streams that were opened before it was negotiated.
    fn negotiated(&self, window: u64) {
        for stream in self.all() {
            stream.window_negotiated(window);
        }
    }

    pub(crate) fn get(&self, key: StreamKey) -> Option<Arc<CallStream>> {
        if self.is_empty() {
            return None;
        }
        lock(&self.open).map.get(&key).cloned()
    }

    /// Removes a stream: no chunk of it is of interest any more.
    #[inline]
    pub(crate) fn remove(&self, key: StreamKey) -> Option<Arc<CallStream>> {
        if self.is_empty() { None } else { self.remove_open(key) }
    }

    #[cold]
    fn remove_open(&self, key: StreamKey) -> Option<Arc<CallStream>> {
        let mut open = lock(&self.open);
        let stream = open.map.remove(&key)?;
        open.of_peer -= usize::from(key.origin == Origin::Peer);
        self.count.store(open.map.len(), Ordering::SeqCst);
        Some(stream)
    }

    /// Removes the streams that this side has opened.
    fn take_own(&self) -> Vec<Arc<CallStream>> {
        let mut open = lock(&self.open);
        let own = open.map.extract_if(|key, _| key.origin == Origin::Own);
        let own = own.map(|(_, stream)| stream).collect();
        self.count.store(open.map.len(), Ordering::SeqCst);
        own
    }

    fn all(&self) -> Vec<Arc<CallStream>> {
        lock(&self.open).map.values().cloned().collect()
    }

    /// Removes all streams.
    pub(crate) fn take_all(&self) -> Vec<Arc<CallStream>> {
        let mut open = lock(&self.open);
        open.of_peer = 0;
        self.count.store(0, Ordering::SeqCst);
        std::mem::take(&mut open.map).into_values().collect()
    }
}

impl CallStream {
    /// A stream that has ended, and that no chunk will find.
    pub(crate) fn detached(key: StreamKey, end: Result<(), StreamError>) -> Arc<Self> {
        let stream = Self {
            key,
            is_one_way: false,
            is_taken: AtomicBool::new(false),
            receiving: Mutex::new(Receiving::new(0, false, false, PastWindows::default())),
            received: Condvar::new(),
            sending: Mutex::new(Sending::new(0, false)),
            may_send: Condvar::new(),
        };
        if let Err(error) = end {
            lock(&stream.receiving).fail(error.clone());
            lock(&stream.sending).fail(error);
        }
        Arc::new(stream)
    }

    /// Notes that the handler takes the parts.
    pub(crate) fn taken(&self) {
        // Relaxed: the thread that answers has the request, which takes them.
        self.is_taken.store(true, Ordering::Relaxed);
    }

    /// Ends both directions, unless they have ended.
    fn end(&self, received: Result<(), StreamError>, sending: StreamError) {
        self.end_received(received);
        self.end_sending(sending);
    }
}

impl Shared {
    /// Opens the stream of a request or one-way of the peer, if it has one. Called by the leader,
    /// before the parts can come. Returns false if the request was refused.
    pub(crate) fn open_or_refuse_stream(
        self: &Arc<Self>,
        chunk: &ChunkRef<'_>,
        context: &RequestContext,
    ) -> bool {
        let Some(mode) = context.stream else { return true };
        let key = StreamKey { origin: Origin::Peer, id: chunk.thread_id };
        let is_one_way = chunk.direction == Direction::OneWay;
        if self.streams.open(key, mode, is_one_way, &self.peer, &self.options).is_some() {
            return true;
        }
        let id = key.id;
        if self.streams.get(key).is_some() {
            // The other one goes on. A one-way gets no `cmd.enough`, which would end the other one.
            if !is_one_way {
                let message = b"not taken: a stream with its id is open".to_vec();
                self.send_control(id, Direction::Response, command::ERROR, message);
            }
            if let Some(times) = self.counters.unexpected.count() {
                tracing::warn!(peer = %self.options.name, %id, times,
                    "a request or one-way was not taken: a stream with its id is open");
            }
            self.credit_unqueued(flow::weight(chunk.command.len(), chunk.buffer.len()));
            return false;
        }
        let limit = self.options.streams;
        let message =
            format!("not taken: {limit} streams of this side are open, the limit is {limit}");
        if is_one_way {
            self.send_control(key.id, key.direction(), command::ENOUGH, message.into_bytes());
        } else {
            self.send_refusal(key.id, &overloaded(message));
        }
        self.credit_unqueued(flow::weight(chunk.command.len(), chunk.buffer.len()));
        false
    }

    /// Deals with a chunk of a stream. Called by the leader.
    pub(crate) fn stream_chunk(self: &Arc<Self>, received: ReceivedChunk<'_>) {
        let chunk = received.as_ref();
        let key = StreamKey::of(&chunk);
        // Chunks may come behind the end of their stream, which the sender did not know of.
        let Some(stream) = self.streams.get(key) else { return };
        match chunk.command {
            command::PART => {
                // Small ones were gathered.
                let weight = flow::weight(command::PART.len(), chunk.buffer.len());
                let mut batches = VecDeque::from([Batch::Large(received.into_buffer())]);
                self.deliver(&stream, &mut batches, weight, weight);
            }
            command::END => {
                let end = match chunk.buffer {
                    [] => Ok(()),
                    reason => Err(StreamError::Aborted { reason: shortened(reason) }),
                };
                stream.end_received(end);
            }
            command::ENOUGH => {
                stream.refused(shortened(chunk.buffer));
            }
            _ => {
                let total = std::str::from_utf8(chunk.buffer).ok().and_then(flow::number);
                if !total.is_some_and(|total| stream.credited(total))
                    && let Some(times) = self.counters.unexpected.count()
                {
                    tracing::warn!(peer = %self.options.name, id = %key.id, times,
                        "a credit of a stream that cannot be was ignored");
                }
            }
        }
    }

    /// Ends the receiving half of a stream of the peer, one of whose parts was skipped.
    pub(crate) fn part_was_skipped(self: &Arc<Self>, id: ThreadId, reason: SkipReason) {
        if let Some(stream) = self.streams.get(StreamKey { origin: Origin::Peer, id }) {
            // Its sender would wait for credit for ever.
            self.send_enough(&stream, &format!("a part was skipped: {reason}"));
            stream.end_received(Err(StreamError::TooLarge(reason)));
        }
    }

    /// Ends the stream of a call of this side, which this thread gives up, and its progress.
    pub(crate) fn give_up_own_stream(self: &Arc<Self>, id: ThreadId) {
        if self.end_own_stream_with(id, StreamError::Cancelled) {
            self.wake_halves();
        }
    }

    /// Wakes the threads of a stream that has ended though nothing came: one that reads while it
    /// waits, and one that waits for room.
    fn wake_halves(&self) {
        self.wake_reading_half();
        self.writer.wake_senders();
    }

    /// Gives a stream up, or the call that it belongs to, while a thread or task sends.
    pub(crate) fn cancel_stream(self: &Arc<Self>, stream: &Arc<CallStream>) {
        let key = stream.key;
        if self.streams.get(key).is_none_or(|open| !Arc::ptr_eq(&open, stream)) {
            return; // it has ended, and another one may have its id
        }
        match key.origin {
            Origin::Own if stream.is_one_way => {
                self.streams.remove(key);
                self.give_up_stream(stream, &StreamError::Cancelled);
            }
            Origin::Own => {
                let slot = lock(&self.calls).get(key.id).cloned();
                if let Some(slot) = slot {
                    self.cancel_call(key.id, &slot);
                }
            }
            Origin::Peer => stream.end_sending(StreamError::Cancelled),
        }
        self.wake_halves();
    }

    /// Has a thread look that reads while it waits for a stream, and so does not sleep on it. What
    /// it waits for has changed, and nothing was read.
    fn wake_reading_half(&self) {
        self.leader.wake();
    }

    /// Ends the stream of a call of this side, which has ended, and its progress. Returns false if
    /// it has no stream.
    #[inline]
    pub(crate) fn end_own_stream(self: &Arc<Self>, id: ThreadId) -> bool {
        self.end_own_stream_with(id, StreamError::Enough { reason: "the call has ended".into() })
    }

    fn end_own_stream_with(self: &Arc<Self>, id: ThreadId, sending: StreamError) -> bool {
        self.end_progress(id);
        let stream = self.streams.remove(StreamKey { origin: Origin::Own, id });
        if let Some(stream) = &stream {
            stream.end(Ok(()), sending);
        }
        stream.is_some()
    }

    /// Ends the stream of a request of the peer, which is about to be answered.
    #[inline]
    pub(crate) fn end_peers_stream(&self, id: ThreadId) {
        if let Some(stream) = self.streams.remove(StreamKey { origin: Origin::Peer, id }) {
            stream.end(
                Err(StreamError::Cancelled),
                StreamError::Enough { reason: "the request is answered".into() },
            );
            self.wake_reading_half();
        }
    }

    /// Tells the sender of the parts of a request, which is about to be answered, that its handler
    /// has ignored them. The answer alone would look like one to them.
    #[inline]
    pub(crate) fn tell_ignored(self: &Arc<Self>, id: ThreadId) {
        let stream = self.streams.get(StreamKey { origin: Origin::Peer, id });
        if let Some(stream) = stream
            && !stream.is_taken.load(Ordering::Relaxed)
            && lock(&stream.receiving).is_ignored()
        {
            self.send_enough(&stream, IGNORED);
        }
    }

    /// Ends the stream of a request that the peer has given up.
    pub(crate) fn cancel_peers_stream(&self, id: ThreadId) {
        if let Some(stream) = self.streams.get(StreamKey { origin: Origin::Peer, id }) {
            stream.end(Err(StreamError::Cancelled), StreamError::Cancelled);
        }
    }

    /// Ends a stream that was removed, and tells the peer.
    pub(crate) fn give_up_stream(self: &Arc<Self>, stream: &CallStream, error: &StreamError) {
        let key = stream.key;
        match key.origin {
            // The parts of a reply end with the error of their call.
            Origin::Own if !stream.is_one_way => stream.end(Ok(()), error.clone()),
            Origin::Own => {
                stream.end(Ok(()), error.clone());
                let reason = error.to_string().into_bytes();
                self.send_control(key.id, key.direction(), command::END, reason);
            }
            Origin::Peer => {
                stream.end(Err(error.clone()), error.clone());
                self.send_enough(stream, &error.to_string());
            }
        }
    }

    /// Sets the peer's window of streams, which it has told.
    pub(crate) fn stream_window_negotiated(&self, window: u64) {
        self.peer.stream_window.store(window, Ordering::Relaxed);
        // After the store; see `Streams::open`.
        self.streams.negotiated(window);
        self.wake_reading_half();
    }

    /// Ends all streams: nothing comes any more.
    pub(crate) fn close_streams(&self, reason: &Arc<CloseReason>, postmortem: &Arc<Postmortem>) {
        // Those of the peer stay, ended: their handlers may begin later, and take the parts that
        // have come.
        let own = self.streams.take_own();
        for stream in own.into_iter().chain(self.streams.all()) {
            let error = StreamError::Closed {
                reason: Arc::clone(reason),
                postmortem: Arc::clone(postmortem),
            };
            // The parts of a reply end with the error of their call.
            let received = match stream.key.origin {
                Origin::Own => Ok(()),
                Origin::Peer => Err(error.clone()),
            };
            stream.end(received, error);
        }
    }

    /// Tells the sender that no more parts are wanted.
    pub(super) fn send_enough(self: &Arc<Self>, stream: &CallStream, reason: &str) {
        let key = stream.key;
        self.send_control(key.id, key.direction(), command::ENOUGH, reason.into());
    }

    /// Waits for something that the peer sends. Reads for the connection meanwhile if no other
    /// thread does, else calls `sleep`, which returns when `is_done` may have become true.
    pub(super) fn wait_for_peer(
        self: &Arc<Self>,
        deadline: Option<Instant>,
        is_done: impl Fn() -> bool,
        sleep: impl FnOnce(),
    ) {
        // A handler on the dedicated reader's thread reads by itself: nothing else has to wake up
        // for each part.
        let is_reader = self.lead_from_handler();
        thread_pool::while_blocked(BlockedOn::Peer, || {
            self.flush();
            self.lead_until_done(&is_done, deadline, is_reader);
            if is_done() {
                return;
            }
            self.sleep_begins();
            sleep();
            self.leader.sleep_ends();
        });
    }
}

/// A reason of the peer, as much of it as a person might read.
fn shortened(reason: &[u8]) -> String {
    String::from_utf8_lossy(&reason[..reason.len().min(REASON_MAX)]).into_owned()
}
