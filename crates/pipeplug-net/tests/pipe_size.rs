//! How much a pipe holds: more where a large buffer is to be written, and only there.
#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::io::{PipeReader, PipeWriter, pipe};
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::thread;

use common::{LONG, echo, watchdog};
use nix::fcntl::{FcntlArg, fcntl};
use pipeplug_net::{Connection, Endpoint, EventLoop, Options, Refuse};

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

fn size(pipe: &impl AsFd) -> usize {
    usize::try_from(fcntl(pipe, FcntlArg::F_GETPIPE_SZ).unwrap()).unwrap()
}

fn duplicate(fd: &impl AsFd) -> OwnedFd {
    fd.as_fd().try_clone_to_owned().unwrap()
}

const ENDPOINTS: [fn(OwnedFd) -> Endpoint; 2] = [Endpoint::exclusive, Endpoint::shared];

/// A host and a guest that echoes, and other descriptors of the two pipes: there, and back.
fn pair(endpoint: fn(OwnedFd) -> Endpoint) -> (Connection, Connection, PipeReader, PipeWriter) {
    let (there_out, there_in) = pipe().unwrap();
    let (back_out, back_in) = pipe().unwrap();
    let events = EventLoop::new().unwrap();
    let [there, back] = [duplicate(&there_out), duplicate(&back_in)];
    let guest = events.connect(endpoint(there), endpoint(back), Options::default(), echo).unwrap();
    let host = events.connect(
        endpoint(back_out.into()),
        endpoint(there_in.into()),
        Options::default(),
        Refuse,
    );
    (host.unwrap(), guest, there_out, back_in)
}

fn echoes(host: &Connection, len: usize) {
    let mut sent = (0..=250).collect::<Vec<u8>>().repeat(len / 251 + 1);
    sent.truncate(len);
    assert!(host.call_bytes("echo", sent.clone()).unwrap() == sent, "{len} bytes");
}

#[test]
fn a_pipe_grows_for_a_large_buffer_and_only_for_that() {
    let _watchdog = watchdog();
    for (endpoint, may_grow) in ENDPOINTS.into_iter().zip([true, !cfg!(pipeplug_portable)]) {
        let (host, _guest, there, back) = pair(endpoint);
        assert_eq!([size(&there), size(&back)], [64 * KIB; 2], "idle");
        // Many at once fill the pipe as much as a large one does.
        let calls: Vec<_> =
            (0..200).map(|_| host.request("echo", vec![1; 3000]).begin().unwrap()).collect();
        calls.into_iter().for_each(|call| drop(call.wait_timeout(LONG).unwrap()));
        echoes(&host, 64 * KIB);
        assert_eq!([size(&there), size(&back)], [64 * KIB; 2], "no buffer was larger");
        for (len, expected) in [(100_000, 128 * KIB), (MIB, MIB), (5 * MIB, MIB), (1, MIB)] {
            echoes(&host, len);
            // One that others use too, and that was not opened anew, is theirs.
            let expected = if may_grow { expected } else { 64 * KIB };
            assert_eq!([size(&there), size(&back)], [expected; 2], "{len} bytes");
        }
    }
}

#[test]
fn only_the_side_that_writes_much_has_its_pipe_grow() {
    let _watchdog = watchdog();
    let (host, _guest, there, back) = pair(Endpoint::exclusive);
    host.call("fail", vec![1; MIB]).unwrap_err();
    assert_eq!([size(&there), size(&back)], [MIB, 64 * KIB]);
}

#[test]
fn a_pipe_that_is_larger_already_does_not_shrink() {
    let _watchdog = watchdog();
    let (host, _guest, there, _back) = pair(Endpoint::exclusive);
    fcntl(&there, FcntlArg::F_SETPIPE_SZ(MIB.try_into().unwrap())).unwrap();
    echoes(&host, 100_000);
    assert_eq!(size(&there), MIB);
}

#[test]
fn what_cannot_grow_carries_large_buffers_all_the_same() {
    let _watchdog = watchdog();
    for endpoint in ENDPOINTS {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let events = EventLoop::new().unwrap();
        let connect = |socket: UnixStream| {
            let writer = endpoint(duplicate(&socket));
            events.connect(endpoint(socket.into()), writer, Options::default(), echo).unwrap()
        };
        let (host, _guest) = (connect(ours), connect(theirs));
        for len in [100_000, 5 * MIB, 100_000] {
            echoes(&host, len);
        }
    }
}

#[test]
fn a_large_buffer_that_comes_in_small_parts_is_whole() {
    let _watchdog = watchdog();
    // Each end of the memory that is got in advance falls elsewhere in a read.
    for transfer in [4097, 65_535, 300_000] {
        let mut options = Options::default();
        options.transfer = NonZeroUsize::new(transfer).unwrap();
        let (host, _guest) = common::pair(&options, Refuse, echo);
        let calls: Vec<_> = [3 * MIB, 700_001, 2 * MIB + 17]
            .map(|len| {
                let host = host.clone();
                thread::spawn(move || echoes(&host, len))
            })
            .into();
        calls.into_iter().for_each(|call| call.join().unwrap());
    }
}
