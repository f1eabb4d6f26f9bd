//! Bursts that are written together, handlers that run on the reader's thread, and what must not
//! wait for either.

mod common;

use std::collections::VecDeque;
use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use common::{Gate, LONG, Way, bytes, echo, eventually, pair, pair_on, raw, watchdog};
use pipeplug_net::wire::Direction;
use pipeplug_net::{CallError, EventLoop, HandlerError, Options, Reading, Refuse, Reply, Request};

/// One thread with thousands of calls open, which waits for the oldest: each reply is its own.
#[test]
fn one_thread_keeps_thousands_of_calls_in_flight() {
    let _watchdog = watchdog();
    for way in [Way::PLAIN, Way::SHARED, Way::SMALL_PIPES] {
        let (host, _guest) = pair_on(
            (&EventLoop::new().unwrap(), &EventLoop::new().unwrap()),
            &Options::default(),
            way,
            Refuse,
            echo,
        );
        let mut open = VecDeque::new();
        for i in 0..30_000_u32 {
            open.push_back((i, host.request("echo", i.to_le_bytes()).begin().unwrap()));
            if open.len() == 10_000 {
                let (i, call) = open.pop_front().unwrap();
                assert_eq!(call.wait().unwrap(), i.to_le_bytes());
            }
        }
        for (i, call) in open {
            assert_eq!(call.wait_timeout(LONG).unwrap(), i.to_le_bytes());
        }
    }
}

/// The next leader writes the burst that was left to it, even where its own call fails.
#[test]
fn a_call_that_cannot_be_sent_strands_nothing() {
    let _watchdog = watchdog();
    let (gate, taken) = (Gate::default(), Arc::new(AtomicUsize::new(0)));
    let mut options = Options::default();
    options.calls = 3;
    let (host, _guest) = pair(&options, Refuse, {
        let (gate, taken) = (gate.clone(), Arc::clone(&taken));
        move |request: &mut Request| {
            match request.command() {
                "hold" => gate.pass(),
                "tick" => drop(taken.fetch_add(1, Ordering::SeqCst)),
                _ => {}
            }
            Ok(Reply::empty())
        }
    });
    for round in 1..=20 {
        let held = host.request("hold", "").begin().unwrap();
        host.call("x", "").unwrap();
        (0..30).for_each(|_| host.notify("tick", "").unwrap());
        let more =
            [host.request("hold", "").begin().unwrap(), host.request("hold", "").begin().unwrap()];
        assert!(matches!(host.call("x", ""), Err(CallError::TooManyCalls { .. })));
        eventually("the one-ways arrive", || taken.load(Ordering::SeqCst) == 30 * round);
        drop((held, more));
    }
    gate.open();
}

/// An answer that waits for the end of its batch does not wait for a handler that takes long.
#[test]
fn an_answer_does_not_wait_for_a_slow_handler_behind_it() {
    let _watchdog = watchdog();
    for busy in [0, 600, 1500, 6000].map(Duration::from_micros) {
        let gate = Gate::default();
        let mut options = Options::default();
        options.reading = Reading::Dedicated;
        let (connection, mut raw) = raw(&options, {
            let gate = gate.clone();
            move |request: &mut Request| {
                match request.command() {
                    "busy" => thread::sleep(busy),
                    "hold" => gate.pass(),
                    _ => {}
                }
                Ok(Reply::empty())
            }
        });
        // So that the reader lends the lead.
        for _ in 0..200 {
            raw.output.write_all(&bytes(9, Direction::Request, "fast", &[])).unwrap();
            raw.input.next().unwrap();
        }
        let batch: Vec<u8> = [(1, "busy"), (3, "hold")]
            .iter()
            .flat_map(|(id, command)| bytes(*id, Direction::Request, command, &[]))
            .collect();
        raw.output.write_all(&batch).unwrap();
        // From some hundred microseconds on, the first tells that handlers are slow, so that the
        // loop watches the second.
        assert_eq!(raw.input.next().unwrap().thread_id.as_u64(), 1);
        // Neither does the thread that reads.
        raw.output.write_all(&bytes(4, Direction::Request, "cmd.ping", &[])).unwrap();
        assert_eq!(raw.input.next().unwrap().thread_id.as_u64(), 4);
        gate.open();
        assert_eq!(raw.input.next().unwrap().thread_id.as_u64(), 3);
        drop(connection);
    }
}

/// After many calls in quick succession no thread reads until the next call. Chunks that come in
/// place of that call are read all the same.
#[test]
fn what_comes_in_place_of_the_next_call_is_read() {
    let _watchdog = watchdog();
    let (host, guest) = pair(&Options::default(), echo, echo);
    for _ in 0..3 {
        (0..3000).for_each(|_| assert_eq!(host.call("echo", "x").unwrap(), "x"));
        let unasked = guest.request("echo", "unasked").begin().unwrap();
        assert_eq!(unasked.wait_timeout(LONG).unwrap(), b"unasked");
    }
    (0..3000).for_each(|_| assert_eq!(host.call("echo", "x").unwrap(), "x"));
    guest.close();
    assert!(host.wait_ended(LONG).is_some());
}

#[derive(Debug)]
struct Bad;

impl std::fmt::Display for Bad {
    fn fmt(&self, _: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        panic!("the message of an error panicked")
    }
}

impl std::error::Error for Bad {}

#[test]
fn an_error_that_panics_when_it_is_told_is_an_error_still() {
    let _watchdog = watchdog();
    for way in [Way::PLAIN, Way::SHARED] {
        let (host, guest) = pair_on(
            (&EventLoop::new().unwrap(), &EventLoop::new().unwrap()),
            &Options::default(),
            way,
            Refuse,
            |request: &mut Request| match request.command() {
                "bad" => Err::<Reply, HandlerError>(Box::new(Bad)),
                _ => Ok(Reply::empty()),
            },
        );
        (0..100).for_each(|_| drop(host.call("x", "").unwrap()));
        let error = host.request("bad", "").begin().unwrap().wait_timeout(LONG).unwrap_err();
        assert!(error.to_string().contains("the message of an error panicked"), "{error}");
        assert_eq!(host.call("x", "").unwrap(), "");
        assert!(guest.wait_idle(LONG));
        host.close();
        guest.close();
        assert!(guest.wait_closed(LONG).is_some());
    }
}
