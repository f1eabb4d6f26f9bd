//! Limits on a peer's share of this side: threads, answers to come, words.

mod common;

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::Duration;

use common::{LONG, Way, bytes, echo, eventually, raw, raw_on, watchdog};
use pipeplug_net::wire::Direction;
use pipeplug_net::{
    CloseReason, Connection, EventLoop, Handler, HandlerError, Options, Refuse, Reply, Request,
    Responder,
};

#[test]
fn requests_whose_answers_were_put_off_have_a_limit() {
    let _watchdog = watchdog();
    const LIMIT: usize = 100;
    let mut options = Options::default();
    options.deferred = LIMIT;
    options.handlers = NonZeroUsize::MIN;
    let put_off: Arc<Mutex<Vec<Responder>>> = Arc::default();
    let kept = Arc::clone(&put_off);
    let (connection, mut peer) = raw(&options, move |request: &mut Request| {
        kept.lock().unwrap().extend(request.responder());
        Ok(Reply::empty())
    });
    for id in 1..=LIMIT as u64 + 5 {
        peer.send(id, Direction::Request, "later", b"");
    }
    for id in 101..=105 {
        let refusal = peer.input.next().unwrap();
        assert_eq!((refusal.thread_id.as_u64(), refusal.command.as_str()), (id, "cmd.error"));
        let message = String::from_utf8(refusal.buffer).unwrap();
        assert_eq!(message, "not taken: 100 requests wait for their answers, the limit is 100");
    }
    // One-ways put nothing off.
    peer.one_way("tick", b"");
    let first = put_off.lock().unwrap().remove(0);
    first.answer("at last");
    assert_eq!(peer.input.next().unwrap().buffer, b"at last");
    peer.send(200, Direction::Request, "later", b"");
    eventually("there is room for one again", || put_off.lock().unwrap().len() == LIMIT);
    put_off.lock().unwrap().clear();
    assert!(connection.close_reason().is_none());
}

/// A peer takes threads: its handlers call it, and it does not answer.
#[test]
fn one_connection_leaves_threads_to_the_others() {
    let _watchdog = watchdog();
    let events = EventLoop::with_handler_threads(4).unwrap();
    let waiting = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&waiting);
    let (greedy, mut peer) =
        raw_on(&events, &Options::default(), Way::PLAIN, move |request: &mut Request| {
            counter.fetch_add(1, Ordering::SeqCst);
            Ok(request.connection().call_bytes("never answered", "")?.into())
        });
    for id in 1..=10 {
        peer.send(id, Direction::Request, "call me", b"");
    }
    let (mut calls, mut refused) = (0, 0);
    while calls + refused < 10 {
        let chunk = peer.input.next().unwrap();
        match chunk.direction {
            Direction::Request => calls += 1,
            _ => {
                let message = String::from_utf8(chunk.buffer).unwrap();
                assert_eq!(message, "not taken: all 3 handler threads wait for calls of their own");
                refused += 1;
            }
        }
    }
    assert_eq!((calls, refused), (3, 7));
    assert_eq!(waiting.load(Ordering::SeqCst), 3);
    let (_modest, mut other) = raw_on(&events, &Options::default(), Way::PLAIN, echo);
    other.send(1, Direction::Request, "echo", b"served");
    assert_eq!(other.input.next().unwrap().buffer, b"served");
    // Their calls end, and the threads serve on.
    greedy.end("enough");
    assert!(greedy.wait_closed(LONG).is_some());
}

#[test]
fn who_reads_no_answers_gets_no_further_handlers() {
    let _watchdog = watchdog();
    let mut options = Options::default();
    options.outgoing = 1000;
    options.handlers = NonZeroUsize::new(2).unwrap();
    let begun = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&begun);
    let (connection, mut peer) = raw(&options, move |_: &mut Request| {
        counter.fetch_add(1, Ordering::SeqCst);
        Ok(vec![0; 1 << 20].into())
    });
    for id in 1..=50 {
        peer.send(id, Direction::Request, "much", b"");
    }
    // One answer may lie in the pipe and one in the queue, while two wait for room.
    eventually("as many run as may", || begun.load(Ordering::SeqCst) >= 3);
    thread::sleep(Duration::from_millis(100));
    assert!(begun.load(Ordering::SeqCst) <= 4, "{begun:?}");
    for _ in 0..50 {
        assert_eq!(peer.input.next().unwrap().buffer.len(), 1 << 20);
    }
    assert!(connection.close_reason().is_none());
}

#[test]
fn a_stop_that_is_told_often_is_told_once() {
    #[derive(Default)]
    struct Stops(AtomicUsize);
    impl Handler for Stops {
        fn handle(&self, _: &mut Request) -> Result<Reply, HandlerError> {
            Ok(Reply::empty())
        }
        fn stop(&self, _: &Connection) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }
    let _watchdog = watchdog();
    let (connection, peer) = raw(&Options::default(), Stops::default());
    let common::Raw { input: _input, mut output } = peer;
    std::io::Write::write_all(
        &mut output,
        &bytes(0, Direction::OneWay, "cmd.stop", b"").repeat(10_000),
    )
    .unwrap();
    drop(output);
    assert!(matches!(*connection.wait_closed(LONG).unwrap(), CloseReason::EndOfFile));
    eventually("it was told", || {
        connection.handler::<Stops>().unwrap().0.load(Ordering::SeqCst) > 0
    });
    assert_eq!(connection.handler::<Stops>().unwrap().0.load(Ordering::SeqCst), 1);
}

#[test]
fn an_unknown_command_does_not_come_back_whole() {
    let _watchdog = watchdog();
    let (_connection, mut peer) = raw(&Options::default(), Refuse);
    for prefix in ["", "cmd."] {
        let command = format!("{prefix}{}", "\u{1}é".repeat(20_000));
        peer.send(1, Direction::Request, &command, b"");
        let refusal = String::from_utf8(peer.input.next().unwrap().buffer).unwrap();
        assert!(refusal.starts_with(&format!("unknown command \"{prefix}\\u{{1}}é")), "{refusal}");
        assert!(refusal.ends_with("…\"") && refusal.len() < 300, "{refusal}");
    }
}

/// Handlers take every thread there is, and what is not theirs to take goes on.
#[test]
fn what_is_no_handlers_business_has_threads_of_its_own() {
    let _watchdog = watchdog();
    let events = EventLoop::with_handler_threads(1).unwrap();
    let gate = common::Gate::default();
    let handler_gate = gate.clone();
    let (tell, told) = mpsc::channel();
    let (_busy, mut peer) =
        raw_on(&events, &Options::default(), Way::PLAIN, move |_: &mut Request| {
            tell.send(())?;
            handler_gate.pass();
            Ok(Reply::empty())
        });
    peer.send(1, Direction::Request, "block", b"");
    told.recv_timeout(LONG).unwrap();
    let (done, was_done) = mpsc::channel();
    for i in 0..3 {
        let done = done.clone();
        events.spawn(move || done.send(i).unwrap());
    }
    let mut all: Vec<_> = (0..3).map(|_| was_done.recv_timeout(LONG).unwrap()).collect();
    all.sort_unstable();
    assert_eq!(all, [0, 1, 2]);
    gate.open();
}
