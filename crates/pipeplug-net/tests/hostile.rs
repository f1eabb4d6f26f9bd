//! Peers written by hand. Nothing that they do hangs, panics or is answered twice.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::io::Write;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use common::{Gate, LONG, Raw, Way, bytes, bytes_in, eventually, raw, raw_on, watchdog};
use pipeplug_net::wire::{Direction, Format};
use pipeplug_net::{
    CallError, CloseReason, EventLoop, NotifyError, Options, Refuse, Reply, Request,
};

/// The connection still does what it is for.
#[track_caller]
fn assert_serves(connection: &pipeplug_net::Connection, raw: &mut Raw) {
    let call = connection.request("still there?", "yes").begin().unwrap();
    assert_eq!(raw.answer(), call.thread_id().as_u64());
    assert_eq!(call.wait().unwrap(), b"yes");
}

#[test]
fn replies_that_nobody_asked_for_are_counted() {
    let _watchdog = watchdog();
    let (connection, mut raw) = raw(&Options::default(), Refuse);
    raw.send(1000, Direction::Response, "x", b"");
    raw.send(u64::MAX, Direction::Response, "cmd.error", b"no");
    raw.send(0, Direction::Response, "cmd.ping", b"");
    assert_serves(&connection, &mut raw);
    assert_eq!((connection.stats().unknown_replies, connection.stats().late_replies), (3, 0));
}

/// Error of a call to a peer that ends inside a chunk.
fn told_of_end_behind(options: &Options, sent: &[u8]) -> String {
    let (connection, mut raw) = raw(options, Refuse);
    let call = connection.request("x", "").begin().unwrap();
    raw.input.next().unwrap();
    raw.output.write_all(sent).unwrap();
    drop(raw);
    call.wait().unwrap_err().to_string()
}

#[test]
fn an_end_inside_a_chunk_shows_how_that_begins_wherever_it_is() {
    let _watchdog = watchdog();
    let large = bytes(7, Direction::Response, "large", &vec![b'x'; 300_000]);
    for len in [3, 20, 70_000, 200_000] {
        let told = told_of_end_behind(&Options::default(), &large[..len]);
        assert!(told.contains("the chunk begins with \"7\\x003"), "{len}: {told}");
        assert!(len < 20 || told.contains("large\\x00300000\\x00x"), "{len}: {told}");
    }
    let mut options = Options::default();
    options.limits = options.limits.with_buffer(1000);
    let told = told_of_end_behind(&options, &large[..70_000]);
    assert!(
        told.contains("; the chunk was being thrown away, for its size or its direction"),
        "{told}"
    );
}

#[test]
fn the_second_reply_is_late() {
    let _watchdog = watchdog();
    let (connection, mut raw) = raw(&Options::default(), Refuse);
    let call = connection.request("x", "").begin().unwrap();
    let id = call.thread_id().as_u64();
    raw.send(id, Direction::Response, "x", b"first");
    raw.send(id, Direction::Response, "x", b"second");
    assert_serves(&connection, &mut drain(raw));
    assert_eq!(call.wait().unwrap(), b"first");
    assert_eq!((connection.stats().unknown_replies, connection.stats().late_replies), (0, 1));
}

/// Takes one request from the pipe, unanswered.
fn drain(mut raw: Raw) -> Raw {
    raw.input.next().unwrap();
    raw
}

#[test]
fn a_late_reply_does_not_reach_a_later_call() {
    let _watchdog = watchdog();
    let (connection, mut raw) = raw(&Options::default(), Refuse);
    let given_up = connection.request("slow", "").begin().unwrap();
    let id = given_up.thread_id().as_u64();
    assert!(matches!(given_up.wait_timeout(Duration::ZERO), Err(CallError::TimedOut { .. })));
    let mut raw = {
        raw.send(id, Direction::Response, "slow", b"late");
        drain(raw)
    };
    assert_serves(&connection, &mut raw);
    assert_eq!((connection.stats().late_replies, connection.stats().open_calls), (1, 0));
}

#[test]
fn chunks_of_unknown_directions_are_skipped() {
    let _watchdog = watchdog();
    let (connection, mut raw) = raw(&Options::default(), Refuse);
    raw.output.write_all(b"0\x000\x004\0noop\x000\0").unwrap();
    raw.output.write_all(b"7\x0018446744073709551615\x003\0new\x0011\0hello\0world").unwrap();
    assert_serves(&connection, &mut raw);
    assert_eq!(connection.stats().skipped, 2);
}

