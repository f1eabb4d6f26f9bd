//! Calls and reserved commands.

use pipeplug_wire::{Direction, Format, command};

use crate::commands::conform::catalog::{Check, Scope};
use crate::commands::conform::guest::Setup;
use crate::commands::conform::outcome::{Checked, came, not_applicable};
use crate::commands::conform::peer::{is_error, shown};

/// Cmd that no plugin has.
const UNKNOWN: &str = "conform-unheard-of";
/// Cmd that the protocol does not have.
const RESERVED: &str = "cmd.conform-unheard-of";

pub(crate) const CHECKS: &[Check] = &[
    Check {
        name: "call/ping",
        section: "Reserved commands",
        sends: "the request cmd.ping",
        expects: "a response with the threadID of the request and an empty buffer",
        scope: Scope::Every,
        run: ping,
    },
    Check {
        name: "call/unknown-request",
        section: "Calls",
        sends: "a request with a command that does not exist",
        expects: "the response cmd.error with a message in UTF-8",
        scope: Scope::Every,
        run: unknown_request,
    },
    Check {
        name: "call/unknown-one-way",
        section: "Calls",
        sends: "a one-way with a command that does not exist, then a ping",
        expects: "an answer to the ping, and none to the one-way",
        scope: Scope::Every,
        run: unknown_one_way,
    },
    Check {
        name: "call/reserved-request",
        section: "Reserved commands",
        sends: "a request with an unknown command that begins with `cmd.`",
        expects: "the response cmd.error",
        scope: Scope::Every,
        run: reserved_request,
    },
    Check {
        name: "call/reserved-one-way",
        section: "Reserved commands",
        sends: "a one-way with an unknown command that begins with `cmd.`, then a ping",
        expects: "an answer to the ping, and none to the one-way",
        scope: Scope::Every,
        run: reserved_one_way,
    },
    Check {
        name: "call/stop-as-request",
        section: "Reserved commands",
        sends: "a request cmd.stop, which is a one-way only, then a ping",
        expects: "the response cmd.error, and an answer to the ping",
        scope: Scope::Every,
        run: stop_as_request,
    },
    Check {
        name: "call/answer",
        section: "Calls",
        sends: "the user's call, twice",
        expects: "a response to each",
        scope: Scope::Every,
        run: answer,
    },
    Check {
        name: "call/one-way",
        section: "Fields",
        sends: "the user's call as a one-way, then a ping",
        expects: "an answer to the ping, and none to the one-way",
        scope: Scope::Every,
        run: one_way,
    },
    Check {
        name: "call/one-response",
        section: "Fields",
        sends: "pings, unknown requests and the user's call, several times",
        expects: "exactly one response to each, and no other response",
        scope: Scope::Every,
        run: one_response,
    },
    Check {
        name: "call/thread-ids",
        section: "Fields",
        sends: "pings with the threadIDs 18446744073709551615, 7, 3 and 0",
        expects: "responses with these threadIDs",
        scope: Scope::Every,
        run: thread_ids,
    },
    Check {
        name: "call/any-bytes",
        section: "Fields",
        sends: "the user's call with all 256 bytes in its buffer, and with an empty one",
        expects: "a response to each",
        scope: Scope::Every,
        run: any_bytes,
    },
    Check {
        name: "call/large-buffer",
        section: "Limits",
        sends: "the user's call with a buffer of 1 MiB, then a ping",
        expects: "a response to each",
        scope: Scope::Every,
        run: large_buffer,
    },
    Check {
        name: "call/huge-buffer",
        section: "Limits",
        sends: "the user's call with a buffer of 10 MiB, then a ping",
        expects: "a response to each",
        scope: Scope::Every,
        run: huge_buffer,
    },
    Check {
        name: "call/odd-commands",
        section: "Fields",
        sends: "requests whose cmd is empty, has other letters, a space or a NUL (standard format)",
        expects: "one response to each",
        scope: Scope::Every,
        run: odd_commands,
    },
    Check {
        name: "call/unasked-response",
        section: "Broken streams",
        sends: "responses to requests that were never sent, then a ping",
        expects: "an answer to the ping",
        scope: Scope::Every,
        run: unasked_response,
    },
];

