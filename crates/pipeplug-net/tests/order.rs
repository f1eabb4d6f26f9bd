//! Requests and one-ways that are handled in order.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::fs::File;
use std::io::Write as _;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use pipeplug_net::{
    CallError, Connection, Handler, Options, Order, Reading, Refuse, Reply, Request, Responder,
};
use pipeplug_testkit::{LONG, Pair};

use common::{eventually, watchdog};

/// A caller, and a callee with this order. The callee reads in this way.
fn sides(
    reading: Reading,
    order: &Order,
    handlers: usize,
    caller: impl Handler,
    callee: impl Handler,
) -> (Connection, Connection, Pair) {
    let mut ordered = Options::default();
    (ordered.reading, ordered.order) = (reading, order.clone());
    ordered.handlers = NonZeroUsize::new(handlers).unwrap();
    let plain = Options::default();
    let setup = Pair::setup();
    if reading == Reading::Dedicated {
        let pair =
            setup.host_options(plain).guest_options(ordered).connect(caller, callee).unwrap();
        (pair.host.clone(), pair.guest.clone(), pair)
    } else {
        let pair =
            setup.host_options(ordered).guest_options(plain).connect(callee, caller).unwrap();
        (pair.guest.clone(), pair.host.clone(), pair)
    }
}

fn each(test: impl Fn(Reading)) {
    let _watchdog = watchdog();
    for reading in [Reading::Dedicated, Reading::Shared] {
        test(reading);
    }
}

fn in_order_for(commands: &[&[&str]]) -> Order {
    let mut order = Order::default();
    for sequence in commands {
        order.add_sequence(sequence.iter().copied());
    }
    order
}

#[test]
fn a_file_that_many_calls_append_to_has_their_order() {
    each(|reading| {
        for (order, handlers) in
            [(Order::InOrder, 256), (in_order_for(&[&["append", "put"]]), 256), (Order::InOrder, 1)]
        {
            let mut path = tempfile::NamedTempFile::new().unwrap();
            let file = Mutex::new(File::create(path.path()).unwrap());
            let running = AtomicUsize::new(0);
            let callee = move |request: &mut Request| {
                if request.command() == "read" {
                    return Ok("beside".into());
                }
                assert_eq!(running.fetch_add(1, Ordering::SeqCst), 0, "one at a time");
                let number: usize = request.text()?.trim().parse()?;
                // Slow now and then, so that others would overtake it.
                if number % 50 == 7 {
                    thread::sleep(Duration::from_millis(2));
                }
                file.lock().unwrap().write_all(request.buffer())?;
                running.fetch_sub(1, Ordering::SeqCst);
                Ok(Reply::empty())
            };
            let (caller, _callee, _pair) = sides(reading, &order, handlers, Refuse, callee);
            let mut calls = Vec::new();
            for number in 0..600 {
                let line = format!("{number}\n");
                match number % 3 {
                    0 => caller.notify("append", line).unwrap(),
                    1 => calls.push(caller.request("append", line).begin().unwrap()),
                    _ => calls.push(caller.request("put", line).begin().unwrap()),
                }
                if number % 100 == 0 {
                    calls.push(caller.request("read", "").begin().unwrap());
                }
            }
            for call in calls {
                call.wait().unwrap();
            }
            let expected: String = (0..600).map(|number| format!("{number}\n")).collect();
            let mut written = String::new();
            std::io::Read::read_to_string(path.as_file_mut(), &mut written).unwrap();
            assert!(written == expected, "{order:?}: {written}");
        }
    });
}

