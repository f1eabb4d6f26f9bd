//! A plugin that is kept running.

use std::fs;
use std::future::Future;
use std::path::Path;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Context, Poll, Wake};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use pipeplug_host::Options;
use pipeplug_host::{
    Backoff, Breaker, CallError, EndCause, Event, Grace, HealthCheck, Plugin, PluginFailure, Reply,
    Request, StartErrorKind, StoppedBy, SupervisedCallError, Supervisor, SupervisorBuilder,
    UnavailableKind, WaitStatus,
};
use pipeplug_testkit::ManualClock;
use pipeplug_tests::{LONG, SOON, Script, eventually, is_running, send};

use crate::{MISBEHAVE, misbehave, plain};

/// A wait that no test sees the end of.
const FOREVER: Duration = Duration::from_secs(3600);

/// Events of a supervised plugin.
#[derive(Clone, Default)]
pub(crate) struct Events(Arc<Mutex<Vec<Event>>>);

impl Events {
    pub(crate) fn of(&self, supervisor: SupervisorBuilder) -> SupervisorBuilder {
        let events = self.clone();
        supervisor.on_event(move |_, event| events.0.lock().unwrap().push(event.clone()))
    }

    pub(crate) fn count(&self, which: impl Fn(&Event) -> bool) -> usize {
        self.0.lock().unwrap().iter().filter(|event| which(event)).count()
    }

    pub(crate) fn started(&self) -> usize {
        self.count(|event| matches!(event, Event::Started { .. }))
    }

    fn kinds(&self) -> Vec<&'static str> {
        let kind = |event: &Event| match event {
            Event::Started { .. } => "started",
            Event::StartFailed { .. } => "start failed",
            Event::HealthFailure { .. } => "health failure",
            Event::IdleStop { .. } => "idle stop",
            Event::Replaced { .. } => "replaced",
            Event::Ended { .. } => "ended",
            Event::Restarting { .. } => "restarting",
            Event::GaveUp { .. } => "gave up",
            _ => "unknown",
        };
        self.0.lock().unwrap().iter().map(kind).collect()
    }

    #[track_caller]
    fn await_kinds(&self, kinds: &[&str]) {
        let deadline = Instant::now() + LONG;
        while self.kinds() != kinds {
            assert!(Instant::now() < deadline, "it is {:?}, not {kinds:?}", self.kinds());
            thread::sleep(Duration::from_millis(2));
        }
    }

    fn waits(&self) -> Vec<Duration> {
        let wait = |event: &Event| match event {
            Event::Restarting { after, .. } => Some(*after),
            _ => None,
        };
        self.0.lock().unwrap().iter().filter_map(wait).collect()
    }
}

