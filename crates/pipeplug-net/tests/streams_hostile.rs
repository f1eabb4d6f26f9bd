//! Streams of peers written by hand, which keep to nothing. No stream hangs or leaks, and the
//! connection goes on.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, mpsc};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use pipeplug_net::wire::{Chunk, Direction, Limits};
use pipeplug_net::{
    CallError, Connection, EventLoop, HandlerError, Options, PartSender, Reading, Refuse, Reply,
    Request, StreamError,
};
use pipeplug_testkit::{LONG, Peer};

use common::{bytes, eventually, watchdog};

type Handled = Result<Reply, HandlerError>;

const SENDS: &[u8] = br#"{"stream":"send"}"#;
const RECEIVES: &[u8] = br#"{"stream":"receive"}"#;
const BOTH: &[u8] = br#"{"stream":"send receive"}"#;

/// A connection of each way of reading, and its peer, with streams and this window of the peer.
fn each(
    options: &Options,
    window: &str,
    test: impl Fn(Connection, Peer),
    handler: impl Fn() -> Boxed,
) {
    let _watchdog = watchdog();
    for reading in [Reading::Dedicated, Reading::Shared] {
        let mut options = options.clone();
        options.reading = reading;
        let (connection, peer) = Peer::connect(&events(), options, handler()).unwrap();
        agree(&connection, window);
        test(connection, peer);
    }
}

type Boxed = Box<dyn Fn(&mut Request) -> Handled + Send + Sync>;

fn events() -> EventLoop {
    EventLoop::new().unwrap()
}

/// The peer names the features of streams, and not `flow`.
fn agree(connection: &Connection, window: &str) {
    pipeplug_net::internal::handshake::accept(connection, |key| match key {
        "pipeplug.features" => Some("context cancel stream"),
        "pipeplug.stream_window" => Some(window),
        _ => None,
    });
}

fn open(peer: &mut Peer, id: u64, direction: Direction, command: &str, context: &[u8]) {
    peer.send(id, Direction::OneWay, "cmd.context", context);
    peer.send(id, direction, command, b"");
}

fn part(peer: &mut Peer, id: u64, part: &[u8]) {
    peer.send(id, Direction::OneWay, "cmd.part", part);
}

/// The next chunk that is no credit.
fn next(peer: &mut Peer) -> Chunk {
    loop {
        let chunk = peer.input.next().unwrap();
        if chunk.command != "cmd.part.credit" {
            return chunk;
        }
    }
}

#[track_caller]
fn expect(peer: &mut Peer, id: u64, command: &str) -> Vec<u8> {
    let chunk = next(peer);
    let got = (chunk.thread_id.as_u64(), &*chunk.command);
    assert_eq!(got, (id, command), "{}", chunk.buffer.escape_ascii());
    chunk.buffer
}

/// The connection answers, and no stream is left.
#[track_caller]
fn assert_serves(connection: &Connection, peer: &mut Peer) {
    peer.send(u64::MAX, Direction::Request, "cmd.ping", b"");
    expect(peer, u64::MAX, "cmd.ping");
    eventually("no stream is left", || connection.stats().open_streams == 0);
}

/// Answers with the bytes of all parts, or the error that ended them.
fn gather() -> Boxed {
    Box::new(|request| {
        let mut all = Vec::new();
        for part in request.parts() {
            all.extend_from_slice(&part?);
        }
        Ok(all.into())
    })
}

/// Sends the numbers from 0 as parts of a reply until that fails. Answers with the error.
fn count() -> Boxed {
    Box::new(|request| {
        let mut parts = request.reply_parts()?;
        for number in 0_u32.. {
            if let Err(error) = parts.send(number.to_string()) {
                return Err(error.into());
            }
        }
        unreachable!()
    })
}

