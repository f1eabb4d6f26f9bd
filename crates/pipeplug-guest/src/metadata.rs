//! The exchange of metadata, from the guest's side.

use std::collections::BTreeMap;

use pipeplug_net::Connection;
use pipeplug_net::internal::handshake::{self, InterfaceVersions};
use serde_json::{Map, Value};

use crate::logging;
use crate::services::Services;

const KEY_NAME: &str = "pipeplug.name";

/// Metadata of the plugin, from its builder.
#[derive(Debug)]
pub(crate) struct Own {
    pub(crate) name: String,
    pub(crate) metadata: BTreeMap<String, String>,
    pub(crate) interface_versions: InterfaceVersions,
    pub(crate) services: Services,
}

impl Own {
    /// The reply to `GetMetadata`: what the builder said, or the request call-back's own object
    /// (`asked`), with what this crate adds. Bytes that are not a JSON object go out as they are: the
    /// host says what is wrong with them.
    pub(crate) fn reply(&self, connection: &Connection, asked: Option<Vec<u8>>) -> Vec<u8> {
        let mut object =
            match asked.map(|bytes| (serde_json::from_slice::<Map<_, _>>(&bytes), bytes)) {
                None => Map::new(),
                Some((Ok(object), _)) => object,
                Some((Err(_), bytes)) => return bytes,
            };
        object.extend(
            self.metadata.iter().map(|(key, value)| (key.clone(), Value::from(value.as_str()))),
        );
        let mut offer = handshake::offer(connection);
        handshake::name_feature(&mut offer, handshake::FEATURE_CONFIG);
        if logging::is_installed() {
            handshake::name_feature(&mut offer, handshake::FEATURE_LOG);
        }
        let versions = self.interface_versions.to_offer();
        let versions = versions.map(|list| (handshake::KEY_INTERFACE_VERSIONS, list));
        let offer = offer.into_iter().chain(versions).chain(self.services.metadata());
        object.extend(offer.map(|(key, value)| (key.to_owned(), Value::from(value))));
        object.entry(KEY_NAME).or_insert_with(|| Value::from(self.name.as_str()));
        Value::Object(object).to_string().into_bytes()
    }
}

/// Parses the host's metadata. Anything but a JSON object gives none, as with hosts that only speak
/// the base protocol.
pub(crate) fn parse_host(buffer: &[u8]) -> BTreeMap<String, String> {
    let object: Map<String, Value> = serde_json::from_slice(buffer).unwrap_or_default();
    object
        .into_iter()
        .map(|(key, value)| match value {
            Value::String(text) => (key, text),
            other => (key, other.to_string()),
        })
        .collect()
}
