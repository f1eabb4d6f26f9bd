//! How many handlers run at once, and in which order they start.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use common::{Gate, LONG, Way, eventually, negotiate, pair, pair_on, watchdog};
use pipeplug_net::{EventLoop, Options, Refuse, Reply, Request};

fn handlers(count: usize) -> Options {
    let mut options = Options::default();
    options.handlers = NonZeroUsize::new(count).unwrap();
    options
}

/// Counts how many are inside at once, and the most that ever were.
#[derive(Default)]
struct Inside {
    now: AtomicUsize,
    most: AtomicUsize,
}

impl Inside {
    fn enter(&self) {
        let now = self.now.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(now, Ordering::SeqCst);
    }

    fn leave(&self) {
        self.now.fetch_sub(1, Ordering::SeqCst);
    }
}

#[test]
fn blocked_handlers_run_side_by_side_up_to_the_limit() {
    let _watchdog = watchdog();
    const LIMIT: usize = 200;
    let (inside, gate) = (Arc::new(Inside::default()), Gate::default());
    let (host, guest) = pair(&handlers(LIMIT), Refuse, {
        let (inside, gate) = (Arc::clone(&inside), gate.clone());
        move |_: &mut Request| {
            inside.enter();
            gate.pass();
            inside.leave();
            Ok(Reply::empty())
        }
    });
    negotiate(&host, &guest);
    let start = Instant::now();
    let calls: Vec<_> =
        (0..2 * LIMIT).map(|_| host.request("block", "").begin().unwrap()).collect();
    eventually("as many run as may", || inside.now.load(Ordering::SeqCst) == LIMIT);
    // Doubling each millisecond takes ten of them; this is for a machine that is busy with
    // something else.
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    gate.open();
    for call in calls {
        call.wait().unwrap();
    }
    assert_eq!(inside.most.load(Ordering::SeqCst), LIMIT);
}

/// The threads of the loop are a limit for all its connections together; what waits for one is
/// served in the end.
#[test]
fn two_connections_share_the_threads_of_a_loop() {
    let _watchdog = watchdog();
    let (inside, gate) = (Arc::new(Inside::default()), Gate::default());
    let (host_loop, guest_loop) =
        (EventLoop::new().unwrap(), EventLoop::with_handler_threads(3).unwrap());
    let handler = || {
        let (inside, gate) = (Arc::clone(&inside), gate.clone());
        move |request: &mut Request| {
            inside.enter();
            gate.pass();
            inside.leave();
            Ok(request.take_buffer().into())
        }
    };
    let loops = (&host_loop, &guest_loop);
    let one = pair_on(loops, &Options::default(), Way::PLAIN, Refuse, handler());
    let other = pair_on(loops, &Options::default(), Way::PLAIN, Refuse, handler());
    let calls: Vec<_> = (0..20)
        .flat_map(|_| {
            [
                one.0.request("x", "one").begin().unwrap(),
                other.0.request("x", "other").begin().unwrap(),
            ]
        })
        .collect();
    eventually("as many run as there are threads", || inside.now.load(Ordering::SeqCst) == 3);
    gate.open();
    for (index, call) in calls.into_iter().enumerate() {
        let expected = if index % 2 == 0 { "one" } else { "other" };
        assert_eq!(call.wait().unwrap(), expected.as_bytes());
    }
    assert_eq!(inside.most.load(Ordering::SeqCst), 3);
}

#[test]
fn a_busy_connection_lets_another_one_have_its_turn() {
    let _watchdog = watchdog();
    let (host_loop, guest_loop) =
        (EventLoop::new().unwrap(), EventLoop::with_handler_threads(1).unwrap());
    let loops = (&host_loop, &guest_loop);
    let gate = Gate::default();
    let handled = Arc::new(AtomicUsize::new(0));
    let (busy, _busy_guest) = pair_on(loops, &Options::default(), Way::PLAIN, Refuse, {
        let (gate, handled) = (gate.clone(), Arc::clone(&handled));
        move |_: &mut Request| {
            gate.pass();
            handled.fetch_add(1, Ordering::SeqCst);
            Ok(Reply::empty())
        }
    });
    let (quiet, quiet_guest) = pair_on(loops, &Options::default(), Way::PLAIN, Refuse, {
        let handled = Arc::clone(&handled);
        move |_: &mut Request| Ok(handled.load(Ordering::SeqCst).to_string().into())
    });
    const FLOOD: usize = 5000;
    for _ in 0..FLOOD {
        busy.notify("tick", "").unwrap();
    }
    // Time for the busy one to ask for more threads than there are.
    let (passed, pass) = mpsc::channel();
    guest_loop.after(Duration::from_millis(50), move || passed.send(()).unwrap());
    pass.recv_timeout(LONG).unwrap();
    let call = quiet.request("how many?", "").begin().unwrap();
    // Answered behind it by who puts it into the line.
    quiet.ping(LONG).unwrap();
    assert!(quiet_guest.stats().held > 0);
    gate.open();
    let count: usize = call.wait().unwrap().text().unwrap().parse().unwrap();
    assert!(count < FLOOD, "the whole flood came first");
    eventually("the flood is handled", || handled.load(Ordering::SeqCst) == FLOOD);
}

