//! Time at the lowest cost.

use std::time::Duration;

use nix::time::ClockId;

use crate::sync::clock_gettime;

/// Time of the kernel's last tick, at most some milliseconds ago. Reading it costs a fifth of the
/// exact time.
#[cfg(target_os = "linux")]
const CLOCK: ClockId = ClockId::CLOCK_MONOTONIC_COARSE;
#[cfg(not(target_os = "linux"))]
const CLOCK: ClockId = ClockId::CLOCK_MONOTONIC;

/// The time since a fixed moment.
pub(crate) fn coarse_now() -> Duration {
    // Every supported system has this clock.
    clock_gettime(CLOCK).map(Duration::from).unwrap_or_default()
}

/// The exact time since the same moment as [`coarse_now`].
pub(crate) fn exact_now() -> Duration {
    // Every supported system has this clock.
    clock_gettime(ClockId::CLOCK_MONOTONIC).map(Duration::from).unwrap_or_default()
}
