//! Statements of docs/async.md.

use std::fs;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use pipeplug_host::{
    Backoff, CallError, Caller, Grace, Options, PendingReply as _, Plugin, PluginBuilder, Pool,
    Reply, Supervisor, Unavailable, UnavailableKind,
};
use pipeplug_tests::{LONG, SOON, Script, eventually, is_running, send};

use crate::{MISBEHAVE, plain};

/// Longer than a task may take that must not block, and shorter than a test may take.
const SLOW: Duration = Duration::from_millis(1500);

/// A runtime of one thread, which anything that blocks stops.
fn within<T>(task: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(task)
}

/// Fails where the runtime stands still for a moment while the future is awaited.
async fn beside_a_heart<T>(task: impl Future<Output = T>) -> T {
    let beats = async {
        loop {
            let begun = Instant::now();
            tokio::time::sleep(Duration::from_millis(5)).await;
            assert!(begun.elapsed() < SOON, "the runtime stood still for {:?}", begun.elapsed());
        }
    };
    // In this order: a beat that is late because of the task is seen before the task's end.
    tokio::select! {
        biased;
        never = beats => never,
        done = task => done,
    }
}

fn saw(plugin: &Plugin, what: &str) -> bool {
    plugin.call("seen", "").unwrap().lines().any(|line| line == what)
}

/// A plugin that takes its time to start.
fn slow_start() -> Script {
    let seconds = SLOW.as_secs_f64();
    Script::new(&format!("sleep {seconds}\nexec {MISBEHAVE} \"$1\" \"$2\" plain"))
}

/// The same, and the place for the process id of the last one that was started.
fn with_pid(builder: PluginBuilder) -> (PluginBuilder, Arc<Mutex<Option<i32>>>) {
    let pid = Arc::new(Mutex::new(None));
    let noted = Arc::clone(&pid);
    let on_spawn = move |plugin: &Plugin| *noted.lock().unwrap() = Some(plugin.pid().as_raw());
    (builder.on_spawn(on_spawn), pid)
}

/// Leaves a beat of the heart to what was awaited last.
async fn beat() {
    tokio::time::sleep(Duration::from_millis(20)).await;
}

#[test]
fn a_slow_start_is_awaited() {
    let script = slow_start();
    within(beside_a_heart(async {
        let begun = Instant::now();
        let plugin = script.builder().start_async().await.unwrap();
        assert!(begun.elapsed() >= SLOW);
        assert_eq!(plugin.call_async("echo", "x").await.unwrap(), "x");
        plugin.stop_async().await.unwrap();
        beat().await;
    }));
}

#[test]
fn a_start_that_fails_is_an_error_of_the_future() {
    within(beside_a_heart(async {
        let error = Plugin::builder("/nonexistent/plugin").start_async().await.unwrap_err();
        assert!(error.to_string().contains("/nonexistent/plugin"), "{error}");
    }));
}

#[test]
fn a_start_that_no_task_awaits_any_more_leaves_no_process() {
    let script = slow_start();
    let (builder, pid) = with_pid(script.builder());
    within(beside_a_heart(async {
        let start = tokio::spawn(builder.start_async());
        while pid.lock().unwrap().is_none() {
            beat().await;
        }
        start.abort();
        assert!(start.await.unwrap_err().is_cancelled());
    }));
    let pid = pid.lock().unwrap().unwrap();
    eventually("it is killed and reaped", || !is_running(pid));
}

#[test]
fn a_call_that_is_dropped_ends_the_work_of_the_plugin() {
    let plugin = plain().start().unwrap();
    within(beside_a_heart(async {
        let call = plugin.request("until-cancelled", "").into_future();
        tokio::time::timeout(Duration::from_millis(50), call).await.unwrap_err();
        let owned = plugin.clone();
        let task = tokio::spawn(async move { owned.request("until-cancelled", "").await });
        beat().await;
        task.abort();
        assert!(task.await.unwrap_err().is_cancelled());
    }));
    eventually("both were cancelled", || {
        plugin.call("seen", "").unwrap().matches("cancelled").count() == 2
    });
    assert!(!saw(&plugin, "not cancelled"));
    plugin.stop().unwrap();
}

#[test]
fn a_call_is_sent_when_it_is_polled_first() {
    let plugin = plain().start().unwrap();
    within(beside_a_heart(async {
        let call = plugin.request("count", "").into_future();
        assert_eq!(plugin.call_async("counted", "").await.unwrap(), "0");
        call.await.unwrap();
        assert_eq!(plugin.call_async("counted", "").await.unwrap(), "1");
    }));
    plugin.stop().unwrap();
}

