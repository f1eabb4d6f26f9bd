//! The decoder with an input buffer of its own.

use alloc::{string::String, vec::Vec};

use crate::{
    Chunk, ChunkRef, DecodeError, DecodeErrorKind, Decoder, Direction, Field, Format, Header,
    Limits, Skipped, Step, ThreadId,
};

/// How much memory the input buffer begins with, and a large body too, in bytes.
const ROOM: usize = 64 << 10;
/// With less room than this behind the input, it is worth to make some: a read of few bytes costs
/// as much as a long one.
const LOW: usize = 4 << 10;

/// Chunk that [`Receiver::next`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Received<'a> {
    /// A chunk in the input buffer.
    Chunk(ChunkRef<'a>),
    /// A chunk whose buffer was received straight into its own memory.
    Large(Chunk),
    /// A chunk that is thrown away.
    Skipped(Skipped),
}

/// Where the next bytes of the stream go.
#[derive(Debug)]
pub struct Space<'a> {
    /// Vector to append the bytes to; `into.capacity() - into.len()` is at least `max`.
    pub into: &'a mut Vec<u8>,
    /// How many of them at most, 1 or more.
    pub max: usize,
}

/// Takes a stream in any cut and gives the chunks in it.
///
/// Bytes go in through [`space`](Self::space) or [`push`](Self::push), chunks come out of
/// [`next`](Self::next). Call `next` until it gives `None` before the next bytes go in: what is in
/// the input buffer takes memory until then.
#[derive(Debug)]
pub struct Receiver {
    decoder: Decoder,
    input: Input,
    /// The chunk whose body is being received; the input buffer is empty until that is whole.
    large: Option<Large>,
}

/// The input buffer.
#[derive(Debug)]
struct Input {
    /// Received bytes. Those from `start` on are not consumed.
    bytes: Vec<u8>,
    start: usize,
}

/// A chunk whose body is received into its own memory.
#[derive(Debug)]
struct Large {
    thread_id: ThreadId,
    direction: Direction,
    command: String,
    buffer: Vec<u8>,
    len: usize,
    /// True while nothing was received but what came with the header.
    is_new: bool,
}

impl Receiver {
    /// A receiver at the start of a stream; without a format, the first chunk tells it.
    ///
    /// It begins with no allocation.
    #[must_use]
    pub fn new(format: Option<Format>, limits: Limits) -> Self {
        // No more than a Vec can hold: on 32 bits the limit could exceed it.
        let limits = limits.with_buffer(limits.buffer.min(isize::MAX as u64));
        let decoder = match format {
            Some(format) => Decoder::new(format, limits),
            None => Decoder::detect(limits),
        };
        Self { decoder, input: Input { bytes: Vec::new(), start: 0 }, large: None }
    }

    /// The format; `None` while the first chunk has not told it.
    #[must_use]
    pub fn format(&self) -> Option<Format> {
        self.decoder.format()
    }

