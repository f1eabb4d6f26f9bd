//! Log of the libraries, on stderr.

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

/// Installs the log: warnings, with `-v` information, with `-vv` every detail.
pub(crate) fn init(verbosity: Verbosity, color: ColorChoice) {
    let level = match verbosity {
        Verbosity::Normal => LevelFilter::WARN,
        Verbosity::Detailed => LevelFilter::INFO,
        Verbosity::Debug => LevelFilter::TRACE,
    };
    // The report shows the lines of the plugin, the processes that it leaves behind, and the events of
    // the supervisor of `dev`.
    let targets = Targets::new()
        .with_default(level)
        .with_target("pipeplug_host::supervisor::event", LevelFilter::ERROR)
        .with_target("pipeplug::left", LevelFilter::OFF)
        .with_target("pipeplug::stderr", LevelFilter::OFF)
        .with_target("pipeplug::stdout", LevelFilter::OFF);
    // A field may hold text of a plugin, or the name of a file: escape control characters.
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
