//! Full pipes, nesting, and floods, over pipes of every size and in steps of every size.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use common::{
    Gate, LONG, Raw, Way, accept, bytes, echo, eventually, fill, negotiate, pair_on, raw_on,
};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use pipeplug_net::wire::Direction;
use pipeplug_net::{
    CallError, CloseReason, Connection, EventLoop, HandlerError, NotifyError, Options, Refuse,
    Reply, Request,
};
use std::io::{ErrorKind, Write};
use std::os::fd::AsFd;

/// Makes a test of a function for each way that bytes can go.
macro_rules! each_way {
    ($($name:ident)*) => {$(
        mod $name {
            use crate::common::{Way, watchdog};

            #[test]
            fn plain() {
                let _watchdog = watchdog();
                super::$name(Way::PLAIN);
            }

            #[test]
            fn small_pipes() {
                let _watchdog = watchdog();
                super::$name(Way::SMALL_PIPES);
            }

            #[test]
            fn one_byte_at_a_time() {
                let _watchdog = watchdog();
                super::$name(Way::short(1));
            }

            #[test]
            fn three_bytes_at_a_time() {
                let _watchdog = watchdog();
                super::$name(Way::short(3));
            }

            #[test]
            fn a_page_less_one_at_a_time() {
                let _watchdog = watchdog();
                super::$name(Way::short(4095));
            }
        }
    )*};
}

each_way! {
    both_sides_call_with_large_buffers_over_full_pipes
    nested_calls_with_one_handler_at_a_time
    deeper_than_there_are_threads
    small_one_ways_flood_a_slow_handler
    large_one_ways_flood_a_slow_handler
    handlers_of_both_sides_flood_each_other
    reading_pauses_while_no_call_is_open
    one_ways_past_the_overrun_end_calls
    requests_past_the_overrun_are_refused
    who_floods_pings_and_never_reads_is_left
    a_ping_finds_out_about_a_peer_that_reads_no_more
    a_nonblocking_request_leaves_nothing_open
    a_sender_that_waits_for_room_is_woken_by_the_end
}

fn loops() -> (EventLoop, EventLoop) {
    (EventLoop::new().unwrap(), EventLoop::new().unwrap())
}

fn both_sides_call_with_large_buffers_over_full_pipes(way: Way) {
    for outgoing in [Options::default().outgoing, 1] {
        let mut options = Options::default();
        options.outgoing = outgoing;
        let (one, other) = loops();
        let (host, guest) = pair_on((&one, &other), &options, way, echo, echo);
        thread::scope(|scope| {
            for side in [&host, &guest] {
                for caller in 0..64 {
                    scope.spawn(move || {
                        let body = vec![caller; way.size(1 << 20)];
                        assert!(side.call_bytes("echo", body.clone()).unwrap() == body);
                    });
                }
            }
        });
        assert_eq!((host.stats().open_calls, guest.stats().open_calls), (0, 0));
    }
}

/// Calls back until the number is 0, and gives how often the sides changed.
fn down(request: &mut Request) -> Result<Reply, HandlerError> {
    let left: u32 = request.text()?.parse()?;
    let below = match left {
        0 => 0,
        left => request.connection().call("down", (left - 1).to_string())?.parse::<u32>()? + 1,
    };
    Ok(below.to_string().into())
}

fn nested_calls_with_one_handler_at_a_time(way: Way) {
    let loops = (
        EventLoop::with_handler_threads(300).unwrap(),
        EventLoop::with_handler_threads(300).unwrap(),
    );
    let mut options = Options::default();
    options.handlers = NonZeroUsize::MIN;
    let (host, guest) = pair_on((&loops.0, &loops.1), &options, way, down, down);
    thread::scope(|scope| {
        for side in [&host, &guest] {
            scope.spawn(move || {
                for _ in 0..3 {
                    assert_eq!(side.call("down", "100").unwrap(), "100");
                }
            });
        }
    });
}