#[test]
fn chunks_of_no_stream_are_ignored_and_a_request_of_their_name_is_answered() {
    let test = |connection: Connection, mut peer: Peer| {
        open(&mut peer, 7, Direction::Request, "gather", SENDS);
        part(&mut peer, 7, b"one ");
        for id in [0, 8, u64::MAX] {
            for direction in [Direction::OneWay, Direction::Response] {
                for command in ["cmd.part", "cmd.end", "cmd.enough", "cmd.part.credit"] {
                    peer.send(id, direction, command, b"12");
                }
            }
        }
        // The same id is one of the other side's here, and a context for a part is one for nothing.
        peer.send(7, Direction::Response, "cmd.part", b"not this");
        peer.send(9, Direction::OneWay, "cmd.context", SENDS);
        part(&mut peer, 7, b"two");
        peer.send(9, Direction::Request, "cmd.part", b"");
        assert!(expect(&mut peer, 9, "cmd.error").starts_with(b"unknown command"));
        peer.send(7, Direction::OneWay, "cmd.end", b"");
        part(&mut peer, 7, b"behind the end");
        peer.send(7, Direction::OneWay, "cmd.end", b"a second end");
        assert_eq!(expect(&mut peer, 7, "gather"), b"one two");
        part(&mut peer, 7, b"behind the answer");
        assert_serves(&connection, &mut peer);
    };
    each(&Options::default(), "1000", test, gather);
}

#[test]
fn the_senders_of_what_was_skipped_are_told() {
    let mut options = Options::default();
    options.limits = Limits::default().with_buffer(100);
    let test = |connection: Connection, mut peer: Peer| {
        // A one-way that is too large, which would open a stream.
        peer.send(1, Direction::OneWay, "cmd.context", SENDS);
        peer.send(1, Direction::OneWay, "gather", &[0; 101]);
        assert!(expect(&mut peer, 1, "cmd.enough").starts_with(b"not taken"));
        // One without a stream, and one of another id.
        peer.send(2, Direction::OneWay, "gather", &[0; 101]);
        peer.send(3, Direction::OneWay, "cmd.context", SENDS);
        peer.send(4, Direction::OneWay, "gather", &[0; 101]);

        open(&mut peer, 5, Direction::OneWay, "gather", SENDS);
        part(&mut peer, 5, &[0; 101]);
        assert!(expect(&mut peer, 5, "cmd.enough").starts_with(b"a part was skipped"));

        open(&mut peer, 6, Direction::Request, "gather", SENDS);
        part(&mut peer, 6, &[0; 101]);
        assert!(expect(&mut peer, 6, "cmd.enough").starts_with(b"a part was skipped"));
        assert!(expect(&mut peer, 6, "cmd.error").starts_with(b"a part was skipped"));

        // A part of a reply: its handler would wait for credit, so the call is given up.
        let parts = connection.request("x", "").stream().unwrap().split().1;
        let id = next(&mut peer).thread_id.as_u64();
        expect(&mut peer, id, "x");
        peer.send(id, Direction::Response, "cmd.part", &[0; 101]);
        assert!(matches!(parts.reply(), Err(CallError::ReplyTooLarge { .. })));
        let ends = [next(&mut peer), next(&mut peer)].map(|chunk| chunk.command);
        assert!(ends.contains(&"cmd.cancel".into()), "{ends:?}");
        assert_serves(&connection, &mut peer);
    };
    each(&options, "1000", test, gather);
}

#[test]
fn before_the_window_is_known_one_part_is_sent() {
    let _watchdog = watchdog();
    let (connection, mut peer) = Peer::connect(&events(), Options::default(), count()).unwrap();
    open(&mut peer, 1, Direction::Request, "count", RECEIVES);
    assert_eq!(expect(&mut peer, 1, "cmd.part"), b"0");
    peer.send(2, Direction::Request, "cmd.ping", b"");
    expect(&mut peer, 2, "cmd.ping");
    agree(&connection, "219"); // three times 73
    for number in ["1", "2"] {
        assert_eq!(expect(&mut peer, 1, "cmd.part"), number.as_bytes());
    }
    peer.send(3, Direction::Request, "cmd.ping", b"");
    expect(&mut peer, 3, "cmd.ping");
    peer.send(1, Direction::OneWay, "cmd.cancel", b"");
    expect(&mut peer, 1, "cmd.error");
    assert_serves(&connection, &mut peer);
}

