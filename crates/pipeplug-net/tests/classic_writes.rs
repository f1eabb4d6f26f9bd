//! Writes of the classic format, read as the Go package reads: a header byte by byte, a buffer with
//! one read(2).
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::io::{PipeReader, PipeWriter, Read as _, Write as _};
use std::num::NonZeroUsize;
use std::thread;

use common::{LONG, echo, watchdog};
use pipeplug_net::wire::Format;
use pipeplug_net::{Connection, Endpoint, EventLoop, Options, Reading, Refuse};
use pipeplug_testkit::pipe_of;

const RUNS: usize = 200;

/// Around the sizes of a page, of a usual pipe and of a large one, in bytes.
const SIZES: [usize; 12] =
    [0, 1, 1000, 4080, 4096, 4097, 10_000, 65_000, 65_530, 65_536, 66_000, (1 << 20) - 20];

/// Fields of the format up to their ends.
struct Fields {
    input: PipeReader,
}

struct Received {
    id: String,
    direction: u8,
    command: String,
    buffer: Vec<u8>,
}

impl Fields {
    fn until_nul(&mut self) -> Option<String> {
        let mut field = Vec::new();
        loop {
            let mut byte = [0];
            if self.input.read(&mut byte).unwrap() == 0 {
                assert!(field.is_empty(), "the stream ended inside a header");
                return None;
            }
            if byte[0] == 0 {
                return Some(String::from_utf8(field).unwrap());
            }
            field.push(byte[0]);
        }
    }

    /// The next chunk; `None` at the end.
    fn next(&mut self) -> Option<Received> {
        let id = self.until_nul()?;
        let direction = self.until_nul()?.parse().unwrap();
        let command = self.until_nul()?;
        let (command, len) = command.rsplit_once(' ').unwrap();
        let len = if len.is_empty() { 0 } else { len.parse().unwrap() };
        let mut buffer = vec![0; len];
        if len > 0 {
            let came = self.input.read(&mut buffer).unwrap();
            assert_eq!(came, len, "a buffer of {command} was cut");
        }
        Some(Received { id, direction, command: command.into(), buffer })
    }
}

fn classic(id: &str, direction: u8, command: &str, buffer: &[u8]) -> Vec<u8> {
    let len = if buffer.is_empty() { String::new() } else { buffer.len().to_string() };
    let mut chunk = format!("{id}\0{direction}\0{command} {len}\0").into_bytes();
    chunk.extend_from_slice(buffer);
    chunk
}

/// A guest that echoes; gives the number of one-ways at the end.
fn go_guest(input: PipeReader, mut output: PipeWriter) -> usize {
    let mut fields = Fields { input };
    let mut one_ways = 0;
    while let Some(chunk) = fields.next() {
        match chunk.direction {
            1 => one_ways += 1,
            _ => output.write_all(&classic(&chunk.id, 3, &chunk.command, &chunk.buffer)).unwrap(),
        }
    }
    one_ways
}

/// A host that is read so, with `work` to do.
fn host_and_go_guest(
    capacity: Option<NonZeroUsize>,
    events: &EventLoop,
    work: impl FnOnce(&Connection),
) -> usize {
    let (host_in, guest_out) = pipe_of(None).unwrap();
    let (guest_in, host_out) = pipe_of(capacity).unwrap();
    let guest = thread::spawn(move || go_guest(guest_in, guest_out));
    let mut options = Options::default();
    options.format = Some(Format::Classic);
    let host = events
        .connect(Endpoint::exclusive(host_in), Endpoint::exclusive(host_out), options, Refuse)
        .unwrap();
    work(&host);
    host.close();
    guest.join().unwrap()
}

#[test]
fn a_burst_of_one_ways_is_never_cut() {
    let _watchdog = watchdog();
    let events = EventLoop::new().unwrap();
    for _ in 0..RUNS {
        let one_ways = host_and_go_guest(None, &events, |host| {
            for _ in 0..300 {
                host.notify("note", vec![b'x'; 3000]).unwrap();
            }
        });
        assert_eq!(one_ways, 300);
    }
}

