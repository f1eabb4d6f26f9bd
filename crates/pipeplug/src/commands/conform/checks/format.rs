//! The two formats, divided writes, and chunks that are skipped.

use std::time::Duration;

use pipeplug_wire::{Direction, Format, command};

use crate::commands::conform::catalog::{Check, Scope};
use crate::commands::conform::guest::{Guest, Setup, Way};
use crate::commands::conform::outcome::{Checked, came, not_applicable};
use crate::commands::conform::peer::{Input, shown};

/// Length of a cmd over every reasonable limit. pipeplug's limit is 64 KiB.
const LONG_CMD: usize = 1 << 20;
/// Length that no system can allocate.
const HUGE: u64 = 1_000_000_000_000_000_000;
/// Time for the plugin to read a byte before the next one comes.
const BETWEEN_BYTES: Duration = Duration::from_millis(2);
/// Memory that a plugin may take for a chunk of which few bytes have come.
const GROWTH_MAX: u64 = 64 << 20;

pub(crate) const CHECKS: &[Check] = &[
    Check {
        name: "format/byte-by-byte",
        section: "Grammar",
        sends: "GetMetadata and a request, each byte in a write of its own",
        expects: "answers",
        scope: Scope::Every,
        run: byte_by_byte,
    },
    Check {
        name: "format/pauses",
        section: "Grammar",
        sends: "requests with a pause in each field",
        expects: "answers",
        scope: Scope::Every,
        run: pauses,
    },
    Check {
        name: "format/standard",
        section: "Telling the formats apart",
        sends: "GetMetadata and a ping in the standard format",
        expects: "answers in the standard format",
        scope: Scope::Full,
        run: standard,
    },
    Check {
        name: "format/classic",
        section: "Telling the formats apart",
        sends: "GetMetadata and a ping in the classic format",
        expects: "answers in the classic format",
        scope: Scope::Full,
        run: classic,
    },
    Check {
        name: "format/noop-first",
        section: "Telling the formats apart",
        sends: "a noop, then GetMetadata, in either format",
        expects: "metadata in that format",
        scope: Scope::Full,
        run: noop_first,
    },
    Check {
        name: "format/classic-writes",
        section: "Writes of the classic format",
        sends: "pings in the classic format, one after the other",
        expects: "each answer in one write: no read of it ends inside a chunk",
        scope: Scope::Full,
        run: classic_writes,
    },
    Check {
        name: "format/own-directions",
        section: "Fields",
        sends: "pings, an unknown request and the user's call",
        expects: "only chunks with the directions 1, 2 and 3",
        scope: Scope::Every,
        run: own_directions,
    },
    Check {
        name: "format/directions",
        section: "Fields",
        sends: "chunks with the directions 0, 4, 99 and 18446744073709551615, then a ping",
        expects: "an answer to the ping, and none to the others",
        scope: Scope::Every,
        run: directions,
    },
    Check {
        name: "format/direction-not-utf8",
        section: "Limits",
        sends: "a chunk with the direction 4 and a cmd that is not UTF-8, then a ping",
        expects: "an answer to the ping: the contents of what is skipped are not checked",
        scope: Scope::Every,
        run: direction_not_utf8,
    },
    Check {
        name: "format/own-requests",
        section: "Fields",
        sends: "the user's call, and answers to what the plugin asks",
        expects: "one-ways of the plugin with the threadID 0, and requests with different ones",
        scope: Scope::Every,
        run: own_requests,
    },
    Check {
        name: "limit/command",
        section: "Limits",
        sends: "a request with a cmd of 1 MiB, then a ping",
        expects: "one response with cmd.error, and an answer to the ping",
        scope: Scope::Every,
        run: long_command,
    },
    Check {
        name: "limit/one-way",
        section: "Limits",
        sends: "a one-way with a cmd of 1 MiB, then a ping",
        expects: "an answer to the ping, and none to the one-way",
        scope: Scope::Every,
        run: long_one_way,
    },
    Check {
        name: "limit/announced",
        section: "Limits",
        sends: "a request that announces a buffer of 10^18 bytes, and ten of them",
        expects: "the plugin goes on to read, and its memory does not grow by 64 MiB",
        scope: Scope::Every,
        run: announced,
    },
];

fn byte_by_byte(setup: &Setup) -> Checked {
    let mut guest = setup.start()?;
    let offer = setup.offer("", &[]);
    let chunks = [
        guest.chunk(1, Direction::Request, command::GET_METADATA, &offer),
        guest.chunk(2, Direction::Request, "conform-unheard-of", b"some data"),
        guest.chunk(3, Direction::Request, command::PING, b""),
    ];
    for (id, chunk) in (1..).zip(chunks) {
        // The first one is longer, and the plugin is not up yet.
        let pause = if id == 1 { Duration::ZERO } else { BETWEEN_BYTES };
        guest.send_divided(&chunk, 1, pause)?;
        guest.response(id)?;
    }
    Ok(())
}

fn pauses(setup: &Setup) -> Checked {
    let mut guest = setup.begin()?;
    let id = guest.id();
    let chunk = guest.chunk(id, Direction::Request, "conform-unheard-of", b"some data");
    guest.send_divided(&chunk, 7, Duration::from_millis(10))?;
    guest.response(id).map(drop)
}

fn standard(setup: &Setup) -> Checked {
    greets(setup, Format::Standard)
}

fn classic(setup: &Setup) -> Checked {
    greets(setup, Format::Classic)
}

fn greets(setup: &Setup, format: Format) -> Checked {
    let mut guest = setup.start_by(Way::Usual, format)?;
    guest.hello("", &[])?;
    guest.ping()
}

