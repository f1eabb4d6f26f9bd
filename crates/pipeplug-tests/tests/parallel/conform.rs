//! `pipeplug conform` of the plugin that misbehaves: it fails where it should, and nowhere else.

use std::path::Path;
use std::process::Command;
use std::thread;

use serde_json::Value;

use crate::MISBEHAVE;

/// Checks of which each misbehaviour fails some, and the others not.
const CHECKS: [&str; 10] = [
    "start/metadata",
    "start/base-only",
    "call/ping",
    "call/unknown-one-way",
    "call/answer",
    "call/one-response",
    "format/own-directions",
    "broken/sign",
    "end/stop",
    "end/eof",
];

/// Those of a plugin that breaks the protocol at the first request after its metadata, or says nothing
/// from then on, and ends with its input.
const AFTER_METADATA: [&str; 7] = [
    "start/base-only",
    "call/ping",
    "call/unknown-one-way",
    "call/answer",
    "call/one-response",
    "format/own-directions",
    "end/stop",
];

/// In place of checks: the plugin says nothing that one could look at, which is told once.
const NOTHING: [&str; 1] = ["nothing"];

/// Ways to misbehave, with the checks that fail.
const WAYS: &[(&str, &[&str])] = &[
    ("plain", &[]),
    ("one-at-a-time 100", &[]),
    ("busy-main", &[]),
    ("grace ever", &[]),
    ("classic", &NOTHING),
    ("start-fails", &NOTHING),
    ("start-hangs", &NOTHING),
    ("prints-first", &CHECKS),
    ("answers-classic", &CHECKS),
    ("answers-a-list", &CHECKS),
    ("answers-nothing", &NOTHING),
    ("answers-half", &NOTHING),
    ("declares-buffer", &AFTER_METADATA),
    ("number-too-large", &AFTER_METADATA),
    ("number-without-digits", &AFTER_METADATA),
    ("number-with-leading-zero", &AFTER_METADATA),
    ("number-with-sign", &AFTER_METADATA),
    ("command-without-end", &AFTER_METADATA),
    ("command-not-utf8", &AFTER_METADATA),
    ("prints", &AFTER_METADATA),
    ("half-a-reply", &AFTER_METADATA),
    ("closes-output", &AFTER_METADATA),
    ("line-without-end", &AFTER_METADATA),
    ("answers-twice", &["call/ping", "call/unknown-one-way", "call/one-response"]),
    ("answers-unasked", &["call/ping", "call/unknown-one-way", "call/one-response"]),
    // A ping has an answer with data.
    ("odd-directions", &["call/ping", "format/own-directions"]),
    ("odd-notices", &["start/base-only", "call/ping"]),
];

/// Checks that fail, or a message.
fn failed(way: &str) -> Result<Vec<String>, String> {
    // Both are in the same directory: cargo builds the programs of all packages that are tested.
    let program = Path::new(MISBEHAVE).with_file_name("pipeplug");
    let mut command = Command::new(program);
    command.args(["conform", MISBEHAVE, "--json", "--timeout", "5s", "--jobs", "10"]);
    command.args(CHECKS.iter().flat_map(|check| ["--check", check]));
    let output = command.arg("--").args(way.split(' ')).output().map_err(|e| e.to_string())?;
    let text = String::from_utf8_lossy(&output.stdout);
    let objects: Result<Vec<Value>, _> = text.lines().map(serde_json::from_str).collect();
    let objects = objects.map_err(|error| format!("{error}: {text}"))?;
    let results: Vec<_> = objects.iter().filter(|object| object["check"].is_string()).collect();
    if let Some(error) = objects.iter().find_map(|object| object["error"].as_str()) {
        let says_nothing = error.contains("the plugin says nothing: ");
        return if says_nothing { Ok(vec![NOTHING[0].to_owned()]) } else { Err(error.to_owned()) };
    }
    if results.len() != CHECKS.len() {
        return Err(format!(
            "{} results: {}",
            results.len(),
            String::from_utf8_lossy(&output.stderr)
        ));
    }
    let failed = results.iter().filter(|object| object["result"] == "fail");
    Ok(failed.filter_map(|object| object["check"].as_str()).map(str::to_owned).collect())
}

#[test]
fn a_plugin_that_misbehaves_fails_exactly_where_it_should() {
    let program = Path::new(MISBEHAVE).with_file_name("pipeplug");
    if !program.exists() && std::env::var_os("CI").is_none() {
        eprintln!("skipped: {} is not built; cargo build -p pipeplug builds it", program.display());
        return;
    }
    let differs = |(way, expected): &(&str, &[&str])| {
        let found = failed(way);
        (found
            .as_ref()
            .map(|found| found.iter().map(String::as_str).collect::<Vec<_>>())
            .as_deref()
            != Ok(expected))
        .then(|| format!("{way}: expected {expected:?}, got {found:?}"))
    };
    let wrong: Vec<_> = thread::scope(|scope| {
        let parts: Vec<_> = WAYS
            .chunks(WAYS.len().div_ceil(4))
            .map(|some| scope.spawn(move || some.iter().filter_map(differs).collect::<Vec<_>>()))
            .collect();
        parts.into_iter().flat_map(|part| part.join().unwrap()).collect()
    });
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
