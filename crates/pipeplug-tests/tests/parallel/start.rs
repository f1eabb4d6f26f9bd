//! The start call-back, and what a handler gets to know.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use pipeplug_host::{CallError, HandlerError, Plugin, Reply, Request, StartErrorKind};
use pipeplug_tests::eventually;

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
fn one_that_fails_late_fails_the_start_whatever_metadata_the_builder_has() {
    // What is called before that fails with it.
    let (tell, told) = mpsc::channel();
    let error = misbehave(&["start-fails-late"])
        .handler(move |plugin: &Plugin, _: &mut Request| {
            let held_back = plugin.request("echo", "x").begin()?;
            // The plugin waits for this answer.
            thread::sleep(Duration::from_millis(50));
            tell.send(held_back)?;
            Ok(Reply::empty())
        })
        .start()
        .unwrap_err();
    let StartErrorKind::Exited { status, .. } = error.kind() else { panic!("{error:?}") };
    assert_eq!(status.code(), Some(1));
    assert!(error.to_string().contains("start failed: the database is locked"), "{error}");
    let error = told.recv().unwrap().wait().unwrap_err();
    assert!(matches!(error, CallError::Closed { .. }), "{error:?}");
}

#[test]
fn the_time_for_the_start_covers_the_start_call_back() {
    let error = misbehave(&["start-hangs"])
        .handshake_timeout(Duration::from_millis(200))
        .start()
        .unwrap_err();
    assert!(matches!(error.kind(), StartErrorKind::HandshakeTimeout { .. }), "{error:?}");
    assert!(error.to_string().contains("A slow one needs more time"), "{error}");
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
