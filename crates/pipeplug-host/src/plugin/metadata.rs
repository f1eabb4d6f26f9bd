//! Metadata of a plugin.

use std::collections::BTreeMap;

use pipeplug_net::internal::handshake::KEY_CONFIG;
use serde::Serializer as _;
use serde_json::{Map, Value};

/// Metadata of a plugin, its answer to `GetMetadata`: keys and values, such as `Cmd`, `Help` and
/// `Description`.
///
/// Keys that begin with `pipeplug.` are the protocol's own. A value that is no string is kept as
/// its JSON text.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Metadata(BTreeMap<String, String>);

impl Metadata {
    /// Reads a JSON object.
    ///
    /// # Errors
    /// The bytes are not a JSON object.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, serde_json::Error> {
        let object: Map<String, Value> = serde_json::from_slice(bytes)?;
        let text = |value| match value {
            Value::String(text) => text,
            other => other.to_string(),
        };
        // A plugin that sends back what it gets would have the host's configuration among its
        // metadata, which is shown and stored.
        let entries = object.into_iter().filter(|(key, _)| key != KEY_CONFIG);
        Ok(Self(entries.map(|(key, value)| (key, text(value))).collect()))
    }

    /// Restores the metadata that [`to_map`](Self::to_map) gave.
    pub(crate) fn from_map(entries: BTreeMap<String, String>) -> Self {
        Self(entries)
    }

    /// All entries, to be kept.
    pub(crate) fn to_map(&self) -> BTreeMap<String, String> {
        self.0.clone()
    }

    /// The value of a key.
    #[must_use]
    pub fn value(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str)
    }

    /// Keys and values in the order of the keys.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(key, value)| (key.as_str(), value.as_str()))
    }

    /// Tells whether there is no metadata.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// The host's side of the exchange: a JSON object of strings, with the configuration at its end.
///
/// Errors show the first bytes of what a program sends back that is no plugin, which may be these.
/// The features before the configuration are longer.
pub(crate) fn offer<'a>(
    entries: impl IntoIterator<Item = (&'a str, &'a str)>,
    config: Option<(&'a str, &'a str)>,
) -> Vec<u8> {
    let mut entries: BTreeMap<_, _> = entries.into_iter().collect();
    config.map(|(key, _)| entries.remove(key));
    let mut buffer = Vec::new();
    serde_json::Serializer::new(&mut buffer)
        .collect_map(entries.into_iter().chain(config))
        .expect("strings have a JSON form, and a buffer takes it");
    buffer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_that_are_no_strings_are_kept_as_json() {
        let metadata =
            Metadata::parse(br#"{"Help":"text","n":1,"list":["a"],"none":null}"#).unwrap();
        let found: Vec<_> = metadata.iter().collect();
        assert_eq!(found, [("Help", "text"), ("list", "[\"a\"]"), ("n", "1"), ("none", "null")]);
    }

    #[test]
    fn the_configuration_is_last_and_never_part_of_a_plugins_metadata() {
        let bytes = offer([("z", "1"), (KEY_CONFIG, "own"), ("a", "2")], Some((KEY_CONFIG, "[1]")));
        let text = String::from_utf8(bytes).unwrap();
        assert_eq!(text, r#"{"a":"2","z":"1","pipeplug.config":"[1]"}"#);
        let found = Metadata::parse(text.as_bytes()).unwrap();
        assert_eq!(found.iter().collect::<Vec<_>>(), [("a", "2"), ("z", "1")]);
    }

    #[test]
    fn anything_but_an_object_is_an_error() {
        for bytes in ["", "[]", "\"x\"", "1", "{", "{} {}"] {
            assert!(Metadata::parse(bytes.as_bytes()).is_err(), "{bytes}");
        }
    }
}
