//! End of a run: the wait for a plugin that is not called, and the exit status.

use std::io::{self, IsTerminal as _};
use std::time::Duration;

use pipeplug_host::{CloseReason, Plugin, StopError, Stopped, StoppedBy, WaitStatus};

use crate::exit::{CommandError, ExitReason};
use crate::output::event::Event;
use crate::output::report::Report;
use crate::session::shutdown::Shutdown;

/// Time for a plugin that closed its pipe to exit, so that its exit status can be reported.
pub(super) const EXIT_TIMEOUT: Duration = Duration::from_millis(500);

/// Waits until the plugin ends by itself or is stopped.
pub(super) fn run_until_end(plugin: &Plugin, report: &Report) -> Result<ExitReason, CommandError> {
    if io::stderr().is_terminal() {
        report.note(format_args!(
            "{} runs until it ends or Ctrl-C is pressed (--call CMD calls it)",
            plugin.name()
        ));
    }
    let reason = plugin.connection().wait_closed(Duration::MAX);
    let failed = |error: io::Error| CommandError::new(ExitReason::Died, error);
    if plugin.wait(EXIT_TIMEOUT).map_err(failed)?.is_some() {
        return Ok(ExitReason::Success);
    }
    match reason.as_deref() {
        Some(CloseReason::EndOfFile) | None => {
            report.note(format_args!("{} has closed its pipe and still runs", plugin.name()));
            plugin.wait(Duration::MAX).map_err(failed)?;
            Ok(ExitReason::Success)
        }
        Some(reason) => {
            let failure = CommandError::message(ExitReason::Died, reason);
            Err(CommandError { stderr: plugin.stderr_tail(), ..failure })
        }
    }
}

/// Combines the result of the calls with the end of the plugin.
pub(crate) fn final_reason(
    name: &str,
    result: Result<ExitReason, CommandError>,
    stopped: Result<Stopped, StopError>,
    report: &Report,
    shutdown: &Shutdown,
) -> Result<ExitReason, CommandError> {
    let result = match (shutdown.failure(), result, &stopped) {
        // A run that fails during a shutdown fails because of the shutdown.
        (Some(failure), _, _) => Err(failure),
        (None, Ok(_), Ok(stopped)) if ended_badly(stopped) => {
            let Stopped { status, by, .. } = stopped;
            let when = if *by == StoppedBy::Stop {
                "did not stop as it should"
            } else {
                "has ended by itself"
            };
            Err(CommandError::message(ExitReason::Died, format!("{name} {when}: {status}")))
        }
        (None, result, _) => result,
    };
    let reason = result.unwrap_or_else(|failure| {
        report.show(&Event::Failed(&failure));
        failure.reason
    });
    match stopped {
        Ok(stopped) => report.show(&Event::Ended(stopped)),
        Err(error) => return Err(CommandError::new(ExitReason::Died, error)),
    }
    Ok(reason)
}

/// True if the plugin crashed or failed by itself, and not because it was killed.
fn ended_badly(stopped: &Stopped) -> bool {
    match stopped.by {
        StoppedBy::Itself | StoppedBy::Stop => {
            !stopped.status.success() && stopped.status != WaitStatus::Unknown
        }
        // A crash closes the pipe as well. A plugin that loses its host may exit with any status.
        StoppedBy::EndOfFile => matches!(stopped.status, WaitStatus::Signaled { .. }),
        _ => false,
    }
}