fn millis(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// Supervisor that restarts almost at once.
pub(crate) fn eager(plugin: pipeplug_host::PluginBuilder) -> SupervisorBuilder {
    Supervisor::builder(plugin).backoff(Backoff::new(millis(1), millis(1)))
}

/// Supervisor whose first restart comes later than the end of any test.
pub(crate) fn reluctant(plugin: pipeplug_host::PluginBuilder) -> SupervisorBuilder {
    Supervisor::builder(plugin).backoff(Backoff::new(FOREVER, FOREVER))
}

/// A plugin that says in a file that it was started, does `first`, and is `misbehave` from then on.
fn script(first: &str) -> Script {
    Script::new(&format!(
        "echo started >>\"$dir/starts\"\n{first}\nexec {MISBEHAVE} \"$1\" \"$2\" plain"
    ))
}

pub(crate) fn starts(script: &Script) -> usize {
    fs::read_to_string(script.dir().join("starts")).map_or(0, |starts| starts.lines().count())
}

fn pid(supervisor: &Supervisor) -> i32 {
    supervisor.plugin().unwrap().pid().as_raw()
}

#[track_caller]
fn assert_closed(result: Result<String, SupervisedCallError>) {
    let error = result.unwrap_err();
    assert!(matches!(error, SupervisedCallError::Call(CallError::Closed { .. })), "{error}");
}

fn is_unavailable(error: &SupervisedCallError, is: impl Fn(&UnavailableKind) -> bool) -> bool {
    matches!(error, SupervisedCallError::Unavailable(error) if is(error.kind()))
}

#[test]
fn the_first_call_starts_it_once_for_all_who_wait() {
    let script = script("sleep 0.3");
    let supervisor = Supervisor::builder(script.builder()).build().unwrap();
    assert_eq!(supervisor.pid(), None);
    thread::scope(|scope| {
        for i in 0..20 {
            let supervisor = &supervisor;
            scope.spawn(move || {
                assert_eq!(supervisor.call("echo", i.to_string()).unwrap(), i.to_string());
            });
        }
    });
    assert_eq!(starts(&script), 1);
    let plugin = supervisor.plugin().unwrap();
    assert_eq!(supervisor.pid(), Some(plugin.pid()));
}

#[test]
fn all_who_wait_for_a_start_share_its_error() {
    let script = Script::new(
        "echo started >>\"$dir/starts\"; while ! [ -e \"$dir/go\" ]; do sleep 0.01; done; exit 3",
    );
    let supervisor = reluctant(script.builder()).build().unwrap();
    let errors: Vec<_> = thread::scope(|scope| {
        let calls: Vec<_> =
            (0..20).map(|_| scope.spawn(|| supervisor.call("echo", "").unwrap_err())).collect();
        eventually("it was started", || starts(&script) == 1);
        fs::write(script.dir().join("go"), "").unwrap();
        // Who comes too late for it waits for the next start, which never comes: let it be none.
        eventually("they have failed", || calls.iter().any(|call| call.is_finished()));
        supervisor.stop().unwrap();
        calls.into_iter().map(|call| call.join().unwrap()).collect()
    });
    let failed: Vec<_> = errors
        .iter()
        .filter_map(|error| match error {
            SupervisedCallError::Unavailable(error) => match error.kind() {
                UnavailableKind::Start(error) => Some(error),
                _ => None,
            },
            _ => None,
        })
        .collect();
    assert!(failed.len() > 1, "{errors:?}");
    assert!(failed.iter().all(|error| Arc::ptr_eq(error, failed[0])), "{failed:?}");
    assert!(matches!(failed[0].kind(), StartErrorKind::Exited { .. }), "{failed:?}");
    assert_eq!(starts(&script), 1);
}

#[test]
fn one_that_ends_is_started_anew_and_every_event_is_told_in_its_order() {
    let events = Events::default();
    let supervisor = events.of(eager(plain())).build().unwrap();
    let first = pid(&supervisor);
    assert_closed(supervisor.call("exit", "3"));
    // The restart needs no call.
    events.await_kinds(&["started", "ended", "restarting", "started"]);
    assert_ne!(pid(&supervisor), first);
    assert_eq!(supervisor.call("echo", "there").unwrap(), "there");
    let events = events.0.lock().unwrap();
    let Event::Ended { pid, status, cause, .. } = &events[1] else { unreachable!() };
    let expected = (first, Some(WaitStatus::Exited(3)), EndCause::Unasked);
    assert_eq!((pid.as_raw(), *status, *cause), expected);
}

#[test]
fn a_call_behind_the_one_that_failed_finds_the_next_process() {
    let supervisor = eager(plain()).breaker(Breaker::never()).build().unwrap();
    for i in 0..30 {
        match i % 3 {
            0 => assert_closed(supervisor.call("exit", "0")),
            1 => assert_closed(supervisor.call("abort", "")),
            _ => {
                let plugin = supervisor.plugin().unwrap();
                send(plugin.pid().as_raw(), Signal::SIGKILL);
                eventually("it has ended", || plugin.connection().close_reason().is_some());
            }
        }
        assert_eq!(supervisor.call("echo", "there").unwrap(), "there");
    }
}

#[test]
fn one_that_ends_right_behind_its_start_is_missed_at_no_time() {
    let script = Script::answering_after("echo started >>\"$dir/starts\"", "exit 5");
    let supervisor = eager(script.builder()).breaker(Breaker::new(30, LONG)).build().unwrap();
    // Some starts fail, since the plugin was gone that soon; the next one needs no call.
    let _ = supervisor.start();
    eventually("it is given up", || starts(&script) == 30);
}

#[test]
fn one_that_closes_its_pipe_and_runs_on_is_killed_and_started_anew() {
    let script = Script::answering(
        "if mkdir \"$dir/once\"; then exec 3<&- 4>&-; sleep 1000; else cat <&3; fi",
    );
    let events = Events::default();
    let supervisor =
        events.of(eager(script.builder().grace(Grace::each(millis(20))))).build().unwrap();
    let first = pid(&supervisor);
    events.await_kinds(&["started", "ended", "restarting", "started"]);
    eventually("the first one is gone", || !is_running(first));
}

#[test]
fn waits_grow_and_the_breaker_ends_them() {
    let events = Events::default();
    let mut backoff = Backoff::new(millis(10), millis(60));
    backoff.jitter = 0.0;
    let script = script("exit 3");
    let supervisor =
        Supervisor::builder(script.builder()).backoff(backoff).breaker(Breaker::new(6, FOREVER));
    let supervisor = events.of(supervisor).build().unwrap();
    let begun = Instant::now();
    let first = supervisor.start().unwrap_err();
    assert!(matches!(first.kind(), UnavailableKind::Start(_)), "{first:?}");
    eventually("it is given up", || events.kinds().last() == Some(&"gave up"));
    assert_eq!(events.waits(), [10, 20, 40, 60, 60].map(millis));
    assert!(begun.elapsed() >= millis(190), "{:?}", begun.elapsed());
    assert_eq!(starts(&script), 6);

    let error = supervisor.call("echo", "").unwrap_err();
    let SupervisedCallError::Unavailable(error) = &error else { panic!("{error:?}") };
    let UnavailableKind::GaveUp { after, last } = error.kind() else { panic!("{error:?}") };
    assert_eq!(*after, Some((6, FOREVER)));
    assert!(
        matches!(last, PluginFailure::Start(error) if matches!(error.kind(), StartErrorKind::Exited { .. })),
        "{last:?}"
    );
    let message = error.to_string();
    let expected = "plugin \"plugin\" is not started any more after 6 failures within 3600s, reset \
                    the supervisor once that is mended: ";
    assert!(message.starts_with(expected) && message.contains("exit status 3"), "{message}");
    assert_eq!(starts(&script), 6, "it is not even tried");

    supervisor.reset();
    supervisor.start().unwrap_err();
    assert_eq!(starts(&script), 7);
}

#[test]
fn a_call_waits_for_a_restart_so_long_and_no_longer() {
    for wait in [Duration::ZERO, millis(50)] {
        let supervisor = reluctant(plain()).ready_timeout(wait).build().unwrap();
        // It starts the plugin itself, whatever it would wait for others.
        assert_closed(supervisor.call("exit", "3"));
        let begun = Instant::now();
        eventually("it waits for its restart", || {
            let error = supervisor.call("echo", "").unwrap_err().to_string();
            error.starts_with(&format!("plugin \"misbehave\" did not get ready within {wait:?}"))
                && error.contains(
                    "the last failure: misbehave has ended: exit status 3; misbehave (process ",
                )
        });
        assert!(begun.elapsed() >= wait && begun.elapsed() < SOON, "{:?}", begun.elapsed());
        supervisor.reset();
        assert_eq!(supervisor.call("echo", "there").unwrap(), "there");
    }
}

#[test]
fn one_that_ran_long_enough_is_waited_for_as_at_first() {
    let events = Events::default();
    let mut backoff = Backoff::new(millis(1), FOREVER);
    backoff.jitter = 0.0;
    backoff.factor = 1e9;
    backoff.reset_after = millis(1);
    let supervisor = events.of(Supervisor::builder(plain()).backoff(backoff)).build().unwrap();
    for _ in 0..3 {
        supervisor.call("sleep", "5").unwrap();
        assert_closed(supervisor.call("exit", "1"));
    }
    supervisor.start().unwrap();
    eventually("all was told", || events.started() == 4);
    assert_eq!(events.waits(), [millis(1); 3]);
}

#[test]
fn what_a_restart_cannot_heal_is_tried_once() {
    let exits = |code: i32| script(&format!("exit {code}"));
    let scripts = [exits(126), exits(127)];
    let builders = scripts.iter().map(Script::builder).chain([
        Plugin::builder("/nonexistent/plugin"),
        Plugin::builder("/etc/passwd"),
        plain().current_dir("/nonexistent"),
    ]);
    for builder in builders {
        let events = Events::default();
        let supervisor = events.of(eager(builder)).build().unwrap();
        let error = supervisor.start().unwrap_err();
        let UnavailableKind::Start(error) = error.kind() else { panic!("{error:?}") };
        assert!(error.is_permanent(), "{error}");
        events.await_kinds(&["start failed", "gave up"]);
        let again = supervisor.call("echo", "").unwrap_err().to_string();
        assert!(
            again.contains("is not started any more since that would not help, reset"),
            "{again}"
        );
        assert!(again.ends_with(&error.to_string()), "{again}");
    }
    assert!(scripts.iter().all(|script| starts(script) == 1));

    // Also where it had been started.
    let events = Events::default();
    let supervisor = events.of(eager(plain())).build().unwrap();
    assert_closed(supervisor.call("exit", "127"));
    events.await_kinds(&["started", "ended", "gave up"]);
}

#[test]
fn a_file_that_is_away_during_an_upgrade_is_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("plugin");
    let install = || std::os::unix::fs::symlink(MISBEHAVE, &path).unwrap();
    let failed = |events: &Events| events.count(|event| matches!(event, Event::StartFailed { .. }));
    install();
    let events = Events::default();
    // The failures of an upgrade are none for the breaker.
    let supervisor = eager(Plugin::builder(&path)).breaker(Breaker::new(2, FOREVER));
    let supervisor = events.of(supervisor).build().unwrap();
    supervisor.start().unwrap();
    fs::remove_file(&path).unwrap();
    assert_closed(supervisor.call("exit", "1"));
    eventually("it was tried again", || failed(&events) >= 5);
    fs::write(&path, "").unwrap();
    let before = failed(&events);
    eventually("it was tried without its mode", || failed(&events) >= before + 2);
    fs::remove_file(&path).unwrap();
    install();
    eventually("it runs", || supervisor.pid().is_some());
    assert_eq!(supervisor.call("echo", "x").unwrap(), "x");

    let events = Events::default();
    let supervisor =
        events.of(eager(Plugin::builder(&path)).upgrade_timeout(Duration::ZERO)).build().unwrap();
    supervisor.start().unwrap();
    fs::remove_file(&path).unwrap();
    assert_closed(supervisor.call("exit", "1"));
    events.await_kinds(&["started", "ended", "restarting", "start failed", "gave up"]);
}