#[test]
fn credits_that_cannot_be_are_counted() {
    let _watchdog = watchdog();
    let (connection, mut raw) = raw(&Options::default(), Refuse);
    for total in ["1", "18446744073709551615", "18446744073709551616", "-1", "", "x", "\u{0}"] {
        raw.one_way("cmd.credit", total.as_bytes());
    }
    raw.one_way("cmd.no such thing", b"");
    // Before the first request, with which a credit of 1 would be one that can be.
    eventually("all are counted", || connection.stats().unexpected == 8);
    assert_serves(&connection, &mut raw);
}

#[test]
fn a_buffer_that_no_memory_holds_is_refused_ahead_of_its_bytes() {
    let _watchdog = watchdog();
    let (connection, mut raw) = raw(&Options::default(), Refuse);
    raw.output.write_all(b"5\x002\x004\0echo\x001000000000000000000\0and some bytes").unwrap();
    let refusal = raw.input.next().unwrap();
    assert_eq!((refusal.command.as_str(), refusal.thread_id.as_u64()), ("cmd.error", 5));
    let message = String::from_utf8(refusal.buffer).unwrap();
    assert!(message.contains("1000000000000000000") && message.contains("268435456"), "{message}");
    // The other direction goes on, and the end amid the buffer is one that says what is missing.
    connection.notify("tick", "").unwrap();
    assert_eq!(raw.input.next().unwrap().command, "tick");
    drop(raw.output);
    let reason = connection.wait_closed(LONG).unwrap();
    assert!(matches!(*reason, CloseReason::Broken { .. }), "{reason}");
}

#[test]
fn an_endless_reply_fails_its_call() {
    let _watchdog = watchdog();
    let (connection, mut raw) = raw(&Options::default(), Refuse);
    let call = connection.request("x", "").begin().unwrap();
    let id = call.thread_id();
    raw.output.write_all(format!("{id}\x003\x001\0x\x001000000000000000000\0").as_bytes()).unwrap();
    let error = call.wait().unwrap_err();
    assert!(matches!(error, CallError::ReplyTooLarge { .. }), "{error}");
}

#[test]
fn the_end_of_the_file_amid_a_chunk_is_told_at_every_byte() {
    let _watchdog = watchdog();
    let events = EventLoop::new().unwrap();
    let chunk = bytes(1, Direction::Response, "echo", b"hello");
    for cut in 0..=chunk.len() {
        let (connection, mut raw) = raw_on(&events, &Options::default(), Way::PLAIN, Refuse);
        let call = connection.request("echo", "").begin().unwrap();
        assert_eq!(call.thread_id().as_u64(), 1);
        raw.output.write_all(&chunk[..cut]).unwrap();
        drop(raw.output);
        let (result, reason) = (call.wait(), connection.wait_closed(LONG).unwrap());
        match cut {
            0 => assert!(matches!(*reason, CloseReason::EndOfFile), "{reason}"),
            whole if whole == chunk.len() => {
                assert_eq!(result.unwrap(), b"hello");
                assert!(matches!(*reason, CloseReason::EndOfFile), "{reason}");
                continue;
            }
            _ => assert!(matches!(*reason, CloseReason::Broken { .. }), "{cut}: {reason}"),
        }
        assert!(matches!(result, Err(CallError::Closed { .. })), "{cut}: {result:?}");
    }
}

#[test]
fn garbage_behind_good_chunks_ends_what_is_open_and_takes_what_came() {
    let _watchdog = watchdog();
    let (tell, told) = mpsc::channel();
    let (connection, mut raw) = raw(&Options::default(), move |request: &mut Request| {
        tell.send(request.text()?.to_owned())?;
        Ok(Reply::empty())
    });
    let (answered, open) = (
        connection.request("a", "").begin().unwrap(),
        connection.request("b", "").begin().unwrap(),
    );
    let mut stream = bytes(answered.thread_id().as_u64(), Direction::Response, "a", b"answer");
    stream.extend(bytes(0, Direction::OneWay, "log", b"taken"));
    let good = stream.len();
    stream.extend(b"{\"jsonrpc\": \"2.0\"}");
    raw.output.write_all(&stream).unwrap();
    assert_eq!(answered.wait().unwrap(), b"answer");
    let error = open.wait().unwrap_err();
    assert!(error.to_string().contains(&format!("byte {good} ")), "{error}");
    assert_eq!(told.recv_timeout(LONG).unwrap(), "taken");
    let reason = connection.wait_closed(LONG).unwrap();
    assert!(matches!(*reason, CloseReason::Broken { .. }), "{reason}");
    // Nothing is sent to who sends garbage.
    raw.input.next();
    raw.input.next();
    assert!(raw.input.next().is_none());
}

