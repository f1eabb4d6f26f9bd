//! Threads, locks, atomics and the clock, which a model can replace.
//!
//! In a model (`models/mod.rs`) a scheduler that tries one order of steps after the other takes the
//! place of the system's.

pub(crate) mod clock;
pub(crate) mod lock;

#[cfg(not(all(test, shuttle)))]
pub(crate) use self::system::*;
#[cfg(all(test, shuttle))]
pub(crate) use crate::models::sync::*;

#[cfg(not(all(test, shuttle)))]
mod system {
    pub(crate) use std::sync::{Condvar, Mutex, MutexGuard, atomic};
    pub(crate) use std::time::Instant;
    pub(crate) use std::{thread, thread_local};

    pub(crate) use mio::Poll;
    pub(crate) use nix::poll::poll;
    pub(crate) use nix::time::clock_gettime;

    /// Marks a system call, before which a model may let another thread run.
    #[inline(always)]
    pub(crate) fn step() {}
}