fn ping(setup: &Setup) -> Checked {
    let mut guest = setup.begin()?;
    let response = guest.call(command::PING, b"")?;
    if is_error(&response) || !response.buffer.is_empty() {
        return Err(came(shown(&response)));
    }
    Ok(())
}

fn unknown_request(setup: &Setup) -> Checked {
    let mut guest = setup.begin()?;
    let response = guest.refused(UNKNOWN, b"data")?;
    match std::str::from_utf8(&response.buffer) {
        Ok(_) if response.command == command::ERROR => Ok(()),
        _ => Err(came(shown(&response))),
    }
}

fn unknown_one_way(setup: &Setup) -> Checked {
    let mut guest = setup.begin()?;
    guest.one_way(UNKNOWN, b"data")?;
    guest.no_answer("the one-way")
}

fn reserved_request(setup: &Setup) -> Checked {
    let mut guest = setup.begin()?;
    guest.refused(RESERVED, b"data").map(drop)
}

fn reserved_one_way(setup: &Setup) -> Checked {
    let mut guest = setup.begin()?;
    guest.one_way(RESERVED, b"data")?;
    guest.no_answer("the one-way")
}

fn stop_as_request(setup: &Setup) -> Checked {
    let mut guest = setup.begin()?;
    guest.refused(command::STOP, b"")?;
    guest.ping()
}

fn answer(setup: &Setup) -> Checked {
    let mut guest = setup.begin()?;
    let call = guest.users_call()?;
    guest.call(&call.cmd, &call.data).map(drop)
}

fn one_way(setup: &Setup) -> Checked {
    let mut guest = setup.begin()?;
    let call = guest.users_call()?;
    guest.one_way(&call.cmd, &call.data)?;
    guest.no_answer("the one-way")
}

fn one_response(setup: &Setup) -> Checked {
    let mut guest = setup.begin()?;
    let call = setup.call.clone();
    for _ in 0..5 {
        guest.ping()?;
        guest.call(UNKNOWN, b"")?;
        guest.call(&call.cmd, &call.data)?;
    }
    match guest.rest()?.first() {
        None => Ok(()),
        Some(chunk) => Err(came(format!("a response too many: {}", shown(chunk)))),
    }
}

fn thread_ids(setup: &Setup) -> Checked {
    let mut guest = setup.begin()?;
    // The classic format comes from a package that reads no ids above 2⁶³−1 and replaces 0.
    let ids: &[u64] = match setup.format {
        Format::Standard => &[u64::MAX, 7, 3, 0],
        Format::Classic => &[i64::MAX as u64, 7, 3],
    };
    for id in ids {
        guest.send(*id, Direction::Request, command::PING, b"")?;
        guest.response(*id)?;
    }
    Ok(())
}

fn any_bytes(setup: &Setup) -> Checked {
    let mut guest = setup.begin()?;
    let call = guest.users_call()?;
    let all: Vec<u8> = (0..=255).collect();
    guest.call(&call.cmd, &all)?;
    guest.call(&call.cmd, b"")?;
    guest.ping()
}

fn large_buffer(setup: &Setup) -> Checked {
    let mut guest = setup.begin()?;
    let call = guest.users_call()?;
    guest.call(&call.cmd, &vec![b'x'; 1 << 20])?;
    guest.ping()
}

fn huge_buffer(setup: &Setup) -> Checked {
    let mut guest = setup.begin()?;
    let call = guest.users_call()?;
    guest.call(&call.cmd, &vec![b'x'; 10 << 20])?;
    guest.ping()
}

fn odd_commands(setup: &Setup) -> Checked {
    if setup.format == Format::Classic {
        return Err(not_applicable("the classic format has no such commands"));
    }
    let mut guest = setup.begin()?;
    for cmd in ["", "größe ✓", "two words", "a\0b"] {
        guest.call(cmd, b"data")?;
    }
    match guest.rest()?.first() {
        None => Ok(()),
        Some(chunk) => Err(came(format!("a response too many: {}", shown(chunk)))),
    }
}

fn unasked_response(setup: &Setup) -> Checked {
    let mut guest = setup.begin()?;
    for id in [0, 1, 1000, u64::MAX >> 1] {
        guest.send(id, Direction::Response, "conform", b"not asked")?;
    }
    guest.ping()
}