#[test]
fn other_commands_and_other_sequences_run_beside_a_handler_that_stands() {
    each(|reading| {
        let (release, gate) = mpsc::channel::<()>();
        let gate = Mutex::new(gate);
        let callee = move |request: &mut Request| {
            if request.text()? == "stand" {
                gate.lock().unwrap().recv_timeout(LONG)?;
            }
            Ok(request.command().into())
        };
        let order = in_order_for(&[&["a"], &["b"]]);
        let (caller, callee, _pair) = sides(reading, &order, 256, Refuse, callee);
        let stands = caller.request("a", "stand").begin().unwrap();
        let behind = caller.request("a", "").begin().unwrap();
        for _ in 0..3 {
            assert_eq!(caller.call("other", "").unwrap(), "other");
            assert_eq!(caller.call("b", "").unwrap(), "b");
        }
        let behind = behind.wait_timeout(Duration::from_millis(20));
        assert!(matches!(behind, Err(CallError::TimedOut { .. })), "{behind:?}");
        assert!(!callee.wait_idle(Duration::ZERO));
        release.send(()).unwrap();
        assert_eq!(stands.wait().unwrap(), "a");
        assert_eq!(caller.call("a", "").unwrap(), "a");
        assert!(callee.wait_idle(LONG));
    });
}

#[test]
fn a_handler_in_order_may_wait_for_a_call_that_calls_back_into_another_command() {
    each(|reading| {
        let (order, handlers) = (in_order_for(&[&["append"]]), 2);
        let caller = |request: &mut Request| Ok(request.connection().call("look", "")?.into());
        let callee = |request: &mut Request| match request.command() {
            "append" => Ok(request.connection().call("nested", "")?.into()),
            _ => Ok("looked".into()),
        };
        let (caller, _callee, _pair) = sides(reading, &order, handlers, caller, callee);
        let calls: Vec<_> =
            (0..50).map(|_| caller.request("append", "").begin().unwrap()).collect();
        for call in calls {
            assert_eq!(call.wait().unwrap(), "looked");
        }
    });
}

#[test]
fn a_call_back_into_the_same_sequence_waits_until_its_deadline_and_the_rest_goes_on() {
    each(|reading| {
        let caller = |request: &mut Request| {
            let back = request.connection().request("append", "inner");
            back.timeout(Duration::from_millis(30)).wait().map_err(Into::into)
        };
        let callee = |request: &mut Request| match request.text()? {
            "outer" => Ok(request.connection().call("nested", "")?.into()),
            text => Ok(text.into()),
        };
        let (caller, callee, _pair) = sides(reading, &Order::InOrder, 256, caller, callee);
        let error = caller.call("append", "outer").unwrap_err();
        assert!(error.to_string().contains("append"), "{error}");
        assert_eq!(caller.call("append", "next").unwrap(), "next");
        assert!(callee.wait_idle(LONG));
    });
}

#[test]
fn the_next_one_starts_when_the_handler_returns_or_at_the_end_of_its_turn() {
    each(|reading| {
        let kept: Arc<Mutex<Vec<Responder>>> = Arc::default();
        let turns = Arc::new(Mutex::new(Vec::new()));
        let callee = {
            let (kept, turns) = (Arc::clone(&kept), Arc::clone(&turns));
            move |request: &mut Request| {
                match request.text()? {
                    "defer" => kept.lock().unwrap().extend(request.responder()),
                    "turn" => turns.lock().unwrap().push(request.keep_turn()),
                    _ => drop(request.keep_turn()),
                }
                Ok(Reply::empty())
            }
        };
        let (caller, callee, _pair) = sides(reading, &Order::InOrder, 256, Refuse, callee);
        let deferred = caller.request("x", "defer").begin().unwrap();
        caller.call("x", "").unwrap();
        kept.lock().unwrap().pop().unwrap().answer("late");
        assert_eq!(deferred.wait().unwrap(), "late");

        caller.notify("x", "turn").unwrap();
        let behind = caller.request("x", "").begin().unwrap();
        eventually("the turn is kept", || !turns.lock().unwrap().is_empty());
        assert!(!callee.wait_idle(Duration::from_millis(10)));
        assert_eq!(caller.stats().open_calls, 1, "the one behind waits");
        turns.lock().unwrap().clear();
        behind.wait().unwrap();
        assert!(callee.wait_idle(LONG));
    });
}

