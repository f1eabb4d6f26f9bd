//! Waking tasks at their time: for what is awaited with a deadline.
//!
//! One timer of the loop serves all alarms of a connection: the one for the earliest, which sets the next one. So a call
//! that is answered in time, as nearly all are, leaves nothing behind in the loop.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::task::Waker;

use crate::core::Core;
use crate::lock::{guarded, lock};
use crate::sync::Instant;

/// When, and a number to tell those of the same moment apart.
type Key = (Instant, u64);

#[derive(Debug, Default)]
pub(crate) struct Alarms {
    wakers: BTreeMap<Key, Waker>,
    next: u64,
    /// When the timer comes.
    armed: Option<Instant>,
}

/// Wakes a task at its time, unless it is dropped before.
#[derive(Debug)]
pub(crate) struct Alarm {
    core: Arc<Core>,
    key: Key,
}

impl Alarms {
    /// The wakers whose time has come, and when to look again.
    fn due(&mut self, now: Instant) -> (Vec<Waker>, Option<Instant>) {
        let later = self.wakers.split_off(&(now, u64::MAX));
        let due = std::mem::replace(&mut self.wakers, later);
        self.armed = self.wakers.first_key_value().map(|((at, _), _)| *at);
        (due.into_values().collect(), self.armed)
    }
}

impl Alarm {
    pub(crate) fn set(core: &Arc<Core>, at: Instant, waker: Waker) -> Self {
        let mut alarms = lock(&core.alarms);
        let key = (at, alarms.next);
        alarms.next += 1;
        alarms.wakers.insert(key, waker);
        let is_first = alarms.armed.is_none_or(|armed| at < armed);
        if is_first {
            alarms.armed = Some(at);
        }
        drop(alarms);
        if is_first {
            core.arm_alarms(at);
        }
        Self { core: Arc::clone(core), key }
    }

    /// Another waker is to be woken; too late where it has rung, which the task sees by the time.
    pub(crate) fn renew(&self, waker: &Waker) {
        if let Some(kept) = lock(&self.core.alarms).wakers.get_mut(&self.key) {
            kept.clone_from(waker);
        }
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        let waker = lock(&self.core.alarms).wakers.remove(&self.key);
        drop(waker); // outside of the lock: it is somebody's code
    }
}

impl Core {
    fn arm_alarms(self: &Arc<Self>, at: Instant) {
        let core = Arc::downgrade(self);
        self.events.after(at.saturating_duration_since(Instant::now()), move || {
            if let Some(core) = core.upgrade() {
                core.ring_alarms(at);
            }
        });
    }

    fn ring_alarms(self: &Arc<Self>, at: Instant) {
        let mut alarms = lock(&self.alarms);
        if alarms.armed != Some(at) {
            return; // an earlier one was set behind this timer, and has its own
        }
        let (due, next) = alarms.due(Instant::now());
        drop(alarms);
        for waker in due {
            guarded("a waker", || waker.wake());
        }
        if let Some(next) = next {
            self.arm_alarms(next);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_is_due_rings_and_the_rest_waits() {
        let now = Instant::now();
        let mut alarms = Alarms::default();
        for (number, after) in [3, 1, 1, 2].into_iter().enumerate() {
            let key = (now + Duration::from_secs(after), number as u64);
            alarms.wakers.insert(key, Waker::noop().clone());
        }
        let mut at = |after| {
            let (due, next) = alarms.due(now + Duration::from_secs(after));
            (due.len(), next.map(|next| (next - now).as_secs()))
        };
        assert_eq!(at(0), (0, Some(1)));
        assert_eq!(at(1), (2, Some(2)));
        assert_eq!(at(5), (2, None));
    }
}
