//! `pipeplug chunk encode`: JSON lines to chunks.

use std::fmt;
use std::io::{BufRead as _, BufReader};

use pipeplug_host::Format;

use super::line::{Line, LineError};
use super::pipes::{self, Input};
use crate::exit::{CommandError, ExitReason};

/// Reads lines and writes their chunks, until stdin ends.
pub(super) fn run(format: Option<Format>) -> Result<(), CommandError> {
    let mut encoder = Encoder::new(format);
    let mut input = BufReader::new(Input);
    let (mut line, mut bytes) = (Vec::new(), Vec::new());
    for number in 1_u64.. {
        line.clear();
        if input.read_until(b'\n', &mut line).map_err(|error| pipes::not_read(&error))? == 0 {
            break;
        }
        bytes.clear();
        encoder.encode(&line, &mut bytes).map_err(|error| at(number, &error))?;
        pipes::write_chunk(&bytes)?;
    }
    Ok(())
}

fn at(line: u64, error: &LineError) -> CommandError {
    CommandError::message(ExitReason::Broken, format!("line {line}: {error}"))
}

/// Encoder of lines, with what it fills in for fields that are left out.
pub(super) struct Encoder {
    format: Option<Format>,
    /// Id of the next request that has none.
    next_id: u64,
}

impl Encoder {
    pub(super) fn new(format: Option<Format>) -> Self {
        Self { format, next_id: 1 }
    }

    /// Appends the chunk of a line to `out`. A blank line has none.
    pub(super) fn encode(&mut self, line: &[u8], out: &mut Vec<u8>) -> Result<(), LineError> {
        let line = line.trim_ascii();
        if line.is_empty() {
            return Ok(());
        }
        let line = Line::parse(line, self.next_id)?;
        let format = match (self.format, line.format) {
            (None, named) => *self.format.insert(named.unwrap_or_default()),
            (Some(format), Some(named)) if named != format => {
                return Err(LineError::in_field("format", OtherFormat { named, format }));
            }
            (Some(format), _) => format,
        };
        line.encode_to(format, out)?;
        // Ids of requests are not used twice.
        if line.is_request() {
            self.next_id = self.next_id.max(line.id.saturating_add(1));
        }
        Ok(())
    }
}

struct OtherFormat {
    named: Format,
    format: Format,
}

impl fmt::Display for OtherFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { named, format } = self;
        write!(
            f,
            "is \"{named}\", and this stream is {format}: all chunks of a stream have one format; \
             leave the field out"
        )
    }
}
