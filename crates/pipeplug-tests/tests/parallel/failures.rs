//! Errors with a code, between processes.

use pipeplug_host::{
    Failure, Grace, HandlerError, Plugin, Reply, Request, Retry, Sent, SupervisedCallError,
    Supervisor, failure_code,
};
use serde_json::{Value, json};

use crate::supervisor::eager;
use crate::{misbehave, plain};

#[test]
fn a_plugins_code_and_data_reach_its_host() {
    let plugin = plain().start().unwrap();
    let error = plugin.call("fail", "not_found").unwrap_err();
    assert_eq!((error.code(), error.data()), (Some("not_found"), Some(&json!([1, 2]))));
    assert_eq!(error.to_string(), "fail: it failed");
    assert_eq!((error.sent(), error.retry(), error.is_answer()), (Sent::Yes, Retry::No, true));
    let code = |command| plugin.call(command, "").unwrap_err().code().map(str::to_owned);
    assert_eq!(code("none").as_deref(), Some(failure_code::UNKNOWN_COMMAND));
    assert_eq!(code("panic").as_deref(), Some(failure_code::PANICKED));
}

#[test]
fn a_hosts_failures_reach_its_plugin() {
    let handler = |_: &Plugin, request: &mut Request| -> Result<Reply, HandlerError> {
        Err(Failure::new("too_late", request.command()).into())
    };
    // The guest shows the message, and its own error has no code.
    let plugin = plain().handler(handler).allow(["late"]).start().unwrap();
    let error = plugin.call("call-host", "late").unwrap_err();
    assert_eq!((error.to_string().as_str(), error.code()), ("call-host: late: late", None));
    let codes = plugin.call("code-of-host", "late").unwrap();
    assert_eq!(codes, "too_late");
    assert_eq!(plugin.call("code-of-host", "none").unwrap(), failure_code::REFUSED);
}

#[test]
fn a_supervised_call_says_the_same() {
    let supervisor = eager(misbehave(&["grace", "1"])).build().unwrap();
    let error = supervisor.call("fail", "busy").unwrap_err();
    assert_eq!((error.code(), error.data()), (Some("busy"), Some(&Value::from(vec![1, 2]))));
    assert!(error.is_answer() && error.sent() == Sent::Yes && error.retry() == Retry::No);
    let error = supervisor.call("exit", "1").unwrap_err();
    assert_eq!(error.code(), Some(failure_code::CLOSED));
    assert_eq!((error.sent(), error.retry()), (Sent::Maybe, Retry::IfIdempotent));
    supervisor.stop().unwrap();
    let error = supervisor.call("echo", "").unwrap_err();
    assert!(matches!(error, SupervisedCallError::Unavailable(_)), "{error}");
    assert_eq!((error.code(), error.sent()), (Some(failure_code::UNAVAILABLE), Sent::No));
    assert_eq!((error.retry(), error.is_answer()), (Retry::No, false));
    let missing = Supervisor::builder(Plugin::builder("/none").grace(Grace::default()));
    let error = missing.build().unwrap().call("echo", "").unwrap_err();
    assert_eq!((error.sent(), error.is_answer()), (Sent::No, false));
}
