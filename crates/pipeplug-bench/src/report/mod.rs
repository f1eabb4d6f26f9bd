//! `pipeplug-bench report`: the tables and charts of docs/performance.md, from a run.
//!
//! Only the text between `<!-- bench:NAME -->` and `<!-- bench:end -->` is replaced.

mod blocks;
mod charts;
mod goals;
mod panel;
mod svg;
mod tables;

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};

use crate::figures::Document;
use charts::Chart;

/// Writes the figures of the run at `json` into `docs/performance.md` and the charts beside it, in
/// `docs/performance`.
///
/// # Errors
/// A file cannot be read or written, is no run, or has an unknown block.
pub(crate) fn write(json: &Path, docs: &Path) -> Result<()> {
    let read = |path: &Path| {
        fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
    };
    let document = Document::from_json(&read(json)?).with_context(|| json.display().to_string())?;
    let charts = charts::all(&document);
    let page = docs.join("performance.md");
    let text = blocks::fill(&read(&page)?, |name| block(&document, &charts, name))
        .with_context(|| page.display().to_string())?;
    let dir = docs.join("performance");
    fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
    for chart in &charts {
        put(&dir.join(format!("{}.svg", chart.name)), &chart.svg)?;
    }
    put(&page, &text)
}

fn put(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
    println!("written: {}", path.display());
    Ok(())
}

/// Content of the block of that name.
fn block(document: &Document, charts: &[Chart], name: &str) -> Option<String> {
    if let Some(name) = name.strip_prefix("chart ") {
        // A short run has not the figures of all of them.
        let chart = charts.iter().find(|chart| chart.name == name);
        return Some(
            chart
                .map(|chart| format!("![{}](performance/{name}.svg)", chart.title))
                .unwrap_or_default(),
        );
    }
    Some(match name {
        "run" => tables::run(document),
        "peers" => tables::peers(document),
        "goals" => goals::table(document),
        "latency" => tables::latency(document),
        "tails" => tables::tails(document),
        "throughput" => tables::throughput(document),
        "crowded" => tables::crowded(document),
        "bulk" => tables::bulk(document),
        "start" => tables::start(document),
        "memory" => tables::memory(document),
        "quiet" => tables::quiet(document),
        "handlers" => tables::handlers(document),
        "idle" => tables::idle(document),
        "open" => tables::open(document),
        "typed" => tables::typed(document),
        "syscalls" => tables::syscalls(document),
        _ => return None,
    })
}
