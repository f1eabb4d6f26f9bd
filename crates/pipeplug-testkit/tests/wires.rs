//! Faults of wires, and pairs over faulty wires.

use std::io::{ErrorKind, Read, Write};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use pipeplug_guest::{Guest, Main};
use pipeplug_net::wire::{Direction, Format};
use pipeplug_net::{CallError, EventLoop, HandlerError, Options, Refuse, Reply, Request};
use pipeplug_testkit::{
    Gate, LONG, ManualClock, Pair, PairError, Peer, Watchdog, Wire, chunk, eventually,
};

fn echo(request: &mut Request) -> Result<Reply, HandlerError> {
    Ok(request.take_buffer().into())
}

#[test]
fn bytes_go_through_unharmed_and_so_does_the_end() {
    let _watchdog = Watchdog::new(LONG);
    let sent: Vec<u8> = (0..1_000_000_u32).map(|i| (i % 251) as u8).collect();
    for (piece, capacity) in [(usize::MAX, None), (1000, NonZeroUsize::new(4096)), (7, None)] {
        let (mut sender, wire, mut receiver) = Wire::with(Default::default(), capacity).unwrap();
        wire.shorten(NonZeroUsize::new(piece).unwrap());
        let mut received = Vec::new();
        thread::scope(|scope| {
            scope.spawn(|| sender.write_all(&sent).map(|()| drop(sender)).unwrap());
            receiver.read_to_end(&mut received).unwrap();
        });
        assert!(received == sent);
        assert_eq!(wire.passed(), sent.len() as u64);
        eventually("it is over", || wire.is_over());
    }
}

#[test]
fn a_shortened_wire_hands_on_in_small_pieces() {
    let (mut sender, wire, mut receiver) = Wire::new().unwrap();
    wire.shorten(NonZeroUsize::new(3).unwrap());
    wire.cut_after(7);
    sender.write_all(b"0123456789").unwrap();
    // Of pieces of 3 the third is cut down to 1.
    let mut received = String::new();
    receiver.read_to_string(&mut received).unwrap();
    assert_eq!(received, "0123456");
    assert!(wire.wait_passed(7, LONG) && wire.passed() == 7);
}

#[test]
fn a_cut_shows_at_both_ends() {
    let (mut sender, wire, mut receiver) = Wire::new().unwrap();
    wire.cut();
    assert_eq!(receiver.read(&mut [0]).unwrap(), 0);
    eventually("it is over", || wire.is_over());
    assert_eq!(sender.write(b"x").unwrap_err().kind(), ErrorKind::BrokenPipe);
    assert!(!wire.wait_passed(1, LONG));
}

#[test]
fn a_receiver_that_is_gone_shows_at_the_sender_even_while_stalled() {
    let (mut sender, wire, receiver) = Wire::new().unwrap();
    wire.stall();
    drop(receiver);
    eventually("it is over", || wire.is_over());
    assert_eq!(sender.write(b"x").unwrap_err().kind(), ErrorKind::BrokenPipe);
}

#[test]
fn a_stalled_wire_hands_nothing_on_until_it_is_released() {
    let (mut sender, wire, mut receiver) = Wire::new().unwrap();
    wire.stall();
    sender.write_all(b"hello").unwrap();
    drop(sender);
    assert!(!wire.wait_passed(1, Duration::from_millis(30)) && !wire.is_over());
    wire.release();
    let mut received = String::new();
    receiver.read_to_string(&mut received).unwrap();
    assert_eq!(received, "hello");

    let (mut sender, wire, mut receiver) = Wire::new().unwrap();
    wire.stall();
    sender.write_all(b"a").unwrap();
    drop(wire);
    receiver.read_exact(&mut [0]).unwrap();
}

#[test]
fn delays_go_by_the_clock() {
    let manual = ManualClock::new();
    let (mut sender, wire, mut receiver) = Wire::with(manual.clock(), None).unwrap();
    wire.delay(Duration::from_secs(10));
    sender.write_all(b"late").unwrap();
    assert!(!wire.wait_passed(1, Duration::from_millis(30)));
    manual.advance(Duration::from_secs(9));
    assert!(!wire.wait_passed(1, Duration::from_millis(30)));
    manual.advance(Duration::from_secs(1));
    let mut received = [0; 4];
    receiver.read_exact(&mut received).unwrap();
    assert_eq!(&received, b"late");

    let (mut sender, wire, mut receiver) = Wire::new().unwrap();
    wire.delay(Duration::from_millis(20));
    let begun = std::time::Instant::now();
    sender.write_all(b"x").unwrap();
    receiver.read_exact(&mut [0]).unwrap();
    assert!(begun.elapsed() >= Duration::from_millis(20));
}

