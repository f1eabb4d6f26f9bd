//! The host: asks its plugin for a price while the plugin asks it for a rate, and prints the spans
//! of both processes as the one tree that they are.
//!
//! ```text
//! spans-host [PATH OF THE PLUGIN]
//! ```

use std::env;
use std::path::PathBuf;

use anyhow::{Context as _, ensure};
use pipeplug_host::{HandlerError, Plugin, Reply, Request};
use spans::{Record, Spans, TRACEPARENT, span_of_request, traceparent};

fn main() -> anyhow::Result<()> {
    let spans = Spans::collect("host")?;
    let answer = |_: &Plugin, request: &mut Request| answer(request);
    let plugin = Plugin::builder(plugin_path()?).handler(answer).start()?;
    tracing::info_span!(target: "spans", "order").in_scope(|| -> anyhow::Result<()> {
        let span = tracing::info_span!(target: "spans", "call", otel.name = "call price");
        let of_span = traceparent(&span);
        let price = span
            .in_scope(|| plugin.request("price", "3").context(TRACEPARENT, &of_span).wait_text())?;
        ensure!(price == "6", "the price is {price}");
        Ok(())
    })?;
    let of_plugin: Vec<Record> = serde_json::from_str(&plugin.call("spans", "")?)?;
    plugin.stop()?;

    let all = [spans.ended()?, of_plugin].concat();
    let root = all.iter().find(|span| span.name == "order").context("the order has no span")?;
    ensure!(all.iter().all(|span| span.trace == root.trace), "there are several traces: {all:?}");
    println!("one trace, {} spans", all.len());
    print(root, &all, 0);
    Ok(())
}

fn answer(request: &mut Request) -> Result<Reply, HandlerError> {
    let span = span_of_request(request.command(), request.context(TRACEPARENT))?;
    span.in_scope(|| match request.command() {
        "rate" => Ok("2".into()),
        _ => request.unknown(),
    })
}

/// Prints a span and those that are part of it.
fn print(span: &Record, all: &[Record], depth: usize) {
    println!("{:depth$}{} ({})", "", span.name, span.process);
    for child in all.iter().filter(|child| child.parent == span.id) {
        print(child, all, depth + 2);
    }
}

/// Path of the plugin: the first argument, or the plugin in the directory of this program.
fn plugin_path() -> anyhow::Result<PathBuf> {
    match env::args_os().nth(1) {
        Some(path) => Ok(path.into()),
        None => Ok(env::current_exe()
            .context("cannot find this program")?
            .with_file_name("spans-plugin")),
    }
}
