//! `pipeplug doctor`: what this system offers, and why a plugin does not start.

mod finding;
mod plugin;
mod system;

use std::io;

use clap::Args;
use serde_json::json;

use self::finding::{Finding, State};
use crate::args::start::StartArgs;
use crate::cli::Globals;
use crate::exit::{CommandError, ExitReason};
use crate::output::report;
use crate::output::style::Paint;
use crate::output::text;

const EXAMPLES: &str = "\
Examples:
  pipeplug doctor
  pipeplug doctor ./plugin
  pipeplug doctor ./plugin --stdio --sandbox none
  pipeplug doctor ./plugin --json | jq '.plugin[] | select(.state == \"failed\")'";

const SHORT: &str = "\
Examples:
  pipeplug doctor
  pipeplug doctor ./plugin

`pipeplug doctor --help` has the states and exit statuses, and more options:
launchers (ssh, --via), containers, Kubernetes, rights and sandbox, recording.";

const STATUSES: &str = "\
States:
  ok       there is nothing to do
  limited  it works in part; the next step follows
  missing  pipeplug works without it; what does not work, and the next step follow
  failed   it prevents the start of plugins, or of this plugin

Exit status:
  0  nothing prevents a start
  1  something does: a line is `failed`
  2  the command line is wrong
  3  there is no such plugin";

/// Check what this system offers, and why a plugin does not start
///
/// With PLUGIN: examines its file, interpreter and libraries, and starts it as the options say, in
/// the sandbox of `inspect`. If that fails it is started in the other ways too: on stdin and stdout,
/// and in the other format.
// The command line makes PLUGIN optional here: `cli::command`.
#[derive(Debug, Args)]
#[command(
    override_usage = "pipeplug doctor [PLUGIN] [OPTIONS] [-- ARGS]",
    after_help = SHORT,
    after_long_help = format!("{EXAMPLES}\n\n{STATUSES}")
)]
pub(crate) struct DoctorArgs {
    /// Write one JSON object: ok, system and plugin, which are lists of check, state, detail, next
    #[arg(long, help_heading = "Output")]
    json: bool,

    #[command(flatten)]
    start: StartArgs,
}

/// Runs `pipeplug doctor`.
///
/// # Blocking
/// Until the plugin has been started in each way, some seconds each.
pub(crate) fn run(args: &DoctorArgs, globals: &Globals) -> ExitReason {
    report::exit_reason(globals.color, attempt(args, globals))
}

fn attempt(args: &DoctorArgs, globals: &Globals) -> Result<ExitReason, CommandError> {
    let system = system::check();
    let plugin = match args.start.has_plugin() {
        true => Some(plugin::check(&args.start)?),
        false => None,
    };
    let all = system.iter().chain(plugin.iter().flatten());
    let is_ok = !all.into_iter().any(|finding| finding.state == State::Failed);
    let text = if args.json {
        let list = |findings: &[Finding]| findings.iter().map(Finding::to_json).collect::<Vec<_>>();
        let plugin = plugin.as_deref().map(list);
        text::json_line(&json!({ "ok": is_ok, "system": list(&system), "plugin": plugin }))
    } else {
        let paint = Paint::choose(globals.color, &io::stdout());
        let columns = text::columns(io::stdout());
        let mut text = finding::table("system", &system, paint, columns);
        if let Some(plugin) = &plugin {
            let name = args.start.wanted().display_name();
            text.push('\n');
            text.push_str(&finding::table(&format!("plugin {name}"), plugin, paint, columns));
        }
        text
    };
    report::print(&text)?;
    Ok(if is_ok { ExitReason::Success } else { ExitReason::Failed })
}
