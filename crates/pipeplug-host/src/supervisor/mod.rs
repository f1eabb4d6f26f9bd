//! A plugin that is kept running: restarted when it fails, started when it is called, stopped when
//! it is not.

mod awaited;
mod builder;
mod calls;
mod control;
mod error;
mod event;
mod health;
mod instance;
mod log_level;
mod pool;
mod settings;
mod state;
mod status;
mod transitions;

use std::sync::Arc;

use pipeplug_net::internal::Offloaded;

pub use awaited::AwaitedSupervisedCall;
pub use builder::SupervisorBuilder;
pub use error::{SupervisedCallError, SupervisedNotifyError, Unavailable, UnavailableKind};
pub use event::{EndCause, Event, PluginFailure};
pub use instance::SupervisedCall;
pub use pool::Pool;
pub use settings::{Backoff, Breaker, HealthCheck};

use crate::plugin::{Plugin, PluginBuilder, StopError, Stopped};
use crate::process::Pid;
use crate::status::Published;
use calls::{Leases, Patience, supervised_caller};
use instance::Lease;
use state::Shared;

/// A plugin that is kept running.
///
/// The first call starts it. From then on it is restarted whenever it ends by itself or hangs,
/// after a wait that grows ([`Backoff`]), until it has failed too often ([`Breaker`]) or in a way
/// that a restart cannot heal: a file that is missing or cannot be executed, an exit status of 126
/// or 127, the wrong format. It stays so until [`reset`](Supervisor::reset) or
/// [`replace`](Supervisor::replace). A plugin without calls can be stopped until the next one
/// ([`idle_timeout`](SupervisorBuilder::idle_timeout)).
///
/// A call that comes while there is no plugin waits for the start that is under way, or begins it:
/// one start for all who wait, and one error where it fails. A call is made again only where its
/// caller said that it may be ([`RequestBuilder::idempotent`](crate::RequestBuilder::idempotent)).
///
/// A handle: cloning it is cheap, and dropping the last one stops the plugin as
/// [`stop`](Supervisor::stop) does. That blocks or goes on in the background by the rule of
/// [`Plugin`]: in the background if anything of it was ever awaited, or with
/// [`PluginBuilder::stop_in_background`]. The plugin's own handler is handed the [`Plugin`] that asks,
/// and answers with that: what it asked of the supervisor might be another process, or wait for a
/// start that waits for the handler.
///
/// ```no_run
/// use std::time::Duration;
/// use pipeplug_host::{Plugin, Supervisor};
///
/// let echo = Supervisor::builder(Plugin::builder("./target/debug/echo"))
///     .idle_timeout(Duration::from_secs(60))
///     .on_event(|plugin, event| eprintln!("{plugin}: {event}"))
///     .build()?;
/// assert_eq!(echo.call("echo", "hello")?, "hello"); // starts it
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Supervisor(Arc<Handle>);

/// Shared handle of the owners of a supervisor.
struct Handle {
    shared: Arc<Shared>,
    /// Publishes the status until it is dropped.
    _published: Option<Published>,
}

impl Supervisor {
    /// A supervisor to build, for what `plugin` starts.
    pub fn builder(plugin: PluginBuilder) -> SupervisorBuilder {
        SupervisorBuilder::new(plugin)
    }

    /// Starts the plugin if it does not run, also behind a [`stop`](Supervisor::stop).
    ///
    /// # Errors
    /// The plugin did not start, or is given up.
    ///
    /// # Blocking
    /// Until it runs, or its start has failed.
    pub fn start(&self) -> Result<(), Unavailable> {
        self.shared().open();
        self.acquire(Patience::default()).map(drop)
    }

    /// Starts the plugin as [`start`](Supervisor::start) does, and awaits that it runs.
    ///
    /// # Errors
    /// As for [`start`](Supervisor::start).
    ///
    /// # Cancellation
    /// The start goes on if the future is dropped: the plugin is the supervisor's.
    pub async fn start_async(&self) -> Result<(), Unavailable> {
        self.shared().open();
        self.acquire_async(Patience::default()).await.map(drop)
    }

    /// Returns the process that calls go to as [`plugin`](Supervisor::plugin) does, and awaits its
    /// start if need be.
    ///
    /// # Errors
    /// As for [`start`](Supervisor::start).
    pub async fn plugin_async(&self) -> Result<Plugin, Unavailable> {
        self.acquire_async(Patience::default()).await.map(|lease| lease.plugin().clone())
    }

    /// Replaces the plugin as [`replace`](Supervisor::replace) does, and awaits the end of the
    /// process before.
    ///
    /// # Errors
    /// As for [`replace`](Supervisor::replace).
    ///
    /// # Cancellation
    /// The replacement goes on if the future is dropped.
    pub async fn replace_async(&self, plugin: PluginBuilder) -> Result<(), Unavailable> {
        self.offload(|supervisor| supervisor.replace(plugin)).await
    }

