//! The part that host and plugin share: spans that cross from one process to the other.
//!
//! A caller sends the id of its current span as `traceparent` (W3C Trace Context), a value of the
//! context of a call. The handler on the other side makes its own span a child of that one.

use std::collections::HashMap;

use anyhow::Context as _;
use opentelemetry::propagation::TextMapPropagator as _;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracerProvider};
use serde::{Deserialize, Serialize};
use tracing::Span;
use tracing::level_filters::LevelFilter;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;
use tracing_subscriber::Layer as _;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

/// Key of the span in the context of a call.
pub const TRACEPARENT: &str = "traceparent";

/// The spans of this process that have ended. An application would send them to a collector.
#[derive(Debug)]
pub struct Spans {
    process: &'static str,
    exporter: InMemorySpanExporter,
    _provider: SdkTracerProvider,
}

/// A span that has ended.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Record {
    /// The process that it is of.
    pub process: String,
    /// Name of the span.
    pub name: String,
    /// Id of the trace.
    pub trace: String,
    /// Id of the span.
    pub id: String,
    /// Id of the span that it is part of, in either process.
    pub parent: String,
}

impl Spans {
    /// Installs a subscriber of `tracing` that collects the spans of this sample.
    ///
    /// # Errors
    /// The process has a subscriber already.
    pub fn collect(process: &'static str) -> anyhow::Result<Self> {
        let exporter = InMemorySpanExporter::default();
        let provider = SdkTracerProvider::builder().with_simple_exporter(exporter.clone()).build();
        let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer(process));
        // Not the events of the libraries.
        let own = Targets::new().with_target("spans", LevelFilter::INFO);
        tracing_subscriber::registry().with(layer.with_filter(own)).try_init()?;
        Ok(Self { process, exporter, _provider: provider })
    }

    /// The spans that have ended so far.
    ///
    /// # Errors
    /// The exporter has failed.
    pub fn ended(&self) -> anyhow::Result<Vec<Record>> {
        let spans = self.exporter.get_finished_spans().context("cannot read the spans")?;
        let record = |span: opentelemetry_sdk::trace::SpanData| Record {
            process: self.process.to_owned(),
            name: span.name.into_owned(),
            trace: span.span_context.trace_id().to_string(),
            id: span.span_context.span_id().to_string(),
            parent: span.parent_span_id.to_string(),
        };
        Ok(spans.into_iter().map(record).collect())
    }
}

/// The id of a span, as it travels with a call.
#[must_use]
pub fn traceparent(span: &Span) -> String {
    let mut carrier = HashMap::new();
    TraceContextPropagator::new().inject_context(&span.context(), &mut carrier);
    carrier.remove(TRACEPARENT).unwrap_or_default()
}

/// A span for a request, which is a child of its caller's.
///
/// # Errors
/// The span has begun without its parent.
pub fn span_of_request(command: &str, traceparent: Option<&str>) -> anyhow::Result<Span> {
    let span = tracing::info_span!(target: "spans", "request", otel.name = command);
    if let Some(traceparent) = traceparent {
        let carrier = HashMap::from([(TRACEPARENT.to_owned(), traceparent.to_owned())]);
        span.set_parent(TraceContextPropagator::new().extract(&carrier))?;
    }
    Ok(span)
}
