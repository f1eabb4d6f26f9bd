//! Failures: errors with a code, sent as `cmd.failure`.

use std::borrow::Cow;
use std::error::Error;
use std::fmt;

use serde_json::{Map, Value, json};

use crate::escape::beginning;
use crate::sys;

/// Name of the feature in `pipeplug.features`.
pub(crate) const FEATURE: &str = "failure";

/// Size of a failure past which it is not parsed, and of a message past which it is cut, in bytes.
pub(crate) const FAILURE_MAX: usize = 64 << 10;
/// Size to which a message is cut that does not fit into a failure. Each byte of it takes six in
/// JSON at most.
const CUT_MESSAGE: usize = 8 << 10;

const KEY_CODE: &str = "code";
const KEY_MESSAGE: &str = "message";
const KEY_DATA: &str = "data";

/// Codes of failures that pipeplug itself reports (docs/protocol.md, "Failures").
///
/// A handler may use them too, with the same meaning.
pub mod failure_code {
    /// The command does not exist. The request was not handled.
    pub const UNKNOWN_COMMAND: &str = "unknown_command";
    /// The caller may not make this request. It was not handled.
    pub const REFUSED: &str = "refused";
    /// The request was not taken, since too much waits or runs already. It was not handled, and may
    /// be made again later.
    pub const OVERLOADED: &str = "overloaded";
    /// The caller had given the request up before its handler began.
    pub const CANCELLED: &str = "cancelled";
    /// The time of the request was over.
    pub const DEADLINE: &str = "deadline";
    /// The handler panicked. A part of its work may be done.
    pub const PANICKED: &str = "panicked";
    /// The handler has dropped the request without an answer.
    pub const UNANSWERED: &str = "unanswered";
    /// The request, its reply or its context is larger than a limit.
    pub const TOO_LARGE: &str = "too_large";
    /// The connection ended, or had ended. Not sent by a peer.
    pub const CLOSED: &str = "closed";
    /// No plugin runs that could be called. Not sent by a peer.
    pub const UNAVAILABLE: &str = "unavailable";
    /// The other side does not know a feature that the call needs. Not sent by a peer.
    pub const UNSUPPORTED: &str = "unsupported";
    /// The command cannot be sent, or the reply is not of the kind that was asked for. Not sent by
    /// a peer.
    pub const INVALID: &str = "invalid";
}

/// Error of a request, with a code for programs, a message for people, and optional data.
///
/// A handler returns it as its error, or as a source of its error:
///
/// ```
/// use pipeplug_net::{Failure, HandlerError, Reply, Request};
/// use serde_json::json;
///
/// fn open(request: &mut Request) -> Result<Reply, HandlerError> {
///     let name = request.text()?;
///     Err(Failure::new("not_found", format!("there is no page {name:?}"))
///         .data(json!({ "name": name }))
///         .into())
/// }
/// ```
///
/// The caller gets code, message and data as [`CallError::Remote`](crate::CallError::Remote). If the
/// two sides have not negotiated `failure`, the caller gets the message only.
///
/// The message that is sent is that of the whole error with its sources. Code and data are those of
/// the outermost failure among the error and its sources. A wrapper that hides the type of what it
/// wraps, as an `anyhow::Error` does with and without a context, and an error that is
/// `#[error(transparent)]`, has the same sources: a failure with a code is its own [`source`] in
/// another form, whose message is the code.
///
/// [`source`]: std::error::Error::source
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Failure {
    /// Code of the failure, by convention lowercase words joined by `_`. Empty for none.
    pub code: Cow<'static, str>,
    /// Message for people.
    pub message: String,
    /// Data for programs. Sent if the failure has at most 64 KiB with it.
    pub data: Option<Value>,
}

/// A failure as the source of itself.
#[derive(Debug)]
#[repr(transparent)]
pub(crate) struct Coded(Failure);

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Error for Failure {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        (!self.is_plain()).then(|| sys::coded(self) as &dyn Error)
    }
}

impl fmt::Display for Coded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.code)
    }
}

