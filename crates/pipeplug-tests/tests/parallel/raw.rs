//! The guest as a process of its own, talked to by bytes: pipelines, files, the format.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use pipeplug_host::{Direction, Format};
use pipeplug_tests::{chunk, one_way, read_chunk, request, wait_exit};

use crate::MISBEHAVE;

fn spawn() -> Child {
    Command::new(MISBEHAVE)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

#[test]
fn finds_the_format_by_itself_whatever_the_cut() {
    for format in [Format::Standard, Format::Classic] {
        for piece in [1, 3, 1000] {
            let mut guest = spawn();
            let mut stdin = guest.stdin.take().unwrap();
            let mut stdout = guest.stdout.take().unwrap();
            for id in 1..=3 {
                for bytes in chunk(format, id, Direction::Request, "echo", b"hello").chunks(piece) {
                    stdin.write_all(bytes).unwrap();
                }
                let reply = read_chunk(format, &mut stdout).unwrap();
                assert_eq!((reply.thread_id.as_u64(), reply.direction), (id, Direction::Response));
                assert_eq!((reply.command.as_str(), &*reply.buffer), ("echo", &b"hello"[..]));
            }
            stdin.write_all(&chunk(format, 0, Direction::OneWay, "cmd.stop", b"")).unwrap();
            assert_eq!(wait_exit(&mut guest).code(), Some(0));
        }
    }
}

#[test]
fn a_host_that_says_nothing_of_itself_is_served() {
    let mut guest = spawn();
    let mut stdin = guest.stdin.take().unwrap();
    let mut stdout = guest.stdout.take().unwrap();
    for garbage in [&b""[..], b"not json", b"[1]", b"{\"pipeplug.features\":7}", b"\xff"] {
        stdin.write_all(&request(1, "GetMetadata", garbage)).unwrap();
        let reply = read_chunk(Format::Standard, &mut stdout).unwrap();
        assert!(reply.buffer.starts_with(b"{"), "{}", reply.buffer.escape_ascii());
    }
    stdin.write_all(&request(2, "cmd.ping", b"")).unwrap();
    assert_eq!(read_chunk(Format::Standard, &mut stdout).unwrap().buffer, b"");
    drop(stdin);
    assert_eq!(wait_exit(&mut guest).code(), Some(1));
}

#[test]
fn a_broken_stream_ends_the_guest_and_is_never_answered() {
    let mut guest = spawn();
    let mut stdin = guest.stdin.take().unwrap();
    stdin.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    assert_eq!(wait_exit(&mut guest).code(), Some(1));
    let output = guest.wait_with_output().unwrap();
    assert_eq!(output.stdout, b"");
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(stderr.contains("broke the protocol") && stderr.contains("GET / HTTP"), "{stderr}");
}

/// Runs a shell's pipeline with the plugin in `$0` and the file in `$1`.
#[track_caller]
fn pipeline(script: &str, file: &std::path::Path) -> Vec<u8> {
    let mut shell = Command::new("/bin/sh")
        .args(["-c", script, MISBEHAVE])
        .arg(file)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut stdout = shell.stdout.take().unwrap();
    let reading = thread::spawn(move || {
        let mut bytes = Vec::new();
        stdout.read_to_end(&mut bytes).unwrap();
        bytes
    });
    wait_exit(&mut shell);
    reading.join().unwrap()
}

#[test]
fn a_pipeline_gets_its_reply_ahead_of_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("in");
    fs::write(&file, request(7, "sleep", b"100")).unwrap();
    let reply = b"7\x003\x005\0sleep\x003\x00100";
    assert_eq!(pipeline(r#"cat "$1" | "$0" | cat"#, &file), reply, "pipes on both sides");
    assert_eq!(pipeline(r#""$0" <"$1" | cat"#, &file), reply, "from a file");
    assert_eq!(
        pipeline(r#""$0" <"$1" >"$1.out"; cat "$1.out""#, &file),
        reply,
        "from a file into a file"
    );
    assert_eq!(pipeline(r#"cat "$1" | "$0" 0 1 | cat"#, &file), reply, "told by number");
}

#[test]
fn a_pipeline_gets_all_of_a_large_reply_however_slowly_it_reads() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("in");
    let large: Vec<u8> = (0..3_000_000_u32).map(|i| i as u8).collect();
    fs::write(&file, [request(1, "echo", b""), request(2, "echo", &large)].concat()).unwrap();
    let reply = |id, buffer| chunk(Format::Standard, id, Direction::Response, "echo", buffer);
    let (small, large) = (reply(1, &[]), reply(2, &large));
    let either_first = [[&*small, &*large].concat(), [&*large, &*small].concat()];
    for script in [r#"cat "$1" | "$0" | (sleep 0.3; cat)"#, r#""$0" <"$1" | (sleep 0.3; cat)"#] {
        let got = pipeline(script, &file);
        assert!(
            either_first.contains(&got),
            "{script}: {} of {} bytes",
            got.len(),
            either_first[0].len()
        );
    }
}

#[test]
fn many_requests_from_a_file_are_all_answered() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("in");
    let requests: Vec<u8> =
        (1..=5000).flat_map(|id| request(id, "echo", id.to_string().as_bytes())).collect();
    fs::write(&file, requests).unwrap();
    fs::write(dir.path().join("out"), pipeline(r#""$0" <"$1" | cat"#, &file)).unwrap();
    let mut out = std::io::BufReader::new(File::open(dir.path().join("out")).unwrap());
    let mut seen: Vec<u64> = Vec::new();
    while let Some(reply) = read_chunk(Format::Standard, &mut out) {
        let id = reply.thread_id.as_u64();
        assert_eq!(reply.buffer, id.to_string().as_bytes());
        seen.push(id);
    }
    seen.sort_unstable();
    assert_eq!(seen, (1..=5000).collect::<Vec<_>>());
}

#[test]
fn one_ways_ahead_of_the_end_are_handled() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("in");
    let mut bytes = Vec::new();
    (0..100).for_each(|_| bytes.extend(one_way("err-bytes", b".")));
    fs::write(&file, bytes).unwrap();
    let dots = pipeline(r#""$0" <"$1" 2>&1 >/dev/null | tr -d -c ."#, &file);
    assert_eq!(dots.len(), 100);
}

#[test]
fn a_host_that_stops_reading_and_goes_does_not_keep_the_guest() {
    let mut guest = spawn();
    let mut stdin = guest.stdin.take().unwrap();
    // Its reply does not fit into the pipe, which is not read.
    stdin.write_all(&request(1, "echo", &vec![b'x'; 1 << 20])).unwrap();
    thread::sleep(Duration::from_millis(50));
    drop(guest.stdout.take());
    drop(stdin);
    assert_eq!(wait_exit(&mut guest).code(), Some(1));
}
