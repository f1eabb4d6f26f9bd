//! Encodings of values.

use std::fmt;

use pipeplug_net::Escaped;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Number of characters that an error shows around a mistake.
const SHOWN: usize = 24;

/// An encoding of values as bytes.
pub trait Codec: Send + Sync + 'static {
    /// Name of the encoding, in commands and descriptions: lowercase letters.
    const NAME: &'static str;

    /// Encodes a value.
    ///
    /// # Errors
    /// The value cannot be encoded.
    fn encode<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, EncodeError>;

    /// Decodes a value.
    ///
    /// # Errors
    /// The bytes do not fit the type.
    fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, DecodeError>;
}

/// A value with its encoding, as the argument or result of a call or handler.
pub trait Body {
    /// Type of the value.
    type Value;
    /// The encoding.
    type Codec: Codec;

    /// Wraps a value.
    fn new(value: Self::Value) -> Self;

    /// The value.
    fn value(&self) -> &Self::Value;
}

macro_rules! body {
    ($(#[$doc:meta])* $Body:ident, $name:literal, $encode:expr, $decode:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $Body<T = ()>(pub T);

        impl<T> Body for $Body<T> {
            type Value = T;
            type Codec = $Body;

            fn new(value: T) -> Self {
                Self(value)
            }

            fn value(&self) -> &T {
                &self.0
            }
        }

        impl Codec for $Body {
            const NAME: &'static str = $name;

            fn encode<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, EncodeError> {
                let encode = $encode;
                encode(value)
            }

            fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, DecodeError> {
                let decode = $decode;
                decode(bytes)
            }
        }
    };
}

body! {
    /// A value as JSON. Decoding ignores fields that the type does not have.
    ///
    /// `Json` alone names the encoding.
    Json, "json",
    |value| {
        // No bytes for `()`, which a shell finds easier to send than `null`.
        match serde_json::to_vec(value) {
            Ok(bytes) if bytes == b"null" && size_of_val(value) == 0 => Ok(Vec::new()),
            Ok(bytes) => Ok(bytes),
            Err(error) => Err(EncodeError(error.to_string())),
        }
    },
    decode_json
}

#[cfg(feature = "postcard")]
body! {
    /// A value as postcard: the shortest and fastest encoding, without names, so that both sides
    /// need the same type.
    ///
    /// `Postcard` alone names the encoding.
    Postcard, "postcard",
    |value| postcard::to_allocvec(value).map_err(|error| EncodeError(error.to_string())),
    |bytes| postcard::from_bytes(bytes).map_err(|error| DecodeError::plain(&error, bytes.len()))
}

#[cfg(feature = "msgpack")]
body! {
    /// A value as MessagePack, with the names of fields. Decoding ignores fields that the type does
    /// not have.
    ///
    /// `MsgPack` alone names the encoding.
    MsgPack, "msgpack",
    |value| rmp_serde::to_vec_named(value).map_err(|error| EncodeError(error.to_string())),
    |bytes| rmp_serde::from_slice(bytes).map_err(|error| DecodeError::plain(&error, bytes.len()))
}

fn decode_json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, DecodeError> {
    let bytes = if bytes.is_empty() { b"null" } else { bytes };
    // The path of a mistake costs time, so it is looked for where there is one.
    serde_json::from_slice(bytes).map_err(|_| {
        let json = &mut serde_json::Deserializer::from_slice(bytes);
        match serde_path_to_error::deserialize::<_, T>(&mut *json).map(|_| json.end()) {
            Ok(Ok(())) => DecodeError {
                field: None,
                message: "the value is not the same when it is read twice".into(),
                near: None,
            },
            Ok(Err(error)) => DecodeError::json(None, &error, bytes),
            Err(error) => {
                let path = error.path().to_string();
                let field = Some(path).filter(|path| path != "." && path != "?");
                DecodeError::json(field, error.inner(), bytes)
            }
        }
    })
}

/// Reason that a value cannot be encoded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", Escaped(.0))]
pub struct EncodeError(String);

/// Reason that bytes do not fit a type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DecodeError {
    field: Option<String>,
    message: String,
    near: Option<String>,
}

impl DecodeError {
    fn json(field: Option<String>, error: &serde_json::Error, bytes: &[u8]) -> Self {
        let near = near(bytes, error.line(), error.column());
        let message = error.to_string();
        let message = if bytes == b"null" {
            // The position in no bytes says nothing.
            message.split(" at line ").next().unwrap_or_default().to_owned()
        } else {
            message
        };
        Self { field, message, near }
    }

    #[cfg(any(feature = "postcard", feature = "msgpack"))]
    fn plain(error: &dyn fmt::Display, len: usize) -> Self {
        Self { field: None, message: format!("{error}, in {len} bytes"), near: None }
    }

