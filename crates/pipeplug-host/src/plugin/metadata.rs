//! Metadata of a plugin.

use std::collections::BTreeMap;

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
        Ok(Self(object.into_iter().map(|(key, value)| (key, text(value))).collect()))
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

/// The host's side of the exchange: a JSON object of strings.
pub(crate) fn offer<'a>(entries: impl IntoIterator<Item = (&'a str, &'a str)>) -> Vec<u8> {
    let object: Map<_, _> =
        entries.into_iter().map(|(key, value)| (key.to_owned(), Value::from(value))).collect();
    Value::Object(object).to_string().into_bytes()
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
    fn anything_but_an_object_is_an_error() {
        for bytes in ["", "[]", "\"x\"", "1", "{", "{} {}"] {
            assert!(Metadata::parse(bytes.as_bytes()).is_err(), "{bytes}");
        }
    }
}
