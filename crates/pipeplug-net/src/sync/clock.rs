//! The time as cheaply as it is to be had.

use std::time::Duration;

use nix::time::ClockId;

use crate::sync::clock_gettime;

/// What the kernel noted at its last tick, some milliseconds ago at most: it costs a fifth of the exact time.
#[cfg(target_os = "linux")]
const CLOCK: ClockId = ClockId::CLOCK_MONOTONIC_COARSE;
#[cfg(not(target_os = "linux"))]
const CLOCK: ClockId = ClockId::CLOCK_MONOTONIC;

/// A moment, as the time since some fixed one.
pub(crate) fn coarse_now() -> Duration {
    // The clock is there on every system that this is built for.
    clock_gettime(CLOCK).map(Duration::from).unwrap_or_default()
}
