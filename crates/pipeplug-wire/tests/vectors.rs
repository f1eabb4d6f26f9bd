//! The streams of `tests/vectors`, whole and in every cut.

#![cfg(feature = "alloc")]
#![expect(
    clippy::unwrap_used,
    reason = "clippy.toml allows it in the test functions, but not in what they share"
)]

mod common;

use std::path::Path;

use common::{Decoded, Event, decode, receive};
use pipeplug_wire::{
    Chunk, DecodeErrorKind, Direction, Format, Header, Limits, SkipReason, Skipped, ThreadId,
};
use serde_json::Value;

/// A stream and what is in it.
struct Vector {
    name: String,
    bytes: Vec<u8>,
    format: Option<Format>,
    limits: Limits,
    /// True if the decoded chunks encode to the same bytes again.
    canonical: bool,
    events: Vec<Event>,
    /// Field, offset and kind.
    error: Option<(String, u64, String)>,
    told: Option<Format>,
}

#[test]
fn in_one_piece() {
    for vector in vectors() {
        vector.check(receive(vector.format, vector.limits, [&vector.bytes[..]]), "received");
        vector.check(decode(vector.format, vector.limits, [&vector.bytes[..]]), "decoded");
    }
}

#[test]
fn cut_at_every_byte() {
    for vector in vectors() {
        for at in 0..=vector.bytes.len() {
            let (start, end) = vector.bytes.split_at(at);
            let cut = format!("cut at {at}");
            vector.check(receive(vector.format, vector.limits, [start, end]), &cut);
            vector.check(decode(vector.format, vector.limits, [start, end]), &cut);
        }
    }
}

#[test]
fn byte_by_byte() {
    for vector in vectors() {
        vector.check(receive(vector.format, vector.limits, vector.bytes.chunks(1)), "byte by byte");
        vector.check(decode(vector.format, vector.limits, vector.bytes.chunks(1)), "byte by byte");
    }
}

/// Every proper beginning of a good stream ends in an error, but for those that end between two
/// chunks.
#[test]
fn cut_off_at_every_byte() {
    for vector in vectors().into_iter().filter(|vector| vector.error.is_none()) {
        let ends: Vec<_> = (0..=vector.bytes.len())
            .filter(|&len| receive(vector.format, vector.limits, [&vector.bytes[..len]]).1.is_ok())
            .collect();
        let chunks = vector.events.len();
        assert_eq!(ends.len(), chunks + 1, "{}: the stream may end at {ends:?}", vector.name);
        for len in (0..vector.bytes.len()).filter(|len| !ends.contains(len)) {
            let error =
                receive(vector.format, vector.limits, [&vector.bytes[..len]]).1.unwrap_err();
            assert_eq!(error.offset, len as u64, "{}: {error}", vector.name);
            assert!(
                matches!(error.kind, DecodeErrorKind::UnexpectedEnd { .. }),
                "{}: {error}",
                vector.name
            );
        }
    }
}

#[test]
fn what_is_decoded_encodes_to_the_same_bytes() {
    let mut checked = 0;
    for vector in vectors().into_iter().filter(|vector| vector.canonical && vector.error.is_none())
    {
        let chunks: Vec<Chunk> = vector
            .events
            .iter()
            .filter_map(|event| match event {
                Event::Chunk(chunk) => Some(chunk.clone()),
                Event::Skipped(_) => None,
            })
            .collect();
        if chunks.len() < vector.events.len() {
            continue;
        }
        let Some(format) = vector.format.or(vector.told) else { continue };
        assert_eq!(common::encode(format, &chunks), vector.bytes, "{}", vector.name);
        for chunk in &chunks {
            check_encode(format, chunk.header());
        }
        checked += 1;
    }
    assert!(checked > 20, "only {checked} vectors were encoded");
}

/// A reader in another language relies on what docs/protocol.md says of the keys: which there are,
/// and which may be missing.
#[test]
fn the_keys_are_those_that_the_protocol_names() {
    let keys = |value: &Value, always: &[&str], maybe: &[&str], name: &str| {
        let keys: Vec<_> = value.as_object().unwrap().keys().map(String::as_str).collect();
        assert!(always.iter().all(|key| keys.contains(key)), "{name}: {keys:?}");
        assert!(
            keys.iter().all(|key| always.contains(key) || maybe.contains(key)),
            "{name}: {keys:?}"
        );
    };
    for (format, vector) in raw_vectors() {
        let name = text(&vector["name"]);
        let maybe =
            ["error", "limits", "canonical", if format.is_none() { "told" } else { "error" }];
        keys(&vector, &["name", "bytes", "events"], &maybe, &name);
        if let Some(limits) = vector.get("limits") {
            keys(limits, &[], &["command", "buffer"], &name);
        }
        if let Some(error) = vector.get("error") {
            keys(error, &["field", "offset", "kind"], &[], &name);
        }
        for event in vector["events"].as_array().unwrap() {
            keys(event, &[], &["chunk", "skipped"], &name);
            if let Some(chunk) = event.get("chunk") {
                keys(chunk, &["thread_id", "direction", "command", "buffer"], &[], &name);
            } else {
                let skipped = &event["skipped"];
                let always = ["thread_id", "direction", "reason", "command_len", "buffer_len"];
                keys(skipped, &always, &["limit", "reserved"], &name);
                let has_limit = skipped.get("limit").is_some();
                assert_eq!(has_limit, skipped["reason"] != "unknown-direction", "{name}");
                assert_ne!(skipped.get("reserved"), Some(&Value::Bool(false)), "{name}");
            }
        }
    }
}