#[test]
fn any_cut_of_the_stream_is_the_same() {
    let _watchdog = watchdog();
    let events = EventLoop::new().unwrap();
    for format in [Format::Standard, Format::Classic] {
        let mut options = Options::default();
        options.format = Some(format);
        options.handlers = NonZeroUsize::MIN;
        let (tell, told) = mpsc::channel();
        let (connection, mut raw) =
            raw_on(&events, &options, Way::PLAIN, move |request: &mut Request| {
                tell.send((request.command().to_owned(), request.take_buffer()))?;
                Ok(Reply::empty())
            });
        let sizes = [0, 1, 9, 10, 100, 2000];
        for size in sizes {
            for byte in bytes_in(format, 0, Direction::OneWay, "échò", &vec![b'7'; size]) {
                raw.output.write_all(&[byte]).unwrap();
            }
        }
        for size in sizes {
            assert_eq!(told.recv_timeout(LONG).unwrap(), ("échò".to_owned(), vec![b'7'; size]));
        }
        assert!(connection.close_reason().is_none());
    }
}

/// The peer would still talk, but does not listen.
#[test]
fn calls_fail_when_the_peer_has_closed_its_reading_end() {
    let _watchdog = watchdog();
    let events = EventLoop::new().unwrap();
    for round in 0..300 {
        let (connection, raw) = raw_on(&events, &Options::default(), Way::PLAIN, Refuse);
        let Raw { input, output } = raw;
        let open = connection.request("sent before", "").begin().unwrap();
        let (begin, begun) = mpsc::channel();
        let reading = thread::spawn(move || {
            begin.send(()).unwrap();
            open.wait().unwrap_err()
        });
        begun.recv_timeout(LONG).unwrap();
        // So that in some rounds it is the other thread that reads, and in some this one.
        (0..round % 30).for_each(|_| thread::yield_now());
        drop(input);
        let error = connection.call("sent after", "").unwrap_err();
        for error in [error, reading.join().unwrap()] {
            let CallError::Closed { reason, .. } = error else { panic!("{error}") };
            assert!(matches!(*reason, CloseReason::WriteFailed(_)), "{reason}");
        }
        assert!(matches!(connection.notify("x", ""), Err(NotifyError::Closed { .. })));
        assert!(matches!(*connection.wait_closed(LONG).unwrap(), CloseReason::WriteFailed(_)));
        drop(output);
    }
}

#[test]
fn a_queue_that_waits_for_a_peer_fails_when_that_stops_to_listen() {
    let _watchdog = watchdog();
    let (connection, raw) = raw(&Options::default(), Refuse);
    let Raw { input, output } = raw;
    let open = connection.request("large", vec![0; 1 << 20]).begin().unwrap();
    assert!(connection.stats().queued > 0);
    drop(input);
    let error = open.wait().unwrap_err();
    assert!(error.to_string().contains("writing to the pipe failed"), "{error}");
    drop(output);
}

#[test]
fn a_peer_that_dies_while_both_sides_call_ends_every_call() {
    let _watchdog = watchdog();
    for round in 0..20 {
        let entered = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&entered);
        let (connection, mut raw) = raw(&Options::default(), move |request: &mut Request| {
            counter.fetch_add(1, Ordering::SeqCst);
            Ok(request.connection().call_bytes("back", "")?.into())
        });
        thread::scope(|scope| {
            let calls: Vec<_> =
                (0..8).map(|_| scope.spawn(|| connection.call("x", "").unwrap_err())).collect();
            (0..8).for_each(|id| raw.send(id, Direction::Request, "y", b""));
            eventually("the handlers call", || entered.load(Ordering::SeqCst) == 8);
            eventually("the callers call", || connection.stats().open_calls >= 8 + round % 8);
            drop(raw);
            for call in calls {
                assert!(matches!(call.join().unwrap(), CallError::Closed { .. }));
            }
        });
        assert!(connection.wait_closed(LONG).is_some());
        assert_eq!(connection.stats().open_calls, 0);
    }
}

