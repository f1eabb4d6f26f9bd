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
pub use pipeplug_net::{Caller, Progress, ProgressReports, Reply, Request};
pub use pipeplug_service_macros::{data, service};
pub use router::{Answer, Router};
pub use schemars;
pub use serde;
pub use service::{Client, NoService, NoServiceKind, Routes, Service, ServiceSet};
pub use stream::{PendingResult, StreamIn, StreamItems, StreamOut, StreamSender};
pub use transport::CallFailed;

/// Code of a failure whose data is the method's own error.
pub const METHOD_ERROR: &str = "method_error";
/// Code of a failure of a request whose bytes do not fit. It was not handled.
pub const INVALID_ARGUMENT: &str = "invalid_argument";
/// Command of the request for the description of all services.
pub const GET_SERVICES: &str = "GetServices";
/// Key of the list of services in the metadata of a host or plugin.
pub const KEY_SERVICES: &str = "pipeplug.services";