impl Error for Coded {}

impl Failure {
    /// Makes a failure without data.
    pub fn new(code: impl Into<Cow<'static, str>>, message: impl Into<String>) -> Self {
        Self { code: code.into(), message: message.into(), data: None }
    }

    /// Adds data.
    #[must_use]
    pub fn data(mut self, data: Value) -> Self {
        self.data = Some(data);
        self
    }

    /// The error's code and data, of the failure that it is or has as a source. The message is that
    /// of the error and its sources.
    pub(crate) fn of(error: &(dyn Error + 'static)) -> Self {
        let message = chain(error);
        let mut found = Some(error);
        while let Some(error) = found {
            let coded = error.downcast_ref().map(|Coded(failure)| failure);
            if let Some(Self { code, data, .. }) = error.downcast_ref().or(coded) {
                return Self { code: code.clone(), message, data: data.clone() };
            }
            found = error.source();
        }
        Self::plain(message)
    }

    /// A failure that has a message only.
    pub(crate) fn plain(message: String) -> Self {
        Self::new("", message)
    }

    /// Returns true if it has only a message.
    pub(crate) fn is_plain(&self) -> bool {
        self.code.is_empty() && self.data.is_none()
    }

    /// Encodes it in at most [`FAILURE_MAX`] bytes: without its data or with a part of its message
    /// if it is larger.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let encoded = |code: &str, message: &str, data: Option<&Value>| {
            let mut object = json!({ KEY_CODE: code, KEY_MESSAGE: message });
            if let Some(data) = data {
                object[KEY_DATA] = data.clone();
            }
            object.to_string().into_bytes()
        };
        let Self { code, message, data } = self;
        let whole = encoded(code, message, data.as_ref());
        if whole.len() <= FAILURE_MAX {
            return whole;
        }
        let without_data = encoded(code, message, None);
        if without_data.len() <= FAILURE_MAX {
            return without_data;
        }
        let start = |text: &str, len: usize| {
            let start = beginning(text, len);
            let mark = if start.len() < text.len() { "…" } else { "" };
            format!("{start}{mark}")
        };
        encoded(&start(code, 64), &start(message, CUT_MESSAGE), None)
    }

    /// Parses a `cmd.failure`. What is no failure, or too long for one, is a message.
    pub(crate) fn parse(buffer: &[u8]) -> Self {
        let fits = buffer.len() <= FAILURE_MAX;
        let object: Option<Map<String, Value>> =
            if fits { serde_json::from_slice(buffer).ok() } else { None };
        let Some(mut object) = object else { return Self::plain(message(buffer)) };
        let (Some(Value::String(code)), Some(Value::String(message))) =
            (object.remove(KEY_CODE), object.remove(KEY_MESSAGE))
        else {
            return Self::plain(self::message(buffer));
        };
        let data = object.remove(KEY_DATA).filter(|data| !data.is_null());
        Self { code: code.into(), message, data }
    }
}

/// The peer's error message, as much of it as a person might read.
pub(crate) fn message(bytes: &[u8]) -> String {
    match bytes.get(..FAILURE_MAX) {
        Some(start) if bytes.len() > FAILURE_MAX => {
            format!("{}… ({} bytes in all)", String::from_utf8_lossy(start), bytes.len())
        }
        _ => String::from_utf8_lossy(bytes).into_owned(),
    }
}

