//! A request or one-way between the reader and its handler.

use std::ops::Range;
use std::sync::Arc;

use pipeplug_wire::{Chunk, ChunkRef, Direction, ThreadId};
use smol_str::SmolStr;

use crate::protocol::flow::weight;

#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) thread_id: ThreadId,
    pub(crate) direction: Direction,
    pub(crate) command: SmolStr,
    pub(crate) buffer: Buffer,
    /// True if it was cancelled while it was queued.
    pub(crate) is_cancelled: bool,
}

/// Bytes of a request or one-way.
#[derive(Debug)]
pub(crate) enum Buffer {
    Own(Vec<u8>),
    /// A range of the input buffer that they were read into.
    InPlace(Arc<Vec<u8>>, Range<u32>),
}

/// A chunk in the input buffer, by its position.
#[derive(Debug)]
pub(crate) struct JobInPlace {
    thread_id: ThreadId,
    direction: Direction,
    command: SmolStr,
    buffer: Range<u32>,
}

impl Job {
    /// Thread id of a request. `None` for a one-way.
    pub(crate) fn request_id(&self) -> Option<ThreadId> {
        (self.direction == Direction::Request).then_some(self.thread_id)
    }

    pub(crate) fn weight(&self) -> u64 {
        weight(self.command.len(), self.buffer.len())
    }

    /// Copies the bytes, so that the input buffer can be freed.
    pub(crate) fn own(&mut self) {
        if let Buffer::InPlace(..) = self.buffer {
            self.buffer = Buffer::Own(self.buffer.to_vec());
        }
    }
}

impl From<Chunk> for Job {
    fn from(chunk: Chunk) -> Self {
        let Chunk { thread_id, direction, command, buffer } = chunk;
        Self {
            thread_id,
            direction,
            command: command.into(),
            buffer: Buffer::Own(buffer),
            is_cancelled: false,
        }
    }
}

impl From<ChunkRef<'_>> for Job {
    fn from(chunk: ChunkRef<'_>) -> Self {
        Self {
            thread_id: chunk.thread_id,
            direction: chunk.direction,
            command: chunk.command.into(),
            buffer: Buffer::Own(chunk.buffer.to_vec()),
            is_cancelled: false,
        }
    }
}

impl Buffer {
    /// Takes the bytes. None are left.
    pub(crate) fn take(&mut self) -> Vec<u8> {
        match std::mem::replace(self, Self::Own(Vec::new())) {
            Self::Own(bytes) => bytes,
            Self::InPlace(all, range) => within(&all, &range).to_vec(),
        }
    }
}

impl std::ops::Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Own(bytes) => bytes,
            Self::InPlace(all, range) => within(all, range),
        }
    }
}

fn within<'a>(all: &'a [u8], range: &Range<u32>) -> &'a [u8] {
    &all[range.start as usize..range.end as usize]
}

impl JobInPlace {
    /// Notes a chunk of the input buffer that begins at address `base`. `None` for positions past 4
    /// GiB. `last` is the command of the chunk before, which is shared if it is the same.
    pub(crate) fn new(chunk: &ChunkRef<'_>, base: usize, last: &mut SmolStr) -> Option<Self> {
        let start = chunk.buffer.as_ptr() as usize - base;
        let end = start.checked_add(chunk.buffer.len())?;
        if chunk.command != *last {
            *last = chunk.command.into();
        }
        Some(Self {
            thread_id: chunk.thread_id,
            direction: chunk.direction,
            command: last.clone(),
            buffer: u32::try_from(start).ok()?..u32::try_from(end).ok()?,
        })
    }

    pub(crate) fn weight(&self) -> u64 {
        weight(self.command.len(), self.buffer.len())
    }

    /// Makes the job. `input` is the input buffer that it was noted for.
    pub(crate) fn into_job(self, input: &Arc<Vec<u8>>) -> Job {
        let Self { thread_id, direction, command, buffer } = self;
        let buffer = Buffer::InPlace(Arc::clone(input), buffer);
        Job { thread_id, direction, command, buffer, is_cancelled: false }
    }
}
