//! Deadlines of calls, and the `cmd.context` that tells the other side.

use std::cell::Cell;
use std::time::Duration;

use pipeplug_wire::{ChunkRef, Direction, ThreadId};
use serde_json::{Map, Value};

use crate::sync::{Instant, thread_local};

/// Name of the feature in `pipeplug.features`.
pub(crate) const FEATURE: &str = "context";

/// Size past which a context is ignored, in bytes.
const CONTEXT_MAX: usize = 4096;

/// Key of the remaining time in a context, in whole milliseconds.
const KEY_REMAINING: &str = "deadline_ms";

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
    pub(crate) fn of_call(timeout: Option<Duration>) -> Option<Self> {
        let inherited = INHERITED.get();
        if timeout.is_none() && inherited.is_none() {
            return None; // nearly always, and then the clock is not read
        }
        let now = Instant::now();
        // A time that no `Instant` can hold is no limit.
        let own = timeout.and_then(|timeout| now.checked_add(timeout));
        let at = sooner(own, inherited)?;
        let within = at.saturating_duration_since(now);
        Some(Self { at, within, is_over: within.is_zero() })
    }

    /// Deadline of a call that began at `begun`.
    pub(crate) fn of_call_since(begun: Instant, timeout: Duration) -> Option<Self> {
        let at = sooner(begun.checked_add(timeout), INHERITED.get())?;
        let within = at.saturating_duration_since(begun);
        Some(Self { at, within, is_over: at <= Instant::now() })
    }

    /// Returns true if it had passed when it was made.
    pub(crate) fn is_over(&self) -> bool {
        self.is_over
    }
}

/// The earlier one of two optional times.
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

/// A `cmd.context` that was received, for the request that follows it if it has this id.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PendingContext {
    pub(crate) id: ThreadId,
    pub(crate) deadline: Instant,
}

impl PendingContext {
    /// The deadline, if `chunk` is its request.
    #[cold]
    pub(crate) fn deadline_for(self, chunk: &ChunkRef<'_>) -> Option<Instant> {
        let is_its_request = chunk.direction == Direction::Request && chunk.thread_id == self.id;
        is_its_request.then_some(self.deadline)
    }
}

/// Reason that a context was ignored.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ContextError {
    #[error("it has {len} bytes, the limit is {CONTEXT_MAX}")]
    TooLong { len: usize },
    #[error("it is no JSON object: {0}")]
    NoObject(serde_json::Error),
    #[error("its {KEY_REMAINING} is no whole number from 0 to 2^64-1")]
    NoMilliseconds,
}

/// Encodes a context with the time that is left, rounded up to milliseconds.
pub(crate) fn encode(left: Duration) -> Vec<u8> {
    let millis = left.as_nanos().div_ceil(1_000_000);
    format!("{{\"{KEY_REMAINING}\":{}}}", u64::try_from(millis).unwrap_or(u64::MAX)).into_bytes()
}

/// Parses a context and returns the deadline by the clock of this side. `None` if the context names
/// none, or a time that no `Instant` can hold.
pub(crate) fn parse(buffer: &[u8], now: Instant) -> Result<Option<Instant>, ContextError> {
    if buffer.len() > CONTEXT_MAX {
        return Err(ContextError::TooLong { len: buffer.len() });
    }
    let object: Map<String, Value> =
        serde_json::from_slice(buffer).map_err(ContextError::NoObject)?;
    match object.get(KEY_REMAINING) {
        None => Ok(None),
        Some(value) => {
            let millis = value.as_u64().ok_or(ContextError::NoMilliseconds)?;
            Ok(now.checked_add(Duration::from_millis(millis)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn without_any_a_call_has_none() {
        assert!(Deadline::of_call(None).is_none());
        assert!(Deadline::of_call(Some(Duration::MAX)).is_none());
    }

    #[test]
    fn the_sooner_of_its_own_and_the_inherited_one_counts_while_the_handler_runs() {
        let at = Instant::now() + 10 * SECOND;
        let within = |timeout| Deadline::of_call(timeout).map(|deadline| deadline.within);
        {
            let _outer = Inherit::from(at);
            assert_eq!(Deadline::of_call(None).map(|deadline| deadline.at), Some(at));
            assert_eq!(within(Some(SECOND)), Some(SECOND));
            assert!(within(Some(100 * SECOND)).unwrap() <= 10 * SECOND);
            {
                let _inner = Inherit::from(Instant::now());
                assert!(Deadline::of_call(Some(SECOND)).unwrap().is_over());
            }
            assert_eq!(Deadline::of_call(None).map(|deadline| deadline.at), Some(at));
        }
        assert_eq!(within(None), None);
    }

    #[test]
    fn a_context_tells_begun_milliseconds() {
        for (left, text) in [
            (Duration::from_nanos(1), "1"),
            (Duration::from_millis(1500), "1500"),
            (Duration::from_micros(1001), "2"),
            (Duration::MAX, "18446744073709551615"),
        ] {
            assert_eq!(encode(left), format!("{{\"deadline_ms\":{text}}}").into_bytes());
        }
    }

    #[test]
    fn what_was_told_is_understood() {
        let now = Instant::now();
        assert_eq!(parse(&encode(SECOND), now).unwrap(), Some(now + SECOND));
        assert_eq!(parse(b" { \"trace\": [1], \"deadline_ms\": 0 } ", now).unwrap(), Some(now));
        assert_eq!(parse(b"{}", now).unwrap(), None);
        let twice = b"{\"deadline_ms\":\"1\",\"deadline_ms\":1000}";
        assert_eq!(parse(twice, now).unwrap(), Some(now + SECOND), "the last one counts");
        let far = parse(&encode(Duration::MAX), now).unwrap();
        assert!(far.is_none_or(|at| at > now + 1_000_000 * SECOND), "{far:?}");
    }

    #[test]
    fn a_context_that_says_nothing_sensible_is_an_error() {
        let deep = format!("{{\"a\":{}{}}}", "[".repeat(2000), "]".repeat(2000));
        let long = format!("{{\"deadline_ms\":1{}}}", " ".repeat(CONTEXT_MAX));
        for text in [
            "",
            "1",
            "[]",
            "null",
            "{",
            "{} {}",
            "{\"deadline_ms\":1000,\"deadline_ms\":\"1\"}",
            "{\"deadline_ms\":-0}",
            "{\"deadline_ms\":01}",
            "{\"deadline_ms\":1.0}",
            "{\"deadline_ms\":-1}",
            "{\"deadline_ms\":1.5}",
            "{\"deadline_ms\":1e3}",
            "{\"deadline_ms\":18446744073709551616}",
            "{\"deadline_ms\":1e999}",
            "{\"deadline_ms\":\"1\"}",
            "{\"deadline_ms\":null}",
            "\u{0}",
            deep.as_str(),
            long.as_str(),
        ] {
            let result = parse(text.as_bytes(), Instant::now());
            assert!(result.is_err(), "{text}: {result:?}");
        }
        assert!(parse(b"{\"deadline_ms\":\xff}", Instant::now()).is_err());
    }
}