fn noop_first(setup: &Setup) -> Checked {
    for (format, noop) in [
        (Format::Standard, &b"0\x000\x004\0noop\x000\0"[..]),
        (Format::Classic, &b"\x000\0noop \0"[..]),
    ] {
        let mut guest = setup.start_by(Way::Usual, format)?;
        guest.send_raw(noop)?;
        guest.hello("", &[])?;
    }
    Ok(())
}

fn classic_writes(setup: &Setup) -> Checked {
    if !setup.is_direct {
        return Err(not_applicable(
            "a program in between passes the bytes on, and may divide them",
        ));
    }
    let mut guest = setup.start_by(Way::Usual, Format::Classic)?;
    guest.hello("", &[])?;
    guest.cut_reads = 0;
    for _ in 0..200 {
        guest.call("conform-unheard-of", b"data")?;
    }
    match guest.cut_reads {
        0 => Ok(()),
        count => Err(came(format!("{count} reads that ended inside a chunk, in 200 answers"))),
    }
}

fn own_directions(setup: &Setup) -> Checked {
    let mut guest = setup.begin()?;
    for (cmd, data) in [
        (command::PING, &b""[..]),
        ("conform-unheard-of", b""),
        (&setup.call.cmd, &setup.call.data),
    ] {
        let answered = guest.call(cmd, data);
        if let Some(odd) = guest.odd.first() {
            return Err(came(odd.as_str()));
        }
        answered?;
    }
    Ok(())
}

/// A chunk with any direction.
fn odd_chunk(format: Format, direction: &str, cmd: &[u8], buffer: &[u8]) -> Vec<u8> {
    let mut bytes = format!("5\0{direction}\0").into_bytes();
    match format {
        Format::Standard => {
            bytes.extend(format!("{}\0", cmd.len()).bytes());
            bytes.extend(cmd);
            bytes.push(0);
        }
        Format::Classic => {
            bytes.extend(cmd);
            bytes.push(b' ');
        }
    }
    let zero = if format == Format::Standard { "0" } else { "" };
    let len = if buffer.is_empty() { zero.to_owned() } else { buffer.len().to_string() };
    bytes.extend(format!("{len}\0").bytes());
    bytes.extend(buffer);
    bytes
}

fn directions(setup: &Setup) -> Checked {
    let mut guest = setup.begin()?;
    for (direction, buffer) in
        [("0", &b""[..]), ("4", b"data"), ("99", &[0; 3000]), ("18446744073709551615", b"2\0")]
    {
        let chunk = odd_chunk(setup.format, direction, b"conform", buffer);
        guest.send_raw(&chunk)?;
    }
    guest.no_answer("a chunk of an unknown direction")
}

fn direction_not_utf8(setup: &Setup) -> Checked {
    let mut guest = setup.begin()?;
    let chunk = odd_chunk(setup.format, "4", b"\xff\xfe", b"data");
    guest.send_raw(&chunk)?;
    guest.ping()
}

fn own_requests(setup: &Setup) -> Checked {
    let mut guest = setup.begin()?;
    guest.call(&setup.call.cmd, &setup.call.data)?;
    guest.rest()?;
    let of = |direction| guest.seen.iter().filter(move |chunk| chunk.direction == direction);
    if let Some(chunk) = of(Direction::OneWay).find(|chunk| chunk.thread_id.as_u64() != 0) {
        return Err(came(shown(chunk)));
    }
    let mut ids: Vec<_> = of(Direction::Request).map(|chunk| chunk.thread_id).collect();
    if ids.is_empty() && of(Direction::OneWay).next().is_none() {
        return Err(not_applicable("the plugin has sent no request and no one-way"));
    }
    let count = ids.len();
    ids.sort();
    ids.dedup();
    if ids.len() < count {
        return Err(came(format!("{count} requests with {} threadIDs", ids.len())));
    }
    Ok(())
}

fn long_command(setup: &Setup) -> Checked {
    let mut guest = setup.begin()?;
    guest.refused(&"x".repeat(LONG_CMD), b"data")?;
    match guest.rest()?.first() {
        None => Ok(()),
        Some(chunk) => Err(came(format!("a response too many: {}", shown(chunk)))),
    }
}

fn long_one_way(setup: &Setup) -> Checked {
    let mut guest = setup.begin()?;
    guest.one_way(&"x".repeat(LONG_CMD), b"data")?;
    guest.no_answer("the one-way")
}

fn announced(setup: &Setup) -> Checked {
    let mut guest = setup.begin()?;
    let before = memory(&guest)?;
    let head = match setup.format {
        Format::Standard => format!("7\x002\x007\0conform\0{HUGE}\0ten bytes."),
        Format::Classic => format!("7\x002\0conform {HUGE}\0ten bytes."),
    };
    guest.is_within_chunk = true;
    guest.send_raw(head.as_bytes())?;
    guest.settle()?;
    guest.send_raw(&[b'.'; 1000])?;
    // Memory does not grow at once.
    for _ in 0..5 {
        guest.settle()?;
    }
    if guest.state != Input::Open {
        let stop = guest.missing("more of the connection, after the chunk");
        return Err(guest.explained(stop));
    }
    let grown = memory(&guest)?.saturating_sub(before);
    if grown > GROWTH_MAX {
        return Err(came(format!("{} MiB of memory for 1010 bytes", grown >> 20)));
    }
    Ok(())
}

/// Resident memory of the plugin, in bytes.
fn memory(guest: &Guest<'_>) -> Checked<u64> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", guest.process.pid()));
    let kib = status.ok().filter(|_| guest.setup.is_direct).and_then(|status| {
        let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
        line.split_whitespace().nth(1)?.parse::<u64>().ok()
    });
    kib.map(|kib| kib << 10)
        .ok_or_else(|| not_applicable("the memory of the plugin cannot be seen here"))
}
