//! Finds the calls in a sequence of records.

use std::collections::BTreeMap;
use std::time::Duration;

use pipeplug_host::recording::{Record, RecordedChunk, RecordedEvent, Travel};
use pipeplug_host::{Direction, command};
use serde_json::{Map, Value};

/// Context values that tell the cause of a request are below this key.
const KEY_VALUES: &str = "values";
/// Requests and one-ways that are kept while they are open.
const OPEN_MAX: usize = 1 << 20;

/// A request or one-way: its connection, the way that it went, and its thread id. Unique within a
/// recording if the id is not 0.
pub(crate) type SpanKey = (u32, Travel, u64);

/// A call or one-way with its times.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Span {
    pub(crate) connection: u32,
    /// The way of the request.
    pub(crate) travel: Travel,
    pub(crate) kind: SpanKind,
    pub(crate) id: u64,
    pub(crate) command: String,
    /// Time of the request, since the Unix epoch.
    pub(crate) begun: Duration,
    /// Time of the response, or of the end of the stream of a one-way.
    pub(crate) ended: Option<Duration>,
    /// Call whose handler made this one, if the recording tells.
    pub(crate) cause: Option<SpanKey>,
    /// Number of causes above it.
    pub(crate) depth: usize,
    pub(crate) request: Content,
    pub(crate) reply: Option<Content>,
    pub(crate) outcome: Outcome,
    /// Parts of its stream, with the request and with the reply: number and bytes.
    pub(crate) parts: Parts,
    pub(crate) reply_parts: Parts,
    /// Values of its context.
    values: Option<Value>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SpanKind {
    Call,
    OneWay,
}

/// Buffer of a chunk.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Content {
    pub(crate) len: u64,
    /// The part of the data that was recorded.
    pub(crate) data: Option<Vec<u8>>,
    pub(crate) is_redacted: bool,
}

/// Parts of a stream.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Parts {
    pub(crate) count: u64,
    pub(crate) bytes: u64,
}

/// End of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// No response is in the recording.
    Open,
    Reply,
    /// The other side answered with an error. `None` where its text was not recorded.
    Error {
        code: Option<String>,
        message: Option<String>,
    },
    /// The caller gave it up, and no response came.
    Cancelled,
    /// The connection ended first.
    Closed(String),
    /// A one-way needs no answer.
    OneWay,
}

/// One line of a trace.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Item {
    Span(Box<Span>),
    Began { connection: u32, time: Duration, about: Map<String, Value> },
    Ended { connection: u32, time: Duration, reason: String },
    Lost { time: Duration, chunks: u64, bytes: u64 },
}

/// Pairs requests with responses.
#[derive(Debug, Default)]
pub(crate) struct Tracer {
    open: BTreeMap<SpanKey, OpenSpan>,
    /// Contexts for the chunks that follow them.
    contexts: BTreeMap<(u32, Travel), (u64, Value)>,
}

#[derive(Debug)]
struct OpenSpan {
    span: Span,
    is_cancelled: bool,
}

impl Tracer {
    /// Takes the next record. Gives what is done with it.
    pub(crate) fn take(&mut self, record: Record) -> Vec<Item> {
        let Record { connection, time, event, .. } = record;
        match event {
            RecordedEvent::Begin(about) => vec![Item::Began { connection, time, about }],
            RecordedEvent::Lost { chunks, bytes } => vec![Item::Lost { time, chunks, bytes }],
            RecordedEvent::End(reason) => {
                let mut items = self.end(connection, &reason);
                items.push(Item::Ended { connection, time, reason });
                items
            }
            RecordedEvent::Chunk(chunk) => {
                let span = self.chunk(connection, time, chunk);
                span.into_iter().map(|span| Item::Span(Box::new(span))).collect()
            }
            _ => Vec::new(),
        }
    }