#[test]
fn what_may_be_otherwise_next_time_is_tried_again() {
    let script = script("mkdir \"$dir/once\" && exit 3");
    let supervisor = eager(script.builder()).build().unwrap();
    supervisor.start().unwrap_err();
    eventually("it runs", || supervisor.pid().is_some());
    assert_eq!(starts(&script), 2);
}

const CHECK: Duration = Duration::from_millis(800);

#[test]
fn one_that_hangs_is_killed_and_replaced() {
    for full in [false, true] {
        let events = Events::default();
        let mut options = Options::default();
        options.outgoing = 1 << 16;
        let supervisor =
            eager(plain().options(options)).health_check(HealthCheck::new(millis(20), CHECK));
        let supervisor = events.of(supervisor).build().unwrap();
        let plugin = supervisor.plugin().unwrap();
        send(plugin.pid().as_raw(), Signal::SIGSTOP);
        let begun = Instant::now();
        let call = supervisor.request("never", "").begin().unwrap();
        // Everything that can wait precedes the ping.
        let fills = full.then(|| {
            let supervisor = supervisor.clone();
            thread::spawn(move || while supervisor.notify("count", vec![0; 1 << 14]).is_ok() {})
        });
        if full {
            eventually("nothing more can be sent", || {
                plugin.connection().stats().queued >= 1 << 16
            });
        }
        let error = call.wait_timeout(LONG).unwrap_err().to_string();
        let expected =
            "never: no reply, misbehave did not answer a ping within 800ms and was killed";
        assert!(error.starts_with(expected), "{error}");
        assert!(begun.elapsed() < CHECK + SOON, "{:?}", begun.elapsed());
        eventually("another one runs", || events.started() == 2);
        assert_eq!(
            &events.kinds()[..5],
            ["started", "health failure", "ended", "restarting", "started"]
        );
        let killed = WaitStatus::Signaled { signal: 9, core_dumped: false };
        assert_eq!(plugin.status(), Some(killed));
        drop(plugin);
        supervisor.stop().unwrap();
        fills.into_iter().for_each(|fills| fills.join().unwrap());
    }
}

