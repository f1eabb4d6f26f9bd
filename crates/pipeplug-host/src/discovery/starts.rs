//! Limit of plugins that are started at once for probing.

use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Limit of plugins that are starting at once, which takes the CPUs.
const STARTING: usize = 8;
/// Past this time a plugin is taken to wait, which takes nothing: another one may start.
const BUSY: Duration = Duration::from_secs(1);
/// Limit of plugins that run at once, whatever they do.
pub(super) const AT_ONCE: usize = 64;

/// Lets plugins start a few at a time, and those that hang hold no other one up.
#[derive(Debug, Default)]
pub(super) struct Starts {
    /// Start times of the running probes.
    running: Mutex<Vec<Instant>>,
    ended: Condvar,
}

/// The right to run one.
pub(super) struct Turn<'a> {
    starts: &'a Starts,
    begun: Instant,
}

impl Starts {
    /// Waits for a turn.
    pub(super) fn begin(&self) -> Turn<'_> {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let now = Instant::now();
            match wait_for(&running, now) {
                None => {
                    running.push(now);
                    return Turn { starts: self, begun: now };
                }
                Some(time) => {
                    running = self
                        .ended
                        .wait_timeout(running, time)
                        .unwrap_or_else(PoisonError::into_inner)
                        .0;
                }
            }
        }
    }
}

/// Time until the next probe may start; `None` if it may start now.
fn wait_for(running: &[Instant], now: Instant) -> Option<Duration> {
    let left = running.iter().filter_map(|begun| (*begun + BUSY).checked_duration_since(now));
    let mut left: Vec<_> = left.filter(|left| !left.is_zero()).collect();
    if left.len() < STARTING {
        return None;
    }
    left.sort_unstable();
    Some(left[left.len() - STARTING])
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut running = self.starts.running.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = running.iter().position(|begun| *begun == self.begun) {
            running.swap_remove(at);
        }
        drop(running);
        self.starts.ended.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_hangs_holds_no_other_one_up() {
        let begun = Instant::now();
        let mut running = vec![begun; STARTING - 1];
        assert_eq!(wait_for(&running, begun), None);
        running.push(begun + BUSY / 2);
        assert_eq!(
            wait_for(&running, begun + BUSY / 2),
            Some(BUSY / 2),
            "until the oldest counts no more"
        );
        assert_eq!(wait_for(&running, begun + BUSY), None);
        assert_eq!(wait_for(&vec![begun; AT_ONCE], begun + BUSY), None);
    }

    #[test]
    fn one_that_ends_makes_room() {
        let starts = Starts::default();
        let mut turns: Vec<_> = (0..STARTING).map(|_| starts.begin()).collect();
        turns.pop();
        turns.push(starts.begin());
        assert_eq!(starts.running.lock().unwrap().len(), STARTING);
        drop(turns);
        assert!(starts.running.lock().unwrap().is_empty());
    }
}