    /// Ends the calls that a connection leaves open.
    fn end(&mut self, connection: u32, reason: &str) -> Vec<Item> {
        let keys: Vec<_> = self.open.keys().filter(|key| key.0 == connection).copied().collect();
        let open = keys.iter().filter_map(|key| self.open.remove(key));
        let spans = open.map(|OpenSpan { span, is_cancelled }| {
            let outcome = match (span.kind, is_cancelled) {
                (SpanKind::OneWay, _) => Outcome::OneWay,
                (SpanKind::Call, true) => Outcome::Cancelled,
                (SpanKind::Call, false) => Outcome::Closed(reason.to_owned()),
            };
            Item::Span(Box::new(Span { outcome, ..span }))
        });
        spans.collect()
    }

    /// The calls that are open at the end of the recording.
    pub(crate) fn finish(&mut self) -> Vec<Span> {
        let open = std::mem::take(&mut self.open).into_values();
        let spans = open.map(|OpenSpan { span, is_cancelled }| Span {
            outcome: if is_cancelled { Outcome::Cancelled } else { span.outcome.clone() },
            ..span
        });
        spans.collect()
    }

    fn chunk(&mut self, connection: u32, time: Duration, chunk: RecordedChunk) -> Option<Span> {
        let (id, travel) = (chunk.thread_id.as_u64(), chunk.travel);
        let own = (connection, travel, id);
        let of_peer = (connection, travel.back(), id);
        match (chunk.direction?, chunk.command.as_str()) {
            (Direction::OneWay, command::CONTEXT) => {
                let context =
                    chunk.data.as_deref().and_then(|data| serde_json::from_slice(data).ok());
                self.contexts.insert((connection, travel), (id, context.unwrap_or_default()));
                None
            }
            (Direction::OneWay, command::CANCEL) => {
                if let Some(open) = self.open.get_mut(&own) {
                    open.is_cancelled = true;
                }
                None
            }
            (Direction::OneWay, command::PART) => {
                if let Some(open) = self.open.get_mut(&own) {
                    open.span.parts.add(chunk.buffer_len);
                }
                None
            }
            (Direction::OneWay, command::END) => {
                let is_one_way =
                    self.open.get(&own).is_some_and(|open| open.span.kind == SpanKind::OneWay);
                let open = is_one_way.then(|| self.open.remove(&own)).flatten()?;
                Some(Span { ended: Some(time), outcome: Outcome::OneWay, ..open.span })
            }
            (Direction::OneWay, name) if command::is_reserved(name) => None,
            (Direction::Response, command::PART) => {
                if let Some(open) = self.open.get_mut(&of_peer) {
                    open.span.reply_parts.add(chunk.buffer_len);
                }
                None
            }
            (
                Direction::Response,
                command::END | command::PART_CREDIT | command::ENOUGH | command::PROGRESS,
            ) => None,
            (Direction::Response, _) => {
                let span = self.open.remove(&of_peer)?.span;
                let outcome = outcome(&chunk);
                Some(Span { ended: Some(time), outcome, reply: Some(Content::of(chunk)), ..span })
            }
            (direction @ (Direction::Request | Direction::OneWay), _) => {
                let span = self.begin(own, time, direction, chunk);
                // A one-way with an id of its own may have a stream.
                let is_open = span.kind == SpanKind::Call || span.has_stream();
                if is_open && self.open.len() < OPEN_MAX {
                    self.open.insert(own, OpenSpan { span, is_cancelled: false });
                    return None;
                }
                // Of too many open ones, the newest are told as open at once.
                Some(span)
            }
        }
    }

