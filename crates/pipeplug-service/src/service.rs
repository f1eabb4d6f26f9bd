//! Services: what a side serves, and clients of the other side's.

use std::fmt;
use std::sync::Arc;

use pipeplug_net::{Escaped, Failure, Handler, HandlerError, Reply, Request};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::channel::Channel;
use crate::codec::{Codec, Json};
use crate::compare::{Change, compare};
use crate::interface::{Description, Interface, ServiceName};
use crate::router::{Router, decode};
use crate::stream::{StreamOut, invalid};
use crate::{GET_SERVICES, INVALID_RESULT, METHOD_ERROR};

/// A service that a plugin or host serves. The attribute [`service`](crate::service) writes an
/// implementation for each trait: `SpellServer` for `Spell`.
pub trait Service: Send + Sync + 'static {
    /// Description of the service.
    fn interface(&self) -> &'static Interface;

    /// Adds the methods' handlers.
    fn add_to(self, routes: &mut Routes<'_>);
}

/// A client of a service. The attribute [`service`](crate::service) writes two for each trait:
/// `SpellClient`, which blocks, and `SpellAsyncClient`.
pub trait Client: Sized {
    /// Description of the service that it was built with.
    fn interface() -> &'static Interface;

    /// Makes a client over a channel.
    fn over(channel: Channel) -> Self;
}

/// Takes the handlers of a service's methods; see [`Service::add_to`].
#[derive(Debug)]
pub struct Routes<'a> {
    router: &'a mut Router,
    interface: &'static Interface,
}

impl Routes<'_> {
    fn add<F>(&mut self, command: String, handler: F)
    where
        F: Fn(&mut Request) -> Result<Reply, HandlerError> + Send + Sync + 'static,
    {
        let router = std::mem::take(self.router);
        *self.router = router.on_bytes(command, handler);
    }

    fn command(&self, method: &str) -> String {
        format!("{}.{method}", self.interface.name)
    }

    /// Adds a method that is called and answers, for JSON and for the codec `C`.
    pub fn call<C, A, T, E, F>(&mut self, method: &str, handler: F)
    where
        C: Codec,
        A: DeserializeOwned,
        T: Serialize,
        E: Serialize + fmt::Display,
        F: Fn(&mut Request, A) -> Result<T, E> + Send + Sync + 'static,
    {
        let handler = Arc::new(handler);
        let command = self.command(method);
        if let Some(suffix) = self.interface.suffix() {
            let handler = Arc::clone(&handler);
            self.add(format!("{command}{suffix}"), move |request| {
                let arguments = decode::<C, A>(request)?;
                let result = handler(request, arguments).map_err(|error| failure(&error))?;
                encoded::<C, _>(&result)
            });
        }
        self.add(command, move |request| {
            let arguments = arguments::<A>(request)?;
            let result = handler(request, arguments).map_err(|error| failure(&error))?;
            encoded::<Json, _>(&result)
        });
    }

    /// Adds a method that is called by a one-way.
    pub fn one_way<A, F>(&mut self, method: &str, handler: F)
    where
        A: DeserializeOwned,
        F: Fn(&mut Request, A) + Send + Sync + 'static,
    {
        self.add(self.command(method), move |request| {
            let arguments = arguments::<A>(request)?;
            handler(request, arguments);
            Ok(Reply::empty())
        });
    }

    /// Adds a method that takes items and answers.
    pub fn takes_items<A, T, E, F>(&mut self, method: &str, handler: F)
    where
        A: DeserializeOwned,
        T: Serialize,
        E: Serialize + fmt::Display,
        F: Fn(&mut Request, A) -> Result<T, E> + Send + Sync + 'static,
    {
        self.add(self.command(method), move |request| {
            let arguments = arguments::<A>(request)?;
            let result = handler(request, arguments).map_err(|error| failure(&error))?;
            encoded::<Json, _>(&result)
        });
    }

    /// Adds a method whose result is items.
    pub fn items<A, T, E, F>(&mut self, method: &str, handler: F)
    where
        A: DeserializeOwned,
        T: Serialize,
        E: Serialize + fmt::Display,
        F: Fn(&mut Request, A) -> Result<StreamOut<T>, E> + Send + Sync + 'static,
    {
        self.add(self.command(method), move |request| {
            let arguments = arguments::<A>(request)?;
            let items = handler(request, arguments).map_err(|error| failure(&error))?;
            items.send(request)
        });
    }
}

