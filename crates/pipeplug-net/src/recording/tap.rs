//! The recording of one connection.

use std::collections::BTreeSet;
use std::sync::Arc;

use std::cell::Cell;

use pipeplug_wire::{Direction, Header, Received, ThreadId, command};
use serde_json::{Map, Value};

use super::format::{self, ChunkToRecord, Travel};
use super::queue::Recorder;
use super::redact::Redactions;
use crate::error::CloseReason;
use crate::internal::handshake::KEY_CONFIG;
use crate::sync::lock::lock;
use crate::sync::{Mutex, thread_local};

/// Bytes of the description of a connection.
const ABOUT_MAX: usize = 1024;

thread_local! {
    /// Request whose handler runs on this thread: its recorder, connection and thread id.
    static HANDLED: Cell<(usize, u32, u64)> = const { Cell::new((0, 0, 0)) };
}

/// Records the chunks of one connection.
pub(crate) struct Tap {
    recorder: Arc<Recorder>,
    connection: u32,
    /// Bytes of a chunk that are kept; 0 if data is not recorded.
    kept: usize,
    redactions: Option<Mutex<Redactions>>,
}

impl Tap {
    pub(super) fn begin(
        recorder: Arc<Recorder>,
        mut about: Map<String, Value>,
        kept: usize,
        redacted: &BTreeSet<String>,
    ) -> Arc<Self> {
        for value in about.values_mut() {
            if let Value::String(text) = value {
                text.truncate(crate::escape::beginning(text, ABOUT_MAX).len());
            }
        }
        let connection = recorder.next_connection();
        let redactions = (kept > 0 && !redacted.is_empty())
            .then(|| Mutex::new(Redactions::new(redacted.clone())));
        recorder.add(0, 0, |time, out| out.extend(format::begin(connection, time, about)));
        Arc::new(Self { recorder, connection, kept, redactions })
    }

    /// Records a chunk that is queued to be written.
    #[cold]
    pub(crate) fn sent(&self, header: &Header<'_>, payload: &[u8]) {
        let (recorder, connection, id) = HANDLED.get();
        // A one-way without an id cannot be named.
        let is_caused = recorder == self.recorder_address()
            && id != 0
            && matches!(header.direction, Direction::Request | Direction::OneWay);
        let cause = if is_caused { (connection, id) } else { (0, 0) };
        self.record(ChunkToRecord {
            travel: Travel::Sent,
            thread_id: header.thread_id,
            direction: header.direction.as_u64(),
            cause: (cause.0, ThreadId::new(cause.1)),
            command: header.command,
            buffer_len: header.buffer_len,
            data: Some(payload),
            is_redacted: false,
            is_skipped: false,
        });
    }

    /// Records a chunk that was received.
    #[cold]
    pub(crate) fn received(&self, received: &Received<'_>) {
        self.record(ChunkToRecord::received(received));
    }

    fn record(&self, mut chunk: ChunkToRecord<'_>) {
        if self.kept == 0 {
            chunk.data = None;
        } else if holds_config(&chunk)
            || self.redactions.as_ref().is_some_and(|it| lock(it).redacts(&chunk))
        {
            (chunk.data, chunk.is_redacted) = (None, true);
        }
        let (kept, connection) = (self.kept, self.connection);
        self.recorder.add(chunk.len(kept), chunk.buffer_len, |time, out| {
            chunk.encode(connection, time, kept, out);
        });
    }

    /// Records the end of the connection.
    pub(crate) fn ended(&self, reason: &CloseReason) {
        let (connection, reason) = (self.connection, reason.to_string());
        self.recorder.add(0, 0, |time, out| out.extend(format::end(connection, time, &reason)));
    }

    /// Notes that this thread handles a request, until the result is dropped.
    #[cold]
    pub(crate) fn handles(&self, id: ThreadId) -> Handled {
        let handled = (self.recorder_address(), self.connection, id.as_u64());
        Handled(HANDLED.replace(handled))
    }

    fn recorder_address(&self) -> usize {
        Arc::as_ptr(&self.recorder) as usize
    }
}

/// Tells whether a chunk has the configuration of a plugin, which may hold secrets.
fn holds_config(chunk: &ChunkToRecord<'_>) -> bool {
    let key = KEY_CONFIG.as_bytes();
    chunk.command == command::GET_METADATA
        && chunk.direction == Direction::Request.as_u64()
        && chunk.data.is_some_and(|data| data.windows(key.len()).any(|part| part == key))
}

/// Ends the note that a thread handles a request when it is dropped.
pub(crate) struct Handled((usize, u32, u64));

impl Drop for Handled {
    fn drop(&mut self) {
        HANDLED.set(self.0);
    }
}
