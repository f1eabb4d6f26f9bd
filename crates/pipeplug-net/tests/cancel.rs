//! Calls that are given up: how the other side's handlers learn of it.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use common::{
    Gate, LONG, Raw, Way, eventually, fill, negotiate, pair, pair_on, raw, raw_on, watchdog,
};
use pipeplug_net::wire::Direction;
use pipeplug_net::{
    CallError, CancelHandle, Cancellation, Connection, EventLoop, Handler, Options, PendingCall,
    Reading, Refuse, Reply, Request, Responder, Retry, Sent,
};

const SHORT: Duration = Duration::from_millis(50);

fn ways() -> [Options; 2] {
    [Reading::Shared, Reading::Dedicated].map(|reading| {
        let mut options = Options::default();
        options.reading = reading;
        options
    })
}

fn await_it(cancellation: Cancellation) {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(cancellation);
}

/// Tells with which command, and whether in the way that it names, it was cancelled.
fn tells(tell: mpsc::Sender<(String, bool)>) -> impl Handler {
    move |request: &mut Request| {
        let cancellation = request.cancellation();
        let command = request.command().to_owned();
        tell.send((command.clone(), cancellation.is_cancelled()))?;
        match command.as_str() {
            "look" => {
                while !cancellation.is_cancelled() {
                    thread::sleep(Duration::from_micros(200));
                }
            }
            "wait" => assert!(cancellation.wait_timeout(LONG)),
            "await" => await_it(cancellation.clone()),
            "clone" => await_it(request.cancellation()),
            _ => return request.unknown(),
        }
        tell.send((command, cancellation.is_cancelled()))?;
        Ok(Reply::empty())
    }
}

#[test]
fn every_way_to_give_up_reaches_every_way_to_learn_of_it() {
    let _watchdog = watchdog();
    let give_up: [fn(PendingCall); 5] = [
        PendingCall::cancel,
        drop,
        |call| assert!(call.wait_timeout(Duration::ZERO).is_err()),
        |call| {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
            runtime.block_on(async { assert!(tokio::time::timeout(SHORT, call).await.is_err()) });
        },
        |call| {
            // On another thread than the one that began it.
            thread::spawn(|| call.cancel()).join().unwrap();
        },
    ];
    for way in [Way::PLAIN, Way::SHARED] {
        let (tell, told) = mpsc::channel();
        let (one, other) = (EventLoop::new().unwrap(), EventLoop::new().unwrap());
        let (host, guest) = pair_on((&one, &other), &Options::default(), way, Refuse, tells(tell));
        negotiate(&host, &guest);
        for command in ["look", "wait", "await", "clone"] {
            for give_up in give_up {
                let call = host.request(command, "").begin().unwrap();
                assert_eq!(told.recv_timeout(LONG).unwrap(), (command.into(), false));
                give_up(call);
                assert_eq!(told.recv_timeout(LONG).unwrap(), (command.into(), true));
            }
        }
        assert!(guest.wait_idle(LONG) && guest.wait_written(LONG));
        eventually("each was answered all the same", || host.stats().late_replies == 20);
        assert_eq!((host.stats().open_calls, host.stats().unknown_replies), (0, 0));
    }
}

#[test]
fn a_reply_that_was_taken_cancels_nothing() {
    let _watchdog = watchdog();
    let (connection, mut raw) = raw(&Options::default(), Refuse);
    pipeplug_net::internal::handshake::accept(&connection, |key| {
        (key == "pipeplug.features").then_some("cancel")
    });
    let call = connection.request("x", "").begin().unwrap();
    raw.answer();
    call.wait().unwrap();
    // Nor one that came and was never looked at: it is not outstanding.
    let call = connection.request("x", "").begin().unwrap();
    raw.answer();
    eventually("the reply is there", || connection.stats().open_calls == 0);
    call.cancel();
    connection.notify("last", "").unwrap();
    assert_eq!(raw.input.next().unwrap().command, "last");
}

