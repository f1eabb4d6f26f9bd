//! Features of calls and of the start: context, cancel, progress, failure, configuration, log level.

use std::time::{Duration, Instant};

use pipeplug_wire::{Chunk, Direction, command};
use serde_json::Value;

use crate::commands::conform::catalog::{Check, Scope};
use crate::commands::conform::guest::{Guest, Setup};
use crate::commands::conform::outcome::{Checked, came, not_applicable};
use crate::commands::conform::peer::{is_error, shown};

const UNKNOWN: &str = "conform-unheard-of";
/// Longest buffer of `cmd.context` and `cmd.progress`.
const CONTEXT_MAX: usize = 4096;
/// Longest buffer of `cmd.failure`.
const FAILURE_MAX: usize = 65_536;
/// Text that no plugin has in its metadata by chance.
const SECRET: &str = "conform-secret-5f2d";

pub(crate) const CHECKS: &[Check] = &[
    Check {
        name: "context/deadline",
        section: "Context",
        sends: "the user's call with a deadline of 60 s in cmd.context",
        expects: "a response, as without a context",
        scope: Scope::Every,
        run: deadline,
    },
    Check {
        name: "context/passed-deadline",
        section: "Context",
        sends: "the user's call with a deadline of 0 ms, then a ping",
        expects: "one response, which may be an error, and an answer to the ping",
        scope: Scope::Every,
        run: passed_deadline,
    },
    Check {
        name: "context/odd-values",
        section: "Context",
        sends: "contexts that are no JSON, no object, too long, or have other values, each before a \
                call",
        expects: "the calls are handled as without a context",
        scope: Scope::Every,
        run: odd_contexts,
    },
    Check {
        name: "context/dropped",
        section: "Context",
        sends: "a context that is followed by another chunk than its own, then calls",
        expects: "responses: the context is dropped",
        scope: Scope::Every,
        run: dropped_context,
    },
    Check {
        name: "context/not-agreed",
        section: "Context",
        sends: "a context from a host that does not name `context`, then the user's call",
        expects: "a response: the context is ignored",
        scope: Scope::Every,
        run: context_not_agreed,
    },
    Check {
        name: "cancel/answered",
        section: "Cancellation",
        sends: "the user's slow call, and cmd.cancel while the plugin works on it",
        expects: "exactly one response to the call",
        scope: Scope::Every,
        run: cancelled,
    },
    Check {
        name: "cancel/unknown-and-late",
        section: "Cancellation",
        sends: "cmd.cancel of requests that were answered or never sent, then a ping",
        expects: "an answer to the ping, and none to the cancels",
        scope: Scope::Every,
        run: late_cancel,
    },
    Check {
        name: "progress/reports",
        section: "Progress",
        sends: "the user's slow call with `progress` in its context",
        expects: "reports of their grammar before the response, and none after it",
        scope: Scope::Every,
        run: progress,
    },
    Check {
        name: "progress/not-asked",
        section: "Progress",
        sends: "the user's slow call without `progress` in its context",
        expects: "no report of progress",
        scope: Scope::Every,
        run: no_progress,
    },
    Check {
        name: "failure/object",
        section: "Failures",
        sends: "a request with a command that does not exist, to a plugin that may answer with \
                cmd.failure",
        expects: "cmd.error, or cmd.failure with `code` and `message`, of at most 65536 bytes",
        scope: Scope::Every,
        run: failure,
    },
    Check {
        name: "failure/not-agreed",
        section: "Failures",
        sends: "requests that fail, from a host that does not name `failure`",
        expects: "cmd.error, and no cmd.failure",
        scope: Scope::Every,
        run: failure_not_agreed,
    },
    Check {
        name: "config/taken",
        section: "Configuration",
        sends: "a configuration in GetMetadata, {} if the user gives none",
        expects: "metadata that name `config`, or the end of the plugin with a status other than 0",
        scope: Scope::Every,
        run: config,
    },
    Check {
        name: "config/kept-secret",
        section: "Configuration",
        sends: "a configuration with a word in it",
        expects: "neither metadata nor stderr with this word",
        scope: Scope::Every,
        run: secret,
    },
    Check {
        name: "log/level",
        section: "Log level",
        sends: "each level in cmd.log_level, an unknown one, and an empty one, then a ping",
        expects: "an answer to the ping, and none to the levels",
        scope: Scope::Every,
        run: log_level,
    },
    Check {
        name: "log/at-start",
        section: "Log level",
        sends: "GetMetadata with a level, and with an unknown one",
        expects: "metadata, and an answer to a ping",
        scope: Scope::Every,
        run: level_at_start,
    },
];

