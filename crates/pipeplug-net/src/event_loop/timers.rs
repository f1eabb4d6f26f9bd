//! Timers that wake tasks: for what is awaited with a deadline.
//!
//! One call-back of the event loop serves all timers of a connection: it is scheduled for the
//! earliest, and schedules the next one. A call that is answered in time, as nearly all are,
//! therefore leaves nothing behind in the loop. A scheduled call-back cannot be revoked. Where an
//! earlier timer is set later, the call-back that was scheduled first still runs at its time, and
//! serves the timers that are due then.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::task::Waker;

use super::EventLoop;
use crate::clock::Manual;
use crate::sync::lock::{guarded, lock, renew};
use crate::sync::{Instant, Mutex};

/// The time, and a number that keeps timers of the same time apart.
type Key = (Instant, u64);

/// The timers of one connection.
#[derive(Debug)]
pub(crate) struct Timers {
    events: EventLoop,
    map: Mutex<TimerMap>,
}

#[derive(Debug, Default)]
struct TimerMap {
    wakers: BTreeMap<Key, Waker>,
    next: u64,
    /// Times of the scheduled call-backs, the earliest last.
    scheduled: Vec<Instant>,
}

/// Wakes a task at its time, unless it is dropped before.
#[derive(Debug)]
pub(crate) struct Timer {
    place: Place,
    key: Key,
}

/// Where a timer is kept.
#[derive(Debug)]
enum Place {
    Loop(Arc<Timers>),
    /// In the manual clock that its time is by.
    Manual(Arc<Manual>),
}

impl TimerMap {
    /// Notes that a call-back is scheduled for `at`, and returns true, if none is scheduled up to
    /// then.
    fn wants_call_back(&mut self, at: Instant) -> bool {
        let wants = self.scheduled.last().is_none_or(|earliest| at < *earliest);
        if wants {
            self.scheduled.push(at);
        }
        wants
    }

    /// Takes the wakers that are due when the call-back for `scheduled` runs, and returns the time
    /// to schedule the next call-back for.
    fn fire(&mut self, scheduled: Instant, now: Instant) -> (Vec<Waker>, Option<Instant>) {
        self.scheduled.retain(|at| *at != scheduled);
        let later = self.wakers.split_off(&(now, u64::MAX));
        let due = std::mem::replace(&mut self.wakers, later);
        let next = self.wakers.first_key_value().map(|((at, _), _)| *at);
        (due.into_values().collect(), next.filter(|at| self.wants_call_back(*at)))
    }
}

impl Timers {
    pub(crate) fn new(events: &EventLoop) -> Arc<Self> {
        Arc::new(Self { events: events.clone(), map: Mutex::default() })
    }

    /// Sets a timer that wakes `waker` at `at`.
    pub(crate) fn set(self: &Arc<Self>, at: Instant, waker: Waker) -> Timer {
        if let Some(manual) = Manual::of(at) {
            let key = manual.wake_at(at, waker);
            return Timer { place: Place::Manual(manual), key };
        }
        let mut map = lock(&self.map);
        let key = (at, map.next);
        map.next += 1;
        map.wakers.insert(key, waker);
        let wants_call_back = map.wants_call_back(at);
        drop(map);
        if wants_call_back {
            self.schedule(at);
        }
        Timer { place: Place::Loop(Arc::clone(self)), key }
    }

    fn schedule(self: &Arc<Self>, at: Instant) {
        let timers = Arc::downgrade(self);
        self.events.after(at.saturating_duration_since(Instant::now()), move || {
            if let Some(timers) = timers.upgrade() {
                timers.fire(at);
            }
        });
    }

    fn fire(self: &Arc<Self>, scheduled: Instant) {
        let (due, next) = lock(&self.map).fire(scheduled, Instant::now());
        for waker in due {
            guarded("a waker", || waker.wake());
        }
        if let Some(next) = next {
            self.schedule(next);
        }
    }
}

impl Timer {
    /// Replaces the waker. A timer that has fired stays fired: its task looks at the clock.
    pub(crate) fn renew(&self, waker: &Waker) {
        let timers = match &self.place {
            Place::Loop(timers) => timers,
            Place::Manual(manual) => return manual.renew(&self.key, waker),
        };
        let earlier =
            lock(&timers.map).wakers.get_mut(&self.key).and_then(|kept| renew(kept, waker));
        drop(earlier); // not under the lock: a waker's drop is code of the user
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        let timers = match &self.place {
            Place::Loop(timers) => timers,
            Place::Manual(manual) => return manual.remove(&self.key),
        };
        let waker = lock(&timers.map).wakers.remove(&self.key);
        drop(waker); // not under the lock: a waker's drop is code of the user
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn add(map: &mut TimerMap, at: Instant) -> Key {
        let key = (at, map.next);
        map.next += 1;
        map.wakers.insert(key, Waker::noop().clone());
        key
    }

    #[test]
    fn timers_that_are_due_fire_and_the_others_wait() {
        let now = Instant::now();
        let at = |after| now + Duration::from_secs(after);
        let mut map = TimerMap::default();
        for (after, wants) in [(3, true), (1, true), (1, false), (2, false)] {
            add(&mut map, at(after));
            assert_eq!(map.wants_call_back(at(after)), wants, "{after}");
        }
        let mut fire = |scheduled, after| {
            let (due, next) = map.fire(at(scheduled), at(after));
            (due.len(), next.map(|next| (next - now).as_secs()))
        };
        assert_eq!(fire(1, 1), (2, Some(2)));
        assert_eq!(fire(2, 2), (1, None), "the first call-back is still to come");
        assert_eq!(fire(3, 5), (1, None));
    }

    #[test]
    fn a_late_timer_has_one_call_back_however_many_earlier_ones_there_were() {
        let now = Instant::now();
        let at = |after| now + Duration::from_secs(after);
        let mut map = TimerMap::default();
        add(&mut map, at(3600));
        assert!(map.wants_call_back(at(3600)));
        for after in 1..1000 {
            let sooner = add(&mut map, at(after));
            assert!(map.wants_call_back(at(after)));
            if after % 2 == 0 {
                map.wakers.remove(&sooner);
            }
            assert!(map.fire(at(after), at(after)).1.is_none());
        }
        assert_eq!(map.scheduled, [at(3600)]);
    }
}