#[test]
fn the_bytes_are_those_that_the_protocol_shows() {
    let _watchdog = watchdog();
    let (connection, mut raw) = raw(&Options::default(), Refuse);
    pipeplug_net::internal::handshake::accept(&connection, |key| {
        (key == "pipeplug.features").then_some("context cancel")
    });
    let call = connection.request("x", "").begin().unwrap();
    let id = call.thread_id();
    call.cancel();
    assert_eq!(raw.input.next().unwrap().command, "x");
    let cancel = raw.input.next().unwrap();
    assert_eq!((cancel.direction, cancel.command.as_str()), (Direction::OneWay, "cmd.cancel"));
    assert_eq!((cancel.thread_id, &*cancel.buffer), (id, &b""[..]));
}

#[test]
fn who_asks_late_learns_of_it_all_the_same() {
    let _watchdog = watchdog();
    for options in ways() {
        let (gate, (tell, told)) = (Gate::default(), mpsc::channel());
        let handler_gate = gate.clone();
        let (connection, mut raw) = raw(&options, move |request: &mut Request| {
            tell.send(false)?;
            handler_gate.pass();
            tell.send(request.cancellation().is_cancelled())?;
            Ok(Reply::empty())
        });
        raw.send(5, Direction::Request, "x", b"");
        assert!(!told.recv_timeout(LONG).unwrap());
        raw.send(5, Direction::OneWay, "cmd.cancel", b"");
        raw.send(9, Direction::Request, "cmd.ping", b"");
        assert_eq!(raw.input.next().unwrap().command, "cmd.ping");
        gate.open();
        assert!(told.recv_timeout(LONG).unwrap());
        assert_eq!(raw.input.next().unwrap().thread_id.as_u64(), 5);
        assert_eq!(connection.stats().unexpected, 0);
    }
}

#[test]
fn cancels_of_what_is_not_being_handled_do_nothing() {
    let _watchdog = watchdog();
    for options in ways() {
        let (tell, told) = mpsc::channel();
        let (connection, mut raw) = raw(&options, move |request: &mut Request| {
            let cancellation = request.cancellation();
            tell.send((request.chunk().thread_id.as_u64(), cancellation.wait_timeout(SHORT)))?;
            Ok(Reply::empty())
        });
        // Never asked, and the largest there is.
        raw.send(5, Direction::OneWay, "cmd.cancel", b"");
        raw.send(u64::MAX, Direction::OneWay, "cmd.cancel", b"5");
        raw.send(5, Direction::Request, "x", b"");
        assert_eq!(told.recv_timeout(LONG).unwrap(), (5, false));
        assert_eq!(raw.input.next().unwrap().command, "x");
        // Answered: the cancel and the reply have crossed.
        raw.send(5, Direction::OneWay, "cmd.cancel", b"");
        raw.send(6, Direction::Request, "x", b"");
        raw.send(4, Direction::OneWay, "cmd.cancel", b"");
        assert_eq!(told.recv_timeout(LONG).unwrap(), (6, false));
        assert_eq!(raw.input.next().unwrap().thread_id.as_u64(), 6);
        // A one-way has no id to be cancelled by.
        raw.send(7, Direction::OneWay, "x", b"");
        raw.send(7, Direction::OneWay, "cmd.cancel", b"");
        assert_eq!(told.recv_timeout(LONG).unwrap(), (7, false));
        // As a request it is no command.
        raw.send(8, Direction::Request, "cmd.cancel", b"");
        assert_eq!(raw.input.next().unwrap().command, "cmd.error");
        assert_eq!(connection.stats().unexpected, 0);
    }
}

