//! Context of a request or one-way: what a chunk has no field for, sent as `cmd.context` before it.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt::{Display, Write as _};
use std::sync::Arc;
use std::time::Duration;

use pipeplug_wire::{ChunkRef, Direction, ThreadId};
use serde_json::{Map, Value, json};

use crate::sync::{Instant, thread_local};

/// Name of the feature in `pipeplug.features`.
pub(crate) const FEATURE: &str = "context";

/// Size past which a context is ignored, in bytes.
pub(crate) const CONTEXT_MAX: usize = 4096;

/// Limit of the values in a context, as JSON, in bytes. The rest is room for the other keys.
pub(crate) const VALUES_MAX: usize = CONTEXT_MAX - 128;

/// Key of the remaining time, in whole milliseconds.
const KEY_REMAINING: &str = "deadline_ms";
/// Key of the sides that send parts.
const KEY_STREAM: &str = "stream";
/// Key that says whether the sender wants to know of progress.
const KEY_PROGRESS: &str = "progress";
/// Key of the values that the caller supplied.
const KEY_VALUES: &str = "values";

/// Values of a context by their keys.
pub(crate) type ContextValues = BTreeMap<String, String>;

thread_local! {
    /// Values of the request whose handler runs on this thread.
    static INHERITED: RefCell<Option<Arc<ContextValues>>> = const { RefCell::new(None) };
}

/// Sides of a stream that send parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct StreamMode {
    /// True if the side that sends the request sends parts too.
    pub(crate) sends: bool,
    /// True if that side takes parts of the reply.
    pub(crate) receives: bool,
}

impl StreamMode {
    const fn text(self) -> &'static str {
        match (self.sends, self.receives) {
            (true, true) => "send receive",
            (true, false) => "send",
            (false, true) => "receive",
            (false, false) => "",
        }
    }

    /// Parses words separated by spaces. Unknown words are ignored.
    fn parse(text: &str) -> Self {
        let has = |word| text.split(' ').any(|found| found == word);
        Self { sends: has("send"), receives: has("receive") }
    }
}

/// Context of a request or one-way.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct RequestContext {
    /// Time at which the sender gives the request up.
    pub(crate) deadline: Option<Instant>,
    pub(crate) stream: Option<StreamMode>,
    pub(crate) wants_progress: bool,
    pub(crate) values: Option<Arc<ContextValues>>,
}

impl RequestContext {
    /// Returns true if there is nothing to send.
    pub(crate) fn is_empty(&self) -> bool {
        let Self { deadline, stream, wants_progress, values } = self;
        deadline.is_none() && stream.is_none() && !wants_progress && values.is_none()
    }
}

/// A `cmd.context` that was received, for the chunk that follows it if it has this id.
#[derive(Debug, Clone)]
pub(crate) struct PendingContext {
    pub(crate) id: ThreadId,
    pub(crate) context: RequestContext,
}

impl PendingContext {
    /// The context, if it is that of `chunk`.
    #[cold]
    pub(crate) fn context_for(self, chunk: &ChunkRef<'_>) -> Option<RequestContext> {
        let is_its_chunk = chunk.thread_id == self.id
            && matches!(chunk.direction, Direction::Request | Direction::OneWay);
        is_its_chunk.then_some(self.context)
    }
}

/// Values that the calls of this thread inherit.
pub(crate) fn inherited_values() -> Option<Arc<ContextValues>> {
    INHERITED.with_borrow(Clone::clone)
}

/// Has the calls of this thread inherit values, until it is dropped.
pub(crate) struct InheritValues(Option<Arc<ContextValues>>);

impl InheritValues {
    pub(crate) fn from(values: Arc<ContextValues>) -> Self {
        Self(INHERITED.replace(Some(values)))
    }
}

impl Drop for InheritValues {
    fn drop(&mut self) {
        INHERITED.set(self.0.take());
    }
}

/// Bytes of the values in a context, if they are too many.
pub(crate) fn too_large(values: &ContextValues) -> Option<usize> {
    let len = json!(values).to_string().len();
    (len > VALUES_MAX).then_some(len)
}

/// Reason that a context was ignored.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ContextError {
    #[error("it has {len} bytes, the limit is {CONTEXT_MAX}")]
    TooLong { len: usize },
    #[error("it is no JSON object: {0}")]
    NoObject(serde_json::Error),
    #[error("its {KEY_REMAINING} is no whole number from 0 to 2^64-1")]
    NoMilliseconds,
    #[error("its {KEY_STREAM} is no string")]
    NoStream,
    #[error("its {KEY_PROGRESS} is neither true nor false")]
    NoProgress,
    #[error("its {KEY_VALUES} is no object of strings")]
    NoValues,
}

/// Encodes a context. `left` is the time until its deadline, which is rounded up to milliseconds.
pub(crate) fn encode(context: &RequestContext, left: Option<Duration>) -> Vec<u8> {
    let mut text = String::from("{");
    let mut add = |key: &str, value: &dyn Display| {
        let comma = if text.len() > 1 { "," } else { "" };
        // A write to a string does not fail.
        let _ = write!(text, "{comma}\"{key}\":{value}");
    };
    if let Some(left) = left {
        let millis = left.as_nanos().div_ceil(1_000_000);
        add(KEY_REMAINING, &u64::try_from(millis).unwrap_or(u64::MAX));
    }
    if let Some(stream) = context.stream {
        add(KEY_STREAM, &format_args!("\"{}\"", stream.text()));
    }
    if context.wants_progress {
        add(KEY_PROGRESS, &true);
    }
    if let Some(values) = &context.values {
        add(KEY_VALUES, &json!(**values));
    }
    text.push('}');
    text.into_bytes()
}

