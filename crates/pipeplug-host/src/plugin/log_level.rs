//! The level of a plugin's own log, which its host sets.

use std::fmt;
use std::str::FromStr;

use pipeplug_net::NotifyError;
use pipeplug_net::internal::handshake;
use pipeplug_net::wire::command;

use crate::plugin::Plugin;

/// The least severe events that a plugin logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LogLevel {
    /// None.
    Off,
    /// Errors.
    Error,
    /// The same, and warnings.
    Warn,
    /// The same, and information: the default of plugins.
    Info,
    /// The same, and details.
    Debug,
    /// All events.
    Trace,
}

const NAMES: [(LogLevel, &str); 6] = [
    (LogLevel::Off, "off"),
    (LogLevel::Error, "error"),
    (LogLevel::Warn, "warn"),
    (LogLevel::Info, "info"),
    (LogLevel::Debug, "debug"),
    (LogLevel::Trace, "trace"),
];

impl LogLevel {
    pub(crate) fn name(self) -> &'static str {
        NAMES.iter().find(|(level, _)| *level == self).map_or("info", |(_, name)| name)
    }
}

impl fmt::Display for LogLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Error of parsing a [`LogLevel`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no such log level: off, error, warn, info, debug and trace are")]
pub struct ParseLogLevelError(());

impl FromStr for LogLevel {
    type Err = ParseLogLevelError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let found = NAMES.iter().find(|(_, name)| *name == text);
        found.map(|(level, _)| *level).ok_or(ParseLogLevelError(()))
    }
}

/// Error of [`Plugin::set_log_level`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LogLevelError {
    /// The plugin sets its level by itself.
    #[error(
        "{plugin} does not take the level of its log from its host: its answer to GetMetadata does not name the feature \
         `log` (pipeplug_guest::logging)"
    )]
    Unsupported {
        /// Name of the plugin.
        plugin: String,
    },
    /// The level could not be sent.
    #[error(transparent)]
    Notify(NotifyError),
}

impl Plugin {
    /// Tells whether the plugin takes the level of its log from the host.
    #[must_use]
    pub fn takes_log_level(&self) -> bool {
        handshake::names_feature(|key| self.metadata().value(key), handshake::FEATURE_LOG)
    }

    /// Sets the level of the plugin's own log while it runs. [`PluginBuilder::log_level`] is that of
    /// its start, and of each restart.
    ///
    /// [`PluginBuilder::log_level`]: crate::PluginBuilder::log_level
    ///
    /// # Errors
    /// The plugin sets its level by itself, or is gone.
    ///
    /// ```no_run
    /// use pipeplug_host::{LogLevel, Plugin};
    ///
    /// let plugin = Plugin::builder("./plugin").log_level(LogLevel::Warn).start()?;
    /// plugin.set_log_level(LogLevel::Debug)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn set_log_level(&self, level: LogLevel) -> Result<(), LogLevelError> {
        if !self.takes_log_level() {
            return Err(LogLevelError::Unsupported { plugin: self.name().to_owned() });
        }
        self.connection()
            .notify_by_protocol(command::LOG_LEVEL, level.name().into())
            .map_err(LogLevelError::Notify)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written() {
        for (level, name) in NAMES {
            assert_eq!((name.parse(), level.to_string().as_str()), (Ok(level), name));
        }
        assert!("INFO".parse::<LogLevel>().is_err());
        assert!(LogLevel::Debug > LogLevel::Info);
    }
}