#[test]
fn one_of_many_that_run_is_cancelled_and_no_other() {
    let _watchdog = watchdog();
    for options in ways() {
        let (tell, told) = mpsc::channel();
        let (_connection, mut raw) = raw(&options, move |request: &mut Request| {
            let id = request.chunk().thread_id.as_u64();
            tell.send((id, false))?;
            if request.cancellation().wait_timeout(LONG) {
                tell.send((id, true))?;
            }
            Ok(Reply::empty())
        });
        for id in 1..=8 {
            raw.send(id, Direction::Request, "x", b"");
        }
        let mut begun: Vec<_> = (0..8).map(|_| told.recv_timeout(LONG).unwrap()).collect();
        begun.sort_unstable();
        assert_eq!(begun, (1..=8).map(|id| (id, false)).collect::<Vec<_>>());
        for id in [3, 8, 1, 5, 2, 7, 6, 4] {
            raw.send(id, Direction::OneWay, "cmd.cancel", b"");
            assert_eq!(told.recv_timeout(LONG).unwrap(), (id, true));
            assert_eq!(raw.input.next().unwrap().thread_id.as_u64(), id);
        }
    }
}

#[test]
fn what_is_answered_later_can_be_cancelled_until_it_is() {
    let _watchdog = watchdog();
    for options in ways() {
        let (tell, told) = mpsc::channel::<(Responder, Cancellation)>();
        let (_connection, mut raw) = raw(&options, move |request: &mut Request| {
            let early = request.cancellation();
            let responder = request.responder().ok_or("a one-way")?;
            assert!(!request.cancellation().is_cancelled());
            tell.send((responder, early))?;
            Ok(Reply::empty())
        });
        for asks in [false, true] {
            // One after the other: two handlers at once may come in any order.
            raw.send(5, Direction::Request, "x", b"");
            let (five, early) = told.recv_timeout(LONG).unwrap();
            raw.send(6, Direction::Request, "x", b"");
            let (six, _) = told.recv_timeout(LONG).unwrap();
            let waiting = asks.then(|| {
                thread::spawn({
                    let cancellation = five.cancellation();
                    move || cancellation.wait_timeout(LONG)
                })
            });
            raw.send(5, Direction::OneWay, "cmd.cancel", b"");
            assert!(early.wait_timeout(LONG));
            assert!(five.cancellation().is_cancelled());
            assert!(waiting.is_none_or(|thread| thread.join().unwrap()));
            assert!(!six.cancellation().is_cancelled());
            five.answer("late");
            assert_eq!(raw.input.next().unwrap().buffer, b"late");
            // It is answered, and what has the same number now is another one.
            raw.send(5, Direction::OneWay, "cmd.cancel", b"");
            raw.send(5, Direction::Request, "x", b"");
            let (again, _) = told.recv_timeout(LONG).unwrap();
            assert!(!again.cancellation().is_cancelled());
            drop((six, again));
            assert_eq!(raw.input.next().unwrap().command, "cmd.error");
            assert_eq!(raw.input.next().unwrap().command, "cmd.error");
        }
    }
}

#[test]
fn the_end_of_the_connection_cancels_everything() {
    let _watchdog = watchdog();
    for options in ways() {
        let (gate, (tell, told)) = (Gate::default(), mpsc::channel());
        let handler_gate = gate.clone();
        let (connection, mut raw) = raw(&options, move |request: &mut Request| {
            let cancellation = request.cancellation();
            tell.send(cancellation.is_cancelled())?;
            match request.command() {
                "await" => await_it(cancellation.clone()),
                "late" => {
                    handler_gate.pass();
                    // The connection counts as ended before the last handler has been told.
                    let _ = cancellation.wait_timeout(LONG);
                }
                _ => drop(cancellation.wait_timeout(LONG)),
            }
            tell.send(cancellation.is_cancelled() && request.cancellation().is_cancelled())?;
            Ok(Reply::empty())
        });
        raw.send(1, Direction::Request, "wait", b"");
        raw.send(2, Direction::Request, "await", b"");
        raw.send(0, Direction::OneWay, "wait", b"");
        raw.send(3, Direction::Request, "late", b"");
        (0..4).for_each(|_| assert!(!told.recv_timeout(LONG).unwrap()));
        drop(raw);
        (0..3).for_each(|_| assert!(told.recv_timeout(LONG).unwrap()));
        assert!(connection.wait_ended(LONG).is_some());
        gate.open();
        assert!(told.recv_timeout(LONG).unwrap());
        assert!(connection.wait_closed(LONG).is_some());
    }
}