/// Parses a context. Its deadline is by the clock of this side; a time that no `Instant` can hold
/// is none.
pub(crate) fn parse(buffer: &[u8], now: Instant) -> Result<RequestContext, ContextError> {
    if buffer.len() > CONTEXT_MAX {
        return Err(ContextError::TooLong { len: buffer.len() });
    }
    let mut object: Map<String, Value> =
        serde_json::from_slice(buffer).map_err(ContextError::NoObject)?;
    let mut context = RequestContext::default();
    if let Some(value) = object.get(KEY_REMAINING) {
        let millis = value.as_u64().ok_or(ContextError::NoMilliseconds)?;
        context.deadline = now.checked_add(Duration::from_millis(millis));
    }
    if let Some(value) = object.get(KEY_STREAM) {
        context.stream = Some(StreamMode::parse(value.as_str().ok_or(ContextError::NoStream)?));
    }
    if let Some(value) = object.get(KEY_PROGRESS) {
        context.wants_progress = value.as_bool().ok_or(ContextError::NoProgress)?;
    }
    if let Some(values) = object.remove(KEY_VALUES) {
        let values: ContextValues =
            serde_json::from_value(values).map_err(|_| ContextError::NoValues)?;
        context.values = (!values.is_empty()).then(|| Arc::new(values));
    }
    Ok(context)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn told(left: Duration) -> Vec<u8> {
        encode(&RequestContext::default(), Some(left))
    }

    fn deadline(buffer: &[u8], now: Instant) -> Option<Instant> {
        parse(buffer, now).unwrap().deadline
    }

    #[test]
    fn a_context_tells_begun_milliseconds() {
        for (left, text) in [
            (Duration::from_nanos(1), "1"),
            (Duration::from_millis(1500), "1500"),
            (Duration::from_micros(1001), "2"),
            (Duration::MAX, "18446744073709551615"),
        ] {
            assert_eq!(told(left), format!("{{\"deadline_ms\":{text}}}").into_bytes());
        }
    }

    #[test]
    fn what_was_told_is_understood() {
        let now = Instant::now();
        assert_eq!(deadline(&told(SECOND), now), Some(now + SECOND));
        assert_eq!(deadline(b" { \"trace\": [1], \"deadline_ms\": 0 } ", now), Some(now));
        assert_eq!(deadline(b"{}", now), None);
        let twice = b"{\"deadline_ms\":\"1\",\"deadline_ms\":1000}";
        assert_eq!(deadline(twice, now), Some(now + SECOND), "the last one counts");
        let far = deadline(&told(Duration::MAX), now);
        assert!(far.is_none_or(|at| at > now + 1_000_000 * SECOND), "{far:?}");
    }

    #[test]
    fn a_context_that_says_nothing_sensible_is_an_error() {
        let deep = format!("{{\"a\":{}{}}}", "[".repeat(2000), "]".repeat(2000));
        let long = format!("{{\"deadline_ms\":1{}}}", " ".repeat(CONTEXT_MAX));
        for text in [
            "",
            "1",
            "[]",
            "null",
            "{",
            "{} {}",
            "{\"deadline_ms\":1000,\"deadline_ms\":\"1\"}",
            "{\"deadline_ms\":-0}",
            "{\"deadline_ms\":01}",
            "{\"deadline_ms\":1.0}",
            "{\"deadline_ms\":-1}",
            "{\"deadline_ms\":1.5}",
            "{\"deadline_ms\":1e3}",
            "{\"deadline_ms\":18446744073709551616}",
            "{\"deadline_ms\":1e999}",
            "{\"deadline_ms\":\"1\"}",
            "{\"deadline_ms\":null}",
            "{\"stream\":true}",
            "{\"progress\":1}",
            "{\"values\":[]}",
            "{\"values\":{\"a\":1}}",
            "\u{0}",
            deep.as_str(),
            long.as_str(),
        ] {
            let result = parse(text.as_bytes(), Instant::now());
            assert!(result.is_err(), "{text}: {result:?}");
        }
        assert!(parse(b"{\"deadline_ms\":\xff}", Instant::now()).is_err());
    }

    #[test]
    fn each_key_is_read_as_it_was_written() {
        let values = [("traceparent", "00-4bf9"), ("", "\u{0}\"")];
        let values = values.map(|(key, value)| (key.to_owned(), value.to_owned()));
        for context in [
            RequestContext::default(),
            RequestContext { wants_progress: true, ..RequestContext::default() },
            RequestContext {
                stream: Some(StreamMode { sends: true, receives: false }),
                values: Some(Arc::new(values.into())),
                ..RequestContext::default()
            },
            RequestContext {
                stream: Some(StreamMode { sends: true, receives: true }),
                ..RequestContext::default()
            },
        ] {
            assert_eq!(parse(&encode(&context, None), Instant::now()).unwrap(), context);
        }
    }

    #[test]
    fn calls_inherit_the_values_of_the_innermost_request() {
        let values = |name: &str| Arc::new([(name.to_owned(), String::new())].into());
        let _outer = InheritValues::from(values("outer"));
        {
            let _inner = InheritValues::from(values("inner"));
            assert_eq!(inherited_values(), Some(values("inner")));
        }
        assert_eq!(inherited_values(), Some(values("outer")));
    }
}
