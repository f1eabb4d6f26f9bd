//! `pipeplug top`: shows the running plugins of this user's hosts.

mod screen;
mod table;

use std::io::{self, IsTerminal as _};
use std::thread;
use std::time::Duration;

use clap::Args;
use pipeplug_host::PluginBuilder;
use pipeplug_host::status::{self, Hosts};

use crate::args::units::parse_duration;
use crate::cli::Globals;
use crate::exit::{CommandError, ExitReason};
use crate::output::report;
use crate::output::style::Paint;
use crate::output::text;
use table::Table;

/// Variable that has the commands of this program publish the plugins that they start.
const VARIABLE: &str = "PIPEPLUG_TOP";

/// Shortest interval; hosts publish once a second.
const SHORTEST: Duration = Duration::from_millis(100);

const HELP: &str = "\
Hosts are shown that opted in:
  a host in Rust   with .publish_status() on its PluginBuilder
  pipeplug itself  with PIPEPLUG_TOP=1 in the environment of run, shell, bench, dev

Columns: open calls, replies per second, times within which half and 99 of 100
calls had their replies, memory (of a plugin with its descendants, of a host
without its plugins), restarts by a supervisor, and time since the start.

Examples:
  PIPEPLUG_TOP=1 pipeplug shell ./plugin    in one terminal
  pipeplug top                              in another one; q ends it
  pipeplug top --once
  pipeplug top --interval 5s >>top.log
  pipeplug top --once --json | jq '.hosts[].plugins[] | select(.restarts > 0)'";

const LONG_HELP: &str = "\
States: starting, running, ended. With a supervisor also
down (the next call starts it), stopping, restarting (it failed), gave up, and
stopped. A host is silent if it has published nothing for 5 seconds.

JSON: hosts (name, pid, is_silent, memory, plugins) and problems (file, problem).
A plugin has name, pid, state, in_flight, calls, calls_per_s, p50_us, p99_us,
memory (bytes), restarts, uptime_s, launcher; null is what is not known.

Each host has one file in $XDG_RUNTIME_DIR/pipeplug, or else in
pipeplug-UID below $TMPDIR or /tmp. Only its user may use that directory.

Exit status:
  0  also if there is no host, and after q or Ctrl-C
  1  the directory cannot be read or belongs to another user
  2  the command line is wrong";

/// Show the running plugins of your hosts: calls in flight, rates, times, memory, restarts
///
/// Shows a table in the terminal, which q or Ctrl-C ends. In a pipe it is written once, or with
/// --interval again and again.
#[derive(Debug, Args)]
#[command(after_help = HELP, after_long_help = format!("{HELP}\n\n{LONG_HELP}"))]
pub(crate) struct TopArgs {
    /// Show it once and end
    #[arg(long, conflicts_with = "interval")]
    once: bool,

    /// Time between two looks, as 500ms or 5s [default: 1s]
    #[arg(long, value_name = "TIME", value_parser = parse_interval)]
    interval: Option<Duration>,

    /// Write one JSON object; without --once one per line and interval
    #[arg(long, help_heading = "Output")]
    json: bool,
}

/// Runs `pipeplug top`.
///
/// # Blocking
/// Until the user ends it, unless it is shown once.
pub(crate) fn run(args: &TopArgs, globals: &Globals) -> ExitReason {
    report::exit_reason(globals.color, attempt(args, globals))
}

/// Has the plugin published if the user's environment says so.
pub(crate) fn publish_if_asked(builder: PluginBuilder) -> PluginBuilder {
    match std::env::var_os(VARIABLE) {
        Some(value) if !value.is_empty() && value != "0" => builder.publish_status(),
        _ => builder,
    }
}

fn attempt(args: &TopArgs, globals: &Globals) -> Result<ExitReason, CommandError> {
    let paint = Paint::choose(globals.color, &io::stdout());
    let interval = args.interval.unwrap_or(Duration::from_secs(1));
    let is_terminal = io::stdout().is_terminal();
    let has_screen = is_terminal && std::env::var_os("TERM").is_none_or(|term| term != "dumb");
    if has_screen && !args.once && !args.json {
        return screen::run(interval, paint);
    }
    let is_once = args.once || !(args.json || args.interval.is_some() || is_terminal);
    for round in 0_u64.. {
        let hosts = look()?;
        let text = if args.json {
            to_json(&hosts)
        } else {
            let table = Table { hosts: &hosts, paint, columns: text::columns(io::stdout()) };
            let separator = if round > 0 { "\n" } else { "" };
            format!("{separator}{}", table.lines().join("\n") + "\n")
        };
        report::print(&text)?;
        if is_once {
            break;
        }
        thread::sleep(interval);
    }
    Ok(ExitReason::Success)
}

fn look() -> Result<Hosts, CommandError> {
    status::read().map_err(|error| {
        let message = format!("the status of plugins cannot be read: {error}");
        CommandError::message(ExitReason::Failed, message)
    })
}

fn to_json(hosts: &Hosts) -> String {
    // Maps have keys of text, and no value can fail.
    text::json_line(&serde_json::to_value(hosts).unwrap_or_default())
}

fn parse_interval(text: &str) -> Result<Duration, String> {
    let interval = parse_duration(text)?;
    if interval < SHORTEST {
        return Err(format!("the shortest interval is {} ms", SHORTEST.as_millis()));
    }
    Ok(interval)
}