fn deeper_than_there_are_threads(way: Way) {
    let loops =
        (EventLoop::with_handler_threads(8).unwrap(), EventLoop::with_handler_threads(8).unwrap());
    let (host, guest) = pair_on((&loops.0, &loops.1), &Options::default(), way, down, down);
    negotiate(&host, &guest);
    thread::scope(|scope| {
        for side in [&host, &guest] {
            scope.spawn(move || {
                for _ in 0..10 {
                    let error = side.call("down", "100").unwrap_err().to_string();
                    assert!(
                        error.contains("handler threads wait for calls of their own"),
                        "{error}"
                    );
                }
            });
        }
    });
    // Both directions have ended, so that 8 deep there is a thread for each.
    for side in [&host, &guest] {
        assert_eq!(side.call("down", "8").unwrap(), "8");
    }
}

/// Floods a handler that first waits, and calls the other way; nothing may be lost, and nothing
/// held past the window.
fn flood(way: Way, count: usize, size: usize) {
    const WINDOW: usize = 64 << 10;
    let mut options = Options::default();
    options.window = WINDOW;
    options.handlers = NonZeroUsize::new(4).unwrap();
    let seen: Arc<Vec<AtomicU8>> = Arc::new((0..count).map(|_| AtomicU8::new(0)).collect());
    let (gate, handled) = (Gate::default(), Arc::new(AtomicUsize::new(0)));
    let handler = {
        let (seen, gate, handled) = (Arc::clone(&seen), gate.clone(), Arc::clone(&handled));
        move |request: &mut Request| {
            gate.pass();
            let index = u64::from_le_bytes(request.buffer()[..8].try_into()?) as usize;
            seen[index].fetch_add(1, Ordering::SeqCst);
            if index.is_multiple_of(64) {
                request.connection().call("echo", "x")?;
            }
            handled.fetch_add(1, Ordering::SeqCst);
            Ok(Reply::empty())
        }
    };
    let (one, other) = loops();
    let (host, guest) = pair_on((&one, &other), &options, way, handler, echo);
    negotiate(&host, &guest);
    let most = WINDOW + 64 + "tick".len() + size.max(8);
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut body = vec![0; size.max(8)];
            for index in 0..count as u64 {
                body[..8].copy_from_slice(&index.to_le_bytes());
                guest.notify("tick", body.clone()).unwrap();
            }
        });
        scope.spawn(|| {
            while !done.load(Ordering::SeqCst) {
                let held = host.stats().held;
                assert!(held <= most, "{held} bytes are held, at most {most} may be");
                thread::yield_now();
            }
        });
        eventually("the window is full", || host.stats().held + 4 * (most - WINDOW) >= WINDOW);
        eventually("the sender has to wait", || {
            guest.request("x", "").nonblocking().begin().is_err()
        });
        gate.open();
        eventually("everything is handled", || handled.load(Ordering::SeqCst) >= count);
        done.store(true, Ordering::SeqCst);
    });
    assert!(seen.iter().all(|times| times.load(Ordering::SeqCst) == 1));
    assert_eq!((host.stats().unexpected, guest.stats().unexpected), (0, 0), "credits out of order");
}

fn small_one_ways_flood_a_slow_handler(way: Way) {
    flood(way, way.count(100_000), 8);
}

fn large_one_ways_flood_a_slow_handler(way: Way) {
    flood(way, way.count(2000), way.size(64 << 10));
}