/// Decodes arguments from JSON. No bytes are no arguments.
fn arguments<A: DeserializeOwned>(request: &Request) -> Result<A, HandlerError> {
    if request.buffer().is_empty() {
        return Json::decode(b"{}").map_err(|error| invalid(&error).into());
    }
    decode::<Json, A>(request)
}

/// Encodes a result. A failure has a code: one without would be taken for that of a peer that does
/// not know the codec, and the method be called again.
fn encoded<C: Codec, T: Serialize>(result: &T) -> Result<Reply, HandlerError> {
    C::encode(result).map(Reply::from).map_err(|error| {
        let message = format!("the result cannot be encoded as {}: {error}", C::NAME);
        Failure::new(INVALID_RESULT, message).into()
    })
}

/// Makes the failure of a method's own error.
fn failure<E: Serialize + fmt::Display>(error: &E) -> HandlerError {
    let failure = Failure::new(METHOD_ERROR, error.to_string());
    match serde_json::to_value(error) {
        Ok(data) => failure.data(data).into(),
        Err(_) => failure.into(),
    }
}

/// The services that one side serves. It is a handler itself.
#[derive(Debug, Clone, Default)]
#[must_use = "services do nothing until they are a handler"]
pub struct ServiceSet {
    router: Router,
    interfaces: Vec<&'static Interface>,
}

impl ServiceSet {
    /// No services.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a service.
    ///
    /// # Panics
    /// There is one of that name.
    pub fn with(mut self, service: impl Service) -> Self {
        self.add(service);
        self
    }

    /// Adds a service.
    ///
    /// # Panics
    /// There is one of that name.
    pub fn add(&mut self, service: impl Service) {
        let interface = service.interface();
        let is_new = self.interfaces.iter().all(|other| other.name != interface.name);
        assert!(is_new, "there are two services with the name {:?}", interface.name);
        self.interfaces.push(interface);
        service.add_to(&mut Routes { router: &mut self.router, interface });
    }

    /// Returns true if there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.interfaces.is_empty()
    }

    /// Descriptions of the services.
    #[must_use]
    pub fn interfaces(&self) -> &[&'static Interface] {
        &self.interfaces
    }

    /// Value of [`KEY_SERVICES`](crate::KEY_SERVICES) in this side's metadata. `None` if there are
    /// no services.
    #[must_use]
    pub fn metadata(&self) -> Option<String> {
        let names = self.interfaces.iter().map(|interface| interface.service_name().to_string());
        Some(names.collect::<Vec<_>>().join(" ")).filter(|names| !names.is_empty())
    }

    /// Answers a request if it is for one of the services, or for their description.
    pub fn handle(&self, request: &mut Request) -> Option<Result<Reply, HandlerError>> {
        let answer = self.router.handle(request);
        if answer.is_some() {
            return answer;
        }
        let command = request.command();
        if command == GET_SERVICES && !self.is_empty() {
            return Some(self.describe());
        }
        let (service, _) = command.split_once('.')?;
        let is_ours = self.interfaces.iter().any(|interface| interface.name == service);
        is_ours.then(|| Err(self.router.unknown(command)))
    }

    fn describe(&self) -> Result<Reply, HandlerError> {
        // As `Description`, of which it has references.
        Ok(Json::encode(&serde_json::json!({ "services": self.interfaces }))?.into())
    }
}

impl Handler for ServiceSet {
    fn handle(&self, request: &mut Request) -> Result<Reply, HandlerError> {
        self.handle(request).unwrap_or_else(|| Err(self.router.unknown(request.command())))
    }
}

/// Reason that a client cannot be used with a peer.
#[derive(Debug, Clone, thiserror::Error)]
pub struct NoService {
    peer: String,
    service: String,
    kind: NoServiceKind,
}

