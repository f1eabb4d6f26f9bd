//! Handlers: threads for them, those that call back, and a reader that runs them by itself.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use pipeplug_wire::{Direction, command};

use super::{LONG, check, connect, options};
use crate::sync::{StoppedClock, thread};
use crate::{EventLoop, Options, Reading, Request};

const REQUESTS: u64 = 3;

/// The other side asks, and answers what each handler calls back; how many requests were answered,
/// and how many refused.
fn nested(threads: usize, options: Options) -> (usize, usize) {
    let events = EventLoop::with_handler_threads(threads).unwrap();
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let handler = {
        let (now, most) = (Arc::clone(&now), Arc::clone(&most));
        move |incoming: &mut Request| {
            most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            let buffer = incoming.take_buffer();
            let back = incoming.connection().call_bytes("back", &buffer);
            now.fetch_sub(1, Ordering::SeqCst);
            let back = back?;
            // A panic would be an answer too.
            Ok(if back == buffer { back } else { b"another's reply".to_vec() }.into())
        }
    };
    let (connection, mut peer) = connect(&events, options, handler);
    drop(events);
    // Where there are threads, none of them needs the loop's tick.
    let stopped = (threads > REQUESTS as usize).then(StoppedClock::new);
    let mut answers = vec![0; REQUESTS as usize];
    let (mut answered, mut refused) = (0, 0);
    for id in 0..REQUESTS {
        peer.send(Direction::Request, id, "x", &[id as u8]);
    }
    while answered + refused < REQUESTS as usize {
        let chunk = peer.receive().expect("the connection ended before its answers");
        if chunk.direction == Direction::Request {
            peer.echo(&chunk);
            continue;
        }
        let id = chunk.thread_id.as_u64();
        answers[id as usize] += 1;
        if chunk.command == command::ERROR {
            assert!(chunk.buffer.starts_with(b"not taken: all"), "{}", chunk.buffer.escape_ascii());
            refused += 1;
        } else {
            assert_eq!(chunk.buffer, [id as u8]);
            answered += 1;
        }
    }
    assert!(answers.iter().all(|count| *count == 1), "{answers:?}");
    assert!(most.load(Ordering::SeqCst) <= threads + 1, "more threads than may be");
    drop((stopped, peer));
    assert!(connection.wait_closed(LONG).is_some());
    assert_eq!(connection.stats().open_calls, 0);
    (answered, refused)
}

#[test]
fn handlers_that_call_back_are_all_answered_where_there_are_threads() {
    check(|| assert_eq!(nested(REQUESTS as usize + 1, options()), (REQUESTS as usize, 0)));
}

#[test]
fn handlers_that_call_back_are_answered_or_refused_where_threads_are_few() {
    check(|| assert!(nested(2, options()).0 > 0));
}

#[test]
fn a_handler_that_waits_for_the_other_side_leaves_its_seat_to_the_next() {
    check(|| {
        let events = EventLoop::with_handler_threads(3).unwrap();
        let handler = |incoming: &mut Request| {
            if incoming.command() == "calls back" {
                return Ok(incoming.connection().call_bytes("back", b"")?.into());
            }
            Ok(().into())
        };
        let options = Options { handlers: NonZeroUsize::MIN, ..options() };
        let (connection, mut peer) = connect(&events, options, handler);
        drop(events);
        // Only a handler that waits gives its seat up.
        let stopped = StoppedClock::new();
        peer.send(Direction::Request, 0, "calls back", b"");
        peer.send(Direction::Request, 1, "returns", b"");
        let (mut back, mut returned) = (None, false);
        loop {
            let chunk = peer.receive().expect("the connection ended before its answers");
            match (chunk.direction, chunk.thread_id.as_u64()) {
                (Direction::Request, _) => back = Some(chunk),
                (_, 1) => returned = true,
                _ => break,
            }
            if returned && let Some(back) = back.take() {
                peer.echo(&back);
            }
        }
        drop((stopped, peer));
        assert!(connection.wait_closed(LONG).is_some());
    });
}

#[test]
fn a_reader_of_its_own_whose_handlers_call_back_leaves_no_reply_unread() {
    check(|| {
        let options = Options { reading: Reading::Dedicated, ..options() };
        assert_eq!(nested(REQUESTS as usize + 1, options), (REQUESTS as usize, 0));
    });
}

#[test]
fn a_request_that_comes_while_the_reader_is_in_a_handler_is_handled() {
    check(|| {
        let events = EventLoop::with_handler_threads(3).unwrap();
        let (enter, entered) = shuttle::sync::mpsc::channel::<()>();
        let entered = shuttle::sync::Mutex::new(entered);
        let handler = move |incoming: &mut Request| {
            match incoming.command() {
                // The loop does not see that the handler blocks here.
                "waits" => drop(entered.lock().unwrap().recv()),
                _ => drop(enter.send(())),
            }
            Ok(().into())
        };
        let (connection, mut peer) =
            connect(&events, Options { reading: Reading::Dedicated, ..options() }, handler);
        drop(events);
        let peer = thread::spawn(move || {
            peer.send(Direction::Request, 0, "waits", b"");
            peer.send(Direction::Request, 1, "ends it", b"");
            let ids =
                [peer.receive(), peer.receive()].map(|chunk| chunk.unwrap().thread_id.as_u64());
            assert_eq!(ids[0] + ids[1], 1, "{ids:?}");
        });
        peer.join().unwrap();
        assert!(connection.wait_closed(LONG).is_some());
    });
}