#[test]
fn many_calls_in_flight_are_never_cut() {
    let _watchdog = watchdog();
    let events = EventLoop::new().unwrap();
    for _ in 0..RUNS {
        host_and_go_guest(None, &events, |host| {
            let calls: Vec<_> = (0..256)
                .map(|i| host.request("echo", vec![b'x'; 1000 + i % 7]).begin().unwrap())
                .collect();
            for (i, call) in calls.into_iter().enumerate() {
                assert_eq!(call.wait().unwrap().len(), 1000 + i % 7);
            }
        });
    }
}

#[test]
fn a_buffer_that_a_pipe_can_hold_is_never_cut() {
    let _watchdog = watchdog();
    let events = EventLoop::new().unwrap();
    for size in SIZES {
        host_and_go_guest(None, &events, |host| {
            assert_eq!(host.call_bytes("echo", vec![b'x'; size]).unwrap().len(), size);
        });
    }
    // Behind each other, while others wait in the pipe.
    for run in 0..RUNS / 4 {
        let one_ways = host_and_go_guest(NonZeroUsize::new(4096), &events, |host| {
            for (i, size) in SIZES.iter().cycle().skip(run).take(2 * SIZES.len()).enumerate() {
                host.notify("note", vec![b'x'; *size]).unwrap();
                if i % 5 == run % 5 {
                    host.call_bytes("echo", vec![b'x'; *size]).unwrap();
                }
            }
        });
        assert_eq!(one_ways, 2 * SIZES.len());
    }
}

/// A guest of ours, and a host that reads as the Go package does.
fn go_host_and_guest(events: &EventLoop, sizes: &[usize]) {
    let (host_in, guest_out) = pipe_of(None).unwrap();
    let (guest_in, mut host_out) = pipe_of(None).unwrap();
    let mut options = Options::default();
    options.format = None;
    options.reading = Reading::Dedicated;
    let guest = events
        .connect(Endpoint::exclusive(guest_in), Endpoint::exclusive(guest_out), options, echo)
        .unwrap();
    let asked = sizes.to_vec();
    let asking = thread::spawn(move || {
        for (i, size) in asked.iter().enumerate() {
            host_out
                .write_all(&classic(&(i + 1).to_string(), 2, "echo", &vec![b'x'; *size]))
                .unwrap();
        }
        host_out
    });
    let mut fields = Fields { input: host_in };
    for _ in sizes {
        let chunk = fields.next().unwrap();
        let id: usize = chunk.id.parse().unwrap();
        assert_eq!((chunk.direction, chunk.buffer.len()), (3, sizes[id - 1]));
    }
    drop(asking.join().unwrap());
    assert!(fields.next().is_none());
    assert!(guest.wait_closed(LONG).is_some());
}

#[test]
fn the_answers_of_a_guest_are_never_cut() {
    let _watchdog = watchdog();
    let events = EventLoop::new().unwrap();
    for run in 0..RUNS {
        go_host_and_guest(&events, &[3000; 300]);
        go_host_and_guest(&events, &[1000; 256]);
        go_host_and_guest(&events, &SIZES[run % SIZES.len()..]);
    }
}

#[test]
fn a_reader_that_leaves_ends_the_wait_for_room() {
    let _watchdog = watchdog();
    let events = EventLoop::new().unwrap();
    let (host_in, guest_out) = pipe_of(None).unwrap();
    let (guest_in, host_out) = pipe_of(None).unwrap();
    let mut options = Options::default();
    options.format = Some(Format::Classic);
    let host = events
        .connect(Endpoint::exclusive(host_in), Endpoint::exclusive(host_out), options, Refuse)
        .unwrap();
    let calls: Vec<_> =
        (0..4).map(|_| host.request("x", vec![0; 600_000]).begin().unwrap()).collect();
    assert!(!host.wait_written(std::time::Duration::from_millis(50)), "a pipe holds one of them");
    drop(guest_in);
    for call in calls {
        assert!(call.wait().is_err());
    }
    drop(guest_out);
}
