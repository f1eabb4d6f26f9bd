//! Flow control: what is held back goes out in the end.

mod common;

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;

use common::{
    Gate, LONG, Way, accept, echo, eventually, negotiate, pair, pair_on, raw, raw_on, watchdog,
};
use pipeplug_net::wire::{Direction, Format};
use pipeplug_net::{
    CallError, CloseReason, EventLoop, NotifyError, Options, Refuse, Reply, Request,
};

fn window(bytes: usize) -> Options {
    let mut options = Options::default();
    options.window = bytes;
    options
}

/// Offers what a peer of this window would.
fn accept_window(connection: &pipeplug_net::Connection, window: &str) {
    pipeplug_net::internal::handshake::accept(connection, |key| match key {
        "pipeplug.features" => Some("flow"),
        "pipeplug.window" => Some(window),
        _ => None,
    });
}

#[test]
fn a_peer_that_gives_no_credit_is_named_as_such() {
    let _watchdog = watchdog();
    let (connection, mut raw) = raw(&Options::default(), Refuse);
    accept_window(&connection, "100");
    let timeout = std::time::Duration::from_millis(20);
    let first = connection.request("first", vec![0; 100]).begin().unwrap();
    let error = connection.request("x", "").timeout(timeout).wait_text().unwrap_err();
    let CallError::NotSent { after, credit: Some(credit), .. } = &error else { panic!("{error}") };
    assert_eq!((*after, credit.sent, credit.credited, credit.window), (timeout, 169, 0, 100));
    let told = error.to_string();
    assert!(
        told.starts_with(
            "x: not sent within 20ms: the other side has given credit for 0 of 169 bytes"
        ),
        "{told}"
    );
    assert!(
        told.contains("names the feature flow in pipeplug.features and never sends cmd.credit"),
        "{told}"
    );
    // The same for a one-way, which has no deadline.
    thread::scope(|scope| {
        scope.spawn(|| connection.notify("x", "").unwrap());
        eventually("it waits", || connection.stats().credit == Some(*credit));
        raw.send(0, Direction::OneWay, "cmd.credit", b"100");
    });
    assert_eq!(connection.stats().credit, None);
    drop(first);
    // Another peer that does not read is still one.
    drop(raw);
}

#[test]
fn pings_do_not_use_the_window_up() {
    let _watchdog = watchdog();
    let (host, guest) = pair(&window(200), Refuse, echo);
    negotiate(&host, &guest);
    for _ in 0..100 {
        host.ping(LONG).unwrap();
    }
    assert_eq!(host.call("echo", "x").unwrap(), "x");
}

#[test]
fn a_ping_goes_out_while_the_window_is_full() {
    let _watchdog = watchdog();
    let gate = Gate::default();
    let handler_gate = gate.clone();
    let mut options = window(100);
    options.handlers = NonZeroUsize::MIN;
    let (host, guest) = pair(&options, Refuse, move |_: &mut Request| {
        handler_gate.pass();
        Ok(Reply::empty())
    });
    negotiate(&host, &guest);
    let running = host.request("busy", vec![0; 60]).begin().unwrap();
    let waiting = host.request("busy", vec![0; 60]).begin().unwrap();
    eventually("one waits behind the one that runs", || guest.stats().held > 0);
    assert!(matches!(
        host.request("busy", "").nonblocking().begin(),
        Err(CallError::WouldBlock { .. })
    ));
    host.ping(LONG).unwrap();
    assert!(matches!(
        host.request("busy", "").nonblocking().begin(),
        Err(CallError::WouldBlock { .. })
    ));
    gate.open();
    running.wait().unwrap();
    waiting.wait().unwrap();
}

#[test]
fn what_could_not_be_encoded_does_not_use_the_window_up() {
    let _watchdog = watchdog();
    let mut options = window(500);
    options.format = Some(Format::Classic);
    let (host, guest) = pair(&options, Refuse, echo);
    negotiate(&host, &guest);
    for _ in 0..100 {
        assert!(host.request("two words", "").begin().is_err());
        assert!(matches!(host.notify("two words", vec![0; 5000]), Err(NotifyError::Encode { .. })));
    }
    assert_eq!(host.call("echo", "x").unwrap(), "x");
}

#[test]
fn what_passes_the_hold_does_not_use_the_window_up() {
    let _watchdog = watchdog();
    let mut options = window(200);
    options.hold = pipeplug_net::Hold::AllBut(vec!["echo".into()]);
    let (host, guest) = pair(&options, Refuse, echo);
    negotiate(&host, &guest);
    for _ in 0..100 {
        assert_eq!(host.call("echo", "x").unwrap(), "x");
    }
}

