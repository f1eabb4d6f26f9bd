//! Transitions of a supervised plugin: its start, its end, and the reaction to a failure.

use std::mem;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use pipeplug_net::CloseReason;

use super::error::{Unavailable, UnavailableKind};
use super::event::{EndCause, Event, PluginFailure};
use super::instance::Instance;
use super::settings::Settings;
use super::state::{Job, Phase, Shared, SupervisorState};
use crate::plugin::{Plugin, PluginBuilder, StartError, StopError, Stopped};
use crate::status::Publish;

/// Time for a process that closed its pipe to end by itself, so that its own status is known.
const EXIT_TIMEOUT: Duration = Duration::from_millis(500);

impl Shared {
    /// Does the pending job, unless another thread has begun.
    pub(super) fn work(self: &Arc<Self>) {
        let mut state = self.lock();
        if !matches!(state.phase, Phase::Due(_)) {
            return;
        }
        // The number marks this start or end. The lock is not held while it runs, so `stop` or
        // `replace` may change the phase meanwhile: each step below looks for a phase with this
        // number under the lock, and leaves any other phase alone.
        let number = state.next_number();
        let _undone = Undone { shared: self, number };
        match mem::replace(&mut state.phase, Phase::Down) {
            Phase::Due(Job::Start) => {
                state.phase = Phase::Starting { number, plugin: None };
                let plugin = state.plugin.clone();
                drop(state);
                self.start(number, plugin);
            }
            Phase::Due(Job::End(instance, cause)) => {
                state.phase = Phase::Ending { number, instance: Arc::clone(&instance) };
                let name = state.name().to_owned();
                drop(state);
                self.end_failed_or_idle(number, &name, &instance, cause);
            }
            _ => unreachable!("something was due above, under the same lock"),
        }
    }

    pub(super) fn work_soon(self: &Arc<Self>) {
        let shared = Arc::clone(self);
        self.events.spawn(move || shared.work());
    }

    fn start(self: &Arc<Self>, number: u64, plugin: PluginBuilder) {
        let begun = Instant::now();
        let weak = Arc::downgrade(self);
        let started = self.launch(plugin, move |plugin| {
            if let Some(shared) = weak.upgrade() {
                shared.is_starting(number, plugin);
            }
        });
        // Declared before the lock, so that it is dropped after it: it may hold the last handle to
        // a plugin, whose drop runs code of the launcher.
        let before;
        let mut state = self.lock();
        if !matches!(state.phase, Phase::Starting { number: at, .. } if at == number) {
            drop(state);
            // It was stopped or replaced meanwhile. That thread has killed what it found in the
            // phase; a process that was spawned later is killed here, or in `is_starting`.
            started.iter().for_each(|instance| kill(&instance.plugin));
            return;
        }
        match started {
            Ok(instance) => before = self.is_up(&mut state, &instance, begun.elapsed()),
            Err(error) => {
                let error = Arc::new(error);
                self.hook.tell(state.name(), Event::StartFailed { error: Arc::clone(&error) });
                state.failed_starts += 1;
                state.failed_start = Some(Unavailable::new(
                    state.name(),
                    UnavailableKind::Start(Arc::clone(&error)),
                ));
                before = self.failed(&mut state, PluginFailure::Start(error), Duration::ZERO);
            }
        }
        drop(state);
        drop(before);
    }

    /// Records the process that was started. From here on, stopping the supervisor can kill it.
    fn is_starting(&self, number: u64, process: &Plugin) {
        // The process exists by now. Under one lock it is either recorded, where `stop` finds it,
        // or `stop` came first, and it is killed here.
        let mut state = self.lock();
        match &mut state.phase {
            Phase::Starting { number: at, plugin } if *at == number => {
                *plugin = Some(process.clone())
            }
            _ => {
                drop(state);
                kill(process);
            }
        }
    }