#[test]
fn credit_that_cannot_be_gives_none() {
    for window in ["0", "1", "no number"] {
        let test = |connection: Connection, mut peer: Peer| {
            open(&mut peer, 1, Direction::Request, "count", RECEIVES);
            let first = if window == "no number" { 13_000 } else { 1 };
            for number in 0..first {
                assert_eq!(expect(&mut peer, 1, "cmd.part"), number.to_string().as_bytes());
            }
            if first > 1 {
                peer.send(1, Direction::OneWay, "cmd.enough", b"");
                while next(&mut peer).command == "cmd.part" {}
                return assert_serves(&connection, &mut peer);
            }
            let wrong: [&[u8]; 8] =
                [b"", b"-1", b"74", b"18446744073709551615", b"1e3", b"\xff", b"073", b"73 "];
            for credit in wrong {
                peer.send(1, Direction::OneWay, "cmd.part.credit", credit);
            }
            peer.send(2, Direction::Request, "cmd.ping", b"");
            expect(&mut peer, 2, "cmd.ping");
            peer.send(1, Direction::OneWay, "cmd.part.credit", b"73");
            assert_eq!(expect(&mut peer, 1, "cmd.part"), b"1");
            for credit in [b"72", b"73"] {
                peer.send(1, Direction::OneWay, "cmd.part.credit", credit);
            }
            peer.send(1, Direction::OneWay, "cmd.enough", &[b'x'; 100_000]);
            let error = expect(&mut peer, 1, "cmd.error");
            assert!(error.len() < 10_000, "{}", error.len());
            assert_serves(&connection, &mut peer);
        };
        each(&Options::default(), window, test, count);
    }
}

#[test]
fn who_sends_past_the_window_has_the_stream_ended() {
    let mut options = Options::default();
    options.stream_window = 1000;
    let test = |connection: Connection, mut peer: Peer| {
        for (id, direction) in [(1, Direction::Request), (2, Direction::OneWay)] {
            let mut bytes = bytes(id, Direction::OneWay, "cmd.context", SENDS);
            bytes.extend(self::bytes(id, direction, "stand", b""));
            for _ in 0..40 {
                bytes.extend(self::bytes(id, Direction::OneWay, "cmd.part", &[b'x'; 100]));
            }
            peer.send_raw(&bytes);
            // The handler may answer first.
            for _ in 0..1 + usize::from(direction == Direction::Request) {
                let told = next(&mut peer).buffer;
                assert!(told.starts_with(b"the other side sends past"), "{}", told.escape_ascii());
            }
        }
        assert_serves(&connection, &mut peer);
    };
    each(&options, "1000", test, || {
        Box::new(|request| {
            std::thread::sleep(Duration::from_millis(20));
            match request.parts().find_map(Result::err) {
                Some(error) => Err(error.into()),
                None => Ok(Reply::empty()),
            }
        })
    });
}

#[test]
fn large_parts_of_many_streams_are_bounded_in_total() {
    let mut options = Options::default();
    options.stream_window = 1000;
    options.limits = Limits::default().with_buffer(100_000);
    let test = |connection: Connection, mut peer: Peer| {
        for id in 1..=3 {
            open(&mut peer, id, Direction::Request, "stand", SENDS);
        }
        part(&mut peer, 1, &[0; 90_000]);
        part(&mut peer, 2, &[0; 90_000]);
        let told = expect(&mut peer, 2, "cmd.enough");
        assert!(told.starts_with(b"the stream was given up"), "{}", told.escape_ascii());
        peer.one_way("go", b"2");
        expect(&mut peer, 2, "cmd.error");
        part(&mut peer, 3, &[0; 500]); // within its window
        peer.send(3, Direction::OneWay, "cmd.end", b"");
        peer.one_way("go", b"3");
        assert_eq!(expect(&mut peer, 3, "stand"), b"500");
        part(&mut peer, 1, b"past its window");
        expect(&mut peer, 1, "cmd.enough");
        peer.one_way("go", b"1");
        expect(&mut peer, 1, "cmd.error");
        // All of it was given back.
        for id in 4..=9 {
            peer.one_way("go", id.to_string().as_bytes());
            open(&mut peer, id, Direction::Request, "take", SENDS);
            part(&mut peer, id, &[0; 90_000]);
            peer.send(id, Direction::OneWay, "cmd.end", b"");
            assert_eq!(expect(&mut peer, id, "take"), b"90000");
        }
        assert_serves(&connection, &mut peer);
    };
    each(&options, "1000", test, || {
        let gate = Arc::new((Mutex::new(Vec::new()), Condvar::new()));
        Box::new(move |request| {
            // Takes nothing before the peer says so.
            let mut parts = request.parts();
            let id = request.chunk().thread_id.as_u64().to_string();
            let (lock, changed) = &*gate;
            let mut released = lock.lock().unwrap();
            if request.command() == "go" {
                released.push(request.text()?.to_owned());
                changed.notify_all();
                return Ok(Reply::empty());
            }
            while !released.contains(&id) {
                released = changed.wait_timeout(released, LONG).unwrap().0;
            }
            drop(released);
            let sum = parts.try_fold(0, |sum, part| part.map(|part| sum + part.len()));
            Ok(sum?.to_string().into())
        })
    });
}