#[test]
fn what_was_taken_ahead_of_the_agreement_is_credited_at_once() {
    let _watchdog = watchdog();
    let (tell, told) = mpsc::channel();
    let (host, guest) = pair(
        &window(1000),
        move |request: &mut Request| {
            Ok(tell.send(request.buffer().len()).map(|()| Reply::empty())?)
        },
        Refuse,
    );
    // The guest knows of the host's window before the host knows that the guest counts.
    accept(&guest, &host);
    guest.notify("log", vec![0; 2000]).unwrap();
    told.recv_timeout(LONG).unwrap();
    assert!(guest.request("x", "").nonblocking().begin().is_err(), "the window should be full");
    accept(&host, &guest);
    guest.notify("log", vec![0; 2000]).unwrap();
    told.recv_timeout(LONG).unwrap();
}

#[test]
fn refused_requests_are_credited() {
    let _watchdog = watchdog();
    // One thread on the host: it runs "outer", and "inner" finds none.
    let (host_loop, guest_loop) =
        (EventLoop::with_handler_threads(1).unwrap(), EventLoop::new().unwrap());
    let (host, guest) = pair_on(
        (&host_loop, &guest_loop),
        &window(300),
        Way::PLAIN,
        |request: &mut Request| match request.command() {
            "outer" => Ok(request.connection().call("mid", "")?.into()),
            _ => Ok("taken".into()),
        },
        |request: &mut Request| {
            let error = request.connection().call("inner", vec![0; 1000]).unwrap_err();
            Ok(error.to_string().into())
        },
    );
    negotiate(&host, &guest);
    for _ in 0..3 {
        let message = guest.call("outer", "").unwrap();
        assert!(message.contains("handler threads"), "{message}");
        assert_eq!(guest.call("other", "").unwrap(), "taken");
    }
}

/// The first refusal leaves the connection's place in the line taken, behind a thread that waits
/// for the second.
#[test]
fn every_request_that_no_thread_is_left_for_is_refused() {
    let _watchdog = watchdog();
    let (host_loop, guest_loop) =
        (EventLoop::with_handler_threads(1).unwrap(), EventLoop::new().unwrap());
    let mut options = Options::default();
    options.handlers = NonZeroUsize::MIN;
    let (_host, guest) = pair_on(
        (&host_loop, &guest_loop),
        &options,
        Way::PLAIN,
        |request: &mut Request| Ok(request.connection().call("mid", "")?.into()),
        |request: &mut Request| {
            for _ in 0..10 {
                let error = request.connection().call("inner", "").unwrap_err().to_string();
                assert!(error.contains("handler threads"), "{error}");
            }
            Ok("refused ten times".into())
        },
    );
    assert_eq!(guest.call("outer", "").unwrap(), "refused ten times");
}

#[test]
fn requests_over_the_overrun_are_credited() {
    let _watchdog = watchdog();
    let gate = Gate::default();
    let mut options = window(1000);
    options.overrun = 150;
    options.handlers = NonZeroUsize::MIN;
    let handler_gate = gate.clone();
    let (host, guest) = pair(&options, Refuse, move |_: &mut Request| {
        handler_gate.pass();
        Ok("taken".into())
    });
    negotiate(&host, &guest);
    let first = host.request("a", "").begin().unwrap();
    eventually("the handler has the first", || guest.stats().held == 0);
    let second = host.request("b", vec![0; 100]).begin().unwrap();
    // An overrun that is smaller than the window: the peer keeps to what was agreed on, and is
    // refused all the same.
    let refused = host.request("c", vec![0; 5000]).begin().unwrap();
    let error = refused.wait().unwrap_err().to_string();
    assert!(error.contains("not taken") && error.contains("the limit is 150"), "{error}");
    gate.open();
    first.wait().unwrap();
    second.wait().unwrap();
    for _ in 0..10 {
        assert_eq!(host.call("d", "").unwrap(), "taken");
    }
}