    pub(super) fn launch(
        self: &Arc<Self>,
        mut plugin: PluginBuilder,
        on_spawn: impl Fn(&Plugin) + Send + Sync + 'static,
    ) -> Result<Arc<Instance>, StartError> {
        let of_host = plugin.on_spawn.take();
        plugin.on_spawn = Some(Arc::new(move |plugin| {
            if let Some(of_host) = &of_host {
                of_host(plugin);
            }
            on_spawn(plugin);
        }));
        let weak = Arc::downgrade(self);
        plugin.on_end = Some(Arc::new(move || {
            if let Some(shared) = weak.upgrade() {
                shared.look_for_end();
            }
        }));
        plugin.publish = if self.publishes { Publish::BySupervisor } else { Publish::No };
        plugin.log_level = self.log_level().or(plugin.log_level);
        plugin.events.get_or_insert_with(|| self.events.clone());
        let plugin = plugin.start()?;
        Ok(Instance::new(plugin, Arc::downgrade(self), self.settings.idle_timeout.is_some()))
    }

    /// Calls go to `instance` from here on; gives the phase before, to be dropped behind the lock.
    pub(super) fn is_up(
        self: &Arc<Self>,
        state: &mut SupervisorState,
        instance: &Arc<Instance>,
        took: Duration,
    ) -> Phase {
        let before = mem::replace(&mut state.phase, Phase::Up(Arc::clone(instance)));
        (state.has_run, state.upgraded_since) = (true, None);
        state.starts += 1;
        self.hook.tell(state.name(), Event::Started { pid: instance.plugin.pid(), took });
        self.watch(instance);
        if instance.plugin.takes_log_level() {
            self.catch_up_log_level(instance.plugin.clone());
        }
        if instance.plugin.connection().close_reason().is_some() {
            // `look_for_end` has no effect before the phase is `Up`. The end of the connection sets
            // its reason first and calls that then, under this lock: an end before this line is
            // seen here, and a later one finds the phase `Up`.
            self.end_soon(state, Arc::clone(instance), EndCause::Unasked);
        }
        self.notify_changed();
        before
    }

    fn end_failed_or_idle(
        self: &Arc<Self>,
        number: u64,
        name: &str,
        instance: &Arc<Instance>,
        cause: EndCause,
    ) {
        let ended = self.end(name, instance, cause);
        if let Err(error) = &ended {
            tracing::error!(plugin = name, %error, "the plugin could not be stopped");
        }
        let plugin = &instance.plugin;
        // The process has ended. What it wrote last may still lie in the pipe, and the reason of
        // the connection is known once that is read.
        let reason = plugin
            .connection()
            .wait_ended(EXIT_TIMEOUT)
            .unwrap_or_else(|| Arc::new(CloseReason::Local));
        let crash = Arc::new(plugin.autopsy());
        let before;
        let mut state = self.lock();
        if !matches!(state.phase, Phase::Ending { number: at, .. } if at == number) {
            // It was stopped or replaced meanwhile, and the thread that did so has set what
            // follows.
            return;
        }
        if let EndCause::Idle = cause {
            before = mem::replace(&mut state.phase, Phase::Down);
            self.notify_changed();
        } else {
            let ran = instance.started.elapsed();
            let failure = PluginFailure::Ended { reason, crash };
            before = self.failed(&mut state, failure, ran);
        }
        drop(state);
        drop(before);
    }

    /// Ends a process, in the way that its cause asks for, and tells of it.
    pub(super) fn end(
        &self,
        name: &str,
        instance: &Instance,
        cause: EndCause,
    ) -> Result<Stopped, StopError> {
        let plugin = &instance.plugin;
        let ended = match cause {
            EndCause::Idle | EndCause::Replaced | EndCause::Stopped => plugin.stop(),
            EndCause::Unasked => {
                // An error of this wait is not lost: `kill` meets it again and returns it.
                let _ = plugin.wait(EXIT_TIMEOUT);
                plugin.kill()
            }
            EndCause::Unhealthy { timeout } => {
                plugin
                    .connection()
                    .end(format!("{name} did not answer a ping within {timeout:?} and was killed"));
                plugin.kill()
            }
        };
        let event = Event::Ended {
            pid: plugin.pid(),
            status: plugin.status(),
            ran: instance.started.elapsed(),
            cause,
        };
        self.hook.tell(name, event);
        // The last messages may still wait for a handler, which gets the plugin. This clone keeps
        // it alive until then.
        let (plugin, timeout) = (plugin.clone(), self.settings.drain_timeout);
        self.events.spawn(move || drop(plugin.connection().wait_closed(timeout)));
        ended
    }

