//! The memory of a large buffer that is done with, kept for the next one.
//!
//! Memory that is new to a process comes page by page and zeroed, which takes about as long as to read as much from a
//! pipe. One buffer is kept for all connections of a loop, and given back to the system when no other one took its place
//! for a second or two. Who looks for that is a timer of the loop, which runs only while something is kept.

use std::time::Duration;

use crate::sync::Mutex;
use crate::sync::lock::lock;

/// Buffers of this size, in bytes, are worth it,
const SMALLEST: usize = 256 << 10;
/// and of this size are not too much to keep.
const LARGEST: usize = 64 << 20;
/// How often it is looked whether it is used still.
pub(crate) const LOOK: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
pub(crate) struct Spent(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    memory: Option<Vec<u8>>,
    /// Whether one was kept since the last look.
    is_used: bool,
    /// Whether somebody looks.
    is_watched: bool,
}

/// What is to be done about what is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub(crate) enum Watch {
    /// [`Spent::look`] after [`LOOK`].
    Begin,
    Nothing,
}

impl Spent {
    /// Keeps memory that nobody needs any more, in place of what was kept.
    pub(crate) fn keep(&self, mut memory: Vec<u8>) -> Watch {
        if !(SMALLEST..=LARGEST).contains(&memory.capacity()) {
            return Watch::Nothing;
        }
        memory.clear();
        let mut state = lock(&self.0);
        state.is_used = true;
        let was_watched = std::mem::replace(&mut state.is_watched, true);
        let earlier = state.memory.replace(memory);
        drop(state);
        drop(earlier); // outside of the lock: it is a system call
        if was_watched { Watch::Nothing } else { Watch::Begin }
    }

    /// Takes what is kept for a buffer of `len` bytes, where it suits: its owner may keep it for long.
    pub(crate) fn take(&self, len: usize) -> Option<Vec<u8>> {
        if len < SMALLEST {
            return None;
        }
        let suits = len..=len.saturating_mul(2);
        lock(&self.0).memory.take_if(|memory| suits.contains(&memory.capacity()))
    }

    /// Gives back what was kept ahead of the last look and not used since; whether to look again.
    pub(crate) fn look(&self) -> Watch {
        let mut state = lock(&self.0);
        state.is_watched = std::mem::take(&mut state.is_used);
        if state.is_watched {
            return Watch::Begin;
        }
        let unused = state.memory.take();
        drop(state);
        drop(unused); // outside of the lock: it is a system call
        Watch::Nothing
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    fn kept(spent: &Spent) -> Option<usize> {
        lock(&spent.0).memory.as_ref().map(Vec::capacity)
    }

    #[test]
    fn the_last_of_what_is_neither_small_nor_too_large_is_kept() {
        let spent = Spent::default();
        assert_eq!(spent.keep(Vec::with_capacity(SMALLEST - 1)), Watch::Nothing);
        assert_eq!(spent.keep(Vec::with_capacity(LARGEST + 1)), Watch::Nothing);
        assert_eq!(kept(&spent), None);
        assert_eq!(spent.keep(Vec::with_capacity(LARGEST)), Watch::Begin);
        assert_eq!(spent.keep(Vec::with_capacity(SMALLEST)), Watch::Nothing, "it is watched already");
        assert_eq!(kept(&spent), Some(SMALLEST));
    }

    #[test]
    fn it_is_taken_for_what_fills_half_of_it_at_least() {
        let spent = Spent::default();
        let _ = spent.keep(vec![1; 2 * MIB]);
        assert_eq!(spent.take(2 * MIB + 1), None);
        assert_eq!(spent.take(MIB - 1), None);
        let taken = spent.take(MIB).unwrap();
        assert_eq!((taken.len(), taken.capacity()), (0, 2 * MIB));
        assert_eq!(spent.take(MIB), None, "it was taken");
    }

    #[test]
    fn what_is_not_used_from_one_look_to_the_next_is_given_back() {
        let spent = Spent::default();
        assert_eq!(spent.keep(vec![1; MIB]), Watch::Begin);
        assert_eq!(spent.look(), Watch::Begin);
        assert_eq!(kept(&spent), Some(MIB), "it came since the last look");
        assert_eq!(spent.look(), Watch::Nothing);
        assert_eq!(kept(&spent), None);
        assert_eq!(spent.keep(vec![1; MIB]), Watch::Begin, "nobody looks any more");
    }
}
