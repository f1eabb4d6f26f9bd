//! Chunks become lines and the same chunks again.

use pipeplug_host::{Format, Limits};
use pipeplug_wire::DecodeError;
use proptest::collection::vec;
use proptest::prelude::*;

use super::encode::Encoder;
use super::line::{Content, Line};
use super::stream::ChunkStream;

/// Decodes a stream that arrives in pieces of this size. Returns its lines, the offset behind the
/// last chunk, and the way it ends.
fn decode(
    format: Option<Format>,
    limits: Limits,
    bytes: &[u8],
    piece: usize,
) -> (Vec<String>, u64, Result<(), DecodeError>) {
    let mut stream = ChunkStream::new(format, limits, Content::Text, false);
    let mut lines = Vec::new();
    for piece in bytes.chunks(piece) {
        stream.push(piece);
        loop {
            match stream.next() {
                Ok(Some(line)) => lines.push(line),
                Ok(None) => break,
                Err(error) => return (lines, stream.broken(error).start, Err(error)),
            }
        }
    }
    let end = stream.finish();
    let start =
        end.as_ref().map_or_else(|error| stream.broken(*error).start, |()| bytes.len() as u64);
    (lines, start, end)
}

fn encode(format: Option<Format>, lines: &[String]) -> Vec<u8> {
    let (mut encoder, mut bytes) = (Encoder::new(format), Vec::new());
    for line in lines {
        encoder.encode(line.as_bytes(), &mut bytes).unwrap();
    }
    bytes
}

fn format() -> impl Strategy<Value = Format> {
    prop_oneof![Just(Format::Standard), Just(Format::Classic)]
}

fn buffer() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        4 => vec(any::<u8>(), 0..40),
        2 => any::<String>().prop_map(String::into_bytes),
        // Longer than what the codec gives in place.
        1 => (any::<u8>(), 16_000_usize..40_000).prop_map(|(byte, len)| vec![byte; len]),
    ]
}

fn line() -> impl Strategy<Value = Line> {
    let direction = prop_oneof![4 => 1_u64..=3, 1 => Just(0), 1 => 4_u64..=u64::MAX];
    // The classic format carries neither a space nor a NUL.
    let command = any::<String>().prop_map(|text| text.replace([' ', '\0'], "_"));
    (any::<u64>(), direction, command, buffer()).prop_map(|(id, direction, command, buffer)| Line {
        id,
        direction,
        command,
        buffer,
        format: None,
    })
}

