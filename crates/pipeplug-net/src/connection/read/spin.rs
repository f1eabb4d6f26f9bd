//! Decides how long to look for input before sleeping, learned from the results. No clock, no I/O.
//!
//! A wake-up costs some tens of microseconds if the two sides run on different CPUs, and about as
//! much CPU time. Looking for the bytes in a loop instead (spinning) pays if they come within that
//! time, and only if they can: with both sides on one CPU the loop keeps the peer from running.
//! Each time that spinning brought nothing, it is left out for twice as many waits as before, from
//! the second time in a row on. (The CPUs that a process may use tell nothing about this: two
//! processes that may use one CPU each may well use two.)
//!
//! Input that is there at the first look was not brought by spinning, and does not count for it: on
//! one CPU the peer that was woken has often run to its end before this side goes on.

use std::time::Duration;

/// The number of skipped waits is at most 2 to the power of this.
const MAX_SKIPPED: u32 = 10;

/// Number of waits before the first spin. The peer is only starting, probably on the same CPU, and
/// would be kept from it.
const STARTING: u32 = 3;

/// Number of waits to skip after so many misses in a row. The first miss may be an accident.
pub(super) fn skips_after(misses: u32) -> u32 {
    if misses <= 1 { 0 } else { 1 << misses.min(MAX_SKIPPED) }
}

/// Results of spinning for one kind of wait.
#[derive(Debug)]
pub(crate) struct Spin {
    /// Longest time. 0 disables spinning.
    max: Duration,
    /// Moving average of the time after which input came.
    usual: Duration,
    /// Misses in a row.
    misses: u32,
    /// Number of waits to go without spinning.
    skip: u32,
}

impl Spin {
    pub(crate) fn new(max: Duration) -> Self {
        Self { max, usual: max, misses: 0, skip: STARTING }
    }

    /// Time to spin in this wait.
    pub(crate) fn budget(&mut self) -> Option<Duration> {
        if self.max.is_zero() {
            return None;
        }
        if self.skip > 0 {
            self.skip -= 1;
            return None;
        }
        // After a miss the whole time is tried, since maybe only the usual time has changed.
        // Otherwise half of it is added to that time: a tick of the event loop that takes this CPU
        // for some 20 µs, on either side, is not to end in sleep.
        let learned = if self.misses > 0 { self.max } else { self.usual * 4 + self.max / 2 };
        Some(learned.min(self.max))
    }

    /// Notes that input came after `took`.
    pub(crate) fn hit(&mut self, took: Duration) {
        self.usual = (self.usual * 7 + took) / 8;
        self.misses = 0;
    }

    /// Notes that no input came in time.
    pub(crate) fn miss(&mut self) {
        self.misses += 1;
        self.skip = skips_after(self.misses);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::DEFAULT_SPIN;

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
