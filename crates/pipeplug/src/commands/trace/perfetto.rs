//! Trace-event format, which Perfetto and chrome://tracing open.

use std::time::Duration;

use pipeplug_host::recording::Travel;
use serde_json::{Value, json};

use super::Trace;
use super::json as json_form;
use crate::trace::lines;
use crate::trace::spans::{Item, Span, SpanKind};

/// Thread of a side on which its chunks are.
const CHUNKS: u32 = 1;
/// Length of the slice of a chunk, in microseconds, so that it can be seen and carry a flow.
const CHUNK_LEN: f64 = 1.0;

/// Formats a trace. Each side of a connection is a process. A call is an asynchronous slice of the
/// side that calls, and its chunks are slices of both sides with flows between them.
pub(crate) fn document(trace: &Trace) -> String {
    let mut events = Vec::new();
    let mut number = 0_u64;
    let micros = |time: Duration| time.saturating_sub(trace.first).as_secs_f64() * 1e6;
    for item in &trace.items {
        match item {
            Item::Began { connection, about, .. } => {
                let name = lines::name(about, *connection);
                for (travel, side) in [(Travel::Sent, "host of "), (Travel::Received, "")] {
                    let pid = process(*connection, travel);
                    let named = |what: &str, name: String, tid: u32| json!({ "ph": "M", "name": what, "pid": pid, "tid": tid, "args": { "name": name } });
                    events.push(named("process_name", format!("{side}{name}"), 0));
                    events.push(named("thread_name", "chunks".into(), CHUNKS));
                }
            }
            Item::Ended { connection, time, reason } => {
                let pid = process(*connection, Travel::Received);
                events.push(json!({ "ph": "i", "s": "p", "name": "end of the connection",
                    "pid": pid, "tid": CHUNKS, "ts": micros(*time), "args": { "reason": reason } }));
            }
            Item::Lost { time, chunks, bytes } => events.push(json!({ "ph": "i", "s": "g",
                "name": "chunks are missing", "pid": 0, "tid": 0, "ts": micros(*time),
                "args": { "chunks": chunks, "bytes": bytes } })),
            Item::Span(span) => {
                number += 2;
                add_span(&mut events, span, number, &micros);
            }
        }
    }
    let mut text = json!({ "displayTimeUnit": "ms", "traceEvents": events }).to_string();
    text.push('\n');
    text
}

fn add_span(events: &mut Vec<Value>, span: &Span, number: u64, micros: &impl Fn(Duration) -> f64) {
    let (caller, callee) =
        (process(span.connection, span.travel), process(span.connection, span.travel.back()));
    let args = json_form::value(&Item::Span(Box::new(span.clone())));
    let category = if span.kind == SpanKind::Call { "call" } else { "one-way" };
    let category = if span.has_failed() { format!("{category},failed") } else { category.into() };
    let begun = micros(span.begun);
    let mut chunk = |name: &str, from: u64, to: u64, at: f64, flow: u64| {
        for (pid, phase) in [(from, "s"), (to, "f")] {
            events.push(json!({ "ph": "X", "cat": "chunk", "name": name, "pid": pid,
                "tid": CHUNKS, "ts": at, "dur": CHUNK_LEN }));
            events.push(json!({ "ph": phase, "bp": "e", "cat": "chunk", "name": "chunk",
                "id": flow, "pid": pid, "tid": CHUNKS, "ts": at }));
        }
    };
    chunk(&span.command, caller, callee, begun, number);
    if span.reply.is_some()
        && let Some(ended) = span.ended
    {
        chunk(&format!("{} (response)", span.command), callee, caller, micros(ended), number + 1);
    }
    if span.kind == SpanKind::OneWay && span.ended.is_none() {
        return;
    }
    let event = |phase: &str, at: f64| {
        json!({ "ph": phase, "cat": category, "name": span.command, "id": number, "pid": caller,
            "tid": CHUNKS, "ts": at })
    };
    let mut begin = event("b", begun);
    begin["args"] = args;
    events.push(begin);
    // One that is open has no end: it is drawn to the end of the trace.
    if let Some(ended) = span.ended {
        events.push(event("e", micros(ended)));
    }
}

/// Number of the process for one side of a connection.
fn process(connection: u32, travel: Travel) -> u64 {
    u64::from(connection) * 2 + u64::from(travel == Travel::Received)
}