    fn begin(
        &mut self,
        key: SpanKey,
        time: Duration,
        direction: Direction,
        chunk: RecordedChunk,
    ) -> Span {
        let (connection, travel, id) = key;
        let context = self.contexts.remove(&(connection, travel));
        let context = context.filter(|(of, _)| *of == id).map(|(_, context)| context);
        let values = context.as_ref().and_then(|context| context.get(KEY_VALUES)).cloned();
        let has_stream = context.as_ref().is_some_and(|context| context.get("stream").is_some());
        let cause = match chunk.cause {
            // The request came the other way.
            Some((of, caused)) => Some((of, Travel::Received, caused.as_u64())),
            None => values.as_ref().and_then(|values| self.with_values(connection, travel, values)),
        };
        let above = cause.and_then(|cause| self.open.get(&cause));
        let depth = above.map_or(0, |above| above.span.depth + 1);
        let kind = match direction {
            Direction::Request => SpanKind::Call,
            _ => SpanKind::OneWay,
        };
        let outcome =
            if kind == SpanKind::Call || has_stream { Outcome::Open } else { Outcome::OneWay };
        Span {
            connection,
            travel,
            kind,
            id,
            command: chunk.command.clone(),
            begun: time,
            ended: None,
            cause,
            depth,
            request: Content::of(chunk),
            reply: None,
            outcome,
            parts: Parts::default(),
            reply_parts: Parts::default(),
            values,
        }
    }

    /// The one open call the other way whose context has these values, which a handler inherits.
    fn with_values(&self, connection: u32, travel: Travel, values: &Value) -> Option<SpanKey> {
        let range = (connection, travel.back(), 0)..=(connection, travel.back(), u64::MAX);
        let mut same =
            self.open.range(range).filter(|(_, open)| open.span.values.as_ref() == Some(values));
        let (key, _) = same.next()?;
        same.next().is_none().then_some(*key)
    }
}

impl Span {
    /// Time from the request to the response.
    pub(crate) fn took(&self) -> Option<Duration> {
        self.ended.map(|ended| ended.saturating_sub(self.begun))
    }

    fn has_stream(&self) -> bool {
        self.outcome == Outcome::Open
    }

    /// True unless the call was answered as its caller hoped.
    pub(crate) fn has_failed(&self) -> bool {
        match self.outcome {
            Outcome::Reply | Outcome::OneWay | Outcome::Open => false,
            Outcome::Error { .. } | Outcome::Cancelled | Outcome::Closed(_) => true,
        }
    }

    /// True if nothing has ended it in the recording.
    pub(crate) fn is_open(&self) -> bool {
        self.outcome == Outcome::Open
    }
}

impl Content {
    fn of(chunk: RecordedChunk) -> Self {
        let RecordedChunk { buffer_len, data, is_redacted, .. } = chunk;
        Self { len: buffer_len, data, is_redacted }
    }

    /// True if all of it was recorded.
    pub(crate) fn is_whole(&self) -> bool {
        self.data.as_ref().is_some_and(|data| data.len() as u64 == self.len)
    }
}

impl Parts {
    fn add(&mut self, len: u64) {
        self.count += 1;
        self.bytes += len;
    }
}

/// End of the call that this response answers.
fn outcome(response: &RecordedChunk) -> Outcome {
    let data = response.whole_data();
    match response.command.as_str() {
        command::ERROR => {
            let message = data.map(|data| String::from_utf8_lossy(data).into_owned());
            Outcome::Error { code: None, message }
        }
        command::FAILURE => {
            let failure: Option<Value> = data.and_then(|data| serde_json::from_slice(data).ok());
            let text = |key| Some(failure.as_ref()?.get(key)?.as_str()?.to_owned());
            Outcome::Error { code: text("code"), message: text("message") }
        }
        _ if response.is_skipped => {
            let message = Some("the response was not taken: it is over a limit".to_owned());
            Outcome::Error { code: None, message }
        }
        _ => Outcome::Reply,
    }
}

impl Item {
    /// Time of its begin, since the Unix epoch.
    pub(crate) fn time(&self) -> Duration {
        match self {
            Self::Span(span) => span.begun,
            Self::Began { time, .. } | Self::Ended { time, .. } | Self::Lost { time, .. } => *time,
        }
    }

    /// Time of its end. Of an open call, that of its begin.
    pub(crate) fn end(&self) -> Duration {
        match self {
            Self::Span(span) => span.ended.unwrap_or(span.begun),
            _ => self.time(),
        }
    }

    pub(crate) fn span(&self) -> Option<&Span> {
        match self {
            Self::Span(span) => Some(span),
            _ => None,
        }
    }
}
