//! Requests that are no longer wanted, against handlers that wait for just that.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use pipeplug_wire::{Direction, command};

use super::calls::block_on;
use super::{LONG, check, connect, options};
use crate::sync::{StoppedClock, thread};
use crate::{EventLoop, Options, Reading, Request};

/// How a handler waits.
#[derive(Clone, Copy)]
enum Waits {
    Blocking,
    Polling,
}

/// The other side asks, and then says that it does not want to know, or goes.
fn cancelled(waits: Waits, reading: Reading, goes: bool) {
    let events = EventLoop::with_handler_threads(3).unwrap();
    let (begun, told) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let handler = {
        let (begun, told) = (Arc::clone(&begun), Arc::clone(&told));
        move |incoming: &mut Request| {
            begun.fetch_add(1, Ordering::SeqCst);
            let cancellation = incoming.cancellation();
            match waits {
                Waits::Blocking => assert!(cancellation.wait_timeout(LONG)),
                Waits::Polling => block_on(cancellation),
            }
            told.fetch_add(1, Ordering::SeqCst);
            Ok(().into())
        }
    };
    let (connection, mut peer) = connect(&events, Options { reading, ..options() }, handler);
    drop(events);
    // Only the side that cancels tells the handler.
    let stopped = StoppedClock::new();
    let peer = thread::spawn(move || {
        peer.send(Direction::Request, 7, "x", b"");
        if !goes {
            peer.send(Direction::OneWay, 7, command::CANCEL, b"");
            // It is answered all the same, or refused where no handler had begun.
            assert_eq!(peer.receive().unwrap().thread_id.as_u64(), 7);
        }
    });
    peer.join().unwrap();
    assert!(connection.wait_closed(LONG).is_some());
    drop(stopped);
    assert_eq!(told.load(Ordering::SeqCst), begun.load(Ordering::SeqCst));
    assert!(begun.load(Ordering::SeqCst) <= 1);
}

#[test]
fn a_cancel_reaches_a_handler_that_waits_for_it() {
    check(|| cancelled(Waits::Blocking, Reading::Shared, false));
}

#[test]
fn a_cancel_reaches_a_handler_that_awaits_it() {
    check(|| cancelled(Waits::Polling, Reading::Shared, false));
}

#[test]
fn the_end_reaches_a_handler_that_waits_to_be_cancelled() {
    check(|| cancelled(Waits::Blocking, Reading::Shared, true));
}

#[test]
fn the_end_reaches_a_handler_of_a_reader_of_its_own_that_awaits_to_be_cancelled() {
    check(|| cancelled(Waits::Polling, Reading::Dedicated, true));
}