#[test]
fn one_that_hangs_is_found_by_a_clock_that_a_test_advances() {
    let (events, clock) = (Events::default(), ManualClock::new());
    let check = HealthCheck::new(2 * FOREVER, FOREVER);
    let supervisor = eager(plain().clock(&clock)).health_check(check);
    let supervisor = events.of(supervisor).build().unwrap();
    let first = pid(&supervisor);
    for _ in 0..6 {
        clock.advance(FOREVER);
        // Answered after the ping, if there was one.
        supervisor.call("echo", "").unwrap();
    }
    assert_eq!((pid(&supervisor), events.started()), (first, 1));
    send(first, Signal::SIGSTOP);
    let call = supervisor.request("never", "").begin().unwrap();
    for _ in 0..3 {
        clock.advance(FOREVER);
    }
    eventually("another one runs", || events.started() == 2);
    assert_eq!(events.count(|event| matches!(event, Event::HealthFailure { .. })), 1);
    let error = call.wait().unwrap_err().to_string();
    assert!(error.contains("did not answer a ping within 3600s and was killed"), "{error}");
    supervisor.stop().unwrap();
}

#[test]
fn one_whose_handlers_are_slow_does_not_hang() {
    let events = Events::default();
    let supervisor = eager(plain()).health_check(HealthCheck::new(millis(1), CHECK));
    let supervisor = events.of(supervisor).build().unwrap();
    let first = pid(&supervisor);
    let many: Vec<_> =
        (0..50).map(|_| supervisor.request("sleep", "2500").begin().unwrap()).collect();
    for call in many {
        call.wait_timeout(LONG).unwrap();
    }
    assert_eq!(pid(&supervisor), first);
    assert_eq!(events.kinds(), ["started"]);
}

