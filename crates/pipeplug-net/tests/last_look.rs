//! Chunks that have come count, though the deadline has passed. Failures that the deadline caused
//! on the other side do not.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::future::Future as _;
use std::pin::Pin;
use std::sync::mpsc;
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::{Duration, Instant};

use common::{LONG, Raw, Way, negotiate, pair_on, raw_on, watchdog};
use pipeplug_net::wire::Direction;
use pipeplug_net::{
    CallError, Connection, EventLoop, Options, PendingCall, Refuse, Reply, Request,
};

const SHORT: Duration = Duration::from_millis(10);

/// Fails as soon as the request is not wanted any more.
fn fail_when_cancelled(
    request: &mut Request,
) -> Result<pipeplug_net::Reply, pipeplug_net::HandlerError> {
    let _ = request.cancellation().wait_timeout(LONG);
    Err("cancelled".into())
}

#[test]
fn a_call_whose_handler_fails_for_the_deadline_has_timed_out() {
    let _watchdog = watchdog();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    for way in [Way::PLAIN, Way::SHARED] {
        let (one, other) = (EventLoop::new().unwrap(), EventLoop::new().unwrap());
        let (host, guest) =
            pair_on((&one, &other), &Options::default(), way, Refuse, fail_when_cancelled);
        negotiate(&host, &guest);
        let begin = || host.request("slow", "").timeout(SHORT).begin().unwrap();
        for i in 0..100 {
            let result = if i % 4 == 0 { begin().wait() } else { runtime.block_on(begin()) };
            assert!(
                matches!(result, Err(CallError::TimedOut { after: SHORT, .. })),
                "{i}: {result:?}"
            );
        }
        assert!(guest.wait_idle(LONG) && guest.wait_written(LONG));
        host.ping(LONG).unwrap();
        let stats = host.stats();
        assert_eq!((stats.late_replies, stats.unknown_replies, stats.open_calls), (100, 0, 0));
    }
}

/// A connection that reads nothing for as long as the sender is there, as if its process was
/// stopped.
fn stopped() -> (Connection, Raw, mpsc::Sender<()>) {
    let events = EventLoop::new().unwrap();
    let (connection, raw) = raw_on(&events, &Options::default(), Way::PLAIN, Refuse);
    let (stop, stopped) = mpsc::channel::<()>();
    let (tell, told) = mpsc::channel();
    events.after(Duration::ZERO, move || {
        tell.send(()).unwrap();
        let _ = stopped.recv(); // until the sender is dropped
    });
    told.recv().unwrap();
    (connection, raw, stop)
}

/// Lets so much pass since then.
fn pass(begun: Instant, time: Duration) {
    while begun.elapsed() <= time {
        thread::yield_now();
    }
}

fn poll(call: &mut PendingCall) -> Poll<Result<Reply, CallError>> {
    Pin::new(call).poll(&mut Context::from_waker(Waker::noop()))
}

type Wait = fn(PendingCall) -> Result<Reply, CallError>;

/// How a call is waited for once its deadline has passed.
const WAITS: [Wait; 4] = [
    PendingCall::wait,
    |call| call.wait_chunk().map(|chunk| chunk.buffer.into()),
    |call| call.wait_timeout(LONG),
    |mut call| match poll(&mut call) {
        Poll::Ready(result) => result,
        Poll::Pending => panic!("its time is over, and another thread does not read"),
    },
];

fn know_contexts(connection: &Connection) {
    pipeplug_net::internal::handshake::accept(connection, |key| {
        (key == "pipeplug.features").then_some("context")
    });
}

#[test]
fn a_reply_that_lies_in_the_pipe_when_the_deadline_has_passed_is_taken() {
    let _watchdog = watchdog();
    for wait in WAITS {
        for is_told in [false, true] {
            let (connection, mut raw, stop) = stopped();
            if is_told {
                know_contexts(&connection);
            }
            let call = connection.request("x", "hello").timeout(SHORT).begin().unwrap();
            let begun = Instant::now();
            raw.send(call.thread_id().as_u64(), Direction::Response, "x", b"hello");
            // What a peer that knows the deadline answers a moment after it is not in time.
            pass(begun, if is_told { 2 * SHORT } else { SHORT });
            assert_eq!(wait(call).unwrap(), b"hello");
            drop(stop);
        }
    }
}

