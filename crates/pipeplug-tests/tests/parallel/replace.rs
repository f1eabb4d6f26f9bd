//! One process takes the place of another.

use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, mpsc};
use std::task::{Context, Waker};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use pipeplug_host::{
    Backoff, CallError, EndCause, Event, Plugin, Reply, Request, SupervisedCallError, Supervisor,
    UnavailableKind,
};
use pipeplug_tests::{LONG, SOON, Script, eventually, is_running, send};

use crate::plain;
use crate::supervisor::{Events, reluctant};

const REPLACEMENTS: usize = 40;

/// Code of a host that uses the supervisor when it is dropped.
struct UsesSupervisor {
    supervisor: Arc<OnceLock<Supervisor>>,
    tell: mpsc::Sender<bool>,
}

impl Drop for UsesSupervisor {
    fn drop(&mut self) {
        let is_up = self.supervisor.get().is_some_and(|supervisor| supervisor.pid().is_some());
        self.tell.send(is_up).unwrap();
    }
}

#[test]
fn the_handler_of_a_replaced_builder_may_use_the_supervisor_when_it_is_dropped() {
    let (tell, told) = mpsc::channel();
    let own = Arc::new(OnceLock::new());
    let uses = UsesSupervisor { supervisor: Arc::clone(&own), tell };
    let plugin = plain().handler(move |_: &Plugin, request: &mut Request| {
        let _ = &uses;
        request.unknown()
    });
    // It is not started, so that no process holds the handler too.
    let supervisor = Supervisor::builder(plugin).build().unwrap();
    own.set(supervisor.clone()).unwrap();
    let replacing = thread::spawn(move || supervisor.replace(plain()));
    assert!(told.recv_timeout(LONG).unwrap(), "the new process is there by then");
    replacing.join().unwrap().unwrap();
}

#[test]
fn no_call_and_no_one_way_is_lost_while_it_is_replaced_many_times() {
    let arrived = Arc::new(AtomicUsize::new(0));
    let counts = Arc::clone(&arrived);
    let plugin = plain().handler(move |_: &Plugin, request: &mut Request| {
        if request.command() == "tick" {
            counts.fetch_add(1, Ordering::SeqCst);
        }
        Ok(Reply::empty())
    });
    let events = Events::default();
    let supervisor = events.of(Supervisor::builder(plugin.clone())).build().unwrap();
    supervisor.start().unwrap();
    let done = AtomicBool::new(false);
    let (calls, ticks) = thread::scope(|scope| {
        let calling: Vec<_> = (0..4)
            .map(|caller| {
                let (supervisor, done) = (&supervisor, &done);
                scope.spawn(move || {
                    let mut calls = 0_usize;
                    while !done.load(Ordering::SeqCst) {
                        let text = format!("{caller}: {calls}");
                        let slow = supervisor.request("sleep", "3").begin().unwrap();
                        assert_eq!(supervisor.call("echo", &text).unwrap(), text);
                        assert_eq!(slow.wait_timeout(LONG).unwrap(), b"3");
                        calls += 1;
                    }
                    calls
                })
            })
            .collect();
        let ticking = scope.spawn(|| {
            let mut ticks = 0_usize;
            while !done.load(Ordering::SeqCst) {
                supervisor.notify("notify-host", "tick").unwrap();
                ticks += 1;
                if ticks.is_multiple_of(10) {
                    thread::sleep(Duration::from_micros(200));
                }
            }
            ticks
        });
        for i in 0..REPLACEMENTS {
            if i % 2 == 0 {
                supervisor.replace(plugin.clone()).unwrap();
            } else {
                supervisor.restart().unwrap();
            }
        }
        done.store(true, Ordering::SeqCst);
        let calls: Vec<_> = calling.into_iter().map(|calling| calling.join().unwrap()).collect();
        (calls, ticking.join().unwrap())
    });
    assert!(calls.iter().all(|calls| *calls > REPLACEMENTS), "{calls:?} calls went on meanwhile");
    supervisor.stop().unwrap();
    eventually("all was told", || {
        events.count(|event| matches!(event, Event::Ended { .. })) == REPLACEMENTS + 1
    });
    assert_eq!(events.started(), REPLACEMENTS + 1);
    assert_eq!(events.count(|event| matches!(event, Event::Replaced { .. })), REPLACEMENTS);
    eventually("every one-way arrived", || arrived.load(Ordering::SeqCst) == ticks);
}

#[test]
fn open_calls_end_where_they_began_and_new_ones_go_to_the_new_one() {
    let events = Events::default();
    let supervisor = events.of(Supervisor::builder(plain())).build().unwrap();
    let old = supervisor.plugin().unwrap();
    let open = supervisor.request("sleep", "300").begin().unwrap();
    thread::scope(|scope| {
        let replacing = scope.spawn(|| supervisor.replace(plain().arg0("another")));
        eventually("calls go elsewhere", || supervisor.pid() != Some(old.pid()));
        assert_eq!(supervisor.call("arg0", "").unwrap(), "another");
        assert!(old.status().is_none() && !replacing.is_finished(), "the old one has a call left");
        assert_eq!(open.wait_timeout(LONG).unwrap(), b"300");
        replacing.join().unwrap().unwrap();
    });
    assert!(old.status().is_some_and(|status| status.success()));
    // It is what is started from here on.
    send(supervisor.plugin().unwrap().pid().as_raw(), Signal::SIGKILL);
    eventually("it was started anew", || events.started() == 3);
    assert_eq!(supervisor.call("arg0", "").unwrap(), "another");
    let cause = |which| {
        events.count(|event| matches!(event, Event::Ended { cause, .. } if *cause == which))
    };
    assert_eq!((cause(EndCause::Replaced), cause(EndCause::Unasked)), (1, 1));
}

