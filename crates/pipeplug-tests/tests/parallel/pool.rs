//! Several processes of one plugin.

use std::num::NonZeroUsize;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use pipeplug_host::{
    Plugin, PluginBuilder, Pool, SupervisedCall, SupervisedCallError, Supervisor,
    SupervisorBuilder, UnavailableKind,
};
use pipeplug_tests::{LONG, Script, eventually, is_running, send};

use crate::supervisor::{Events, eager, reluctant, starts};
use crate::{MISBEHAVE, misbehave, plain};

fn pool(supervisor: SupervisorBuilder, size: usize) -> Pool {
    Pool::new(supervisor, NonZeroUsize::new(size).unwrap()).unwrap()
}

/// One whose calls of `never` do not keep it from its end.
fn hasty() -> PluginBuilder {
    misbehave(&["grace", "1"])
}

fn running(pool: &Pool) -> usize {
    pool.members().iter().filter(|member| member.pid().is_some()).count()
}

/// Number of open calls of each member.
fn open_calls(pool: &Pool) -> Vec<usize> {
    pool.members()
        .iter()
        .map(|member| member.plugin().unwrap().connection().stats().open_calls)
        .collect()
}

fn begin(pool: &Pool) -> SupervisedCall {
    pool.request("never", "").begin().unwrap()
}

#[test]
fn the_one_with_the_fewest_open_calls_is_called() {
    let pool = pool(Supervisor::builder(hasty()), 3);
    pool.start().unwrap();
    assert_eq!(running(&pool), 3);
    // Not in turn: the first one has more to do, in a way that a pool has not chosen.
    let of_first: Vec<_> =
        (0..5).map(|_| pool.members()[0].request("never", "").begin().unwrap()).collect();
    let many: Vec<_> = (0..8).map(|_| begin(&pool)).collect();
    assert_eq!(open_calls(&pool), [5, 4, 4]);
    let more: Vec<_> = (0..2).map(|_| begin(&pool)).collect();
    assert_eq!(open_calls(&pool), [5, 5, 5]);
    drop(of_first);
    let others: Vec<_> = (0..5).map(|_| begin(&pool)).collect();
    assert_eq!(open_calls(&pool), [5, 5, 5]);
    drop((many, more, others));
}

