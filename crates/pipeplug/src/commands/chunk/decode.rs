//! `pipeplug chunk decode`: chunks to JSON lines.

use std::io::Read as _;

use pipeplug_host::{Format, Limits};

use super::dump;
use super::line::Content;
use super::pipes::{self, Input};
use super::stream::{Break, ChunkStream};
use crate::exit::CommandError;
use crate::output::report;
use crate::output::stream::{self, Kind, Stream};

/// Number of bytes that are read at once: as many as a pipe holds.
const READ: usize = 64 << 10;

/// Error of a stream, and the bytes at its break.
pub(super) struct DecodeFailure {
    // Boxed, so that the result stays small.
    pub(super) error: Box<CommandError>,
    /// Lines of text.
    pub(super) bytes: Option<String>,
}

impl From<CommandError> for DecodeFailure {
    fn from(error: CommandError) -> Self {
        Self { error: Box::new(error), bytes: None }
    }
}

/// Writes the bytes at the break to stderr.
pub(super) fn show(bytes: Option<&str>) {
    if let Some(bytes) = bytes {
        // A failed write to stderr cannot be reported on stderr.
        let _ = stream::write(Stream::Stderr, Kind::Report, &[bytes.as_bytes()]);
    }
}

fn failure(broken: &Break<'_>) -> DecodeFailure {
    DecodeFailure { error: Box::new(dump::error(broken)), bytes: Some(dump::text(broken)) }
}

/// Reads chunks and writes their lines, until stdin ends or the stream breaks.
pub(super) fn run(
    format: Option<Format>,
    limits: Limits,
    content: Content,
    details: bool,
) -> Result<(), DecodeFailure> {
    let mut stream = ChunkStream::new(format, limits, content, details);
    let mut piece = vec![0; READ];
    loop {
        let len = Input.read(&mut piece).map_err(|error| pipes::not_read(&error))?;
        if len == 0 {
            return stream.finish().map_err(|error| failure(&stream.broken(error)));
        }
        stream.push(&piece[..len]);
        // The lines of one piece are one write. None waits for another piece.
        let mut lines = String::new();
        let broken = loop {
            match stream.next() {
                Ok(Some(line)) => lines.push_str(&line),
                Ok(None) => break None,
                Err(error) => break Some(error),
            }
        };
        // What was whole comes first, even if the stream breaks behind it.
        report::print(&lines)?;
        if let Some(error) = broken {
            return Err(failure(&stream.broken(error)));
        }
    }
}
