//! Configuration that a host has for a plugin.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use pipeplug_host::launcher::CommandPrefix;
use pipeplug_host::{Format, Plugin, PluginBuilder, StartErrorKind, Supervisor};
use pipeplug_tests::{Script, eventually};
use serde_json::json;

use crate::{misbehave, plain};

/// A value that must not be shown anywhere.
const SECRET: &str = "hunter2-and-more";

fn configured() -> PluginBuilder {
    misbehave(&["configured"])
}

#[test]
fn is_there_in_the_start_call_back_and_later() {
    let numbers = BTreeMap::from([("port", 80), ("retries", 3)]);
    for format in [Format::Standard, Format::Classic] {
        let plugin = configured().format(format).config(&numbers).unwrap().start().unwrap();
        let seen = plugin.call("seen", "").unwrap();
        assert_eq!(seen, r#"Some({"port": 80, "retries": 3})"#);
        assert_eq!(plugin.call("config", "").unwrap(), r#"{"port":80,"retries":3}"#);
        // It is kept apart from what a plugin shows of its host.
        assert_eq!(plugin.call("host-says", "pipeplug.config").unwrap(), "");
    }
}

#[test]
fn is_there_in_a_plugin_without_a_start_call_back_and_on_stdin_and_stdout() {
    let value = json!({"list": [1, "two\n\u{1f600}"], "none": null});
    let elsewhere = plain().launcher(CommandPrefix::new(["env"]));
    for builder in [plain(), plain().stdio(), elsewhere] {
        let plugin = builder.config(&value).unwrap().start().unwrap();
        assert_eq!(plugin.call("config", "").unwrap(), value.to_string());
    }
}

#[test]
fn a_host_without_one_sends_none() {
    let plugin = configured().start().unwrap();
    assert_eq!(plugin.call("seen", "").unwrap(), "None");
    assert_eq!(plugin.call("config", "").unwrap(), "none");
}

#[test]
fn the_largest_arrives_in_both_formats() {
    let large = "x".repeat((1 << 20) - 2);
    for format in [Format::Standard, Format::Classic] {
        let plugin = plain().format(format).config(&large).unwrap().start().unwrap();
        assert_eq!(plugin.call("config", "").unwrap().len(), 1 << 20);
    }
    assert!(plain().config(&format!("{large}x")).is_err());
}

#[test]
fn one_that_does_not_fit_ends_the_plugin_with_the_name_of_the_field_and_without_the_value() {
    let lines = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&lines);
    let error = configured()
        .config(&json!({ "port": SECRET }))
        .unwrap()
        .on_line(move |_, line| seen.lock().unwrap().push(line.to_owned()))
        .start()
        .unwrap_err();
    assert!(matches!(error.kind(), StartErrorKind::Exited { .. }), "{error:?}");
    let error = format!("{error} {error:?}");
    let text = || lines.lock().unwrap().join("\n");
    eventually("the plugin says why", || text().contains("field `port`: invalid type: string"));
    for shown in [text(), error] {
        assert!(!shown.contains(SECRET), "{shown}");
    }
}

#[test]
fn a_plugin_that_cannot_take_one_does_not_start() {
    // The first answers with an empty object, the second with an error.
    let empty = Script::answering("cat <&3 >/dev/null");
    let refuses = Script::new(
        r"head -c 1 <&3 >/dev/null
        printf '1\0003\0009\000cmd.error\0005\000never' >&4
        cat <&3 >/dev/null",
    );
    for (script, said) in [(&empty, "feature `config`;"), (&refuses, "never")] {
        let error = script.builder().config(SECRET).unwrap().start().unwrap_err();
        assert!(matches!(error.kind(), StartErrorKind::NoConfig { .. }), "{error:?}");
        assert!(error.is_permanent());
        let message = error.to_string();
        assert!(message.contains("cannot take the configuration"), "{message}");
        assert!(message.contains(said) && !message.contains(SECRET), "{message}");
        // Without one it starts.
        script.builder().start().unwrap().kill().unwrap();
    }
}

#[test]
fn a_program_that_sends_it_back_does_not_have_it_shown() {
    let error =
        Plugin::builder("/bin/cat").stdio().config(&json!([SECRET])).unwrap().start().unwrap_err();
    assert!(!format!("{error} {error:?}").contains(SECRET), "{error:?}");
    // This one answers each request with what is in it.
    let echo = Script::with_interpreter(
        "/usr/bin/env python3",
        r"
import os
def number():
    text = b''
    while (byte := os.read(3, 1)) != b'\0':
        if not byte:
            raise SystemExit
        text += byte
    return int(text)
def exactly(length):
    data = b''
    while len(data) < length:
        data += os.read(3, length - len(data))
    return data
while True:
    thread, direction = number(), number()
    command = exactly(number() + 1)[:-1]
    data = exactly(number())
    if direction == 2:
        os.write(4, b'%d\0003\0%d\0%s\0%d\0%s' % (thread, len(command), command, len(data), data))
    elif command == b'cmd.stop':
        break
",
    );
    // Its answer names every feature that the host names, and not those of guests.
    let error = echo.builder().config(SECRET).unwrap().start().unwrap_err();
    assert!(matches!(error.kind(), StartErrorKind::NoConfig { .. }), "{error:?}");
    let plugin = echo.builder().metadata("pipeplug.config", SECRET).start().unwrap();
    assert_eq!(plugin.metadata().value("pipeplug.config"), None);
}

#[test]
fn is_sent_again_at_each_restart() {
    let supervisor =
        Supervisor::builder(configured().config(&BTreeMap::from([("port", 80)])).unwrap())
            .build()
            .unwrap();
    for _ in 0..2 {
        let seen = supervisor.request("seen", "").idempotent().wait_text().unwrap();
        assert_eq!(seen, r#"Some({"port": 80})"#);
        supervisor.call("exit", "3").unwrap_err();
    }
}

#[test]
fn a_builder_shows_its_length_only() {
    let shown = format!("{:?}", plain().config(SECRET).unwrap());
    assert!(shown.contains("18 bytes") && !shown.contains(SECRET), "{shown}");
}
