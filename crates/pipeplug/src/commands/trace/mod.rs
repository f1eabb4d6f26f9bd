//! `pipeplug trace`: shows the calls of a recording.

mod filter;
mod html;
mod json;
mod perfetto;

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use pipeplug_host::recording::Reader;

use crate::cli::Globals;
use crate::exit::{self, CommandError, ExitReason};
use crate::output::report;
use crate::output::style::Paint;
use crate::output::text::{self, Escaped};
use crate::trace::lines::Lines;
use crate::trace::spans::{Item, Tracer};
use filter::FilterArgs;

const EXAMPLES: &str = "\
A line has the time since the begin of the recording, how long the call took,
the bytes of request and response, and the command: → from the host to the
plugin, ← from the plugin. A call that was made by the handler of another one
is indented below it.

Examples:
  pipeplug run ./plugin --record a.rec --call open @page.html
  pipeplug trace a.rec
  pipeplug trace a.rec --failed --data
  pipeplug trace a.rec --command open --slower-than 20ms
  pipeplug trace a.rec --html a.html && xdg-open a.html
  pipeplug trace a.rec --json | jq 'select(.event == \"call\") | .seconds'
  pipeplug run ./plugin --trace --call open @page.html";

/// Show the calls of a recording
///
/// Reads a FILE that `--record`, or a host with `PluginBuilder::record`, has written. The file may
/// be one that is being written, or that a killed host has left: calls without a response are
/// marked.
#[derive(Debug, Args)]
#[command(
    after_help = EXAMPLES,
    after_long_help = format!("{EXAMPLES}\n\n{}\n\n{}", json::HELP, exit::HELP)
)]
pub(crate) struct TraceArgs {
    /// The recording
    #[arg(value_name = "FILE")]
    file: PathBuf,

    #[command(flatten)]
    filter: FilterArgs,

    /// Show the data of requests and responses
    #[arg(long, help_heading = "Output")]
    data: bool,

    /// Write one JSON object per line
    #[arg(long, help_heading = "Output")]
    json: bool,

    /// Write a page with a sequence diagram to FILE, to be opened in a browser
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    html: Option<PathBuf>,

    /// Write the trace-event format to FILE, which Perfetto opens (ui.perfetto.dev)
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    perfetto: Option<PathBuf>,
}

/// The items of a recording in the order of their begin.
#[derive(Debug)]
pub(crate) struct Trace {
    pub(crate) items: Vec<Item>,
    /// Time of the first record.
    pub(crate) first: Duration,
    /// True if older records were dropped.
    pub(crate) is_cut: bool,
}

impl Trace {
    /// Reads a recording.
    ///
    /// # Errors
    /// The file cannot be read, or is no recording.
    pub(crate) fn read(path: &Path) -> Result<Self, CommandError> {
        let unreadable = |error| CommandError::new(ExitReason::Usage, error);
        let reader = Reader::open(path).map_err(unreadable)?;
        let is_cut = reader.dropped_segments() > 0;
        let (mut tracer, mut items, mut first) = (Tracer::default(), Vec::new(), None);
        for record in reader {
            let record = record.map_err(unreadable)?;
            first.get_or_insert(record.time);
            items.extend(tracer.take(record));
        }
        items.extend(tracer.finish().into_iter().map(|span| Item::Span(Box::new(span))));
        items.sort_by_key(Item::time);
        Ok(Self { items, first: first.unwrap_or_default(), is_cut })
    }
}

/// Runs `pipeplug trace`.
///
/// # Blocking
/// Until stdout is read.
pub(crate) fn run(args: &TraceArgs, globals: &Globals) -> ExitReason {
    report::exit_reason(globals.color, attempt(args, globals).map(|()| ExitReason::Success))
}

/// Writes a file. An older one is replaced.
fn write(path: &Path, text: &str) -> Result<(), CommandError> {
    std::fs::write(path, text).map_err(|error| {
        let path = path.to_string_lossy();
        let message = format!("cannot write {}: {error}", Escaped(&path));
        CommandError::message(ExitReason::Failed, message)
    })
}

fn attempt(args: &TraceArgs, globals: &Globals) -> Result<(), CommandError> {
    let mut trace = Trace::read(&args.file)?;
    let all = trace.items.len();
    args.filter.apply(&mut trace);
    if let Some(path) = &args.html {
        let title = args.file.file_name().unwrap_or_default().to_string_lossy();
        write(path, &html::page(&trace, &title))?;
    }
    if let Some(path) = &args.perfetto {
        write(path, &perfetto::document(&trace))?;
    }
    if args.json {
        return report::print(&json::lines(&trace));
    }
    if args.html.is_some() || args.perfetto.is_some() {
        return Ok(());
    }
    let paint = Paint::choose(globals.color, &io::stdout());
    let mut lines = Lines::new(paint, text::columns(io::stdout()), args.data);
    lines.see(trace.first);
    let mut text = lines.title();
    if trace.is_cut {
        text.push_str("(the oldest records were dropped: the recording had reached its limit)\n");
    }
    for item in &trace.items {
        text.push_str(&lines.format(item));
    }
    if trace.items.is_empty() {
        text.push_str(if all == 0 {
            "(the recording is empty)\n"
        } else {
            "(no call of the recording fits the options)\n"
        });
    }
    report::print(&text)
}
