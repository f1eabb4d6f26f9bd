//! How long to look for input before going to sleep, learned from what came of it. No clock, no I/O.
//!
//! To be woken costs some tens of microseconds where the two sides run on different CPUs, and about as much CPU time.
//! Looking for the bytes in a loop instead pays if they come within that time, and only if they can: with both sides
//! on one CPU the loop keeps the other side from running. So each time that looking brought nothing, it is left out
//! for twice as many times as before.

use std::time::Duration;

/// The longest time spent on looking, unless said otherwise: about what being woken costs.
pub(crate) const DEFAULT_SPIN: Duration = Duration::from_micros(50);
/// At most 2 to the power of this many waits go by without looking.
const MAX_SKIPPED: u32 = 10;
/// After so many waits the process's CPUs are counted anew.
const RECOUNT: u32 = 1024;

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
    /// Waits until the CPUs are counted again.
    recount: u32,
    /// Whether another CPU is there for the other side to run on.
    alone: bool,
}

impl Spin {
    pub(crate) fn new(max: Duration) -> Self {
        Self { max, usual: max, misses: 0, skip: 0, recount: 0, alone: false }
    }

    /// How long to look this time; `cpus` counts those that this process may use.
    pub(crate) fn budget(&mut self, cpus: impl FnOnce() -> usize) -> Option<Duration> {
        if self.max.is_zero() {
            return None;
        }
        if self.recount == 0 {
            self.recount = RECOUNT;
            self.alone = cpus() < 2;
        }
        self.recount -= 1;
        if self.alone {
            return None;
        }
        if self.skip > 0 {
            self.skip -= 1;
            return None;
        }
        // After a miss all of it is tried, since it may be that only the usual time has changed.
        let learned = if self.misses > 0 { self.max } else { self.usual * 4 + self.max / 10 };
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
        self.skip = 1 << self.misses.min(MAX_SKIPPED);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: Duration = DEFAULT_SPIN;

    fn two() -> usize {
        2
    }

    #[test]
    fn what_comes_soon_is_looked_for_a_little_longer_than_usual() {
        let mut spin = Spin::new(MAX);
        assert_eq!(spin.budget(two), Some(MAX));
        for _ in 0..50 {
            spin.hit(Duration::from_micros(2));
        }
        let budget = spin.budget(two).unwrap();
        assert!(budget > Duration::from_micros(8) && budget < Duration::from_micros(20), "{budget:?}");
    }

    #[test]
    fn what_never_comes_in_time_is_hardly_looked_for() {
        let mut spin = Spin::new(MAX);
        let mut looked = 0;
        for _ in 0..10_000 {
            if spin.budget(two).is_some() {
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
        while spin.budget(two).is_none() {}
        spin.hit(Duration::from_micros(3));
        assert!(spin.budget(two).is_some());
        assert!(spin.budget(two).is_some());
    }

    #[test]
    fn with_one_cpu_it_never_looks_until_there_is_another() {
        let mut spin = Spin::new(MAX);
        assert_eq!(spin.budget(|| 1), None);
        assert_eq!(spin.budget(two), None);
        assert!((0..RECOUNT).any(|_| spin.budget(two).is_some()));
    }

    #[test]
    fn switched_off_it_does_not_even_count() {
        let mut spin = Spin::new(Duration::ZERO);
        assert_eq!(spin.budget(|| unreachable!("the CPUs do not matter")), None);
    }
}
