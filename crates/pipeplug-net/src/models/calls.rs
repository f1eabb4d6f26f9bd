//! Calls: what ends them, and who reads for them.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use pipeplug_wire::Direction;
use shuttle::rand::Rng as _;

use super::{check, connect, options, sync};
use crate::sync::thread;
use crate::{CallError, Connection, EventLoop, Hold, Options, Refuse, Reply};

/// As many steps are spent on looking for a reply.
const SPIN: Duration = Duration::from_micros(50);

/// Nothing is left of the calls that were made, which have all ended.
fn assert_nothing_left(connection: &Connection) {
    assert_eq!(connection.stats().open_calls, 0, "a call is left in the table");
    assert_eq!(connection.shared().leader.sleepers(), 0, "a caller is still counted as waiting");
}

fn assert_echo_or_closed(result: Result<Reply, CallError>, sent: &[u8]) {
    match result {
        Ok(reply) => assert_eq!(reply, sent),
        Err(CallError::Closed { .. }) => {}
        Err(other) => panic!("{other}"),
    }
}

/// Unparks the thread that polls.
struct Unpark {
    thread: thread::Thread,
    count: AtomicUsize,
}

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.count.fetch_add(1, Ordering::SeqCst);
        self.thread.unpark();
    }
}

/// As an executor does: polls when woken, and only then.
pub(super) fn block_on<T>(future: impl Future<Output = T>) -> T {
    let unpark = Arc::new(Unpark { thread: thread::current(), count: AtomicUsize::new(0) });
    let waker = Waker::from(Arc::clone(&unpark));
    let mut future = pin!(future);
    for polls in 0.. {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => {
                while unpark.count.load(Ordering::SeqCst) <= polls {
                    thread::park();
                }
                assert_eq!(
                    unpark.count.load(Ordering::SeqCst),
                    polls + 1,
                    "woken twice for one poll"
                );
            }
        }
    }
    unreachable!("the polls end with the reply")
}

/// The same for what may wake its task more than once, such as a stream.
pub(super) fn block_on_any<T>(future: impl Future<Output = T>) -> T {
    let unpark = Arc::new(Unpark { thread: thread::current(), count: AtomicUsize::new(0) });
    let waker = Waker::from(Arc::clone(&unpark));
    let mut future = pin!(future);
    loop {
        let seen = unpark.count.load(Ordering::SeqCst);
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return output;
        }
        while unpark.count.load(Ordering::SeqCst) == seen {
            thread::park();
        }
    }
}

/// One call waits, one is awaited, one is given up, while the other side answers some of them and
/// closes, or this one ends.
fn replies_cancels_and_the_end(ends_here: bool) {
    let answers = shuttle::rand::thread_rng().gen_range(0..=3);
    let events = EventLoop::with_handler_threads(2).unwrap();
    let (connection, mut peer) = connect(&events, options(), Refuse);
    drop(events);
    thread::scope(|scope| {
        let connection = &connection;
        scope.spawn(|| assert_echo_or_closed(connection.request("waits", "1").wait(), b"1"));
        scope.spawn(|| {
            if let Ok(pending) = connection.request("awaited", "2").begin() {
                assert_echo_or_closed(block_on(pending), b"2");
            }
        });
        scope.spawn(|| drop(connection.request("given up", "3").begin()));
        if ends_here {
            scope.spawn(|| connection.end("over"));
        }
        scope.spawn(move || {
            for _ in 0..answers {
                let Some(request) = peer.receive() else { return };
                peer.echo(&request);
            }
            // Else its own end would do in place of the one from the other side.
            while ends_here && peer.receive().is_some() {}
        });
    });
    assert!(connection.wait_closed(super::LONG).is_some());
    assert_nothing_left(&connection);
    assert!(connection.stats().unknown_replies == 0);
}

#[test]
fn a_reply_a_cancel_and_the_peers_end_end_each_call_once() {
    check(|| replies_cancels_and_the_end(false));
}

#[test]
fn a_reply_a_cancel_and_an_end_from_this_side_end_each_call_once() {
    check(|| replies_cancels_and_the_end(true));
}

#[test]
fn a_reply_and_a_time_out_end_a_call_once_and_the_next_one_gets_its_own() {
    check(|| {
        let events = EventLoop::with_handler_threads(2).unwrap();
        let (connection, mut peer) = connect(&events, options(), Refuse);
        drop(events);
        let peer = thread::spawn(move || peer.echo_all());
        thread::scope(|scope| {
            for name in ["1", "2"] {
                let connection = &connection;
                scope.spawn(move || {
                    let timeout = Duration::from_micros(150);
                    match connection
                        .request("may be late", name)
                        .begin()
                        .unwrap()
                        .wait_timeout(timeout)
                    {
                        Ok(reply) => assert_eq!(reply, name.as_bytes()),
                        Err(CallError::TimedOut { .. }) => {}
                        Err(other) => panic!("{other}"),
                    }
                    assert_eq!(connection.call("next", name).unwrap(), name);
                });
            }
        });
        assert_nothing_left(&connection);
        drop(connection);
        peer.join().unwrap();
    });
}

