//! Events of a supervised plugin, and their delivery.

use std::collections::VecDeque;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use pipeplug_net::{CloseReason, EventLoop};

use crate::plugin::{Crash, StartError, StartErrorKind};
use crate::process::{Pid, WaitStatus};

/// Event of a supervised plugin.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Event {
    /// The plugin runs, and gets calls.
    Started {
        /// Process id.
        pid: Pid,
        /// Time that the start took.
        took: Duration,
    },
    /// The plugin did not start.
    StartFailed {
        /// The reason.
        error: Arc<StartError>,
    },
    /// The plugin did not answer a ping in time, and is killed.
    HealthFailure {
        /// Process id.
        pid: Pid,
        /// Time that it had to answer.
        timeout: Duration,
    },
    /// No call came for the idle timeout, and the plugin is stopped.
    IdleStop {
        /// Process id.
        pid: Pid,
        /// Time without an open call.
        idle: Duration,
    },
    /// Another process has replaced this one, which is stopped once its open calls have ended.
    Replaced {
        /// The process that is left.
        old: Pid,
        /// The one that calls go to now.
        new: Pid,
    },
    /// The process has ended.
    Ended {
        /// Process id.
        pid: Pid,
        /// Exit status; `None` if the system did not take the process down.
        status: Option<WaitStatus>,
        /// Running time.
        ran: Duration,
        /// The reason.
        cause: EndCause,
    },
    /// The plugin failed, and will be restarted.
    Restarting {
        /// After this time.
        after: Duration,
        /// Number of failures in a row.
        failures: u32,
    },
    /// The plugin failed, and will not be restarted.
    GaveUp {
        /// Last failure.
        last: PluginFailure,
    },
}

/// Reason why the process of a supervised plugin ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum EndCause {
    /// The plugin ended, or closed its pipe, without a request to stop.
    Unasked,
    /// The supervisor killed the plugin: it did not answer a ping in time.
    Unhealthy {
        /// Time that it had to answer.
        timeout: Duration,
    },
    /// The supervisor stopped the plugin: no call came for the idle timeout.
    Idle,
    /// The plugin was replaced by another one.
    Replaced,
    /// The plugin was stopped with its supervisor.
    Stopped,
}

/// Failure of a supervised plugin.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum PluginFailure {
    /// The plugin did not start.
    Start(Arc<StartError>),
    /// The plugin ended without a request to stop, or hung.
    Ended {
        /// Error of its open calls.
        reason: Arc<CloseReason>,
        /// Report on the process, which has ended.
        crash: Arc<Crash>,
    },
}

impl PluginFailure {
    /// Tells that the plugin's file may be in the middle of being replaced.
    pub(super) fn may_be_an_upgrade(&self) -> bool {
        match self {
            Self::Start(error) => {
                matches!(error.kind(), StartErrorKind::Spawn(kind) if kind.may_be_an_upgrade())
            }
            Self::Ended { .. } => false,
        }
    }

    /// Tells that a signal ended the plugin that asks for an end, and that a service manager may
    /// have sent to its host too.
    pub(super) fn may_be_a_shutdown(&self) -> bool {
        let status = match self {
            Self::Start(error) => error.status(),
            Self::Ended { crash, .. } => crash.status,
        };
        status.is_some_and(WaitStatus::is_request_to_end)
    }

    /// Tells whether the next start would fail the same way.
    pub(super) fn is_permanent(&self) -> bool {
        match self {
            Self::Start(error) => error.is_permanent(),
            Self::Ended { crash, .. } => crash.status.is_some_and(WaitStatus::is_permanent),
        }
    }
}

impl fmt::Display for PluginFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Start(error) => error.fmt(f),
            Self::Ended { reason, crash } => write!(f, "{reason}; {crash}"),
        }
    }
}

impl fmt::Display for EndCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unasked => f.write_str("unasked"),
            Self::Unhealthy { timeout } => write!(f, "it did not answer a ping within {timeout:?}"),
            Self::Idle => f.write_str("it was idle"),
            Self::Replaced => f.write_str("it was replaced"),
            Self::Stopped => f.write_str("it was stopped"),
        }
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Started { pid, took } => write!(f, "process {pid} started in {took:.1?}"),
            Self::StartFailed { error } => error.fmt(f),
            Self::HealthFailure { pid, timeout } => {
                write!(f, "process {pid} did not answer a ping within {timeout:?}")
            }
            Self::IdleStop { pid, idle } => {
                write!(f, "process {pid} is stopped after {idle:.1?} without a call")
            }
            Self::Replaced { old, new } => write!(f, "process {new} replaces process {old}"),
            Self::Ended { pid, status, ran, cause } => {
                write!(f, "process {pid} ended after {ran:.1?} ({cause})")?;
                status.map_or(Ok(()), |status| write!(f, ": {status}"))
            }
            Self::Restarting { after, failures } => {
                write!(f, "starts anew in {after:.1?}, failures in a row: {failures}")
            }
            Self::GaveUp { last } => write!(f, "given up: {last}"),
        }
    }
}