#[test]
fn an_end_that_races_with_replies_ends_each_call_once() {
    let _watchdog = watchdog();
    let events = EventLoop::new().unwrap();
    for round in 0..200 {
        let (connection, raw) = raw_on(&events, &Options::default(), Way::PLAIN, Refuse);
        let Raw { mut input, mut output } = raw;
        let calls: Vec<_> = (0..16).map(|_| connection.request("x", "").begin().unwrap()).collect();
        let ids: Vec<_> = (0..16).map(|_| input.next().unwrap().thread_id.as_u64()).collect();
        let barrier = Barrier::new(2 + 4);
        let (barrier, connection) = (&barrier, &connection);
        let (mut replied, mut ended) = (0, 0);
        thread::scope(|scope| {
            scope.spawn(move || {
                barrier.wait();
                for id in ids {
                    // EPIPE once the connection has ended.
                    if output.write_all(&bytes(id, Direction::Response, "x", b"reply")).is_err() {
                        break;
                    }
                }
            });
            scope.spawn(move || {
                barrier.wait();
                (0..round % 50).for_each(|_| thread::yield_now());
                connection.end("enough");
                connection.end("more than enough");
            });
            let mut calls = calls.into_iter();
            let waiting: Vec<_> = (0..4)
                .map(|_| {
                    let some: Vec<_> = calls.by_ref().take(4).collect();
                    scope.spawn(move || {
                        barrier.wait();
                        some.into_iter().map(pipeplug_net::PendingCall::wait).collect::<Vec<_>>()
                    })
                })
                .collect();
            for result in waiting.into_iter().flat_map(|thread| thread.join().unwrap()) {
                match result {
                    Ok(chunk) => {
                        assert_eq!(chunk, b"reply");
                        replied += 1;
                    }
                    Err(CallError::Closed { reason, .. }) => {
                        assert!(
                            matches!(&*reason, CloseReason::Ended(why) if why == "enough"),
                            "{reason}"
                        );
                        ended += 1;
                    }
                    Err(error) => panic!("{error}"),
                }
            }
        });
        assert_eq!(replied + ended, 16);
        let stats = connection.stats();
        assert_eq!((stats.open_calls, stats.late_replies, stats.unknown_replies), (0, 0, 0));
        assert!(connection.wait_closed(LONG).is_some());
    }
}

/// A peer that never pauses keeps the reading caller busy, but not beyond the caller's deadline.
#[test]
fn a_deadline_is_kept_amid_a_flood() {
    let _watchdog = watchdog();
    let stop = AtomicBool::new(false);
    let (connection, raw) = raw(&Options::default(), |_: &mut Request| Ok(Reply::empty()));
    let Raw { input: _input, mut output } = raw;
    thread::scope(|scope| {
        scope.spawn(|| {
            let flood = bytes(u64::MAX, Direction::Response, "x", &[0; 1000]).repeat(60);
            while !stop.load(Ordering::SeqCst) {
                output.write_all(&flood).unwrap();
            }
        });
        eventually("the flood has begun", || connection.stats().unknown_replies > 1000);
        let call = connection.request("never", "").begin().unwrap();
        let start = Instant::now();
        let error = call.wait_timeout(Duration::from_millis(50));
        stop.store(true, Ordering::SeqCst);
        assert!(matches!(error, Err(CallError::TimedOut { .. })), "{error:?}");
        assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    });
}

