//! Streams.

use pipeplug_wire::{Chunk, Direction, command};

use crate::commands::conform::catalog::{Check, Scope};
use crate::commands::conform::guest::{Guest, Setup, parse_number};
use crate::commands::conform::outcome::{Checked, came, not_applicable};
use crate::commands::conform::peer::{Input, is_beside, is_error, is_response, shown, weight};

const SECTION: &str = "Streams";
const FEATURES: &str = "stream context cancel";
/// Window of a side that names none.
const DEFAULT_WINDOW: u64 = 1 << 20;
const PART: usize = 16 << 10;

pub(crate) const CHECKS: &[Check] = &[
    Check {
        name: "stream/answered",
        section: SECTION,
        sends: "the user's call with a stream of three parts and cmd.end",
        expects: "exactly one response, and before it only chunks of the stream with its threadID",
        scope: Scope::Every,
        run: answered,
    },
    Check {
        name: "stream/credit",
        section: SECTION,
        sends: "the user's call with parts of more than the plugin's window, as there is credit",
        expects: "cmd.part.credit for more parts, cmd.enough or the response; totals that never \
                  decrease and are not above what was sent",
        scope: Scope::Every,
        run: credit,
    },
    Check {
        name: "stream/window",
        section: SECTION,
        sends: "a window of 1 for parts, the user's call with a stream, and no credit",
        expects: "at most one part of the reply",
        scope: Scope::Every,
        run: reply_window,
    },
    Check {
        name: "stream/enough",
        section: SECTION,
        sends: "the user's call with a stream, cmd.enough for the reply, and cmd.end",
        expects: "a response",
        scope: Scope::Every,
        run: enough,
    },
    Check {
        name: "stream/cancel",
        section: SECTION,
        sends: "the user's call with a stream, one part, and cmd.cancel",
        expects: "exactly one response, and no part after it",
        scope: Scope::Every,
        run: cancel,
    },
    Check {
        name: "stream/end-with-error",
        section: SECTION,
        sends: "the user's call with a stream, one part, and cmd.end with a message",
        expects: "a response",
        scope: Scope::Every,
        run: end_with_error,
    },
    Check {
        name: "stream/late-chunks",
        section: SECTION,
        sends: "chunks of streams that have ended or never existed, then a ping",
        expects: "an answer to the ping, and none to the others",
        scope: Scope::Every,
        run: late,
    },
];

/// Opens a stream with the user's call, and returns its id.
fn open(guest: &mut Guest<'_>) -> Checked<u64> {
    let call = guest.setup.call.clone();
    let id = guest.id();
    let context = br#"{"stream":"send receive"}"#;
    let mut bytes = guest.chunk(id, Direction::OneWay, command::CONTEXT, context);
    bytes.extend(guest.chunk(id, Direction::Request, &call.cmd, &call.data));
    guest.send_raw(&bytes)?;
    Ok(id)
}

fn part(guest: &mut Guest<'_>, id: u64, buffer: &[u8]) -> Checked {
    guest.send(id, Direction::OneWay, command::PART, buffer)
}

/// Waits for the response to a stream, and gives credit for the parts of the reply meanwhile.
fn finish(guest: &mut Guest<'_>, id: u64) -> Checked<Chunk> {
    let mut taken = 0;
    loop {
        let is_next = |chunk: &Chunk| {
            is_response(chunk, id)
                || chunk.command == command::PART && chunk.thread_id.as_u64() == id
        };
        let chunk = guest.expect("response to the stream", is_next)?;
        if is_response(&chunk, id) {
            return Ok(chunk);
        }
        taken += weight(command::PART, chunk.buffer.len());
        guest.send(id, Direction::OneWay, command::PART_CREDIT, taken.to_string().as_bytes())?;
    }
}

fn answered(setup: &Setup) -> Checked {
    let mut guest = setup.negotiate(FEATURES, &[])?;
    let id = open(&mut guest)?;
    for text in [&b"one part\n"[..], b"", b"another part\n"] {
        part(&mut guest, id, text)?;
    }
    guest.send(id, Direction::OneWay, command::END, b"")?;
    finish(&mut guest, id)?;
    // Chunks of the stream that were taken are right.
    let is_of_stream = |chunk: &&Chunk| is_beside(&chunk.command);
    let odd = guest
        .seen
        .iter()
        .filter(is_of_stream)
        .find(|chunk| chunk.direction != Direction::Response || chunk.thread_id.as_u64() != id);
    if let Some(chunk) = odd {
        return Err(came(shown(chunk)));
    }
    guest.ping()?;
    guest.settle()?;
    match guest.seen.iter().find(|chunk| is_response(chunk, id) || chunk.command == command::PART) {
        None => Ok(()),
        Some(chunk) => Err(came(format!("after the response: {}", shown(chunk)))),
    }
}