#[test]
fn a_deadline_that_passes_cancels_without_a_word_from_the_caller() {
    let _watchdog = watchdog();
    for options in ways() {
        let (tell, told) = mpsc::channel();
        let (_connection, mut raw) = raw(&options, tells(tell));
        for command in ["look", "wait", "await", "clone"] {
            let begun = Instant::now();
            raw.send(5, Direction::OneWay, "cmd.context", b"{\"deadline_ms\":50}");
            raw.send(5, Direction::Request, command, b"");
            assert_eq!(told.recv_timeout(LONG).unwrap(), (command.into(), false));
            assert_eq!(told.recv_timeout(LONG).unwrap(), (command.into(), true));
            assert!((SHORT..LONG / 2).contains(&begun.elapsed()));
            raw.input.next().unwrap();
        }
    }
}

/// A connection whose one handler waits for the gate, and which says what it handles.
fn one_at_a_time(mut options: Options) -> (Connection, Raw, Gate, mpsc::Receiver<u64>) {
    options.handlers = NonZeroUsize::MIN;
    let (gate, (tell, told)) = (Gate::default(), mpsc::channel());
    let handler_gate = gate.clone();
    let (connection, raw) = raw(&options, move |request: &mut Request| {
        tell.send(request.chunk().thread_id.as_u64())?;
        handler_gate.pass();
        Ok(Reply::empty())
    });
    (connection, raw, gate, told)
}

#[test]
fn a_request_that_is_cancelled_while_it_waits_is_answered_and_never_handled() {
    let _watchdog = watchdog();
    for options in ways() {
        let (connection, mut raw, gate, told) = one_at_a_time(options);
        raw.send(1, Direction::Request, "x", b"");
        assert_eq!(told.recv_timeout(LONG).unwrap(), 1);
        raw.send(2, Direction::Request, "x", &[0; 1000]);
        raw.send(3, Direction::OneWay, "x", b"");
        raw.send(2, Direction::OneWay, "cmd.cancel", b"");
        // While the first one still runs.
        let reply = raw.input.next().unwrap();
        assert_eq!((reply.thread_id.as_u64(), reply.command.as_str()), (2, "cmd.error"));
        assert_eq!(reply.buffer, b"not handled: the request was cancelled");
        assert_eq!(connection.stats().held, 64 + 1, "the one-way");
        gate.open();
        assert_eq!(raw.input.next().unwrap().thread_id.as_u64(), 1);
        assert_eq!(told.recv_timeout(LONG).unwrap(), 3);
        assert!(connection.wait_idle(LONG));
        assert!(told.try_recv().is_err());
    }
}

