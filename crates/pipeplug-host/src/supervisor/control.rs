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
            // A caller that waits for the restart starts the plugin.
            self.notify_changed();
        }
    }

    /// Ends it, and all starts.
    pub(super) fn stop(&self) -> Result<Option<Stopped>, StopError> {
        let mut state = self.lock();
        state.forget_failures();
        // The phase is set first, and processes are ended after the lock is released. From here on
        // calls fail, and a thread that starts, ends or replaces a process finds the phase changed
        // when it takes the lock next.
        let before = mem::replace(&mut state.phase, Phase::Stopped);
        let replacement = state.replacement.take();
        let name = state.name().to_owned();
        drop(state);
        self.notify_changed();
        let stopped = match before {
            Phase::Up(instance) | Phase::Due(Job::End(instance, _)) => {
                self.end(&name, &instance, EndCause::Stopped).map(Some)
            }
            // Another thread ends the plugin already, and sends the event. Both wait for the same
            // process.
            Phase::Ending { instance, .. } => instance.plugin.stop().map(Some),
            Phase::Starting { plugin, .. } => plugin.map(|plugin| plugin.kill()).transpose(),
            Phase::Down
            | Phase::Due(Job::Start)
            | Phase::Backoff { .. }
            | Phase::GaveUp(_)
            | Phase::Stopped => Ok(None),
        };
        replacement.iter().for_each(kill);
        // A replacement that is under way has been woken above: `drain` waits no longer for the
        // open calls of the old process, which `replace` then ends. That is waited for here.
        drop(self.replacing());
        stopped
    }

    /// Starts another process, by `plugin` or else by [`SupervisorState::plugin`], has new calls go
    /// there, and ends the old process once its calls have ended.
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
        // Declared before the lock, so that it is dropped after it: the old builder may hold the
        // last handle to code of the host, such as a handler.
        let _old_builder;
        let mut state = self.lock();
        let replacement = state.replacement.take();
        // Stopped while the new process started. `stop` has killed it if it was recorded; killing
        // it twice does no harm.
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
                // After the lock is released: it may be the last handle to the plugin.
                drop(replacement);
                let error = Arc::new(error);
                self.hook.tell(&name, Event::StartFailed { error: Arc::clone(&error) });
                return Err(Unavailable::new(&name, UnavailableKind::Start(error)));
            }
        };
        if plugin.stops_in_background {
            self.note_awaited();
        }
        _old_builder = mem::replace(&mut state.plugin, plugin);
        state.forget_failures();
        let before = self.is_up(&mut state, &new, begun.elapsed());
        let old = match before {
            Phase::Up(instance) | Phase::Due(Job::End(instance, _)) => instance,
            // The thread that starts this process finds the phase `Up` and not its own, and kills
            // what it has started. It is killed here as well, which ends that start at once.
            Phase::Starting { plugin, .. } => {
                drop(state);
                plugin.iter().for_each(kill);
                return Ok(());
            }
            // In the first of these another thread ends the old process, and goes on with that.
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
                let (plugin, open) = (state.name().to_owned(), old.open_calls());
                // Not under the lock: a subscriber of `tracing` is code of the host.
                drop(state);
                tracing::warn!(plugin, open, "calls take too long, the plugin is stopped");
                return;
            }
            // The lock is held from the look at the calls to the wait, and `last_call_ended` takes
            // it before it notifies: the end of the last call is not missed.
            state = self.wait(state, left);
        }
    }

    fn replacing(&self) -> MutexGuard<'_, ()> {
        self.replacing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