#[test]
fn an_error_that_lies_there_is_that_of_the_call_unless_the_deadline_may_be_its_cause() {
    let _watchdog = watchdog();
    for wait in WAITS {
        for is_told in [false, true] {
            let (connection, mut raw, stop) = stopped();
            if is_told {
                know_contexts(&connection);
            }
            let call = connection.request("x", "").timeout(SHORT).begin().unwrap();
            let begun = Instant::now();
            raw.send(call.thread_id().as_u64(), Direction::Response, "cmd.error", b"it failed");
            pass(begun, SHORT);
            match (is_told, wait(call)) {
                (false, Err(CallError::Remote { message, .. })) => assert_eq!(message, "it failed"),
                (true, Err(CallError::TimedOut { after: SHORT, .. })) => {}
                (_, result) => panic!("{is_told}: {result:?}"),
            }
            drop(stop);
        }
    }
}

#[test]
fn a_call_without_a_reply_is_given_up_at_once() {
    let _watchdog = watchdog();
    for wait in WAITS {
        let (connection, _raw, stop) = stopped();
        let call = connection.request("x", "").timeout(SHORT).begin().unwrap();
        pass(Instant::now(), SHORT);
        let result = wait(call);
        assert!(matches!(result, Err(CallError::TimedOut { after: SHORT, .. })), "{result:?}");
        drop(stop);
    }
}

#[test]
fn a_time_that_has_run_for_a_while_is_named_as_it_was_given() {
    let _watchdog = watchdog();
    let (connection, _raw, _stop) = stopped();
    let begun = Instant::now();
    pass(begun, SHORT / 2);
    for result in [
        connection
            .request("x", "")
            .timeout(2 * SHORT)
            .since(begun)
            .begin()
            .unwrap()
            .wait()
            .map(drop),
        connection.request("x", "").timeout(2 * SHORT).since(Instant::now()).wait_text().map(drop),
    ] {
        let error = result.unwrap_err();
        assert!(matches!(error, CallError::TimedOut { .. }), "{error}");
        assert_eq!(error.to_string(), "x: no reply within 20ms");
    }
    let error = connection.request("x", "").timeout(SHORT).since(begun).wait_text().unwrap_err();
    assert!(matches!(error, CallError::NotSent { .. }), "{error}");
}

/// Where another thread reads, who gives up waits for what that one is dealing with.
#[test]
fn a_reply_that_another_thread_is_about_to_read_is_taken() {
    let _watchdog = watchdog();
    let events = EventLoop::new().unwrap();
    let (connection, mut raw) = raw_on(&events, &Options::default(), Way::PLAIN, Refuse);
    let leader = {
        let connection = connection.clone();
        thread::spawn(move || connection.call("leads", ""))
    };
    let leads = raw.input.next().unwrap();
    for round in 0..50 {
        let call = connection.request("x", "").timeout(SHORT).begin().unwrap();
        let begun = Instant::now();
        assert_eq!(raw.input.next().unwrap().thread_id, call.thread_id());
        pass(begun, SHORT);
        raw.send(call.thread_id().as_u64(), Direction::Response, "x", b"late");
        let mut call = Some(call);
        let result = if round % 2 == 0 {
            call.take().unwrap().wait()
        } else {
            loop {
                if let Poll::Ready(result) = poll(call.as_mut().unwrap()) {
                    break result;
                }
                thread::yield_now();
            }
        };
        assert_eq!(result.unwrap(), b"late");
    }
    raw.send(leads.thread_id.as_u64(), Direction::Response, "leads", b"");
    leader.join().unwrap().unwrap();
}
