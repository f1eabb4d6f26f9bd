//! Allow list of a plugin's requests.

use std::sync::{Arc, Mutex};

use pipeplug_host::{HandlerError, Plugin, PluginBuilder, Reply, Request};
use pipeplug_tests::eventually;

use crate::plain;

type Handled = Arc<Mutex<Vec<String>>>;

/// A plugin whose host writes down all that its handler gets, and answers it.
fn with_handler() -> (PluginBuilder, Handled) {
    let handled = Handled::default();
    let seen = Arc::clone(&handled);
    let builder =
        plain().handler(move |_: &Plugin, request: &mut Request| -> Result<Reply, HandlerError> {
            seen.lock().unwrap().push(request.command().to_owned());
            Ok(request.command().to_uppercase().into())
        });
    (builder, handled)
}

#[test]
fn by_default_the_handler_gets_everything() {
    let (builder, handled) = with_handler();
    let plugin = builder.start().unwrap();
    assert_eq!(plugin.call("call-host", "anything").unwrap(), "ANYTHING");
    plugin.call("notify-host", "else").unwrap();
    eventually("the one-way came", || *handled.lock().unwrap() == ["anything", "else"]);
}

#[test]
fn what_is_not_allowed_does_not_reach_the_handler() {
    let (builder, handled) = with_handler();
    let plugin = builder.allow(["clock"]).allow(["log"]).start().unwrap();
    let error = plugin.call("call-host", "delete\x1b[2J").unwrap_err().to_string();
    assert!(error.contains("the host does not allow this plugin to ask for \"delete"), "{error}");
    assert!(!error.contains('\x1b'), "{error:?}");
    // One-ways are dropped; what is allowed goes on, in order.
    plugin.call("notify-host", "delete").unwrap();
    assert_eq!(plugin.call("call-host", "clock").unwrap(), "CLOCK");
    plugin.call("notify-host", "log").unwrap();
    eventually("what is allowed came", || *handled.lock().unwrap() == ["clock", "log"]);
}

#[test]
fn nothing_can_be_allowed() {
    let (builder, handled) = with_handler();
    let plugin = builder.allow([""; 0]).start().unwrap();
    assert!(plugin.call("call-host", "clock").is_err());
    assert!(handled.lock().unwrap().is_empty());
    assert_eq!(plugin.call("echo", "still there").unwrap(), "still there");
}
