//! Peers that are not a pair of pipes, and descriptors that are shared with others.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::mpsc;
use std::thread;

use common::{LONG, Way, bytes, bytes_in, echo, eventually, fill, pair_on, watchdog};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::pty::openpty;
use nix::sys::termios::{SetArg, cfmakeraw, tcgetattr, tcsetattr};
use pipeplug_net::wire::{Direction, Format};
use pipeplug_net::{
    CallError, CloseReason, ConnectError, Connection, Endpoint, EventLoop, Options, Refuse,
};

const ENDPOINTS: [fn(OwnedFd) -> Endpoint; 2] = [Endpoint::exclusive, Endpoint::shared];

fn events() -> EventLoop {
    EventLoop::new().unwrap()
}

fn flags(fd: &impl AsFd) -> OFlag {
    OFlag::from_bits_retain(fcntl(fd, FcntlArg::F_GETFL).unwrap())
}

fn duplicate(fd: &impl AsFd) -> OwnedFd {
    fd.as_fd().try_clone_to_owned().unwrap()
}

fn null() -> OwnedFd {
    File::options().read(true).write(true).open("/dev/null").unwrap().into()
}

fn in_format(format: Option<Format>) -> Options {
    let mut options = Options::default();
    options.format = format;
    options.handlers = NonZeroUsize::MIN;
    options
}

