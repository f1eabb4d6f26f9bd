//! Cycles with both sides in this process, over wires with faults.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;

use pipeplug_host::{Connection, HandlerError, Reply, Request};
use pipeplug_testkit::Pair;

use crate::answer::{self, Board};
use crate::load::{LONG, Load, Tally};
use crate::plan::{Fault, Plan, Side, What};
use crate::processes::{check_stats, comes_true};

/// One side: its received requests and its own calls.
#[derive(Default)]
struct Party {
    board: Arc<Board>,
    tally: Tally,
}

impl Party {
    fn handler(&self) -> impl Fn(&mut Request) -> Result<Reply, HandlerError> + use<> {
        let board = Arc::clone(&self.board);
        move |request| answer::answer(&board, request).unwrap_or_else(|| request.unknown())
    }
}

pub(crate) fn run(plan: &Plan, board: &Board, tally: &Tally) {
    let (host, guest) = (Party::default(), Party::default());
    let mut setup = Pair::setup()
        .host_options(plan.host.options(plan.format))
        .guest_options(plan.guest.options(plan.format));
    if plan.small_pipes {
        setup = setup.pipe_capacity(NonZeroUsize::MIN);
    }
    match setup.connect(host.handler(), guest.handler()) {
        Ok(pair) => cycle(plan, &pair, &host, &guest, board),
        Err(error) => board.violation(format!("there is no pair: {error}")),
    }
    for party in [&host, &guest] {
        party.board.take_violations().into_iter().for_each(|violation| board.violation(violation));
        for (all, one) in [
            (&tally.begun, &party.tally.begun),
            (&tally.ended, &party.tally.ended),
            (&tally.given_up, &party.tally.given_up),
            (&tally.notes, &party.tally.notes),
        ] {
            all.fetch_add(one.load(Ordering::SeqCst), Ordering::SeqCst);
        }
    }
}

fn cycle(plan: &Plan, pair: &Pair, host: &Party, guest: &Party, board: &Board) {
    let sides = [(Side::Host, &pair.host, host), (Side::Guest, &pair.guest, guest)];
    thread::scope(|scope| {
        for (side, connection, Party { board, tally }) in sides {
            let load = Load { connection, plan, side, round: 0, board, tally };
            scope.spawn(move || load.run());
        }
        for fault in &plan.faults {
            inflict(pair, *fault);
        }
    });
    if !plan.breaks() {
        for (sender, receiver) in [(host, guest), (guest, host)] {
            let sent = sender.tally.notes.load(Ordering::SeqCst);
            if !comes_true(|| receiver.board.notes() == sent) {
                board.violation(format!("{} of {sent} one-ways came", receiver.board.notes()));
            }
        }
        for (_, connection, party) in sides {
            check_stats(connection, &party.tally, board);
        }
    }
    pair.host.close();
    for (side, connection, _) in sides {
        closes(side, connection, board);
    }
}

fn closes(side: Side, connection: &Connection, board: &Board) {
    if connection.wait_closed(LONG).is_none() {
        board.violation(format!(
            "the connection of the {side} is not closed: {:?}",
            connection.stats()
        ));
    }
}

fn inflict(pair: &Pair, Fault { after, what }: Fault) {
    thread::sleep(after);
    let wire = |side| match side {
        Side::Host => &pair.to_host,
        Side::Guest => &pair.to_guest,
    };
    let connection = |side| match side {
        Side::Host => &pair.host,
        Side::Guest => &pair.guest,
    };
    match what {
        What::Cut(to) => wire(to).cut(),
        What::CutAfter(to, bytes) => wire(to).cut_after(bytes),
        What::Delay(to, time) => wire(to).delay(time),
        What::Shorten(to, bytes) => wire(to).shorten(bytes),
        What::Stall(to, time) => {
            wire(to).stall();
            thread::sleep(time);
            wire(to).release();
        }
        What::Close(side) => connection(side).close(),
        What::End(side) => connection(side).end("chaos ends it"),
        What::Shoot
        | What::Terminate
        | What::DoomStarts(_)
        | What::Replace
        | What::Restart
        | What::StopAndStart(_)
        | What::Pause(_)
        | What::PauseAndShoot(_)
        | What::Stop
        | What::StopAtOnce
        | What::Kill
        | What::GuestExits
        | What::GuestAborts => unreachable!("there is no process"),
    }
}
