//! Deadlines of calls, which the calls that a handler makes inherit.

use std::cell::Cell;
use std::time::Duration;

use crate::clock::{Clock, has_passed, time_until};
use crate::sync::{Instant, thread_local};

thread_local! {
    /// Deadline of the request whose handler runs on this thread.
    static INHERITED: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// Deadline of a call.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Deadline {
    pub(crate) at: Instant,
    /// Time from the begin of the call to the deadline.
    pub(crate) within: Duration,
    is_over: bool,
}

impl Deadline {
    /// Deadline of a call that begins now: `timeout`, or that of the request that this thread
    /// handles, whichever is sooner.
    pub(crate) fn of_call(timeout: Option<Duration>, clock: &Clock) -> Option<Self> {
        let inherited = INHERITED.get();
        if timeout.is_none() && inherited.is_none() {
            return None; // nearly always, and then the clock is not read
        }
        // A time that no `Instant` can hold is no limit.
        let own = timeout.and_then(|timeout| clock.now().checked_add(timeout));
        let at = sooner(own, inherited)?;
        let within = timeout.filter(|_| own == Some(at)).unwrap_or_else(|| time_until(at));
        Some(Self { at, within, is_over: within.is_zero() })
    }

    /// Deadline of a call that began at `begun`.
    pub(crate) fn of_call_since(begun: Instant, timeout: Duration, clock: &Clock) -> Option<Self> {
        let begun = clock.moment_of(begun);
        let at = sooner(begun.checked_add(timeout), INHERITED.get())?;
        let within = at.saturating_duration_since(begun);
        Some(Self { at, within, is_over: has_passed(at) })
    }

    /// Returns true if it had passed when it was made.
    pub(crate) fn is_over(&self) -> bool {
        self.is_over
    }
}

/// The earlier one of two optional times. Of times by different clocks, the one by the system's.
pub(crate) fn sooner(one: Option<Instant>, other: Option<Instant>) -> Option<Instant> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

/// Has the calls of this thread inherit a deadline, until it is dropped.
pub(crate) struct Inherit(Option<Instant>);

impl Inherit {
    pub(crate) fn from(deadline: Instant) -> Self {
        Self(INHERITED.replace(Some(deadline)))
    }
}

impl Drop for Inherit {
    fn drop(&mut self) {
        INHERITED.set(self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn without_any_a_call_has_none() {
        assert!(Deadline::of_call(None, &Clock::system()).is_none());
        assert!(Deadline::of_call(Some(Duration::MAX), &Clock::system()).is_none());
    }

    #[test]
    fn the_sooner_of_its_own_and_the_inherited_one_counts_while_the_handler_runs() {
        let at = Instant::now() + 10 * SECOND;
        let within =
            |timeout| Deadline::of_call(timeout, &Clock::system()).map(|deadline| deadline.within);
        {
            let _outer = Inherit::from(at);
            assert_eq!(
                Deadline::of_call(None, &Clock::system()).map(|deadline| deadline.at),
                Some(at)
            );
            assert_eq!(within(Some(SECOND)), Some(SECOND));
            assert!(within(Some(100 * SECOND)).unwrap() <= 10 * SECOND);
            {
                let _inner = Inherit::from(Instant::now());
                assert!(Deadline::of_call(Some(SECOND), &Clock::system()).unwrap().is_over());
            }
            assert_eq!(
                Deadline::of_call(None, &Clock::system()).map(|deadline| deadline.at),
                Some(at)
            );
        }
        assert_eq!(within(None), None);
    }
}
