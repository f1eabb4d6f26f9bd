//! The decoder that works in place.

mod error;
mod fields;
mod skipped;
mod step;
mod whole;

pub use error::{DecodeError, DecodeErrorKind, Field};
use fields::ClassicCommand;
use skipped::SkippedHeader;
pub use skipped::{SkipReason, Skipped};
pub use step::Step;
use whole::whole_chunk;

use crate::number::Decimal;
use crate::{ChunkRef, Direction, Format, Header, Limits, ThreadId};

/// The longest buffer that [`Decoder::decode`] waits for to give a chunk in place, in bytes (16
/// KiB).
pub const IN_PLACE_MAX: usize = 16 << 10;

/// Reads chunks from a slice that the caller owns.
///
/// The caller keeps the bytes that are not consumed: each call's input begins with those that the
/// call before left, and has the newly received ones behind them. What was looked at is remembered,
/// so that a header that trickles in is not read from its start each time.
///
/// ```
/// use pipeplug_wire::{Decoder, Format, Limits, Step};
///
/// let mut decoder = Decoder::detect(Limits::default());
/// let input = b"7\x002\x00echo 5\x00hello";
/// assert_eq!(decoder.decode(&input[..14])?, Step::Incomplete { consumed: 0, needed: 2 });
/// let Step::Chunk { chunk, consumed: 16 } = decoder.decode(input)? else { panic!("it is whole") };
/// assert_eq!((chunk.command, chunk.buffer), ("echo", &b"hello"[..]));
/// assert_eq!(decoder.format(), Some(Format::Classic));
/// # Ok::<(), pipeplug_wire::DecodeError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Decoder {
    format: Option<Format>,
    limits: Limits,
    /// Where in the stream the first byte is that was not consumed. All positions below count from
    /// there.
    offset: u64,
    stage: Stage,
    /// How many bytes were looked at.
    at: usize,
    number: Decimal,
    /// In the open third field: what is wrong with it if it is a number.
    fault: Option<DecodeError>,
    thread_id: ThreadId,
    direction: Direction,
    command_start: usize,
    command_len: usize,
    buffer_len: u64,
    /// Why the current chunk is skipped; its bytes are consumed as they are looked at.
    skip: Option<SkipReason>,
    /// Header of the skipped chunk, as far as it is kept.
    skipped: SkippedHeader,
    /// How many bytes are still to be discarded.
    left: u64,
    failed: Option<DecodeError>,
}

/// Which part of a chunk stands at `at`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    ThreadId,
    Direction,
    /// The third field while the format is open: a number, or the beginning of a classic cmd.
    Open,
    CommandLen,
    /// The standard format's cmd and its NUL; `at` stays at its start until it is whole.
    Command,
    /// The standard format's cmd, `left` bytes of which are still to be discarded.
    DiscardedCommand,
    /// The classic format's cmd up to its space.
    ClassicCommand,
    BufferLen,
    /// The buffer of a chunk that is to be given out.
    Buffer,
    /// The buffer, `left` bytes of which are still to be discarded.
    DiscardedBuffer,
}

impl Decoder {
    /// A decoder at the start of a stream of this format.
    #[must_use]
    pub const fn new(format: Format, limits: Limits) -> Self {
        Self::with_format(Some(format), limits)
    }

    /// A decoder at the start of a stream whose first chunk tells the format.
    #[must_use]
    pub const fn detect(limits: Limits) -> Self {
        Self::with_format(None, limits)
    }

    const fn with_format(format: Option<Format>, limits: Limits) -> Self {
        Self {
            format,
            limits,
            offset: 0,
            stage: Stage::ThreadId,
            at: 0,
            number: Decimal::START,
            fault: None,
            thread_id: ThreadId::new(0),
            direction: Direction::OneWay,
            command_start: 0,
            command_len: 0,
            buffer_len: 0,
            skip: None,
            skipped: SkippedHeader::new(0),
            left: 0,
            failed: None,
        }
    }

