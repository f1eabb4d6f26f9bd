//! The end: a stop, a close and a broken pipe against calls and handlers.

use std::sync::{Arc, Mutex};

use pipeplug_wire::{Direction, command};

use super::{LONG, check, connect, options};
use crate::sync::thread;
use crate::{
    CallError, CloseReason, Connection, EventLoop, Handler, HandlerError, Options, Reading, Reply,
    Request,
};

/// Notes of a handler. No thread waits while it holds the lock, so the lock need not be the
/// model's.
#[derive(Clone, Default)]
struct Notes(Arc<Mutex<Vec<&'static str>>>);

impl Notes {
    fn note(&self, what: &'static str) {
        self.0.lock().unwrap().push(what);
    }

    fn count(&self, what: &'static str) -> usize {
        self.0.lock().unwrap().iter().filter(|note| **note == what).count()
    }

    fn slot(&self, what: &'static str) -> Option<usize> {
        self.0.lock().unwrap().iter().position(|note| *note == what)
    }
}

impl Handler for Notes {
    fn handle(&self, request: &mut Request) -> Result<Reply, HandlerError> {
        self.note("begins");
        let _ = request.connection().notify("from a handler", "");
        self.note("returns");
        Ok("done".into())
    }

    fn stop(&self, connection: &Connection) {
        self.note("stop");
        connection.close();
    }

    fn ended(&self, _: &Arc<CloseReason>) {
        self.note("ended");
    }

    fn closed(&self, _: &Arc<CloseReason>, _: Option<&Connection>) {
        self.note("closed");
    }
}

/// The other side asks to stop while it asks for something else and is called.
fn stopped(reading: Reading) {
    let events = EventLoop::with_handler_threads(4).unwrap();
    let notes = Notes::default();
    let (connection, mut peer) = connect(&events, Options { reading, ..options() }, notes.clone());
    drop(events);
    let peer = thread::spawn(move || {
        peer.send(Direction::Request, 7, "x", b"");
        peer.send(Direction::OneWay, 0, command::STOP, b"");
        let mut answers = 0;
        while let Some(chunk) = peer.receive() {
            match chunk.direction {
                Direction::Request => peer.echo(&chunk),
                Direction::Response => answers += 1,
                _ => {}
            }
        }
        answers
    });
    thread::scope(|scope| {
        scope.spawn(|| match connection.call_bytes("x", "y") {
            Ok(reply) => assert_eq!(reply, b"y"),
            Err(CallError::Closed { .. }) => {}
            Err(other) => panic!("{other}"),
        });
        scope.spawn(|| assert!(connection.wait_ended(LONG).is_some()));
    });
    assert!(connection.wait_closed(LONG).is_some());
    assert_eq!(connection.stats().open_calls, 0);
    // It stopped after the request was taken in, so that the answer went out, unless the writer was
    // closed by then.
    assert!(peer.join().unwrap() <= 1);
    for once in ["begins", "returns", "stop", "ended", "closed"] {
        assert_eq!(notes.count(once), 1, "{once}: {:?}", notes.0);
    }
    assert!(notes.slot("ended") < notes.slot("closed"));
    assert!(notes.slot("returns") < notes.slot("closed"));
}

#[test]
fn a_stop_ends_a_call_once_and_tells_the_end_behind_the_handlers() {
    check(|| stopped(Reading::Shared));
}

#[test]
fn a_stop_ends_a_call_once_where_a_reader_of_its_own_runs_the_handlers() {
    check(|| stopped(Reading::Dedicated));
}

#[test]
fn the_end_is_told_once_whoever_brings_it_about() {
    check(|| {
        let events = EventLoop::with_handler_threads(4).unwrap();
        let notes = Notes::default();
        let (connection, mut peer) = connect(&events, options(), notes.clone());
        drop(events);
        let peer = thread::spawn(move || {
            peer.send(Direction::Request, 7, "x", b"");
            drop(peer);
        });
        thread::scope(|scope| {
            scope.spawn(|| connection.end("over"));
            scope.spawn(|| connection.close());
            scope.spawn(|| drop(connection.notify("x", "y")));
            scope.spawn(|| assert!(connection.wait_closed(LONG).is_some()));
        });
        peer.join().unwrap();
        assert!(notes.count("begins") <= 1 && notes.count("begins") == notes.count("returns"));
        for once in ["ended", "closed"] {
            assert_eq!(notes.count(once), 1, "{once}: {:?}", notes.0);
        }
        assert!(notes.slot("ended") < notes.slot("closed"));
        assert!(notes.slot("returns") < notes.slot("closed"));
    });
}

#[test]
fn an_end_from_this_side_reaches_a_caller_that_reads() {
    check(|| {
        let events = EventLoop::with_handler_threads(2).unwrap();
        // It neither answers nor goes.
        let (connection, peer) = connect(&events, options(), Notes::default());
        drop(events);
        thread::scope(|scope| {
            scope.spawn(|| {
                let reply = connection.call_bytes("x", "y");
                assert!(matches!(reply, Err(CallError::Closed { .. })), "{reply:?}");
            });
            scope.spawn(|| connection.end("over"));
        });
        assert!(connection.wait_closed(LONG).is_some());
        drop(peer);
    });
}

#[test]
fn a_handler_that_waits_for_the_end_is_told_of_it() {
    check(|| {
        let events = EventLoop::with_handler_threads(3).unwrap();
        let handler = |request: &mut Request| {
            // What comes behind it, such as `closed`, waits for this to return.
            drop(request.connection().wait_ended(LONG));
            Ok(().into())
        };
        let (connection, mut peer) = connect(&events, options(), handler);
        drop(events);
        peer.send(Direction::Request, 7, "x", b"");
        drop(peer);
        assert!(connection.wait_closed(LONG).is_some());
    });
}

#[test]
fn a_connection_whose_last_handle_is_dropped_ends_with_its_threads() {
    check(|| {
        let events = EventLoop::with_handler_threads(2).unwrap();
        let notes = Notes::default();
        let (connection, mut peer) = connect(&events, options(), notes.clone());
        drop(events);
        let peer = thread::spawn(move || peer.echo_all());
        let other = connection.clone();
        thread::scope(|scope| {
            scope.spawn(move || drop(other.request("x", "y").begin()));
            scope.spawn(move || drop(connection));
        });
        peer.join().unwrap();
    });
}
