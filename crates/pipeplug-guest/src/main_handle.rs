//! The guest's handle.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::ops::Deref;
use std::process::ExitCode;
use std::sync::{Arc, OnceLock};

use pipeplug_net::wire::command;
use pipeplug_net::{
    CloseReason, ConnectError, Connection, Endpoint, EventLoop, Handler, HandlerError, Incoming, Options,
    Reply,
};

use crate::acquaintance::Acquaintance;
use crate::exit::Exit;
use crate::guest::Request;
use crate::metadata::{Own, parse_host};

/// The plugin's handle to its host: calls and notifies it, and waits for the end.
///
/// It is a [`Connection`] with what only a guest has; cloning it is cheap.
#[derive(Clone)]
#[must_use = "a plugin whose main returns ends: call wait()"]
pub struct Main(Connection);

/// What all handles share, and the connection calls.
pub(crate) struct Shared {
    args: Vec<OsString>,
    own: Own,
    exit: Arc<Exit>,
    request: Box<dyn Request>,
    host: OnceLock<BTreeMap<String, String>>,
    pub(crate) acquaintance: Acquaintance,
}

impl Shared {
    pub(crate) fn new(
        args: Vec<OsString>,
        own: Own,
        exit: Exit,
        request: impl Request,
        acquaintance: Acquaintance,
    ) -> Self {
        Self {
            args,
            own,
            exit: Arc::new(exit),
            request: Box::new(request),
            host: OnceLock::new(),
            acquaintance,
        }
    }

    fn metadata(&self, main: &Main, incoming: &mut Incoming) -> Reply {
        let host = parse_host(incoming.buffer());
        main.accept(|key| host.get(key).map(String::as_str));
        // A host that asks twice says the same.
        let _ = self.host.set(host);
        self.acquaintance.made();
        let asked = if self.own.metadata.is_empty() {
            self.acquaintance.wait_started();
            // A call-back that does not know the question has no metadata of its own.
            self.request.request(main, incoming).ok().map(Reply::into_bytes)
        } else {
            None
        };
        self.own.reply(main, asked).into()
    }
}

impl Main {
    pub(crate) fn connect(
        events: &EventLoop,
        reader: Endpoint,
        writer: Endpoint,
        options: Options,
        shared: Shared,
    ) -> Result<Self, ConnectError> {
        events.connect(reader, writer, options, shared).map(Self)
    }

    pub(crate) fn shared(&self) -> &Shared {
        self.0.handler().expect("a plugin's connection is made with what its handles share")
    }

    /// The plugin's own arguments: those behind the descriptors' numbers.
    #[must_use]
    pub fn args(&self) -> &[OsString] {
        &self.shared().args
    }

    /// What the host said of itself (`pipeplug.protocol`, …): complete once the start call-back runs, or any call-back for
    /// what the host asks. Empty for hosts that say nothing, and, without a start call-back, until the host has asked for the
    /// metadata, which is the first that it does.
    #[must_use]
    pub fn host(&self) -> BTreeMap<String, String> {
        self.shared().host.get().cloned().unwrap_or_default()
    }

    /// Waits for the end, and gives what `main` returns: success after the host said stop, failure after it was lost.
    ///
    /// # Blocking
    /// Until the host says stop or closes the pipe, and its last requests are answered or the grace time is over.
    #[must_use = "return it from main"]
    pub fn wait(&self) -> ExitCode {
        self.shared().exit.wait()
    }
}

impl Deref for Main {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        &self.0
    }
}

impl std::fmt::Debug for Main {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Main").field(&self.0).finish()
    }
}

impl Handler for Shared {
    fn incoming(&self, incoming: &mut Incoming) -> Result<Reply, HandlerError> {
        let main = Main(incoming.connection().clone());
        if incoming.command() == command::GET_METADATA && !incoming.is_one_way() {
            return Ok(self.metadata(&main, incoming));
        }
        self.request.request(&main, incoming)
    }

    fn stop(&self, connection: &Connection) {
        self.exit.stop(connection);
    }

    fn ended(&self, _reason: &Arc<CloseReason>) {
        self.acquaintance.made();
        // A thread of its own: `closed` is told only after this has returned.
        let exit = Arc::clone(&self.exit);
        let watch = std::thread::Builder::new().name("pipeplug-exit".into());
        if watch.spawn(move || exit.ended()).is_err() {
            // No thread left: nobody bounds the handlers' time, `closed` still comes after them.
        }
    }

    fn closed(&self, reason: &Arc<CloseReason>, connection: Option<&Connection>) {
        self.exit.closed(reason, connection);
    }
}