#[test]
fn a_call_ends_with_the_wire_it_is_on() {
    let _watchdog = Watchdog::new(LONG);
    let pair = Pair::new(Refuse, echo).unwrap();
    let whole = chunk(Format::Standard, 1, Direction::Response, "echo", b"hello").len() as u64;
    pair.to_host.cut_after(whole + 3);
    assert_eq!(pair.host.call("echo", "hello").unwrap(), "hello");
    let error = pair.host.call("echo", "hello").unwrap_err();
    assert!(matches!(error, CallError::Closed { .. }), "{error}");
    assert!(pair.guest.wait_ended(LONG).is_some() || pair.guest.notify("x", "").is_err());
}

#[test]
fn a_reader_that_is_slow_holds_the_other_side_up() {
    let _watchdog = Watchdog::new(LONG);
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    let setup = Pair::setup().pipe_capacity(NonZeroUsize::MIN);
    let pair = setup
        .connect(Refuse, move |request: &mut Request| {
            counted.fetch_add(1, Ordering::SeqCst);
            echo(request)
        })
        .unwrap();
    pair.to_guest.stall();
    let mut calls = Vec::new();
    while let Ok(call) = pair.host.request("echo", vec![7; 64 << 10]).nonblocking().begin() {
        calls.push(call);
        assert!(calls.len() < 10_000, "nothing holds it up");
    }
    assert_eq!(count.load(Ordering::SeqCst), 0);
    pair.to_guest.release();
    let len = calls.len();
    for call in calls {
        assert_eq!(call.wait().unwrap(), vec![7; 64 << 10]);
    }
    assert_eq!(count.load(Ordering::SeqCst), len);
}

#[test]
fn a_whole_plugin_is_registered() {
    let _watchdog = Watchdog::new(LONG);
    let started = Gate::default();
    let start = {
        let started = started.clone();
        move |main: &Main| {
            assert_eq!(main.call("double", "21")?, "42");
            started.open();
            Ok(())
        }
    };
    let host = |request: &mut Request| Ok((2 * request.text()?.parse::<u32>()?).to_string().into());
    let guest = Guest::new().name("kit").metadata("Help", "doubles").start(start).handler(
        |main: &Main, request: &mut Request| match request.command() {
            "args" => Ok(main.args()[0].to_string_lossy().into_owned().into()),
            _ => Ok(main.call("double", request.buffer())?.into()),
        },
    );
    let pair = Pair::setup().args(["--own"]).register(host, guest).unwrap();
    started.pass();
    assert_eq!(
        (pair.metadata["Help"].as_str(), pair.metadata["pipeplug.name"].as_str()),
        ("doubles", "kit")
    );
    assert_eq!(pair.host.call("args", "").unwrap(), "--own");
    assert_eq!(pair.host.call("twice", "4").unwrap(), "8");
    pair.to_guest.cut();
    assert_eq!(pair.guest.wait(), std::process::ExitCode::FAILURE);
}

#[test]
fn a_plugin_that_does_not_register_says_why() {
    let _watchdog = Watchdog::new(LONG);
    let fails = Guest::new().start(|_: &Main| Err("the database is locked".into()));
    let error = Pair::setup().register(Refuse, fails).unwrap_err();
    assert!(matches!(error, PairError::Register(_)), "{error}");
    assert!(error.to_string().contains("the database is locked"), "{error}");
    let bad = Guest::new().handler(|_: &Main, _: &mut Request| Ok("[]".into()));
    let error = Pair::setup().register(Refuse, bad).unwrap_err();
    assert!(matches!(error, PairError::BadMetadata { .. }), "{error}");
}

#[test]
fn a_scripted_peer_sends_and_expects() {
    let _watchdog = Watchdog::new(LONG);
    for format in [Format::Standard, Format::Classic] {
        let mut options = Options::default();
        options.format = Some(format);
        let events = EventLoop::new().unwrap();
        let (connection, mut peer) = Peer::connect(&events, options, echo).unwrap();
        for byte in chunk(format, 5, Direction::Request, "echo", b"hello") {
            peer.send_raw(&[byte]);
        }
        let reply = peer.expect(Direction::Response, "echo");
        assert_eq!((reply.thread_id.as_u64(), &*reply.buffer), (5, &b"hello"[..]));
        let call = connection.request("ask", "x").begin().unwrap();
        assert_eq!(call.thread_id().as_u64(), peer.answer());
        assert_eq!(call.wait().unwrap(), b"x");
        connection.close();
        peer.expect_end();
    }
}

#[test]
#[should_panic(expected = "expected request \"other\"")]
fn a_chunk_that_was_not_expected_fails_the_test() {
    let events = EventLoop::new().unwrap();
    let (connection, mut peer) = Peer::connect(&events, Options::default(), Refuse).unwrap();
    connection.notify("log", "").unwrap();
    peer.expect(Direction::Request, "other");
}