#[test]
fn what_waits_in_order_is_cancelled_and_late_like_other_requests() {
    each(|reading| {
        let (release, gate) = mpsc::channel::<()>();
        let gate = Mutex::new(gate);
        let ran = Arc::new(Mutex::new(Vec::new()));
        let callee = {
            let ran = Arc::clone(&ran);
            move |request: &mut Request| {
                ran.lock().unwrap().push(request.text()?.to_owned());
                if request.text()? == "stand" {
                    gate.lock().unwrap().recv_timeout(LONG)?;
                }
                Ok(Reply::empty())
            }
        };
        let (caller, callee, _pair) = sides(reading, &Order::InOrder, 256, Refuse, callee);
        let stands = caller.request("x", "stand").begin().unwrap();
        eventually("it stands", || !ran.lock().unwrap().is_empty());
        drop(caller.request("x", "given up").begin().unwrap());
        let deadline = Duration::from_millis(5);
        let late = caller.request("x", "late").timeout(deadline).begin().unwrap();
        let last = caller.request("x", "last").begin().unwrap();
        assert!(matches!(late.wait(), Err(CallError::TimedOut { .. })));
        // The other side counts the time from when it has read the request.
        thread::sleep(20 * deadline);
        release.send(()).unwrap();
        stands.wait().unwrap();
        last.wait().unwrap();
        assert_eq!(*ran.lock().unwrap(), ["stand", "last"]);
        assert!(callee.wait_idle(LONG));
    });
}

#[test]
fn what_was_sent_before_the_end_is_handled_in_order() {
    each(|reading| {
        let ran = Arc::new(Mutex::new(Vec::new()));
        let callee = {
            let ran = Arc::clone(&ran);
            move |request: &mut Request| {
                let number: usize = request.text()?.parse()?;
                if number.is_multiple_of(10) {
                    thread::sleep(Duration::from_millis(1));
                }
                ran.lock().unwrap().push(number);
                if number == 50 {
                    panic!("a panic does not stop the others");
                }
                Ok(Reply::empty())
            }
        };
        let (caller, callee, _pair) = sides(reading, &Order::InOrder, 256, Refuse, callee);
        for number in 0..200 {
            caller.notify("x", number.to_string()).unwrap();
        }
        caller.close();
        let begun = Instant::now();
        assert!(callee.wait_closed(LONG).is_some(), "{:?}", begun.elapsed());
        assert!(ran.lock().unwrap().iter().copied().eq(0..200), "{:?}", ran.lock().unwrap());
    });
}

#[test]
fn a_task_keeps_the_turn_until_it_is_done() {
    each(|reading| {
        let running = Arc::new(AtomicUsize::new(0));
        let ran = Arc::new(Mutex::new(Vec::new()));
        let callee = {
            let ran = Arc::clone(&ran);
            move |request: &mut Request| {
                let (running, ran) = (Arc::clone(&running), Arc::clone(&ran));
                request.spawn(
                    |mut future| {
                        thread::spawn(move || {
                            thread::sleep(Duration::from_micros(300));
                            let mut context =
                                std::task::Context::from_waker(std::task::Waker::noop());
                            assert!(future.as_mut().poll(&mut context).is_ready());
                        })
                    },
                    move |request: Request| async move {
                        assert_eq!(running.fetch_add(1, Ordering::SeqCst), 0, "one at a time");
                        ran.lock().unwrap().push(request.text()?.to_owned());
                        running.fetch_sub(1, Ordering::SeqCst);
                        Ok(Reply::empty())
                    },
                )
            }
        };
        let (caller, callee, _pair) = sides(reading, &Order::InOrder, 256, Refuse, callee);
        for number in 0..100 {
            caller.notify("x", number.to_string()).unwrap();
        }
        caller.call("x", "100").unwrap();
        assert!(callee.wait_idle(LONG));
        assert!(ran.lock().unwrap().iter().map(|n| n.parse::<usize>().unwrap()).eq(0..=100));
    });
}
