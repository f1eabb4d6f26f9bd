//! Waking tasks at their time: for what is awaited with a deadline.
//!
//! A timer of the loop serves all alarms of a connection: the one for the earliest, which sets the next one. So a call
//! that is answered in time, as nearly all are, leaves nothing behind in the loop. A timer cannot be taken back: one that
//! an earlier one came ahead of is left to its time, and serves then.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::task::Waker;

use crate::connection::shared::Core;
use crate::sync::Instant;
use crate::sync::lock::{guarded, lock, renew};

/// When, and a number to tell those of the same moment apart.
type Key = (Instant, u64);

#[derive(Debug, Default)]
pub(crate) struct Alarms {
    wakers: BTreeMap<Key, Waker>,
    next: u64,
    /// When timers come, the soonest last.
    timers: Vec<Instant>,
}

/// Wakes a task at its time, unless it is dropped before.
#[derive(Debug)]
pub(crate) struct Alarm {
    core: Arc<Core>,
    key: Key,
}

impl Alarms {
    /// Whether a timer is to be set for this time: none comes by then.
    fn wants_timer(&mut self, at: Instant) -> bool {
        let wants = self.timers.last().is_none_or(|soonest| at < *soonest);
        if wants {
            self.timers.push(at);
        }
        wants
    }

    /// A timer has come: the wakers whose time has, and the timer to set next.
    fn ring(&mut self, timer: Instant, now: Instant) -> (Vec<Waker>, Option<Instant>) {
        self.timers.retain(|at| *at != timer);
        let later = self.wakers.split_off(&(now, u64::MAX));
        let due = std::mem::replace(&mut self.wakers, later);
        let next = self.wakers.first_key_value().map(|((at, _), _)| *at);
        (due.into_values().collect(), next.filter(|at| self.wants_timer(*at)))
    }
}

impl Alarm {
    pub(crate) fn set(core: &Arc<Core>, at: Instant, waker: Waker) -> Self {
        let mut alarms = lock(&core.alarms);
        let key = (at, alarms.next);
        alarms.next += 1;
        alarms.wakers.insert(key, waker);
        let wants_timer = alarms.wants_timer(at);
        drop(alarms);
        if wants_timer {
            core.arm_alarms(at);
        }
        Self { core: Arc::clone(core), key }
    }

    /// Another waker is to be woken; too late where it has rung, which the task sees by the time.
    pub(crate) fn renew(&self, waker: &Waker) {
        let earlier = lock(&self.core.alarms).wakers.get_mut(&self.key).and_then(|kept| renew(kept, waker));
        drop(earlier); // outside of the lock: it is somebody's code
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
        let (due, next) = lock(&self.alarms).ring(at, Instant::now());
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

    fn alarm(alarms: &mut Alarms, at: Instant) -> Key {
        let key = (at, alarms.next);
        alarms.next += 1;
        alarms.wakers.insert(key, Waker::noop().clone());
        key
    }

    #[test]
    fn what_is_due_rings_and_the_rest_waits() {
        let now = Instant::now();
        let at = |after| now + Duration::from_secs(after);
        let mut alarms = Alarms::default();
        for (after, timer) in [(3, true), (1, true), (1, false), (2, false)] {
            alarm(&mut alarms, at(after));
            assert_eq!(alarms.wants_timer(at(after)), timer, "{after}");
        }
        let mut ring = |timer, after| {
            let (due, next) = alarms.ring(at(timer), at(after));
            (due.len(), next.map(|next| (next - now).as_secs()))
        };
        assert_eq!(ring(1, 1), (2, Some(2)));
        assert_eq!(ring(2, 2), (1, None), "the first timer is still to come");
        assert_eq!(ring(3, 5), (1, None));
    }

    #[test]
    fn a_late_alarm_has_one_timer_however_many_sooner_ones_there_were() {
        let now = Instant::now();
        let at = |after| now + Duration::from_secs(after);
        let mut alarms = Alarms::default();
        alarm(&mut alarms, at(3600));
        assert!(alarms.wants_timer(at(3600)));
        for after in 1..1000 {
            let sooner = alarm(&mut alarms, at(after));
            assert!(alarms.wants_timer(at(after)));
            if after % 2 == 0 {
                alarms.wakers.remove(&sooner);
            }
            assert!(alarms.ring(at(after), at(after)).1.is_none());
        }
        assert_eq!(alarms.timers, [at(3600)]);
    }
}