fn credit(setup: &Setup) -> Checked {
    let mut guest = setup.negotiate(FEATURES, &[])?;
    let window = guest.window("pipeplug.stream_window", DEFAULT_WINDOW);
    if window > 64 << 20 {
        return Err(not_applicable(format!("the plugin's window of {window} bytes is large")));
    }
    let id = open(&mut guest)?;
    let buffer = vec![b'x'; PART.min(usize::try_from(window / 4).unwrap_or(PART)).max(1)];
    let (mut sent, mut credited, mut reply) = (0, 0, 0);
    while sent < window * 2 {
        if sent - credited < window {
            part(&mut guest, id, &buffer)?;
            sent += weight(command::PART, buffer.len());
            continue;
        }
        let is_next = |chunk: &Chunk| {
            chunk.thread_id.as_u64() == id && chunk.direction == Direction::Response
        };
        let chunk = guest.expect("cmd.part.credit, cmd.enough or response", is_next)?;
        match chunk.command.as_str() {
            command::PART_CREDIT => {
                let total = std::str::from_utf8(&chunk.buffer).ok().and_then(parse_number);
                match total {
                    Some(total) if total >= credited && total <= sent => credited = total,
                    _ => {
                        return Err(came(format!("{} after {credited}, of {sent}", shown(&chunk))));
                    }
                }
            }
            command::PART => {
                reply += weight(command::PART, chunk.buffer.len());
                let total = reply.to_string();
                guest.send(id, Direction::OneWay, command::PART_CREDIT, total.as_bytes())?;
            }
            command::ENOUGH => break,
            cmd if is_beside(cmd) => {}
            _ => return Ok(()),
        }
    }
    guest.send(id, Direction::OneWay, command::END, b"")?;
    finish(&mut guest, id)?;
    let total_of = |chunk: &Chunk| {
        let text = std::str::from_utf8(&chunk.buffer).ok()?;
        parse_number(text).filter(|_| chunk.command == command::PART_CREDIT)
    };
    match guest.seen.iter().find(|chunk| total_of(chunk).is_some_and(|total| total > sent)) {
        None => Ok(()),
        Some(chunk) => Err(came(format!("{}, of {sent}", shown(chunk)))),
    }
}

fn reply_window(setup: &Setup) -> Checked {
    let mut guest = setup.negotiate(FEATURES, &[("pipeplug.stream_window", "1")])?;
    let id = open(&mut guest)?;
    let data = [&guest.setup.call.data[..], b"\n"].concat();
    for _ in 0..5 {
        // What the call looks for is in each part.
        part(&mut guest, id, &data)?;
    }
    guest.settle()?;
    let is_part = |chunk: &&Chunk| chunk.command == command::PART && chunk.thread_id.as_u64() == id;
    match guest.seen.iter().filter(is_part).count() {
        0 => Err(not_applicable(
            "the user's call sends no parts; --call CMD=DATA names one that does",
        )),
        1 => {
            guest.send(id, Direction::OneWay, command::END, b"")?;
            finish(&mut guest, id).map(drop)
        }
        count => Err(came(format!("{count} parts without credit"))),
    }
}

fn enough(setup: &Setup) -> Checked {
    let mut guest = setup.negotiate(FEATURES, &[])?;
    let id = open(&mut guest)?;
    guest.send(id, Direction::OneWay, command::ENOUGH, b"")?;
    guest.send(id, Direction::OneWay, command::END, b"")?;
    finish(&mut guest, id).map(drop)
}

fn cancel(setup: &Setup) -> Checked {
    let mut guest = setup.negotiate(FEATURES, &[])?;
    let id = open(&mut guest)?;
    part(&mut guest, id, b"one part\n")?;
    guest.send(id, Direction::OneWay, command::CANCEL, b"")?;
    finish(&mut guest, id)?;
    guest.ping()?;
    guest.settle()?;
    let is_late = |chunk: &&Chunk| is_response(chunk, id) || chunk.command == command::PART;
    match guest.seen.iter().find(is_late) {
        None => Ok(()),
        Some(chunk) => Err(came(format!("after the response: {}", shown(chunk)))),
    }
}

fn end_with_error(setup: &Setup) -> Checked {
    let mut guest = setup.negotiate(FEATURES, &[])?;
    let id = open(&mut guest)?;
    part(&mut guest, id, b"one part\n")?;
    guest.send(id, Direction::OneWay, command::END, b"the source has failed")?;
    let response = finish(&mut guest, id)?;
    tracing::debug!(is_error = is_error(&response), "the broken stream was answered");
    Ok(())
}

fn late(setup: &Setup) -> Checked {
    let mut guest = setup.negotiate(FEATURES, &[])?;
    let id = guest.request("conform-unheard-of", b"")?;
    guest.response(id)?;
    for id in [id, 0, 1000] {
        for (cmd, buffer) in [
            (command::PART, &b"late"[..]),
            (command::PART_CREDIT, b"100"),
            (command::ENOUGH, b""),
            (command::END, b""),
        ] {
            guest.send(id, Direction::OneWay, cmd, buffer)?;
        }
        guest.send(id, Direction::Response, command::PART, b"of none")?;
    }
    if guest.state != Input::Open {
        return Err(guest.missing("answer"));
    }
    guest.no_answer("a late chunk")
}
