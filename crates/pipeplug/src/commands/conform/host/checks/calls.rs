//! Checks of the calls of a host, of its reading, and of broken streams.

use std::time::Duration;

use pipeplug_wire::{Direction, Format, command};

use super::{BROKEN, RESERVED, UNKNOWN, watch};
use crate::commands::conform::checks::broken::{self, Broken};
use crate::commands::conform::host::HostCheck;
use crate::commands::conform::host::scripted::{Scripted, unexpected};
use crate::commands::conform::outcome::{Checked, came, not_applicable};

pub(super) const CHECKS: &[HostCheck] = &[
    HostCheck {
        name: "call/ping",
        section: "Reserved commands",
        sends: "the request cmd.ping",
        expects: "a response with its threadID and an empty buffer",
        run: ping,
    },
    HostCheck {
        name: "call/unknown-request",
        section: "Calls",
        sends: "a request with a command that does not exist",
        expects: "the response cmd.error or cmd.failure, and none to it later",
        run: |plugin| {
            plugin.wait_for_host()?;
            plugin.refused_by_host(UNKNOWN)?;
            plugin.no_answer("the request, which has one")
        },
    },
    HostCheck {
        name: "call/unknown-one-way",
        section: "Calls",
        sends: "a one-way with a command that does not exist, then a ping",
        expects: "an answer to the ping, and none to the one-way",
        run: |plugin| one_way(plugin, UNKNOWN),
    },
    HostCheck {
        name: "call/reserved-request",
        section: "Reserved commands",
        sends: "a request with an unknown command that begins with `cmd.`",
        expects: "the response cmd.error",
        run: |plugin| {
            plugin.wait_for_host()?;
            plugin.refused_by_host(RESERVED)
        },
    },
    HostCheck {
        name: "call/reserved-one-way",
        section: "Reserved commands",
        sends: "a one-way with an unknown command that begins with `cmd.`, then a ping",
        expects: "an answer to the ping, and none to the one-way",
        run: |plugin| one_way(plugin, RESERVED),
    },
    HostCheck {
        name: "call/thread-ids",
        section: "Fields",
        sends: "pings with the threadIDs 18446744073709551615, 7, 3 and 0",
        expects: "responses with these threadIDs",
        run: thread_ids,
    },
    HostCheck {
        name: "call/unasked-response",
        section: "Broken streams",
        sends: "responses to requests that were never sent, and a second one to GetMetadata",
        expects: "an answer to the ping that follows",
        run: unasked_response,
    },
    HostCheck {
        name: "call/in-flight",
        section: "Calls",
        sends: "2,000 pings, while answers are read",
        expects: "one response to each",
        run: in_flight,
    },
    HostCheck {
        name: "call/own-requests",
        section: "Fields",
        sends: "answers to all calls of the host",
        expects: "requests of the host with different threadIDs",
        run: own_requests,
    },
    HostCheck {
        name: "format/byte-by-byte",
        section: "Grammar",
        sends: "metadata and a ping, each byte in a write of its own",
        expects: "an answer to the ping",
        run: byte_by_byte,
    },
    HostCheck {
        name: "format/directions",
        section: "Fields",
        sends: "chunks with the directions 0, 4 and 99, then a ping",
        expects: "an answer to the ping, and none to the others",
        run: directions,
    },
    HostCheck {
        name: "limit/command",
        section: "Limits",
        sends: "a request with a cmd of 1 MiB, then a ping",
        expects: "cmd.error, and an answer to the ping",
        run: |plugin| {
            plugin.wait_for_host()?;
            plugin.refused_by_host(&"x".repeat(1 << 20))?;
            plugin.no_answer("the request, which has one")
        },
    },
    HostCheck {
        name: "broken/not-a-digit",
        section: "Broken streams",
        sends: "a line of text",
        expects: BROKEN,
        run: |plugin| breaks(plugin, broken::NOT_A_DIGIT),
    },
    HostCheck {
        name: "broken/sign",
        section: "Broken streams",
        sends: "a chunk with the threadID -1",
        expects: BROKEN,
        run: |plugin| breaks(plugin, broken::SIGN),
    },
    HostCheck {
        name: "broken/leading-zero",
        section: "Broken streams",
        sends: "a chunk with the threadID 07",
        expects: BROKEN,
        run: |plugin| breaks(plugin, broken::LEADING_ZERO),
    },
    HostCheck {
        name: "broken/too-large",
        section: "Broken streams",
        sends: "a chunk with the threadID 18446744073709551616",
        expects: BROKEN,
        run: |plugin| breaks(plugin, broken::TOO_LARGE),
    },
    HostCheck {
        name: "broken/no-nul",
        section: "Broken streams",
        sends: "a chunk without a NUL after the cmd (standard format)",
        expects: BROKEN,
        run: |plugin| breaks(plugin, broken::NO_NUL),
    },
    HostCheck {
        name: "broken/not-utf8",
        section: "Broken streams",
        sends: "a request whose cmd is not UTF-8",
        expects: BROKEN,
        run: |plugin| breaks(plugin, broken::NOT_UTF8),
    },
];

