//! Flow control.

use pipeplug_wire::{Chunk, Direction, command};

use crate::commands::conform::catalog::{Check, Scope};
use crate::commands::conform::guest::{Guest, Setup, parse_number};
use crate::commands::conform::outcome::{Checked, came, not_applicable};
use crate::commands::conform::peer::{shown, weight};

const SECTION: &str = "Flow";
/// Window of a side that names none.
const DEFAULT_WINDOW: u64 = 4 << 20;
/// Window up to which a check fills it.
const WINDOW_MAX: u64 = 64 << 20;
const UNKNOWN: &str = "conform-unheard-of";

pub(crate) const CHECKS: &[Check] = &[
    Check {
        name: "flow/credit-comes",
        section: SECTION,
        sends: "requests of more than the plugin's window, each after the answer to the one before",
        expects: "cmd.credit at the latest when half of the window was taken",
        scope: Scope::Every,
        run: credit_comes,
    },
    Check {
        name: "flow/credit-sum",
        section: SECTION,
        sends: "requests of different lengths, each after the answer to the one before",
        expects: "totals that are the sum of the weights up to a chunk, to the byte, and never less \
                  than the one before",
        scope: Scope::Every,
        run: credit_sum,
    },
    Check {
        name: "flow/over-limit-counts",
        section: SECTION,
        sends: "requests with a cmd of 1 MiB, of more than the window",
        expects: "credit for what was discarded as well",
        scope: Scope::Every,
        run: over_limit_counts,
    },
    Check {
        name: "flow/odd-credits",
        section: SECTION,
        sends: "cmd.credit that is no number, above what was sent, or lower than before, then a ping",
        expects: "an answer to the ping: such a credit is ignored",
        scope: Scope::Every,
        run: odd_credits,
    },
    Check {
        name: "flow/keeps-to-window",
        section: SECTION,
        sends: "a window of 1, the user's call, and no credit",
        expects: "at most one request or one-way of the plugin before there is credit",
        scope: Scope::Every,
        run: keeps_to_window,
    },
    Check {
        name: "flow/not-agreed",
        section: SECTION,
        sends: "1 MiB of requests to a plugin whose host does not name `flow`",
        expects: "answers, and no cmd.credit",
        scope: Scope::Every,
        run: not_agreed,
    },
];

fn totals<'a>(guest: &'a Guest<'_>) -> impl Iterator<Item = (&'a Chunk, Option<u64>)> {
    let is_credit = |chunk: &&Chunk| chunk.command == command::CREDIT;
    guest.seen.iter().filter(is_credit).map(|chunk| {
        let text = std::str::from_utf8(&chunk.buffer).ok();
        (chunk, text.and_then(parse_number).filter(|_| chunk.direction == Direction::OneWay))
    })
}

fn last_total(guest: &Guest<'_>) -> Checked<u64> {
    match totals(guest).last() {
        None => Ok(0),
        Some((_, Some(total))) => Ok(total),
        Some((chunk, None)) => Err(came(shown(chunk))),
    }
}

/// Checks, after everything was answered, that less than half of the window is without credit.
fn is_credited(guest: &mut Guest<'_>, window: u64) -> Checked {
    guest.ping()?;
    guest.settle()?;
    let (credited, sent) = (last_total(guest)?, guest.sent);
    if credited > sent {
        return Err(came(format!("credit for {credited} bytes, and {sent} were sent")));
    }
    if (sent - credited) * 2 >= window.max(2) {
        return Err(came(format!(
            "credit for {credited} of {sent} bytes, all of which are answered, with a window of \
             {window}"
        )));
    }
    Ok(())
}

fn window(guest: &Guest<'_>) -> Checked<u64> {
    match guest.window("pipeplug.window", DEFAULT_WINDOW) {
        window @ ..=WINDOW_MAX => Ok(window),
        window => Err(not_applicable(format!("the plugin's window of {window} bytes is large"))),
    }
}

