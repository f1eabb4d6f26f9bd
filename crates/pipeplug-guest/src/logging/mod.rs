//! The plugin's log: events of `tracing` on standard error, in a form that keeps level, target and
//! fields on their way into the log of the host.

use std::io;
use std::sync::OnceLock;

use tracing_subscriber::Registry;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::reload::{self, Handle};
use tracing_subscriber::util::SubscriberInitExt as _;

static LEVEL: OnceLock<Handle<LevelFilter, Registry>> = OnceLock::new();

/// Error of [`logging`].
#[derive(Debug, thiserror::Error)]
#[error(
    "the log of the plugin cannot be set up: the process has a subscriber of tracing already; call logging() once, \
     before others set one"
)]
pub struct LoggingError(());

/// Logs the plugin's events of `tracing`: installs a subscriber that writes each as a line of JSON
/// to standard error. The host's `tracing` has them with level, target and fields.
///
/// The level is INFO until the host sets another one, with `PluginBuilder::log_level` of
/// `pipeplug-host` at the start, or with `Plugin::set_log_level` later. Call it before registering:
/// the host is told then that it can set the level.
///
/// # Errors
/// The process has a subscriber already.
///
/// ```no_run
/// # fn main() -> Result<std::process::ExitCode, Box<dyn std::error::Error>> {
/// pipeplug_guest::logging()?;
/// let main = pipeplug_guest::Guest::new().register();
/// tracing::warn!(target: "words", count = 3, "no such word");
/// # Ok(main.wait())
/// # }
/// ```
pub fn logging() -> Result<(), LoggingError> {
    let (filter, handle) = reload::Layer::new(LevelFilter::INFO);
    let lines =
        tracing_subscriber::fmt::layer().json().with_span_list(false).with_writer(io::stderr);
    tracing_subscriber::registry()
        .with(filter)
        .with(lines)
        .try_init()
        .map_err(|_| LoggingError(()))?;
    // Set once: there is one subscriber.
    let _ = LEVEL.set(handle);
    Ok(())
}

/// Tells whether the host can set the level.
pub(crate) fn is_installed() -> bool {
    LEVEL.get().is_some()
}

/// Sets the level by its name. Returns false if there is no such level, or no subscriber.
pub(crate) fn set_level(name: &str) -> bool {
    let level = match name {
        "off" => LevelFilter::OFF,
        "error" => LevelFilter::ERROR,
        "warn" => LevelFilter::WARN,
        "info" => LevelFilter::INFO,
        "debug" => LevelFilter::DEBUG,
        "trace" => LevelFilter::TRACE,
        _ => return false,
    };
    LEVEL.get().is_some_and(|handle| handle.reload(level).is_ok())
}
