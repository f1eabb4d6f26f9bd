//! The writer: the thread that comes first, those that leave theirs with it, and the loop when the
//! pipe is full.

use nix::fcntl::{FcntlArg, fcntl};
use pipeplug_wire::Direction;

use super::{LONG, check, connect, options};
use crate::sync::thread;
use crate::{EventLoop, Options, Refuse};

const SENDERS: usize = 2;
const EACH: usize = 4;
/// Some more than the pipe holds go through it.
const SIZE: usize = 1500;

/// Several threads send and call; gives what came, in its order.
fn written(outgoing: usize, flushes: bool) {
    let events = EventLoop::with_handler_threads(2).unwrap();
    let (connection, mut peer) = connect(&events, Options { outgoing, ..options() }, Refuse);
    drop(events);
    fcntl(peer.reader(), FcntlArg::F_SETPIPE_SZ(4096)).unwrap();
    let peer = thread::spawn(move || {
        let mut came = Vec::new();
        while let Some(chunk) = peer.receive() {
            if chunk.direction == Direction::Request {
                peer.echo(&chunk);
            }
            assert!(chunk.buffer.iter().all(|byte| *byte == chunk.buffer[0]), "torn");
            came.push((chunk.command, chunk.buffer[0]));
        }
        came
    });
    thread::scope(|scope| {
        for sender in 0..SENDERS {
            let connection = &connection;
            scope.spawn(move || {
                for number in 0..EACH {
                    let body = vec![u8::try_from(number).unwrap(); SIZE];
                    if number == EACH - 1 {
                        assert_eq!(
                            connection.call_bytes(&sender.to_string(), &body).unwrap(),
                            body
                        );
                    } else {
                        connection.notify(&sender.to_string(), body).unwrap();
                    }
                }
            });
        }
        if flushes {
            scope.spawn(|| {
                for _ in 0..3 {
                    connection.shared().flush();
                }
            });
        }
    });
    assert!(connection.wait_written(LONG));
    assert_eq!(connection.stats().queued, 0);
    connection.close();
    let came = peer.join().unwrap();
    for sender in 0..SENDERS {
        let numbers: Vec<_> = came
            .iter()
            .filter(|(name, _)| *name == sender.to_string())
            .map(|(_, number)| *number)
            .collect();
        assert_eq!(
            numbers,
            (0..EACH).map(|number| u8::try_from(number).unwrap()).collect::<Vec<_>>()
        );
    }
    assert!(connection.wait_closed(LONG).is_some());
}

#[test]
fn what_was_accepted_is_written_once_and_in_order_whoever_writes() {
    check(|| written(1 << 20, true));
}

#[test]
fn who_waits_for_room_is_told_of_it() {
    check(|| written(SIZE, false));
}

#[test]
fn what_was_accepted_ahead_of_a_close_is_written_ahead_of_the_end_of_file() {
    check(|| {
        let events = EventLoop::with_handler_threads(2).unwrap();
        let (connection, mut peer) = connect(&events, options(), Refuse);
        drop(events);
        fcntl(peer.reader(), FcntlArg::F_SETPIPE_SZ(4096)).unwrap();
        let peer = thread::spawn(move || {
            let mut came = 0;
            while peer.receive().is_some() {
                came += 1;
            }
            came
        });
        let accepted = thread::scope(|scope| {
            let sends = scope.spawn(|| {
                let body = vec![0; SIZE];
                (0..5).take_while(|_| connection.notify("x", &body).is_ok()).count()
            });
            scope.spawn(|| connection.close());
            sends.join().unwrap()
        });
        assert_eq!(peer.join().unwrap(), accepted);
        assert!(connection.wait_closed(LONG).is_some());
    });
}