/// Sends a context and its request in one write, and returns the id.
fn with_context(guest: &mut Guest<'_>, context: &[u8], cmd: &str, data: &[u8]) -> Checked<u64> {
    let id = guest.id();
    let mut bytes = guest.chunk(id, Direction::OneWay, command::CONTEXT, context);
    bytes.extend(guest.chunk(id, Direction::Request, cmd, data));
    guest.send_raw(&bytes)?;
    Ok(id)
}

fn deadline(setup: &Setup) -> Checked {
    let mut guest = setup.negotiate("context", &[])?;
    let call = guest.users_call()?;
    let id = with_context(&mut guest, br#"{"deadline_ms":60000}"#, &call.cmd, &call.data)?;
    handled(&guest.response(id)?)
}

fn handled(response: &Chunk) -> Checked {
    if is_error(response) { Err(came(shown(response))) } else { Ok(()) }
}

fn passed_deadline(setup: &Setup) -> Checked {
    let mut guest = setup.negotiate("context", &[])?;
    let call = setup.call.clone();
    let id = with_context(&mut guest, br#"{"deadline_ms":0}"#, &call.cmd, &call.data)?;
    guest.response(id)?;
    guest.no_answer("the request, which has one")
}

fn odd_contexts(setup: &Setup) -> Checked {
    let mut guest = setup.negotiate("context", &[])?;
    let call = guest.users_call()?;
    let long = format!("{{\"deadline_ms\":0,\"x\":\"{}\"}}", "x".repeat(CONTEXT_MAX));
    let contexts: [&[u8]; 9] = [
        b"",
        b"no JSON",
        b"[]",
        b"\xff",
        br#"{"deadline_ms":-1}"#,
        br#"{"deadline_ms":"1"}"#,
        br#"{"deadline_ms":1e0}"#,
        br#"{"unheard":"of"}"#,
        long.as_bytes(),
    ];
    for context in contexts {
        let id = with_context(&mut guest, context, &call.cmd, &call.data)?;
        let response = guest.response(id)?;
        if is_error(&response) {
            let shown_context = &context[..context.len().min(40)];
            let text = shown_context.escape_ascii();
            return Err(came(format!("{} after the context b\"{text}\"", shown(&response))));
        }
    }
    Ok(())
}

fn dropped_context(setup: &Setup) -> Checked {
    let mut guest = setup.negotiate("context", &[])?;
    let call = guest.users_call()?;
    let (ahead, id) = (guest.id(), guest.id());
    // The deadline belongs to a request that does not come, so the other call may not have it.
    guest.send(ahead, Direction::OneWay, command::CONTEXT, br#"{"deadline_ms":0}"#)?;
    guest.send(id, Direction::Request, &call.cmd, &call.data)?;
    handled(&guest.response(id)?)?;
    guest.send(ahead, Direction::Request, &call.cmd, &call.data)?;
    handled(&guest.response(ahead)?)
}

fn context_not_agreed(setup: &Setup) -> Checked {
    let mut guest = setup.begin()?;
    let call = guest.users_call()?;
    let id = with_context(&mut guest, br#"{"deadline_ms":0}"#, &call.cmd, &call.data)?;
    handled(&guest.response(id)?)
}

fn cancelled(setup: &Setup) -> Checked {
    let mut guest = setup.negotiate("cancel", &[])?;
    let slow = guest.begin_slow()?;
    let begun = Instant::now();
    guest.send(slow, Direction::OneWay, command::CANCEL, b"")?;
    guest.response(slow)?;
    tracing::debug!(elapsed = ?begun.elapsed(), "the cancelled call was answered");
    guest.no_answer("the request, which has one")
}

fn late_cancel(setup: &Setup) -> Checked {
    let mut guest = setup.negotiate("cancel", &[])?;
    let id = guest.request(UNKNOWN, b"")?;
    guest.response(id)?;
    for id in [id, 0, 1000, u64::MAX >> 1] {
        guest.send(id, Direction::OneWay, command::CANCEL, b"")?;
    }
    guest.no_answer("a cancel")
}

fn reports<'a>(guest: &'a Guest<'_>, id: u64) -> impl Iterator<Item = &'a Chunk> {
    guest
        .seen
        .iter()
        .filter(move |chunk| chunk.command == command::PROGRESS && chunk.thread_id.as_u64() == id)
}

fn progress(setup: &Setup) -> Checked {
    let mut guest = setup.negotiate("progress context", &[])?;
    let call = setup.slow.clone();
    let id = with_context(&mut guest, br#"{"progress":true}"#, &call.cmd, &call.data)?;
    guest.response(id)?;
    // Those that stand before the place of the response came before it.
    let place = guest.last_taken;
    let is_report = |chunk: &&Chunk| chunk.command == command::PROGRESS;
    let before = guest.seen.iter().take(place).filter(is_report).count();
    for report in reports(&guest, id) {
        let is_right = report.direction == Direction::Response
            && report.buffer.len() <= CONTEXT_MAX
            && serde_json::from_slice(&report.buffer).is_ok_and(|report| has_report(&report));
        if !is_right {
            return Err(came(shown(report)));
        }
    }
    guest.rest()?;
    match reports(&guest, id).nth(before) {
        Some(late) => Err(came(format!("after the response: {}", shown(late)))),
        None if before == 0 => Err(not_applicable(format!(
            "{:?} sends no progress; --slow CMD=DATA names a call that does",
            call.cmd
        ))),
        None => Ok(()),
    }
}

fn has_report(report: &Value) -> bool {
    let Value::Object(report) = report else { return false };
    let is_right = |key: &str, is: fn(&Value) -> bool| report.get(key).is_none_or(is);
    report.get("done").is_some_and(Value::is_u64)
        && is_right("total", Value::is_u64)
        && is_right("message", Value::is_string)
}

fn no_progress(setup: &Setup) -> Checked {
    let mut guest = setup.negotiate("progress context", &[])?;
    let call = setup.slow.clone();
    let id = guest.request(&call.cmd, &call.data)?;
    guest.response(id)?;
    guest.rest()?;
    match reports(&guest, id).next() {
        None => Ok(()),
        Some(report) => Err(came(shown(report))),
    }
}

fn failure(setup: &Setup) -> Checked {
    let mut guest = setup.negotiate("failure", &[])?;
    let response = guest.refused(UNKNOWN, b"data")?;
    if response.command == command::ERROR {
        return Ok(());
    }
    let is_right = response.buffer.len() <= FAILURE_MAX
        && serde_json::from_slice::<Value>(&response.buffer)
            .is_ok_and(|failure| failure["code"].is_string() && failure["message"].is_string());
    if is_right { Ok(()) } else { Err(came(shown(&response))) }
}

fn failure_not_agreed(setup: &Setup) -> Checked {
    let mut guest = setup.begin()?;
    let call = setup.call.clone();
    let calls =
        [(UNKNOWN, &b""[..]), (&call.cmd, b"\xff"), ("cmd.conform", b""), ("GetServices", b"")];
    for (cmd, data) in calls {
        let response = guest.call(cmd, data)?;
        if response.command == command::FAILURE {
            return Err(came(shown(&response)));
        }
    }
    Ok(())
}

fn takes_config(setup: &Setup) -> Checked {
    let guest = setup.begin_with("config", &[])?;
    if guest.names("config") {
        return Ok(());
    }
    Err(not_applicable("the plugin does not name `config`"))
}

fn config(setup: &Setup) -> Checked {
    takes_config(setup)?;
    let json = setup.config.clone().unwrap_or_else(|| "{}".into());
    let mut guest = setup.start()?;
    match guest.hello("config", &[("pipeplug.config", &json)]) {
        Ok(()) if guest.names("config") => guest.ping(),
        Ok(()) => Err(came("metadata that do not name `config`, which those without one do")),
        Err(failed) => match guest.status(Duration::from_secs(2))? {
            Some(status) if !status.success() && setup.config.is_none() => Ok(()),
            _ => Err(failed),
        },
    }
}

fn secret(setup: &Setup) -> Checked {
    takes_config(setup)?;
    let mut guest = setup.start()?;
    let json = format!("{{\"conform\":\"{SECRET}\"}}");
    // A plugin that does not start with it keeps it to itself as well.
    let answered = guest.hello("config", &[("pipeplug.config", &json)]);
    match answered {
        Ok(()) => {
            guest.ping()?;
            guest.one_way(command::STOP, b"")?;
            // One that does not stop fails another check.
            guest.status(Duration::from_secs(2))?;
        }
        Err(failed) if guest.status(Duration::from_secs(2))?.is_none() => return Err(failed),
        Err(_) => {}
    }
    guest.wait_for_stderr();
    let metadata = Value::Object(guest.metadata.clone()).to_string();
    for (place, text) in [("metadata", metadata), ("stderr", guest.stderr())] {
        if text.contains(SECRET) {
            return Err(came(format!("the word in its {place}")));
        }
    }
    Ok(())
}

fn log_level(setup: &Setup) -> Checked {
    let mut guest = setup.negotiate("log", &[])?;
    for level in ["off", "error", "warn", "info", "debug", "trace", "unheard-of", "", "off"] {
        guest.one_way(command::LOG_LEVEL, level.as_bytes())?;
    }
    guest.no_answer("a level")
}

fn level_at_start(setup: &Setup) -> Checked {
    for level in ["debug", "unheard-of"] {
        let mut guest = setup.negotiate("log", &[("pipeplug.log_level", level)])?;
        guest.ping()?;
    }
    Ok(())
}