#[test]
fn as_many_streams_are_open_as_may_be_and_an_id_counts_once() {
    let mut options = Options::default();
    options.streams = 100;
    let test = |connection: Connection, mut peer: Peer| {
        for round in 0..3 {
            let ids = round * 1000..round * 1000 + 100;
            for id in ids.clone() {
                let direction = if id % 2 == 0 { Direction::Request } else { Direction::OneWay };
                open(&mut peer, id, direction, "gather", BOTH);
            }
            for (id, command, direction) in
                [(5000, "cmd.error", Direction::Request), (5001, "cmd.enough", Direction::OneWay)]
            {
                open(&mut peer, id, direction, "gather", SENDS);
                assert!(expect(&mut peer, id, command).starts_with(b"not taken: 100 streams"));
            }
            // Twice the same id: the first one goes on.
            peer.send(ids.start, Direction::OneWay, "cmd.end", b"");
            assert_eq!(expect(&mut peer, ids.start, "gather"), b"");
            open(&mut peer, ids.start + 2, Direction::Request, "gather", SENDS);
            let told = expect(&mut peer, ids.start + 2, "cmd.error");
            assert!(told.ends_with(b"a stream with its id is open"), "{}", told.escape_ascii());
            open(&mut peer, ids.start + 1, Direction::OneWay, "gather", SENDS);
            for id in ids.skip(1) {
                part(&mut peer, id, b"x");
                peer.send(id, Direction::OneWay, "cmd.end", b"");
                if id % 2 == 0 {
                    assert_eq!(expect(&mut peer, id, "gather"), b"x");
                }
            }
            assert_serves(&connection, &mut peer);
        }
    };
    each(&options, "1000", test, gather);
}

#[test]
fn a_handler_that_waits_for_parts_has_them_read_however_much_is_queued() {
    let mut options = Options::default();
    (options.window, options.overrun) = (2000, 100_000);
    options.handlers = std::num::NonZeroUsize::MIN;
    options.order = pipeplug_net::Order::InOrder;
    let test = |connection: Connection, mut peer: Peer| {
        open(&mut peer, 1, Direction::Request, "gather", SENDS);
        for _ in 0..100 {
            peer.one_way("behind it", &[0; 100]);
        }
        part(&mut peer, 1, b"all the same");
        peer.send(1, Direction::OneWay, "cmd.end", b"");
        assert_eq!(expect(&mut peer, 1, "gather"), b"all the same");
        eventually("they are handled", || connection.stats().held == 0);

        // Past the limit the stream ends, and nothing more is read until there is room.
        open(&mut peer, 2, Direction::Request, "gather", SENDS);
        for _ in 0..600 {
            peer.one_way("behind it", &[0; 100]);
        }
        let mut told = [next(&mut peer), next(&mut peer)].map(|chunk| chunk.command);
        told.sort();
        assert!(told == ["cmd.enough", "cmd.error"], "{told:?}");
        eventually("they are handled", || connection.stats().held == 0);
        assert_serves(&connection, &mut peer);
    };
    each(&options, "1000", test, gather);
}

