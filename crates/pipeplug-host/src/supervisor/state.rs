//! From the start to the end of a supervised plugin, and on to the next start.
//!
//! The phase holds the pending job. The first thread that comes does it: a caller that would have
//! to wait for it, or a thread of the pool. So many waiting callers cause one start, and none of
//! them waits for a free thread.

use std::collections::VecDeque;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use pipeplug_net::EventLoop;

use super::awaited::Tasks;
use super::calls::Patience;
use super::error::{Unavailable, UnavailableKind};
use super::event::{EndCause, Event, Hook, OnEvent, PluginFailure};
use super::instance::{Instance, Lease};
use super::settings::Settings;
use crate::plugin::{LogLevel, Plugin, PluginBuilder};
use crate::status::Publish;

/// State that a supervisor's handles, timers and plugins share.
pub(super) struct Shared {
    pub(super) settings: Settings,
    pub(super) events: EventLoop,
    pub(super) hook: Arc<Hook>,
    /// True if the status is published, also of plugins that replace the first one.
    pub(super) publishes: bool,
    state: Mutex<SupervisorState>,
    /// The phase is another one, or the last call of a process that is left has ended.
    changed: Condvar,
    /// Tasks that wait for another phase.
    pub(super) tasks: Tasks,
    /// True once a task has waited for the plugin, or if its builder has it stopped in the
    /// background.
    pub(super) is_awaited: AtomicBool,
    /// Level of the plugin's own log that was set while it ran.
    pub(super) log_level: Mutex<Option<LogLevel>>,
    /// Held while the plugin is replaced, from the start of the new one to the end of the old one.
    pub(super) replacing: Mutex<()>,
}

pub(super) struct SupervisorState {
    /// Builder of the next start.
    pub(super) plugin: PluginBuilder,
    pub(super) phase: Phase,
    /// Plugin that is being started as a replacement.
    pub(super) replacement: Option<Plugin>,
    /// The number of the phase that was last given one.
    pub(super) last_number: u64,
    /// Number of failed starts. Threads that wait for a start compare it.
    pub(super) failed_starts: u64,
    pub(super) failed_start: Option<Unavailable>,
    /// Times of failures, as far back as the breaker looks.
    pub(super) failures: VecDeque<Instant>,
    pub(super) failures_in_a_row: u32,
    pub(super) last_failure: Option<PluginFailure>,
    /// Number of processes that calls have gone to.
    pub(super) starts: u64,
    /// True once it has run, so that its file was right.
    pub(super) has_run: bool,
    /// Since then its file is not right any more.
    pub(super) upgraded_since: Option<Instant>,
}

pub(super) enum Phase {
    /// Nothing runs; a call starts it.
    Down,
    /// Calls go to it.
    Up(Arc<Instance>),
    /// A job for the first thread that comes.
    Due(Job),
    /// The plugin starts; `plugin` is set once its process exists.
    Starting { number: u64, plugin: Option<Plugin> },
    /// The plugin is being stopped or killed.
    Ending { number: u64, instance: Arc<Instance> },
    /// The plugin failed, and waits for the end of the back-off.
    Backoff { number: u64 },
    /// The plugin failed too often.
    GaveUp(Unavailable),
    /// The supervisor was stopped.
    Stopped,
}

pub(super) enum Job {
    Start,
    End(Arc<Instance>, EndCause),
}

/// Load of a process, the best for a call first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Load {
    /// Number of open calls.
    Open(usize),
    /// The plugin would have to be started.
    Down,
    /// The plugin starts.
    Starting,
    /// The plugin waits for its restart, or ends before it.
    Coming,
    /// The plugin is given up, or stopped.
    Out,
}