fn handlers_of_both_sides_flood_each_other(way: Way) {
    let mut options = Options::default();
    options.window = 1000;
    options.handlers = NonZeroUsize::MIN;
    let count = way.count(2000);
    let handler = |taken: &Arc<AtomicUsize>| {
        let taken = Arc::clone(taken);
        move |request: &mut Request| {
            if request.command() == "flood" {
                for _ in 0..count {
                    request.connection().notify("tick", vec![0; 100])?;
                }
            } else {
                taken.fetch_add(1, Ordering::SeqCst);
            }
            Ok(Reply::empty())
        }
    };
    let taken = [Arc::default(), Arc::default()];
    let (one, other) = loops();
    let (host, guest) =
        pair_on((&one, &other), &options, way, handler(&taken[0]), handler(&taken[1]));
    negotiate(&host, &guest);
    // One-ways, so that no open call makes either side read on.
    host.notify("flood", "").unwrap();
    guest.notify("flood", "").unwrap();
    eventually("everything is taken", || {
        taken.iter().all(|taken| taken.load(Ordering::SeqCst) == count)
    });
}

/// A raw peer of a connection whose handler waits at a gate and counts.
fn gated(way: Way, options: &Options) -> (Connection, Raw, Gate, Arc<AtomicUsize>) {
    let (gate, handled) = (Gate::default(), Arc::new(AtomicUsize::new(0)));
    let (handler_gate, counter) = (gate.clone(), Arc::clone(&handled));
    let (connection, raw) =
        raw_on(&EventLoop::new().unwrap(), options, way, move |request: &mut Request| {
            handler_gate.pass();
            counter.fetch_add(1, Ordering::SeqCst);
            Ok(request.take_buffer().into())
        });
    (connection, raw, gate, handled)
}

/// A window so small that a flood passes it soon, and an overrun.
fn narrow(overrun: usize) -> Options {
    let mut options = Options::default();
    (options.window, options.overrun) = (8 << 10, overrun);
    options.handlers = NonZeroUsize::MIN;
    options
}

fn reading_pauses_while_no_call_is_open(way: Way) {
    const CHUNKS: usize = 1000;
    let (connection, raw, gate, handled) = gated(way, &narrow(usize::MAX));
    let Raw { input: _input, mut output } = raw;
    let flags = OFlag::from_bits_retain(fcntl(&output, FcntlArg::F_GETFL).unwrap());
    fcntl(&output, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK)).unwrap();
    let flood = bytes(0, Direction::OneWay, "tick", &[0; 1000]).repeat(CHUNKS);
    let mut written = 0;
    let mut write_until_full = |timeout: PollTimeout| {
        while written < flood.len() {
            match output.write(&flood[written..]) {
                Ok(count) => written += count,
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::WouldBlock);
                    if poll(&mut [PollFd::new(output.as_fd(), PollFlags::POLLOUT)], timeout)
                        .unwrap()
                        == 0
                    {
                        break;
                    }
                }
            }
        }
        written
    };
    // Far longer than any reader that still reads takes for the next page.
    let written = write_until_full(PollTimeout::from(500u16));
    assert!(written < CHUNKS * 1000, "everything was read");
    let held = connection.stats().held;
    // One read of 64 KiB may come on top.
    assert!((8 << 10..(8 << 10) + (70 << 10)).contains(&held), "{held}");
    gate.open();
    write_until_full(PollTimeout::from(20_000u16));
    eventually("everything is handled", || handled.load(Ordering::SeqCst) == CHUNKS);
    assert_eq!(connection.stats().held, 0);
}

fn one_ways_past_the_overrun_end_calls(way: Way) {
    const OVERRUN: usize = 64 << 10;
    // More than the overrun takes and one for each call below, which may come before the pause.
    let chunks = way.count(2000).max(500);
    let (connection, mut raw, gate, handled) = gated(way, &narrow(OVERRUN));
    let call = connection.request("never", "").begin().unwrap();
    assert_eq!(raw.input.next().unwrap().command, "never");
    let Raw { input, mut output } = raw;
    let writer = thread::spawn(move || {
        for _ in 0..chunks {
            output.write_all(&bytes(0, Direction::OneWay, "tick", &[0; 1000])).unwrap();
        }
        output
    });
    let error = call.wait().unwrap_err();
    assert!(
        matches!(error, CallError::Overrun { held, limit: OVERRUN, .. } if held > OVERRUN),
        "{error}"
    );
    // Calling again and again does not make it hold more and more.
    for _ in 0..200 {
        let error = connection.call("never", "").unwrap_err();
        assert!(matches!(error, CallError::Overrun { .. }), "{error}");
    }
    let held = connection.stats().held;
    assert!(held <= OVERRUN + (256 << 10), "{held}");
    gate.open();
    eventually("everything is handled", || handled.load(Ordering::SeqCst) == chunks);
    let mut raw = Raw { input, output: writer.join().unwrap() };
    let call = connection.request("again", "hello").begin().unwrap();
    while raw.input.next().unwrap().command != "again" {}
    raw.send(call.thread_id().as_u64(), Direction::Response, "again", b"goodbye");
    assert_eq!(call.wait().unwrap(), b"goodbye");
    assert_eq!(handled.load(Ordering::SeqCst), chunks);
}

