//! The level of a supervised plugin's own log, which outlives its processes.

use std::sync::{Arc, MutexGuard, PoisonError};

use super::state::Shared;
use super::{Pool, Supervisor};
use crate::plugin::{LogLevel, LogLevelError, Plugin};

impl Shared {
    fn set_log_level(&self, level: LogLevel) -> Result<(), LogLevelError> {
        let mut log_level = self.log_level();
        *log_level = Some(level);
        let plugin = self.up();
        let set = plugin.as_ref().map_or(Ok(()), |plugin| send(plugin, level));
        drop(log_level);
        drop(plugin); // not under the lock: it may be the last handle
        set
    }

    /// Level that later starts have, if one was set.
    pub(super) fn log_level(&self) -> MutexGuard<'_, Option<LogLevel>> {
        // Held while the level is sent, which waits for nothing: of two levels that are set at once
        // the plugin gets the one last that is kept. Taken before the lock of the state.
        self.log_level.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends a process that was started just now a level that was set meanwhile.
    pub(super) fn catch_up_log_level(self: &Arc<Self>, plugin: Plugin) {
        let shared = Arc::clone(self);
        // On another thread: the caller holds the lock of the state.
        self.events.spawn(move || {
            let log_level = shared.log_level();
            if let Some(level) = *log_level
                && let Err(error) = send(&plugin, level)
            {
                tracing::debug!(plugin = plugin.name(), %error, "the level of its log was not set");
            }
            drop(log_level);
        });
    }
}

fn send(plugin: &Plugin, level: LogLevel) -> Result<(), LogLevelError> {
    match plugin.set_log_level(level) {
        // Its process has ended, and the next one starts with the level.
        Err(LogLevelError::Notify(_)) => Ok(()),
        set => set,
    }
}

impl Supervisor {
    /// Sets the level of the plugin's own log: now, if it runs, and for each later start, in place
    /// of [`PluginBuilder::log_level`](crate::PluginBuilder::log_level). A process that
    /// [`replace`](Supervisor::replace) starts has it, too. Starts nothing.
    ///
    /// # Errors
    /// The plugin that runs sets its level by itself ([`Plugin::takes_log_level`]).
    ///
    /// ```no_run
    /// use pipeplug_host::{LogLevel, Plugin, Supervisor};
    ///
    /// let supervisor = Supervisor::builder(Plugin::builder("./plugin")).build()?;
    /// supervisor.set_log_level(LogLevel::Debug)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn set_log_level(&self, level: LogLevel) -> Result<(), LogLevelError> {
        self.shared().set_log_level(level)
    }
}

impl Pool {
    /// Sets the level of the log of each process as [`Supervisor::set_log_level`] does.
    ///
    /// # Errors
    /// The first one's; the level is set for the others, too.
    pub fn set_log_level(&self, level: LogLevel) -> Result<(), LogLevelError> {
        let set: Vec<_> = self.members().iter().map(|member| member.set_log_level(level)).collect();
        set.into_iter().collect()
    }
}