/// `callers` threads, each with `each` calls open at a time, twice. The time stands still, so that
/// no tick of the loop helps out: each reply is read by who waits for it, or by one who was told
/// to.
fn callers(callers: usize, each: usize) {
    let events = EventLoop::with_handler_threads(2).unwrap();
    let (connection, mut peer) = connect(&events, options(), Refuse);
    drop(events);
    let peer = thread::spawn(move || peer.echo_all());
    let stopped = sync::StoppedClock::new();
    thread::scope(|scope| {
        for caller in 0..callers {
            let connection = &connection;
            scope.spawn(move || {
                for _ in 0..2 {
                    let texts: Vec<_> = (0..each).map(|call| format!("{caller}.{call}")).collect();
                    let mut pending = Vec::new();
                    for text in &texts[1..] {
                        pending.push(connection.request("x", text).begin().unwrap());
                    }
                    assert_eq!(connection.call("x", &texts[0]).unwrap(), texts[0]);
                    for (pending, text) in pending.into_iter().zip(&texts[1..]) {
                        assert_eq!(pending.wait().unwrap(), text.as_bytes());
                    }
                }
            });
        }
    });
    drop(stopped);
    assert_nothing_left(&connection);
    drop(connection);
    peer.join().unwrap();
}

#[test]
fn a_call_that_is_given_up_leaves_nothing_whether_it_was_polled_or_not() {
    check(|| {
        let events = EventLoop::with_handler_threads(2).unwrap();
        let (connection, mut peer) = connect(&events, options(), Refuse);
        drop(events);
        let peer = thread::spawn(move || {
            while let Some(request) = peer.receive() {
                if request.command == "answered" {
                    peer.echo(&request);
                }
            }
        });
        thread::scope(|scope| {
            scope.spawn(|| drop(connection.request("never", "").begin().unwrap()));
            scope.spawn(|| {
                let mut pending = connection.request("never", "").begin().unwrap();
                let mut context = Context::from_waker(Waker::noop());
                assert!(pin!(&mut pending).poll(&mut context).is_pending());
            });
            scope.spawn(|| assert_eq!(connection.call("answered", "x").unwrap(), "x"));
        });
        assert_nothing_left(&connection);
        drop(connection);
        peer.join().unwrap();
    });
}

#[test]
fn of_two_callers_neither_is_left_without_its_reply() {
    check(|| callers(2, 1));
}

#[test]
fn of_two_callers_with_several_calls_neither_is_left_without_a_reply() {
    check(|| callers(2, 2));
}

#[test]
fn callers_that_give_way_to_each_other_leave_no_reply_unread() {
    check(|| {
        let events = EventLoop::with_handler_threads(2).unwrap();
        let (connection, mut peer) = connect(&events, Options { spin: SPIN, ..options() }, Refuse);
        drop(events);
        let peer = thread::spawn(move || peer.echo_all());
        thread::scope(|scope| {
            for name in ["1", "2", "3"] {
                let connection = &connection;
                scope.spawn(move || {
                    for _ in 0..2 {
                        assert_eq!(connection.call("x", name).unwrap(), name);
                    }
                });
            }
        });
        assert_nothing_left(&connection);
        drop(connection);
        peer.join().unwrap();
    });
}

#[test]
fn an_awaited_call_is_woken_though_a_caller_reads() {
    check(|| {
        let events = EventLoop::with_handler_threads(2).unwrap();
        let (connection, mut peer) = connect(&events, options(), Refuse);
        drop(events);
        let peer = thread::spawn(move || peer.echo_all());
        let stopped = sync::StoppedClock::new();
        thread::scope(|scope| {
            scope.spawn(|| {
                for text in ["1", "2"] {
                    assert_eq!(
                        block_on(connection.request("x", text).begin().unwrap()).unwrap(),
                        text.as_bytes()
                    );
                }
            });
            scope.spawn(|| {
                let pending = connection.request("x", "3").begin().unwrap();
                assert_eq!(connection.call("x", "4").unwrap(), "4");
                assert_eq!(pending.wait().unwrap(), b"3");
            });
        });
        drop(stopped);
        assert_nothing_left(&connection);
        drop(connection);
        peer.join().unwrap();
    });
}

#[test]
fn a_reply_is_read_though_what_came_ahead_of_it_had_reading_pause() {
    check(|| {
        let events = EventLoop::with_handler_threads(2).unwrap();
        let handled = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&handled);
        let handler = move |_: &mut crate::Request| {
            count.fetch_add(1, Ordering::SeqCst);
            Ok(().into())
        };
        let options = Options { window: 1, hold: Hold::AllBut(Vec::new()), ..options() };
        let (connection, mut peer) = connect(&events, options, handler);
        drop(events);
        let peer = thread::spawn(move || {
            peer.send(Direction::OneWay, 0, "held", b"");
            while let Some(request) = peer.receive() {
                peer.echo(&request);
                // Sent with the reply, it is read for the call. Sent after the reply, it makes
                // reading pause before the next one.
                peer.send(Direction::OneWay, 0, "held", b"");
            }
        });
        let stopped = sync::StoppedClock::new();
        for text in ["1", "2", "3"] {
            assert_eq!(connection.call("x", text).unwrap(), text);
        }
        connection.release();
        drop(stopped);
        connection.close();
        peer.join().unwrap();
        assert!(connection.wait_closed(super::LONG).is_some());
        assert_eq!(handled.load(Ordering::SeqCst), 4);
        assert_nothing_left(&connection);
    });
}
