//! `pipeplug chunk`.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::Path;
use std::process::{Child, Stdio};

use serde_json::Value;

use crate::common::{Place, pipeplug, wait};

#[test]
fn every_byte_survives_both_ways() {
    let all: Vec<u8> = (0..=255).cycle().take(100_000).collect();
    for format in ["standard", "classic"] {
        let mut bytes = match format {
            "standard" => b"7\x002\x004\0echo\x00100000\0".to_vec(),
            _ => b"7\x002\0echo 100000\0".to_vec(),
        };
        bytes.extend(&all);
        let lines = pipeplug(["chunk", "decode", "--details"]).stdin(bytes.clone()).run().exits(0);
        let line = &lines.json()[0];
        assert_eq!((&line["id"], &line["command"]), (&7.into(), &"echo".into()));
        assert_eq!((&line["offset"], &line["format"]), (&0.into(), &format.into()));
        assert_eq!(line["bytes"], bytes.len());
        let encoded = pipeplug(["chunk", "encode"]).stdin(lines.stdout).run().exits(0);
        assert!(encoded.stdout == bytes, "{format}");
    }
}

#[test]
fn the_vectors_of_the_protocol_are_read_and_written() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../pipeplug-wire/tests/vectors");
    let (mut decoded, mut encoded) = (0, 0);
    for file in ["standard", "classic", "detect"] {
        let vectors = std::fs::read(dir.join(format!("{file}.json"))).unwrap();
        let vectors: Value = serde_json::from_slice(&vectors).unwrap();
        let format = vectors["format"].as_str().unwrap_or("auto");
        for vector in vectors["vectors"].as_array().unwrap() {
            // The command line has no option for the limit of a command.
            if vector["limits"].get("command").is_some() {
                continue;
            }
            let name = format!("{file}: {}", vector["name"]);
            let limit = vector["limits"]["buffer"].as_u64().unwrap_or(1 << 20).to_string();
            let bytes = unhex(&vector["bytes"]);
            let args = ["chunk", "decode", "--format", format, "--limit-buffer", &limit];
            let ran = pipeplug(args).stdin(bytes.clone()).run();
            assert_eq!(ran.code, Some(if vector.get("error").is_some() { 6 } else { 0 }), "{name}");
            let mut events = vector["events"].as_array().unwrap().clone();
            // A chunk of a reserved direction is a line when it is complete.
            if vector["error"]["field"] == "buffer" && events.last().is_some_and(is_reserved) {
                events.pop();
            }
            let lines = ran.json();
            assert_eq!(lines.len(), events.len(), "{name}");
            for (line, event) in lines.iter().zip(&events) {
                compare(line, event, &name);
            }
            if let Some(error) = vector.get("error") {
                let (offset, field) = (&error["offset"], error["field"].as_str().unwrap());
                let said = format!("at byte {offset} of the stream, in its {field}: ");
                assert!(ran.stderr.contains(&said), "{name}: {}", ran.stderr);
            }
            decoded += 1;
            let is_canonical = vector["canonical"].as_bool().unwrap_or(true);
            let format = vector["told"].as_str().unwrap_or(format);
            // The classic format has two ways to write the direction 0, and decode tells no
            // difference.
            let has_reserved = format == "classic" && events.iter().any(is_reserved);
            let is_canonical = is_canonical && !has_reserved;
            let is_whole = !lines.iter().any(|line| line.get("skipped").is_some());
            if is_canonical && is_whole && vector.get("error").is_none() {
                let ran = pipeplug(["chunk", "encode", "--format", format]);
                let written = ran.stdin(ran_lines(&lines)).run().exits(0).stdout;
                assert_eq!(written, bytes, "{name}");
                encoded += 1;
            }
        }
    }
    assert!(decoded > 70 && encoded > 30, "{decoded} were decoded, {encoded} encoded");
}