    /// Path of the field that does not fit, such as `words[2].text`. `None` if it is the value
    /// itself, or the encoding has no names.
    #[must_use]
    pub fn field(&self) -> Option<&str> {
        self.field.as_deref()
    }
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(field) = &self.field {
            write!(f, "{}: ", Escaped(field))?;
        }
        write!(f, "{}", Escaped(&self.message))?;
        self.near.as_ref().map_or(Ok(()), |near| write!(f, ", near {}", Escaped(near)))
    }
}

impl std::error::Error for DecodeError {}

/// Text around a position, of which `line` and `column` count from 1.
fn near(bytes: &[u8], line: usize, column: usize) -> Option<String> {
    let text = bytes.split(|&byte| byte == b'\n').nth(line.checked_sub(1)?)?;
    let text = String::from_utf8_lossy(text);
    let text = text.trim_end();
    let at = (0..=column.min(text.len())).rev().find(|at| text.is_char_boundary(*at))?;
    let (left, right) = text.split_at(at);
    let start = left.char_indices().rev().nth(SHOWN).map_or(0, |(index, _)| index);
    let end = right.char_indices().nth(SHOWN).map_or(text.len(), |(index, _)| at + index);
    let before = if start > 0 { "…" } else { "" };
    let after = if end < text.len() { "…" } else { "" };
    let shown = text.get(start..end).filter(|shown| !shown.is_empty())?;
    Some(format!("{before}{shown}{after}"))
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Query {
        word: String,
        most: u32,
        #[serde(default)]
        tags: Vec<u8>,
    }

    fn query() -> Query {
        Query { word: "teh".into(), most: 3, tags: vec![1] }
    }

    fn error<C: Codec>(bytes: &[u8]) -> String {
        C::decode::<Query>(bytes).expect_err("does not fit").to_string()
    }

    #[test]
    fn json_says_what_does_not_fit_and_where() {
        assert_eq!(Json::decode::<Query>(&Json::encode(&query()).unwrap()), Ok(query()));
        for (text, expected) in [
            (
                r#"{"word":"teh","most":"many"}"#,
                r#"most: invalid type: string "many", expected u32 at line 1 column 27, near …word":"teh","most":"many"}"#,
            ),
            (
                r#"{"word":"teh"}"#,
                r#"missing field `most` at line 1 column 14, near {"word":"teh"}"#,
            ),
            (
                r#"{"word":"teh","most":1,"tags":[1,2,300]}"#,
                r#"tags[2]: invalid value: integer `300`, expected u8 at line 1 column 38, near …,"most":1,"tags":[1,2,300]}"#,
            ),
            ("", "invalid type: null, expected struct Query, near null"),
            (
                "{\"word\":\n\"teh\" \"most\"}",
                "expected `,` or `}` at line 2 column 7, near \"teh\" \"most\"}",
            ),
            (
                r#"{"word":"teh","most":1} x"#,
                r#"trailing characters at line 1 column 25, near {"word":"teh","most":1} x"#,
            ),
        ] {
            assert_eq!(error::<Json>(text.as_bytes()), expected, "{text}");
        }
    }

    #[test]
    fn unknown_fields_are_ignored_and_defaults_are_taken() {
        let text = r#"{"most":3,"later":{"a":[1]},"word":"teh"}"#;
        let expected = Query { tags: Vec::new(), ..query() };
        assert_eq!(Json::decode::<Query>(text.as_bytes()), Ok(expected));
    }

    #[test]
    fn nothing_is_no_bytes() {
        assert_eq!(Json::encode(&()), Ok(Vec::new()));
        assert_eq!(Json::encode(&None::<u8>), Ok(b"null".to_vec()));
        assert_eq!(Json::decode::<()>(b""), Ok(()));
        assert_eq!(Json::decode::<()>(b"null"), Ok(()));
        assert_eq!(Json::decode::<Option<u8>>(b""), Ok(None));
    }

    #[test]
    fn text_near_a_mistake_is_cut_at_characters() {
        let text = "é".repeat(100);
        for column in 0..250 {
            assert!(near(text.as_bytes(), 1, column).is_some());
        }
        assert_eq!(near(b"\xff\xff", 1, 1).as_deref(), Some("\u{fffd}\u{fffd}"));
        assert_eq!(near(b"a", 0, 0), None);
        assert_eq!(near(b"a", 9, 1), None);
    }

    #[cfg(feature = "postcard")]
    #[test]
    fn postcard_carries_values() {
        let bytes = Postcard::encode(&query()).unwrap();
        assert_eq!(Postcard::decode::<Query>(&bytes), Ok(query()));
        assert!(error::<Postcard>(&bytes[..3]).contains("in 3 bytes"));
    }

    #[cfg(feature = "msgpack")]
    #[test]
    fn message_pack_carries_values_with_names() {
        let bytes = MsgPack::encode(&query()).unwrap();
        assert_eq!(MsgPack::decode::<Query>(&bytes), Ok(query()));
        assert!(bytes.windows(4).any(|window| window == b"most"));
        assert!(error::<MsgPack>(b"").contains("in 0 bytes"));
    }
}
