use std::fs;
use std::io::pipe;

use pipeplug_wire::{Direction, ThreadId};
use tempfile::TempDir;

use super::*;
use crate::connection::{Connection, Endpoint};
use crate::event_loop::EventLoop;
use crate::options::Options;
use crate::{HandlerError, Reply, Request};

const TIMEOUT: Duration = Duration::from_secs(10);

/// A side that calls, recorded, and one that answers: `fail` with an error, `back` with a call back.
fn pair(recording: &Recording) -> (Connection, Connection) {
    let events = EventLoop::new().unwrap();
    let ((host_in, guest_out), (guest_in, host_out)) = (pipe().unwrap(), pipe().unwrap());
    let answer = |request: &mut Request| -> Result<Reply, HandlerError> {
        match request.command() {
            "fail" => Err("the secret is out".into()),
            "back" => {
                let bytes = request.take_buffer();
                Ok(request.connection().call_bytes("ask", bytes)?.into())
            }
            _ => Ok(request.take_buffer().into()),
        }
    };
    let guest = events
        .connect(
            Endpoint::exclusive(guest_in),
            Endpoint::exclusive(guest_out),
            Options::default(),
            answer,
        )
        .unwrap();
    let options = Options { recording: Some(recording.clone()), ..Options::default() };
    let of_host = |request: &mut Request| {
        let bytes = request.take_buffer();
        Ok(request.connection().call_bytes("nested", bytes)?.into())
    };
    let (reader, writer) = (Endpoint::exclusive(host_in), Endpoint::exclusive(host_out));
    let host = events.connect(reader, writer, options, of_host).unwrap();
    (host, guest)
}

fn file() -> (TempDir, PathBuf) {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("a.rec");
    (dir, path)
}

fn read(path: &Path) -> Vec<Record> {
    Reader::open(path).unwrap().collect::<Result<_, _>>().unwrap()
}

fn chunks(records: &[Record]) -> Vec<&RecordedChunk> {
    let chunks = records.iter().filter_map(|record| match &record.event {
        RecordedEvent::Chunk(chunk) => Some(chunk),
        _ => None,
    });
    chunks.collect()
}

#[test]
fn what_was_sent_and_received_is_in_the_file() {
    let (_dir, path) = file();
    let recording = Recording::to(&path).with_data();
    let (host, guest) = pair(&recording);
    assert_eq!(host.call("echo", "hello").unwrap(), "hello");
    assert_eq!(host.call("back", "x").unwrap(), "x");
    host.close();
    host.wait_closed(TIMEOUT).unwrap();
    drop(guest);
    assert!(recording.flush(TIMEOUT));
    let records = read(&path);
    assert!(matches!(&records[0].event, RecordedEvent::Begin(about) if about["name"] == "peer"));
    assert!(matches!(records.last().unwrap().event, RecordedEvent::End(_)), "{records:?}");
    assert!(records.is_sorted_by_key(|record| record.time));
    let seen: Vec<_> = chunks(&records)
        .into_iter()
        .map(|chunk| {
            let data = chunk.whole_data().map(String::from_utf8_lossy).unwrap().into_owned();
            let cause = chunk.cause.map(|(_, id)| id.as_u64());
            let (id, direction) = (chunk.thread_id.as_u64(), chunk.direction.unwrap());
            (chunk.travel, id, direction, chunk.command.as_str(), data, cause)
        })
        .collect();
    use Direction::{Request, Response};
    use Travel::{Received, Sent};
    let line = |travel, id, direction, command, data: &str, cause| {
        (travel, id, direction, command, data.to_owned(), cause)
    };
    assert_eq!(
        seen,
        [
            line(Sent, 1, Request, "echo", "hello", None),
            line(Received, 1, Response, "echo", "hello", None),
            line(Sent, 2, Request, "back", "x", None),
            line(Received, 1, Request, "ask", "x", None),
            line(Sent, 3, Request, "nested", "x", Some(1)),
            line(Received, 3, Response, "nested", "x", None),
            line(Sent, 1, Response, "ask", "x", None),
            line(Received, 2, Response, "back", "x", None),
        ]
    );
}

#[test]
fn without_data_there_are_headers() {
    let (_dir, path) = file();
    let recording = Recording::to(&path);
    let (host, _guest) = pair(&recording);
    host.call("echo", "a secret").unwrap();
    assert!(recording.flush(TIMEOUT));
    let records = read(&path);
    let chunks = chunks(&records);
    assert_eq!((chunks.len(), chunks[0].buffer_len, &chunks[0].data), (2, 8, &None));
    assert!(!String::from_utf8_lossy(&fs::read(&path).unwrap()).contains("secret"));
}

