//! Two sides within one process.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{self, PipeReader, PipeWriter};
use std::num::NonZeroUsize;
use std::os::fd::IntoRawFd;

use pipeplug_guest::{Guest, Main, OnEnd, RegisterError, Start};
use pipeplug_net::wire::command;
use pipeplug_net::{
    CallError, ConnectError, Connection, Endpoint, EventLoop, Handler, Options, Reading, handshake,
};
use serde_json::{Map, Value};

use crate::LONG;
use crate::clock::Clock;
use crate::wire::Wire;

/// A host and a guest within this process, each over pipes of its own, and the wires between them.
///
/// The guest is a [`Connection`], or a [`Main`] where a whole plugin was registered
/// ([`Setup::register`]).
#[derive(Debug)]
pub struct Pair<G = Connection> {
    /// The host's side.
    pub host: Connection,
    /// The guest's side.
    pub guest: G,
    /// What the guest said of itself in answer to `GetMetadata`; empty where it is not a registered
    /// one.
    pub metadata: BTreeMap<String, String>,
    /// What goes from the host to the guest.
    pub to_guest: Wire,
    /// What goes from the guest to the host.
    pub to_host: Wire,
}

/// Why there is no pair.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PairError {
    /// The system gives no pipe, no thread or no event loop.
    #[error("no pair: {0}")]
    System(#[from] io::Error),
    /// A pipe did not become a connection.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The plugin did not register, as where its start call-back fails.
    #[error(transparent)]
    Register(#[from] RegisterError),
    /// `GetMetadata` was not answered.
    #[error("no metadata: {0}")]
    NoMetadata(CallError),
    /// What the plugin answered to `GetMetadata` is no JSON object.
    #[error("the metadata is no JSON object: {error}; it begins with \"{}\"", .shown.escape_ascii())]
    BadMetadata {
        /// What is wrong with it.
        error: serde_json::Error,
        /// Its first bytes, at most 64.
        shown: Vec<u8>,
    },
}

/// What a [`Pair`] is made with.
#[derive(Debug, Clone)]
#[must_use = "a setup does nothing until it connects or registers"]
pub struct Setup {
    host: Options,
    guest: Options,
    clock: Clock,
    capacity: Option<NonZeroUsize>,
    args: Vec<OsString>,
}

impl Pair {
    /// A host and a guest with every setting at its default, and these handlers.
    ///
    /// # Errors
    /// As for [`Setup::connect`].
    pub fn new(host: impl Handler, guest: impl Handler) -> Result<Self, PairError> {
        Self::setup().connect(host, guest)
    }

    /// A pair to be.
    pub fn setup() -> Setup {
        let (mut host, mut guest) = (Options::default(), Options::default());
        host.name = "guest".into();
        guest.name = "host".into();
        guest.reading = Reading::Dedicated;
        Setup { host, guest, clock: Clock::system(), capacity: None, args: Vec::new() }
    }
}

impl Setup {
    /// The settings of the host's connection.
    pub fn host_options(mut self, options: Options) -> Self {
        self.host = options;
        self
    }

    /// The settings of the guest's connection; a registered plugin has its own.
    pub fn guest_options(mut self, options: Options) -> Self {
        self.guest = options;
        self
    }

    /// The plugin's arguments behind the descriptors' numbers, where one is registered. Default:
    /// none.
    pub fn args(mut self, args: impl IntoIterator<Item = impl Into<OsString>>) -> Self {
        self.args = args.into_iter().map(Into::into).collect();
        self
    }

    /// The time that delays go by. Default: the system's.
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// What each pipe holds, in bytes, rounded up by the system (to 4096 at the least). Default:
    /// what it likes.
    pub fn pipe_capacity(mut self, bytes: NonZeroUsize) -> Self {
        self.capacity = Some(bytes);
        self
    }

    /// Connects two sides with these handlers, each on a loop of its own. They know of each other
    /// what host and guest know after the exchange of metadata.
    ///
    /// # Errors
    /// Where the system gives no pipe, no thread or no event loop.
    pub fn connect(self, host: impl Handler, guest: impl Handler) -> Result<Pair, PairError> {
        let Ends { to_guest, to_host, guest_in, guest_out, host_in, host_out } = self.ends()?;
        let guest = connect(guest_in, guest_out, self.guest, guest)?;
        let host = connect(host_in, host_out, self.host, host)?;
        accept(&host, &guest);
        accept(&guest, &host);
        Ok(Pair { host, guest, metadata: BTreeMap::new(), to_guest, to_host })
    }

    /// Registers a plugin, as its `main` would do, with a host that answers with `host`.
    ///
    /// It stays when its host is gone, as with [`OnEnd::Stay`], since the process is the test's.
    ///
    /// ```
    /// use pipeplug_guest::{Guest, Main, Request};
    /// use pipeplug_net::Refuse;
    /// use pipeplug_testkit::Pair;
    ///
    /// let greet = |_: &Main, request: &mut Request| Ok(format!("hello, {}", request.text()?).into());
    /// let pair = Pair::setup().register(Refuse, Guest::new().metadata("Cmd", "greet").handler(greet))?;
    /// assert_eq!(pair.metadata["Cmd"], "greet");
    /// assert_eq!(pair.host.call("greet", "world")?, "hello, world");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As for [`connect`](Setup::connect), and where the plugin does not register or answers
    /// `GetMetadata` with anything but a JSON object or an error.
    ///
    /// # Blocking
    /// While its start call-back runs, and until it has answered `GetMetadata`, for at most 30
    /// seconds.
    pub fn register<S: Start, R: pipeplug_guest::Handler>(
        self,
        host: impl Handler,
        guest: Guest<S, R>,
    ) -> Result<Pair<Main>, PairError> {
        let Ends { to_guest, to_host, guest_in, guest_out, host_in, host_out } = self.ends()?;
        let host = connect(host_in, host_out, self.host, host)?;
        let offer: Map<_, _> = handshake::offer(&host)
            .into_iter()
            .map(|(key, value)| (key.to_owned(), Value::from(value)))
            .collect();
        let request = host
            .request(command::GET_METADATA, Value::Object(offer).to_string())
            .begin()
            .map_err(PairError::NoMetadata)?;
        let numbers = [guest_in.into_raw_fd(), guest_out.into_raw_fd()];
        let args = numbers.iter().map(|number| number.to_string().into()).chain(self.args);
        let guest = guest.args(args).on_end(OnEnd::Stay).try_register()?;
        let metadata = match request.wait_timeout(LONG) {
            Ok(bytes) => metadata(&bytes)?,
            // A plugin that does not know the question has none.
            Err(CallError::Remote { .. }) => BTreeMap::new(),
            Err(error) => return Err(PairError::NoMetadata(error)),
        };
        handshake::accept(&host, |key| metadata.get(key).map(String::as_str));
        Ok(Pair { host, guest, metadata, to_guest, to_host })
    }

    fn ends(&self) -> io::Result<Ends> {
        let (host_out, to_guest, guest_in) = Wire::with(self.clock.clone(), self.capacity)?;
        let (guest_out, to_host, host_in) = Wire::with(self.clock.clone(), self.capacity)?;
        Ok(Ends { to_guest, to_host, guest_in, guest_out, host_in, host_out })
    }
}

/// The ends of two wires.
struct Ends {
    to_guest: Wire,
    to_host: Wire,
    guest_in: PipeReader,
    guest_out: PipeWriter,
    host_in: PipeReader,
    host_out: PipeWriter,
}

fn connect(
    reader: PipeReader,
    writer: PipeWriter,
    options: Options,
    handler: impl Handler,
) -> Result<Connection, PairError> {
    let (reader, writer) = (Endpoint::exclusive(reader), Endpoint::exclusive(writer));
    Ok(EventLoop::new()?.connect(reader, writer, options, handler)?)
}

/// `to` learns what `from` offers.
fn accept(to: &Connection, from: &Connection) {
    let offer = handshake::offer(from);
    handshake::accept(to, |key| {
        offer.iter().find(|(name, _)| *name == key).map(|(_, value)| value.as_str())
    });
}

fn metadata(bytes: &[u8]) -> Result<BTreeMap<String, String>, PairError> {
    let object: Map<String, Value> = serde_json::from_slice(bytes).map_err(|error| {
        PairError::BadMetadata { error, shown: bytes[..bytes.len().min(64)].to_vec() }
    })?;
    let text = |value| match value {
        Value::String(text) => text,
        other => other.to_string(),
    };
    Ok(object.into_iter().map(|(key, value)| (key, text(value))).collect())
}