/// Stops it by a signal, so that it reads nothing.
fn halt(plugin: &Plugin) {
    send(plugin.pid().as_raw(), Signal::SIGSTOP);
    eventually("it stands still", || plugin.stopped_by().is_some());
}

/// A plugin with little room, and what it takes to fill that.
fn with_little_room() -> PluginBuilder {
    let mut options = Options::default();
    options.outgoing = 64 << 10;
    plain().options(options)
}

#[test]
fn calls_and_one_ways_that_wait_for_room_block_no_task() {
    let plugin = with_little_room().start().unwrap();
    halt(&plugin);
    within(beside_a_heart(async {
        let calls: Vec<_> = (0..200_u8)
            .map(|number| {
                let plugin = plugin.clone();
                tokio::spawn(async move {
                    let body = vec![number; 50_000];
                    plugin.notify_async("count", "").await.unwrap();
                    let reply = plugin.request("echo", &body).timeout(LONG).await.unwrap();
                    assert_eq!(reply, body);
                })
            })
            .collect();
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert!(plugin.connection().stats().queued < 1 << 20);
        assert!(calls.iter().any(|call| !call.is_finished()));
        // A limit of its own passes meanwhile.
        let late = plugin.request("echo", "x").timeout(Duration::from_millis(50)).await;
        assert!(matches!(late, Err(CallError::NotSent { .. })), "{late:?}");
        let now = plugin.request("echo", "x").nonblocking().await;
        assert!(matches!(now, Err(CallError::WouldBlock { .. })), "{now:?}");
        send(plugin.pid().as_raw(), Signal::SIGCONT);
        for call in calls {
            call.await.unwrap();
        }
        while plugin.call_async("counted", "").await.unwrap() != "200" {
            beat().await;
        }
        assert_eq!(plugin.connection().stats().open_calls, 0);
    }));
    plugin.stop().unwrap();
}

#[test]
fn what_is_dropped_while_it_waits_for_room_is_not_sent() {
    let plugin = with_little_room().start().unwrap();
    halt(&plugin);
    within(beside_a_heart(async {
        let filling: Vec<_> = (0..10)
            .map(|_| {
                let plugin = plugin.clone();
                tokio::spawn(async move { plugin.request("echo", vec![0; 50_000]).await })
            })
            .collect();
        beat().await;
        let none = Duration::from_millis(50);
        tokio::time::timeout(none, plugin.request("count", "").into_future()).await.unwrap_err();
        tokio::time::timeout(none, plugin.notify_async("count", "")).await.unwrap_err();
        tokio::time::timeout(none, plugin.request("count", "").stream_async()).await.unwrap_err();
        send(plugin.pid().as_raw(), Signal::SIGCONT);
        for call in filling {
            call.await.unwrap().unwrap();
        }
        assert_eq!(plugin.call_async("counted", "").await.unwrap(), "0");
        assert_eq!(plugin.connection().stats().open_calls, 0);
    }));
    plugin.stop().unwrap();
}

#[test]
fn those_that_wait_for_room_learn_of_the_end() {
    let plugin = with_little_room().start().unwrap();
    halt(&plugin);
    within(beside_a_heart(async {
        let calls: Vec<_> = (0..10)
            .map(|_| {
                let plugin = plugin.clone();
                tokio::spawn(async move {
                    let call = plugin.request("echo", vec![0; 50_000]).await;
                    (
                        call.map(drop).unwrap_err(),
                        plugin.notify_async("count", "").await.unwrap_err(),
                    )
                })
            })
            .collect();
        beat().await;
        plugin.kill_async().await.unwrap();
        for call in calls {
            let (call, one_way) = call.await.unwrap();
            assert!(call.to_string().contains("(SIGKILL)"), "{call}");
            assert!(one_way.to_string().contains("(SIGKILL)"), "{one_way}");
        }
        drop(plugin);
        beat().await;
    }));
}

/// A plugin that does not end when it is asked to.
async fn stubborn(builder: PluginBuilder) -> Plugin {
    let plugin = builder.grace(Grace::each(SLOW)).start_async().await.unwrap();
    let never = plugin.request("never", "").begin_async().await.unwrap();
    beat().await;
    std::mem::forget(never);
    plugin
}

#[test]
fn a_slow_stop_is_awaited_and_the_last_handle_stops_in_the_background() {
    within(beside_a_heart(async {
        let plugin = stubborn(plain()).await;
        let begun = Instant::now();
        plugin.stop_async().await.unwrap();
        assert!(begun.elapsed() >= SLOW);
        let plugin = stubborn(plain()).await;
        let pid = plugin.pid().as_raw();
        drop(plugin);
        assert!(is_running(pid));
        beat().await;
        while is_running(pid) {
            beat().await;
        }
    }));
}

