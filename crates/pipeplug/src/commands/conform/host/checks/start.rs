//! Checks of the start of a host.

use std::time::Duration;

use pipeplug_wire::{Chunk, Direction, command};
use serde_json::Value;

use super::{UNKNOWN, watch};
use crate::commands::conform::guest::parse_number;
use crate::commands::conform::host::HostCheck;
use crate::commands::conform::host::scripted::{Scripted, is_stop, unexpected};
use crate::commands::conform::outcome::{Checked, came};

pub(super) const CHECKS: &[HostCheck] = &[
    HostCheck {
        name: "start/get-metadata",
        section: "Start",
        sends: "nothing",
        expects: "the request GetMetadata as the first chunk, with an empty buffer or a JSON object of \
                  strings",
        run: get_metadata,
    },
    HostCheck {
        name: "start/protocol-keys",
        section: "Negotiation",
        sends: "nothing",
        expects: "the keys `pipeplug.…` of the host have values of their grammar",
        run: protocol_keys,
    },
    HostCheck {
        name: "start/calls-before-metadata",
        section: "Start",
        sends: "a ping and a request before the answer to GetMetadata",
        expects: "a response to each",
        run: calls_before_metadata,
    },
    HostCheck {
        name: "start/metadata-error",
        section: "Start",
        sends: "cmd.error as the answer to GetMetadata, then a ping",
        expects: "an answer to the ping: no metadata are no failure",
        run: metadata_error,
    },
    HostCheck {
        name: "start/metadata-empty",
        section: "Start",
        sends: "{} as the metadata, then a ping",
        expects: "an answer to the ping",
        run: |plugin| greets_with(plugin, command::GET_METADATA, b"{}"),
    },
    HostCheck {
        name: "start/metadata-other-types",
        section: "Start",
        sends: "metadata whose values are no strings, then a ping",
        expects: "an answer to the ping: the values are kept as their JSON text",
        run: |plugin| {
            greets_with(
                plugin,
                command::GET_METADATA,
                br#"{"a":1,"b":[true],"c":null,"d":{"e":"f"}}"#,
            )
        },
    },
    HostCheck {
        name: "start/metadata-other-cmd",
        section: "Fields",
        sends: "metadata in a response with another cmd, then a ping",
        expects: "an answer to the ping: a response is found by its threadID",
        run: |plugin| greets_with(plugin, "conform", b"{}"),
    },
    HostCheck {
        name: "start/metadata-list",
        section: "Start",
        sends: "the JSON list [] as the metadata",
        expects: "the end of the connection: a response that is no JSON object is a failure",
        run: metadata_list,
    },
    HostCheck {
        name: "start/unknown-keys",
        section: "Negotiation",
        sends: "metadata with unknown keys and features, and windows that are no numbers, then a ping",
        expects: "an answer to the ping",
        run: unknown_keys,
    },
    HostCheck {
        name: "start/base-only",
        section: "Negotiation",
        sends: "metadata that name no feature",
        expects: "no cmd.* but cmd.ping, cmd.error and cmd.stop",
        run: base_only,
    },
];

fn get_metadata(plugin: &mut Scripted) -> Checked {
    let first = plugin.expect("first chunk", |_| true)?;
    plugin.seen.push_front(first.clone());
    if first.direction != Direction::Request || first.command != command::GET_METADATA {
        return unexpected(&first);
    }
    let asked = plugin.wait_for_host()?;
    if asked.buffer.is_empty() {
        return Ok(());
    }
    match serde_json::from_slice(&asked.buffer) {
        Ok(Value::Object(offer)) if offer.values().all(Value::is_string) => Ok(()),
        _ => unexpected(&asked),
    }
}

fn protocol_keys(plugin: &mut Scripted) -> Checked {
    plugin.wait_for_host()?;
    for (key, value) in plugin.offer() {
        let value = value.as_str().unwrap_or_default().to_owned();
        let is_right = match key.as_str() {
            "pipeplug.protocol" => value == "1",
            "pipeplug.window" | "pipeplug.stream_window" => parse_number(&value).is_some(),
            "pipeplug.config" => serde_json::from_str::<Value>(&value).is_ok(),
            _ => true,
        };
        if !is_right {
            // A configuration may hold secrets.
            let shown = if key == "pipeplug.config" { "no JSON".to_owned() } else { value };
            return Err(came(format!("{key:?} has the value {shown:?}")));
        }
    }
    Ok(())
}

fn calls_before_metadata(plugin: &mut Scripted) -> Checked {
    plugin.wait_for_host()?;
    plugin.ping()?;
    plugin.refused_by_host(UNKNOWN)
}

fn greets_with(plugin: &mut Scripted, cmd: &str, buffer: &[u8]) -> Checked {
    plugin.wait_for_host()?;
    plugin.greet_and_ping(cmd, buffer)
}

fn metadata_error(plugin: &mut Scripted) -> Checked {
    greets_with(plugin, command::ERROR, b"there are none")
}

fn metadata_list(plugin: &mut Scripted) -> Checked {
    plugin.wait_for_host()?;
    plugin.passes_if_killed()?;
    plugin.greet_raw(command::GET_METADATA, b"[]")?;
    // Some ask the plugin to stop first.
    if plugin.find(Duration::from_secs(5), is_stop)?.is_some() {
        return Ok(());
    }
    plugin.ends()
}

fn unknown_keys(plugin: &mut Scripted) -> Checked {
    plugin.wait_for_host()?;
    let keys = [
        ("pipeplug.unheard-of", "x"),
        ("pipeplug.window", "-1"),
        ("pipeplug.stream_window", "007"),
    ];
    let metadata = plugin.metadata("unheard-of", &keys);
    plugin.greet_and_ping(command::GET_METADATA, &metadata)
}

fn base_only(plugin: &mut Scripted) -> Checked {
    plugin.wait_for_host()?;
    plugin.greet("", &[])?;
    watch(plugin)?;
    let known = [command::PING, command::ERROR, command::STOP];
    let is_foreign =
        |chunk: &&Chunk| command::is_reserved(&chunk.command) && !known.contains(&&*chunk.command);
    match plugin.seen.iter().find(is_foreign) {
        None => Ok(()),
        Some(chunk) => unexpected(chunk),
    }
}
