//! Builder of a supervisor.

use std::sync::Arc;
use std::time::Duration;

use pipeplug_net::EventLoop;

use super::event::{Event, OnEvent};
use super::settings::{Backoff, Breaker, HealthCheck, Settings};
use super::state::Shared;
use super::{Handle, Supervisor};
use crate::plugin::{PluginBuilder, StartError, StartErrorKind};

/// A supervisor before it supervises.
#[derive(Clone)]
#[must_use = "a builder does nothing until it builds"]
pub struct SupervisorBuilder {
    pub(super) plugin: PluginBuilder,
    settings: Settings,
    on_event: Option<OnEvent>,
}

impl SupervisorBuilder {
    pub(super) fn new(plugin: PluginBuilder) -> Self {
        Self {
            plugin,
            settings: Settings {
                backoff: Backoff::default(),
                breaker: Breaker::default(),
                health_check: None,
                idle_timeout: None,
                ready_timeout: Duration::from_secs(10),
                drain_timeout: Duration::from_secs(30),
                upgrade_timeout: Duration::from_secs(30),
                shutdown_wait: Duration::from_millis(500),
                retries: 2,
            },
            on_event: None,
        }
    }

    /// Sets the wait before each restart.
    pub fn backoff(mut self, backoff: Backoff) -> Self {
        self.settings.backoff = backoff;
        self
    }

    /// After how many failures to give up.
    pub fn breaker(mut self, breaker: Breaker) -> Self {
        self.settings.breaker = breaker;
        self
    }

    /// Pings the plugin while it runs, and replaces one that hangs. Default: no pings.
    pub fn health_check(mut self, check: HealthCheck) -> Self {
        self.settings.health_check = Some(check);
        self
    }

    /// Stops the plugin once no call has been open for so long; the next call starts it. One-ways
    /// count as calls that are over once they are sent. Default: never.
    pub fn idle_timeout(mut self, timeout: Duration) -> Self {
        self.settings.idle_timeout = Some(timeout);
        self
    }

    /// Maximum time that a call waits for a start by another call, or for a restart to be due; with
    /// 0 it fails at once. A start that the call itself begins has its own limit
    /// ([`PluginBuilder::handshake_timeout`]). Default: 10 seconds.
    pub fn ready_timeout(mut self, timeout: Duration) -> Self {
        self.settings.ready_timeout = timeout;
        self
    }

    /// Time for open calls to end when the plugin is [replaced](Supervisor::replace). The old
    /// process is stopped after it in any case. Default: 30 seconds.
    pub fn drain_timeout(mut self, timeout: Duration) -> Self {
        self.settings.drain_timeout = timeout;
        self
    }

    /// How long the file of a plugin that has run may be away, not executable, not whole or open
    /// for writing, as in the middle of an upgrade: for so long its start is tried again after each
    /// [backoff](Self::backoff), and no such failure counts for the [breaker](Self::breaker). 0 has
    /// it given up at once. Default: 30 seconds.
    pub fn upgrade_timeout(mut self, timeout: Duration) -> Self {
        self.settings.upgrade_timeout = timeout;
        self
    }

    /// The shortest wait before the restart of a plugin that was ended by SIGTERM, SIGINT or
    /// SIGHUP, none of which its supervisor had sent: a service manager sends these to all
    /// processes of a service, and the host is about to [stop](Supervisor::stop) too. A longer
    /// [`backoff`](Self::backoff) stays what it is. 0 has such an end treated as any other.
    /// Default: 500 ms.
    pub fn shutdown_wait(mut self, wait: Duration) -> Self {
        self.settings.shutdown_wait = wait;
        self
    }

    /// Maximum number of repetitions of a call that its caller marked as idempotent. Other calls
    /// are not repeated. A failed start that the call waited for counts as an attempt. Default: 2,
    /// so three attempts.
    pub fn retries(mut self, retries: u32) -> Self {
        self.settings.retries = retries;
        self
    }

    /// Called with the plugin's name and each event of its life, in their order and one at a time,
    /// on a thread that no handler takes; beside the `tracing` events that there are anyway. It may
    /// block and use the supervisor; the next event waits for it, the supervisor does not: of more
    /// than 128 that wait the oldest are left out, with a warning. What holds a handle to the
    /// supervisor itself keeps it from being dropped.
    pub fn on_event(mut self, on_event: impl Fn(&str, &Event) + Send + Sync + 'static) -> Self {
        self.on_event = Some(Arc::new(on_event));
        self
    }

    /// A supervisor, whose plugin is started by the first call, or by [`Supervisor::start`].
    ///
    /// # Errors
    /// The system cannot make an event loop.
    pub fn build(self) -> Result<Supervisor, StartError> {
        let events = match &self.plugin.events {
            Some(events) => events.clone(),
            None => EventLoop::shared().map_err(|error| {
                StartError::new(self.plugin.path(), None, StartErrorKind::System { error })
            })?,
        };
        let shared = Shared::new(self.plugin, self.settings, events, self.on_event);
        let published = shared.publishes.then(|| shared.publish());
        Ok(Supervisor(Arc::new(Handle { shared, _published: published })))
    }
}

impl std::fmt::Debug for SupervisorBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SupervisorBuilder")
            .field("plugin", &self.plugin)
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}