#[test]
fn many_that_wait_are_cancelled_and_the_accounts_of_flow_control_are_right() {
    let _watchdog = watchdog();
    const COUNT: u64 = 400;
    for mut options in ways() {
        options.window = 64; // so that each is reported
        let (connection, mut raw, gate, told) = one_at_a_time(options);
        pipeplug_net::internal::handshake::accept(&connection, |key| match key {
            "pipeplug.features" => Some("flow cancel context"),
            "pipeplug.window" => Some("1000000"),
            _ => None,
        });
        // So that it reads on past the window, which this peer does not heed.
        let _open = connection.request("open", "").begin().unwrap();
        raw.expect(Direction::Request, "open");
        raw.send(1, Direction::Request, "x", b"");
        assert_eq!(told.recv_timeout(LONG).unwrap(), 1);
        for id in 2..=COUNT {
            raw.send(id, Direction::Request, "x", b"");
        }
        let is_cancelled = |id: u64| id.is_multiple_of(3) || id > COUNT - 20;
        // In no order, some of them twice, and others that there are not.
        for id in (2..=COUNT).rev().filter(|id| is_cancelled(*id)) {
            raw.send(id, Direction::OneWay, "cmd.cancel", b"");
            raw.send(id + 10 * COUNT, Direction::OneWay, "cmd.cancel", b"");
            raw.send(id - id % 7, Direction::OneWay, "cmd.cancel", b"");
        }
        let is_cancelled = |id: u64| {
            is_cancelled(id)
                || (2..=COUNT).any(|other| is_cancelled(other) && other - other % 7 == id)
        };
        raw.send(1_000_000, Direction::Request, "cmd.ping", b"");
        let mut answers = vec![0; COUNT as usize + 1];
        let mut credited = 0;
        let mut is_open = false;
        while answers[1..].iter().sum::<i32>() < COUNT as i32 || credited < COUNT * 65 {
            let chunk = raw.input.next().unwrap();
            let id = chunk.thread_id.as_u64();
            match (chunk.direction, chunk.command.as_str()) {
                (Direction::Response, "cmd.ping") => {
                    is_open = true;
                    gate.open();
                }
                (Direction::Response, command) => {
                    answers[id as usize] += 1;
                    assert_eq!(
                        command == "cmd.error",
                        is_cancelled(id) && id != 1,
                        "{id}: {command}"
                    );
                }
                (_, "cmd.credit") => {
                    let total = std::str::from_utf8(&chunk.buffer).unwrap().parse().unwrap();
                    assert!(total > credited);
                    credited = total;
                }
                _ => panic!("{chunk:?}"),
            }
        }
        assert!(is_open);
        assert_eq!(credited, COUNT * 65);
        assert!(answers[1..].iter().all(|count| *count == 1), "{answers:?}");
        let handled: Vec<_> = told.try_iter().collect();
        assert_eq!(handled, (2..=COUNT).filter(|id| !is_cancelled(*id)).collect::<Vec<_>>());
        assert!(connection.wait_idle(LONG));
        assert_eq!((connection.stats().held, connection.stats().unexpected), (0, 0));
    }
}

#[test]
fn what_is_held_back_can_be_cancelled_and_leaves_the_connection_idle() {
    let _watchdog = watchdog();
    let mut options = Options::default();
    options.hold = pipeplug_net::Hold::AllBut(Vec::new());
    let (connection, mut raw) = raw(&options, Refuse);
    raw.send(1, Direction::Request, "x", b"");
    eventually("it waits", || connection.stats().held > 0);
    let waiting = {
        let connection = connection.clone();
        thread::spawn(move || connection.wait_idle(LONG))
    };
    thread::sleep(Duration::from_millis(10));
    raw.send(1, Direction::OneWay, "cmd.cancel", b"");
    assert_eq!(raw.input.next().unwrap().command, "cmd.error");
    assert!(waiting.join().unwrap());
}

#[test]
fn a_handler_that_waits_for_its_cancel_lets_others_run() {
    let _watchdog = watchdog();
    let mut options = Options::default();
    options.handlers = NonZeroUsize::MIN;
    let (host, guest) = pair(&options, Refuse, |request: &mut Request| match request.command() {
        "wait" => Ok(request.cancellation().wait_timeout(LONG).to_string().into()),
        _ => Ok("at once".into()),
    });
    negotiate(&host, &guest);
    let waits: Vec<_> = (0..4).map(|_| host.request("wait", "").begin().unwrap()).collect();
    assert_eq!(host.call("quick", "").unwrap(), "at once");
    drop(waits);
    assert!(guest.wait_idle(LONG / 2));
}