const IDLE: Duration = Duration::from_millis(300);

#[test]
fn one_that_nobody_calls_is_stopped_until_somebody_does() {
    let events = Events::default();
    let supervisor = events.of(Supervisor::builder(plain()).idle_timeout(IDLE)).build().unwrap();
    let begun = Instant::now();
    let first = pid(&supervisor);
    eventually("it was stopped", || supervisor.pid().is_none());
    assert!(begun.elapsed() >= IDLE, "{:?}", begun.elapsed());
    events.await_kinds(&["started", "idle stop", "ended"]);
    assert!(!is_running(first));
    {
        let events = events.0.lock().unwrap();
        let Event::Ended { status, cause, .. } = &events[2] else { unreachable!() };
        assert_eq!((*status, *cause), (Some(WaitStatus::Exited(0)), EndCause::Idle));
    }

    // A call that takes longer than that is no idleness, nor is what is left of the time behind it.
    let second = pid(&supervisor);
    supervisor.call("sleep", "900").unwrap();
    let ended = Instant::now();
    assert_eq!(supervisor.pid().map(|pid| pid.as_raw()), Some(second));
    eventually("it was stopped again", || supervisor.pid().is_none());
    assert!(ended.elapsed() >= IDLE - millis(10), "{:?}", ended.elapsed());

    // One call after the other, each shorter than that, keep it.
    let third = pid(&supervisor);
    for _ in 0..60 {
        supervisor.call("sleep", "10").unwrap();
    }
    assert_eq!(pid(&supervisor), third);
}

