//! Description of the typed services of a plugin.

use std::sync::Arc;
use std::time::Duration;

use pipeplug_host::{Metadata, Plugin, StopError, Stopped};
use pipeplug_service::{Description, GET_SERVICES, KEY_SERVICES};

use crate::args::data::Loader;
use crate::args::sandbox::Level;
use crate::args::start::StartArgs;
use crate::args::target::Target;
use crate::cli::Globals;
use crate::complete::remembered;
use crate::exit::{CommandError, ExitReason};
use crate::output::event::Event;
use crate::output::report::{Mode, Report};
use crate::session::Session;
use crate::session::answers::AnswerHandler;
use crate::session::shutdown::Shutdown;

/// Time for the description, unless `--timeout` says another.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Asks a plugin for the description of its services. `None` if its metadata lists none.
///
/// # Errors
/// It does not answer, or with something else. The exit reason is that of a failed call.
///
/// # Blocking
/// Until it has answered, or a shutdown begins.
pub(crate) fn ask(
    plugin: &Plugin,
    timeout: Option<Duration>,
    shutdown: &Shutdown,
) -> Result<Option<Description>, CommandError> {
    if plugin.metadata().value(KEY_SERVICES).is_none() {
        return Ok(None);
    }
    let name = plugin.name();
    let failed = |problem: &dyn std::fmt::Display| {
        let message = format!("{name} does not describe its services: {problem}");
        shutdown.failure().unwrap_or_else(|| CommandError::message(ExitReason::Failed, message))
    };
    let request = plugin.request(GET_SERVICES, "").timeout(timeout.unwrap_or(TIMEOUT));
    let call = request.begin().map_err(|error| failed(&error))?;
    let reply = shutdown.wait_for(call).ok_or_else(|| failed(&"interrupted"))?;
    let bytes = reply.map_err(|error| failed(&error))?.into_bytes();
    let described = serde_json::from_slice(&bytes).map_err(|error| failed(&error))?;
    remembered::remember(plugin.path(), &described);
    Ok(Some(described))
}

/// Starts a plugin, asks for the description of its services, and stops it. `None` if it has none.
///
/// # Errors
/// The plugin is not found, does not start or does not answer.
///
/// # Blocking
/// Until the plugin has ended.
pub(crate) fn of_plugin(
    start: &StartArgs,
    globals: &Globals,
    shutdown: &Shutdown,
) -> Result<Option<Description>, CommandError> {
    while_started(start, globals, shutdown, |running, timeout| ask(running, timeout, shutdown))
}

/// Starts a plugin for its metadata, and stops it.
///
/// # Errors
/// The plugin is not found, does not start or does not answer.
///
/// # Blocking
/// Until the plugin has ended.
pub(crate) fn metadata(
    start: &StartArgs,
    globals: &Globals,
    shutdown: &Shutdown,
) -> Result<Metadata, CommandError> {
    while_started(start, globals, shutdown, |running, _| Ok(running.metadata().clone()))
}

/// Starts a plugin, asks it something, and stops it.
fn while_started<T>(
    start: &StartArgs,
    globals: &Globals,
    shutdown: &Shutdown,
    ask: impl FnOnce(&Plugin, Option<Duration>) -> Result<T, CommandError>,
) -> Result<T, CommandError> {
    let level = start.level(Level::OF_UNKNOWN);
    start.check(level)?;
    let report =
        Arc::new(Report::new(Mode::Text, &start.wanted().display_name(), globals, shutdown));
    let target = Target::find(start.wanted())?;
    let answers = AnswerHandler::load(&[], &mut Loader::default(), &report)?;
    let session = Session::start(&target, start, level, &report, shutdown, answers)?;
    let answer = ask(&session.plugin, start.timeout);
    let stopped = session.end();
    if let Some(failure) = shutdown.failure() {
        return Err(failure);
    }
    let answer = answer?;
    show_end(stopped, &report)?;
    Ok(answer)
}

/// Shows the end of a plugin that was only asked.
fn show_end(stopped: Result<Stopped, StopError>, report: &Report) -> Result<(), CommandError> {
    match stopped {
        Ok(stopped) => report.show(&Event::Ended(stopped)),
        Err(error) => return Err(CommandError::new(ExitReason::Died, error)),
    }
    Ok(())
}

/// The error of a plugin without typed services.
pub(crate) fn no_services(plugin: &str) -> CommandError {
    let message = format!(
        "{plugin} has no typed services, which its metadata would list as {KEY_SERVICES}; \
         `pipeplug inspect` shows what it says of itself"
    );
    CommandError::message(ExitReason::Failed, message)
}