    /// Restarts the plugin as [`restart`](Supervisor::restart) does, and awaits the end of the
    /// process before.
    ///
    /// # Errors
    /// As for [`restart`](Supervisor::restart).
    ///
    /// # Cancellation
    /// The restart goes on if the future is dropped.
    pub async fn restart_async(&self) -> Result<(), Unavailable> {
        self.offload(Supervisor::restart).await
    }

    /// Stops the plugin as [`stop`](Supervisor::stop) does, and awaits its end.
    ///
    /// # Errors
    /// As for [`stop`](Supervisor::stop).
    ///
    /// # Cancellation
    /// The stop goes on if the future is dropped.
    pub async fn stop_async(&self) -> Result<Option<Stopped>, StopError> {
        self.offload(Supervisor::stop).await
    }

    /// Runs a method that blocks on a thread of the event loop.
    fn offload<T: Send + 'static>(
        &self,
        run: impl FnOnce(&Self) -> T + Send + 'static,
    ) -> Offloaded<T> {
        self.shared().note_awaited();
        let supervisor = self.clone();
        self.shared().events.offload(move || run(&supervisor))
    }

    /// Starts another process, has new calls go there, waits until the calls that are open on the
    /// one before have ended ([`drain_timeout`](SupervisorBuilder::drain_timeout)), and stops it.
    /// No call is lost. `plugin` is what is started from here on, and forgiven what the one before
    /// did.
    ///
    /// Where the new one does not start, the old one goes on as if nothing had happened.
    ///
    /// # Errors
    /// The plugin did not start, or the supervisor was stopped.
    ///
    /// # Blocking
    /// Until the one before has ended. Calls do not wait for it. Not to be called from a handler of
    /// the plugin: that one is waited for.
    pub fn replace(&self, plugin: PluginBuilder) -> Result<(), Unavailable> {
        self.shared().replace(Some(plugin))
    }

    /// Like [`replace`](Supervisor::replace), by another process of the same plugin.
    ///
    /// # Errors
    /// As [`replace`](Supervisor::replace).
    ///
    /// # Blocking
    /// As [`replace`](Supervisor::replace).
    pub fn restart(&self) -> Result<(), Unavailable> {
        self.shared().replace(None)
    }

    /// Forgets all failures: a plugin that was given up, or waits for its restart, is started by
    /// the next call.
    pub fn reset(&self) {
        self.shared().reset();
    }

    /// Stops the plugin as [`Plugin::stop`] does, and starts it no more: calls fail from here on,
    /// until [`start`](Supervisor::start). `None` where nothing ran.
    ///
    /// # Errors
    /// As [`Plugin::stop`].
    ///
    /// # Blocking
    /// As [`Plugin::stop`].
    pub fn stop(&self) -> Result<Option<Stopped>, StopError> {
        self.shared().stop()
    }

    /// The process that calls go to, which is started if need be: for its metadata, its process id,
    /// and the kinds of calls that a supervisor has not. What is called here is not counted as an
    /// open call.
    ///
    /// # Errors
    /// As [`start`](Supervisor::start).
    ///
    /// # Blocking
    /// As [`start`](Supervisor::start).
    pub fn plugin(&self) -> Result<Plugin, Unavailable> {
        self.acquire(Patience::default()).map(|lease| lease.plugin().clone())
    }

    /// The process id of the plugin that calls go to; `None` while there is none.
    #[must_use]
    pub fn pid(&self) -> Option<Pid> {
        self.shared().up().map(|plugin| plugin.pid())
    }

    /// Name of the plugin in logs, events and errors.
    #[must_use]
    pub fn name(&self) -> String {
        self.shared().name()
    }

    fn shared(&self) -> &Arc<Shared> {
        &self.0.shared
    }
}

supervised_caller!(Supervisor);

impl Leases for Supervisor {
    fn acquire(&self, patience: Patience<'_>) -> Result<Lease, Unavailable> {
        self.shared().acquire(patience)
    }

    async fn acquire_async(&self, patience: Patience<'_>) -> Result<Lease, Unavailable> {
        self.shared().acquire_async(patience).await
    }

    fn retries(&self) -> u32 {
        self.shared().settings.retries
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        let shared = Arc::clone(&self.shared);
        let stop = move || {
            if let Err(error) = shared.stop() {
                tracing::error!(plugin = shared.name(), %error, "the plugin could not be stopped");
            }
        };
        // The thread may be one of a runtime, which must not wait.
        if self.shared.stops_in_background() { self.shared.events.spawn(stop) } else { stop() }
    }
}

impl std::fmt::Debug for Supervisor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Supervisor")
            .field("name", &self.name())
            .field("pid", &self.pid())
            .finish_non_exhaustive()
    }
}
