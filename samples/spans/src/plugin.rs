//! The plugin: multiplies by a rate that it asks its host for.

use std::process::ExitCode;

use pipeplug_guest::{Guest, HandlerError, Main, Reply, Request};
use spans::{Spans, TRACEPARENT, span_of_request, traceparent};

fn main() -> anyhow::Result<ExitCode> {
    let spans = Spans::collect("plugin")?;
    let main = Guest::new()
        .metadata("Description", "tells the price of a number of things")
        .handler(move |main: &Main, request: &mut Request| answer(main, request, &spans))
        .register();
    Ok(main.wait())
}

fn answer(main: &Main, request: &mut Request, spans: &Spans) -> Result<Reply, HandlerError> {
    if request.command() == "spans" {
        return Ok(serde_json::to_string(&spans.ended()?)?.into());
    }
    let span = span_of_request(request.command(), request.context(TRACEPARENT))?;
    span.in_scope(|| match request.command() {
        "price" => {
            let count: u32 = request.text()?.parse()?;
            let span = tracing::info_span!(target: "spans", "call", otel.name = "call rate");
            // Without this value the call would carry that of the request, which it inherits: the
            // host's span would then be beside the plugin's, and not part of it.
            let of_span = traceparent(&span);
            let rate = span
                .in_scope(|| main.request("rate", "").context(TRACEPARENT, &of_span).wait_text())?;
            Ok((count * rate.parse::<u32>()?).to_string().into())
        }
        _ => request.unknown(),
    })
}
