//! A stream of chunks that arrives in pieces, read into lines.

use pipeplug_host::{Format, Limits};
use pipeplug_wire::{DecodeError, Decoder, SkipReason, Skipped, Step};

use super::line::{self, Content, Details, Line};

/// Room for the header of a chunk beside its command: four numbers and what ends them.
const HEADER_MAX: usize = 100;

/// Reader of a stream. Keeps the bytes of the chunk that it is in, for messages.
pub(super) struct ChunkStream {
    decoder: Decoder,
    limits: Limits,
    content: Content,
    details: bool,
    /// Bytes of the stream from `base` on.
    kept: Vec<u8>,
    /// Offset of the first kept byte.
    base: u64,
    /// Offset of the chunk that is being read.
    start: u64,
    /// Number of chunks before it.
    count: u64,
    /// Header of the chunk, while its buffer is not complete.
    pending: Option<Pending>,
}

/// Chunk whose header is known.
struct Pending {
    line: Line,
    /// Offset of the buffer.
    buffer_at: u64,
    buffer_len: u64,
    /// True if the decoder does not skip the buffer by itself.
    is_head: bool,
}

/// Break of a stream.
#[derive(Debug)]
pub(super) struct Break<'a> {
    pub(super) error: DecodeError,
    /// Offset of the chunk with the break.
    pub(super) start: u64,
    /// Number of chunks before it.
    pub(super) count: u64,
    /// Bytes of that chunk, and what has been read after the break, from `bytes_at` on.
    pub(super) bytes: &'a [u8],
    pub(super) bytes_at: u64,
}

impl ChunkStream {
    pub(super) fn new(
        format: Option<Format>,
        limits: Limits,
        content: Content,
        details: bool,
    ) -> Self {
        let decoder = match format {
            Some(format) => Decoder::new(format, limits),
            None => Decoder::detect(limits),
        };
        let (kept, base, start, count, pending) = (Vec::new(), 0, 0, 0, None);
        Self { decoder, limits, content, details, kept, base, start, count, pending }
    }