#[test]
fn what_is_given_up_by_both_sides_at_once_is_answered_once() {
    let _watchdog = watchdog();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let handler_seen = Arc::clone(&seen);
    let (host, guest) = pair(&Options::default(), Refuse, move |request: &mut Request| {
        let id = request.chunk().thread_id.as_u64();
        let responder = request.responder().ok_or("a one-way")?;
        let cancellation = responder.cancellation();
        if id.is_multiple_of(2) {
            responder.answer(id.to_string());
        } else {
            let seen = Arc::clone(&handler_seen);
            thread::spawn(move || {
                let _ = cancellation.wait_timeout(Duration::from_micros(id % 200));
                seen.lock().unwrap().push(id);
                responder.answer(id.to_string());
            });
        }
        Ok(Reply::empty())
    });
    negotiate(&host, &guest);
    for i in 0..500 {
        let call = host.request("x", "").begin().unwrap();
        let id = call.thread_id().as_u64();
        match call.wait_timeout(Duration::from_micros(i % 150)) {
            Ok(reply) => assert_eq!(reply, id.to_string().as_bytes()),
            Err(error) => {
                assert!(matches!(error, pipeplug_net::CallError::TimedOut { .. }), "{error}")
            }
        }
    }
    assert!(guest.wait_idle(LONG) && guest.wait_written(LONG));
    assert_eq!(host.ping(LONG).map(|_| ()).ok(), Some(()));
    assert_eq!((host.stats().open_calls, host.stats().unknown_replies), (0, 0));
    let mut seen = seen.lock().unwrap();
    let count = seen.len();
    seen.dedup();
    assert_eq!(seen.len(), count);
}

/// A sleep that ends early is no reason to be refused, as a plain one is none.
#[test]
fn requests_wait_for_handlers_that_wait_for_their_time() {
    let _watchdog = watchdog();
    let events = EventLoop::with_handler_threads(4).unwrap();
    let (_connection, mut peer) =
        raw_on(&events, &Options::default(), Way::PLAIN, |request: &mut Request| {
            Ok(request.cancellation().wait_timeout(Duration::from_millis(50)).to_string().into())
        });
    for id in 1..=10 {
        peer.send(id, Direction::Request, "wait", b"");
    }
    for _ in 1..=10 {
        let answer = peer.input.next().unwrap();
        assert_eq!((answer.command.as_str(), answer.buffer), ("wait", b"false".to_vec()));
    }
}

#[test]
fn a_handle_gives_a_call_up_that_a_thread_or_task_waits_for() {
    let _watchdog = watchdog();
    for reading in [Reading::Shared, Reading::Dedicated] {
        let mut options = Options::default();
        options.reading = reading;
        let (tell, told) = mpsc::channel();
        let (host, guest) = pair(&options, Refuse, tells(tell));
        negotiate(&host, &guest);
        // The thread that waits alone reads; of several the others sleep.
        for others in [0, 3] {
            thread::scope(|scope| {
                let begin = || host.request("wait", "").begin().unwrap();
                let calls: Vec<_> = (0..=others).map(|_| begin()).collect();
                let handles: Vec<_> = calls.iter().map(PendingCall::cancel_handle).collect();
                let waiting: Vec<_> =
                    calls.into_iter().map(|call| scope.spawn(|| call.wait())).collect();
                thread::sleep(SHORT);
                for (handle, waiting) in handles.iter().zip(waiting) {
                    handle.clone().cancel();
                    let error = waiting.join().unwrap().unwrap_err();
                    assert!(matches!(error, CallError::Cancelled { .. }), "{error}");
                    handle.cancel();
                }
            });
        }
        // Each handler tells twice.
        let seen: Vec<_> = (0..10).map(|_| told.recv_timeout(LONG).unwrap().1).collect();
        assert_eq!(seen.iter().filter(|is_cancelled| **is_cancelled).count(), 5);
        let call = host.request("wait", "").begin().unwrap();
        let handle = call.cancel_handle();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let error = runtime.block_on(async {
            let task = tokio::spawn(call);
            tokio::time::sleep(SHORT).await;
            handle.cancel();
            task.await.unwrap().unwrap_err()
        });
        assert_eq!(error.to_string(), "wait: cancelled by this side");
        assert_eq!(host.stats().open_calls, 0);
    }
}

