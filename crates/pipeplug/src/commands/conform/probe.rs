//! Looks at the plugin beside the checks: whether it has the commands of the user, and whether any check
//! can pass.

use std::time::{Duration, Instant};

use pipeplug_wire::command;
use serde_json::Value;

use super::guest::{Call, NOT_STARTED, Setup, Way};
use super::outcome::{Checked, Stop};
use super::peer::{Input, is_error, is_response, shown};
use crate::exit;
use crate::output::text::Escaped;

/// Time in which a slow call is not answered.
pub(super) const SLOW: Duration = Duration::from_millis(150);

/// Time for a plugin to say something, of which the checks may leave less.
const SILENCE: Duration = Duration::from_secs(10);

/// Checks that a call which the user has named is answered as its option says.
///
/// # Errors
/// The message names it, and the nearest command. A plugin that says nothing is left to the checks.
pub(super) fn check_call(setup: &Setup, option: &str, call: &Call) -> Result<(), String> {
    let timeout = if option == "--slow" { SLOW } else { setup.limit };
    let ask = || -> Checked<Option<_>> {
        let mut guest = setup.begin_with("failure", &[])?;
        let id = guest.request(&call.cmd, &call.data)?;
        guest.find(timeout, |chunk| is_response(chunk, id))
    };
    let Ok(Some(response)) = ask() else { return Ok(()) };
    let cmd = Escaped(&call.cmd);
    if !is_error(&response) {
        let message = format!(
            "{option} {cmd}: the plugin answers at once, with {}; name a command that takes about a \
             second, or leave {option} out",
            shown(&response)
        );
        return if option == "--slow" { Err(message) } else { Ok(()) };
    }
    let failure: Value = match response.command.as_str() {
        command::FAILURE => serde_json::from_slice(&response.buffer).unwrap_or_default(),
        _ => Value::Null,
    };
    let text = String::from_utf8_lossy(&response.buffer);
    let message = failure["message"].as_str().unwrap_or(&text);
    let is_unknown = match failure["code"].as_str() {
        Some(code) => code == pipeplug_host::failure_code::UNKNOWN_COMMAND,
        None => message.to_ascii_lowercase().contains("unknown command"),
    };
    // An error may be what the command answers; the checks that need a reply say so.
    if !is_unknown && option != "--slow" {
        return Ok(());
    }
    let next = if is_unknown {
        exit::known_commands(&call.cmd, failure.get("data"))
    } else {
        format!("name a command, with DATA that it takes: {option} CMD=DATA")
    };
    Err(format!("{option} {cmd}: the plugin answers with an error: {}; {next}", Escaped(message)))
}

/// Description of what came from a plugin that does not start, or says nothing at all. `None` if it says
/// something, also if it does so on stdin and stdout only.
///
/// # Blocking
/// Until it has answered, at most for [`SILENCE`] or the time limit of a check.
pub(super) fn silent_plugin(setup: &Setup) -> Option<String> {
    // Some understand no offer, as hosts before the negotiation sent none, and some need one.
    let offer = setup.offer("", &[]);
    let came = silence(setup, Way::Usual, &offer)?;
    silence(setup, Way::Usual, b"")?;
    silence(setup, Way::Stdio, &offer)?;
    Some(came)
}

/// Description of what came in place of anything at all from a plugin that is reached in this way.
fn silence(setup: &Setup, way: Way, offer: &[u8]) -> Option<String> {
    let mut guest = match setup.start_by(way, setup.format) {
        Ok(guest) => guest,
        Err(Stop::Failed(came) | Stop::NotApplicable(came)) => {
            return Some(came.strip_prefix(NOT_STARTED).unwrap_or(&came).to_owned());
        }
    };
    let timeout = setup.limit.max(SILENCE);
    guest.deadline = Instant::now() + timeout;
    let came = match guest.request(command::GET_METADATA, offer) {
        Ok(_) => guest.find(timeout, |_| true),
        Err(stop) => Err(stop),
    };
    let is_silent = guest.odd.is_empty() && !matches!(guest.state, Input::Broken(_));
    let stop = match came {
        Ok(None) if is_silent => guest.missing("answer to GetMetadata"),
        Err(stop) if is_silent => stop,
        _ => return None,
    };
    match guest.explained(stop) {
        Stop::Failed(came) => Some(format!("the plugin says nothing: {came}")),
        Stop::NotApplicable(_) => None,
    }
}