#[test]
fn data_of_redacted_commands_is_in_no_chunk_of_their_calls() {
    let (_dir, path) = file();
    let recording = Recording::to(&path).with_data().redact(["fail", "log_in", "ask", "back"]);
    let (host, _guest) = pair(&recording);
    host.call("log_in", "a secret").unwrap();
    host.call("fail", "a secret").unwrap_err();
    host.call("echo", "known").unwrap();
    host.notify("log_in", "a secret").unwrap();
    host.call("echo", "known as well").unwrap();
    assert!(recording.flush(TIMEOUT));
    let bytes = fs::read(&path).unwrap();
    let text = String::from_utf8_lossy(&bytes);
    assert!(!text.contains("secret"), "{:?}", read(&path));
    assert!(text.contains("known as well"));
    let records = read(&path);
    assert!(chunks(&records).iter().any(|chunk| chunk.command == "fail" && chunk.is_redacted));
}

#[test]
fn the_oldest_part_is_dropped_and_the_newest_is_whole() {
    let (_dir, path) = file();
    let recording = Recording::to(&path).limit(64 << 10).with_data();
    let (host, _guest) = pair(&recording);
    for number in 0..2000 {
        host.call("echo", format!("number {number}")).unwrap();
        if number % 100 == 0 {
            assert!(recording.flush(TIMEOUT));
        }
    }
    assert!(recording.flush(TIMEOUT));
    assert!(fs::metadata(&path).unwrap().len() <= 64 << 10);
    let reader = Reader::open(&path).unwrap();
    assert!(reader.dropped_segments() > 0);
    let records = read(&path);
    assert!(matches!(records[0].event, RecordedEvent::Begin(_)), "{:?}", records[0]);
    let ids: Vec<_> = chunks(&records)
        .iter()
        .filter(|chunk| chunk.travel == Travel::Sent)
        .map(|chunk| chunk.thread_id.as_u64())
        .collect();
    assert_eq!(ids.last(), Some(&2000));
    assert!(ids.len() > 200 && ids.is_sorted_by(|one, next| one + 1 == *next), "{ids:?}");
}

#[test]
fn a_file_that_is_cut_anywhere_is_read_up_to_the_last_record_before() {
    let (_dir, path) = file();
    let recording = Recording::to(&path).with_data();
    let (host, _guest) = pair(&recording);
    for _ in 0..3 {
        host.call("echo", "hello").unwrap();
    }
    assert!(recording.flush(TIMEOUT));
    let (bytes, all) = (fs::read(&path).unwrap(), read(&path));
    assert_eq!(all.len(), 7);
    let cut = path.with_extension("cut");
    let mut counts = Vec::new();
    for len in format::HEADER as usize..=bytes.len() {
        fs::write(&cut, &bytes[..len]).unwrap();
        let records = read(&cut);
        assert_eq!(records, all[..records.len()], "{len}");
        counts.push(records.len());
    }
    assert!(counts.is_sorted(), "{counts:?}");
    assert_eq!(counts.last(), Some(&7));
    // Bytes of an older round behind the last record, or of a write that was not complete.
    let mut damaged = bytes.clone();
    *damaged.last_mut().unwrap() ^= 1;
    fs::write(&cut, &damaged).unwrap();
    assert_eq!(read(&cut), all[..6]);
    for len in [0, 5, 31] {
        fs::write(&cut, &bytes[..len]).unwrap();
        let error = Reader::open(&cut).unwrap_err().to_string();
        assert!(error.contains("is no recording"), "{error}");
    }
}

#[test]
fn garbage_of_any_kind_is_read_without_a_panic() {
    let (_dir, path) = file();
    let recording = Recording::to(&path).limit(64 << 10).with_data();
    let (host, _guest) = pair(&recording);
    for _ in 0..400 {
        host.call("echo", "hello").unwrap();
        assert!(recording.flush(TIMEOUT));
    }
    let bytes = fs::read(&path).unwrap();
    let damaged = path.with_extension("damaged");
    let mut state = 1_u64;
    for _ in 0..300 {
        let mut bytes = bytes.clone();
        for _ in 0..8 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let at = (state >> 33) as usize % bytes.len();
            bytes[at] = (state >> 20) as u8;
        }
        fs::write(&damaged, &bytes).unwrap();
        if let Ok(reader) = Reader::open(&damaged) {
            assert!(reader.count() <= 1000);
        }
    }
}

