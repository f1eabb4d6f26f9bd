//! Layout of a file and of its records: docs/recording.md.

use std::time::Duration;

use pipeplug_wire::{Direction, Received, ThreadId};
use serde_json::{Map, Value};

use crate::escape::beginning;

/// First bytes of a file.
pub(super) const MAGIC: [u8; 8] = *b"PPRECORD";
/// Version of the format.
pub(super) const VERSION: u32 = 1;
/// First bytes of a segment.
pub(super) const SEGMENT_MAGIC: [u8; 4] = *b"PSEG";
/// Length of the header of a file, and of the header of a segment.
pub(super) const HEADER: u64 = 32;
/// Number of segments.
pub(super) const SEGMENTS: u32 = 8;
/// Length and checksum before each record.
pub(super) const FRAME: usize = 8;
/// Smallest size of a file.
pub(super) const LIMIT_MIN: u64 = 64 << 10;
/// Largest number of bytes of one record.
const RECORD_MAX: u64 = 2 << 20;
/// Bytes of a record before its command.
const CHUNK_FIXED: usize = 56;
/// Bytes that every record has.
const FIXED: usize = 16;

const KIND_BEGIN: u8 = 1;
const KIND_CHUNK: u8 = 2;
const KIND_END: u8 = 3;
const KIND_LOST: u8 = 4;

const FLAG_RECEIVED: u8 = 1;
const FLAG_REDACTED: u8 = 2;
const FLAG_SKIPPED: u8 = 4;

/// Size of a segment of a file of at most `limit` bytes.
pub(super) fn segment_size(limit: u64) -> u64 {
    (limit.max(LIMIT_MIN) - HEADER) / u64::from(SEGMENTS)
}

/// Bytes of a command and its data that are kept, in a file of at most `limit` bytes.
pub(super) fn kept_max(limit: u64) -> usize {
    let record = (segment_size(limit) / 2).min(RECORD_MAX) as usize;
    record - CHUNK_FIXED - FRAME
}

/// Bytes of a command that are kept at most.
const COMMAND_MAX: usize = 1024;

/// One record of a recording.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Record {
    /// Number of the connection, from 1. 0 for records of the whole recording.
    pub connection: u32,
    /// Time since the Unix epoch. It never goes back within a file.
    pub time: Duration,
    /// The event.
    pub event: RecordedEvent,
}

/// Event of a recording.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum RecordedEvent {
    /// A connection began, or was open when the oldest part of the file begins. The object
    /// describes it: `name`, and from a host `side` (`"host"`), `path`, `pid`, `launcher`.
    Begin(Map<String, Value>),
    /// A chunk was sent or received.
    Chunk(RecordedChunk),
    /// The connection ended for this reason.
    End(String),
    /// This many chunks are missing at this place, with so many bytes of data: they came faster than
    /// the file could be written.
    Lost {
        /// Number of chunks.
        chunks: u64,
        /// Bytes of their buffers.
        bytes: u64,
    },
}

/// A chunk of a recording.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RecordedChunk {
    /// The way it went.
    pub travel: Travel,
    /// The thread id.
    pub thread_id: ThreadId,
    /// The direction; `None` for a reserved one.
    pub direction: Option<Direction>,
    /// Connection and thread id of the request whose handler has sent this request or one-way,
    /// where the thread tells.
    pub cause: Option<(u32, ThreadId)>,
    /// The command, at most 1,024 bytes of it. Empty if it was skipped.
    pub command: String,
    /// Length of the buffer, in bytes.
    pub buffer_len: u64,
    /// The buffer or its beginning. `None` if data is not recorded.
    pub data: Option<Vec<u8>>,
    /// True if the data is left out since the command is redacted.
    pub is_redacted: bool,
    /// True if the chunk was not taken: over a limit, or of a reserved direction.
    pub is_skipped: bool,
}