/// Message of an error and of its sources, in one line.
fn chain(error: &(dyn Error + 'static)) -> String {
    let mut message = error.to_string();
    let mut source = error.source();
    while let Some(error) = source.filter(|source| !source.is::<Coded>()) {
        let text = error.to_string();
        // Some errors repeat their source in their own message.
        if !message.ends_with(&text) {
            message.push_str(": ");
            message.push_str(&text);
        }
        source = error.source();
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An error around another.
    #[derive(Debug, thiserror::Error)]
    #[error("{0}")]
    struct Around(&'static str, #[source] Failure);

    #[test]
    fn what_was_encoded_is_parsed() {
        for failure in [
            Failure::new("not_found", "no page \"x\"\n").data(json!({"name": "x", "n": [1, null]})),
            Failure::new("not_found", ""),
            Failure::new("", "plain").data(json!(false)),
        ] {
            assert_eq!(Failure::parse(&failure.encode()), failure);
        }
    }

    #[test]
    fn what_is_no_failure_is_a_message() {
        let deep = format!("{{\"data\":{}", "[".repeat(10_000));
        let long = format!("{{\"code\":\"c\",\"message\":\"m\"{}}}", " ".repeat(FAILURE_MAX));
        for text in [
            "",
            "it failed",
            "[]",
            "{}",
            "{\"code\":\"c\"}",
            "{\"message\":\"m\"}",
            "{\"code\":1,\"message\":\"m\"}",
            "{\"code\":\"c\",\"message\":null}",
            "{\"code\":\"c\",\"message\":\"m\"",
            deep.as_str(),
        ] {
            assert_eq!(Failure::parse(text.as_bytes()), Failure::plain(text.into()), "{text}");
        }
        let cut = Failure::parse(long.as_bytes());
        assert!(cut.is_plain() && cut.message.len() < FAILURE_MAX + 64, "{}", cut.message.len());
        assert!(cut.message.ends_with(&format!("… ({} bytes in all)", long.len())));
        assert_eq!(Failure::parse(b"\xff").message, "\u{fffd}");
    }

    #[test]
    fn unknown_keys_and_no_data_are_ignored() {
        let text = br#"{"code":"c","message":"m","data":null,"more":1}"#;
        assert_eq!(Failure::parse(text), Failure::new("c", "m"));
    }

    #[test]
    fn a_failure_is_never_larger_than_is_taken() {
        let large = "\u{1}é".repeat(FAILURE_MAX);
        let failure = Failure::new("c", "m").data(json!(large));
        assert_eq!(Failure::parse(&failure.encode()), Failure::new("c", "m"));
        for failure in [Failure::new("c", large.clone()), Failure::new(large.clone(), large)] {
            let encoded = failure.encode();
            assert!(encoded.len() <= FAILURE_MAX, "{}", encoded.len());
            let parsed = Failure::parse(&encoded);
            assert!(parsed.code.starts_with(&failure.code[..1]), "{parsed:?}");
            assert!(parsed.message.starts_with("\u{1}é") && parsed.message.ends_with('…'));
        }
    }

    /// An error that shows itself as what it wraps.
    #[derive(Debug, thiserror::Error)]
    enum Transparent {
        #[error(transparent)]
        Failure(#[from] Failure),
    }

    #[test]
    fn a_failure_is_found_in_a_wrapper_that_hides_it() {
        let failure = Failure::new("not_found", "no page").data(json!(1));
        assert_eq!(Failure::of(&Transparent::from(failure.clone())), failure);
        let boxed = |error: anyhow::Error| -> Box<dyn Error + Send + Sync> { error.into() };
        assert_eq!(Failure::of(&*boxed(failure.clone().into())), failure);
        let context = anyhow::Error::from(failure.clone()).context("cannot open");
        let shown = Failure { message: "cannot open: no page".into(), ..failure.clone() };
        assert_eq!(Failure::of(&*boxed(context)), shown);
        let plain = anyhow::Error::from(Failure::plain("no page".into()));
        assert_eq!(format!("{plain:#}"), "no page");
        assert_eq!(Failure::of(&*boxed(plain)), Failure::plain("no page".into()));
    }

    #[test]
    fn a_failure_is_found_among_the_sources() {
        let inner = Failure::new("not_found", "no page").data(json!(1));
        let outer = Around("cannot open", inner.clone());
        let found = Failure::of(&outer);
        assert_eq!(found, Failure { message: "cannot open: no page".into(), ..inner.clone() });
        assert_eq!(Failure::of(&inner), inner);
        let plain: Box<dyn Error + Send + Sync> = "it failed".into();
        assert_eq!(Failure::of(&*plain), Failure::plain("it failed".into()));
    }
}
