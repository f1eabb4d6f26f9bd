//! Metadata of both sides.

use std::sync::Mutex;
use std::time::Duration;

use pipeplug_host::{Grace, Plugin, Reply, Request, StartErrorKind};
use pipeplug_tests::Script;

use crate::{misbehave, plain};

/// Metadata of the plugin without the keys of the protocol.
fn own(plugin: &Plugin) -> Vec<(&str, &str)> {
    plugin.metadata().iter().filter(|(key, _)| !key.starts_with("pipeplug.")).collect()
}

#[test]
fn comes_from_the_builder() {
    let plugin = plain().start().unwrap();
    assert_eq!(own(&plugin), [("Cmd", "misbehave"), ("Description", "misbehaves")]);
    assert_eq!(plugin.metadata().value("pipeplug.protocol"), Some("1"));
    assert_eq!(plugin.metadata().value("pipeplug.name"), Some("misbehave"));
}

#[test]
fn comes_from_the_request_call_back() {
    let plugin =
        misbehave(&["asked", r#"{"Help":"ask","pipeplug.name":"other"}"#]).start().unwrap();
    assert_eq!(own(&plugin), [("Help", "ask")]);
    assert_eq!(plugin.metadata().value("pipeplug.name"), Some("other"), "its own word counts");
    assert_eq!(plugin.call("echo", "x").unwrap(), "x");
}

#[test]
fn values_that_are_no_strings_are_kept_as_json() {
    let plugin = misbehave(&["asked", r#"{"n":1.5,"list":[1,{"a":null}],"none":null,"yes":true}"#])
        .start()
        .unwrap();
    assert_eq!(
        own(&plugin),
        [("list", r#"[1,{"a":null}]"#), ("n", "1.5"), ("none", "null"), ("yes", "true")]
    );
}

#[test]
fn a_call_back_without_an_answer_leaves_the_protocols_own() {
    // Its call-back does not know the question.
    let plugin = misbehave(&["calls-from-start", "0"]).start().unwrap();
    assert_eq!(own(&plugin), []);
    assert!(!plugin.metadata().is_empty());
}

#[test]
fn an_error_is_no_metadata_and_no_failure() {
    let refuses = Script::new(
        r"head -c 1 <&3 >/dev/null
        printf '1\0003\0009\000cmd.error\0005\000never' >&4
        cat <&3 >/dev/null",
    );
    let plugin = refuses.builder().grace(Grace::each(Duration::from_millis(50))).start().unwrap();
    assert!(plugin.metadata().is_empty());
}

#[test]
fn anything_but_an_object_is_an_error_that_shows_it() {
    for (text, shown) in [
        (r#"["a"]"#, r#"[\"a\"]"#),
        ("just text", "just text"),
        ("", r#""""#),
        ("{\"a\":\u{1b}", r#"{\"a\":\x1b"#),
    ] {
        let error = misbehave(&["asked", text]).start().unwrap_err();
        assert!(matches!(error.kind(), StartErrorKind::BadMetadata { .. }), "{text}: {error:?}");
        let message = error.to_string();
        assert!(message.contains(shown) && message.contains("no JSON object"), "{message}");
        assert!(!message.contains('\u{1b}'), "{message:?}");
    }
}

#[test]
fn of_what_is_no_object_only_the_beginning_is_shown() {
    let long = "x".repeat(10_000);
    let error = misbehave(&["asked", &long]).start().unwrap_err();
    let StartErrorKind::BadMetadata { shown, .. } = error.kind() else { panic!("{error:?}") };
    assert_eq!(shown, &[b'x'; 64]);
}

#[test]
fn a_reply_over_the_limit_fails_the_start_with_both_numbers() {
    let long = format!(r#"{{"long":"{}"}}"#, "x".repeat(10_000));
    let limits = pipeplug_host::Limits::default().with_buffer(1000);
    let error = misbehave(&["asked", &long]).limits(limits).start().unwrap_err();
    let message = error.to_string();
    assert!(matches!(error.kind(), StartErrorKind::Handshake { .. }), "{message}");
    assert!(message.contains("1000") && message.contains("10"), "{message}");
}

#[test]
fn the_host_says_what_it_is_told_to() {
    let plugin =
        plain().metadata("Host", "a test").metadata("pipeplug.name", "tests").start().unwrap();
    assert_eq!(plugin.call("host-says", "Host").unwrap(), "a test");
    assert_eq!(plugin.call("host-says", "pipeplug.protocol").unwrap(), "1");
    assert_eq!(plugin.call("host-says", "nothing").unwrap(), "");
}

#[test]
fn is_empty_while_the_plugin_starts() {
    static SEEN: Mutex<Option<bool>> = Mutex::new(None);
    let plugin = misbehave(&["calls-from-start", "1"])
        .handler(|plugin: &Plugin, request: &mut Request| {
            *SEEN.lock().unwrap() = Some(plugin.metadata().is_empty());
            Ok(Reply::from((2 * request.text()?.parse::<u64>()?).to_string()))
        })
        .start()
        .unwrap();
    assert_eq!(*SEEN.lock().unwrap(), Some(true));
    assert!(!plugin.metadata().is_empty());
}
