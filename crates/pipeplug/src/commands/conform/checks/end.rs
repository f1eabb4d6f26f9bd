//! The end of a plugin.

use std::thread;
use std::time::Duration;

use pipeplug_host::process::Signal;
use pipeplug_wire::{Direction, command};

use crate::commands::conform::catalog::{Check, Scope};
use crate::commands::conform::guest::Setup;
use crate::commands::conform::outcome::{Checked, came};
use crate::commands::conform::peer::Input;

const SECTION: &str = "The end";
const BETWEEN_WRITES: Duration = Duration::from_millis(50);

pub(crate) const CHECKS: &[Check] = &[
    Check {
        name: "end/stop",
        section: SECTION,
        sends: "cmd.stop, and keeps the connection open",
        expects: "the end of the plugin with the exit status 0",
        scope: Scope::Every,
        run: stop,
    },
    Check {
        name: "end/stop-then-close",
        section: SECTION,
        sends: "cmd.stop, and the end of the stream at once",
        expects: "the end of the plugin with the exit status 0",
        scope: Scope::Every,
        run: stop_then_close,
    },
    Check {
        name: "end/stop-answers",
        section: SECTION,
        sends: "20 pings and cmd.stop in one write",
        expects: "20 responses, and the end of the plugin with the exit status 0",
        scope: Scope::Every,
        run: stop_answers,
    },
    Check {
        name: "end/stop-answers-slow",
        section: SECTION,
        sends: "the user's slow call, and cmd.stop while the plugin works on it",
        expects: "a response to the call, and the end of the plugin with the exit status 0",
        scope: Scope::Every,
        run: stop_answers_slow,
    },
    Check {
        name: "end/eof",
        section: SECTION,
        sends: "the end of the stream, without cmd.stop",
        expects: "the end of the plugin, with any exit status",
        scope: Scope::Every,
        run: eof,
    },
    Check {
        name: "end/eof-at-once",
        section: SECTION,
        sends: "the end of the stream before the first chunk",
        expects: "the end of the plugin, with any exit status",
        scope: Scope::Every,
        run: eof_at_once,
    },
    Check {
        name: "end/reader-gone",
        section: SECTION,
        sends: "pings after it has closed its reading end",
        expects: "the end of the plugin, at a write that fails",
        scope: Scope::Every,
        run: reader_gone,
    },
    Check {
        name: "end/sigterm",
        section: SECTION,
        sends: "SIGTERM",
        expects: "the end of the plugin, with any exit status",
        scope: Scope::Every,
        run: sigterm,
    },
    Check {
        name: "end/nothing-left",
        section: SECTION,
        sends: "the user's call and cmd.stop",
        expects: "the end of the plugin, and of everything that holds its pipes",
        scope: Scope::Every,
        run: nothing_left,
    },
];

fn stop(setup: &Setup) -> Checked {
    let mut guest = setup.begin()?;
    guest.one_way(command::STOP, b"")?;
    guest.exits_with_0()
}

fn stop_then_close(setup: &Setup) -> Checked {
    let mut guest = setup.begin()?;
    guest.one_way(command::STOP, b"")?;
    guest.output = None;
    guest.exits_with_0()
}

fn stop_answers(setup: &Setup) -> Checked {
    let mut guest = setup.begin()?;
    let ids: Vec<u64> = (0..20).map(|_| guest.id()).collect();
    let pings = ids.iter().map(|id| guest.chunk(*id, Direction::Request, command::PING, b""));
    let mut bytes = pings.collect::<Vec<_>>().concat();
    bytes.extend(guest.chunk(0, Direction::OneWay, command::STOP, b""));
    guest.send_raw(&bytes)?;
    for id in ids {
        guest.response(id)?;
    }
    guest.exits_with_0()
}

fn stop_answers_slow(setup: &Setup) -> Checked {
    let mut guest = setup.begin()?;
    let slow = guest.begin_slow()?;
    guest.one_way(command::STOP, b"")?;
    guest.response(slow)?;
    guest.exits_with_0()
}

fn eof(setup: &Setup) -> Checked {
    let mut guest = setup.begin()?;
    guest.output = None;
    guest.exits().map(drop)
}

fn eof_at_once(setup: &Setup) -> Checked {
    let mut guest = setup.start()?;
    guest.output = None;
    guest.exits().map(drop)
}

fn reader_gone(setup: &Setup) -> Checked {
    let mut guest = setup.begin()?;
    guest.input = None;
    guest.state = Input::Ended;
    // Another check that is starting a process may hold a copy of the reader for a moment, and
    // writes succeed meanwhile. It may be gone before the last one.
    for _ in 0..20 {
        if guest.request(command::PING, b"").is_err() {
            break;
        }
        thread::sleep(BETWEEN_WRITES);
    }
    guest.exits().map(drop)
}

fn sigterm(setup: &Setup) -> Checked {
    let mut guest = setup.begin()?;
    guest.signal(Signal::Terminate)?;
    guest.exits().map(drop)
}

fn nothing_left(setup: &Setup) -> Checked {
    let mut guest = setup.begin()?;
    guest.call(&setup.call.cmd, &setup.call.data)?;
    guest.one_way(command::STOP, b"")?;
    guest.process.note_descendants();
    guest.exits()?;
    match guest.process.left().as_slice() {
        [] => {}
        left => {
            let pids: Vec<_> = left.iter().map(ToString::to_string).collect();
            return Err(came(format!("processes that it has started: {}", pids.join(", "))));
        }
    }
    guest.ends()
}