#[test]
fn requests_and_one_ways_start_in_the_order_in_which_they_came() {
    let _watchdog = watchdog();
    let (tell, told) = mpsc::channel();
    let (host, guest) = pair(&handlers(1), Refuse, move |request: &mut Request| {
        tell.send(request.text()?.parse::<u32>()?)?;
        Ok(Reply::empty())
    });
    negotiate(&host, &guest);
    let mut calls = Vec::new();
    for i in 0..2000 {
        if i % 3 == 0 {
            calls.push(host.request("call", i.to_string()).begin().unwrap());
        } else {
            host.notify("tick", i.to_string()).unwrap();
        }
    }
    for call in calls {
        call.wait().unwrap();
    }
    let order: Vec<_> = (0..2000).map(|_| told.recv_timeout(LONG).unwrap()).collect();
    assert!(order.is_sorted(), "{order:?}");
}

/// A handler that waits for a call of its own gives its place to another one, and gets it back.
#[test]
fn who_waits_for_a_call_of_its_own_does_not_count() {
    let _watchdog = watchdog();
    let (inside, gate) = (Arc::new(Inside::default()), Gate::default());
    let (host, guest) = pair(
        &handlers(2),
        {
            let gate = gate.clone();
            move |_: &mut Request| {
                gate.pass();
                Ok(Reply::empty())
            }
        },
        {
            let inside = Arc::clone(&inside);
            move |request: &mut Request| {
                if request.command() == "wait" {
                    request.connection().call("gate", "")?;
                    return Ok(Reply::empty());
                }
                inside.enter();
                std::thread::yield_now();
                inside.leave();
                Ok(Reply::empty())
            }
        },
    );
    negotiate(&host, &guest);
    let mut waiting = Vec::new();
    for _ in 0..2 {
        waiting.extend((0..10).map(|_| host.request("wait", "").begin().unwrap()));
        for call in (0..100).map(|_| host.request("work", "").begin().unwrap()).collect::<Vec<_>>()
        {
            call.wait().unwrap();
        }
    }
    assert_eq!(guest.stats().open_calls, 20);
    gate.open();
    for call in waiting {
        call.wait().unwrap();
    }
    assert!(inside.most.load(Ordering::SeqCst) <= 2);
}

/// No handler that does not return can keep them.
#[test]
fn stop_and_the_end_are_told_though_every_thread_is_taken() {
    struct Told {
        gate: Gate,
        told: Mutex<mpsc::Sender<&'static str>>,
    }
    impl pipeplug_net::Handler for Told {
        fn handle(&self, _: &mut Request) -> Result<Reply, pipeplug_net::HandlerError> {
            self.gate.pass();
            Ok(Reply::empty())
        }
        fn stop(&self, _: &pipeplug_net::Connection) {
            self.told.lock().unwrap().send("stop").unwrap();
        }
        fn ended(&self, _: &Arc<pipeplug_net::CloseReason>) {
            self.told.lock().unwrap().send("ended").unwrap();
        }
        fn closed(&self, _: &Arc<pipeplug_net::CloseReason>, _: Option<&pipeplug_net::Connection>) {
            self.told.lock().unwrap().send("closed").unwrap();
        }
    }
    let _watchdog = watchdog();
    let (host_loop, guest_loop) =
        (EventLoop::new().unwrap(), EventLoop::with_handler_threads(1).unwrap());
    let (tell, told) = mpsc::channel();
    let gate = Gate::default();
    let handler = Told { gate: gate.clone(), told: Mutex::new(tell) };
    let (host, _guest) =
        pair_on((&host_loop, &guest_loop), &Options::default(), Way::PLAIN, Refuse, handler);
    host.notify("block", "").unwrap();
    host.notify_by_protocol("cmd.stop", "".into()).unwrap();
    assert_eq!(told.recv_timeout(LONG), Ok("stop"));
    host.close();
    drop(host);
    assert_eq!(told.recv_timeout(LONG), Ok("ended"));
    gate.open();
    assert_eq!(told.recv_timeout(LONG), Ok("closed"));
}
