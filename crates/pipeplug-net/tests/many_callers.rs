//! Many callers at once: they yield to each other, read for each other, and leave none behind.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use common::{Gate, LONG, Way, echo, eventually, pair, pair_on, watchdog};
use pipeplug_net::{EventLoop, Options, Refuse, Reply, Request};

const CALLERS: usize = 16;

/// Each of many callers gets its own reply, however the bytes come.
#[test]
fn each_gets_its_own_reply() {
    let _watchdog = watchdog();
    for way in [Way::PLAIN, Way::SHARED, Way::SMALL_PIPES, Way::short(3)] {
        let loops = (&EventLoop::new().unwrap(), &EventLoop::new().unwrap());
        let (host, _guest) = pair_on(loops, &Options::default(), way, Refuse, echo);
        thread::scope(|scope| {
            for caller in 0..CALLERS {
                let host = &host;
                scope.spawn(move || {
                    for i in 0..way.count(500) {
                        let text = format!("{caller} {i}");
                        assert_eq!(host.call("echo", text.as_str()).unwrap(), text);
                    }
                });
            }
        });
        assert_eq!(host.stats().open_calls, 0);
        assert_eq!(host.stats().unknown_replies, 0);
    }
}

/// Callers that sleep, since their handler takes long, are woken by other callers that read for
/// them, and by the loop when those have gone.
#[test]
fn many_callers_leave_no_sleeper_behind() {
    let _watchdog = watchdog();
    let (gate, inside) = (Gate::default(), Arc::new(AtomicUsize::new(0)));
    let (host, _guest) = pair(&Options::default(), Refuse, {
        let (gate, inside) = (gate.clone(), Arc::clone(&inside));
        move |request: &mut Request| {
            if request.command() == "hold" {
                inside.fetch_add(1, Ordering::SeqCst);
                gate.pass();
            }
            Ok(Reply::empty())
        }
    });
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let sleepers: Vec<_> = (0..4).map(|_| scope.spawn(|| host.call("hold", ""))).collect();
        eventually("all sleepers are in their handlers", || inside.load(Ordering::SeqCst) == 4);
        for _ in 0..CALLERS {
            scope.spawn(|| {
                while !is_over.load(Ordering::SeqCst) {
                    host.call("x", "").unwrap();
                }
            });
        }
        thread::yield_now();
        gate.open();
        for sleeper in sleepers {
            sleeper.join().unwrap().unwrap();
        }
        is_over.store(true, Ordering::SeqCst);
    });
    // What comes unasked behind it is read by the loop.
    assert_eq!(host.stats().open_calls, 0);
    host.ping(LONG).unwrap();
}

/// Chunks that callers leave to be written together are written by any of them. All callers fail
/// with the end.
#[test]
fn the_end_reaches_all() {
    let _watchdog = watchdog();
    let (host, guest) = pair(&Options::default(), Refuse, echo);
    let answered = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..CALLERS {
            scope.spawn(|| {
                while host.call("echo", "x").is_ok() {
                    answered.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
        eventually("calls are answered", || answered.load(Ordering::SeqCst) > 1000);
        guest.end("enough");
    });
    assert!(host.wait_closed(LONG).is_some());
}
