//! Calls that are given up through a handle while their plugin starts, restarts or answers.

use std::num::NonZeroUsize;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use pipeplug_host::{
    Backoff, CallError, Caller, CancelHandle, Pool, Sent, SupervisedCallError, Supervisor,
};
use pipeplug_tests::{SOON, Script, eventually, send};

use crate::{MISBEHAVE, plain};

/// Time that a start takes.
const SLOW: Duration = Duration::from_secs(3);

/// Time after which a call waits.
const MOMENT: Duration = Duration::from_millis(100);

fn slow_start() -> Script {
    let seconds = SLOW.as_secs_f64();
    Script::new(&format!("sleep {seconds}\nexec {MISBEHAVE} \"$1\" \"$2\" plain"))
}

/// Starts quickly at first, and slowly from then on.
fn slow_restart() -> Script {
    let seconds = SLOW.as_secs_f64();
    Script::new(&format!(
        "[ -e \"$dir/again\" ] && sleep {seconds}\n: >\"$dir/again\"\n\
         exec {MISBEHAVE} \"$1\" \"$2\" plain"
    ))
}

fn within<T>(task: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(task)
}

/// Cancels a moment after `call` has begun, and returns its error, which comes at once.
fn cancelled<T: Send + std::fmt::Debug>(
    handle: &CancelHandle,
    call: impl FnOnce() -> Result<T, SupervisedCallError> + Send,
) -> Sent {
    thread::scope(|scope| {
        let calling = scope.spawn(call);
        thread::sleep(MOMENT);
        assert!(!calling.is_finished(), "it waits");
        let begun = Instant::now();
        handle.cancel();
        let error = calling.join().unwrap().unwrap_err();
        assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
        match error {
            SupervisedCallError::Call(CallError::Cancelled { sent, .. }) => sent,
            error => panic!("{error:?}"),
        }
    })
}

type Wait<C> = fn(&C, &CancelHandle) -> Result<(), SupervisedCallError>;

/// Every way to make a call that finds no plugin.
fn each_way<C>(caller: &C)
where
    C: Caller<CallError = SupervisedCallError> + Sync,
{
    let waits: [Wait<C>; 6] = [
        |caller, handle| caller.request("echo", "x").cancel_by(handle).wait().map(drop),
        |caller, handle| {
            caller.request("echo", "x").cancel_by(handle).idempotent().wait().map(drop)
        },
        |caller, handle| {
            let hour = Duration::from_secs(3600);
            caller.request("echo", "x").cancel_by(handle).timeout(hour).wait().map(drop)
        },
        |caller, handle| caller.request("echo", "x").cancel_by(handle).begin().map(drop),
        |caller, handle| caller.request("echo", "x").cancel_by(handle).stream().map(drop),
        |caller, handle| {
            within(caller.request("echo", "x").cancel_by(handle).into_future()).map(drop)
        },
    ];
    for wait in waits {
        let handle = CancelHandle::new();
        assert_eq!(cancelled(&handle, || wait(caller, &handle)), Sent::No);
    }
}

#[test]
fn a_call_is_given_up_while_its_plugin_starts() {
    let script = slow_start();
    let supervisor = Supervisor::builder(script.builder()).build().unwrap();
    each_way(&supervisor);
    // The start was the supervisor's, and went on.
    let handle = CancelHandle::new();
    let request = supervisor.request("echo", "x").cancel_by(&handle);
    assert_eq!(request.wait_text().unwrap(), "x");
    let pool = Pool::new(Supervisor::builder(script.builder()), NonZeroUsize::MIN).unwrap();
    each_way(&pool);
}

#[test]
fn a_handle_that_is_not_used_changes_nothing() {
    let pool = Pool::new(Supervisor::builder(plain()), NonZeroUsize::MIN).unwrap();
    let handle = CancelHandle::new();
    // It starts the plugin.
    let text = || pool.request("echo", "x").cancel_by(&handle).idempotent().wait_text();
    assert_eq!(text().unwrap(), "x");
    assert_eq!(text().unwrap(), "x");
    let script = slow_start();
    let late = Supervisor::builder(script.builder()).build().unwrap();
    let timed = late.request("echo", "x").cancel_by(&handle).timeout(MOMENT).wait().unwrap_err();
    assert!(timed.to_string().contains("did not get ready within 100ms"), "{timed}");
}

#[test]
fn a_cancel_ends_the_whole_of_a_call_that_is_repeated() {
    for is_awaited in [false, true] {
        let script = slow_restart();
        let backoff = Backoff::new(Duration::from_millis(1), Duration::from_millis(1));
        let supervisor =
            Supervisor::builder(script.builder()).backoff(backoff).retries(100).build().unwrap();
        supervisor.start().unwrap();
        let handle = CancelHandle::new();
        let call = || {
            let request = supervisor.request("until-cancelled", "").idempotent().cancel_by(&handle);
            if is_awaited { within(request.into_future()) } else { request.wait() }
        };
        thread::scope(|scope| {
            let calling = scope.spawn(call);
            let plugin = supervisor.plugin().unwrap();
            let has_begun = || plugin.call("seen", "").unwrap().contains("begun");
            eventually("it has begun", has_begun);
            send(plugin.pid().as_raw(), Signal::SIGKILL);
            eventually("that one has ended", || supervisor.pid().is_none());
            thread::sleep(MOMENT);
            assert!(!calling.is_finished(), "it waits for the next start");
            let begun = Instant::now();
            handle.cancel();
            let error = calling.join().unwrap().unwrap_err();
            assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
            let error = error.call_error().unwrap().clone();
            assert!(matches!(error, CallError::Cancelled { sent: Sent::Maybe, .. }), "{error:?}");
        });
        // Nor is it made on the next process.
        let plugin = supervisor.plugin().unwrap();
        assert_eq!(plugin.call("seen", "").unwrap(), "");
    }
}

#[test]
fn a_cancel_ends_an_attempt_and_no_other_follows() {
    let supervisor = Supervisor::builder(plain()).retries(100).build().unwrap();
    supervisor.start().unwrap();
    let handle = CancelHandle::new();
    let call = || supervisor.request("until-cancelled", "").idempotent().cancel_by(&handle).wait();
    assert_eq!(cancelled(&handle, call), Sent::Maybe);
    let plugin = supervisor.plugin().unwrap();
    eventually("its handler has learnt of it", || {
        plugin.call("seen", "").unwrap().lines().eq(["begun", "cancelled"])
    });
}