#[test]
fn a_file_of_chunks_is_read_to_its_end_and_answered_into_a_file() {
    let _watchdog = watchdog();
    for format in [Format::Standard, Format::Classic] {
        for told in [Some(format), None] {
            for endpoint in ENDPOINTS {
                let (mut input, mut output) =
                    (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
                let mut expected = Vec::new();
                for (id, size) in [(1, 0), (2, 5), (3, 4097), (4, 300_000)] {
                    let body = vec![b'a' + id as u8; size];
                    input
                        .write_all(&bytes_in(format, id, Direction::Request, "echo", &body))
                        .unwrap();
                    expected.extend(bytes_in(format, id, Direction::Response, "echo", &body));
                }
                input.rewind().unwrap();
                let connection = events()
                    .connect(
                        endpoint(input.into()),
                        endpoint(duplicate(&output)),
                        in_format(told),
                        echo,
                    )
                    .unwrap();
                let reason = connection.wait_closed(LONG).unwrap();
                assert!(matches!(*reason, CloseReason::EndOfFile), "{reason}");
                let mut found = Vec::new();
                eventually("all is written", || {
                    found.clear();
                    output.rewind().unwrap();
                    output.read_to_end(&mut found).unwrap();
                    found.len() >= expected.len()
                });
                assert!(found == expected, "{format}, told {told:?}: {} bytes", found.len());
            }
        }
    }
}

#[test]
fn a_file_that_ends_amid_a_chunk_is_broken() {
    let _watchdog = watchdog();
    for endpoint in ENDPOINTS {
        let mut input = tempfile::tempfile().unwrap();
        input.write_all(&bytes(1, Direction::Request, "echo", b"hello")[..10]).unwrap();
        input.rewind().unwrap();
        let connection = events()
            .connect(endpoint(input.into()), endpoint(null()), Options::default(), echo)
            .unwrap();
        let reason = connection.wait_closed(LONG).unwrap();
        assert!(matches!(*reason, CloseReason::Broken { .. }), "{reason}");
    }
}

#[test]
fn dev_null_ends_at_once_and_takes_everything() {
    let _watchdog = watchdog();
    for endpoint in ENDPOINTS {
        let connection = events()
            .connect(endpoint(null()), endpoint(null()), Options::default(), Refuse)
            .unwrap();
        assert!(matches!(*connection.wait_closed(LONG).unwrap(), CloseReason::EndOfFile));
        assert!(matches!(connection.call("x", ""), Err(CallError::Closed { .. })));

        let (reader, writer) = std::io::pipe().unwrap();
        let connection = events()
            .connect(endpoint(reader.into()), endpoint(null()), Options::default(), Refuse)
            .unwrap();
        for _ in 0..100 {
            connection.notify("into the void", vec![0; 100_000]).unwrap();
        }
        assert_eq!(connection.stats().queued, 0);
        drop(writer);
        assert!(connection.wait_closed(LONG).is_some());
    }
}

#[test]
fn descriptors_of_the_wrong_direction_are_refused() {
    let _watchdog = watchdog();
    for endpoint in ENDPOINTS {
        let (reader, writer) = std::io::pipe().unwrap();
        let (reader, writer): (OwnedFd, OwnedFd) = (reader.into(), writer.into());
        let connect = |input: &OwnedFd, output: &OwnedFd| {
            let ends = (endpoint(duplicate(input)), endpoint(duplicate(output)));
            events().connect(ends.0, ends.1, Options::default(), Refuse).map(drop)
        };
        for (half, result) in
            [("reading", connect(&writer, &writer)), ("writing", connect(&reader, &reader))]
        {
            let Err(ConnectError::Descriptor { half: found, .. }) = result else {
                panic!("{half}: {result:?}")
            };
            assert_eq!(found, half);
        }
    }
}

/// Calls in both directions, small and large, at once.
fn exercise(one: &Connection, other: &Connection, size: usize) {
    thread::scope(|scope| {
        for side in [one, other] {
            for caller in 0..4 {
                scope.spawn(move || {
                    for size in [0, 10, size] {
                        let body = vec![caller; size];
                        assert!(side.call_bytes("echo", body.clone()).unwrap() == body);
                    }
                });
            }
        }
    });
}

#[test]
fn one_socket_carries_both_directions() {
    let _watchdog = watchdog();
    for (endpoint, shared) in ENDPOINTS.into_iter().zip([false, true]) {
        let (one, other) = UnixStream::pair().unwrap();
        let before = [flags(&one), flags(&other)];
        let watched = [duplicate(&one), duplicate(&other)];
        let connect = |socket: UnixStream| {
            let ends = (endpoint(duplicate(&socket)), endpoint(socket.into()));
            events().connect(ends.0, ends.1, Options::default(), echo).unwrap()
        };
        let (one, other) = (connect(one), connect(other));
        exercise(&one, &other, 1 << 20);
        if shared {
            assert_eq!(before, [flags(&watched[0]), flags(&watched[1])]);
        }
        drop(watched);
        one.end("enough");
        assert!(matches!(*other.wait_closed(LONG).unwrap(), CloseReason::EndOfFile));
    }
}

/// The end of file goes out with the last byte, though the other direction's descriptor is the same
/// socket.
#[test]
fn closing_a_socket_of_ones_own_tells_the_other_side() {
    let _watchdog = watchdog();
    let (one, other) = UnixStream::pair().unwrap();
    let connect = |socket: UnixStream| {
        let ends = (Endpoint::exclusive(duplicate(&socket)), Endpoint::exclusive(socket));
        events().connect(ends.0, ends.1, Options::default(), echo).unwrap()
    };
    let (one, other) = (connect(one), connect(other));
    assert_eq!(one.call("echo", "x").unwrap(), "x");
    one.close();
    assert!(matches!(*other.wait_closed(LONG).unwrap(), CloseReason::EndOfFile));
    assert!(matches!(*one.wait_closed(LONG).unwrap(), CloseReason::EndOfFile));
}

fn raw_pty() -> (OwnedFd, OwnedFd) {
    let pty = openpty(None, None).unwrap();
    let mut termios = tcgetattr(&pty.slave).unwrap();
    cfmakeraw(&mut termios);
    tcsetattr(&pty.slave, SetArg::TCSANOW, &termios).unwrap();
    (pty.master, pty.slave)
}

#[test]
fn a_terminal_carries_both_directions() {
    let _watchdog = watchdog();
    let (master, slave) = raw_pty();
    let before = [flags(&master), flags(&slave)];
    let watched = [duplicate(&master), duplicate(&slave)];
    let connect = |fd: OwnedFd| {
        let ends = (Endpoint::shared(duplicate(&fd)), Endpoint::shared(fd));
        events().connect(ends.0, ends.1, Options::default(), echo).unwrap()
    };
    let (one, other) = (connect(master), connect(slave));
    exercise(&one, &other, 50_000);
    assert_eq!(before, [flags(&watched[0]), flags(&watched[1])]);
    drop(watched);
    other.end("hung up");
    assert!(matches!(*one.wait_closed(LONG).unwrap(), CloseReason::EndOfFile));
}

#[test]
fn shared_pipes_keep_their_flags() {
    let _watchdog = watchdog();
    for nonblocking in [OFlag::empty(), OFlag::O_NONBLOCK] {
        let ((host_in, guest_out), (guest_in, host_out)) =
            (Way::SMALL_PIPES.pipe(), Way::SMALL_PIPES.pipe());
        let watched = [
            duplicate(&host_in),
            duplicate(&guest_out),
            duplicate(&guest_in),
            duplicate(&host_out),
        ];
        for fd in &watched {
            fcntl(fd, FcntlArg::F_SETFL(flags(fd) | nonblocking)).unwrap();
        }
        let before = watched.each_ref().map(flags);
        let shared = |fd: OwnedFd| Endpoint::shared(fd);
        let connect = |input: OwnedFd, output: OwnedFd| {
            events().connect(shared(input), shared(output), Options::default(), echo).unwrap()
        };
        let host = connect(host_in.into(), host_out.into());
        let guest = connect(guest_in.into(), guest_out.into());
        exercise(&host, &guest, 200_000);
        assert_eq!(before, watched.each_ref().map(flags));
        // While others hold the pipes open, the end comes from within.
        for side in [host, guest] {
            side.end("done");
            assert!(side.wait_closed(LONG).is_some());
        }
        assert_eq!(before, watched.each_ref().map(flags));
    }
}

/// Fills `writer`, whose other side is never read, and sees that another connection on the same
/// loop is served.
fn assert_full_does_not_block(
    reader: impl Fn() -> OwnedFd,
    writer: impl Fn() -> OwnedFd,
    size: usize,
) {
    let events = events();
    let mut options = Options::default();
    options.outgoing = 64 << 10;
    let stuck = events
        .connect(Endpoint::shared(reader()), Endpoint::shared(writer()), options, Refuse)
        .unwrap();
    let (host, _guest) = pair_on((&events, &events), &Options::default(), Way::PLAIN, Refuse, echo);
    let (tell, told) = mpsc::channel();
    // On a thread of its own: where it blocks, this one says so.
    let filling = thread::spawn(move || {
        let calls = fill(&stuck, size);
        tell.send(()).unwrap();
        (stuck, calls)
    });
    told.recv_timeout(LONG).expect("a write has blocked");
    let (stuck, calls) = filling.join().unwrap();
    for _ in 0..100 {
        assert_eq!(host.request("echo", "x").begin().unwrap().wait_timeout(LONG).unwrap(), b"x");
    }
    assert!(stuck.stats().queued > 0);
    drop(calls);
}

/// Sizes that leave less room than a page before the one that does not fit.
const SIZES: [usize; 5] = [0, 100, 999, 3000, 5000];

#[test]
fn a_full_shared_pipe_blocks_nobody() {
    let _watchdog = watchdog();
    for way in [Way::PLAIN, Way::SMALL_PIPES] {
        for size in SIZES {
            let ((input, _output), (_reader, writer)) = (way.pipe(), way.pipe());
            assert_full_does_not_block(|| duplicate(&input), || duplicate(&writer), size);
        }
    }
}

#[test]
fn a_full_terminal_blocks_nobody() {
    let _watchdog = watchdog();
    for size in SIZES {
        let (_master, slave) = raw_pty();
        assert_full_does_not_block(|| duplicate(&slave), || duplicate(&slave), size);
        let (master, _slave) = raw_pty();
        assert_full_does_not_block(|| duplicate(&master), || duplicate(&master), size);
    }
}

#[test]
fn a_full_shared_socket_blocks_nobody() {
    let _watchdog = watchdog();
    for size in SIZES {
        let (one, _other) = UnixStream::pair().unwrap();
        assert_full_does_not_block(|| duplicate(&one), || duplicate(&one), size);
    }
}