#[test]
fn a_call_is_made_again_only_where_its_caller_said_so() {
    let events = Events::default();
    let supervisor = events.of(eager(plain())).build().unwrap();
    assert_closed(supervisor.call("exit", "1"));
    supervisor.start().unwrap();
    eventually("it was made once", || events.started() == 2);
    // Three attempts, each with a process of its own.
    assert_closed(supervisor.request("exit", "1").idempotent().wait_text());
    supervisor.start().unwrap();
    eventually("it was made three times", || events.started() == 5);

    // What the plugin answers is an answer.
    let refused = supervisor.request("no-such-command", "").idempotent().wait_text().unwrap_err();
    assert!(matches!(refused, SupervisedCallError::Call(CallError::Remote { .. })), "{refused}");
    assert_eq!(events.started(), 5);
}

#[test]
fn a_call_that_may_be_made_twice_survives_the_death_of_its_plugin() {
    let supervisor = eager(plain()).build().unwrap();
    let plugin = supervisor.plugin().unwrap();
    thread::scope(|scope| {
        let call = scope.spawn(|| supervisor.request("sleep", "100").idempotent().wait_text());
        eventually("it is open", || plugin.connection().stats().open_calls == 1);
        send(plugin.pid().as_raw(), Signal::SIGKILL);
        assert_eq!(call.join().unwrap().unwrap(), "100");
    });
    assert_ne!(supervisor.pid(), Some(plugin.pid()));
}

/// Kills itself as it starts the first two times.
fn killed_at_its_start() -> Script {
    script(
        "[ -e \"$dir/twice\" ] || { [ -e \"$dir/once\" ] && : >\"$dir/twice\"; : >\"$dir/once\"; \
         kill -KILL $$; }",
    )
}

#[test]
fn a_call_that_may_be_made_twice_survives_a_start_that_is_killed() {
    let script = killed_at_its_start();
    let supervisor = eager(script.builder()).build().unwrap();
    assert_eq!(supervisor.request("echo", "there").idempotent().wait_text().unwrap(), "there");
    assert_eq!(starts(&script), 3);

    // Any other does not, nor one whose attempts are over.
    for (retries, ends_well) in [(0, false), (1, false), (2, true)] {
        let script = killed_at_its_start();
        let supervisor = eager(script.builder()).retries(retries).build().unwrap();
        let called = supervisor.request("echo", "there").idempotent().wait_text();
        assert_eq!(called.is_ok(), ends_well, "{retries}: {called:?}");
    }
    let script = killed_at_its_start();
    let error = reluctant(script.builder()).build().unwrap().call("echo", "").unwrap_err();
    assert!(is_unavailable(&error, |kind| matches!(kind, UnavailableKind::Start(_))), "{error}");
    assert_eq!(starts(&script), 1);

    // The one under way may be the restart of one that was killed itself.
    let script = Script::new(&format!(
        "echo started >>\"$dir/starts\"; [ $(wc -l <\"$dir/starts\") = 2 ] && kill -KILL $$\nexec \
         {MISBEHAVE} \"$1\" \"$2\" plain"
    ));
    let supervisor = eager(script.builder()).build().unwrap();
    let plugin = supervisor.plugin().unwrap();
    thread::scope(|scope| {
        let call = scope.spawn(|| supervisor.request("sleep", "100").idempotent().wait_text());
        eventually("it is open", || plugin.connection().stats().open_calls == 1);
        send(plugin.pid().as_raw(), Signal::SIGKILL);
        assert_eq!(call.join().unwrap().unwrap(), "100");
    });
    assert_eq!(starts(&script), 3);
}

