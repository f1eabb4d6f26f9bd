//! Progress: reports of a handler against its answer, and those of a peer against the end of the call.

use std::future::poll_fn;
use std::pin::Pin;

use futures_core::Stream as _;
use pipeplug_wire::{Direction, command};

use super::calls::block_on;
use super::{LONG, check, connect, options};
use crate::connection::handshake::accept;
use crate::sync::thread;
use crate::{Connection, EventLoop, Options, Progress, ProgressReports, Reading, Refuse, Request};

const REPORTS: u64 = 3;

fn name_features(connection: &Connection) {
    accept(connection, |key| (key == "pipeplug.features").then_some("context progress"));
}

/// A handler reports and answers, by itself or later, while the event loop sends what is pending.
fn reported(reading: Reading, later: bool) {
    let events = EventLoop::with_handler_threads(2).unwrap();
    let handler = move |incoming: &mut Request| {
        if later && let Some(responder) = incoming.responder() {
            thread::spawn(move || {
                (1..=REPORTS).for_each(|done| responder.progress(done, None, ""));
                responder.answer(());
            });
        } else {
            (1..=REPORTS).for_each(|done| incoming.progress(done, None, ""));
        }
        Ok(().into())
    };
    let (connection, mut peer) = connect(&events, Options { reading, ..options() }, handler);
    drop(events);
    name_features(&connection);
    peer.send(Direction::OneWay, 7, command::CONTEXT, b"{\"progress\":true}");
    peer.send(Direction::Request, 7, "x", b"");
    let mut last = 0;
    loop {
        let chunk = peer.receive().expect("the connection ended before its answer");
        if chunk.command != command::PROGRESS {
            break;
        }
        let done = Progress::parse(&chunk.buffer).unwrap().done;
        assert!(done > last, "{done} behind {last}");
        last = done;
    }
    assert_eq!(last, REPORTS, "the last report comes before the answer");
    connection.close();
    assert_eq!(peer.receive(), None, "something follows the answer");
    drop(peer);
    assert!(connection.wait_closed(LONG).is_some());
}

#[test]
fn the_last_report_of_a_handler_comes_before_its_answer_and_none_behind_it() {
    check(|| reported(Reading::Shared, false));
}

#[test]
fn nor_behind_an_answer_that_is_given_later() {
    check(|| reported(Reading::Dedicated, true));
}

/// How reports are taken.
#[derive(Clone, Copy)]
enum Taken {
    BetweenBeginAndWait,
    ByAnotherThread,
    ByATask,
}

fn take(mut reports: ProgressReports, taken: Taken) -> Vec<u64> {
    let mut all = Vec::new();
    loop {
        let next = match taken {
            Taken::ByATask => {
                block_on(poll_fn(|context| Pin::new(&mut reports).poll_next(context)))
            }
            Taken::BetweenBeginAndWait | Taken::ByAnotherThread => reports.next(),
        };
        match next {
            Some(report) => all.push(report.done),
            None => return all,
        }
    }
}

/// The peer reports, and answers or goes.
fn taken(taken: Taken, goes: bool) {
    let events = EventLoop::with_handler_threads(2).unwrap();
    let (connection, mut peer) = connect(&events, options(), Refuse);
    drop(events);
    name_features(&connection);
    let peer = thread::spawn(move || {
        let id = peer.receive().unwrap().thread_id.as_u64();
        let request = peer.receive().unwrap();
        for done in 1..=REPORTS {
            let report = format!("{{\"done\":{done}}}");
            peer.send(Direction::Response, id, command::PROGRESS, report.as_bytes());
        }
        if !goes {
            peer.echo(&request);
        }
        (!goes).then_some(peer)
    });
    let (request, reports) = connection.request("x", "").progress();
    let all = match taken {
        Taken::BetweenBeginAndWait => {
            let call = request.begin().unwrap();
            let all = take(reports, taken);
            assert_eq!(call.wait().is_ok(), !goes);
            all
        }
        Taken::ByAnotherThread | Taken::ByATask => {
            let taker = thread::spawn(move || take(reports, taken));
            assert_eq!(request.wait().is_ok(), !goes);
            taker.join().unwrap()
        }
    };
    assert!(all.is_sorted_by(|one, other| one < other), "{all:?}");
    assert_eq!(all.last(), Some(&REPORTS), "{all:?}");
    drop(peer.join().unwrap());
    assert!(connection.wait_closed(LONG).is_some());
    assert_eq!(connection.shared().leader.sleepers(), 0, "a caller is still counted as waiting");
}

#[test]
fn the_last_report_comes_to_a_thread_that_waits_for_reports_first() {
    check(|| taken(Taken::BetweenBeginAndWait, false));
}

#[test]
fn the_last_report_comes_to_another_thread() {
    check(|| taken(Taken::ByAnotherThread, false));
}

#[test]
fn the_last_report_comes_to_a_task() {
    check(|| taken(Taken::ByATask, false));
}

#[test]
fn reports_end_with_the_connection() {
    check(|| taken(Taken::BetweenBeginAndWait, true));
    check(|| taken(Taken::ByATask, true));
}
