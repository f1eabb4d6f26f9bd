//! Queue of records, and the thread that writes them.

use std::sync::{Arc, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::file::{RecordingError, RingFile};
use super::format;
use super::{OnRecord, Settings};
use crate::sync::lock::{guarded, lock, wait_until};
use crate::sync::{Condvar, Instant, Mutex, MutexGuard, thread};

/// Bytes that wait to be written, past which records are lost.
const QUEUE: usize = 8 << 20;
/// Bytes from which the thread writes at once.
const ENOUGH: usize = 256 << 10;
/// Longest time that a record waits for others.
const GATHER: Duration = Duration::from_millis(10);
/// Time for the last records to be written when the recording is dropped.
const LAST: Duration = Duration::from_secs(2);

/// Writes the records of any number of connections.
pub(crate) struct Recorder {
    shared: Arc<Shared>,
    /// Time of `begun` since the Unix epoch, in nanoseconds.
    epoch: u64,
    begun: std::time::Instant,
}

struct Shared {
    queue: Mutex<Queue>,
    /// Notified when the thread has something to do.
    work: Condvar,
    /// Notified when the thread has done something.
    done: Condvar,
}

#[derive(Debug, Default)]
struct Queue {
    /// Records, each after its length in four bytes.
    bytes: Vec<u8>,
    lost_chunks: u64,
    lost_bytes: u64,
    state: ThreadState,
    /// True if the thread is to write without waiting for more.
    flush: bool,
    closed: bool,
    failure: Option<String>,
    connections: u32,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum ThreadState {
    /// Waits for the first record.
    #[default]
    Idle,
    /// Waits for more.
    Gathering,
    Writing,
    Ended,
}

impl Queue {
    fn is_empty(&self) -> bool {
        self.bytes.is_empty() && self.lost_chunks == 0
    }
}

impl Recorder {
    pub(super) fn start(settings: &Settings) -> Result<Arc<Self>, RecordingError> {
        let file = settings.path.as_deref().map(|path| RingFile::create(path, settings.limit));
        let file = file.transpose()?;
        let (queue, work, done) = (Mutex::new(Queue::default()), Condvar::new(), Condvar::new());
        let shared = Arc::new(Shared { queue, work, done });
        let epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let epoch = u64::try_from(epoch.as_nanos()).unwrap_or(u64::MAX);
        let recorder =
            Self { shared: Arc::clone(&shared), epoch, begun: std::time::Instant::now() };
        let on_record = settings.on_record.clone();
        thread::Builder::new()
            .name("recording".into())
            .spawn(move || write_all(&shared, file, on_record.as_ref()))
            .map_err(|error| RecordingError::Thread { error })?;
        Ok(Arc::new(recorder))
    }

    /// Time since the Unix epoch in nanoseconds, which never goes back.
    pub(super) fn now(&self) -> u64 {
        let passed = u64::try_from(self.begun.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.epoch.saturating_add(passed)
    }

    /// Number for a new connection.
    pub(super) fn next_connection(&self) -> u32 {
        let mut queue = lock(&self.shared.queue);
        queue.connections = queue.connections.saturating_add(1);
        queue.connections
    }

    /// Adds a record of `len` bytes, or counts it as lost. The time is taken under the lock, so that
    /// the times of a file are in order.
    ///
    /// # Blocking
    /// Never for long: the lock is held for copies only.
    pub(super) fn add(&self, len: usize, lost_bytes: u64, encode: impl FnOnce(u64, &mut Vec<u8>)) {
        let mut queue = lock(&self.shared.queue);
        if queue.failure.is_some() {
            return;
        }
        let before = queue.bytes.len();
        if before + 4 + len > QUEUE {
            queue.lost_chunks += 1;
            queue.lost_bytes += lost_bytes;
            return;
        }
        let time = self.now();
        queue.bytes.extend_from_slice(&[0; 4]);
        encode(time, &mut queue.bytes);
        let len = (queue.bytes.len() - before - 4) as u32;
        queue.bytes[before..before + 4].copy_from_slice(&len.to_le_bytes());
        let is_enough = before < ENOUGH && queue.bytes.len() >= ENOUGH;
        if queue.state == ThreadState::Idle || (queue.state == ThreadState::Gathering && is_enough)
        {
            // Once: the thread wakes up only later.
            if queue.state == ThreadState::Idle {
                queue.state = ThreadState::Gathering;
            }
            drop(queue);
            self.shared.work.notify_one();
        }
    }

    /// Waits until everything is written.
    pub(super) fn flush(&self, timeout: Duration) -> bool {
        let deadline = Instant::now().checked_add(timeout);
        let mut queue = lock(&self.shared.queue);
        queue.flush = true;
        self.shared.work.notify_one();
        while queue.failure.is_none()
            && (!queue.is_empty() || queue.state == ThreadState::Writing)
            && queue.state != ThreadState::Ended
        {
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                return false;
            }
            queue = wait_until(&self.shared.done, queue, deadline);
        }
        queue.failure.is_none()
    }

    pub(super) fn failure(&self) -> Option<String> {
        lock(&self.shared.queue).failure.clone()
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        lock(&self.shared.queue).closed = true;
        self.flush(LAST);
    }
}

/// Writes records until the recording is dropped, or the file cannot be written.
fn write_all(shared: &Shared, mut file: Option<RingFile>, on_record: Option<&OnRecord>) {
    let mut records = Vec::new();
    let mut queue = lock(&shared.queue);
    loop {
        queue = wait_for_records(shared, queue);
        if queue.is_empty() {
            break; // closed
        }
        queue.flush = false;
        queue.state = ThreadState::Writing;
        std::mem::swap(&mut queue.bytes, &mut records);
        let (chunks, bytes) = (queue.lost_chunks, queue.lost_bytes);
        (queue.lost_chunks, queue.lost_bytes) = (0, 0);
        drop(queue);
        let written = write_batch(&records, (chunks, bytes), &mut file, on_record);
        records.clear();
        queue = lock(&shared.queue);
        if let Err(error) = written {
            tracing::warn!(%error, "the recording has ended: its file cannot be written");
            queue.failure = Some(error.to_string());
            break;
        }
        queue.state = ThreadState::Idle;
        shared.done.notify_all();
    }
    queue.state = ThreadState::Ended;
    queue.bytes = Vec::new();
    shared.done.notify_all();
}

/// Waits for records, and then for more of them, but not for long.
fn wait_for_records<'a>(
    shared: &'a Shared,
    mut queue: MutexGuard<'a, Queue>,
) -> MutexGuard<'a, Queue> {
    while queue.is_empty() && !queue.closed {
        queue.state = ThreadState::Idle;
        queue = shared.work.wait(queue).unwrap_or_else(PoisonError::into_inner);
    }
    queue.state = ThreadState::Gathering;
    let deadline = Instant::now().checked_add(GATHER);
    while !queue.closed
        && !queue.flush
        && queue.bytes.len() < ENOUGH
        && deadline.is_some_and(|deadline| Instant::now() < deadline)
    {
        queue = wait_until(&shared.work, queue, deadline);
    }
    queue
}

fn write_batch(
    mut records: &[u8],
    (lost_chunks, lost_bytes): (u64, u64),
    file: &mut Option<RingFile>,
    on_record: Option<&OnRecord>,
) -> std::io::Result<()> {
    let mut last = 0;
    let mut each = |record: &[u8]| {
        last = format::number_64(record, 8).unwrap_or(last);
        if let Some(on_record) = on_record
            && let Some(record) = format::decode(record)
        {
            guarded("a call-back of a recording", || on_record(&record));
        }
        file.as_mut().map_or(Ok(()), |file| file.add(record, last))
    };
    while let Some((len, rest)) = records.split_first_chunk::<4>() {
        let (record, rest) = rest.split_at(u32::from_le_bytes(*len) as usize);
        each(record)?;
        records = rest;
    }
    if lost_chunks > 0 {
        // The queue was full, so that there was a record.
        let time = last;
        let record = format::lost(time, lost_chunks, lost_bytes);
        if let Some(on_record) = on_record
            && let Some(record) = format::decode(&record)
        {
            guarded("a call-back of a recording", || on_record(&record));
        }
        if let Some(file) = file {
            file.add(&record, time)?;
        }
    }
    file.as_mut().map_or(Ok(()), RingFile::write)
}
