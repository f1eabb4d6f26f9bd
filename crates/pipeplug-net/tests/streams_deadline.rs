//! The deadline of a stream: parts that were received before it are given, and then its error,
//! however the parts are taken.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::io::Read as _;
use std::sync::{Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use pipeplug_net::wire::Direction;
use pipeplug_net::{
    CallError, Connection, EventLoop, HandlerError, Options, Part, Parts, Reading, Refuse, Reply,
    ReplyParts, Request, StreamError,
};
use pipeplug_testkit::{LONG, Peer};

use common::watchdog;

/// Time in which a request reaches its handler, on a busy machine.
const TIMEOUT: Duration = Duration::from_millis(200);

/// The ways to take parts.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Take {
    Next,
    Awaited,
    Batch,
}

fn each(test: impl Fn(Reading, Take)) {
    let _watchdog = watchdog();
    for reading in [Reading::Dedicated, Reading::Shared] {
        for take in [Take::Next, Take::Awaited, Take::Batch] {
            test(reading, take);
        }
    }
}

fn connect(reading: Reading, handler: impl pipeplug_net::Handler) -> (EventLoop, Connection, Peer) {
    let events = EventLoop::new().unwrap();
    let mut options = Options::default();
    options.reading = reading;
    let (connection, peer) = Peer::connect(&events, options, handler).unwrap();
    pipeplug_net::internal::handshake::accept(&connection, |key| match key {
        "pipeplug.features" => Some("context cancel stream"),
        _ => None,
    });
    (events, connection, peer)
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

macro_rules! take {
    ($parts:ident, $take:ident) => {
        match $take {
            Take::Next => $parts.next().map(|part| Ok(vec![part?])),
            Take::Awaited => block_on($parts.next_async()).map(|part| Ok(vec![part?])),
            Take::Batch => $parts.next_batch(),
        }
    };
}

fn take_all(mut parts: Parts, take: Take) -> (Vec<String>, Option<StreamError>) {
    let mut texts = Vec::new();
    while let Some(came) = take!(parts, take) {
        match came {
            Ok(came) => texts.extend(came.iter().map(text)),
            Err(error) => {
                // It is the last.
                assert!(take!(parts, take).is_none());
                return (texts, Some(error));
            }
        }
    }
    (texts, None)
}

fn text(part: &Part) -> String {
    part.text().unwrap().to_owned()
}

/// Outcome of a handler that takes its parts after the deadline, from a peer that has sent `early`
/// with the request, and `late` after the deadline.
fn taken_late(
    reading: Reading,
    take: Take,
    early: &[(&str, &str)],
    late: &[(&str, &str)],
) -> (Vec<String>, Option<StreamError>) {
    let (waits, passed) = mpsc::channel();
    let (go_on, gate) = mpsc::channel();
    let (tell, told) = mpsc::channel();
    let shared = Mutex::new((waits, gate, tell));
    let handler = move |request: &mut Request| -> Result<Reply, HandlerError> {
        let (waits, gate, tell) = &*shared.lock().unwrap();
        let parts = request.parts();
        let deadline = request.deadline().unwrap();
        thread::sleep(deadline.saturating_duration_since(Instant::now()));
        waits.send(())?;
        gate.recv_timeout(LONG)?;
        tell.send(take_all(parts, take))?;
        Ok(Reply::empty())
    };
    let (_events, _connection, mut peer) = connect(reading, handler);
    let context = format!(r#"{{"stream":"send","deadline_ms":{}}}"#, TIMEOUT.as_millis());
    peer.send(1, Direction::OneWay, "cmd.context", context.as_bytes());
    peer.send(1, Direction::Request, "x", b"");
    let send = |peer: &mut Peer, chunks: &[(&str, &str)]| {
        for (command, buffer) in chunks {
            peer.send(1, Direction::OneWay, command, buffer.as_bytes());
        }
    };
    send(&mut peer, early);
    passed.recv_timeout(LONG).unwrap();
    send(&mut peer, late);
    // Answered once all of it was read.
    peer.send(2, Direction::Request, "cmd.ping", b"");
    peer.expect(Direction::Response, "cmd.ping");
    go_on.send(()).unwrap();
    told.recv_timeout(LONG).unwrap()
}

#[test]
fn a_handler_gets_what_came_and_then_the_deadline_and_no_ordinary_end() {
    const PART: (&str, &str) = ("cmd.part", "part");
    const END: (&str, &str) = ("cmd.end", "");
    each(|reading, take| {
        for end in [&[PART, END][..], &[END], &[("cmd.end", "it broke")], &[]] {
            let (parts, error) = taken_late(reading, take, &[PART], end);
            assert!(matches!(error, Some(StreamError::DeadlinePassed)), "{take:?} {error:?}");
            assert_eq!(parts[0], "part");
        }
        // What was complete in time is complete, whenever it is taken.
        let (parts, error) = taken_late(reading, take, &[PART, END], &[]);
        assert!(error.is_none(), "{take:?} {error:?}");
        assert_eq!(parts, ["part"]);
        let (_, error) = taken_late(reading, take, &[("cmd.end", "it broke")], &[]);
        assert!(matches!(error, Some(StreamError::Aborted { .. })), "{take:?} {error:?}");
    });
}

#[test]
fn bytes_end_with_the_deadline_too() {
    let _watchdog = watchdog();
    let (tell, told) = mpsc::channel();
    let handler = move |request: &mut Request| -> Result<Reply, HandlerError> {
        let mut bytes = Vec::new();
        let error = request.parts().read_to_end(&mut bytes).unwrap_err();
        tell.send((bytes, error.kind()))?;
        Ok(Reply::empty())
    };
    let (_events, _connection, mut peer) = connect(Reading::Dedicated, handler);
    peer.send(1, Direction::OneWay, "cmd.context", br#"{"stream":"send","deadline_ms":400}"#);
    peer.send(1, Direction::Request, "x", b"");
    peer.send(1, Direction::OneWay, "cmd.part", b"part");
    let came = told.recv_timeout(LONG).unwrap();
    assert_eq!(came, (b"part".to_vec(), std::io::ErrorKind::TimedOut));
}

/// Takes parts one by one, each some time after the one before.
fn take_slowly(parts: &mut ReplyParts, take: Take) -> (usize, Option<CallError>) {
    let mut count = 0;
    while let Some(came) = take!(parts, take) {
        match came {
            Ok(came) => count += came.len(),
            Err(error) => return (count, Some(error)),
        }
        thread::sleep(Duration::from_millis(2));
    }
    (count, None)
}

#[test]
fn a_caller_does_not_listen_to_a_handler_that_goes_on() {
    const SENT: usize = 2000;
    each(|reading, take| {
        let (_events, connection, mut peer) = connect(reading, Refuse);
        let call = connection.request("x", "").timeout(Duration::from_millis(50));
        let mut parts = call.receive_parts().unwrap();
        peer.expect(Direction::OneWay, "cmd.context");
        let id = peer.expect(Direction::Request, "x").thread_id.as_u64();
        // It knows nothing of deadlines, and sends faster than the caller takes.
        let (stop, stopped) = mpsc::channel::<()>();
        let sending = thread::spawn(move || {
            for _ in 0..SENT {
                peer.send(id, Direction::Response, "cmd.part", b"part");
                if stopped.recv_timeout(Duration::from_millis(1))
                    != Err(mpsc::RecvTimeoutError::Timeout)
                {
                    break;
                }
            }
            peer
        });
        let (count, error) = take_slowly(&mut parts, take);
        drop(stop);
        let _peer = sending.join().unwrap();
        assert!(matches!(error, Some(CallError::TimedOut { .. })), "{take:?} {error:?}");
        assert!((1..SENT / 2).contains(&count), "{take:?}: {count}");
        assert!(parts.next().is_none());
        assert_eq!(connection.stats().open_streams, 0);
    });
}

#[test]
fn a_reply_that_came_in_time_is_no_failure_however_late_its_parts_are_taken() {
    each(|reading, take| {
        let (_events, connection, mut peer) = connect(reading, Refuse);
        let mut parts = connection.request("x", "").timeout(TIMEOUT).receive_parts().unwrap();
        peer.expect(Direction::OneWay, "cmd.context");
        let id = peer.expect(Direction::Request, "x").thread_id.as_u64();
        for _ in 0..10 {
            peer.send(id, Direction::Response, "cmd.part", b"part");
        }
        peer.send(id, Direction::Response, "x", b"reply");
        // Not just at the deadline: a reply that is read then counts as caused by it.
        thread::sleep(TIMEOUT + Duration::from_millis(100));
        let (count, error) = take_slowly(&mut parts, take);
        assert!(error.is_none(), "{take:?} {error:?}");
        assert_eq!((count, &*parts.reply().unwrap().into_bytes()), (10, &b"reply"[..]));
    });
}

#[test]
fn what_is_finished_after_the_deadline_is_not_complete() {
    let _watchdog = watchdog();
    let (_events, connection, mut peer) = connect(Reading::Dedicated, Refuse);
    let call = connection.request("x", "").timeout(Duration::from_millis(20)).stream().unwrap();
    let (mut sender, parts) = call.split();
    sender.send("part").unwrap();
    thread::sleep(Duration::from_millis(30));
    let error = sender.finish().unwrap_err();
    assert!(matches!(error, StreamError::DeadlinePassed), "{error:?}");
    drop(parts);
    for command in ["cmd.context", "x", "cmd.part", "cmd.cancel"] {
        assert_eq!(peer.input.next().unwrap().command, command);
    }
}