fn requests_past_the_overrun_are_refused(way: Way) {
    const OVERRUN: usize = 32 << 10;
    let chunks = way.count(2000);
    let (connection, mut raw, gate, handled) = gated(way, &narrow(OVERRUN));
    let call = connection.request("one", "").begin().unwrap();
    assert_eq!(raw.input.next().unwrap().command, "one");
    let Raw { mut input, mut output } = raw;
    let writer = thread::spawn(move || {
        for id in 1..=chunks as u64 {
            output.write_all(&bytes(id, Direction::Request, "tick", &[7; 1000])).unwrap();
        }
        // The reply comes behind all of them, and is read.
        output.write_all(&bytes(1, Direction::Response, "one", b"")).unwrap();
        output
    });
    let (replied, has_replied) = mpsc::channel();
    let reader = thread::spawn(move || {
        let (mut refused, mut answered) = (0, 0);
        while refused + answered < chunks {
            let reply = input.next().unwrap();
            assert_eq!(reply.direction, Direction::Response);
            if reply.command == "cmd.error" {
                let message = String::from_utf8(reply.buffer).unwrap();
                assert!(
                    message.contains("not taken") && message.contains(&OVERRUN.to_string()),
                    "{message}"
                );
                refused += 1;
            } else {
                assert_eq!(reply.buffer, [7; 1000]);
                answered += 1;
            }
            replied.send(()).unwrap();
        }
        (refused, answered)
    });
    call.wait().unwrap();
    has_replied.recv_timeout(LONG).unwrap();
    let held = connection.stats().held;
    // One chunk may go past it.
    assert!(held < OVERRUN + 1100, "{held}");
    gate.open();
    let (refused, answered) = reader.join().unwrap();
    assert_eq!(handled.load(Ordering::SeqCst), answered);
    assert!(refused > 0 && answered > 0, "{refused} refused, {answered} answered");
    drop(writer.join().unwrap());
    assert!(matches!(*connection.wait_closed(LONG).unwrap(), CloseReason::EndOfFile));
}

fn who_floods_pings_and_never_reads_is_left(way: Way) {
    let mut options = Options::default();
    (options.outgoing, options.unread) = (1 << 10, 4 << 10);
    let (connection, raw) = raw_on(&EventLoop::new().unwrap(), &options, way, Refuse);
    let Raw { input: _input, mut output } = raw;
    let pings = bytes(1, Direction::Request, "cmd.ping", b"").repeat(1000);
    let error = loop {
        if let Err(error) = output.write_all(&pings) {
            break error;
        }
    };
    assert_eq!(error.kind(), ErrorKind::BrokenPipe);
    let reason = connection.wait_closed(LONG).unwrap();
    assert!(
        matches!(*reason, CloseReason::Unread { queued, limit: 4096 } if queued > 4096),
        "{reason}"
    );
}