impl Shared {
    pub(super) fn new(
        plugin: PluginBuilder,
        settings: Settings,
        events: EventLoop,
        on_event: Option<OnEvent>,
    ) -> Arc<Self> {
        let is_awaited = AtomicBool::new(plugin.stops_in_background);
        Arc::new(Self {
            settings,
            publishes: plugin.publish == Publish::Yes,
            hook: Hook::new(events.clone(), on_event),
            events,
            state: Mutex::new(SupervisorState {
                plugin,
                phase: Phase::Down,
                replacement: None,
                last_number: 0,
                failed_starts: 0,
                failed_start: None,
                failures: VecDeque::new(),
                failures_in_a_row: 0,
                last_failure: None,
                starts: 0,
                has_run: false,
                upgraded_since: None,
            }),
            changed: Condvar::new(),
            tasks: Tasks::default(),
            is_awaited,
            log_level: Mutex::default(),
            replacing: Mutex::default(),
        })
    }

    /// A plugin to call, which is started or waited for where that is needed; one start at most.
    /// `within` that time, where there is one.
    pub(super) fn acquire(self: &Arc<Self>, patience: Patience<'_>) -> Result<Lease, Unavailable> {
        let Patience { within, cancel } = patience;
        if cancel.is_some() {
            return self.acquire_or_cancel(patience);
        }
        let mut state = self.lock();
        let failed_starts = state.failed_starts;
        let mut deadline = None;
        loop {
            if let Some(lease) = self.lease(&mut state) {
                return Ok(lease);
            }
            // The number is compared with that at the beginning of this call: a start that failed
            // before it is not this call's error, and all calls that waited for one start fail with
            // it.
            if state.failed_starts != failed_starts
                && let Some(error) = &state.failed_start
            {
                return Err(error.clone());
            }
            state = match &state.phase {
                Phase::Down => {
                    state.phase = Phase::Due(Job::Start);
                    if within.is_some() {
                        self.work_soon();
                    }
                    state
                }
                Phase::Due(_) if within.is_none() => {
                    drop(state);
                    self.work();
                    self.lock()
                }
                // A caller with a time limit does not do the job itself, since that may take
                // longer. A thread of the pool does (`work_soon`).
                Phase::Due(_)
                | Phase::Starting { .. }
                | Phase::Ending { .. }
                | Phase::Backoff { .. } => {
                    let after = within.unwrap_or(self.settings.ready_timeout);
                    let deadline =
                        *deadline.get_or_insert_with(|| Instant::now().checked_add(after));
                    let left =
                        deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
                    if left.is_some_and(|left| left.is_zero()) {
                        return Err(state.not_ready(after));
                    }
                    self.wait(state, left.unwrap_or(Duration::MAX))
                }
                Phase::Up(_) => unreachable!("it was leased above, or its end is due"),
                Phase::GaveUp(error) => return Err(error.clone()),
                Phase::Stopped => return Err(state.stopped()),
            };
        }
    }

    /// A plugin to call, if there is one right now, and no more calls are open on it than that.
    pub(super) fn try_acquire(self: &Arc<Self>, open_calls: usize) -> Option<Lease> {
        let mut state = self.lock();
        match &state.phase {
            Phase::Up(instance) if instance.open_calls() > open_calls => None,
            _ => self.lease(&mut state),
        }
    }

    pub(super) fn lease(self: &Arc<Self>, state: &mut SupervisorState) -> Option<Lease> {
        let Phase::Up(instance) = &state.phase else { return None };
        if instance.plugin.connection().close_reason().is_none() {
            return Some(instance.lease());
        }
        // The connection has ended, and `look_for_end` is about to be called.
        let instance = Arc::clone(instance);
        self.end_soon(state, instance, EndCause::Unasked);
        None
    }

    pub(super) fn load(&self) -> Load {
        match &self.lock().phase {
            Phase::Up(instance) => Load::Open(instance.open_calls()),
            Phase::Down => Load::Down,
            Phase::Due(Job::Start) | Phase::Starting { .. } => Load::Starting,
            Phase::Due(Job::End(..)) | Phase::Ending { .. } | Phase::Backoff { .. } => Load::Coming,
            Phase::GaveUp(_) | Phase::Stopped => Load::Out,
        }
    }