#[test]
fn one_that_does_not_start_replaces_nothing() {
    let supervisor = Supervisor::builder(plain()).build().unwrap();
    let old = supervisor.plugin().unwrap();
    let open = supervisor.request("sleep", "100").begin().unwrap();
    let error = supervisor.replace(Plugin::builder("/nonexistent/plugin")).unwrap_err();
    assert!(matches!(error.kind(), UnavailableKind::Start(_)), "{error}");
    assert_eq!(open.wait_timeout(LONG).unwrap(), b"100");
    assert_eq!(supervisor.pid(), Some(old.pid()));
    supervisor.restart().unwrap();
    assert_eq!(supervisor.call("echo", "there").unwrap(), "there");
}

#[test]
fn calls_that_never_end_are_waited_for_so_long_and_no_longer() {
    let wait = Duration::from_millis(100);
    let plugin = plain().grace(pipeplug_host::Grace::each(Duration::from_millis(50)));
    let supervisor = Supervisor::builder(plugin).drain_timeout(wait).build().unwrap();
    let old = supervisor.plugin().unwrap();
    let open = supervisor.request("never", "").begin().unwrap();
    let begun = Instant::now();
    supervisor.restart().unwrap();
    assert!(begun.elapsed() >= wait && begun.elapsed() < SOON, "{:?}", begun.elapsed());
    assert!(matches!(
        open.wait_timeout(LONG),
        Err(SupervisedCallError::Call(CallError::Closed { .. }))
    ));
    assert!(!is_running(old.pid().as_raw()));
}

#[test]
fn a_stop_waits_for_no_calls_of_the_one_that_is_left() {
    let plugin = plain().grace(pipeplug_host::Grace::each(Duration::from_millis(50)));
    let supervisor = Supervisor::builder(plugin).drain_timeout(LONG).build().unwrap();
    let old = supervisor.plugin().unwrap();
    let open = supervisor.request("never", "").begin().unwrap();
    thread::scope(|scope| {
        let replacing = scope.spawn(|| supervisor.restart());
        eventually("calls go elsewhere", || supervisor.pid() != Some(old.pid()));
        let begun = Instant::now();
        supervisor.stop().unwrap();
        assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
        assert!(!is_running(old.pid().as_raw()), "nothing is left behind a stop");
        replacing.join().unwrap().unwrap();
    });
    assert!(open.wait_timeout(LONG).is_err());
}

#[test]
fn a_stop_ends_a_replacement_that_is_under_way() {
    let supervisor = Supervisor::builder(plain()).build().unwrap();
    supervisor.start().unwrap();
    let script = Script::new("echo $$ >\"$dir/new\"; mv \"$dir/new\" \"$dir/pid\"; sleep 1000");
    thread::scope(|scope| {
        let replacing = scope.spawn(|| supervisor.replace(script.builder()));
        eventually("it hangs", || script.dir().join("pid").exists());
        let begun = Instant::now();
        supervisor.stop().unwrap();
        assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
        let error = replacing.join().unwrap().unwrap_err();
        assert!(matches!(error.kind(), UnavailableKind::Stopped), "{error:?}");
    });
    let pid = std::fs::read_to_string(script.dir().join("pid")).unwrap().trim().parse().unwrap();
    assert!(!is_running(pid));
}

#[test]
fn one_that_was_given_up_or_waits_for_its_restart_is_replaced_too() {
    let hopeless = Supervisor::builder(Plugin::builder("/nonexistent/plugin")).build().unwrap();
    hopeless.start().unwrap_err();
    let script = Script::new("exit 3");
    let forever = Duration::from_secs(3600);
    let waits = Supervisor::builder(script.builder())
        .backoff(Backoff::new(forever, forever))
        .build()
        .unwrap();
    waits.start().unwrap_err();
    for supervisor in [hopeless, waits] {
        supervisor.replace(plain()).unwrap();
        assert_eq!(supervisor.call("echo", "there").unwrap(), "there");
    }
}

#[test]
fn one_that_hangs_in_its_start_is_replaced_and_its_callers_go_on() {
    let script = Script::new("echo $$ >\"$dir/new\"; mv \"$dir/new\" \"$dir/pid\"; sleep 1000");
    let supervisor = reluctant(script.builder()).build().unwrap();
    thread::scope(|scope| {
        let call = scope.spawn(|| supervisor.call("echo", "there"));
        eventually("it hangs", || script.dir().join("pid").exists());
        supervisor.replace(plain()).unwrap();
        let reply: Result<_, SupervisedCallError> = call.join().unwrap();
        assert_eq!(reply.unwrap(), "there");
    });
    let pid = std::fs::read_to_string(script.dir().join("pid")).unwrap().trim().parse().unwrap();
    eventually("it is gone", || !is_running(pid));
}

#[test]
fn a_call_that_has_given_its_reply_is_not_waited_for() {
    let supervisor = Supervisor::builder(plain()).build().unwrap();
    let mut call = pin!(supervisor.request("echo", "hello").begin().unwrap());
    eventually("the reply is there", || {
        call.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready()
    });
    let begun = Instant::now();
    supervisor.restart().unwrap();
    // The awaited call keeps its reply.
    assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
}