/// A peer that agreed to count, and does not, is not read without bound.
#[test]
fn a_peer_that_breaks_its_promise_is_paused() {
    let _watchdog = watchdog();
    let gate = Gate::default();
    let handled = Arc::new(AtomicUsize::new(0));
    let mut options = Options::default();
    options.window = 10_000;
    let (handler_gate, counter) = (gate.clone(), Arc::clone(&handled));
    let (connection, raw) = raw(&options, move |_: &mut Request| {
        handler_gate.pass();
        counter.fetch_add(1, Ordering::SeqCst);
        Ok(Reply::empty())
    });
    pipeplug_net::internal::handshake::accept(&connection, |key| match key {
        "pipeplug.features" => Some("flow"),
        "pipeplug.window" => Some("10000"),
        _ => None,
    });
    let Raw { mut input, mut output } = raw;
    let written = AtomicUsize::new(0);
    thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..3000 {
                output.write_all(&bytes(0, Direction::OneWay, "x", &[0; 1000])).unwrap();
                written.fetch_add(1, Ordering::SeqCst);
            }
        });
        eventually("much is held", || connection.stats().held >= 10_000);
        let mut before = 0;
        eventually("the writer stands still", || {
            let now = written.load(Ordering::SeqCst);
            thread::park_timeout(Duration::from_millis(50));
            std::mem::replace(&mut before, now) == now
        });
        let held = connection.stats().held;
        // What one read brings may come on top, however large a chunk may be.
        assert!(held <= 10_000 + (70 << 10), "{held}");
        gate.open();
    });
    drop(output);
    while input.next().is_some() {}
    assert!(connection.wait_closed(LONG).is_some());
    assert_eq!(handled.load(Ordering::SeqCst), 3000);
}

/// One that asks, closes its writing end, and goes away without reading the answers.
#[test]
fn answers_that_nobody_reads_any_more_hold_nothing_back() {
    let _watchdog = watchdog();
    let (connection, raw) = raw(&Options::default(), |_: &mut Request| Ok(vec![0; 1 << 20].into()));
    let Raw { input, mut output } = raw;
    for id in 1..60 {
        output.write_all(&bytes(id, Direction::Request, "much", b"")).unwrap();
    }
    drop(output);
    assert!(connection.wait_ended(LONG).is_some());
    // Some answers wait for room by then.
    eventually("the answers wait", || connection.stats().queued >= Options::default().outgoing);
    drop(input);
    assert!(connection.wait_closed(LONG).is_some());
    assert_eq!(connection.stats().queued, 0);
}

/// One that keeps to the window has read them first: it could not send on.
#[test]
fn credits_that_nobody_reads_end_the_connection() {
    let _watchdog = watchdog();
    let mut options = Options::default();
    options.window = 1;
    options.unread = 16 << 10;
    let (connection, raw) = raw(&options, |_: &mut Request| Ok(Reply::empty()));
    pipeplug_net::internal::handshake::accept(&connection, |key| {
        (key == "pipeplug.features").then_some("flow")
    });
    let common::Raw { input: _input, mut output } = raw;
    let flood = bytes(0, Direction::OneWay, "tick", b"").repeat(1000);
    let flooding = thread::spawn(move || (0..1000).all(|_| output.write_all(&flood).is_ok()));
    assert!(!flooding.join().unwrap(), "{:?}", connection.stats());
    let reason = connection.wait_ended(LONG).unwrap();
    assert!(matches!(*reason, CloseReason::Unread { limit: 16384, .. }), "{reason}");
}

/// Each of their calls is given up at the next one-way, and must not have more of them read.
#[test]
fn callers_that_try_again_and_again_have_no_more_one_ways_read_than_one() {
    let _watchdog = watchdog();
    let mut options = Options::default();
    options.window = 64 << 10;
    options.overrun = 256 << 10;
    let gate = Gate::default();
    let blocked = gate.clone();
    let (connection, raw) = raw(&options, move |_: &mut Request| {
        blocked.pass();
        Ok(Reply::empty())
    });
    let common::Raw { input: _input, mut output } = raw;
    let flood = bytes(0, Direction::OneWay, "tick", &[b'.'; 100]).repeat(100);
    let flooding = thread::spawn(move || while output.write_all(&flood).is_ok() {});
    let end = Instant::now() + Duration::from_secs(2);
    let most = thread::scope(|scope| {
        let callers = (0..24).map(|_| {
            scope.spawn(|| {
                let mut most = 0;
                while Instant::now() < end {
                    drop(connection.request("x", "").begin());
                    most = most.max(connection.stats().held);
                }
                most
            })
        });
        callers.collect::<Vec<_>>().into_iter().map(|caller| caller.join().unwrap()).max().unwrap()
    });
    assert!(most < 2 * options.overrun, "{most}");
    gate.open();
    connection.end("enough");
    drop(connection);
    flooding.join().unwrap();
}