    /// The process that calls go to.
    pub(super) fn up(&self) -> Option<Plugin> {
        match &self.lock().phase {
            Phase::Up(instance) => Some(instance.plugin.clone()),
            _ => None,
        }
    }

    /// Name of the plugin in errors.
    pub(super) fn name(&self) -> String {
        self.lock().name().to_owned()
    }

    /// Starts the plugin on a thread of the pool, if it does not run.
    pub(super) fn start_soon(self: &Arc<Self>) {
        let mut state = self.lock();
        if let Phase::Down = state.phase {
            state.phase = Phase::Due(Job::Start);
            drop(state);
            self.work_soon();
        }
    }

    /// Some process of this supervisor has ended; if it is the one that calls go to, it is followed
    /// by another.
    pub(super) fn look_for_end(self: &Arc<Self>) {
        let mut state = self.lock();
        if let Phase::Up(instance) = &state.phase
            && instance.plugin.connection().close_reason().is_some()
        {
            let instance = Arc::clone(instance);
            self.end_soon(&mut state, instance, EndCause::Unasked);
        }
    }

    /// Ends the current process on a thread of the pool. Calls wait from here on.
    pub(super) fn end_soon(
        self: &Arc<Self>,
        state: &mut SupervisorState,
        instance: Arc<Instance>,
        cause: EndCause,
    ) {
        // It is `instance`, which the caller holds.
        state.phase = Phase::Due(Job::End(instance, cause));
        self.notify_changed();
        self.work_soon();
    }

    /// Ends `instance` if calls still go to it and `look`, which comes with the lock held, finds
    /// that it has to be.
    pub(super) fn end_if(
        self: &Arc<Self>,
        instance: &Arc<Instance>,
        look: impl FnOnce() -> Option<(EndCause, Event)>,
    ) {
        let mut state = self.lock();
        if matches!(&state.phase, Phase::Up(up) if Arc::ptr_eq(up, instance))
            && let Some((cause, event)) = look()
        {
            self.hook.tell(state.name(), event);
            self.end_soon(&mut state, Arc::clone(instance), cause);
        }
    }

    pub(super) fn is_calling(&self, instance: &Arc<Instance>) -> bool {
        matches!(&self.lock().phase, Phase::Up(up) if Arc::ptr_eq(up, instance))
    }

    /// Notifies the threads that wait for the last open call of a process.
    pub(super) fn last_call_ended(&self) {
        // Taking the lock once avoids a lost wake-up: a waiter checks the calls and begins to wait
        // under this lock.
        drop(self.lock());
        self.notify_changed();
    }

    /// Has the threads and tasks look again that wait for another phase, or for the end of calls.
    pub(super) fn notify_changed(&self) {
        self.changed.notify_all();
        self.tasks.wake_all(&self.events);
    }

    pub(super) fn wait<'a>(
        &self,
        state: MutexGuard<'a, SupervisorState>,
        most: Duration,
    ) -> MutexGuard<'a, SupervisorState> {
        self.changed.wait_timeout(state, most).unwrap_or_else(PoisonError::into_inner).0
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, SupervisorState> {
        // No call-back, handler or launcher of the host runs while it is held: events are queued
        // (`Hook::tell`), and plugins and builders are dropped after it is released. So a panic of
        // the host's code leaves no change half done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SupervisorState {
    pub(super) fn name(&self) -> &str {
        &self.plugin.options.name
    }

    pub(super) fn next_number(&mut self) -> u64 {
        self.last_number += 1;
        self.last_number
    }

    pub(super) fn forget_failures(&mut self) {
        self.failures.clear();
        self.failures_in_a_row = 0;
        self.last_failure = None;
        self.upgraded_since = None;
    }

    pub(super) fn not_ready(&self, after: Duration) -> Unavailable {
        let kind = UnavailableKind::NotReady { after, last: self.last_failure.clone() };
        Unavailable::new(self.name(), kind)
    }

    pub(super) fn stopped(&self) -> Unavailable {
        Unavailable::new(self.name(), UnavailableKind::Stopped)
    }
}