proptest! {
    #[test]
    fn any_chunks_survive_both_ways(
        lines in vec(line(), 0..6),
        format in format(),
        detect in any::<bool>(),
        piece in prop_oneof![Just(1), 1_usize..100, Just(1 << 16)],
    ) {
        let mut bytes = Vec::new();
        for line in &lines {
            line.encode_to(format, &mut bytes).unwrap();
        }
        let (decoded, start, end) =
            decode((!detect).then_some(format), Limits::default(), &bytes, piece);
        prop_assert_eq!(end, Ok(()));
        prop_assert_eq!(start, bytes.len() as u64);
        prop_assert_eq!(decoded.len(), lines.len());
        for (decoded, line) in decoded.iter().zip(&lines) {
            prop_assert_eq!(decoded.find('\n'), Some(decoded.len() - 1), "one line: {}", decoded);
            prop_assert_eq!(&Line::parse(decoded.as_bytes(), 99).unwrap(), line);
        }
        prop_assert_eq!(encode(Some(format), &decoded), bytes);
    }

    /// Chunks before a break are there, and are the same again.
    #[test]
    fn any_bytes_are_chunks_up_to_a_break(
        lines in vec(line(), 0..4),
        noise in vec((any::<prop::sample::Index>(), prop_oneof![Just(0), Just(b'1'), any::<u8>()]), 0..3),
        tail in vec(prop_oneof![Just(0), b'0'..=b'9', any::<u8>()], 0..20),
        piece in 1_usize..50,
    ) {
        let mut bytes = Vec::new();
        for line in &lines {
            line.encode_to(Format::Standard, &mut bytes).unwrap();
        }
        bytes.extend(tail);
        for (at, byte) in noise {
            if !bytes.is_empty() {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
        }
        let (decoded, start, end) = decode(Some(Format::Standard), Limits::default(), &bytes, piece);
        if decoded.iter().all(|line| !line.contains("\"skipped\":")) {
            // There is one way to write a chunk in the standard format.
            prop_assert_eq!(encode(None, &decoded), &bytes[..start as usize]);
        }
        if let Err(error) = end {
            prop_assert!((start..=bytes.len() as u64).contains(&error.offset), "{error}");
        }
    }
}

#[test]
fn a_chunk_over_a_limit_is_counted_and_not_kept() {
    let limits = Limits::default().with_command(8).with_buffer(4);
    let mut bytes = Vec::new();
    let line = |direction, command: &str, buffer: &[u8]| Line {
        id: 5,
        direction,
        command: command.into(),
        buffer: buffer.into(),
        format: None,
    };
    let long = "x".repeat(1000);
    for format in [Format::Standard, Format::Classic] {
        bytes.clear();
        for line in [
            line(2, "a", b"12345"),
            line(2, &long, b"x"),
            line(7, &long, b"x"),
            line(7, "a", b"12345"),
            line(7, "a", b"1234"),
            line(3, "a", b"1234"),
        ] {
            line.encode_to(format, &mut bytes).unwrap();
        }
        for piece in [1, 7, 10_000] {
            let (lines, _, end) = decode(Some(format), limits, &bytes, piece);
            assert_eq!(end, Ok(()));
            let expected = [
                r#"{"id":5,"direction":"request","skipped":"the buffer is 5 bytes long, the limit is 4","command_bytes":1,"buffer_bytes":5}"#,
                r#"{"id":5,"direction":"request","skipped":"the command is 1000 bytes long, the limit is 8","command_bytes":1000,"buffer_bytes":1}"#,
                r#"{"id":5,"direction":7,"skipped":"unknown direction, expected 1, 2 or 3","command_bytes":1000,"buffer_bytes":1}"#,
                r#"{"id":5,"direction":7,"skipped":"unknown direction, expected 1, 2 or 3","command_bytes":1,"buffer_bytes":5}"#,
                r#"{"id":5,"direction":7,"command":"a","text":"1234"}"#,
                r#"{"id":5,"direction":"response","command":"a","text":"1234"}"#,
            ];
            let lines: Vec<_> = lines.iter().map(|line| line.trim_end()).collect();
            assert_eq!(lines, expected, "{format}, pieces of {piece}");
        }
    }
}

#[test]
fn a_line_leaves_out_what_is_usual() {
    let encoded = |lines: &[&str]| {
        let lines: Vec<_> = lines.iter().map(|line| (*line).to_owned()).collect();
        encode(None, &lines).escape_ascii().to_string()
    };
    assert_eq!(
        encoded(&[r#"{"command":"a"}"#, r#" {"command":"b","id":"7"} "#, "", r#"{"command":"c"}"#]),
        r"1\x002\x001\x00a\x000\x007\x002\x001\x00b\x000\x008\x002\x001\x00c\x000\x00"
    );
    assert_eq!(
        encoded(&[r#"{"command":"a","direction":"one-way","json":{"a": 1}}"#]),
        r#"0\x001\x001\x00a\x008\x00{\"a\": 1}"#
    );
    assert_eq!(
        encoded(&[
            r#"{"command":"a","format":"classic","offset":7,"bytes":9}"#,
            r#"{"id":1,"direction":"response","command":"a","text":""}"#
        ]),
        r"1\x002\x00a \x001\x003\x00a \x00"
    );
}

#[test]
fn an_error_names_the_field_and_what_is_expected() {
    let error = |line: &str| {
        Encoder::new(None).encode(line.as_bytes(), &mut Vec::new()).unwrap_err().to_string()
    };
    for (line, said) in [
        ("{", "is not a JSON object"),
        ("{}", r#"the field "command" is missing"#),
        (r#"{"comand":"a"}"#, r#"the field "comand" is unknown; did you mean "command"?"#),
        (r#"{"command":"a","x":1}"#, r#"the field "x" is unknown; there are id, direction"#),
        (r#"{"command":1}"#, r#"the field "command" is 1, expected a string"#),
        (r#"{"command":"\ud800"}"#, r#"the field "command" is not text"#),
        (r#"{"command":"a","id":-1}"#, r#"the field "id" is -1, expected a whole number from 0"#),
        (
            r#"{"command":"a","id":18446744073709551616}"#,
            r#"the field "id" is 18446744073709551616"#,
        ),
        (
            r#"{"command":"a","direction":"answer"}"#,
            r#""direction" is "answer", expected "request""#,
        ),
        (r#"{"command":"a","direction":"response"}"#, r#"the field "id" is missing: a response"#),
        (r#"{"command":"a","text":"","json":1}"#, r#""json" cannot stand beside "text""#),
        (r#"{"command":"a","base64":"?"}"#, r#"the field "base64" is not Base64"#),
        (r#"{"command":"a","text":[1]}"#, r#"the field "text" is [1], expected a string"#),
        (r#"{"command":"a","format":"old"}"#, r#""format" is "old", expected "standard""#),
        (r#"{"command":"a b","format":"classic"}"#, "use the standard format"),
        (r#"{"id":1,"skipped":"it is long"}"#, r#"the field "skipped" says"#),
    ] {
        assert!(error(line).contains(said), "{line}: {}", error(line));
    }
}