fn a_ping_finds_out_about_a_peer_that_reads_no_more(way: Way) {
    let mut options = Options::default();
    options.outgoing = 1000;
    let (connection, _raw) = raw_on(&EventLoop::new().unwrap(), &options, way, Refuse);
    let mut pending = Vec::new();
    while let Ok(call) = connection.request("echo", vec![1; 500]).nonblocking().begin() {
        pending.push(call);
    }
    let timeout = Duration::from_millis(20);
    let error = connection.ping(timeout).unwrap_err();
    assert!(matches!(error, CallError::TimedOut { after, .. } if after == timeout), "{error}");
}

fn a_nonblocking_request_leaves_nothing_open(way: Way) {
    let mut options = Options::default();
    options.outgoing = 1000;
    let (connection, mut raw) = raw_on(&EventLoop::new().unwrap(), &options, way, Refuse);
    let mut pending = Vec::new();
    let error = loop {
        match connection.request("echo", vec![1; 500]).nonblocking().begin() {
            Ok(call) => pending.push(call),
            Err(error) => break error,
        }
        assert!(pending.len() < 10_000, "a pipe without a reader never fills");
    };
    assert!(matches!(error, CallError::WouldBlock { .. }), "{error}");
    assert_eq!(connection.stats().open_calls, pending.len());
    let count = pending.len();
    let last = pending.pop().unwrap();
    drop(pending);
    assert_eq!(connection.stats().open_calls, 1);
    for _ in 0..count {
        raw.answer();
    }
    assert_eq!(last.wait().unwrap(), [1; 500]);
    assert_eq!(connection.stats().late_replies, count as u64 - 1);
    // The thread that has written the last request may not have counted it as written yet.
    assert!(connection.wait_written(LONG));
    let call = connection.request("echo", "again").nonblocking().begin().unwrap();
    raw.answer();
    assert_eq!(call.wait().unwrap(), b"again");
    assert_eq!((connection.stats().open_calls, connection.stats().queued), (0, 0));
}

fn a_sender_that_waits_for_room_is_woken_by_the_end(way: Way) {
    for by_peer in [false, true] {
        let mut options = Options::default();
        options.outgoing = 1000;
        let (connection, raw) = raw_on(&EventLoop::new().unwrap(), &options, way, Refuse);
        drop(fill(&connection, 500));
        thread::scope(|scope| {
            let (start, started) = mpsc::channel();
            let waiting: Vec<_> = (0..4)
                .map(|_| {
                    let start = start.clone();
                    scope.spawn(|| {
                        start.send(()).unwrap();
                        drop(start);
                        connection.notify("x", vec![0; 500]).unwrap_err()
                    })
                })
                .collect();
            waiting.iter().for_each(|_| started.recv_timeout(LONG).unwrap());
            let input = if by_peer {
                // Its end of file alone, with the reading end still open.
                drop(raw.output);
                Some(raw.input)
            } else {
                connection.end("enough");
                None
            };
            for waiting in waiting {
                let NotifyError::Closed { reason, .. } = waiting.join().unwrap() else {
                    unreachable!()
                };
                let expected = if by_peer { "closed the pipe" } else { "enough" };
                assert!(reason.to_string().contains(expected), "{reason}");
            }
            drop(input);
        });
    }
}

/// As between a guest that floods from its start on and a host that has not seen its features yet.
#[test]
fn an_agreement_amid_a_flood_holds_from_then_on() {
    let _watchdog = common::watchdog();
    let count = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&count);
    let mut options = Options::default();
    options.window = 10_000;
    let (one, other) = loops();
    let (host, guest) = pair_on(
        (&one, &other),
        &options,
        Way::PLAIN,
        move |_: &mut Request| {
            counter.fetch_add(1, Ordering::SeqCst);
            Ok(Reply::empty())
        },
        Refuse,
    );
    thread::scope(|scope| {
        scope.spawn(|| (0..5000).for_each(|_| guest.notify("tick", vec![0; 100]).unwrap()));
        accept(&guest, &host);
        accept(&host, &guest);
    });
    eventually("everything is handled", || count.load(Ordering::SeqCst) == 5000);
    assert_eq!(guest.stats().unexpected, 0);
}