/// Kind of a [`NoService`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum NoServiceKind {
    /// The peer has no such service.
    Missing {
        /// Names of the services that it has.
        offered: Vec<String>,
    },
    /// The peer has the service in a version that does not serve this client.
    Version {
        /// Versions of the peer: it serves clients from the first to the second.
        theirs: (u32, u32),
        /// Version of the client.
        ours: u32,
        /// Differences that break this client, as far as the peer has described its services: those
        /// from the older version to the newer one.
        changes: Vec<Change>,
    },
}

impl NoService {
    /// Checks that a peer serves a client.
    ///
    /// `peer` is its name for people, `offered` the value of
    /// [`KEY_SERVICES`](crate::KEY_SERVICES) in its metadata. `describe` asks it for the
    /// description of its services, and is called only if the versions do not fit.
    ///
    /// # Errors
    /// It does not.
    pub fn check(
        peer: &str,
        client: &'static Interface,
        offered: Option<&str>,
        describe: impl FnOnce() -> Option<Description>,
    ) -> Result<(), Self> {
        let offered: Vec<_> = ServiceName::list(offered.unwrap_or_default()).collect();
        let kind = match offered.iter().find(|service| service.name == client.name) {
            Some(service) if (service.oldest..=service.version).contains(&client.version) => {
                return Ok(());
            }
            Some(service) => {
                let described = describe();
                let theirs = described.as_ref().and_then(|description| {
                    description.services.iter().find(|service| service.name == client.name)
                });
                NoServiceKind::Version {
                    theirs: (service.oldest, service.version),
                    ours: client.version,
                    changes: theirs.map_or_else(Vec::new, |theirs| breaking(client, theirs)),
                }
            }
            None => {
                let offered = offered.into_iter().map(|service| service.name).collect();
                NoServiceKind::Missing { offered }
            }
        };
        Err(Self { peer: peer.into(), service: client.name.clone(), kind })
    }

    /// The reason.
    #[must_use]
    pub fn kind(&self) -> &NoServiceKind {
        &self.kind
    }
}

/// Differences that break a client, from the older version to the newer one.
fn breaking(client: &Interface, service: &Interface) -> Vec<Change> {
    let is_newer = client.version > service.version;
    let changes = if is_newer { compare(service, client) } else { compare(client, service) };
    let breaks =
        |change: &Change| if is_newer { change.breaks_services() } else { change.breaks_callers() };
    changes.into_iter().filter(|change| change.method.is_some() && breaks(change)).collect()
}

/// Number of differences that a message names.
const NAMED: usize = 6;

impl fmt::Display for NoService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { peer, service, kind } = self;
        let (peer, service) = (Escaped(peer), Escaped(service));
        match kind {
            NoServiceKind::Missing { offered } if offered.is_empty() => {
                write!(f, "{peer} has no service \"{service}\"; it has none at all")
            }
            NoServiceKind::Missing { offered } => {
                let offered = offered.join(", ");
                write!(f, "{peer} has no service \"{service}\"; it has {}", Escaped(&offered))
            }
            NoServiceKind::Version { theirs: (oldest, newest), ours, changes } => {
                let theirs = if oldest == newest {
                    format!("version {newest}")
                } else {
                    format!("versions {oldest} to {newest}")
                };
                let (older, update) = if ours > newest {
                    (format!("{peer} is older"), format!("update {peer}"))
                } else {
                    ("this side is older".into(), "update this side".into())
                };
                write!(
                    f,
                    "{peer} has {theirs} of the service \"{service}\", and this side needs version {ours}: {older}, so {update}"
                )?;
                for (index, change) in changes.iter().take(NAMED).enumerate() {
                    let (old, new) = (newest.min(ours), newest.max(ours));
                    match index {
                        0 => write!(f, "; from version {old} to {new}: {change}")?,
                        _ => write!(f, "; {change}")?,
                    }
                }
                match changes.len().saturating_sub(NAMED) {
                    0 => Ok(()),
                    more => write!(f, "; and {more} more"),
                }
            }
        }
    }
}