/// Call-back for events.
pub(super) type OnEvent = Arc<dyn Fn(&str, &Event) + Send + Sync>;

/// Hands events on, in the order in which they are told.
pub(super) struct Hook {
    events: EventLoop,
    on_event: Option<OnEvent>,
    queue: Mutex<Queue>,
}

/// Events that wait for a handler that takes long; the oldest give way. One may have all that is
/// kept of a plugin's standard error.
const WAITING: usize = 128;

#[derive(Default)]
struct Queue {
    /// Events that wait for delivery, each with the plugin's name.
    waiting: VecDeque<(String, Event)>,
    /// Number of events dropped since the last one that was delivered.
    missed: u64,
    /// True if a thread delivers events, or is about to.
    handing_on: bool,
}

impl Hook {
    pub(super) fn new(events: EventLoop, on_event: Option<OnEvent>) -> Arc<Self> {
        Arc::new(Self { events, on_event, queue: Mutex::default() })
    }

    /// Queues an event. May be called under a lock: the call-back and the log line of the event come
    /// from another thread. (The pool logs here that the system refuses a thread, if it does.)
    pub(super) fn tell(self: &Arc<Self>, plugin: &str, event: Event) {
        let mut queue = self.queue();
        if queue.waiting.len() == WAITING {
            queue.waiting.pop_front();
            queue.missed += 1;
        }
        queue.waiting.push_back((plugin.to_owned(), event));
        if !std::mem::replace(&mut queue.handing_on, true) {
            let hook = Arc::clone(self);
            self.events.spawn(move || hook.hand_on());
        }
    }

    fn hand_on(&self) {
        loop {
            let mut queue = self.queue();
            let missed = std::mem::take(&mut queue.missed);
            let Some((plugin, event)) = queue.waiting.pop_front() else {
                queue.handing_on = false;
                return;
            };
            drop(queue);
            // The events behind it must not be lost with it.
            if catch_unwind(AssertUnwindSafe(|| self.hand_on_one(missed, &plugin, &event))).is_err()
            {
                tracing::error!(plugin, "the handler of a supervisor's event panicked");
            }
        }
    }

    fn hand_on_one(&self, missed: u64, plugin: &str, event: &Event) {
        if missed > 0 {
            tracing::warn!(
                plugin,
                missed,
                "the handler of events takes too long, some were left out"
            );
        }
        match event {
            Event::StartFailed { .. } | Event::HealthFailure { .. } | Event::GaveUp { .. } => {
                tracing::warn!(plugin, "{event}");
            }
            Event::Ended { cause: EndCause::Unasked, .. } => tracing::warn!(plugin, "{event}"),
            _ => tracing::debug!(plugin, "{event}"),
        }
        if let Some(on_event) = &self.on_event {
            on_event(plugin, event);
        }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        // Nothing can panic while it is held.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    fn restarting(failures: u32) -> Event {
        Event::Restarting { after: Duration::ZERO, failures }
    }

    #[test]
    fn a_handler_that_is_stuck_has_the_oldest_events_give_way() {
        let (enter, entered) = mpsc::channel();
        let (go_on, stuck) = mpsc::channel::<()>();
        let stuck = Mutex::new(stuck);
        let on_event = move |_: &str, event: &Event| {
            let Event::Restarting { failures, .. } = event else { panic!("{event}") };
            enter.send(*failures).unwrap();
            let _ = stuck.lock().unwrap().recv();
        };
        let hook = Hook::new(EventLoop::new().unwrap(), Some(Arc::new(on_event)));
        hook.tell("x", restarting(0));
        assert_eq!(entered.recv().unwrap(), 0);
        let last = 10 * u32::try_from(WAITING).unwrap();
        (1..=last).for_each(|failures| hook.tell("x", restarting(failures)));
        drop(go_on);
        let seen: Vec<_> = entered.iter().take(WAITING).collect();
        assert_eq!(seen.first(), Some(&(last + 1 - u32::try_from(WAITING).unwrap())));
        assert_eq!(seen.last(), Some(&last));
    }
}