#[test]
fn what_came_before_a_broken_chunk_or_the_end_is_received() {
    for rest in [&b"no chunk"[..], b"", &bytes(1, Direction::OneWay, "cmd.part", b"half")[..20]] {
        let received = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&received);
        let handler = move |request: &mut Request| -> Handled {
            for part in request.parts() {
                let part = part.map(|part| part.text().map(String::from));
                seen.lock().unwrap().push(match part {
                    Ok(text) => text?,
                    Err(error @ StreamError::Closed { .. }) => format!("closed: {error}"),
                    Err(error) => panic!("{error}"),
                });
            }
            Ok(Reply::empty())
        };
        for reading in [Reading::Dedicated, Reading::Shared] {
            let mut options = Options::default();
            options.reading = reading;
            let (connection, mut peer) =
                Peer::connect(&events(), options, handler.clone()).unwrap();
            agree(&connection, "1000");
            open(&mut peer, 1, Direction::OneWay, "take", SENDS);
            let mut sent: Vec<u8> = ["a", "b", "c"]
                .iter()
                .flat_map(|part| bytes(1, Direction::OneWay, "cmd.part", part.as_bytes()))
                .collect();
            sent.extend_from_slice(rest);
            peer.send_raw(&sent);
            drop(peer.output);
            assert!(connection.wait_closed(LONG).is_some());
            let received = std::mem::take(&mut *received.lock().unwrap());
            assert_eq!(received[..3], ["a", "b", "c"], "{received:?}");
            assert!(received.len() == 4 && received[3].starts_with("closed"), "{received:?}");
            assert_eq!(connection.stats().open_streams, 0);
        }
    }
}

#[test]
fn a_peer_that_answers_in_between_ends_both_directions() {
    let test = |connection: Connection, mut peer: Peer| {
        let (mut sender, mut parts) = connection.request("x", "").stream().unwrap().split();
        let id = next(&mut peer).thread_id.as_u64();
        expect(&mut peer, id, "x");
        let mut sent = bytes(id, Direction::Response, "cmd.part", b"first");
        sent.extend(bytes(id, Direction::Response, "x", b"reply"));
        sent.extend(bytes(id, Direction::Response, "cmd.part", b"behind"));
        peer.send_raw(&sent);
        assert_eq!(*parts.next().unwrap().unwrap(), *b"first");
        eventually("the sender learns it", || sender.error().is_some());
        assert!(matches!(sender.send("part"), Err(StreamError::Enough { .. })));
        assert_eq!(parts.reply().unwrap(), "reply");
        drop(sender);
        assert_serves(&connection, &mut peer);
    };
    each(&Options::default(), "1000", test, gather);
}

#[test]
fn the_parts_of_a_reply_have_one_sender() {
    let test = |connection: Connection, mut peer: Peer| {
        open(&mut peer, 1, Direction::Request, "x", RECEIVES);
        assert_eq!(expect(&mut peer, 1, "cmd.part"), b"part");
        assert_eq!(expect(&mut peer, 1, "x"), b"");
        assert_serves(&connection, &mut peer);
    };
    each(&Options::default(), "1000", test, || {
        Box::new(|request| {
            let mut first = request.reply_parts()?;
            let second = request.reply_parts();
            assert!(matches!(second, Err(StreamError::AlreadyTaken)), "{second:?}");
            first.send("part")?;
            Ok(Reply::empty())
        })
    });
}

struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

#[test]
fn a_deadline_ends_the_wait_for_room() {
    let mut options = Options::default();
    options.outgoing = 1000;
    let test = |connection: Connection, peer: Peer| {
        let open = |timeout| {
            let timeout = Duration::from_millis(timeout);
            let call = connection.request("x", "").timeout(timeout).stream().unwrap();
            let (sender, parts) = call.split();
            std::mem::forget(parts); // the deadline is the sender's here
            sender
        };
        let (mut one, mut sender) = (open(100), open(300));
        one.send(vec![0; 1 << 20]).unwrap();
        let error = one.send("more").unwrap_err();
        assert!(matches!(error, StreamError::DeadlinePassed), "{error:?}");
        assert!(one.send("more").is_err());

        let flag = Arc::new(Flag(AtomicBool::new(false)));
        let waker = Waker::from(Arc::clone(&flag));
        let mut context = Context::from_waker(&waker);
        let mut poll = || {
            let ready: Poll<Result<(), StreamError>> =
                <PartSender as futures_sink::Sink<&str>>::poll_ready(
                    Pin::new(&mut sender),
                    &mut context,
                );
            ready
        };
        assert!(poll().is_pending());
        eventually("the deadline wakes it", || flag.0.load(Ordering::SeqCst));
        let Poll::Ready(Err(error)) = poll() else { panic!("the deadline has passed") };
        assert!(matches!(error, StreamError::DeadlinePassed), "{error:?}");
        drop(peer);
    };
    each(&options, "100000000", test, || Box::new(|_| Ok(Reply::empty())));
}