/// Way of a chunk, as the side that records sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Travel {
    /// To the other side. It was queued to be written at that time.
    Sent,
    /// From the other side. It was complete at that time.
    Received,
}

impl RecordedChunk {
    /// The data, if it was recorded and is complete.
    #[must_use]
    pub fn whole_data(&self) -> Option<&[u8]> {
        self.data.as_deref().filter(|data| data.len() as u64 == self.buffer_len)
    }
}

/// A chunk to record.
#[derive(Debug, Clone, Copy)]
pub(super) struct ChunkToRecord<'a> {
    pub(super) travel: Travel,
    pub(super) thread_id: ThreadId,
    pub(super) direction: u64,
    pub(super) cause: (u32, ThreadId),
    pub(super) command: &'a str,
    pub(super) buffer_len: u64,
    /// `None` if data is not recorded.
    pub(super) data: Option<&'a [u8]>,
    pub(super) is_redacted: bool,
    pub(super) is_skipped: bool,
}

impl<'a> ChunkToRecord<'a> {
    pub(super) fn received(received: &'a Received<'_>) -> Self {
        let (chunk, data) = match received {
            Received::Chunk(chunk) => (chunk.header(), chunk.buffer),
            Received::Large(chunk) => (chunk.header(), chunk.buffer.as_slice()),
            Received::Skipped(skipped) => {
                return Self {
                    travel: Travel::Received,
                    thread_id: skipped.thread_id,
                    direction: skipped.direction,
                    cause: (0, ThreadId::new(0)),
                    command: "",
                    buffer_len: skipped.buffer_len,
                    data: None,
                    is_redacted: false,
                    is_skipped: true,
                };
            }
        };
        Self {
            travel: Travel::Received,
            thread_id: chunk.thread_id,
            direction: chunk.direction.as_u64(),
            cause: (0, ThreadId::new(0)),
            command: chunk.command,
            buffer_len: chunk.buffer_len,
            data: Some(data),
            is_redacted: false,
            is_skipped: false,
        }
    }

    /// Bytes of its record, with at most `kept` of data.
    pub(super) fn len(&self, kept: usize) -> usize {
        let command = beginning(self.command, COMMAND_MAX).len();
        CHUNK_FIXED + command + self.kept_data(kept).len()
    }

    fn kept_data(&self, kept: usize) -> &'a [u8] {
        let data = self.data.unwrap_or_default();
        &data[..data.len().min(kept.saturating_sub(COMMAND_MAX))]
    }

    /// Appends its record.
    pub(super) fn encode(&self, connection: u32, time: u64, kept: usize, out: &mut Vec<u8>) {
        let mut flags = 0;
        let mut set = |flag, is_set| flags |= if is_set { flag } else { 0 };
        set(FLAG_RECEIVED, self.travel == Travel::Received);
        set(FLAG_REDACTED, self.is_redacted);
        set(FLAG_SKIPPED, self.is_skipped);
        // Without data is not the same as with data of no bytes.
        let has_data = self.data.is_some();
        fixed(KIND_CHUNK, flags, u16::from(has_data), connection, time, out);
        let command = beginning(self.command, COMMAND_MAX);
        let data = self.kept_data(kept);
        out.extend_from_slice(&self.thread_id.as_u64().to_le_bytes());
        out.extend_from_slice(&self.direction.to_le_bytes()[..4]);
        out.extend_from_slice(&self.cause.0.to_le_bytes());
        out.extend_from_slice(&self.cause.1.as_u64().to_le_bytes());
        out.extend_from_slice(&self.buffer_len.to_le_bytes());
        out.extend_from_slice(&(command.len() as u32).to_le_bytes());
        out.extend_from_slice(&(data.len() as u32).to_le_bytes());
        out.extend_from_slice(command.as_bytes());
        out.extend_from_slice(data);
    }
}