#[test]
fn a_chunk_is_there_before_the_next_byte() {
    let mut child = spawn(&["chunk", "decode"]);
    let mut stdin = child.stdin.take().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    for id in ["1", "2"] {
        stdin.write_all(format!("{id}\x002\x004\0echo\x002\0h").as_bytes()).unwrap();
        stdin.write_all(b"i").unwrap();
        let line = lines.next().unwrap().unwrap();
        assert_eq!(
            line,
            format!(r#"{{"id":{id},"direction":"request","command":"echo","text":"hi"}}"#)
        );
    }
    drop(stdin);
    assert_eq!(wait(child), Some(0));

    let mut child = spawn(&["chunk", "encode"]);
    let (mut stdin, mut stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    for id in ["1", "2"] {
        stdin.write_all(b"{\"command\":\"echo\"}\n").unwrap();
        let mut chunk = [0; 13];
        stdout.read_exact(&mut chunk).unwrap();
        assert_eq!(chunk.escape_ascii().to_string(), format!(r"{id}\x002\x004\x00echo\x000\x00"));
    }
    drop(stdin);
    assert_eq!(wait(child), Some(0));
}

#[test]
fn it_ends_with_its_reader() {
    for verb in ["encode", "decode"] {
        let mut child = spawn(&["chunk", verb]);
        // Stdin stays open and silent.
        let stdin = child.stdin.take();
        drop(child.stdout.take());
        assert_eq!(wait(child), Some(0), "{verb}");
        drop(stdin);
    }
}

#[test]
fn a_break_is_shown_with_its_bytes() {
    pipeplug(["chunk", "decode"])
        .stdin(b"7\x002\x004\0echo\x005\0helloWarning: x\n".as_slice())
        .run()
        .exits(6)
        .prints("{\"id\":7,\"direction\":\"request\",\"command\":\"echo\",\"text\":\"hello\"}\n")
        .says_only(
            "pipeplug: broken chunk at byte 18 of the stream, in its threadID: expected digits up \
             to a NUL, found 0x57 ('W'); the reason may be a wrong length in the chunk before, or \
             text that was printed between two chunks\n\
             chunk 2 begins at byte 18; the bytes around the break:\n  \
               00000012  57 61 72 6e 69 6e 67 3a  20 78 0a                 |Warning: x.|\n            \
                         ^^\n",
        );
    // A row of its own for an end between two rows.
    pipeplug(["chunk", "decode"])
        .stdin(b"7\x002\x004\0echo\x0020\0hel".as_slice())
        .run()
        .exits(6)
        .says("at byte 17 of the stream, in its buffer: expected 17 further bytes")
        .says("  00000010  6c                                                |l|\n               ^^\n");
    pipeplug(["chunk", "decode"])
        .stdin(b"7\x002\x004\0echo\x0020\0he".as_slice())
        .run()
        .exits(6)
        .says("|7.2.4.echo.20.he|\n  00000010\n            ^^\n");
    // Far behind the start of its chunk.
    let mut long = b"7\x002\x00300\0".to_vec();
    long.extend([b'x'; 400]);
    pipeplug(["chunk", "decode"])
        .stdin(long)
        .run()
        .exits(6)
        .says("at byte 308 of the stream, in its cmd: expected NUL")
        .says("  … 256 bytes\n")
        .says("  … 40 bytes have been read behind these\n");
    pipeplug(["chunk", "decode", "--format", "standard"])
        .stdin(b"7\x002\0echo 5\0hello".as_slice())
        .run()
        .exits(6)
        .says("if this is the classic format use --format classic");
}

#[test]
fn an_error_of_a_line_names_it_and_what_came_before_is_written() {
    pipeplug(["chunk", "encode"])
        .stdin("{\"command\":\"a\"}\n\n{\"command\":\"b\",\"id\":true}\n{\"command\":\"c\"}\n")
        .run()
        .exits(6)
        .prints_bytes(b"1\x002\x001\0a\x000\0")
        .says_only(
            "pipeplug: line 3: the field \"id\" is true, expected a whole number from 0 to \
             18446744073709551615\n",
        );
    pipeplug(["chunk"]).run().exits(2);
}

/// The pipeline that the help names is a plugin.
#[test]
fn a_pipeline_is_a_plugin() {
    let place = Place::new();
    for format in ["standard", "classic"] {
        let program = env!("CARGO_BIN_EXE_pipeplug");
        let path = place.executable(
            &format!("pipeline-{format}"),
            &format!(
                "#!/bin/sh\n{program} chunk decode --details | while IFS= read -r line; do\n\
                 case $line in *'\"cmd.stop\"'*) exit 0 ;; esac\n\
                 echo \"$line\" | sed 's/\"request\"/\"response\"/'\n\
                 done | {program} chunk encode\n"
            ),
        );
        let path = path.to_str().unwrap();
        // GetMetadata is answered with the host's own.
        pipeplug(["run", path, "--stdio", "--format", format, "--call", "echo", "hello", "--json"])
            .run()
            .exits(0)
            .prints_part("\"hello\"");
    }
}

trait PrintsBytes {
    fn prints_bytes(self, bytes: &[u8]) -> Self;
}

impl PrintsBytes for crate::common::Ran {
    #[track_caller]
    fn prints_bytes(self, bytes: &[u8]) -> Self {
        assert_eq!(self.stdout.escape_ascii().to_string(), bytes.escape_ascii().to_string());
        self
    }
}

fn spawn(args: &[&str]) -> Child {
    let mut run = pipeplug(args);
    run.command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap()
}

fn is_reserved(event: &Value) -> bool {
    event["skipped"]["reason"] == "unknown-direction"
}

/// Compares a line with an event of the vectors.
#[track_caller]
fn compare(line: &Value, event: &Value, name: &str) {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let directions = ["0", "one-way", "request", "response"];
    let direction = |number: &Value| {
        let number = text(number);
        let known = number.parse::<usize>().ok().and_then(|number| directions.get(number));
        known.map_or(number, |known| (*known).to_owned())
    };
    let (event, is_skipped) = match event.get("chunk") {
        Some(chunk) => (chunk, false),
        None => (&event["skipped"], true),
    };
    assert_eq!(text(&line["id"]), text(&event["thread_id"]), "{name}");
    assert_eq!(text(&line["direction"]), direction(&event["direction"]), "{name}");
    if is_skipped && line.get("skipped").is_some() {
        assert_eq!(text(&line["command_bytes"]), text(&event["command_len"]), "{name}");
        assert_eq!(text(&line["buffer_bytes"]), text(&event["buffer_len"]), "{name}");
        return;
    }
    if is_skipped {
        assert_eq!(event["reason"], "unknown-direction", "{name}");
        let len = line["command"].as_str().unwrap().len().to_string();
        assert_eq!(len, text(&event["command_len"]), "{name}");
        return;
    }
    assert_eq!(line["command"], event["command"], "{name}");
    let buffer = unhex(&event["buffer"]);
    match std::str::from_utf8(&buffer) {
        Ok(buffer) => assert_eq!(line["text"], buffer, "{name}"),
        Err(_) => assert!(line["base64"].is_string(), "{name}"),
    }
}

fn ran_lines(lines: &[Value]) -> Vec<u8> {
    lines.iter().map(|line| format!("{line}\n")).collect::<String>().into_bytes()
}

fn unhex(value: &Value) -> Vec<u8> {
    let digits: Vec<_> = value.as_str().unwrap().bytes().filter(|byte| *byte != b' ').collect();
    let pair = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.chunks(2).map(pair).collect()
}

#[test]
fn all_content_can_be_base64() {
    let text = b"1\x002\x001\0a\x005\0hello".to_vec();
    let ran = pipeplug(["chunk", "decode", "--base64"]).stdin(text.clone()).run().exits(0);
    let line = "{\"id\":1,\"direction\":\"request\",\"command\":\"a\",\"base64\":\"aGVsbG8=\"}\n";
    let ran = ran.prints(line);
    let encoded = pipeplug(["chunk", "encode"]).stdin(ran.stdout).run().exits(0);
    assert_eq!(encoded.stdout, text);
}