    /// How many bytes of the stream are consumed; a large body counts once it is whole.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.decoder.offset()
    }

    /// How many bytes are allocated, for the input buffer and for a large body that is being
    /// received.
    #[must_use]
    pub fn capacity(&self) -> usize {
        let large = self
            .large
            .as_ref()
            .map_or(0, |large| large.buffer.capacity() + large.command.capacity());
        self.input.bytes.capacity() + large
    }

    /// Bytes that were received and not consumed: after an error, the chunk that broke the stream.
    #[must_use]
    pub fn unread(&self) -> &[u8] {
        self.input.unread()
    }

    /// The first bytes of the chunk that is not whole yet, at most `most`; none of one that is
    /// thrown away.
    ///
    /// Of a chunk whose buffer goes to its own memory, which is no longer in
    /// [`unread`](Self::unread), the header is written anew.
    #[must_use]
    pub fn first_bytes(&self, most: usize) -> Vec<u8> {
        let Some(large) = &self.large else {
            let unread = self.unread();
            return unread[..unread.len().min(most)].to_vec();
        };
        let header = Header {
            thread_id: large.thread_id,
            direction: large.direction,
            command: &large.command,
            buffer_len: large.len as u64,
        };
        let mut bytes = Vec::new();
        // A command that was read in this format can be written in it.
        let _ = header.encode_to(self.format().unwrap_or_default(), &mut bytes);
        let more = most.saturating_sub(bytes.len()).min(large.buffer.len());
        bytes.extend_from_slice(&large.buffer[..more]);
        bytes.truncate(most);
        bytes
    }

    /// Where the next bytes of the stream go.
    ///
    /// Usually the input buffer. Within a large body it is the body's own memory, which is read
    /// into directly. A body's memory grows with what was received, doubling from 64 KiB: a peer
    /// that announces much and sends little takes little.
    pub fn space(&mut self) -> Space<'_> {
        match &mut self.large {
            // A whole body waits for `next`, and what comes now is behind it.
            Some(large) if large.missing() > 0 => large.space(),
            _ => self.input.space(),
        }
    }

    /// How long the large body is that has just begun; `None` where there is none, and once
    /// [`space`](Self::space) was asked for it.
    ///
    /// Until then it can be given memory with [`receive_into`](Self::receive_into).
    #[must_use]
    pub fn begun(&self) -> Option<usize> {
        self.large.as_ref().filter(|large| large.is_new).map(|large| large.len)
    }

    /// Has the large body that has [just begun](Self::begun) received into this memory, as far as
    /// it goes; its contents are lost.
    pub fn receive_into(&mut self, mut memory: Vec<u8>) {
        if let Some(large) = self.large.as_mut().filter(|large| large.is_new) {
            memory.clear();
            memory.extend_from_slice(&large.buffer);
            large.buffer = memory;
        }
    }

    /// Copies bytes of the stream in, any number of them.
    pub fn push(&mut self, bytes: &[u8]) {
        let mut bytes = bytes;
        while !bytes.is_empty() {
            let Space { into, max } = self.space();
            let (here, later) = bytes.split_at(max.min(bytes.len()));
            into.extend_from_slice(here);
            bytes = later;
        }
    }

    /// The next chunk; `None` if that takes more input.
    ///
    /// # Errors
    /// If the peer broke a rule of the format. The stream is dead then: each later call gives the
    /// same error.
    #[expect(
        clippy::should_implement_trait,
        reason = "what it gives borrows from the receiver, and it may fail"
    )]
    #[inline]
    pub fn next(&mut self) -> Result<Option<Received<'_>>, DecodeError> {
        let unread = &self.input.bytes[self.input.start..];
        // Within a large body the decoder finds none.
        match self.decoder.whole_chunk(unread) {
            Some((chunk, consumed)) => {
                self.input.start += consumed;
                Ok(Some(Received::Chunk(chunk)))
            }
            None => Self::next_slowly(
                &mut self.decoder,
                &mut self.large,
                &self.input.bytes,
                &mut self.input.start,
            ),
        }
    }

    /// The general way to what is next.
    #[inline(never)]
    fn next_slowly<'a>(
        decoder: &mut Decoder,
        large: &mut Option<Large>,
        input: &'a [u8],
        start: &mut usize,
    ) -> Result<Option<Received<'a>>, DecodeError> {
        if let Some(large) = large.take_if(|large| large.missing() == 0) {
            decoder.body_taken();
            return Ok(Some(Received::Large(large.into_chunk())));
        }
        if large.is_some() {
            return Ok(None);
        }
        let unread = &input[*start..];
        match decoder.decode_on(unread)? {
            Step::Incomplete { consumed, .. } => {
                *start += consumed;
                Ok(None)
            }
            Step::Chunk { chunk, consumed } => {
                *start += consumed;
                Ok(Some(Received::Chunk(chunk)))
            }
            Step::Skipped { skipped, consumed } => {
                *start += consumed;
                Ok(Some(Received::Skipped(skipped)))
            }
            Step::Head { header, consumed } => {
                *large = Some(Large::new(header, &unread[consumed..]));
                *start = input.len();
                Ok(None)
            }
        }
    }

    /// The stream has ended; to be called once [`next`](Self::next) gives `None`.
    ///
    /// # Errors
    /// If it ended inside a chunk, or was broken before. Each later call gives the same error.
    pub fn finish(&mut self) -> Result<(), DecodeError> {
        let result = match &self.large {
            None => self.decoder.finish(self.input.unread()),
            Some(large) => Err(DecodeError {
                offset: self.decoder.offset().saturating_add(large.buffer.len() as u64),
                field: Field::Buffer,
                kind: DecodeErrorKind::UnexpectedEnd { missing: Some(large.missing() as u64) },
            }),
        };
        if let Err(error) = result {
            self.large = None;
            self.decoder.fail(error);
        }
        result
    }

    /// The input buffer: what is consumed of it, as far as it is there still, and what is not.
    ///
    /// The chunks that [`next`](Self::next) gives lie in here, and stay where they are until the
    /// next [`space`](Self::space) or [`push`](Self::push).
    #[must_use]
    pub fn input(&self) -> &[u8] {
        &self.input.bytes
    }

    /// Takes the input buffer's memory away, with the consumed chunks in it. What is not consumed
    /// goes on in `other`, whose contents are lost.
    pub fn swap_input(&mut self, mut other: Vec<u8>) -> Vec<u8> {
        other.clear();
        let unread = self.input.unread();
        if !unread.is_empty() && other.capacity() < unread.len() {
            other.reserve_exact(unread.len().max(ROOM));
        }
        other.extend_from_slice(unread);
        let taken = core::mem::replace(&mut self.input, Input { bytes: other, start: 0 });
        taken.bytes
    }

    /// Gives the input buffer's memory back if it is empty, which is what an idle connection should
    /// do.
    pub fn release(&mut self) {
        if self.input.unread().is_empty() {
            self.input = Input { bytes: Vec::new(), start: 0 };
        }
    }
}

