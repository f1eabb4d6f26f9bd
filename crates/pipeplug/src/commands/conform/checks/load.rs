//! Much at once: reading and answering that must not wait for each other.

use std::time::Duration;

use pipeplug_wire::{Direction, command};

use crate::commands::conform::catalog::{Check, Scope};
use crate::commands::conform::guest::Setup;
use crate::commands::conform::outcome::{Checked, came};
use crate::commands::conform::peer::{is_error, is_response};

/// Requests in flight at the same time.
const MANY: u64 = 10_000;
/// Bytes that fill the pipes of both directions many times over, and less than any limit on what a
/// side holds.
const STUFFING: usize = 1 << 20;

pub(crate) const CHECKS: &[Check] = &[
    Check {
        name: "load/many-at-once",
        section: "Calls",
        sends: "50 pings and one-ways in one write",
        expects: "a response to each ping",
        scope: Scope::Every,
        run: many_at_once,
    },
    Check {
        name: "load/in-flight",
        section: "Calls",
        sends: "10,000 pings, while answers are read",
        expects: "10,000 responses, one to each",
        scope: Scope::Full,
        run: in_flight,
    },
    Check {
        name: "load/ping-while-busy",
        section: "Reserved commands",
        sends: "the user's slow call, then a ping",
        expects: "an answer to the ping before the one to the slow call",
        scope: Scope::Full,
        run: ping_while_busy,
    },
    Check {
        name: "load/reads-while-stuck",
        section: "Calls",
        sends: "1 MiB of requests whose answers are not read",
        expects: "the plugin goes on to read while its own writes are blocked",
        scope: Scope::Full,
        run: reads_while_stuck,
    },
];

fn many_at_once(setup: &Setup) -> Checked {
    let mut guest = setup.begin()?;
    let ids: Vec<u64> = (0..50).map(|_| guest.id()).collect();
    let mut bytes = Vec::new();
    for id in &ids {
        bytes.extend(guest.chunk(*id, Direction::Request, command::PING, b""));
        bytes.extend(guest.chunk(0, Direction::OneWay, "conform-unheard-of", b"data"));
    }
    guest.send_raw(&bytes)?;
    ids.iter().try_for_each(|id| guest.response(*id).map(drop))
}

fn in_flight(setup: &Setup) -> Checked {
    let mut guest = setup.begin()?;
    let mut bytes = Vec::new();
    let first = guest.id();
    for id in first..first + MANY {
        bytes.extend(guest.chunk(id, Direction::Request, command::PING, b""));
    }
    guest.send_raw(&bytes)?;
    let mut answered = vec![false; MANY as usize];
    for count in 0..MANY {
        let response = guest
            .expect("response", |chunk| chunk.direction == Direction::Response)
            .map_err(|_| guest.missing(&format!("response after {count} of {MANY}")))?;
        let index = response.thread_id.as_u64().checked_sub(first);
        match index.and_then(|index| answered.get_mut(usize::try_from(index).ok()?)) {
            Some(answered) if !*answered => *answered = true,
            _ => {
                let id = response.thread_id;
                return Err(came(format!("a second or unasked response with the threadID {id}")));
            }
        }
    }
    Ok(())
}

fn ping_while_busy(setup: &Setup) -> Checked {
    let mut guest = setup.begin()?;
    let slow = guest.begin_slow()?;
    guest.ping()?;
    if guest.seen.iter().any(|chunk| is_response(chunk, slow)) {
        return Err(came("the answer to the slow call before the one to the ping"));
    }
    let response = guest.response(slow)?;
    if is_error(&response) {
        tracing::debug!("the slow call failed");
    }
    Ok(())
}

fn reads_while_stuck(setup: &Setup) -> Checked {
    let mut guest = setup.begin()?;
    // Each request is answered with about as many bytes.
    let (mut bytes, mut last) = (Vec::new(), 0);
    while bytes.len() < STUFFING {
        last = guest.id();
        bytes.extend(guest.chunk(last, Direction::Request, command::PING, b""));
    }
    let left = guest.stuff(bytes, Duration::from_secs(2))?;
    if left > 0 {
        return Err(came(format!(
            "it stopped reading with {left} of {STUFFING} bytes unread, while its answers were not read"
        )));
    }
    guest.response(last).map(drop)
}
