//! Costs of an idle supervisor, and its leftovers.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use pipeplug_host::{
    Backoff, Breaker, CallError, EventLoop, Grace, HealthCheck, Pool, SupervisedCallError,
    Supervisor, SupervisorBuilder, UnavailableKind,
};
use pipeplug_tests::{HostFootprint, LONG, Script, children_of, eventually, send, wake_ups};

use crate::{alone, misbehave};

/// Long for a computer.
const WHILE: Duration = Duration::from_millis(500);

fn millis(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// Number of wake-ups of the loop within that time.
fn wakes() -> u64 {
    let before = wake_ups("pipeplug-loop");
    thread::sleep(WHILE);
    wake_ups("pipeplug-loop") - before
}

#[track_caller]
fn assert_asleep() {
    // What has just been done may have an end that is yet to come.
    eventually("it sleeps", || wakes() == 0);
    assert_eq!(wakes(), 0);
}

fn supervisor(events: &EventLoop) -> SupervisorBuilder {
    let plugin = misbehave(&["grace", "1"]).event_loop(events.clone());
    Supervisor::builder(plugin).backoff(Backoff::new(millis(1), millis(1)))
}

fn children() -> usize {
    children_of(std::process::id()).len()
}

#[test]
fn an_idle_one_wakes_nobody() {
    let _alone = alone();
    let events = EventLoop::new().unwrap();
    let idle = supervisor(&events).build().unwrap();
    assert_eq!(idle.call("echo", "hello").unwrap(), "hello");
    assert_asleep();

    // Nor one that was stopped for that, or given up.
    let check = HealthCheck::new(millis(5), LONG);
    let stops = supervisor(&events).idle_timeout(millis(20)).health_check(check).build().unwrap();
    assert_eq!(stops.call("echo", "hello").unwrap(), "hello");
    eventually("it was stopped", || stops.pid().is_none());
    let given_up = supervisor(&events).breaker(Breaker::new(1, LONG)).build().unwrap();
    assert!(given_up.call("exit", "1").is_err());
    eventually("it is given up", || given_up.start().is_err());
    assert_asleep();

    // This is what it looks like otherwise.
    let check = HealthCheck::new(millis(20), millis(10));
    let checked = supervisor(&events).health_check(check).build().unwrap();
    checked.start().unwrap();
    assert!(wakes() > 10);
}

#[test]
fn a_call_of_an_hour_is_not_looked_at_again_and_again() {
    let _alone = alone();
    let plugin = misbehave(&["grace", "1"]).event_loop(EventLoop::new().unwrap());
    let supervisor = Supervisor::builder(plugin).idle_timeout(millis(10)).build().unwrap();
    let open = supervisor.request("never", "").begin().unwrap();
    assert_asleep();
    drop(open);
    eventually("it was stopped", || supervisor.pid().is_none());
}

#[test]
fn it_is_looked_at_once_in_each_idle_time_however_many_calls_there_were() {
    let _alone = alone();
    let plugin = misbehave(&["grace", "1"]).event_loop(EventLoop::new().unwrap());
    let supervisor = Supervisor::builder(plugin).idle_timeout(WHILE / 5).build().unwrap();
    let end = Instant::now() + 4 * WHILE;
    while Instant::now() < end {
        supervisor.call("echo", "").unwrap();
        thread::sleep(millis(1));
    }
    // Nothing else wakes the loop while it is open.
    let _open = supervisor.request("never", "").begin().unwrap();
    let wakes = wakes();
    assert!(wakes < 10, "{wakes} times");
}

#[test]
fn nothing_is_left_of_what_it_started() {
    let _alone = alone();
    let before = HostFootprint::now();
    {
        let events = EventLoop::new().unwrap();
        let silent = Script::new("sleep 1000");
        for _ in 0..5 {
            let check = HealthCheck::new(millis(5), millis(400));
            let supervisor =
                supervisor(&events).idle_timeout(millis(30)).health_check(check).build().unwrap();
            assert!(supervisor.call("exit", "1").is_err());
            let open = supervisor.request("never", "").begin().unwrap();
            send(supervisor.plugin().unwrap().pid().as_raw(), Signal::SIGSTOP);
            assert!(open.wait_timeout(LONG).is_err());
            supervisor.restart().unwrap();
            eventually("it was stopped", || children() == 0);
            let open = supervisor.request("never", "").begin().unwrap();
            assert_eq!(children(), 1);
            drop(supervisor);
            drop(open);
            assert_eq!(children(), 0, "a drop stops it");

            let plugin = silent.builder().event_loop(events.clone()).grace(Grace::each(millis(1)));
            let hangs = Supervisor::builder(plugin).build().unwrap();
            thread::scope(|scope| {
                scope.spawn(|| hangs.start().unwrap_err());
                eventually("its process runs", || children() == 1);
                hangs.stop().unwrap();
            });
        }
    }
    before.assert_restored();
}

/// Whatever meets whatever: no call hangs, each fails as it may or brings its reply, and nothing is
/// left.
#[test]
fn all_that_can_be_done_to_it_at_once_ends() {
    let _alone = alone();
    let before = HostFootprint::now();
    {
        let supervisor = supervisor(&EventLoop::new().unwrap())
            .breaker(Breaker::never())
            .idle_timeout(millis(5))
            .health_check(HealthCheck::new(millis(5), millis(400)))
            .build()
            .unwrap();
        let end = Instant::now() + 3 * WHILE;
        let again_and_again = |pause: u64, step: &dyn Fn()| {
            while Instant::now() < end {
                let begun = Instant::now();
                step();
                assert!(begun.elapsed() < LONG / 3, "{:?}", begun.elapsed());
                thread::sleep(millis(pause));
            }
        };
        let replies = AtomicUsize::new(0);
        let calls = |pause, call: &dyn Fn() -> Result<String, SupervisedCallError>| {
            again_and_again(pause, &|| match call() {
                Ok(reply) => {
                    assert_eq!(reply, "there");
                    replies.fetch_add(1, Ordering::SeqCst);
                }
                Err(SupervisedCallError::Unavailable(error))
                    if matches!(
                        error.kind(),
                        UnavailableKind::Stopped | UnavailableKind::Start(_)
                    ) => {}
                Err(SupervisedCallError::Call(CallError::Closed { .. })) => {}
                Err(error) => panic!("{error}"),
            });
        };
        thread::scope(|scope| {
            for pause in 0..3 {
                let (calls, supervisor) = (&calls, &supervisor);
                scope.spawn(move || calls(pause, &|| supervisor.call("echo", "there")));
            }
            scope.spawn(|| {
                calls(7, &|| supervisor.request("echo", "there").timeout(LONG).wait_text())
            });
            // What comes of these depends on what the others have just done.
            scope.spawn(|| again_and_again(29, &|| assert!(supervisor.stop().is_ok())));
            scope.spawn(|| again_and_again(11, &|| drop(supervisor.start())));
            scope.spawn(|| again_and_again(13, &|| drop(supervisor.restart())));
            scope.spawn(|| {
                again_and_again(17, &|| {
                    supervisor.reset();
                    if let Ok(plugin) = supervisor.plugin() {
                        plugin.kill().unwrap();
                    }
                });
            });
        });
        assert!(replies.into_inner() > 100);
    }
    before.assert_restored();
}

#[test]
fn a_pool_leaves_nothing_either() {
    let _alone = alone();
    let before = HostFootprint::now();
    {
        let pool =
            Pool::new(supervisor(&EventLoop::new().unwrap()), 5.try_into().unwrap()).unwrap();
        pool.start().unwrap();
        send(pool.members()[2].pid().unwrap().as_raw(), Signal::SIGKILL);
        pool.restart().unwrap();
        for member in pool.members() {
            assert_eq!(member.call("echo", "hello").unwrap(), "hello");
        }
    }
    before.assert_restored();
}