    /// The format; `None` while the first chunk has not told it.
    #[must_use]
    pub const fn format(&self) -> Option<Format> {
        self.format
    }

    /// How many bytes of the stream are consumed.
    #[must_use]
    pub const fn offset(&self) -> u64 {
        self.offset
    }

    /// Reads on to the next thing worth telling.
    ///
    /// [`Step::Incomplete`] means that nothing is left to be found in `input`; after any other
    /// step, call again with what is behind `consumed`.
    ///
    /// # Errors
    /// If the peer broke a rule of the format. Each later call gives the same error.
    #[inline]
    pub fn decode<'a>(&mut self, input: &'a [u8]) -> Result<Step<'a>, DecodeError> {
        match self.whole_chunk(input) {
            Some((chunk, consumed)) => Ok(Step::Chunk { chunk, consumed }),
            None => self.decode_on(input),
        }
    }

    /// The short way: the chunk that begins here and how long it is, if it is as nearly every chunk
    /// is.
    ///
    /// `None` decides nothing, [`decode_on`](Self::decode_on) does.
    #[inline(always)]
    pub(crate) fn whole_chunk<'a>(&mut self, input: &'a [u8]) -> Option<(ChunkRef<'a>, usize)> {
        if self.stage != Stage::ThreadId || self.at != 0 || self.failed.is_some() {
            return None;
        }
        let (chunk, rest) = whole_chunk(self.format?, self.limits, input)?;
        let consumed = input.len() - rest.len();
        self.offset = self.offset.saturating_add(consumed as u64);
        Some((chunk, consumed))
    }

    /// The general way, with what an error leaves behind.
    #[inline(never)]
    pub(crate) fn decode_on<'a>(&mut self, input: &'a [u8]) -> Result<Step<'a>, DecodeError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        self.run(input).inspect_err(|error| self.failed = Some(*error))
    }

    /// The caller has read the buffer of the last [`Step::Head`] by itself: the next input begins
    /// behind it.
    ///
    /// Anywhere else this does nothing.
    pub fn body_taken(&mut self) {
        if self.stage == Stage::DiscardedBuffer && self.skip.is_none() {
            self.offset = self.offset.saturating_add(self.left);
            self.stage = Stage::ThreadId;
        }
    }

    /// The stream ended with `rest`, the bytes that [`decode`](Self::decode) was given last and did
    /// not consume.
    ///
    /// # Errors
    /// If the stream ended inside a chunk, or was broken before.
    pub fn finish(&self, rest: &[u8]) -> Result<(), DecodeError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        if self.stage == Stage::ThreadId && rest.is_empty() {
            return Ok(());
        }
        let received = rest.len() as u64;
        let (field, expected) = match self.stage {
            Stage::ThreadId => (Field::ThreadId, None),
            Stage::Direction => (Field::Direction, None),
            Stage::Open | Stage::CommandLen => (Field::CommandLen, None),
            Stage::Command => (Field::Command, Some(self.command_end().saturating_add(1) as u64)),
            // The one that is not counted in `left` is the NUL.
            Stage::DiscardedCommand => (Field::Command, Some(self.left.saturating_add(1))),
            Stage::ClassicCommand => (Field::Command, None),
            Stage::BufferLen => (Field::BufferLen, None),
            Stage::Buffer => {
                (Field::Buffer, Some((self.at as u64).saturating_add(self.buffer_len)))
            }
            Stage::DiscardedBuffer => (Field::Buffer, Some(self.left)),
        };
        let missing = expected.map(|expected| expected.saturating_sub(received));
        Err(DecodeError {
            offset: self.offset.saturating_add(received),
            field,
            kind: DecodeErrorKind::UnexpectedEnd { missing },
        })
    }

    /// Makes `error` what all later calls give.
    #[cfg(feature = "alloc")]
    pub(crate) fn fail(&mut self, error: DecodeError) {
        self.failed = Some(error);
    }

    /// The general way, from wherever the last call got to.
    fn run<'a>(&mut self, input: &'a [u8]) -> Result<Step<'a>, DecodeError> {
        let mut input = input;
        // Bytes that this call discarded before `input`.
        let mut done = 0;
        // The cmd, if this call has checked it.
        let mut command = None;
        loop {
            match self.stage {
                Stage::ThreadId => {
                    let Some(number) = self.number(Field::ThreadId, input)? else {
                        return Ok(self.incomplete(done, 1));
                    };
                    self.thread_id = ThreadId::new(number);
                    self.stage = Stage::Direction;
                }
                Stage::Direction => {
                    let Some(number) = self.number(Field::Direction, input)? else {
                        return Ok(self.incomplete(done, 1));
                    };
                    self.command_start = self.at;
                    self.stage = match self.format {
                        Some(Format::Standard) => Stage::CommandLen,
                        Some(Format::Classic) => Stage::ClassicCommand,
                        None => Stage::Open,
                    };
                    self.skipped = SkippedHeader::new(number);
                    match Direction::from_u64(number) {
                        Some(direction) => self.direction = direction,
                        None => self.skip = Some(SkipReason::UnknownDirection),
                    }
                }
                Stage::Open => {
                    if !self.tell_format(input) {
                        return Ok(self.incomplete(done, 1));
                    }
                }
                Stage::CommandLen => {
                    if let Some(fault) = self.fault {
                        return Err(fault);
                    }
                    let Some(len) = self.number(Field::CommandLen, input)? else {
                        return Ok(self.incomplete(done, 1));
                    };
                    match usize::try_from(len) {
                        Ok(len) if len <= self.limits.command && self.skip.is_none() => {
                            self.command_start = self.at;
                            self.command_len = len;
                            self.stage = Stage::Command;
                        }
                        _ => {
                            self.left = len;
                            self.stage = Stage::DiscardedCommand;
                            self.skip.get_or_insert(SkipReason::CommandTooLong {
                                len,
                                limit: self.limits.command,
                            });
                        }
                    }
                }
                Stage::Command => {
                    let end = self.command_end();
                    match input.get(end) {
                        Some(0) => {}
                        Some(&found) => {
                            return Err(self.error(
                                Field::Command,
                                end,
                                DecodeErrorKind::NoNulAfterCommand { found },
                            ));
                        }
                        // Behind the NUL there are at least the digit and the NUL of the buffer's
                        // length.
                        None => {
                            return Ok(self.incomplete(done, (end - input.len()).saturating_add(3)));
                        }
                    }
                    command = Some(self.command(input)?);
                    self.at = end + 1;
                    self.stage = Stage::BufferLen;
                }
                Stage::DiscardedCommand => {
                    let start = self.at;
                    let whole = self.discard(input);
                    self.skipped.command(input.get(start..self.at).unwrap_or_default());
                    if !whole {
                        return Ok(self.incomplete(done, 1));
                    }
                    match input.get(self.at) {
                        Some(0) => {}
                        Some(&found) => {
                            return Err(self.error(
                                Field::Command,
                                self.at,
                                DecodeErrorKind::NoNulAfterCommand { found },
                            ));
                        }
                        None => return Ok(self.incomplete(done, 1)),
                    }
                    self.at += 1;
                    self.stage = Stage::BufferLen;
                }
                Stage::ClassicCommand => match self.classic_command(input)? {
                    ClassicCommand::Whole if self.skip.is_some() => self.stage = Stage::BufferLen,
                    ClassicCommand::Whole => {
                        command = Some(self.command(input)?);
                        self.stage = Stage::BufferLen;
                    }
                    ClassicCommand::TooLong => {
                        self.skipped
                            .command(input.get(self.command_start..self.at).unwrap_or_default());
                        // How long it is will be known at its space.
                        self.skip =
                            Some(SkipReason::CommandTooLong { len: 0, limit: self.limits.command });
                    }
                    // The space, and the NUL behind the buffer's length, which may have no digits.
                    ClassicCommand::Incomplete => return Ok(self.incomplete(done, 2)),
                },
                Stage::BufferLen => {
                    let Some(len) = self.number(Field::BufferLen, input)? else {
                        return Ok(self.incomplete(done, 1));
                    };
                    self.buffer_len = len;
                    self.stage = Stage::Buffer;
                    if self.skip.is_none() && len > self.limits.buffer {
                        let bytes =
                            input.get(self.command_start..self.command_end()).unwrap_or_default();
                        self.skipped.command(bytes);
                        self.skip =
                            Some(SkipReason::BufferTooLong { len, limit: self.limits.buffer });
                    }
                    if let Some(reason) = self.skip {
                        self.left = len;
                        self.stage = Stage::DiscardedBuffer;
                        return Ok(self.skipped(done, reason));
                    }
                }
                Stage::Buffer => {
                    let here = input.get(self.at..).unwrap_or_default();
                    let whole =
                        usize::try_from(self.buffer_len).ok().and_then(|len| here.get(..len));
                    if whole.is_none() && self.buffer_len <= IN_PLACE_MAX as u64 {
                        // At most `IN_PLACE_MAX`, so it fits.
                        return Ok(self.incomplete(done, self.buffer_len as usize - here.len()));
                    }
                    let (thread_id, direction) = (self.thread_id, self.direction);
                    let command = match command {
                        Some(command) => command,
                        None => self.command(input)?,
                    };
                    let Some(buffer) = whole else {
                        let header =
                            Header { thread_id, direction, command, buffer_len: self.buffer_len };
                        self.left = self.buffer_len;
                        self.stage = Stage::DiscardedBuffer;
                        return Ok(Step::Head { header, consumed: done + self.consume() });
                    };
                    self.at += buffer.len();
                    self.stage = Stage::ThreadId;
                    let chunk = ChunkRef { thread_id, direction, command, buffer };
                    return Ok(Step::Chunk { chunk, consumed: done + self.consume() });
                }
                Stage::DiscardedBuffer => {
                    let whole = self.discard(input);
                    let consumed = self.consume();
                    done += consumed;
                    if !whole {
                        return Ok(Step::Incomplete { consumed: done, needed: 1 });
                    }
                    input = input.get(consumed..).unwrap_or_default();
                    self.skip = None;
                    self.stage = Stage::ThreadId;
                }
            }
        }
    }

    /// Goes over what is left to discard; false if it was not all there.
    fn discard(&mut self, input: &[u8]) -> bool {
        let here = input.len().saturating_sub(self.at);
        let gone = usize::try_from(self.left).map_or(here, |left| left.min(here));
        self.at += gone;
        self.left -= gone as u64;
        self.left == 0
    }

    /// Counts the bytes that were looked at as consumed and says how many they are.
    #[inline]
    fn consume(&mut self) -> usize {
        let consumed = core::mem::take(&mut self.at);
        self.offset = self.offset.saturating_add(consumed as u64);
        consumed
    }

    fn incomplete(&mut self, done: usize, needed: usize) -> Step<'static> {
        let consumed = if self.skip.is_some() { self.consume() } else { 0 };
        Step::Incomplete { consumed: done + consumed, needed }
    }

    /// Tells of the current chunk, whose header is whole, that it is skipped.
    fn skipped(&mut self, done: usize, reason: SkipReason) -> Step<'static> {
        let SkippedHeader { direction, command_len, .. } = self.skipped;
        let skipped = Skipped {
            thread_id: self.thread_id,
            direction,
            reason: match reason {
                SkipReason::CommandTooLong { limit, .. } => {
                    SkipReason::CommandTooLong { len: command_len, limit }
                }
                SkipReason::UnknownDirection | SkipReason::BufferTooLong { .. } => reason,
            },
            command_len,
            buffer_len: self.buffer_len,
            reserved: self.skipped.is_reserved(),
        };
        Step::Skipped { skipped, consumed: done + self.consume() }
    }

    #[cold]
    fn error(&self, field: Field, at: usize, kind: DecodeErrorKind) -> DecodeError {
        DecodeError { offset: self.offset.saturating_add(at as u64), field, kind }
    }
}
