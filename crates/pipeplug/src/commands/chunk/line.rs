//! A chunk as a line of JSON.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use pipeplug_host::discovery::nearest_name;
use pipeplug_host::{Direction, Format, Header, ThreadId};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::output::text;

/// Largest number that every JSON reader reads exactly (RFC 8259, section 6).
const EXACT_MAX: u64 = (1 << 53) - 1;

/// Fields that a line may have.
const FIELDS: [&str; 9] =
    ["id", "direction", "command", "text", "base64", "json", "offset", "bytes", "format"];

/// Fields of the content of a chunk, of which a line has at most one.
const CONTENTS: [&str; 3] = ["text", "base64", "json"];

/// A chunk, whose direction may be one that is reserved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) id: u64,
    /// The number on the wire.
    pub(super) direction: u64,
    pub(super) command: String,
    pub(super) buffer: Vec<u8>,
    pub(super) format: Option<Format>,
}

/// Position and format of a chunk in its stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Details {
    pub(super) offset: u64,
    pub(super) bytes: u64,
    pub(super) format: Format,
}

/// Form of the buffer in a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Content {
    /// Text, or Base64 if the bytes are not UTF-8.
    Text,
    /// Base64, always.
    Base64,
}

/// Error of a line, which names the field.
#[derive(Debug, thiserror::Error)]
pub(super) enum LineError {
    #[error(
        "it is not a JSON object ({error}); write a chunk as \
         {{\"command\":\"echo\",\"text\":\"hello\"}}, on one line"
    )]
    NotJson { error: serde_json::Error },
    #[error("the field {field:?} {problem}")]
    Field { field: String, problem: String },
}

impl LineError {
    pub(super) fn in_field(field: &str, problem: impl fmt::Display) -> Self {
        Self::Field { field: field.to_owned(), problem: problem.to_string() }
    }
}

impl Line {
    /// Parses a line. `next_id` is for a request without an id.
    pub(super) fn parse(line: &[u8], next_id: u64) -> Result<Self, LineError> {
        let fields: BTreeMap<String, &RawValue> =
            serde_json::from_slice(line).map_err(|error| LineError::NotJson { error })?;
        if fields.contains_key("skipped") {
            return Err(LineError::in_field(
                "skipped",
                "says that `decode` left out the content of this chunk: leave the line out, or \
                 decode with a higher --limit-buffer",
            ));
        }
        if let Some(unknown) = fields.keys().find(|name| !FIELDS.contains(&name.as_str())) {
            let advice = nearest_name(unknown, FIELDS.into_iter()).map_or_else(
                || format!("there are {}", FIELDS.join(", ")),
                |meant| format!("did you mean {meant:?}?"),
            );
            return Err(LineError::in_field(unknown, format_args!("is unknown; {advice}")));
        }
        let direction = match fields.get("direction") {
            Some(raw) => direction(raw)?,
            None => Direction::Request.as_u64(),
        };
        let id = match fields.get("id") {
            Some(raw) => number("id", raw)?,
            None => match Direction::from_u64(direction) {
                Some(Direction::Request) => next_id,
                Some(Direction::Response) => {
                    return Err(LineError::in_field(
                        "id",
                        "is missing: a response has the id of its request",
                    ));
                }
                Some(Direction::OneWay) | None => 0,
            },
        };
        let command = match fields.get("command") {
            Some(raw) => string("command", raw)?,
            None => {
                return Err(LineError::in_field(
                    "command",
                    "is missing: write the name of the command, as \"command\":\"echo\"",
                ));
            }
        };
        let format = fields.get("format").map(|raw| format(raw)).transpose()?;
        Ok(Self { id, direction, command, buffer: buffer(&fields)?, format })
    }

    pub(super) fn is_request(&self) -> bool {
        self.direction == Direction::Request.as_u64()
    }

    /// Appends the chunk to `out`.
    ///
    /// # Errors
    /// If the classic format cannot carry the command.
    pub(super) fn encode_to(&self, format: Format, out: &mut Vec<u8>) -> Result<(), LineError> {
        let known = Direction::from_u64(self.direction);
        let header = Header {
            thread_id: ThreadId::new(self.id),
            direction: known.unwrap_or(Direction::OneWay),
            command: &self.command,
            buffer_len: self.buffer.len() as u64,
        };
        let start = out.len();
        header.encode_to(format, out).map_err(|error| {
            LineError::in_field("command", format_args!("does not fit: {error}"))
        })?;
        if known.is_none() {
            // The codec has no reserved directions. The direction is the digit behind the first
            // NUL.
            let at = out[start..].iter().position(|byte| *byte == 0);
            let at = start + at.expect("a NUL ends the thread id") + 1;
            let digits = match (format, self.direction) {
                // The classic format writes zero as no digits.
                (Format::Classic, 0) => String::new(),
                (_, number) => number.to_string(),
            };
            out.splice(at..=at, digits.into_bytes());
        }
        out.extend_from_slice(&self.buffer);
        Ok(())
    }