#[test]
fn what_a_service_manager_ends_with_its_host_is_not_restarted_at_once() {
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        let events = Events::default();
        let supervisor = events.of(eager(plain()).shutdown_wait(FOREVER)).build().unwrap();
        send(pid(&supervisor), signal);
        events.await_kinds(&["started", "ended", "restarting"]);
        assert_eq!(events.waits(), [FOREVER], "{signal}");
        // The host is stopped too, and nothing runs or is started.
        assert!(supervisor.stop().unwrap().is_none());
        assert_eq!(events.started(), 1, "{signal}");
    }
    // That is what a shell ends with whose child was sent it too, and the start may be what is
    // ended.
    for ends in ["kill -TERM $$", "exit 143"] {
        let script = script(ends);
        let events = Events::default();
        let supervisor = events.of(eager(script.builder())).build().unwrap();
        supervisor.start().unwrap_err();
        eventually("it waits", || !events.waits().is_empty());
        assert_eq!(events.waits(), [millis(500)], "{ends}");
    }
    // Any other end is a crash, and a longer wait stays what it is.
    let events = Events::default();
    let supervisor = events.of(eager(plain()).shutdown_wait(FOREVER)).build().unwrap();
    send(pid(&supervisor), Signal::SIGKILL);
    events.await_kinds(&["started", "ended", "restarting", "started"]);
    let events = Events::default();
    let supervisor = events.of(reluctant(plain()).shutdown_wait(Duration::ZERO)).build().unwrap();
    send(pid(&supervisor), Signal::SIGTERM);
    events.await_kinds(&["started", "ended", "restarting"]);
    assert!(events.waits()[0] > FOREVER / 2);
}

#[test]
fn a_stopped_one_is_started_by_nobody_but_its_owner() {
    let events = Events::default();
    let supervisor = events.of(eager(plain())).build().unwrap();
    assert!(supervisor.stop().unwrap().is_none(), "nothing ran");
    supervisor.start().unwrap();
    let first = pid(&supervisor);
    let stopped = supervisor.stop().unwrap().unwrap();
    assert_eq!((stopped.by, stopped.status), (StoppedBy::Stop, WaitStatus::Exited(0)));
    assert!(!is_running(first));
    let error = supervisor.call("echo", "").unwrap_err().to_string();
    assert_eq!(error, "plugin \"misbehave\" was stopped, start its supervisor again to call it");
    assert!(supervisor.restart().is_err());
    supervisor.start().unwrap();
    assert_eq!(supervisor.call("echo", "again").unwrap(), "again");
    events.await_kinds(&["started", "ended", "started"]);
}

#[test]
fn a_stop_ends_a_start_that_is_under_way() {
    let script = Script::new("echo $$ >\"$dir/new\"; mv \"$dir/new\" \"$dir/pid\"; sleep 1000");
    let supervisor = eager(script.builder()).build().unwrap();
    let waits = supervisor.clone();
    let waiting = thread::spawn(move || waits.call("echo", "").unwrap_err());
    let process = pid_in(&script.dir().join("pid"));
    let begun = Instant::now();
    supervisor.stop().unwrap();
    let error = waiting.join().unwrap();
    assert!(is_unavailable(&error, |kind| matches!(kind, UnavailableKind::Stopped)), "{error}");
    assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
    assert!(!is_running(process));
}

fn pid_in(file: &Path) -> i32 {
    eventually("it says its process id", || file.exists());
    fs::read_to_string(file).unwrap().trim().parse().unwrap()
}

#[test]
fn dropping_the_last_handle_stops_it() {
    let supervisor = Supervisor::builder(plain()).build().unwrap();
    let pid = pid(&supervisor);
    drop(supervisor.clone());
    assert!(is_running(pid));
    drop(supervisor);
    assert!(!is_running(pid));
}

#[test]
fn a_hook_may_block_panic_and_use_the_supervisor() {
    let (tell, told) = mpsc::channel();
    let shared: Arc<Mutex<Option<Supervisor>>> = Arc::default();
    let of_hook = Arc::clone(&shared);
    let is_first = AtomicBool::new(true);
    let supervisor = eager(plain())
        .on_event(move |name, event| {
            assert_eq!(name, "misbehave");
            let supervisor = of_hook.lock().unwrap().clone().unwrap();
            if let Event::Started { .. } = event {
                tell.send(supervisor.call("echo", "from the hook").unwrap()).unwrap();
                if is_first.swap(false, Ordering::SeqCst) {
                    panic!("one of a hook's own");
                }
            }
        })
        .build()
        .unwrap();
    *shared.lock().unwrap() = Some(supervisor.clone());
    supervisor.start().unwrap();
    assert_eq!(told.recv_timeout(LONG).unwrap(), "from the hook");
    assert_closed(supervisor.call("exit", "1"));
    assert_eq!(told.recv_timeout(LONG).unwrap(), "from the hook");
    shared.lock().unwrap().take();
}

