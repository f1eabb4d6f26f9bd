//! Control of a supervisor by its owner: stop, replace, reset.

use std::mem;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Instant;

use super::error::{Unavailable, UnavailableKind};
use super::event::{EndCause, Event};
use super::instance::Instance;
use super::state::{Job, Phase, Shared, SupervisorState};
use super::transitions::kill;
use crate::plugin::{Plugin, PluginBuilder, StopError, Stopped};

impl Shared {
    /// Lets calls start it, where it was stopped.
    pub(super) fn open(&self) {
        let mut state = self.lock();
        if let Phase::Stopped = state.phase {
            state.phase = Phase::Down;
        }
    }

    /// Forgets its failures; what was given up, or waits for its restart, is started by the next
    /// call.
    pub(super) fn reset(self: &Arc<Self>) {
        let mut state = self.lock();
        state.forget_failures();
        if let Phase::GaveUp(_) | Phase::Backoff { .. } = state.phase {
            state.phase = Phase::Down;
            // Who waits for the restart starts it.
            self.changed.notify_all();
        }
    }

    /// Ends it, and all starts.
    pub(super) fn stop(&self) -> Result<Option<Stopped>, StopError> {
        let mut state = self.lock();
        state.forget_failures();
        let before = mem::replace(&mut state.phase, Phase::Stopped);
        let replacement = state.replacement.take();
        let name = state.name().to_owned();
        drop(state);
        self.changed.notify_all();
        let stopped = match before {
            Phase::Up(instance) | Phase::Due(Job::End(instance, _)) => {
                self.end(&name, &instance, EndCause::Stopped).map(Some)
            }
            // The thread that stops the plugin continues, and sends the event.
            Phase::Ending { instance, .. } => instance.plugin.stop().map(Some),
            Phase::Starting { plugin, .. } => plugin.map(|plugin| plugin.kill()).transpose(),
            Phase::Down
            | Phase::Due(Job::Start)
            | Phase::Backoff { .. }
            | Phase::GaveUp(_)
            | Phase::Stopped => Ok(None),
        };
        replacement.iter().for_each(kill);
        // One that is left for another waits for its calls no longer.
        drop(self.replacing());
        stopped
    }

    /// Starts another one, by [`SupervisorState::plugin`] where there is no other builder, has
    /// calls go there, and ends the one before once its calls have ended.
    pub(super) fn replace(
        self: &Arc<Self>,
        plugin: Option<PluginBuilder>,
    ) -> Result<(), Unavailable> {
        let _one_at_a_time = self.replacing();
        let (plugin, name) = {
            let state = self.lock();
            if let Phase::Stopped = state.phase {
                return Err(state.stopped());
            }
            (plugin.unwrap_or_else(|| state.plugin.clone()), state.name().to_owned())
        };
        let begun = Instant::now();
        let weak = Arc::downgrade(self);
        let started = self.launch(plugin.clone(), move |plugin| {
            if let Some(shared) = weak.upgrade() {
                shared.is_replacing(plugin);
            }
        });
        let mut state = self.lock();
        let replacement = state.replacement.take();
        if let Phase::Stopped = state.phase {
            let error = state.stopped();
            drop(state);
            started.iter().for_each(|instance| kill(&instance.plugin));
            return Err(error);
        }
        let new = match started {
            Ok(new) => new,
            Err(error) => {
                drop(state);
                // Behind the lock: it may be the last handle.
                drop(replacement);
                let error = Arc::new(error);
                self.hook.tell(&name, Event::StartFailed { error: Arc::clone(&error) });
                return Err(Unavailable::new(&name, UnavailableKind::Start(error)));
            }
        };
        state.plugin = plugin;
        state.forget_failures();
        let before = self.is_up(&mut state, &new, begun.elapsed());
        let old = match before {
            Phase::Up(instance) | Phase::Due(Job::End(instance, _)) => instance,
            // The thread that starts it sees the new phase and stops.
            Phase::Starting { plugin, .. } => {
                drop(state);
                plugin.iter().for_each(kill);
                return Ok(());
            }
            // The thread that stops it continues.
            Phase::Ending { .. }
            | Phase::Down
            | Phase::Due(Job::Start)
            | Phase::Backoff { .. }
            | Phase::GaveUp(_) => {
                return Ok(());
            }
            Phase::Stopped => unreachable!("it was looked for above, under the same lock"),
        };
        self.hook.tell(&name, Event::Replaced { old: old.plugin.pid(), new: new.plugin.pid() });
        self.drain(state, &old);
        if let Err(error) = self.end(&name, &old, EndCause::Replaced) {
            tracing::error!(plugin = name, %error, "the plugin that was replaced could not be stopped");
        }
        Ok(())
    }

    /// Records the process of the replacement. From here on, stopping the supervisor can kill it.
    fn is_replacing(&self, process: &Plugin) {
        let mut state = self.lock();
        if let Phase::Stopped = state.phase {
            drop(state);
            kill(process);
        } else {
            state.replacement = Some(process.clone());
        }
    }

    /// Waits for the calls of one that takes no new ones.
    fn drain(&self, mut state: MutexGuard<'_, SupervisorState>, old: &Instance) {
        let begun = Instant::now();
        while old.await_idle() && !matches!(state.phase, Phase::Stopped) {
            let left = self.settings.drain_timeout.saturating_sub(begun.elapsed());
            if left.is_zero() {
                let open = old.open_calls();
                tracing::warn!(
                    plugin = state.name(),
                    open,
                    "calls take too long, the plugin is stopped"
                );
                return;
            }
            state = self.wait(state, left);
        }
    }

    fn replacing(&self) -> MutexGuard<'_, ()> {
        self.replacing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