#[test]
fn the_last_handle_of_a_supervisor_or_pool_stops_in_the_background() {
    within(beside_a_heart(async {
        let slow = || Supervisor::builder(plain().grace(Grace::each(SLOW)));
        let supervisor = slow().build().unwrap();
        supervisor.start_async().await.unwrap();
        let never = supervisor.request("never", "").begin_async().await.unwrap();
        let pid = supervisor.pid().unwrap().as_raw();
        beat().await;
        drop(supervisor);
        beat().await;
        let pool = Pool::new(slow(), NonZeroUsize::new(2).unwrap()).unwrap();
        pool.start_async().await.unwrap();
        let mut pids: Vec<_> =
            pool.members().iter().map(|member| member.pid().unwrap().as_raw()).collect();
        let calls = [
            pool.request("never", "").begin_async().await.unwrap(),
            pool.request("never", "").begin_async().await.unwrap(),
        ];
        beat().await;
        drop(pool);
        beat().await;
        pids.push(pid);
        while pids.iter().any(|pid| is_running(*pid)) {
            beat().await;
        }
        drop((never, calls));
    }));
}

/// Has it work on a request, so that it does not end when it is asked to. Awaits nothing.
fn busy<C: Caller>(caller: &C) -> C::Pending
where
    C::CallError: std::fmt::Debug,
{
    let never = caller.request("never", "").begin().unwrap();
    caller.call("echo", "").unwrap();
    never
}

#[test]
fn what_was_never_awaited_can_be_stopped_in_the_background() {
    let slow = || plain().grace(Grace::each(SLOW));
    let two = NonZeroUsize::new(2).unwrap();
    // All of it on this thread, which may block.
    let plugin = slow().stop_in_background().start().unwrap();
    let answering = slow().async_handler(|_| (), |_, _| async { Ok(Reply::empty()) });
    let answering = answering.start().unwrap();
    let supervisor = Supervisor::builder(slow().stop_in_background()).build().unwrap();
    supervisor.start().unwrap();
    let polled = Supervisor::builder(slow()).build().unwrap();
    polled.start().unwrap();
    let pool = Pool::new(Supervisor::builder(slow().stop_in_background()), two).unwrap();
    pool.start().unwrap();
    let calls = [busy(&plugin), busy(&answering)];
    let supervised = [busy(&supervisor), busy(&pool)];
    let mut awaited = busy(&polled);
    let mut pids = vec![plugin.pid(), answering.pid()];
    pids.extend([supervisor.pid().unwrap(), polled.pid().unwrap()]);
    pids.extend(pool.members().iter().map(|member| member.pid().unwrap()));
    within(beside_a_heart(async {
        tokio::time::timeout(Duration::from_millis(1), &mut awaited).await.unwrap_err();
        drop((plugin, answering));
        beat().await;
        drop(supervisor);
        beat().await;
        drop(polled);
        beat().await;
        drop(pool);
        beat().await;
        while pids.iter().any(|pid| is_running(pid.as_raw())) {
            beat().await;
        }
    }));
    drop((calls, supervised, awaited));
}

#[test]
fn what_was_never_awaited_has_ended_when_the_drop_returns() {
    let plugin = plain().start().unwrap();
    let supervisor = Supervisor::builder(plain()).build().unwrap();
    supervisor.start().unwrap();
    let pids = [plugin.pid(), supervisor.pid().unwrap()];
    drop((plugin, supervisor));
    assert!(pids.iter().all(|pid| !is_running(pid.as_raw())));
}

#[test]
fn calls_await_the_start_of_a_supervised_plugin() {
    let script = slow_start();
    let supervisor = Supervisor::builder(script.builder()).build().unwrap();
    within(beside_a_heart(async {
        let calls: Vec<_> = (0..20)
            .map(|_| {
                let supervisor = supervisor.clone();
                tokio::spawn(async move { supervisor.call_async("echo", "x").await })
            })
            .collect();
        let short = Duration::from_millis(50);
        let error = supervisor.request("echo", "x").timeout(short).await.unwrap_err();
        assert!(error.to_string().contains("50ms"), "{error}");
        for call in calls {
            assert_eq!(call.await.unwrap().unwrap(), "x");
        }
        supervisor.notify_async("count", "").await.unwrap();
        // Handlers run concurrently.
        while supervisor.call_async("counted", "").await.unwrap() != "1" {
            beat().await;
        }
        supervisor.stop_async().await.unwrap();
        let error = supervisor.call_async("echo", "x").await.unwrap_err();
        assert!(error.to_string().contains("was stopped"), "{error}");
        drop(supervisor);
    }));
}