#[test]
fn closing_a_sink_twice_is_no_error() {
    let test = |connection: Connection, mut peer: Peer| {
        let mut sender = connection.notify_stream("x", "").unwrap();
        let mut context = Context::from_waker(Waker::noop());
        for _ in 0..2 {
            let close = <PartSender as futures_sink::Sink<&str>>::poll_close(
                Pin::new(&mut sender),
                &mut context,
            );
            assert!(matches!(close, Poll::Ready(Ok(()))), "{close:?}");
        }
        let id = next(&mut peer).thread_id.as_u64();
        expect(&mut peer, id, "x");
        expect(&mut peer, id, "cmd.end");
        assert_serves(&connection, &mut peer);
    };
    each(&Options::default(), "1000", test, gather);
}

#[test]
fn a_handler_on_the_reader_may_wait_for_streams_of_another_connection() {
    let _watchdog = watchdog();
    let (inner, mut inner_peer) = Peer::connect(&events(), Options::default(), Refuse).unwrap();
    agree(&inner, "1000");
    let outer = move |request: &mut Request| -> Handled {
        if request.command() == "beside" {
            return Ok("beside".into());
        }
        let (sender, parts) = inner.request("x", "").stream()?.split();
        drop(sender);
        let mut all = Vec::new();
        for part in parts {
            all.extend_from_slice(&part?);
        }
        Ok(all.into())
    };
    let mut options = Options::default();
    options.reading = Reading::Dedicated;
    let (connection, mut peer) = Peer::connect(&events(), options, outer).unwrap();
    let (go, gone) = mpsc::channel::<()>();
    let answers = std::thread::spawn(move || {
        for _ in 0..50 {
            let id = next(&mut inner_peer).thread_id.as_u64();
            expect(&mut inner_peer, id, "x");
            expect(&mut inner_peer, id, "cmd.end");
            gone.recv_timeout(LONG).unwrap();
            for _ in 0..3 {
                inner_peer.send(id, Direction::Response, "cmd.part", b"abc");
            }
            inner_peer.send(id, Direction::Response, "x", b"");
        }
        inner_peer
    });
    for id in 0..50 {
        peer.send(id * 2, Direction::Request, "outer", b"");
        // Is read while the handler waits.
        peer.send(id * 2 + 1, Direction::Request, "beside", b"");
        assert_eq!(expect(&mut peer, id * 2 + 1, "beside"), b"beside");
        go.send(()).unwrap();
        assert_eq!(expect(&mut peer, id * 2, "outer"), b"abcabcabc");
    }
    drop(answers.join().unwrap());
    assert_serves(&connection, &mut peer);
}

#[test]
fn a_thread_that_reads_while_it_waits_learns_of_an_end_by_another_thread() {
    let _watchdog = watchdog();
    for round in 0..20 {
        // Its call is given up.
        let (connection, peer) = Peer::connect(&events(), Options::default(), Refuse).unwrap();
        agree(&connection, "1");
        let (mut sender, parts) = connection.request("x", "").stream().unwrap().split();
        sender.send("fills the window").unwrap();
        let sending = std::thread::spawn(move || sender.send("waits for credit"));
        std::thread::sleep(Duration::from_millis(round % 4));
        drop(parts);
        assert!(matches!(sending.join().unwrap(), Err(StreamError::Cancelled)));
        drop(peer);

        // Its request is answered.
        let (tell, told) = mpsc::channel();
        let tell = Mutex::new(tell);
        let handler = move |request: &mut Request| -> Handled {
            let (responder, parts) = (request.responder().unwrap(), request.parts());
            let answers = std::thread::spawn(move || {
                std::thread::sleep(Duration::from_millis(round % 4));
                responder.answer("answered");
            });
            let end = parts.last().unwrap().map(drop);
            tell.lock().unwrap().send(end).unwrap();
            answers.join().unwrap();
            Ok(Reply::empty())
        };
        let (connection, mut peer) = Peer::connect(&events(), Options::default(), handler).unwrap();
        agree(&connection, "1");
        open(&mut peer, 1, Direction::Request, "x", SENDS);
        assert_eq!(expect(&mut peer, 1, "x"), b"answered");
        assert!(matches!(told.recv_timeout(LONG).unwrap(), Err(StreamError::Cancelled)));
        assert_serves(&connection, &mut peer);
    }
}
