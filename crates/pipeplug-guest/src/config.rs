//! Configuration that the host has for the plugin.

use std::fmt;

use serde::de::DeserializeOwned;

/// Error of [`Main::config`](crate::Main::config): the configuration does not fit the plugin's type.
///
/// The message names the field and the types, and leaves out values: they may be secrets, and what
/// a plugin prints is logged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    field: Option<String>,
    problem: String,
}

impl ConfigError {
    /// Path of the field, as in `servers[1].port`; `None` for the configuration as a whole.
    #[must_use]
    pub fn field(&self) -> Option<&str> {
        self.field.as_deref()
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the configuration that the host has sent does not fit")?;
        if let Some(field) = &self.field {
            write!(f, ": field `{field}`")?;
        }
        write!(f, ": {}", self.problem)
    }
}

impl std::error::Error for ConfigError {}

/// Reads the JSON text of a host.
pub(crate) fn parse<T: DeserializeOwned>(json: &str) -> Result<T, ConfigError> {
    let mut deserializer = serde_json::Deserializer::from_str(json);
    let value = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
        let path = error.path().to_string();
        let field = (path != ".").then_some(path);
        ConfigError { field, problem: without_values(&error.into_inner().to_string()) }
    })?;
    let whole = |error: serde_json::Error| ConfigError { field: None, problem: error.to_string() };
    deserializer.end().map_err(whole)?;
    Ok(value)
}

/// Leaves the value out of a message of serde, which quotes it: `invalid type: string "secret",
/// expected u16`.
fn without_values(message: &str) -> String {
    const QUOTING: [&str; 3] = ["invalid type: ", "invalid value: ", "unknown variant "];
    let expected = message.rfind(", expected ").or_else(|| message.rfind(", there are no"));
    let (true, Some(end)) = (QUOTING.iter().any(|it| message.starts_with(it)), expected) else {
        return message.to_owned();
    };
    match message[..end].find(['"', '`']) {
        Some(begin) => format!("{}{}", message[..begin].trim_end(), &message[end..]),
        None => message.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn an_error_names_the_field_and_no_value() {
        let error = parse::<BTreeMap<String, Vec<u16>>>(r#"{"ports":[1,"hunter2, expected x"]}"#)
            .unwrap_err();
        assert_eq!(error.field(), Some("ports[1]"));
        let message = error.to_string();
        assert!(
            message.contains("field `ports[1]`: invalid type: string, expected u16"),
            "{message}"
        );
        for (json, shown) in [
            ("[70000]", "invalid value: integer, expected u16"),
            ("[true]", "invalid type: boolean, expected u16"),
            ("[-1]", "invalid value: integer, expected u16"),
            ("[1.5]", "invalid type: floating point, expected u16"),
        ] {
            let message = parse::<Vec<u16>>(json).unwrap_err().to_string();
            assert!(message.contains(shown), "{message}");
        }
    }

    #[test]
    fn what_is_no_json_is_an_error_too() {
        for json in ["", "{", "1 2"] {
            let error = parse::<u32>(json).unwrap_err();
            assert_eq!(error.field(), None, "{error}");
        }
        assert_eq!(parse::<u32>(" 7 "), Ok(7));
    }
}