    /// Enters the phase after a failure. Returns the phase before, to be dropped after the lock is
    /// released.
    fn failed(
        self: &Arc<Self>,
        state: &mut SupervisorState,
        failure: PluginFailure,
        ran: Duration,
    ) -> Phase {
        let Settings { backoff, breaker, upgrade_timeout, shutdown_wait, .. } = self.settings;
        if ran >= backoff.reset_after {
            state.failures_in_a_row = 0;
        }
        state.failures_in_a_row = state.failures_in_a_row.saturating_add(1);
        let now = Instant::now();
        // A plugin that has never run has a wrong path, more likely than an upgrade under way.
        let is_upgrade = state.has_run
            && failure.may_be_an_upgrade()
            && now.duration_since(*state.upgraded_since.get_or_insert(now)) < upgrade_timeout;
        if !is_upgrade {
            state.failures.push_back(now);
        }
        while state.failures.front().is_some_and(|at| now.duration_since(*at) > breaker.within) {
            state.failures.pop_front();
        }
        state.last_failure = Some(failure.clone());
        self.notify_changed();
        if !is_upgrade && (failure.is_permanent() || state.failures.len() >= breaker.failures) {
            self.hook.tell(state.name(), Event::GaveUp { last: failure.clone() });
            let error = Unavailable::gave_up(state.name(), breaker, failure);
            return mem::replace(&mut state.phase, Phase::GaveUp(error));
        }
        let failures = state.failures_in_a_row;
        let least = if failure.may_be_a_shutdown() { shutdown_wait } else { Duration::ZERO };
        let after = backoff.delay(failures, fastrand::f64()).max(least);
        self.hook.tell(state.name(), Event::Restarting { after, failures });
        let number = state.next_number();
        let weak = Arc::downgrade(self);
        self.events.after(after, move || {
            if let Some(shared) = weak.upgrade() {
                shared.backoff_is_over(number);
            }
        });
        mem::replace(&mut state.phase, Phase::Backoff { number })
    }

    fn backoff_is_over(self: &Arc<Self>, number: u64) {
        let mut state = self.lock();
        // A timer cannot be revoked. One of an earlier back-off, which `reset`, `stop` or `replace`
        // has ended, finds another phase, or a back-off with another number.
        if matches!(state.phase, Phase::Backoff { number: at } if at == number) {
            state.phase = Phase::Due(Job::Start);
            self.notify_changed();
            drop(state);
            self.work_soon();
        }
    }
}

/// Ends the phase of a start or an end that panics, in a call-back or a launcher of the host.
/// Callers would wait for that phase until their time is over.
struct Undone<'a> {
    shared: &'a Arc<Shared>,
    number: u64,
}

impl Drop for Undone<'_> {
    fn drop(&mut self) {
        if !thread::panicking() {
            return;
        }
        let mut state = self.shared.lock();
        if let Phase::Starting { number, .. } | Phase::Ending { number, .. } = state.phase
            && number == self.number
        {
            // The next call starts the plugin.
            let before = mem::replace(&mut state.phase, Phase::Down);
            drop(state);
            self.shared.notify_changed();
            // On another thread: dropping a plugin runs code of the launcher, and a second panic
            // while this one unwinds would abort the process.
            self.shared.events.spawn(move || drop(before));
        }
    }
}

/// Ends a process that has no calls yet.
pub(super) fn kill(plugin: &Plugin) {
    if let Err(error) = plugin.kill() {
        tracing::error!(plugin = %plugin.name(), %error, "the plugin could not be killed");
    }
}
