//! Starts and stops that are awaited. They run on threads of the event loop.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pipeplug_net::EventLoop;

use super::Plugin;
use super::builder::PluginBuilder;
use super::start_error::{StartError, StartErrorKind};
use super::stop::{Grace, StopError, Stopped};
use super::stopper::Stopper;

/// Starts a plugin on a thread of its event loop.
pub(super) async fn start(mut builder: PluginBuilder) -> Result<Plugin, StartError> {
    let events = match &builder.events {
        Some(events) => events.clone(),
        None => EventLoop::shared().map_err(|error| {
            let kind = StartErrorKind::System { error };
            StartError::new(builder.path(), builder.launcher.describe(), kind)
        })?,
    };
    builder.events = Some(events.clone());
    let start = Arc::new(AwaitedStart::default());
    let (of_host, spawned) = (builder.on_spawn.take(), Arc::clone(&start));
    builder.on_spawn = Some(Arc::new(move |plugin| {
        // From here on dropping the plugin blocks no thread: the result may be dropped in a task.
        plugin.connection().note_awaited();
        if let Some(of_host) = &of_host {
            of_host(plugin);
        }
        spawned.spawned(plugin);
    }));
    let _abandon = Abandon { start, events: events.clone() };
    events.offload(move || builder.start()).await
}

/// Start of a plugin that a task awaits.
#[derive(Default)]
struct AwaitedStart(Mutex<StartState>);

#[derive(Default)]
struct StartState {
    /// The plugin, while it starts.
    plugin: Option<Plugin>,
    /// True once no task awaits it any more.
    is_over: bool,
}

impl AwaitedStart {
    fn spawned(&self, plugin: &Plugin) {
        // Under one lock the process is either noted, where the end of the future finds it, or that
        // came first, and it is killed here.
        let mut state = self.lock();
        if state.is_over {
            drop(state);
            kill(plugin);
        } else {
            state.plugin = Some(plugin.clone());
        }
    }

    fn lock(&self) -> MutexGuard<'_, StartState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Kills a plugin whose start is not awaited any more, unless it runs.
struct Abandon {
    start: Arc<AwaitedStart>,
    events: EventLoop,
}

impl Drop for Abandon {
    fn drop(&mut self) {
        let plugin = {
            let mut state = self.start.lock();
            state.is_over = true;
            state.plugin.take()
        };
        // One that runs was handed to the task, or was given up with the result of its start, which
        // stops it.
        if let Some(plugin) = plugin.filter(|plugin| !plugin.has_started()) {
            self.events.spawn(move || kill(&plugin));
        }
    }
}

fn kill(plugin: &Plugin) {
    if let Err(error) = plugin.kill() {
        tracing::error!(plugin = %plugin.name(), %error,
            "a plugin whose start was given up is still there");
    }
}

impl Plugin {
    /// Stops the plugin as [`stop`](Plugin::stop) does, and awaits its end.
    ///
    /// # Errors
    /// As for [`stop`](Plugin::stop).
    ///
    /// # Cancellation
    /// The stop goes on if the future is dropped.
    pub async fn stop_async(&self) -> Result<Stopped, StopError> {
        self.stop_within_async(self.0.grace).await
    }

    /// Stops the plugin as [`stop_within`](Plugin::stop_within) does, and awaits its end.
    ///
    /// # Errors
    /// As for [`stop`](Plugin::stop).
    ///
    /// # Cancellation
    /// The stop goes on if the future is dropped.
    pub async fn stop_within_async(&self, grace: Grace) -> Result<Stopped, StopError> {
        self.offload(move |stopper| stopper.stop(grace)).await
    }

    /// Kills the plugin as [`kill`](Plugin::kill) does, and awaits its end.
    ///
    /// # Errors
    /// As for [`kill`](Plugin::kill).
    ///
    /// # Cancellation
    /// The kill goes on if the future is dropped.
    pub async fn kill_async(&self) -> Result<Stopped, StopError> {
        self.offload(Stopper::kill).await
    }

    async fn offload(
        &self,
        run: impl FnOnce(&Stopper) -> Result<Stopped, StopError> + Send + 'static,
    ) -> Result<Stopped, StopError> {
        self.0.connection.note_awaited();
        let stopper = self.0.stopper();
        self.0.connection.events().offload(move || run(&stopper)).await
    }

    /// Returns true once the exchange of metadata is over.
    fn has_started(&self) -> bool {
        self.0.metadata.get().is_some()
    }
}
