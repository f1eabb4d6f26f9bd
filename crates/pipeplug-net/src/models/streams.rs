//! Streams: parts, credit and ends that come while the other half waits, reads, or is dropped.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Mutex};

use futures_core::Stream as _;
use pipeplug_wire::Direction;
use shuttle::rand::Rng as _;

use super::peer::Peer;
use super::{LONG, calls::block_on_any, check, connect, options};
use crate::sync::thread;
use crate::{
    Connection, EventLoop, Handler, HandlerError, Options, Reading, Refuse, Reply, Request,
    StreamError,
};

/// Weight of a part of one byte.
const WEIGHT: u64 = 73;

fn connect_streams(options: Options, handler: impl Handler) -> (Connection, Peer) {
    let events = EventLoop::with_handler_threads(3).unwrap();
    let (connection, peer) = connect(&events, options, handler);
    crate::internal::handshake::accept(&connection, |key| match key {
        "pipeplug.features" => Some("context cancel stream"),
        "pipeplug.stream_window" => Some("1"),
        _ => None,
    });
    (connection, peer)
}

fn assert_nothing_left(connection: &Connection) {
    let stats = connection.stats();
    assert_eq!((stats.open_calls, stats.open_streams), (0, 0), "something is left in a table");
    assert_eq!(connection.shared().leader.sleepers(), 0, "a thread is still counted as waiting");
}

/// One thread sends, and waits for credit. The other side gives some and closes, or the call is
/// given up meanwhile.
#[test]
fn a_sender_gets_credit_or_the_end() {
    check(|| {
        let credits = shuttle::rand::thread_rng().gen_range(0..=2);
        let is_given_up = shuttle::rand::thread_rng().r#gen::<bool>();
        let (connection, mut peer) = connect_streams(options(), Refuse);
        let (mut sender, parts) = connection.request("x", "").stream().unwrap().split();
        let sending = thread::spawn(move || {
            let sent = (0..3).take_while(|_| sender.send("p").is_ok()).count();
            (sent, sender.finish().is_ok())
        });
        let peer = thread::spawn(move || {
            let mut received = 0;
            while let Some(chunk) = peer.receive() {
                if chunk.command == "cmd.part" {
                    received += 1;
                    if received > credits {
                        break;
                    }
                    let total = (received * WEIGHT).to_string();
                    let id = chunk.thread_id.as_u64();
                    peer.send(Direction::Response, id, "cmd.part.credit", total.as_bytes());
                }
                if chunk.command == "cmd.cancel" || chunk.command == "cmd.end" {
                    break;
                }
            }
            received
        });
        if is_given_up {
            drop(parts);
        } else {
            assert!(parts.reply().is_err(), "the other side closes");
        }
        let (sent, finished) = sending.join().unwrap();
        let received = peer.join().unwrap();
        assert!(received <= sent as u64 && sent as u64 <= credits + 1, "{sent}, {received}");
        assert!(!finished || sent == 3);
        assert!(connection.wait_closed(LONG).is_some());
        assert_nothing_left(&connection);
    });
}

/// Parts that a handler takes, while the other side ends them, gives them up or closes.
fn received(reading: Reading, is_awaited: bool) {
    let seen: Arc<Mutex<Vec<Result<u8, StreamError>>>> = Arc::default();
    let handler = {
        let seen = Arc::clone(&seen);
        move |request: &mut Request| -> Result<Reply, HandlerError> {
            let mut parts = request.parts();
            loop {
                let next = if is_awaited {
                    block_on_any(poll_fn(|context| Pin::new(&mut parts).poll_next(context)))
                } else {
                    parts.next()
                };
                let Some(part) = next else { return Ok(Reply::empty()) };
                seen.lock().unwrap().push(part.map(|part| part[0]));
            }
        }
    };
    let options = Options { reading, stream_window: 1 << 20, ..options() };
    let (connection, mut peer) = connect_streams(options, handler);
    let end = shuttle::rand::thread_rng().gen_range(0..3);
    let peer = thread::spawn(move || {
        peer.send(Direction::OneWay, 1, "cmd.context", br#"{"stream":"send"}"#);
        peer.send(Direction::Request, 1, "x", b"");
        for part in 0..3 {
            peer.send(Direction::OneWay, 1, "cmd.part", &[part]);
        }
        match end {
            0 => peer.send(Direction::OneWay, 1, "cmd.end", b""),
            1 => peer.send(Direction::OneWay, 1, "cmd.cancel", b""),
            _ => return,
        }
        assert_eq!(peer.receive().unwrap().thread_id.as_u64(), 1);
    });
    peer.join().unwrap();
    assert!(connection.wait_closed(LONG).is_some());
    assert_nothing_left(&connection);
    let seen = std::mem::take(&mut *seen.lock().unwrap());
    let parts: Vec<_> = seen.iter().flatten().copied().collect();
    let errors: Vec<_> = seen.iter().filter_map(|part| part.as_ref().err()).collect();
    match (end, errors.as_slice()) {
        (0, []) => assert_eq!(parts, [0, 1, 2]),
        // Before its turn it is not handled at all.
        (1, [] | [StreamError::Cancelled]) => assert!([0, 1, 2].starts_with(&parts), "{parts:?}"),
        (2, [StreamError::Closed { .. }]) => assert_eq!(parts, [0, 1, 2]),
        _ => panic!("{seen:?}"),
    }
}

#[test]
fn parts_are_received_once_and_in_order() {
    check(|| received(Reading::Shared, false));
}

#[test]
fn parts_are_received_once_by_a_handler_on_the_reader() {
    check(|| received(Reading::Dedicated, false));
}

#[test]
fn awaited_parts_are_received_once() {
    check(|| received(Reading::Shared, true));
}

/// A reply, the end of the connection and parts race for the one who takes the parts.
#[test]
fn the_parts_of_a_reply_come_before_it() {
    check(|| {
        let closes = shuttle::rand::thread_rng().r#gen::<bool>();
        let (connection, mut peer) = connect_streams(options(), Refuse);
        let mut parts = connection.request("x", "").receive_parts().unwrap();
        let peer = thread::spawn(move || {
            let request = loop {
                let chunk = peer.receive().unwrap();
                if chunk.direction == Direction::Request {
                    break chunk;
                }
            };
            let id = request.thread_id.as_u64();
            for part in 0..2 {
                peer.send(Direction::Response, id, "cmd.part", &[part]);
            }
            if !closes {
                peer.send(Direction::Response, id, "x", b"reply");
            }
        });
        let taken: Vec<_> = parts.by_ref().map(|part| part.map(|part| part[0])).collect();
        let numbers: Vec<_> = taken.iter().flatten().copied().collect();
        assert_eq!(numbers, [0, 1]);
        assert_eq!(taken.len(), 2 + usize::from(closes), "{taken:?}");
        if !closes {
            assert_eq!(parts.reply().unwrap(), "reply");
        }
        peer.join().unwrap();
        assert!(connection.wait_closed(LONG).is_some());
        assert_nothing_left(&connection);
    });
}