#[test]
fn a_handle_of_a_call_that_has_ended_does_nothing() {
    let _watchdog = watchdog();
    let (host, _guest) = pair(&Options::default(), Refuse, common::echo);
    let call = host.request("echo", "x").begin().unwrap();
    let handle = call.cancel_handle();
    assert_eq!(call.wait().unwrap(), "x");
    handle.cancel();
    let call = host.request("echo", "y").begin().unwrap();
    let other = call.cancel_handle();
    handle.cancel();
    assert_eq!(call.wait().unwrap(), "y");
    drop(host);
    other.cancel();
}

/// Threads that make the call with a handle, and a task that does.
fn made_with(connection: &Connection, handle: &CancelHandle, threads: usize) -> Vec<CallError> {
    thread::scope(|scope| {
        let call = || connection.request("never", "").cancel_by(handle);
        let threads: Vec<_> =
            (0..threads).map(|_| scope.spawn(move || call().wait().unwrap_err())).collect();
        let task = scope.spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(call().into_future()).unwrap_err()
        });
        thread::sleep(SHORT);
        handle.cancel();
        threads.into_iter().chain([task]).map(|call| call.join().unwrap()).collect()
    })
}

#[test]
fn a_handle_gives_calls_up_that_wait_to_be_sent() {
    let _watchdog = watchdog();
    let mut options = Options::default();
    options.outgoing = 1 << 16;
    let (connection, mut raw) = raw(&options, Refuse);
    pipeplug_net::internal::handshake::accept(&connection, |key| {
        (key == "pipeplug.features").then_some("cancel")
    });
    let filling = fill(&connection, 1 << 14);
    let handle = CancelHandle::new();
    for error in made_with(&connection, &handle, 3) {
        assert!(matches!(error, CallError::Cancelled { sent: Sent::No, .. }), "{error:?}");
        assert_eq!(error.to_string(), "never: cancelled by this side before it was sent");
        assert_eq!((error.sent(), error.retry()), (Sent::No, Retry::No));
    }
    assert_eq!(connection.stats().open_calls, filling.len());
    // The other side learns of none of them.
    let reading = thread::spawn(move || {
        let mut seen = Vec::new();
        while let Some(chunk) = raw.input.next().filter(|chunk| chunk.command != "last") {
            seen.push(chunk.command);
        }
        seen
    });
    connection.notify("last", "").unwrap();
    assert!(connection.wait_written(LONG));
    let seen = reading.join().unwrap();
    assert!(seen.len() == filling.len() && seen.iter().all(|command| command == "x"), "{seen:?}");
}

#[test]
fn a_handle_gives_calls_up_that_were_sent_and_later_ones_are_not_sent() {
    let _watchdog = watchdog();
    for reading in ways() {
        let (host, guest) =
            pair(&reading, Refuse, |request: &mut Request| match request.command() {
                "never" => {
                    assert!(request.cancellation().wait_timeout(LONG));
                    Ok(Reply::empty())
                }
                _ => common::echo(request),
            });
        negotiate(&host, &guest);
        let handle = CancelHandle::new();
        // One that has ended is none of its calls any more.
        let before = host.request("echo", "x").cancel_by(&handle).wait();
        assert_eq!(before.unwrap(), "x");
        for error in made_with(&host, &handle, 3) {
            assert!(matches!(error, CallError::Cancelled { sent: Sent::Maybe, .. }), "{error:?}");
        }
        // Their handlers have learnt of it.
        assert!(guest.wait_idle(LONG));
        let late = host.request("echo", "x").cancel_by(&handle);
        let late = late.begin().unwrap_err();
        assert!(matches!(late, CallError::Cancelled { sent: Sent::No, .. }), "{late:?}");
        let task = host.request("echo", "x").cancel_by(&handle).into_future();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let late = runtime.block_on(task).unwrap_err();
        assert!(matches!(late, CallError::Cancelled { sent: Sent::No, .. }), "{late:?}");
        assert_eq!(host.call("echo", "x").unwrap(), "x");
        assert_eq!(host.stats().open_calls, 0);
    }
}
