//! The start call-back, and what a handler gets to know.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use pipeplug_host::{CallError, HandlerError, Plugin, Reply, Request, StartErrorKind};
use pipeplug_tests::{SOON, eventually};

use crate::{misbehave, plain};

/// Answers what the plugin asks from its start.
fn double(_: &Plugin, request: &mut Request) -> Result<Reply, HandlerError> {
    match request.command() {
        "double" => Ok((2 * request.text()?.parse::<u64>()?).to_string().into()),
        _ => request.unknown(),
    }
}

#[test]
fn the_start_call_back_may_call_the_host() {
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    let plugin = misbehave(&["calls-from-start", "100"])
        .handler(move |plugin: &Plugin, request: &mut Request| {
            counted.fetch_add(1, Ordering::SeqCst);
            double(plugin, request)
        })
        .start()
        .unwrap();
    assert_eq!(plugin.call("seen", "").unwrap(), "start is done");
    assert_eq!(calls.load(Ordering::SeqCst), 100);
}

#[test]
fn the_start_call_back_runs_ahead_of_any_request() {
    // The host sends while the plugin starts: from its handler, which the plugin's start calls.
    let plugin = misbehave(&["calls-from-start", "10"])
        .handler(|plugin: &Plugin, request: &mut Request| {
            plugin.notify("saw", format!("one-way {}", request.text()?))?;
            let early = plugin.request("saw", format!("request {}", request.text()?)).begin()?;
            thread::spawn(move || early.wait().unwrap());
            double(plugin, request)
        })
        .start()
        .unwrap();
    // The plugin works on several at once, so that their order among themselves is open.
    eventually("all were seen", || plugin.call("seen", "").unwrap().lines().count() == 21);
    let seen = plugin.call("seen", "").unwrap();
    assert_eq!(seen.lines().next(), Some("start is done"), "{seen}");
}

#[test]
fn a_flood_of_one_ways_waits_for_the_start_call_back() {
    const EACH: usize = 2000;
    let plugin = misbehave(&["calls-from-start", "4"])
        .handler(|plugin: &Plugin, request: &mut Request| {
            for i in 0..EACH {
                plugin.notify("saw", i.to_string())?;
            }
            double(plugin, request)
        })
        .start()
        .unwrap();
    eventually("all were seen", || {
        plugin.call("seen", "").unwrap().lines().count() == 4 * EACH + 1
    });
    assert!(plugin.call("seen", "").unwrap().starts_with("start is done\n"));
}

#[test]
fn a_start_call_back_that_fails_ends_the_plugin_with_its_message() {
    let error = misbehave(&["start-fails"]).start().unwrap_err();
    let StartErrorKind::Exited { status, .. } = error.kind() else { panic!("{error:?}") };
    let stderr = error.stderr();
    assert_eq!(status.code(), Some(1));
    assert_eq!(stderr, &["misbehave: the plugin's start failed: the database is locked"]);
    assert!(error.to_string().contains("the database is locked"), "{error}");
}

#[test]
fn one_that_fails_after_the_handshake_fails_what_was_called() {
    let plugin = misbehave(&["start-fails-late"])
        .handler(|_: &Plugin, _: &mut Request| {
            // The plugin waits for this answer.
            thread::sleep(std::time::Duration::from_millis(50));
            Ok(Reply::empty())
        })
        .start()
        .unwrap();
    let error = plugin.call("echo", "x").unwrap_err();
    assert!(matches!(error, CallError::Closed { .. }), "{error:?}");
    assert_eq!(plugin.wait(SOON).unwrap().and_then(|status| status.code()), Some(1));
    assert!(
        plugin.stderr_tail().concat().contains("the database is locked"),
        "{:?}",
        plugin.stderr_tail()
    );
}

#[test]
fn a_handler_gets_the_plugin_that_asks() {
    fn name_and_pid(plugin: &Plugin, _: &mut Request) -> Result<Reply, HandlerError> {
        Ok(format!("{} {}", plugin.name(), plugin.pid()).into())
    }
    let builder = plain().handler(name_and_pid);
    let plugins: Vec<_> =
        (0..8).map(|i| builder.clone().name(format!("plugin {i}")).start().unwrap()).collect();
    let asking: Vec<_> = plugins
        .into_iter()
        .map(|plugin| {
            thread::spawn(move || {
                for _ in 0..50 {
                    let answer = plugin.call("call-host", "who am I").unwrap();
                    assert_eq!(answer, format!("{} {}", plugin.name(), plugin.pid()));
                }
            })
        })
        .collect();
    asking.into_iter().for_each(|asking| asking.join().unwrap());
}

#[test]
fn a_handler_may_call_the_plugin_that_asks() {
    let plugin = plain()
        .handler(|plugin: &Plugin, request: &mut Request| {
            Ok(plugin.call("echo", format!("{} and back", request.text()?))?.into())
        })
        .start()
        .unwrap();
    assert_eq!(plugin.call("call-host", "x").unwrap(), "from the guest and back");
}

#[test]
fn without_a_handler_the_plugins_requests_get_an_error() {
    let plugin = plain().start().unwrap();
    let error = plugin.call("call-host", "nobody knows this").unwrap_err().to_string();
    assert!(error.contains("unknown command \"nobody knows this\""), "{error}");
}

#[test]
fn what_panics_is_an_error_on_either_side_and_nothing_else() {
    let plugin = plain()
        .handler(|_: &Plugin, _: &mut Request| panic!("the host's own fault"))
        .start()
        .unwrap();
    let error = plugin.call("call-host", "x").unwrap_err().to_string();
    assert!(error.contains("the host's own fault"), "{error}");
    let error = plugin.call("panic", "the guest's own fault").unwrap_err().to_string();
    assert!(error.contains("the guest's own fault"), "{error}");
    assert_eq!(plugin.call("echo", "still here").unwrap(), "still here");
}