#[test]
fn among_equals_the_first_is_called_and_one_ways_take_turns() {
    let pool = pool(Supervisor::builder(plain()), 3);
    pool.start().unwrap();
    for _ in 0..9 {
        pool.call("count", "").unwrap();
    }
    let counted = || {
        pool.members().iter().map(|member| member.call("counted", "").unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(counted(), ["9", "0", "0"]);
    for _ in 0..9 {
        pool.notify("count", "").unwrap();
    }
    eventually("they took turns", || counted() == ["12", "3", "3"]);
}

#[test]
fn callers_at_the_same_time_do_not_meet_where_another_process_is_free() {
    let pool = pool(Supervisor::builder(hasty()), 8);
    pool.start().unwrap();
    let begins = Barrier::new(8);
    let all: Vec<_> = thread::scope(|scope| {
        let calling: Vec<_> = (0..8)
            .map(|_| {
                scope.spawn(|| {
                    begins.wait();
                    (0..10).map(|_| begin(&pool)).collect::<Vec<_>>()
                })
            })
            .collect();
        calling.into_iter().flat_map(|calling| calling.join().unwrap()).collect()
    });
    assert_eq!(open_calls(&pool), [10; 8]);
    drop(all);
}

#[test]
fn processes_are_started_as_they_are_needed() {
    let events = Events::default();
    let pool = pool(events.of(Supervisor::builder(hasty())), 3);
    for _ in 0..20 {
        pool.call("echo", "").unwrap();
    }
    assert_eq!(running(&pool), 1, "one is enough for one call at a time");
    eventually("its start was told", || events.started() == 1);
    let first = begin(&pool);
    assert_eq!(running(&pool), 1);
    // It is not waited for: this one goes to the one that is at work.
    let second = begin(&pool);
    eventually("another one was started", || running(&pool) == 2);
    let third = begin(&pool);
    let mut open: Vec<_> = pool
        .members()
        .iter()
        .filter(|member| member.pid().is_some())
        .map(|member| member.plugin().unwrap().connection().stats().open_calls)
        .collect();
    open.sort_unstable();
    assert_eq!(open, [1, 2]);
    drop((first, second, third));
}

#[test]
fn one_that_is_dead_is_left_out_and_missed_by_no_call() {
    let events = Events::default();
    let pool = pool(events.of(reluctant(hasty())), 3);
    pool.start().unwrap();
    let dead = pool.members()[0].plugin().unwrap();
    let open = pool.members()[0].request("never", "").begin().unwrap();
    send(dead.pid().as_raw(), Signal::SIGKILL);
    assert!(open.wait_timeout(LONG).is_err());
    // It waits for its restart longer than any call.
    for i in 0..100 {
        assert_eq!(pool.call("echo", i.to_string()).unwrap(), i.to_string());
    }
    assert_eq!(running(&pool), 2);
    pool.reset();
    let many: Vec<_> = (0..3).map(|_| begin(&pool)).collect();
    eventually("it is one of them again", || running(&pool) == 3);
    drop(many);
}

#[test]
fn a_call_waits_for_the_one_that_starts_and_not_for_one_that_waits() {
    let script = Script::new(&format!(
        "echo started >>\"$dir/starts\"\nsleep 0.3\nexec {MISBEHAVE} \"$1\" \"$2\" plain"
    ));
    let pool = pool(reluctant(script.builder()).ready_timeout(LONG), 2);
    let dead = &pool.members()[0];
    dead.start().unwrap();
    send(dead.pid().unwrap().as_raw(), Signal::SIGKILL);
    eventually("it waits for its restart", || dead.pid().is_none());
    thread::scope(|scope| {
        let first = scope.spawn(|| pool.call("echo", "first"));
        eventually("another one starts", || starts(&script) == 2);
        assert_eq!(pool.call("echo", "second").unwrap(), "second");
        assert_eq!(first.join().unwrap().unwrap(), "first");
    });
}

#[test]
fn a_call_that_may_be_made_twice_goes_to_another_one() {
    let pool = pool(reluctant(plain()), 2);
    pool.start().unwrap();
    thread::scope(|scope| {
        let call = scope.spawn(|| pool.request("sleep", "200").idempotent().wait_text());
        let busy = || {
            pool.members()
                .iter()
                .find(|member| member.plugin().unwrap().connection().stats().open_calls == 1)
        };
        eventually("it is open", || busy().is_some());
        send(busy().unwrap().pid().unwrap().as_raw(), Signal::SIGKILL);
        assert_eq!(call.join().unwrap().unwrap(), "200");
    });
    assert_eq!(running(&pool), 1);
}

#[test]
fn where_all_are_given_up_a_call_says_why() {
    let hopeless = pool(eager(Plugin::builder("/nonexistent/plugin")), 2);
    hopeless.start().unwrap_err();
    let error = hopeless.call("echo", "").unwrap_err();
    assert!(
        matches!(&error, SupervisedCallError::Unavailable(error) if matches!(error.kind(), UnavailableKind::GaveUp { .. })),
        "there is none left to start: {error}"
    );
    assert!(error.to_string().contains("plugin#"), "{error}");
}

#[test]
fn one_that_was_given_up_leaves_the_others_its_share() {
    // The second start is the last that succeeds.
    let script = Script::new(&format!(
        "mkdir \"$dir/1\" || mkdir \"$dir/2\" || exit 127; exec {MISBEHAVE} \"$1\" \"$2\" plain"
    ));
    let pool = pool(eager(script.builder()), 3);
    pool.start().unwrap_err();
    assert_eq!(running(&pool), 2);
    for i in 0..30 {
        assert_eq!(pool.call("echo", i.to_string()).unwrap(), i.to_string());
    }
}

#[test]
fn all_are_replaced_and_no_call_is_lost() {
    let pool = pool(Supervisor::builder(plain()), 3);
    pool.start().unwrap();
    let before: Vec<_> = pool.members().iter().map(Supervisor::pid).collect();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut calls = 0_usize;
                while !done.load(Ordering::SeqCst) {
                    let text = calls.to_string();
                    assert_eq!(pool.call("echo", &text).unwrap(), text);
                    calls += 1;
                }
                assert!(calls > 10);
            });
        }
        for _ in 0..5 {
            pool.restart().unwrap();
            pool.replace(&plain().arg0("another")).unwrap();
        }
        done.store(true, Ordering::SeqCst);
    });
    let names: Vec<_> = pool.members().iter().map(Supervisor::name).collect();
    assert_eq!(names, ["misbehave#0", "misbehave#1", "misbehave#2"]);
    assert!(pool.members().iter().zip(before).all(|(member, before)| member.pid() != before));
    pool.stop().unwrap();
    assert!(pool.call("echo", "").is_err());
}

#[test]
fn all_are_stopped_at_the_same_time() {
    for end in [|pool: Pool| pool.stop().unwrap(), |pool: Pool| drop(pool)] {
        let pool = pool(Supervisor::builder(misbehave(&["grace", "500"])), 4);
        pool.start().unwrap();
        let pids: Vec<_> =
            pool.members().iter().map(|member| member.pid().unwrap().as_raw()).collect();
        let open: Vec<_> = pool
            .members()
            .iter()
            .map(|member| member.request("never", "").begin().unwrap())
            .collect();
        eventually("all are at work", || open_calls(&pool) == [1; 4]);
        let begun = Instant::now();
        end(pool);
        assert!(begun.elapsed() < Duration::from_millis(1500), "{:?}", begun.elapsed());
        assert!(!pids.into_iter().any(is_running));
        drop(open);
    }
}
