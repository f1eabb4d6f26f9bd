//! Checks of what a host negotiates, and of the end.

use std::time::Duration;

use pipeplug_wire::{Chunk, Direction, command};
use serde_json::Value;

use super::{DEFAULT_WINDOW, UNKNOWN, watch};
use crate::commands::conform::checks::broken::{self};
use crate::commands::conform::guest::parse_number;
use crate::commands::conform::host::HostCheck;
use crate::commands::conform::host::scripted::{Scripted, is_stop, unexpected};
use crate::commands::conform::outcome::{Checked, came, not_applicable};
use crate::commands::conform::peer::{Answers, Input, is_response, shown, weight};

pub(super) const CHECKS: &[HostCheck] = &[
    HostCheck {
        name: "flow/credit-comes",
        section: "Flow",
        sends: "one-ways of half the host's window, while a call of the host is open",
        expects: "cmd.credit with a total that is not above what was sent",
        run: credit_comes,
    },
    HostCheck {
        name: "flow/keeps-to-window",
        section: "Flow",
        sends: "a window of 1, and no credit",
        expects: "at most one request or one-way of the host after its GetMetadata is credited",
        run: keeps_to_window,
    },
    HostCheck {
        name: "flow/odd-credits",
        section: "Flow",
        sends: "cmd.credit that is no number, or above what was sent, then a ping",
        expects: "an answer to the ping",
        run: odd_credits,
    },
    HostCheck {
        name: "context/own",
        section: "Context",
        sends: "answers to all calls of the host",
        expects: "each cmd.context is a JSON object of at most 4096 bytes, and its chunk follows at once",
        run: own_contexts,
    },
    HostCheck {
        name: "cancel/unknown",
        section: "Cancellation",
        sends: "cmd.cancel of requests that were never sent, then a ping",
        expects: "an answer to the ping, and none to the cancels",
        run: |plugin| {
            plugin.wait_for_host()?;
            is_ignored(plugin, Direction::OneWay, &[(command::CANCEL, b"")])
        },
    },
    HostCheck {
        name: "progress/unasked",
        section: "Progress",
        sends: "cmd.progress for requests that were never sent, then a ping",
        expects: "an answer to the ping, and none to the reports",
        run: |plugin| {
            plugin.wait_for_host()?;
            is_ignored(plugin, Direction::Response, &[(command::PROGRESS, br#"{"done":1}"#)])
        },
    },
    HostCheck {
        name: "stream/unknown",
        section: "Streams",
        sends: "chunks of streams that never existed, in either direction, then a ping",
        expects: "an answer to the ping, and none to the others",
        run: |plugin| {
            let chunks: [(&str, &[u8]); 4] = [
                (command::PART, b"late"),
                (command::PART_CREDIT, b"100"),
                (command::ENOUGH, b""),
                (command::END, b""),
            ];
            plugin.wait_for_host()?;
            is_ignored(plugin, Direction::OneWay, &chunks)?;
            is_ignored(plugin, Direction::Response, &chunks[..3])
        },
    },
    HostCheck {
        name: "failure/taken",
        section: "Failures",
        sends: "cmd.failure as the answer to a call of the host, between two pings",
        expects: "answers to the pings, or cmd.stop after the first: it is taken whatever was negotiated",
        run: failure_taken,
    },
    HostCheck {
        name: "end/stop",
        section: "The end",
        sends: "answers to all calls of the host",
        expects: "cmd.stop before the end of the stream",
        run: stop,
    },
    HostCheck {
        name: "end/guest-gone",
        section: "The end",
        sends: "the end of its stream inside an answer, then of the process",
        expects: "the end of the connection by the host",
        run: end_in_chunk,
    },
];

fn credit_comes(plugin: &mut Scripted) -> Checked {
    plugin.wait_for_host()?;
    plugin.needs("flow")?;
    let offer = plugin.offer();
    let value = offer.get("pipeplug.window").and_then(Value::as_str).and_then(parse_number);
    let window = value.unwrap_or(DEFAULT_WINDOW).max(1);
    plugin.greet("flow", &[])?;
    plugin.users_request()?;
    let piece = vec![b'x'; usize::try_from(window / 4).unwrap_or(1).clamp(1, 1 << 20)];
    while plugin.sent < window / 2 + 1 {
        plugin.one_way(UNKNOWN, &piece)?;
    }
    let credit = plugin.expect("cmd.credit", |chunk| chunk.command == command::CREDIT)?;
    let total = std::str::from_utf8(&credit.buffer).ok().and_then(parse_number);
    match total {
        Some(total) if total <= plugin.sent => Ok(()),
        _ => Err(came(format!("{}, and {} bytes were sent", shown(&credit), plugin.sent))),
    }
}

fn keeps_to_window(plugin: &mut Scripted) -> Checked {
    let asked = plugin.wait_for_host()?;
    plugin.needs("flow")?;
    plugin.greet("flow", &[("pipeplug.window", "1")])?;
    let taken = weight(&asked.command, asked.buffer.len());
    plugin.one_way(command::CREDIT, taken.to_string().as_bytes())?;
    watch(plugin)?;
    let counts = |chunk: &&Chunk| {
        chunk.direction != Direction::Response && !command::is_reserved(&chunk.command)
    };
    match plugin.seen.iter().filter(counts).count() {
        0 => Err(not_applicable("the host sends no request and no one-way")),
        1 => Ok(()),
        count => Err(came(format!("{count} requests and one-ways without credit"))),
    }
}

fn odd_credits(plugin: &mut Scripted) -> Checked {
    plugin.wait_for_host()?;
    plugin.needs("flow")?;
    for total in ["", "x", "-1", "007", "18446744073709551615", "18446744073709551616"] {
        let credit = plugin.chunk(0, Direction::OneWay, command::CREDIT, total.as_bytes());
        plugin.send_before_ping(&credit);
    }
    let metadata = plugin.metadata("flow", &[]);
    plugin.greet_and_ping(command::GET_METADATA, &metadata)
}

fn own_contexts(plugin: &mut Scripted) -> Checked {
    plugin.wait_for_host()?;
    plugin.needs("context")?;
    plugin.greet("context cancel", &[])?;
    watch(plugin)?;
    let mut count = 0;
    for (index, context) in plugin.seen.iter().enumerate() {
        if context.command != command::CONTEXT {
            continue;
        }
        count += 1;
        let is_object = matches!(serde_json::from_slice(&context.buffer), Ok(Value::Object(_)));
        let next = plugin.seen.get(index + 1);
        let is_followed = next.is_none_or(|next| next.thread_id == context.thread_id);
        if !is_object || context.buffer.len() > 4096 || !is_followed {
            return unexpected(context);
        }
    }
    if count == 0 { Err(not_applicable("the host sends no cmd.context")) } else { Ok(()) }
}

/// Sends chunks of exchanges that do not exist.
fn is_ignored(plugin: &mut Scripted, direction: Direction, chunks: &[(&str, &[u8])]) -> Checked {
    for id in [1000, u64::MAX >> 1] {
        for (cmd, buffer) in chunks {
            plugin.send(id, direction, cmd, buffer)?;
        }
    }
    plugin.no_answer("a chunk of no exchange")
}

fn failure_taken(plugin: &mut Scripted) -> Checked {
    plugin.wait_for_host()?;
    plugin.greet("", &[])?;
    let call = plugin.users_request()?;
    let failure = br#"{"code":"conform","message":"a check","data":{"a":1}}"#;
    let [before, after] = [plugin.id(), plugin.id()];
    let bytes = [
        plugin.chunk(before, Direction::Request, command::PING, b""),
        plugin.chunk(call.thread_id.as_u64(), Direction::Response, command::FAILURE, failure),
        plugin.chunk(after, Direction::Request, command::PING, b""),
    ];
    plugin.send_raw(&bytes.concat())?;
    plugin.response(before)?;
    // The host may stop the plugin after its failed call.
    let goes_on = |chunk: &Chunk| is_response(chunk, after) || is_stop(chunk);
    match plugin.expect("answer to the second ping", goes_on)? {
        chunk if is_stop(&chunk) => plugin.state = Input::Ended,
        _ => {}
    }
    Ok(())
}

fn stop(plugin: &mut Scripted) -> Checked {
    plugin.wait_for_host()?;
    plugin.greet("", &[])?;
    plugin.answers = Answers::Echo;
    let limit = Duration::from_secs(3600);
    if plugin.find(limit, is_stop)?.is_some() {
        // `serve` has nothing to wait for.
        plugin.state = Input::Ended;
        return Ok(());
    }
    match plugin.state {
        Input::Open => Err(not_applicable("the host does not end by itself within the time limit")),
        _ => Err(plugin.missing("cmd.stop")),
    }
}

fn end_in_chunk(plugin: &mut Scripted) -> Checked {
    plugin.wait_for_host()?;
    plugin.passes_if_killed()?;
    plugin.is_within_chunk = true;
    let bytes = broken::END_IN_CHUNK.bytes(plugin.format)?;
    plugin.send_raw(bytes)?;
    plugin.close_output();
    plugin.ends()
}