/// The two ways to encode agree, and neither writes where there is no room.
fn check_encode(format: Format, header: Header<'_>) {
    let mut appended = b"before".to_vec();
    header.encode_to(format, &mut appended).unwrap();
    let len = header.encoded_len(format);
    assert_eq!(appended.len(), 6 + len);
    let mut written = vec![b'x'; len + 1];
    assert_eq!(header.encode(format, &mut written), Ok(len));
    assert_eq!(written[..len], appended[6..]);
    assert_eq!(written[len], b'x');
    let mut short = vec![b'x'; len - 1];
    assert!(header.encode(format, &mut short).is_err());
    assert!(short.iter().all(|&byte| byte == b'x'));
}

impl Vector {
    fn check(&self, (events, end, told): Decoded, how: &str) {
        let name = &self.name;
        assert_eq!(events, self.events, "{name}, {how}");
        let error = end
            .err()
            .map(|error| (error.field.to_string(), error.offset, kind(error.kind).to_owned()));
        assert_eq!(error, self.error, "{name}, {how}");
        assert_eq!(told, self.format.or(self.told), "{name}, {how}");
    }

    fn parse(format: Option<Format>, vector: &Value) -> Self {
        let limit = |name: &str| vector["limits"][name].as_u64();
        let mut limits = Limits::default();
        if let Some(command) = limit("command") {
            limits = limits.with_command(command as usize);
        }
        if let Some(buffer) = limit("buffer") {
            limits = limits.with_buffer(buffer);
        }
        let error = vector.get("error").map(|error| {
            (text(&error["field"]), error["offset"].as_u64().unwrap(), text(&error["kind"]))
        });
        Self {
            name: text(&vector["name"]),
            bytes: bytes(&vector["bytes"]),
            format,
            limits,
            canonical: vector["canonical"].as_bool().unwrap_or(true),
            events: vector["events"].as_array().unwrap().iter().map(event).collect(),
            error,
            told: vector["told"].as_str().map(|name| name.parse().unwrap()),
        }
    }
}

fn vectors() -> Vec<Vector> {
    let vectors: Vec<_> =
        raw_vectors().iter().map(|(format, vector)| Vector::parse(*format, vector)).collect();
    assert!(vectors.len() > 80);
    vectors
}

/// Each with its file's format.
fn raw_vectors() -> Vec<(Option<Format>, Value)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors");
    let mut vectors = Vec::new();
    for file in ["standard.json", "classic.json", "detect.json"] {
        let file: Value =
            serde_json::from_slice(&std::fs::read(folder.join(file)).unwrap()).unwrap();
        let format = file["format"].as_str().map(|name| name.parse().unwrap());
        vectors.extend(
            file["vectors"].as_array().unwrap().iter().map(|vector| (format, vector.clone())),
        );
    }
    vectors
}

fn event(event: &Value) -> Event {
    if let Some(chunk) = event.get("chunk") {
        return Event::Chunk(Chunk {
            thread_id: thread_id(chunk),
            direction: Direction::from_u64(chunk["direction"].as_u64().unwrap()).unwrap(),
            command: text(&chunk["command"]),
            buffer: bytes(&chunk["buffer"]),
        });
    }
    let skipped = &event["skipped"];
    let number = |name: &str| skipped[name].as_str().map(|digits| digits.parse::<u64>().unwrap());
    let (command_len, buffer_len) = (number("command_len").unwrap(), number("buffer_len").unwrap());
    let reason = match skipped["reason"].as_str().unwrap() {
        "unknown-direction" => SkipReason::UnknownDirection,
        "command-too-long" => SkipReason::CommandTooLong {
            len: command_len,
            limit: number("limit").unwrap() as usize,
        },
        "buffer-too-long" => {
            SkipReason::BufferTooLong { len: buffer_len, limit: number("limit").unwrap() }
        }
        other => panic!("unknown reason {other}"),
    };
    Event::Skipped(Skipped {
        thread_id: thread_id(skipped),
        direction: number("direction").unwrap(),
        reason,
        command_len,
        buffer_len,
        reserved: skipped["reserved"].as_bool().unwrap_or(false),
    })
}

fn kind(kind: DecodeErrorKind) -> &'static str {
    match kind {
        DecodeErrorKind::NoDigits => "no-digits",
        DecodeErrorKind::NotADigit { .. } => "not-a-digit",
        DecodeErrorKind::LeadingZero { .. } => "leading-zero",
        DecodeErrorKind::TooLarge { .. } => "too-large",
        DecodeErrorKind::NoNulAfterCommand { .. } => "no-nul",
        DecodeErrorKind::NulInCommand => "nul-in-cmd",
        DecodeErrorKind::NotUtf8 { .. } => "not-utf8",
        DecodeErrorKind::UnexpectedEnd { .. } => "end",
        other => panic!("the vectors have no name for {other:?}"),
    }
}

fn thread_id(of: &Value) -> ThreadId {
    ThreadId::new(of["thread_id"].as_str().unwrap().parse().unwrap())
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

fn bytes(value: &Value) -> Vec<u8> {
    let digits: Vec<u8> = value.as_str().unwrap().bytes().filter(|&byte| byte != b' ').collect();
    digits
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}
