//! Calls and one-ways of tasks, which wait for room without a thread, and calls that another thread
//! gives up.

use nix::fcntl::{FcntlArg, fcntl};
use pipeplug_wire::Direction;

use super::calls::{block_on, block_on_any};
use super::{LONG, check, connect, options};
use crate::sync::thread;
use crate::{CallError, CancelHandle, EventLoop, Options, Reading, Refuse, Sent};

const TASKS: usize = 3;
const EACH: usize = 3;
/// Some more than the pipe holds go through it.
const SIZE: usize = 1500;

/// Tasks send more than there is room for; one of them gives a call up.
fn sent_by_tasks(gives_up: bool) {
    let events = EventLoop::with_handler_threads(2).unwrap();
    let (connection, mut peer) = connect(&events, Options { outgoing: 1, ..options() }, Refuse);
    drop(events);
    fcntl(peer.reader(), FcntlArg::F_SETPIPE_SZ(4096)).unwrap();
    let peer = thread::spawn(move || {
        let mut count = 0;
        while let Some(chunk) = peer.receive() {
            if chunk.direction == Direction::Request {
                peer.echo(&chunk);
            }
            count += 1;
        }
        count
    });
    thread::scope(|scope| {
        for _ in 0..TASKS {
            scope.spawn(|| {
                for number in 0..EACH {
                    let body = vec![u8::try_from(number).unwrap(); SIZE];
                    block_on(connection.notify_async("n", &body)).unwrap();
                    assert_eq!(
                        block_on(connection.request("c", &body).into_future()).unwrap(),
                        body
                    );
                }
            });
        }
        if gives_up {
            // Dropped while it waits for room, or for its reply, or never polled again.
            scope.spawn(|| {
                let body = vec![9; SIZE];
                let mut call = Box::pin(connection.request("given up", &body).into_future());
                let mut context = std::task::Context::from_waker(std::task::Waker::noop());
                let _ = call.as_mut().poll(&mut context);
            });
        }
    });
    assert_eq!(connection.stats().open_calls, 0);
    assert!(connection.wait_written(LONG));
    connection.close();
    let count = peer.join().unwrap();
    assert!(count >= 2 * TASKS * EACH, "{count} came");
    assert!(connection.wait_closed(LONG).is_some());
}

#[test]
fn tasks_that_wait_for_room_are_all_woken() {
    check(|| sent_by_tasks(false));
}

#[test]
fn a_task_that_gives_up_keeps_none_from_being_woken() {
    check(|| sent_by_tasks(true));
}

/// One thread waits for a reply, and reads for it, while another gives the call up.
fn given_up_by_a_handle(reading: Reading, answers: bool) {
    let events = EventLoop::with_handler_threads(2).unwrap();
    let (connection, mut peer) = connect(&events, Options { reading, ..options() }, Refuse);
    drop(events);
    let peer = thread::spawn(move || {
        while let Some(chunk) = peer.receive() {
            if answers && chunk.direction == Direction::Request {
                peer.echo(&chunk);
            }
        }
    });
    let call = connection.request("x", "1").begin().unwrap();
    let handle = call.cancel_handle();
    let cancels = thread::spawn(move || handle.cancel());
    match call.wait() {
        Err(CallError::Cancelled { .. }) => {}
        reply => {
            assert!(answers, "{reply:?}");
            assert_eq!(reply.unwrap(), "1");
        }
    }
    cancels.join().unwrap();
    assert_eq!(connection.stats().open_calls, 0);
    connection.close();
    peer.join().unwrap();
    assert!(connection.wait_closed(LONG).is_some());
}

#[test]
fn a_handle_wakes_the_caller_that_reads() {
    check(|| given_up_by_a_handle(Reading::Shared, false));
}

#[test]
fn a_handle_wakes_the_caller_that_sleeps() {
    check(|| given_up_by_a_handle(Reading::Dedicated, false));
}

#[test]
fn a_handle_and_a_reply_end_a_call_once() {
    check(|| given_up_by_a_handle(Reading::Shared, true));
}

/// A handle that was made before gives a call up: while it waits for the peer's format, or later.
fn given_up_before_it_is_sent_or_later(reading: Reading, is_awaited: bool) {
    let events = EventLoop::with_handler_threads(2).unwrap();
    let options = Options { reading, format: None, ..options() };
    let (connection, mut peer) = connect(&events, options, Refuse);
    drop(events);
    let peer = thread::spawn(move || {
        // It tells the format.
        peer.send(Direction::OneWay, 0, "hello", b"");
        let mut requests = 0;
        while let Some(chunk) = peer.receive() {
            if chunk.direction == Direction::Request {
                requests += 1;
                peer.echo(&chunk);
            }
        }
        requests
    });
    let handle = CancelHandle::new();
    let other = handle.clone();
    let cancels = thread::spawn(move || other.cancel());
    let request = connection.request("x", "1").cancel_by(&handle);
    let reply = if is_awaited { block_on_any(request.into_future()) } else { request.wait() };
    cancels.join().unwrap();
    assert_eq!(connection.stats().open_calls, 0);
    connection.close();
    let requests = peer.join().unwrap();
    match reply {
        Err(CallError::Cancelled { sent: Sent::No, .. }) => assert_eq!(requests, 0),
        Err(CallError::Cancelled { .. }) => assert_eq!(requests, 1),
        reply => assert_eq!((reply.unwrap().as_bytes(), requests), (&b"1"[..], 1)),
    }
    assert!(connection.wait_closed(LONG).is_some());
}

#[test]
fn a_handle_ends_a_call_of_a_thread_before_it_is_sent_or_later() {
    check(|| given_up_before_it_is_sent_or_later(Reading::Shared, false));
}

#[test]
fn a_handle_ends_a_call_of_a_task_before_it_is_sent_or_later() {
    check(|| given_up_before_it_is_sent_or_later(Reading::Dedicated, true));
}
