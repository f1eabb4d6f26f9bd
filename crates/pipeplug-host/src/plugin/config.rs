//! Configuration of a plugin, which it has before its start call-back runs.

use std::fmt;

use serde::Serialize;

/// The largest configuration, in bytes of JSON.
const CONFIG_MAX: usize = 1 << 20;

/// Error of [`PluginBuilder::config`](crate::PluginBuilder::config).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The value has no JSON form, such as a map whose keys are no strings.
    #[error("the configuration cannot be written as JSON: {error}")]
    Serialize {
        /// The problem.
        error: serde_json::Error,
    },
    /// The configuration is too large.
    #[error(
        "the configuration has {len} bytes of JSON, the limit is {limit}: send what is large in a call, or as a file"
    )]
    TooLarge {
        /// Bytes of JSON.
        len: usize,
        /// Maximum number of bytes.
        limit: usize,
    },
}

/// JSON text that may hold secrets: its debug form shows its length only.
#[derive(Clone)]
pub(crate) struct Config(String);

impl Config {
    pub(crate) fn new<T: Serialize + ?Sized>(value: &T) -> Result<Self, ConfigError> {
        let json =
            serde_json::to_string(value).map_err(|error| ConfigError::Serialize { error })?;
        if json.len() > CONFIG_MAX {
            return Err(ConfigError::TooLarge { len: json.len(), limit: CONFIG_MAX });
        }
        Ok(Self(json))
    }

    pub(crate) fn json(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn what_is_no_json_and_what_is_too_large_is_refused() {
        let no_json = BTreeMap::from([((1, 2), 3)]);
        assert!(matches!(Config::new(&no_json), Err(ConfigError::Serialize { .. })));
        // Two bytes are the quotation marks.
        assert!(Config::new(&"x".repeat(CONFIG_MAX - 2)).is_ok());
        let message = Config::new(&"x".repeat(CONFIG_MAX - 1)).unwrap_err().to_string();
        assert!(message.contains("1048577") && message.contains("1048576"), "{message}");
    }

    #[test]
    fn secrets_are_not_shown() {
        let config = Config::new(&"hunter2").unwrap();
        assert_eq!((config.json(), format!("{config:?}").as_str()), ("\"hunter2\"", "9 bytes"));
    }
}
