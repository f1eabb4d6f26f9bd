//! Options of `pipeplug run`, and its help.

use std::ffi::OsString;

use clap::Args;
use clap::builder::{OsStringValueParser, TypedValueParser as _};

use crate::args::calls::CallArgs;
use crate::args::start::StartArgs;
use crate::args::units::parse_count;
use crate::exit;
use crate::output::event;
use crate::session::answers::{self, AnswerArg};

const SHORT: &str = "\
Examples:
  pipeplug run @echo --call echo hello
  pipeplug run ./plugin --call open @page.html --notify log done
  tail -f words | pipeplug run ./plugin --call suggest --data-each -

DATA is literal text, @FILE, or @- for stdin. `pipeplug run --help` has more
options: launchers, containers, Kubernetes, rights and sandbox, recording.";

const EXAMPLES: &str = "\
DATA is literal text, or @FILE for the content of a file, @- for stdin, or
@@TEXT for the text @TEXT. It may begin with one dash (-5). If it begins with
two, or is the same as an option (-v, -h), use @FILE or @-.

Arguments of a typed service (`pipeplug inspect` shows them) are a JSON object,
or words NAME=VALUE. They are checked before anything is sent: --unchecked
sends them as they are.

Examples:
  pipeplug run @echo --call echo hello
  pipeplug run ./plugin --call open @page.html --notify log done --call count
  date | pipeplug run ./plugin --call store @-
  pipeplug run ./plugin --answer ask=yes --timeout 2s --call start -- --fast
  pipeplug run ./plugin --json --call list | jq -r .data
  pipeplug run ./spell --call spell.suggest word=teh most=3
  pipeplug run ./spell --call spell.suggest '{\"word\":\"teh\",\"most\":3}'
  tail -f log | pipeplug run @echo --call grep error --stream
  pipeplug run ./plugin --call suggest --data-each words.txt --parallel 8
  pipeplug run ./target/debug/plugin --call suggest teh --watch";

/// Start a plugin, call it, and stop it
///
/// Starts the plugin, makes the calls and one-ways in the given order, and stops the plugin. Only
/// replies go to stdout, byte for byte; in a terminal each reply ends with a newline, and control
/// characters are escaped. The plugin's stderr, and its requests and one-ways to the host, go to
/// stderr. A one-way has no reply: a plugin made with pipeplug-guest reports a failed one on its
/// stderr, and the exit status does not change. Without --call and --notify the plugin runs until
/// it ends or Ctrl-C is pressed.
#[derive(Debug, Args)]
#[command(
    override_usage = "pipeplug run PLUGIN [--call|--notify CMD [DATA]]... [OPTIONS] [-- ARGS]",
    after_help = SHORT,
    after_long_help = format!("{EXAMPLES}\n\n{}\n\n{}", event::HELP, exit::HELP)
)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    pub(super) calls: CallArgs,

    /// Make the last --call or --notify a stream
    ///
    /// Stdin follows the request in parts, as it comes: with @FILE the file instead, of any size.
    /// Parts of the reply are written to stdout as they come. DATA that is no @FILE is sent with
    /// the request. The call ends when the plugin has replied, even if stdin has not ended.
    #[arg(long, help_heading = "Calls")]
    pub(super) stream: bool,

    /// Send arguments of typed services without checking them against the service's description
    #[arg(long, help_heading = "Calls", hide_short_help = true)]
    pub(super) unchecked: bool,

    /// Make all calls N times
    ///
    /// The plugin is started once.
    #[arg(
        long,
        value_name = "N",
        value_parser = parse_count::<u64>,
        conflicts_with = "stream",
        help_heading = "Calls"
    )]
    pub(super) repeat: Option<u64>,

    /// Make up to N calls at once
    ///
    /// Calls begin, and replies are written, in the given order.
    #[arg(
        long,
        value_name = "N",
        value_parser = parse_count::<u32>,
        conflicts_with = "stream",
        help_heading = "Calls"
    )]
    pub(super) parallel: Option<u32>,

    /// Make the call once for each line of FILE
    ///
    /// Each line is the DATA of a call, without its newline: words, or one JSON value (NDJSON). `-`
    /// is stdin, whose calls are made as the lines come. Replies are written in the order of the
    /// lines, each with a newline at its end if it has none. A call that fails is reported with the
    /// number of its line, and the next one follows.
    #[arg(
        long,
        value_name = "FILE",
        conflicts_with_all = ["stream", "repeat"],
        help_heading = "Calls"
    )]
    pub(super) data_each: Option<OsString>,

    /// Start again when the file of the plugin changes
    ///
    /// Makes the calls, and makes them again each time that the file has changed, as after a build,
    /// until Ctrl-C is pressed. A plugin that still runs then is stopped first, with its calls. DATA
    /// files are read once.
    #[arg(long, conflicts_with = "stream", help_heading = "Calls")]
    pub(super) watch: bool,

    /// Answer requests CMD of the plugin with DATA
    ///
    /// Repeatable. Other requests are refused.
    #[arg(
        long = "answer",
        value_name = "CMD=DATA",
        help_heading = "Calls",
        value_parser = OsStringValueParser::new().try_map(answers::parse)
    )]
    pub(super) answers: Vec<AnswerArg>,

    /// Write all events to stdout, one JSON object per line
    #[arg(long, help_heading = "Output")]
    pub(super) json: bool,

    #[command(flatten)]
    pub(super) start: StartArgs,
}
