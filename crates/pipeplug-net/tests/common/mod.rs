//! Two connections over two pipes, in one process.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::pipe;
use std::time::Duration;

use pipeplug_net::{Connection, Endpoint, EventLoop, Handler, Incoming, Options};

/// Longer than anything here takes; reached only where something hangs.
pub(crate) const LONG: Duration = Duration::from_secs(30);

/// A host and a guest: each on a loop of its own.
pub(crate) fn pair(options: &Options, host: impl Handler, guest: impl Handler) -> (Connection, Connection) {
    let (host_in, guest_out) = pipe().unwrap();
    let (guest_in, host_out) = pipe().unwrap();
    let options = |name: &str| {
        let mut options = options.clone();
        options.name = name.into();
        options
    };
    let guest = EventLoop::new()
        .unwrap()
        .connect(Endpoint::exclusive(guest_in), Endpoint::exclusive(guest_out), options("host"), guest)
        .unwrap();
    let host = EventLoop::new()
        .unwrap()
        .connect(Endpoint::exclusive(host_in), Endpoint::exclusive(host_out), options("guest"), host)
        .unwrap();
    (host, guest)
}

/// Both sides agree on what they offer each other, as host and guest do in the exchange of metadata.
pub(crate) fn negotiate(one: &Connection, other: &Connection) {
    for (from, to) in [(one, other), (other, one)] {
        let offer = from.offer();
        to.accept(|key| offer.iter().find(|(k, _)| *k == key).map(|(_, v)| v.as_str()));
    }
}

/// Answers with what it was given.
pub(crate) fn echo(incoming: &mut Incoming) -> Result<pipeplug_net::Reply, pipeplug_net::HandlerError> {
    match incoming.command() {
        "echo" => Ok(incoming.take_buffer().into()),
        "fail" => Err("it failed".into()),
        "panic" => panic!("it panicked"),
        _ => incoming.unknown(),
    }
}
