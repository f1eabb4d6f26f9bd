//! Options of `pipeplug bench`, and its help.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{OsStringValueParser, TypedValueParser as _};
use clap::{ArgAction, Args};

use crate::args::start::StartArgs;
use crate::args::units::{parse_bytes, parse_duration};
use crate::exit;
use crate::session::answers::{self, AnswerArg};

const EXAMPLES: &str = "\
Examples:
  pipeplug bench @echo --call echo hello
  pipeplug bench ./plugin --call store --size 64K --concurrency 100
  pipeplug bench ./plugin --call find word=teh --rate 5000 --html page.html
  pipeplug bench ./new/plugin --vs ./old/plugin --call find teh --duration 30s
  pipeplug bench ./plugin --call find teh --json | jq .plugins[0].calls";

const SHORT: &str = "\
Examples:
  pipeplug bench @echo --call echo --size 1K --concurrency 100
  pipeplug bench ./new/plugin --vs ./old/plugin --call find teh

`pipeplug bench --help` has more options: launchers (ssh, --via), containers,
Kubernetes, rights and sandbox, recording.";

const JSON: &str = "\
JSON (--json), one object on stdout: command, size (bytes of a request),
concurrency, rate (null in a closed loop), interrupted, plugins (an array:
plugin, calls, failed, seconds, calls_per_second, bytes_per_second,
latency_seconds with min, p50, p90, p99, p99.9, max and mean, and errors with
code, count and the first message); with --vs also rounds and ratio, with
median, least and greatest for each figure.";

/// Measure throughput and latency of a plugin
///
/// Starts the plugin, warms it up, and makes the same call again and again. Without --rate each
/// call that ends is followed by the next one (a closed loop), with --concurrency calls in flight.
/// With --rate calls are due at a constant rate, whether or not the plugin answers, and latency
/// counts from the time that a call was due: a plugin that stalls makes all calls slow that were
/// due meanwhile (no coordinated omission).
///
/// Latencies are those of calls that succeeded; failed calls are counted by code. `rate` counts the
/// calls that succeeded in the measured time, `data` the bytes of their requests and replies. MB are
/// 1,000,000 bytes. Ctrl-C ends the measurement and shows what was measured.
#[derive(Debug, Args)]
#[command(
    override_usage = "pipeplug bench PLUGIN --call CMD [DATA] [OPTIONS] [-- ARGS]",
    after_help = SHORT,
    after_long_help = format!("{EXAMPLES}\n\n{JSON}\n\n{}", exit::HELP)
)]
pub(crate) struct BenchArgs {
    /// Command to call, and DATA: a literal, @FILE or @-
    #[arg(
        long,
        required = true,
        num_args = 1..=2,
        action = ArgAction::Set,
        value_names = ["CMD", "DATA"],
        help_heading = "Load"
    )]
    pub(super) call: Vec<OsString>,

    /// Send this many bytes instead of DATA, as 64K
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes, help_heading = "Load")]
    pub(super) size: Option<u64>,

    /// Calls in flight [default: 1]
    ///
    /// With --rate the limit of them [default: 1000].
    #[arg(long, value_name = "N", value_parser = parse_concurrency, help_heading = "Load")]
    pub(super) concurrency: Option<usize>,

    /// Calls a second [default: as many as are answered]
    #[arg(long, value_name = "R", value_parser = parse_rate, help_heading = "Load")]
    pub(super) rate: Option<f64>,

    /// Measured time of each plugin
    #[arg(
        long,
        value_name = "TIME",
        default_value = "10s",
        value_parser = parse_duration,
        help_heading = "Load"
    )]
    pub(super) duration: Duration,

    /// Time before, which is not measured [default: 1s]
    ///
    /// Of each round, with --vs. The default is at most a tenth of the measured time.
    #[arg(long, value_name = "TIME", value_parser = parse_duration, help_heading = "Load")]
    pub(super) warmup: Option<Duration>,

    /// Measure PLUGIN2 too, in turn, and show the ratio
    #[arg(long, value_name = "PLUGIN2", help_heading = "Load")]
    pub(super) vs: Option<OsString>,

    /// Rounds of --vs, which share the duration
    #[arg(
        long,
        value_name = "N",
        default_value_t = 5,
        value_parser = clap::value_parser!(u32).range(1..=1000),
        requires = "vs",
        help_heading = "Load"
    )]
    pub(super) rounds: u32,

    /// Answer requests CMD of the plugin with DATA
    ///
    /// Repeatable. Other requests are refused.
    #[arg(
        long = "answer",
        value_name = "CMD=DATA",
        help_heading = "Load",
        value_parser = OsStringValueParser::new().try_map(answers::parse)
    )]
    pub(super) answers: Vec<AnswerArg>,

    /// Write the figures to stdout as one JSON object
    #[arg(long, help_heading = "Output")]
    pub(super) json: bool,

    /// Write a page with curves of latency to FILE
    ///
    /// One file with the table, latency by percentile, a histogram, and the course of the
    /// measurement. It needs no network.
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    pub(super) html: Option<PathBuf>,

    #[command(flatten)]
    pub(super) start: StartArgs,
}

fn parse_concurrency(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(number @ 1..=1_000_000) => Ok(number),
        _ => Err("not a number of calls; write one from 1 to 1000000, as in 100".to_owned()),
    }
}

fn parse_rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if (0.001..=1e7).contains(&rate) => Ok(rate),
        _ => Err("not a rate; write calls a second from 0.001 to 10000000, as in 500".to_owned()),
    }
}
