//! How long to look for input before going to sleep, learned from what came of it. No clock, no I/O.
//!
//! To be woken costs some tens of microseconds where the two sides run on different CPUs, and about as much CPU time.
//! Looking for the bytes in a loop instead pays if they come within that time, and only if they can: with both sides
//! on one CPU the loop keeps the other side from running. So each time that looking brought nothing, it is left out
//! for twice as many times as before, from the second time in a row on. (The CPUs that a process may use tell nothing
//! of this: two processes of one CPU each may well have two.)
//!
//! What lies there at the first look was not brought by looking, and says nothing for it: on one CPU the side that was
//! woken has often run to its end before this one goes on.

use std::time::Duration;

/// The longest time spent on looking, unless said otherwise: about what being woken costs.
pub(crate) const DEFAULT_SPIN: Duration = Duration::from_micros(50);
/// At most 2 to the power of this many waits go by without looking.
const MAX_SKIPPED: u32 = 10;

/// So many waits go by before the first look: the other side is only starting, on the same CPU as likely as not, and
/// would be kept from it.
const STARTING: u32 = 3;

/// What was learned of one kind of wait.
#[derive(Debug)]
pub(crate) struct Spin {
    /// 0 switches it off.
    max: Duration,
    /// A moving average of how long it took, where looking brought something.
    usual: Duration,
    /// How often in a row it brought nothing.
    misses: u32,
    /// So many waits go by without looking.
    skip: u32,
}

impl Spin {
    pub(crate) fn new(max: Duration) -> Self {
        Self { max, usual: max, misses: 0, skip: STARTING }
    }

    /// How long to look this time.
    pub(crate) fn budget(&mut self) -> Option<Duration> {
        if self.max.is_zero() {
            return None;
        }
        if self.skip > 0 {
            self.skip -= 1;
            return None;
        }
        // After a miss all of it is tried, since it may be that only the usual time has changed. Otherwise half of it goes
        // on top of that time: a tick of the loop that takes this CPU for some 20 µs, on either side, is not to end in sleep.
        let learned = if self.misses > 0 { self.max } else { self.usual * 4 + self.max / 2 };
        Some(learned.min(self.max))
    }

    /// It came after `took`.
    pub(crate) fn hit(&mut self, took: Duration) {
        self.usual = (self.usual * 7 + took) / 8;
        self.misses = 0;
    }

    /// It did not come in time.
    pub(crate) fn miss(&mut self) {
        self.misses += 1;
        // The first one may be an accident.
        self.skip = if self.misses == 1 { 0 } else { 1 << self.misses.min(MAX_SKIPPED) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: Duration = DEFAULT_SPIN;

    #[test]
    fn what_comes_soon_is_looked_for_a_little_longer_than_usual() {
        let mut spin = Spin::new(MAX);
        for _ in 0..50 {
            spin.hit(Duration::from_micros(2));
        }
        while spin.budget().is_none() {}
        let budget = spin.budget().unwrap();
        assert!(budget > MAX / 2 && budget < MAX * 3 / 4, "{budget:?}");
    }

    #[test]
    fn the_other_side_is_left_alone_while_it_starts() {
        let mut spin = Spin::new(MAX);
        let first: Vec<_> = (0..=STARTING).map(|_| spin.budget()).collect();
        assert_eq!(first, [None, None, None, Some(MAX)]);
    }

    #[test]
    fn what_never_comes_in_time_is_hardly_looked_for() {
        let mut spin = Spin::new(MAX);
        let mut looked = 0;
        for _ in 0..10_000 {
            if spin.budget().is_some() {
                looked += 1;
                spin.miss();
            }
        }
        assert!((10..25).contains(&looked), "{looked}");
    }

    #[test]
    fn one_hit_makes_it_look_each_time_again() {
        let mut spin = Spin::new(MAX);
        for _ in 0..5 {
            spin.miss();
        }
        while spin.budget().is_none() {}
        spin.hit(Duration::from_micros(3));
        assert!(spin.budget().is_some());
        assert!(spin.budget().is_some());
    }

    #[test]
    fn switched_off_it_never_looks() {
        assert_eq!(Spin::new(Duration::ZERO).budget(), None);
    }
}