#[test]
fn other_files_are_left_alone_and_an_older_recording_is_kept() {
    let (_dir, path) = file();
    fs::write(&path, "my diary").unwrap();
    let error = Recording::to(&path).open().unwrap_err().to_string();
    assert!(error.contains("exists and is no recording"), "{error}");
    assert_eq!(fs::read_to_string(&path).unwrap(), "my diary");
    fs::remove_file(&path).unwrap();
    let first = Recording::to(&path);
    let (host, _guest) = pair(&first);
    host.call("first", "").unwrap();
    assert!(matches!(Recording::to(&path).open(), Err(RecordingError::InUse { .. })));
    first.clone().open().unwrap();
    assert!(first.flush(TIMEOUT));
    drop((host, _guest));
    let deadline = std::time::Instant::now() + TIMEOUT;
    drop(first);
    let second = Recording::to(&path);
    while let Err(error) = second.open() {
        // The connection, and the thread of the recording, end in the background.
        assert!(matches!(error, RecordingError::InUse { .. }), "{error}");
        assert!(std::time::Instant::now() < deadline, "{error}");
        std::thread::yield_now();
    }
    let old = path.with_extension("rec.1");
    assert!(chunks(&read(&old)).iter().any(|chunk| chunk.command == "first"));
    assert_eq!(read(&path), []);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }
}

#[test]
fn what_a_slow_reader_of_records_does_not_take_is_counted_and_delays_no_call() {
    let (_dir, path) = file();
    let (release, gate) = std::sync::mpsc::channel::<()>();
    let gate = std::sync::Mutex::new(gate);
    let seen = Arc::new(std::sync::Mutex::new((0, 0)));
    let recording = Recording::to(&path).with_data().on_record({
        let seen = Arc::clone(&seen);
        move |record| {
            // Blocks until the test lets go.
            let _ = gate.lock().unwrap().recv();
            let mut seen = seen.lock().unwrap();
            match &record.event {
                RecordedEvent::Chunk(_) => seen.0 += 1,
                RecordedEvent::Lost { chunks, .. } => seen.1 += chunks,
                _ => {}
            }
        }
    });
    let (host, _guest) = pair(&recording);
    let data = vec![7; 1 << 20];
    for _ in 0..20 {
        host.call_bytes("echo", &data[..]).unwrap();
    }
    drop(release);
    assert!(recording.flush(TIMEOUT));
    let (chunks, lost) = *seen.lock().unwrap();
    assert!(lost > 0);
    assert_eq!(chunks + lost, 40);
    let in_file = read(&path).into_iter().map(|record| match record.event {
        RecordedEvent::Lost { chunks, .. } => chunks,
        _ => 0,
    });
    assert_eq!(in_file.sum::<u64>(), lost);
}

#[test]
fn of_large_data_the_beginning_is_kept() {
    let (_dir, path) = file();
    let recording = Recording::to(&path).limit(64 << 10).with_data();
    let (host, _guest) = pair(&recording);
    host.call_bytes("echo", vec![7; 100_000]).unwrap();
    assert!(recording.flush(TIMEOUT));
    let records = read(&path);
    let chunk = chunks(&records)[0];
    assert_eq!((chunk.buffer_len, chunk.whole_data()), (100_000, None));
    assert!(chunk.data.as_ref().unwrap().len() > 2000);
}

#[test]
fn a_skipped_chunk_is_recorded_by_what_is_known_of_it() {
    let skipped = pipeplug_wire::Received::Skipped(pipeplug_wire::Skipped {
        thread_id: ThreadId::new(3),
        direction: 9,
        reason: pipeplug_wire::SkipReason::UnknownDirection,
        command_len: 2,
        buffer_len: 70,
        reserved: false,
    });
    let mut out = Vec::new();
    format::ChunkToRecord::received(&skipped).encode(4, 5, 0, &mut out);
    let record = format::decode(&out).unwrap();
    let RecordedEvent::Chunk(chunk) = record.event else { panic!() };
    assert!(chunk.is_skipped && chunk.direction.is_none() && chunk.data.is_none());
    assert_eq!((record.connection, chunk.buffer_len, chunk.thread_id.as_u64()), (4, 70, 3));
}
