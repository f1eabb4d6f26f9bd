//! The host's call-back for a plugin that has started.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use pipeplug_host::{
    HandlerError, NotReady, Plugin, Pool, Reply, Request, StartError, StartErrorKind, Supervisor,
};
use pipeplug_tests::{LONG, eventually, is_running};

use crate::plain;

fn why(error: &StartError) -> &NotReady {
    match error.kind() {
        StartErrorKind::NotReady { why, .. } => why,
        other => panic!("{other:?}"),
    }
}

fn sign_in(plugin: &Plugin) -> Result<(), HandlerError> {
    plugin.call("saw", "sign in")?;
    Ok(())
}

#[test]
fn comes_before_any_call_and_after_the_metadata() {
    let described = Arc::new(Mutex::new(None));
    let of_call_back = Arc::clone(&described);
    let plugin = plain()
        .on_ready(move |plugin| {
            let help = plugin.metadata().value("Cmd").map(str::to_owned);
            *of_call_back.lock().unwrap() = help;
            sign_in(plugin)
        })
        .start()
        .unwrap();
    assert_eq!(plugin.call("seen", "").unwrap(), "sign in");
    assert_eq!(described.lock().unwrap().as_deref(), Some("misbehave"));
}

#[test]
fn may_be_called_back_by_the_plugin() {
    let plugin = plain()
        .handler(|plugin: &Plugin, request: &mut Request| -> Result<Reply, HandlerError> {
            Ok(plugin.call("echo", request.take_buffer())?.into())
        })
        .on_ready(|plugin| {
            let answer = plugin.call("call-host", "any")?;
            if answer == "from the guest" { Ok(()) } else { Err(answer.into()) }
        })
        .start()
        .unwrap();
    plugin.stop().unwrap();
}

#[test]
fn its_failure_is_that_of_the_start_and_stops_the_plugin() {
    let pid = Arc::new(Mutex::new(None));
    let of_call_back = Arc::clone(&pid);
    let error = plain()
        .on_ready(move |plugin| {
            *of_call_back.lock().unwrap() = Some(plugin.pid());
            plugin.call("err-bytes", "no such user\n")?;
            Err("sign in".into())
        })
        .start()
        .unwrap_err();
    assert!(matches!(why(&error), NotReady::Failed(_)), "{error:?}");
    assert!(!error.is_permanent());
    let message = error.to_string();
    assert!(message.contains("started, and was not ready: sign in"), "{message}");
    assert!(message.contains("last on its stderr: no such user"), "{message}");
    let pid = pid.lock().unwrap().unwrap();
    assert!(!is_running(pid.as_raw()), "{pid}");
}

#[test]
fn a_panic_is_a_failure() {
    let error = plain().on_ready(|_| panic!("at the {}", "disco")).start().unwrap_err();
    assert!(matches!(why(&error), NotReady::Panicked(text) if text == "at the disco"), "{error:?}");
}

#[test]
fn what_exceeds_the_time_for_the_start_fails_whatever_it_waits_for() {
    let limit = Duration::from_millis(300);
    let hangs = plain().handshake_timeout(limit);
    let begun = Instant::now();
    let ended = Arc::new(AtomicU32::new(0));
    let of_call_back = Arc::clone(&ended);
    let calls = hangs.clone().on_ready(move |plugin| {
        let result = plugin.call("never", "");
        of_call_back.fetch_add(1, Ordering::SeqCst);
        result?;
        Ok(())
    });
    let error = calls.start().unwrap_err();
    assert!(matches!(why(&error), NotReady::TimedOut(left) if *left <= limit), "{error:?}");
    assert!(error.to_string().contains("on_ready did not return within"), "{error}");
    eventually("its call has ended with the plugin", || ended.load(Ordering::SeqCst) == 1);
    // Not a call: the start does not wait for it.
    let (open, gate) = std::sync::mpsc::channel::<()>();
    let gate = Mutex::new(gate);
    let waits = hangs.on_ready(move |_| Ok(gate.lock().unwrap().recv()?));
    let error = waits.start().unwrap_err();
    assert!(matches!(why(&error), NotReady::TimedOut(_)), "{error:?}");
    assert!(begun.elapsed() < LONG, "{:?}", begun.elapsed());
    drop(open);
}

#[test]
fn the_end_of_the_plugin_is_a_crash_with_its_status() {
    let error = plain()
        .on_ready(|plugin| {
            plugin.call("exit", "7")?;
            Ok(())
        })
        .start()
        .unwrap_err();
    let StartErrorKind::NotReady { status: Some(status), .. } = error.kind() else {
        panic!("{error:?}");
    };
    assert_eq!(status.to_string(), "exit status 7");
}

#[test]
fn runs_after_each_restart_and_each_start_of_a_pool() {
    let supervisor = Supervisor::builder(plain().on_ready(sign_in)).build().unwrap();
    for _ in 0..3 {
        let seen = supervisor.request("seen", "").idempotent().wait_text().unwrap();
        assert_eq!(seen, "sign in");
        supervisor.call("exit", "3").unwrap_err();
    }
    let started = Arc::new(AtomicU32::new(0));
    let of_call_back = Arc::clone(&started);
    let counted = plain().on_ready(move |plugin| {
        of_call_back.fetch_add(1, Ordering::SeqCst);
        sign_in(plugin)
    });
    let pool = Pool::new(Supervisor::builder(counted), 3.try_into().unwrap()).unwrap();
    pool.start().unwrap();
    assert_eq!(started.load(Ordering::SeqCst), 3);
    pool.stop().unwrap();
}

#[test]
fn a_supervisor_tries_again_until_it_is_ready() {
    let tries = AtomicU32::new(0);
    let flaky = plain().on_ready(move |_| match tries.fetch_add(1, Ordering::SeqCst) {
        0 => Err("not yet".into()),
        _ => Ok(()),
    });
    let supervisor = Supervisor::builder(flaky).build().unwrap();
    let error = supervisor.call("echo", "x").unwrap_err().to_string();
    assert!(error.contains("not yet"), "{error}");
    eventually("it is up", || supervisor.call("echo", "x").is_ok());
}