    /// Takes further bytes.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        let needed = self.start.min(self.decoder.offset());
        self.forget_before(needed);
        self.kept.extend_from_slice(bytes);
    }

    /// Returns the line of the next chunk. `None` if it is not complete.
    ///
    /// # Errors
    /// If the stream is broken.
    pub(super) fn next(&mut self) -> Result<Option<String>, DecodeError> {
        loop {
            if let Some(pending) = &self.pending {
                let Some(line) = pending.complete(&self.kept, self.base) else { return Ok(None) };
                let end = pending.buffer_at + pending.buffer_len;
                if pending.is_head {
                    self.decoder.body_taken();
                }
                self.pending = None;
                return Ok(Some(self.finish_chunk(&line, end)));
            }
            let input = self.kept.get(self.at(self.decoder.offset())..).unwrap_or_default();
            match self.decoder.decode(input)? {
                Step::Incomplete { .. } => {
                    self.bound_header();
                    return Ok(None);
                }
                Step::Chunk { chunk, .. } => {
                    let line = Line {
                        id: chunk.thread_id.as_u64(),
                        direction: chunk.direction.as_u64(),
                        command: chunk.command.to_owned(),
                        buffer: chunk.buffer.to_owned(),
                        format: None,
                    };
                    let end = self.decoder.offset();
                    return Ok(Some(self.finish_chunk(&line, end)));
                }
                Step::Head { header, .. } => {
                    self.pending = Some(Pending {
                        line: Line {
                            id: header.thread_id.as_u64(),
                            direction: header.direction.as_u64(),
                            command: header.command.to_owned(),
                            buffer: Vec::new(),
                            format: None,
                        },
                        buffer_at: self.decoder.offset(),
                        buffer_len: header.buffer_len,
                        is_head: true,
                    });
                }
                Step::Skipped { skipped, .. } => match self.content_of(&skipped) {
                    Some(pending) => self.pending = Some(pending),
                    None => {
                        let end = self.decoder.offset().saturating_add(skipped.buffer_len);
                        let details = self.details_to(end);
                        self.start = end;
                        self.count += 1;
                        return Ok(Some(line::skipped(&skipped, details)));
                    }
                },
            }
        }
    }

    /// Checks that the stream may end here.
    ///
    /// # Errors
    /// If it ends inside a chunk.
    pub(super) fn finish(&self) -> Result<(), DecodeError> {
        let rest = self.kept.get(self.at(self.decoder.offset())..).unwrap_or_default();
        self.decoder.finish(rest)
    }

    /// Describes the break that `error` reports.
    pub(super) fn broken(&self, error: DecodeError) -> Break<'_> {
        let from = self.at(self.start).min(self.kept.len());
        Break {
            error,
            start: self.start,
            count: self.count,
            bytes: &self.kept[from..],
            bytes_at: self.base + from as u64,
        }
    }

    fn finish_chunk(&mut self, line: &Line, end: u64) -> String {
        let text = line.to_json(self.content, self.details_to(end));
        self.start = end;
        self.count += 1;
        text
    }

    fn details_to(&self, end: u64) -> Option<Details> {
        let format = self.decoder.format().filter(|_| self.details)?;
        Some(Details { offset: self.start, bytes: end.saturating_sub(self.start), format })
    }

    /// Chunk of a reserved direction, which the codec skips. `None` for one over a limit, or whose
    /// command is no text.
    fn content_of(&self, skipped: &Skipped) -> Option<Pending> {
        let fits = skipped.reason == SkipReason::UnknownDirection
            && skipped.command_len <= self.limits.command as u64
            && skipped.buffer_len <= self.limits.buffer;
        let header_end = self.decoder.offset();
        let header = self.kept.get(self.at(self.start)..self.at(header_end))?;
        // A header that is too long was not kept.
        let is_kept = fits && self.base <= self.start;
        // The command is behind the thread id and the direction, and in the standard format behind
        // its length.
        let fields = match self.decoder.format()? {
            Format::Standard => 3,
            Format::Classic => 2,
        };
        let mut ends = header.iter().enumerate().filter(|(_, byte)| **byte == 0);
        let command_at = ends.nth(fields - 1)?.0 + 1;
        let command_len = usize::try_from(skipped.command_len).ok()?;
        let command = header.get(command_at..command_at.checked_add(command_len)?)?;
        let line = Line {
            id: skipped.thread_id.as_u64(),
            direction: skipped.direction,
            command: std::str::from_utf8(command).ok()?.to_owned(),
            buffer: Vec::new(),
            format: None,
        };
        is_kept.then_some(Pending {
            line,
            buffer_at: header_end,
            buffer_len: skipped.buffer_len,
            is_head: false,
        })
    }

    /// Forgets a header that is longer than a command may be: the chunk will be skipped.
    fn bound_header(&mut self) {
        let looked_at = self.decoder.offset();
        if looked_at.saturating_sub(self.start) > (self.limits.command + HEADER_MAX) as u64 {
            self.forget_before(looked_at);
        }
    }

    fn forget_before(&mut self, offset: u64) {
        let gone = self.at(offset).min(self.kept.len());
        self.kept.drain(..gone);
        self.base += gone as u64;
    }

    /// Index in `kept` of an offset of the stream.
    fn at(&self, offset: u64) -> usize {
        usize::try_from(offset.saturating_sub(self.base)).unwrap_or(usize::MAX)
    }
}

impl Pending {
    /// The whole chunk, if its buffer is in `kept`, which begins at `base`.
    fn complete(&self, kept: &[u8], base: u64) -> Option<Line> {
        let at = usize::try_from(self.buffer_at.checked_sub(base)?).ok()?;
        let len = usize::try_from(self.buffer_len).ok()?;
        let buffer = kept.get(at..at.checked_add(len)?)?;
        Some(Line { buffer: buffer.to_owned(), ..self.line.clone() })
    }
}