impl Input {
    fn unread(&self) -> &[u8] {
        &self.bytes[self.start..]
    }

    fn space(&mut self) -> Space<'_> {
        if self.unread().is_empty() {
            self.bytes.clear();
            self.start = 0;
        }
        if self.room() < LOW {
            self.bytes.drain(..self.start);
            self.start = 0;
            // With less than a quarter of the capacity to gain, what is left would be moved again
            // too soon.
            let capacity = self.bytes.capacity();
            if self.room() < (capacity / 4).max(LOW) {
                self.bytes.reserve_exact((capacity * 2).max(ROOM) - self.bytes.len());
            }
        }
        let max = self.room();
        Space { into: &mut self.bytes, max }
    }

    fn room(&self) -> usize {
        self.bytes.capacity() - self.bytes.len()
    }
}

impl Large {
    fn new(header: Header<'_>, received: &[u8]) -> Self {
        let len =
            usize::try_from(header.buffer_len).expect("the limit is at most what a Vec can hold");
        let mut buffer = Vec::new();
        buffer.reserve_exact(len.min(received.len().max(ROOM)));
        buffer.extend_from_slice(received);
        Self {
            thread_id: header.thread_id,
            direction: header.direction,
            command: header.command.into(),
            buffer,
            len,
            is_new: true,
        }
    }

    fn missing(&self) -> usize {
        self.len - self.buffer.len()
    }

    fn space(&mut self) -> Space<'_> {
        self.is_new = false;
        let received = self.buffer.len();
        if received == self.buffer.capacity() {
            self.buffer.reserve_exact(received.max(ROOM).min(self.missing()));
        }
        let max = (self.buffer.capacity() - received).min(self.missing());
        Space { into: &mut self.buffer, max }
    }

    fn into_chunk(self) -> Chunk {
        Chunk {
            thread_id: self.thread_id,
            direction: self.direction,
            command: self.command,
            buffer: self.buffer,
        }
    }
}
