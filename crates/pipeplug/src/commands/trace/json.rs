//! JSON form of a trace.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD as BASE64;
use pipeplug_host::recording::Travel;
use serde_json::{Map, Value, json};

use super::Trace;
use crate::output::text;
use crate::trace::lines::problem;
use crate::trace::spans::{Content, Item, Outcome, Span, SpanKind};

/// Section of the help about the JSON form.
pub(crate) const HELP: &str = "\
JSON (--json), one object per line on stdout, each with \"event\" and \"time\"
(seconds since 1970):
  began    a connection began: connection (a number), about (an object: name,
           path, pid, launcher)
  call     connection, from (host, plugin: the side that recorded is host
           unless about.side says otherwise), id, command, seconds (unless it
           is open), request, reply (objects: bytes, data or data_base64,
           redacted, cut), outcome (reply, error, open, cancelled, closed),
           code, message, cause (connection, from, id: the call whose handler
           made this one), parts, reply_parts (count, bytes)
  one_way  the same, without an answer
  ended    a connection ended: connection, reason
  lost     chunks that are missing: chunks, bytes";

/// Formats all items.
pub(crate) fn lines(trace: &Trace) -> String {
    trace.items.iter().map(|item| text::json_line(&value(item))).collect()
}

/// Formats one item.
pub(crate) fn value(item: &Item) -> Value {
    let time = item.time().as_secs_f64();
    match item {
        Item::Span(span) => span_value(span),
        Item::Began { connection, about, .. } => {
            json!({ "event": "began", "time": time, "connection": connection, "about": about })
        }
        Item::Ended { connection, reason, .. } => {
            json!({ "event": "ended", "time": time, "connection": connection, "reason": reason })
        }
        Item::Lost { chunks, bytes, .. } => {
            json!({ "event": "lost", "time": time, "chunks": chunks, "bytes": bytes })
        }
    }
}

fn span_value(span: &Span) -> Value {
    let mut fields = Map::new();
    let mut set = |key: &str, value: Value| {
        fields.insert(key.to_owned(), value);
    };
    set("event", if span.kind == SpanKind::Call { "call" } else { "one_way" }.into());
    set("time", span.begun.as_secs_f64().into());
    set("connection", span.connection.into());
    set("from", from(span.travel).into());
    set("id", span.id.into());
    set("command", span.command.as_str().into());
    if let Some(took) = span.took() {
        set("seconds", took.as_secs_f64().into());
    }
    set("request", content(&span.request));
    if let Some(reply) = &span.reply {
        set("reply", content(reply));
    }
    let outcome = match &span.outcome {
        Outcome::Open => "open",
        Outcome::Reply => "reply",
        Outcome::Error { .. } => "error",
        Outcome::Cancelled => "cancelled",
        Outcome::Closed(_) => "closed",
        Outcome::OneWay => "none",
    };
    if span.outcome != Outcome::OneWay {
        set("outcome", outcome.into());
    }
    match &span.outcome {
        Outcome::Error { code, message } => {
            for (key, text) in [("code", code), ("message", message)] {
                if let Some(text) = text {
                    set(key, text.as_str().into());
                }
            }
        }
        Outcome::Closed(reason) => set("message", reason.as_str().into()),
        _ => {
            if let Some(problem) = problem(span) {
                set("message", problem.into());
            }
        }
    }
    if let Some((connection, travel, id)) = span.cause {
        set("cause", json!({ "connection": connection, "from": from(travel), "id": id }));
    }
    for (key, parts) in [("parts", span.parts), ("reply_parts", span.reply_parts)] {
        if parts.count > 0 {
            set(key, json!({ "count": parts.count, "bytes": parts.bytes }));
        }
    }
    Value::Object(fields)
}

/// The side that a request comes from.
pub(crate) fn from(travel: Travel) -> &'static str {
    match travel {
        Travel::Sent => "host",
        Travel::Received => "plugin",
    }
}

fn content(content: &Content) -> Value {
    let mut fields = Map::new();
    fields.insert("bytes".into(), content.len.into());
    if let Some(data) = &content.data {
        match std::str::from_utf8(data) {
            Ok(text) => fields.insert("data".into(), text.into()),
            Err(_) => fields.insert("data_base64".into(), BASE64.encode(data).into()),
        };
        if !content.is_whole() {
            fields.insert("cut".into(), true.into());
        }
    }
    if content.is_redacted {
        fields.insert("redacted".into(), true.into());
    }
    Value::Object(fields)
}