fn credit_comes(setup: &Setup) -> Checked {
    let mut guest = setup.negotiate("flow", &[])?;
    let window = window(&guest)?;
    let piece = vec![b'x'; usize::try_from(window / 8).unwrap_or(1).clamp(1, 1 << 20)];
    let mut before = 0;
    while guest.sent < window * 3 / 2 {
        guest.call(UNKNOWN, &piece)?;
        let taken = guest.sent;
        if taken.saturating_sub(last_total(&guest)?) >= window {
            guest.settle()?;
        }
        let total = last_total(&guest)?;
        if total < before || total > taken {
            return Err(came(format!("a total of {total} after {before}, of {taken} bytes")));
        }
        before = total;
        if taken - total >= window {
            return Err(came(format!("credit for {total} bytes after {taken} were answered")));
        }
    }
    is_credited(&mut guest, window)
}

fn credit_sum(setup: &Setup) -> Checked {
    let mut guest = setup.negotiate("flow", &[])?;
    let window = window(&guest)?;
    let mut sums = vec![0, guest.sent];
    let step = usize::try_from(window / 9).unwrap_or(1).clamp(1, 1 << 20);
    let mut index = 0;
    while guest.sent < window * 2 {
        index += 1;
        guest.call(UNKNOWN, &vec![b'x'; step + index * 7])?;
        sums.push(guest.sent);
    }
    guest.ping()?;
    guest.settle()?;
    let mut before = 0;
    let mut count = 0;
    for (chunk, total) in totals(&guest) {
        let Some(total) = total else { return Err(came(shown(chunk))) };
        if total < before || !sums.contains(&total) {
            let nearest = sums.iter().min_by_key(|sum| sum.abs_diff(total)).unwrap_or(&0);
            return Err(came(format!(
                "a total of {total}, after {before}; the nearest sum of weights is {nearest}"
            )));
        }
        (before, count) = (total, count + 1);
    }
    if count == 0 {
        return Err(came(format!("no cmd.credit for {} bytes", guest.sent)));
    }
    Ok(())
}

fn over_limit_counts(setup: &Setup) -> Checked {
    let mut guest = setup.negotiate("flow", &[])?;
    let window = window(&guest)?;
    let long = "x".repeat(1 << 20);
    while guest.sent < window + (1 << 20) {
        guest.call(&long, b"")?;
    }
    is_credited(&mut guest, window)
}

fn odd_credits(setup: &Setup) -> Checked {
    let mut guest = setup.negotiate("flow", &[])?;
    for total in ["", "x", "-1", "007", "18446744073709551615", "18446744073709551616", "0"] {
        guest.one_way(command::CREDIT, total.as_bytes())?;
    }
    guest.ping()?;
    guest.call(UNKNOWN, b"").map(drop)
}

fn keeps_to_window(setup: &Setup) -> Checked {
    let mut guest = setup.negotiate("flow", &[("pipeplug.window", "1")])?;
    guest.credit = None;
    // What came before the plugin's own answer did not have to wait. It is credited, so that one
    // more may come.
    guest.settle()?;
    let before = guest.seen.iter().filter(|chunk| counts(chunk)).count();
    if before > 0 {
        let counted = guest.seen.iter().filter(|chunk| counts(chunk));
        let total: u64 = counted.map(|chunk| weight(&chunk.command, chunk.buffer.len())).sum();
        guest.one_way(command::CREDIT, total.to_string().as_bytes())?;
    }
    guest.request(&setup.call.cmd, &setup.call.data)?;
    guest.settle()?;
    match guest.seen.iter().filter(|chunk| counts(chunk)).count() - before {
        0 => Err(not_applicable("the plugin has sent no request and no one-way")),
        1 => Ok(()),
        count => Err(came(format!("{count} requests and one-ways without credit"))),
    }
}

fn counts(chunk: &Chunk) -> bool {
    chunk.direction != Direction::Response && !command::is_reserved(&chunk.command)
}

fn not_agreed(setup: &Setup) -> Checked {
    let mut guest = setup.begin()?;
    for _ in 0..8 {
        guest.call(UNKNOWN, &vec![b'x'; 128 << 10])?;
    }
    guest.rest()?;
    match totals(&guest).next() {
        None => Ok(()),
        Some((chunk, _)) => Err(came(shown(chunk))),
    }
}
