//! `--json`: each line is an object that describes one event.

use std::time::Instant;

use serde_json::{Value, json};

use crate::common::{Place, Ran, pipeplug};

/// The events of one kind, without what differs from run to run.
fn events(ran: &Ran, kind: &str) -> Vec<Value> {
    let mut events = ran.json();
    events.retain(|event| event["event"] == kind);
    for event in &mut events {
        event.as_object_mut().unwrap().remove("seconds");
    }
    events
}

#[test]
fn everything_is_an_event() {
    let args = [
        "run", "@echo", "--json", "--answer", "who=me", "--call", "echo", "a\n", "--call", "fail",
        "no", "--call", "ask", "who x", "--call", "ask", "what", "--call", "tell", "done",
        "--call", "log", "line", "--call", "print", "out",
    ];
    let ran = pipeplug(args).run().exits(1).says_only("");
    let started = &events(&ran, "metadata")[0];
    assert_eq!((&started["plugin"], &started["format"]), (&json!("echo"), &json!("standard")));
    assert!(started["pid"].as_i64().unwrap() > 1);
    assert!(started["metadata"]["Description"].is_string());
    let replies = events(&ran, "reply");
    assert_eq!(replies[0], json!({ "event": "reply", "command": "echo", "data": "a\n" }));
    assert_eq!(replies[1], json!({ "event": "reply", "command": "ask", "data": "me" }));
    let errors = events(&ran, "error");
    assert_eq!(
        errors[0],
        json!({ "event": "error", "command": "fail", "message": "fail: no", "exit_code": 1 })
    );
    assert_eq!(errors[1]["command"], "ask");
    let incoming = |kind: &str, command: &str, data: &str, answered: bool| json!({ "event": "incoming", "kind": kind, "command": command, "data": data, "answered": answered });
    assert_eq!(
        events(&ran, "incoming"),
        [
            incoming("request", "who", "x", true),
            incoming("request", "what", "", false),
            incoming("one-way", "done", "", false)
        ]
    );
    assert_eq!(events(&ran, "stderr"), [json!({ "event": "stderr", "line": "line" })]);
    assert_eq!(events(&ran, "stdout"), [json!({ "event": "stdout", "line": "out" })]);
    assert_eq!(
        ran.json().last().unwrap(),
        &json!({ "event": "exit", "status": "exit status 0", "code": 0, "by": "stopped when asked" })
    );
}

#[test]
fn an_error_has_its_code_and_data() {
    let args = ["run", "@echo", "--json", "--call", "env", "NOT_SET", "--call", "none"];
    let ran = pipeplug(args).run().exits(1).says_only("");
    let errors = events(&ran, "error");
    assert_eq!(
        errors[0],
        json!({
            "event": "error", "command": "env", "message": "env: NOT_SET is not set",
            "code": "not_set", "data": { "name": "NOT_SET" }, "exit_code": 1,
        })
    );
    assert_eq!(errors[1]["code"], "unknown_command");
    let known = errors[1]["data"]["commands"].as_array().unwrap();
    assert!(known.contains(&"echo".into()), "{known:?}");
    let late = ["run", "@echo", "--json", "--timeout", "50ms", "--call", "sleep", "60000"];
    let ran = pipeplug(late).run().exits(124);
    assert_eq!(events(&ran, "error")[0]["code"], "deadline");
}

#[test]
fn progress_is_an_event() {
    let begun = Instant::now();
    let ran = pipeplug(["run", "@echo", "--json", "--call", "steps", "20"]).run().exits(0);
    let took = begun.elapsed();
    let progress = events(&ran, "progress");
    let step = |done: u64, message: &str| json!({ "event": "progress", "command": "steps", "done": done, "total": 20, "message": message });
    assert_eq!(progress[0], step(0, "step 1"));
    let last = json!({ "event": "progress", "command": "steps", "done": 20, "total": 20 });
    assert_eq!(progress.last(), Some(&last));
    // The first, the last, and one each 50 ms. The 200 ms of the steps may take longer, and may then have all 21.
    assert!(progress.len() as u128 <= 3 + took.as_millis() / 50, "{took:?}: {progress:?}");
    let kinds: Vec<_> = ran.json().iter().map(|event| event["event"].clone()).collect();
    let reply = kinds.iter().position(|kind| kind == "reply").unwrap();
    assert!(!kinds[reply..].contains(&json!("progress")), "{kinds:?}");
}

#[test]
fn bytes_that_are_no_text_are_base64() {
    let ran = pipeplug(["run", "@echo", "--json", "--call", "echo", "@-"])
        .stdin([0xff, 0xfe, 0xfb])
        .run()
        .exits(0);
    assert_eq!(
        events(&ran, "reply"),
        [json!({ "event": "reply", "command": "echo", "data_base64": "//77" })]
    );
}

#[test]
fn the_death_of_a_plugin_has_its_last_words() {
    let place = Place::new();
    let path =
        place.standard("dying", "recv; send 3 x '{}'; recv; echo one >&2; echo two >&2; exit 9");
    let ran = place
        .pipeplug(["run", path.to_str().unwrap(), "--json", "--call", "x"])
        .run()
        .exits(5)
        .says_only("");
    let mut error = events(&ran, "error").remove(0);
    let mut crash = error["crash"].take();
    assert_eq!(
        error,
        json!({
            "event": "error",
            "command": "x",
            "message": "x: no reply, dying has ended: exit status 9",
            "code": "closed",
            "exit_code": 5,
            "stderr": ["one", "two"],
            "crash": null,
        })
    );
    assert!(crash["seconds"].take().as_f64().unwrap() > 0.0);
    assert!(crash["pid"].take().as_i64().unwrap() > 1);
    assert!(crash["calls"][0]["seconds"].take().as_f64().unwrap() >= 0.0);
    let head = |id, direction, command, length| json!({ "id": id, "direction": direction, "command": command, "length": length });
    let sent = crash["sent"].take();
    assert_eq!(sent[1], head(2, "request", "x", 0));
    assert_eq!(
        crash,
        json!({
            "plugin": "dying",
            "path": path,
            "pid": null,
            "seconds": null,
            "status": "exit status 9",
            "code": 9,
            "panic": null,
            "calls": [{ "id": 2, "command": "x", "seconds": null }],
            "calls_open": 1,
            "received": [head(1, "response", "x", 2)],
            "sent": null,
        })
    );
    assert_eq!(events(&ran, "exit")[0]["code"], 9);
}

#[test]
fn what_does_not_start_is_an_event_too() {
    let ran = pipeplug(["run", "/nonexistent/x", "--json"]).run().exits(3).says_only("");
    let errors = events(&ran, "error");
    assert_eq!(errors[0]["exit_code"], 3);
    assert!(errors[0]["message"].as_str().unwrap().starts_with("no plugin at"));
}
