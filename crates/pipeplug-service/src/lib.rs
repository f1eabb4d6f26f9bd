//! Typed services over pipeplug: one trait that host and plugin share, and plain JSON for everyone
//! else.
//!
//! The plain layer needs no macro: a [`Router`] decodes what handlers are called with, a
//! [`Channel`] makes calls with values of any type that serde knows. Bodies are [`Json`], and with
//! the features `postcard` and `msgpack` also `Postcard` and `MsgPack`.
//!
//! ```
//! use pipeplug_service::{Channel, Json, Request, Router};
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Serialize, Deserialize)]
//! struct Query {
//!     word: String,
//!     most: usize,
//! }
//!
//! let router = Router::new().on("suggest", |_request: &mut Request, Json(query): Json<Query>| {
//!     let known = ["the", "tech", "ten"];
//!     Json(known.into_iter().take(query.most).map(String::from).collect::<Vec<_>>())
//! });
//! # let pair = pipeplug_testkit::Pair::new(pipeplug_net::Refuse, router)?;
//! # let plugin = pair.host.clone();
//! let channel = Channel::new(plugin);
//! let words: Vec<String> = channel.call("suggest", Json(Query { word: "teh".into(), most: 2 }))?;
//! assert_eq!(words, ["the", "tech"]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! The attribute [`service`] writes the same from a trait, with clients and a description of the
//! service for people and other languages:
//!
//! ```
//! use pipeplug_service::service;
//!
//! /// Spelling.
//! #[service(version = 2)]
//! pub trait Spell {
//!     /// Suggestions for a word, best first.
//!     fn suggest(&self, word: String, most: u32) -> Vec<String>;
//!     /// Takes a word into the dictionary.
//!     #[one_way]
//!     fn learn(&self, word: String);
//! }
//!
//! struct Words;
//!
//! impl Spell for Words {
//!     fn suggest(&self, word: String, most: u32) -> Vec<String> {
//!         vec![word; most as usize]
//!     }
//!     fn learn(&self, word: String) {
//!         eprintln!("learned {word}");
//!     }
//! }
//! # let services = pipeplug_service::ServiceSet::new().with(SpellServer::new(Words));
//! # let pair = pipeplug_testkit::Pair::new(pipeplug_net::Refuse, services)?;
//! # let plugin = pair.host.clone();
//!
//! let spell = SpellClient::new(plugin);
//! assert_eq!(spell.suggest("teh".into(), 1)?, ["teh"]);
//! spell.learn("teh".into())?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! A plugin serves it with `pipeplug_guest::serve(SpellServer::new(Words))`, a host has the client
//! from `plugin.client()`; both need the feature `service` of their crate.

// Paths of the macro's expansion.
#[cfg(test)]
extern crate self as pipeplug_service;

mod channel;
mod check;
mod codec;
mod compare;
mod error;
mod interface;
mod notation;
mod router;
mod schema;
mod service;
mod stream;
mod transport;

pub use channel::{CallOptions, Channel, MethodCaller};
pub use check::Mistake;
#[cfg(feature = "msgpack")]
pub use codec::MsgPack;
#[cfg(feature = "postcard")]
pub use codec::Postcard;
pub use codec::{Body, Codec, DecodeError, EncodeError, Json};
pub use compare::{Change, Effect, compare};
pub use error::{Never, ServiceError};
pub use interface::{Description, Interface, InterfaceBuilder, Method, MethodBuilder, ServiceName};
pub use notation::Argument;
pub use pipeplug_net::{
    Caller, CancelHandle, HandlerError, Progress, ProgressReports, Reply, Request, StreamError,
};
/// Derives what the types of a service need: `Serialize` and `Deserialize` of serde, and
/// `JsonSchema` of schemars. The crate that uses it needs neither of them as a dependency.
///
/// ```
/// #[pipeplug_service::data]
/// #[derive(Debug)]
/// pub struct Line {
///     number: u32,
///     #[serde(default)]
///     text: String,
/// }
/// ```
pub use pipeplug_service_macros::data;
/// Makes a trait a service: the trait itself, a server, a blocking and an async client, and the
/// types of the arguments of its methods.
///
/// | argument | |
/// | --- | --- |
/// | `version = 2` | version of the interface, required |
/// | `oldest = 1` | the oldest version whose callers it serves. Default: `version` |
/// | `name = "spelling"` | name of the service. Default: that of the trait, in snake case |
/// | `codec = "postcard"` | encoding of calls between programs of the same interface: `json`, `postcard` or `msgpack`. Default: `json` |
///
/// | on a method | |
/// | --- | --- |
/// | `#[one_way]` | it is called by a one-way, and has no answer |
/// | `#[idempotent]` | it does no harm when it is called twice: supervisors and pools may call it again |
///
/// Methods take `&self`, and then the call itself (`&Request` or `&mut Request`, which callers do
/// not give) and arguments of owned types. An argument may have attributes of serde and schemars,
/// such as `#[serde(default)]`. One parameter may be a [`StreamIn`]. The result is a value, a
/// [`StreamOut`], or a `Result` of one of them with an error type that is data and has a `Display`.
///
/// ```
/// use pipeplug_service::{Request, StreamIn, StreamOut, service};
///
/// /// Text.
/// #[service(version = 2, oldest = 1)]
/// pub trait Text {
///     /// Number of words, of at most `most`.
///     #[idempotent]
///     fn count(&self, request: &Request, text: String, #[serde(default)] most: Option<u32>) -> u32;
///     /// Each line in capitals.
///     fn upper(&self, lines: StreamIn<String>) -> StreamOut<String>;
///     /// Forgets a text.
///     #[one_way]
///     fn forget(&self, name: String);
/// }
///
/// fn use_it(text: &TextClient) -> Result<(), pipeplug_service::ServiceError> {
///     text.count("one two".into(), None)?;
///     let (mut lines, mut upper) = text.upper()?;
///     text.forget("notes".into())
/// }
/// ```
pub use pipeplug_service_macros::service;
pub use router::{Answer, Router};
pub use schemars;
pub use serde;
pub use service::{Client, NoService, NoServiceKind, Routes, Service, ServiceSet};
pub use stream::{PendingResult, SendError, StreamIn, StreamItems, StreamOut, StreamSender};
pub use transport::CallFailed;

/// Code of a failure whose data is the method's own error.
pub const METHOD_ERROR: &str = "method_error";
/// Code of a failure of a request whose bytes do not fit. It was not handled.
pub const INVALID_ARGUMENT: &str = "invalid_argument";
/// Code of a failure of a method whose result cannot be encoded. It was handled.
pub const INVALID_RESULT: &str = "invalid_result";
/// Command of the request for the description of all services.
pub const GET_SERVICES: &str = "GetServices";
/// Key of the list of services in the metadata of a host or plugin.
pub const KEY_SERVICES: &str = "pipeplug.services";