    /// Formats the line, with a line break at its end.
    pub(super) fn to_json(&self, content: Content, details: Option<Details>) -> String {
        let mut line = head(self.id, self.direction);
        // Writing to a String does not fail.
        let _ = write!(line, ",\"command\":{}", text::json_string(&self.command));
        let _ = match (content, std::str::from_utf8(&self.buffer)) {
            (Content::Text, Ok(buffer)) => write!(line, ",\"text\":{}", text::json_string(buffer)),
            _ => write!(line, ",\"base64\":\"{}\"", STANDARD.encode(&self.buffer)),
        };
        end(line, details)
    }
}

/// Formats the line of a chunk without its content.
pub(super) fn skipped(skipped: &pipeplug_wire::Skipped, details: Option<Details>) -> String {
    let mut line = head(skipped.thread_id.as_u64(), skipped.direction);
    let (reason, command, buffer) =
        (skipped.reason.to_string(), skipped.command_len, skipped.buffer_len);
    // Writing to a String does not fail.
    let _ = write!(
        line,
        ",\"skipped\":{},\"command_bytes\":{command},\"buffer_bytes\":{buffer}",
        text::json_string(&reason)
    );
    end(line, details)
}

fn head(id: u64, direction: u64) -> String {
    let quote = if id > EXACT_MAX { "\"" } else { "" };
    let direction = match Direction::from_u64(direction) {
        Some(known) => format!("\"{known}\""),
        None if direction > EXACT_MAX => format!("\"{direction}\""),
        None => direction.to_string(),
    };
    format!("{{\"id\":{quote}{id}{quote},\"direction\":{direction}")
}

fn end(mut line: String, details: Option<Details>) -> String {
    if let Some(Details { offset, bytes, format }) = details {
        // Writing to a String does not fail.
        let _ = write!(line, ",\"offset\":{offset},\"bytes\":{bytes},\"format\":\"{format}\"");
    }
    line.push_str("}\n");
    line
}

fn value(raw: &RawValue) -> Option<Value> {
    serde_json::from_str(raw.get()).ok()
}

/// Reads a number, which may stand in quotes: not every JSON library has 64 bits.
fn number(field: &str, raw: &RawValue) -> Result<u64, LineError> {
    let number = match value(raw) {
        Some(Value::Number(number)) => number.as_u64(),
        Some(Value::String(digits)) => digits.parse().ok(),
        _ => None,
    };
    number.ok_or_else(|| {
        let expected = format_args!("expected a whole number from 0 to {}", u64::MAX);
        LineError::in_field(field, format_args!("is {}, {expected}", shown(raw)))
    })
}

fn direction(raw: &RawValue) -> Result<u64, LineError> {
    if let Some(Value::String(name)) = value(raw) {
        let all = [Direction::Request, Direction::Response, Direction::OneWay];
        if let Some(known) = all.into_iter().find(|known| known.to_string() == name) {
            return Ok(known.as_u64());
        }
    }
    number("direction", raw).map_err(|_| {
        let expected = "expected \"request\", \"response\", \"one-way\", or a number";
        LineError::in_field("direction", format_args!("is {}, {expected}", shown(raw)))
    })
}

fn format(raw: &RawValue) -> Result<Format, LineError> {
    let named = value(raw).and_then(|value| value.as_str()?.parse().ok());
    named.ok_or_else(|| {
        let expected = "expected \"standard\" or \"classic\"";
        LineError::in_field("format", format_args!("is {}, {expected}", shown(raw)))
    })
}

fn string(field: &str, raw: &RawValue) -> Result<String, LineError> {
    serde_json::from_str(raw.get()).map_err(|error| {
        let problem = match error.classify() {
            // A lone surrogate, which is no character.
            serde_json::error::Category::Syntax => format!("is not text: {error}"),
            _ => format!("is {}, expected a string", shown(raw)),
        };
        LineError::in_field(field, problem)
    })
}

/// Content of the chunk.
fn buffer(fields: &BTreeMap<String, &RawValue>) -> Result<Vec<u8>, LineError> {
    let mut given = CONTENTS.iter().filter_map(|name| Some((*name, *fields.get(*name)?)));
    let Some((field, raw)) = given.next() else { return Ok(Vec::new()) };
    if let Some((second, _)) = given.next() {
        let problem = format!("cannot stand beside {field:?}: a chunk has one content");
        return Err(LineError::in_field(second, problem));
    }
    match field {
        "json" => Ok(raw.get().as_bytes().to_vec()),
        "base64" => STANDARD
            .decode(string(field, raw)?)
            .map_err(|error| LineError::in_field(field, format_args!("is not Base64: {error}"))),
        _ => Ok(string(field, raw)?.into_bytes()),
    }
}

/// A value in a message, shortened.
fn shown(raw: &RawValue) -> String {
    text::shortened(raw.get(), 40)
}