#[test]
fn a_handler_that_waits_for_credit_is_woken_by_the_end_of_file() {
    let _watchdog = watchdog();
    let (tell, told) = mpsc::channel();
    let (connection, mut raw) = raw(&Options::default(), move |request: &mut Request| {
        loop {
            if let Err(error) = request.connection().notify("log", vec![0; 100]) {
                tell.send(error)?;
                return Ok(Reply::empty());
            }
        }
    });
    accept_window(&connection, "1000");
    raw.send(1, Direction::Request, "go", b"");
    // Past the window nothing comes: the handler waits for a credit.
    let mut weight = 0;
    while weight < 1000 {
        weight += 64 + "log".len() + raw.input.next().unwrap().buffer.len();
    }
    let common::Raw { input, output } = raw;
    drop(output);
    let error = told.recv_timeout(LONG).unwrap();
    assert!(
        matches!(&error, NotifyError::Closed { reason, .. } if matches!(**reason, CloseReason::EndOfFile)),
        "{error}"
    );
    assert!(connection.wait_closed(LONG).is_some());
    drop(input);
}

/// The last thread of the pool serves one connection and waits for another one, whose guest calls
/// back.
#[test]
fn a_request_that_no_thread_is_left_for_is_refused_whichever_connection_it_came_over() {
    let _watchdog = watchdog();
    let (host_loop, guest_loop) =
        (EventLoop::with_handler_threads(1).unwrap(), EventLoop::new().unwrap());
    let loops = (&host_loop, &guest_loop);
    let options = window(1000);
    let (second, _second_guest) =
        pair_on(loops, &options, Way::PLAIN, echo, |request: &mut Request| {
            let error = request.connection().call("echo", vec![0; 2000]).unwrap_err();
            Ok(error.to_string().into())
        });
    let other = second.clone();
    let (_first, first_guest) = pair_on(
        loops,
        &options,
        Way::PLAIN,
        move |_: &mut Request| {
            let call = other.request("back", "").begin()?;
            eventually("the other guest has called back", || other.stats().held > 0);
            Ok(call.wait()?)
        },
        Refuse,
    );
    for _ in 0..3 {
        let message = first_guest.call("over", "").unwrap();
        assert!(message.contains("handler threads"), "{message}");
    }
    assert_eq!(second.stats().held, 0);
}

/// Refusing the requests that wait makes room. The thread that paused for room has to be told.
#[test]
fn reading_goes_on_after_requests_were_refused() {
    let _watchdog = watchdog();
    let events = EventLoop::with_handler_threads(1).unwrap();
    let (inside, entered) = mpsc::channel();
    let gate = Gate::default();
    let handler_gate = gate.clone();
    let (first, mut first_raw) =
        raw_on(&events, &window(1000), Way::PLAIN, move |request: &mut Request| {
            inside.send(())?;
            handler_gate.pass();
            Ok(request.connection().call_bytes("wait", "")?.into())
        });
    let handled = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&handled);
    let (second, mut second_raw) =
        raw_on(&events, &window(1000), Way::PLAIN, move |_: &mut Request| {
            counter.fetch_add(1, Ordering::SeqCst);
            Ok(Reply::empty())
        });
    first_raw.send(1, Direction::Request, "go", b"");
    entered.recv_timeout(LONG).unwrap();
    // The only thread is taken: what comes over the second connection waits, until it is too much
    // to read on.
    let writer = thread::spawn(move || {
        for id in 1..=200 {
            second_raw.send(id, Direction::Request, "x", &[0; 1000]);
        }
        second_raw
    });
    eventually("the second connection holds more than its window", || second.stats().held >= 1000);
    gate.open();
    assert_eq!(first_raw.input.next().unwrap().command, "wait");
    let mut second_raw = writer.join().unwrap();
    let mut refused = 0;
    // The writer may be done while chunks lie in the pipe.
    first_raw.send(1, Direction::Response, "wait", b"");
    for _ in 0..200 {
        refused += usize::from(second_raw.input.next().unwrap().command == "cmd.error");
    }
    assert_eq!(refused + handled.load(Ordering::SeqCst), 200);
    assert!(refused > 0);
    drop(first);
}

/// Handlers take chunks while more come in past the overrun, and the two counts must not get mixed
/// up.
#[test]
fn nothing_is_left_of_the_weight_when_all_is_handled() {
    let _watchdog = watchdog();
    let handled = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&handled);
    let mut options = window(100);
    options.overrun = 200;
    let (connection, mut raw) = raw(&options, move |_: &mut Request| {
        counter.fetch_add(1, Ordering::SeqCst);
        Ok(Reply::empty())
    });
    for count in [1000, 2000, 3000, 4000, 5000] {
        (0..1000).for_each(|_| raw.one_way("tick", b""));
        eventually("all is handled", || handled.load(Ordering::SeqCst) == count);
        assert_eq!(connection.stats().held, 0);
    }
}
