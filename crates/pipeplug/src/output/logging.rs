//! What the libraries log, on standard error.

use std::io;

use clap::ColorChoice;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::Layer as _;
use tracing_subscriber::field::MakeExt as _;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::format::debug_fn;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::output::report::Verbosity;
use crate::output::stream;
use crate::output::style::Paint;
use crate::output::text::Escaped;

/// Logs from here on: warnings, and with `-vv` everything that helps to find a fault.
pub(crate) fn init(verbosity: Verbosity, color: ColorChoice) {
    let level = match verbosity {
        Verbosity::Normal => LevelFilter::WARN,
        Verbosity::Detailed => LevelFilter::INFO,
        Verbosity::Debug => LevelFilter::TRACE,
    };
    // The plugin's own lines, and what it leaves, are shown by the report.
    let targets = Targets::new()
        .with_default(level)
        .with_target("pipeplug::left", LevelFilter::OFF)
        .with_target("pipeplug::stderr", LevelFilter::OFF)
        .with_target("pipeplug::stdout", LevelFilter::OFF);
    // What a log tells of may come from a plugin, or be the name of a file.
    let fields = debug_fn(|writer, field, value| {
        let text = format!("{value:?}");
        match field.name() {
            "message" => write!(writer, "{}", Escaped(&text)),
            name => write!(writer, "{name}={}", Escaped(&text)),
        }
    });
    let lines = tracing_subscriber::fmt::layer()
        .fmt_fields(fields.delimited(" "))
        .with_writer(|| stream::LogLines)
        .with_ansi(Paint::choose(color, &io::stderr()) == Paint::Colored)
        .without_time();
    tracing_subscriber::registry().with(lines.with_filter(targets)).init();
}