/// Time for the other side to read a byte before the next one comes.
const BETWEEN_BYTES: Duration = Duration::from_millis(2);

fn ping(plugin: &mut Scripted) -> Checked {
    plugin.wait_for_host()?;
    let response = plugin.call(command::PING, b"")?;
    if response.buffer.is_empty() && response.command != command::ERROR {
        return Ok(());
    }
    unexpected(&response)
}

fn one_way(plugin: &mut Scripted, cmd: &str) -> Checked {
    plugin.wait_for_host()?;
    plugin.one_way(cmd, b"data")?;
    plugin.no_answer("the one-way")
}

fn thread_ids(plugin: &mut Scripted) -> Checked {
    plugin.wait_for_host()?;
    let ids: &[u64] = match plugin.format {
        Format::Standard => &[u64::MAX, 7, 3, 0],
        Format::Classic => &[i64::MAX as u64, 7, 3],
    };
    for id in ids {
        plugin.send(*id, Direction::Request, command::PING, b"")?;
        plugin.response(*id)?;
    }
    Ok(())
}

fn unasked_response(plugin: &mut Scripted) -> Checked {
    let id = plugin.wait_for_host()?.thread_id.as_u64();
    for other in [id + 1000, u64::MAX >> 1] {
        plugin.send(other, Direction::Response, "conform", b"not asked")?;
    }
    let metadata = plugin.metadata("", &[]);
    let twice = plugin.chunk(id, Direction::Response, command::GET_METADATA, &metadata);
    plugin.send_before_ping(&twice);
    plugin.greet_and_ping(command::GET_METADATA, &metadata)
}

fn in_flight(plugin: &mut Scripted) -> Checked {
    plugin.wait_for_host()?;
    let ids: Vec<u64> = (0..2000).map(|_| plugin.id()).collect();
    let pings = ids.iter().map(|id| plugin.chunk(*id, Direction::Request, command::PING, b""));
    let bytes = pings.collect::<Vec<_>>().concat();
    plugin.send_raw(&bytes)?;
    for id in &ids {
        plugin.response(*id)?;
    }
    match plugin.seen.iter().find(|chunk| chunk.direction == Direction::Response) {
        None => Ok(()),
        Some(chunk) => unexpected(chunk),
    }
}

fn own_requests(plugin: &mut Scripted) -> Checked {
    let first = plugin.wait_for_host()?.thread_id;
    plugin.greet("", &[])?;
    watch(plugin)?;
    let requests = plugin.seen.iter().filter(|chunk| chunk.direction == Direction::Request);
    let mut ids: Vec<_> = requests.map(|chunk| chunk.thread_id).collect();
    if ids.is_empty() {
        return Err(not_applicable("the host makes no call"));
    }
    ids.push(first);
    let count = ids.len();
    ids.sort();
    ids.dedup();
    if ids.len() == count {
        Ok(())
    } else {
        Err(came(format!("{count} requests with {} threadIDs", ids.len())))
    }
}

fn byte_by_byte(plugin: &mut Scripted) -> Checked {
    let id = plugin.wait_for_host()?.thread_id.as_u64();
    let own = plugin.id();
    let ping = plugin.chunk(own, Direction::Request, command::PING, b"");
    plugin.send_divided(&ping, 1, BETWEEN_BYTES)?;
    plugin.response(own)?;
    let metadata = br#"{"Description":"byte by byte"}"#;
    let own = plugin.id();
    let mut bytes = plugin.chunk(id, Direction::Response, command::GET_METADATA, metadata);
    let last = bytes.pop();
    plugin.is_within_chunk = true;
    for byte in bytes {
        plugin.send_raw(&[byte])?;
    }
    // With the last byte, since the host may have enough then.
    let ping = plugin.chunk(own, Direction::Request, command::PING, b"");
    plugin.is_within_chunk = false;
    plugin.has_greeted();
    plugin.send_raw(&[last.as_slice(), &ping].concat())?;
    plugin.response(own).map(drop)
}

fn directions(plugin: &mut Scripted) -> Checked {
    plugin.wait_for_host()?;
    for direction in ["0", "4", "99"] {
        let chunk = match plugin.format {
            Format::Standard => format!("5\0{direction}\x007\0conform\x004\0data"),
            Format::Classic => format!("5\0{direction}\0conform 4\0data"),
        };
        plugin.send_raw(chunk.as_bytes())?;
    }
    plugin.no_answer("a chunk of an unknown direction")
}

fn breaks(plugin: &mut Scripted, broken: Broken) -> Checked {
    plugin.wait_for_host()?;
    let bytes = broken.bytes(plugin.format)?;
    plugin.passes_if_killed()?;
    plugin.is_within_chunk = true;
    plugin.send_raw(bytes)?;
    plugin.ends_silently()
}