fn fixed(kind: u8, flags: u8, extra: u16, connection: u32, time: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(&[kind, flags]);
    out.extend_from_slice(&extra.to_le_bytes());
    out.extend_from_slice(&connection.to_le_bytes());
    out.extend_from_slice(&time.to_le_bytes());
}

/// Encodes the record of the begin of a connection.
pub(super) fn begin(connection: u32, time: u64, about: Map<String, Value>) -> Vec<u8> {
    with_text(KIND_BEGIN, connection, time, &Value::Object(about).to_string())
}

/// Encodes the record of the end of a connection.
pub(super) fn end(connection: u32, time: u64, reason: &str) -> Vec<u8> {
    with_text(KIND_END, connection, time, beginning(reason, COMMAND_MAX))
}

fn with_text(kind: u8, connection: u32, time: u64, text: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(FIXED + text.len());
    fixed(kind, 0, 0, connection, time, &mut out);
    out.extend_from_slice(text.as_bytes());
    out
}

/// Encodes the record of chunks that are missing.
pub(super) fn lost(time: u64, chunks: u64, bytes: u64) -> Vec<u8> {
    let mut out = Vec::with_capacity(FIXED + 16);
    fixed(KIND_LOST, 0, 0, 0, time, &mut out);
    out.extend_from_slice(&chunks.to_le_bytes());
    out.extend_from_slice(&bytes.to_le_bytes());
    out
}

/// Connection of an encoded record that begins or ends one.
pub(super) fn begins_or_ends(record: &[u8]) -> Option<(Bound, u32)> {
    let bound = match *record.first()? {
        KIND_BEGIN => Bound::Begin,
        KIND_END => Bound::End,
        _ => return None,
    };
    Some((bound, number(record, 4)?))
}

/// Kind of record at the bounds of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Bound {
    Begin,
    End,
}

/// Checksum of a record in a segment with this number.
pub(super) fn checksum(sequence: u64, record: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&sequence.to_le_bytes());
    hasher.update(record);
    hasher.finalize()
}

/// Decodes a record. `None` if it is of a kind that this version does not know, or is malformed.
pub(super) fn decode(record: &[u8]) -> Option<Record> {
    let (kind, flags) = (*record.first()?, *record.get(1)?);
    let connection = number(record, 4)?;
    let time = Duration::from_nanos(number_64(record, 8)?);
    let rest = record.get(FIXED..)?;
    let event = match kind {
        KIND_BEGIN => RecordedEvent::Begin(serde_json::from_slice(rest).ok()?),
        KIND_END => RecordedEvent::End(String::from_utf8_lossy(rest).into_owned()),
        KIND_LOST => {
            RecordedEvent::Lost { chunks: number_64(rest, 0)?, bytes: number_64(rest, 8)? }
        }
        KIND_CHUNK => {
            let command_len = number(record, 48)? as usize;
            let data_len = number(record, 52)? as usize;
            let texts = record.get(CHUNK_FIXED..)?;
            let command = String::from_utf8(texts.get(..command_len)?.to_vec()).ok()?;
            let data = texts.get(command_len..command_len.checked_add(data_len)?)?;
            let cause = (number(record, 28)?, ThreadId::new(number_64(record, 32)?));
            let is = |flag| flags & flag != 0;
            RecordedEvent::Chunk(RecordedChunk {
                travel: if is(FLAG_RECEIVED) { Travel::Received } else { Travel::Sent },
                thread_id: ThreadId::new(number_64(record, 16)?),
                direction: Direction::from_u64(number(record, 24)?.into()),
                cause: (cause.0 != 0).then_some(cause),
                command,
                buffer_len: number_64(record, 40)?,
                data: (record[2] & 1 != 0).then(|| data.to_vec()),
                is_redacted: is(FLAG_REDACTED),
                is_skipped: is(FLAG_SKIPPED),
            })
        }
        _ => return None,
    };
    Some(Record { connection, time, event })
}

pub(super) fn number(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

pub(super) fn number_64(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}