#[test]
fn calls_can_be_awaited() {
    let supervisor = Supervisor::builder(plain()).build().unwrap();
    let mut call = pin!(supervisor.request("sleep", "20").begin().unwrap());
    let waker = Arc::new(Unpark(thread::current())).into();
    let mut context = Context::from_waker(&waker);
    let reply = loop {
        match call.as_mut().poll(&mut context) {
            Poll::Ready(reply) => break reply,
            Poll::Pending => thread::park_timeout(LONG),
        }
    };
    assert_eq!(reply.unwrap(), b"20");
}

struct Unpark(thread::Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

#[test]
fn a_hook_that_panics_as_it_starts_is_not_waited_for() {
    let panics = AtomicBool::new(true);
    let plugin =
        plain().on_spawn(move |_| assert!(!panics.swap(false, Ordering::SeqCst), "not today"));
    let supervisor = Supervisor::builder(plugin).build().unwrap();
    thread::scope(|scope| {
        assert!(scope.spawn(|| supervisor.start()).join().is_err(), "it did not panic");
    });
    assert_eq!(supervisor.call("echo", "hello").unwrap(), "hello");
}

#[test]
fn one_that_could_not_be_asked_for_a_while_is_asked_again() {
    let events = Events::default();
    let mut options = Options::default();
    (options.window, options.overrun) = (4 << 10, 16 << 10);
    let (go, may_go) = mpsc::channel::<()>();
    let may_go = Mutex::new(may_go);
    let plugin = misbehave(&["floods", "", "one-ways"]).options(options).handler(
        move |_: &Plugin, _: &mut Request| {
            // Until there is no sender any more.
            let _ = may_go.lock().unwrap().recv();
            Ok(Reply::empty())
        },
    );
    let check = HealthCheck::new(millis(200), millis(100));
    let supervisor = events.of(eager(plugin)).health_check(check).build().unwrap();
    let error = supervisor.call("flood", "").unwrap_err();
    assert!(matches!(error, SupervisedCallError::Call(CallError::Overrun { .. })), "{error}");
    thread::sleep(2 * check.interval);
    send(pid(&supervisor), Signal::SIGSTOP);
    drop(go);
    eventually("it is found to hang", || {
        events.count(|event| matches!(event, Event::HealthFailure { .. })) > 0
    });
}

#[test]
fn a_call_with_a_time_of_its_own_waits_no_longer_for_a_start() {
    let script = script("while ! [ -e \"$dir/go\" ]; do sleep 0.01; done");
    let supervisor =
        Supervisor::builder(script.builder()).ready_timeout(Duration::ZERO).build().unwrap();
    for first in [true, false] {
        let error = supervisor.request("echo", "").timeout(millis(50)).wait_text().unwrap_err();
        let timed_out = |after: &Duration| *after == millis(50);
        assert!(
            is_unavailable(
                &error,
                |kind| matches!(kind, UnavailableKind::NotReady { after, .. } if timed_out(after))
            ),
            "{first}: {error}"
        );
    }
    fs::write(script.dir().join("go"), "").unwrap();
    // The start has gone on, and the plugin is told of the time that is left.
    let left: u128 =
        supervisor.request("left", "").timeout(LONG).wait_text().unwrap().parse().unwrap();
    assert!((1..=LONG.as_millis()).contains(&left), "{left}");
    assert_eq!(starts(&script), 1);
    let late = supervisor.request("sleep", "200").timeout(millis(20)).begin().unwrap();
    assert!(matches!(late.wait(), Err(SupervisedCallError::Call(CallError::TimedOut { .. }))));
}
