//! Host and guest within one process.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{self, PipeReader, PipeWriter};
use std::num::NonZeroUsize;
use std::os::fd::IntoRawFd;

use pipeplug_guest::{Guest, Main, OnEnd, RegisterError, Start};
use pipeplug_net::internal::handshake;
use pipeplug_net::wire::command;
use pipeplug_net::{
    CallError, Clock, ConnectError, Connection, Endpoint, EventLoop, Handler, Options,
    OutgoingRequest, Reading,
};
use serde_json::{Map, Value};

use crate::LONG;
use crate::wire::Wire;

/// Host and guest within this process, and the wires between them.
///
/// The guest is a [`Connection`], or a [`Main`] if a whole plugin was registered
/// ([`Setup::register`]).
#[derive(Debug)]
pub struct Pair<G = Connection> {
    /// Connection of the host.
    pub host: Connection,
    /// Connection of the guest.
    pub guest: G,
    /// Answer of the guest to `GetMetadata`. Empty if the guest is not a registered plugin.
    pub metadata: BTreeMap<String, String>,
    /// Wire from the host to the guest.
    pub to_guest: Wire,
    /// Wire from the guest to the host.
    pub to_host: Wire,
}

/// Error of making a pair.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PairError {
    /// The system provides no pipe, thread or event loop.
    #[error("cannot make a pair of connections: {0}")]
    System(#[from] io::Error),
    /// A pipe did not become a connection.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The plugin did not register, for instance because its start call-back failed.
    #[error(transparent)]
    Register(#[from] RegisterError),
    /// `GetMetadata` was not answered.
    #[error("the plugin did not answer GetMetadata: {0}")]
    NoMetadata(CallError),
    /// The answer to `GetMetadata` is not a JSON object.
    #[error("the answer to GetMetadata is not a JSON object: {error}; it begins with \"{}\"", .shown.escape_ascii())]
    BadMetadata {
        /// Error of the JSON parser.
        error: serde_json::Error,
        /// First bytes of the answer, at most 64.
        shown: Vec<u8>,
    },
}

/// Settings of a [`Pair`].
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
    /// Connects a host and a guest with these handlers and default settings.
    ///
    /// # Errors
    /// As for [`Setup::connect`].
    pub fn new(host: impl Handler, guest: impl Handler) -> Result<Self, PairError> {
        Self::setup().connect(host, guest)
    }

    /// Starts the settings of a pair.
    pub fn setup() -> Setup {
        let (mut host, mut guest) = (Options::default(), Options::default());
        host.name = "guest".into();
        guest.name = "host".into();
        guest.reading = Reading::Dedicated;
        Setup { host, guest, clock: Clock::system(), capacity: None, args: Vec::new() }
    }
}

impl Setup {
    /// Sets the options of the host's connection, but for its [clock](Setup::clock).
    pub fn host_options(mut self, options: Options) -> Self {
        self.host = options;
        self
    }

    /// Sets the options of the guest's connection, but for its [clock](Setup::clock). A registered
    /// plugin has its own options.
    pub fn guest_options(mut self, options: Options) -> Self {
        self.guest = options;
        self
    }

    /// Sets the arguments of a registered plugin, after the numbers of the descriptors. Default:
    /// none.
    pub fn args(mut self, args: impl IntoIterator<Item = impl Into<OsString>>) -> Self {
        self.args = args.into_iter().map(Into::into).collect();
        self
    }

    /// Sets the clock of deadlines and delays, for both sides and both wires: see
    /// [`ManualClock`](crate::ManualClock). Default: the system's.
    pub fn clock(mut self, clock: impl Into<Clock>) -> Self {
        self.clock = clock.into();
        self
    }

    /// Sets the capacity of each pipe, in bytes, rounded up by the system (at least 4096). Default:
    /// that of the system.
    pub fn pipe_capacity(mut self, bytes: NonZeroUsize) -> Self {
        self.capacity = Some(bytes);
        self
    }

    /// Connects two sides with these handlers, each with an event loop of its own. The features are
    /// negotiated as in a handshake.
    ///
    /// # Errors
    /// If the system provides no pipe, thread or event loop.
    pub fn connect(self, host: impl Handler, guest: impl Handler) -> Result<Pair, PairError> {
        let Ends { to_guest, to_host, guest_in, guest_out, host_in, host_out } = self.ends()?;
        let (mut guest_options, mut host_options) = (self.guest, self.host);
        guest_options.clock = self.clock.clone();
        host_options.clock = self.clock;
        let guest = connect(guest_in, guest_out, guest_options, guest)?;
        let host = connect(host_in, host_out, host_options, host)?;
        accept(&host, &guest);
        accept(&guest, &host);
        Ok(Pair { host, guest, metadata: BTreeMap::new(), to_guest, to_host })
    }

    /// Registers a plugin, as its `main` would do. `host` answers the requests of the plugin.
    ///
    /// The plugin does not exit when its host is gone, as with [`OnEnd::Stay`]: the process is that
    /// of the test.
    ///
    /// ```
    /// use pipeplug_guest::{Guest, Main, Request};
    /// use pipeplug_net::Refuse;
    /// use pipeplug_testkit::Pair;
    ///
    /// let greet = |_: &Main, request: &mut Request| Ok(format!("hello, {}",
    /// request.text()?).into()); let pair = Pair::setup().register(Refuse,
    /// Guest::new().metadata("Cmd", "greet").handler(greet))?; assert_eq!(pair.metadata["Cmd"],
    /// "greet"); assert_eq!(pair.host.call("greet", "world")?, "hello, world");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As for [`connect`](Setup::connect), and if the plugin does not register, or answers
    /// `GetMetadata` with anything but a JSON object or an error.
    ///
    /// # Blocking
    /// While the start call-back runs, and until the plugin has answered `GetMetadata`, for at most
    /// 30 seconds by the clock of the pair.
    pub fn register<S: Start, R: pipeplug_guest::Handler>(
        self,
        host: impl Handler,
        guest: Guest<S, R>,
    ) -> Result<Pair<Main>, PairError> {
        let Ends { to_guest, to_host, guest_in, guest_out, host_in, host_out } = self.ends()?;
        let mut options = self.host;
        options.clock = self.clock.clone();
        let host = connect(host_in, host_out, options, host)?;
        let offer: Map<_, _> = handshake::offer(&host)
            .into_iter()
            .map(|(key, value)| (key.to_owned(), Value::from(value)))
            .collect();
        let offer = Value::Object(offer).to_string();
        let request = host
            .begin_by_protocol(OutgoingRequest::new(command::GET_METADATA, offer.into()))
            .map_err(PairError::NoMetadata)?;
        let numbers = [guest_in.into_raw_fd(), guest_out.into_raw_fd()];
        let args = numbers.iter().map(|number| number.to_string().into()).chain(self.args);
        let guest = guest.args(args).clock(self.clock).on_end(OnEnd::Stay).try_register()?;
        let metadata = match request.wait_timeout(LONG) {
            Ok(bytes) => metadata(&bytes)?,
            // A plugin that does not know the request has no metadata.
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

/// Pipe ends of two wires.
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

/// Passes the offer of `from` to `to`.
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