#[test]
fn a_restart_is_awaited_and_an_idempotent_call_is_made_again() {
    // The first start is quick, and each later one takes its time.
    let seconds = SLOW.as_secs_f64();
    let script = Script::new(&format!(
        "[ -e \"$dir/again\" ] && sleep {seconds}\n: >\"$dir/again\"\n\
         exec {MISBEHAVE} \"$1\" \"$2\" plain"
    ));
    let backoff = Backoff::new(Duration::from_millis(100), Duration::from_millis(100));
    let supervisor = Supervisor::builder(script.builder()).backoff(backoff).build().unwrap();
    within(beside_a_heart(async {
        supervisor.start_async().await.unwrap();
        let once = supervisor.request("sleep", "300").into_future();
        let again = supervisor.request("sleep", "300").idempotent().into_future();
        let kill = async {
            beat().await;
            send(supervisor.pid().unwrap().as_raw(), Signal::SIGKILL);
        };
        let (once, again, ()) = tokio::join!(once, again, kill);
        assert!(once.unwrap_err().to_string().contains("SIGKILL"));
        assert_eq!(again.unwrap(), b"300");
        // The next process of a pool is awaited as well.
        supervisor.restart_async().await.unwrap();
        assert_eq!(supervisor.call_async("echo", "y").await.unwrap(), "y");
        supervisor.stop_async().await.unwrap();
    }));
    assert!(fs::exists(script.dir().join("again")).unwrap());
}

#[test]
fn a_pool_is_started_and_called_by_tasks() {
    let script = slow_start();
    let three = NonZeroUsize::new(3).unwrap();
    let pool = Pool::new(Supervisor::builder(script.builder()), three).unwrap();
    within(beside_a_heart(async {
        let calls: Vec<_> = (0..100)
            .map(|number: u32| {
                let pool = pool.clone();
                tokio::spawn(async move {
                    let text = number.to_string();
                    assert_eq!(pool.call_async("echo", &text).await.unwrap(), text);
                })
            })
            .collect();
        for call in calls {
            call.await.unwrap();
        }
        pool.notify_async("count", "").await.unwrap();
        pool.stop_async().await.unwrap();
    }));
}

#[test]
fn a_task_waits_for_a_start_by_another_for_the_ready_timeout_only() {
    let script = slow_start();
    let short = Duration::from_millis(100);
    let supervisor = Supervisor::builder(script.builder()).ready_timeout(short).build().unwrap();
    within(beside_a_heart(async {
        // The start that a task begins has its own limit.
        let (first, second): (_, Result<(), Unavailable>) =
            tokio::join!(supervisor.start_async(), supervisor.start_async());
        first.unwrap();
        let error = second.unwrap_err();
        assert!(matches!(error.kind(), UnavailableKind::NotReady { .. }), "{error}");
        drop(supervisor);
    }));
}

#[test]
fn text_and_bytes_come_in_every_form() {
    fn each<C: Caller + Sync>(caller: &C)
    where
        C::CallError: std::fmt::Display,
    {
        let request = |body: &'static [u8]| caller.request("echo", body);
        let text = [
            caller.call("echo", "x"),
            request(b"x").wait_text(),
            request(b"x").begin().and_then(C::Pending::wait_text),
            within(caller.call_async("echo", "x")),
            within(request(b"x").wait_text_async()),
            within(async { request(b"x").begin_async().await?.wait_text_async().await }),
        ];
        assert!(text.iter().all(|text| text.as_ref().is_ok_and(|text| text == "x")));
        let bytes =
            [caller.call_bytes("echo", [255]), within(caller.call_bytes_async("echo", [255]))];
        assert!(bytes.iter().all(|bytes| bytes.as_ref().is_ok_and(|bytes| bytes == &[255])));
        let no_text = [
            request(&[255]).begin().and_then(C::Pending::wait_text),
            within(request(&[255]).wait_text_async()),
            within(async { request(&[255]).begin_async().await?.wait_text_async().await }),
        ];
        for error in no_text {
            let error = error.err().unwrap().to_string();
            assert!(error.starts_with("echo: the reply is no UTF-8 text"), "{error}");
        }
    }
    let plugin = plain().start().unwrap();
    each(&plugin);
    let parts = plugin.request("echo", "x").receive_parts().unwrap();
    assert_eq!(within(parts.reply_async()).unwrap(), "x");
    let parts = plugin.request("no-such", "").receive_parts().unwrap();
    assert!(within(parts.reply_async()).unwrap_err().is_answer());
    each(&Supervisor::builder(plain()).build().unwrap());
    each(&Pool::new(Supervisor::builder(plain()), NonZeroUsize::MIN).unwrap());
}
