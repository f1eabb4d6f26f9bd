//! Cache for the memory of one large buffer.
//!
//! Memory that is new to a process is mapped page by page and zeroed, which takes about as long as
//! reading as many bytes from a pipe. One buffer is kept for all connections of a loop. It is freed
//! when it was not replaced for a second or two. The check for that is scheduled in the loop only
//! while something is kept.

use std::time::Duration;

use crate::sync::Mutex;
use crate::sync::lock::lock;

/// Smallest buffer that is kept, in bytes.
const SMALLEST: usize = 256 << 10;
/// Largest buffer that is kept, in bytes.
const LARGEST: usize = 64 << 20;
/// Time between two checks for an unused buffer.
pub(crate) const EXPIRY_INTERVAL: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
pub(crate) struct BufferCache(Mutex<CacheState>);

#[derive(Debug, Default)]
struct CacheState {
    memory: Option<Vec<u8>>,
    /// True if a buffer was kept since the last check.
    is_used: bool,
    /// True while a check is scheduled.
    is_scheduled: bool,
}

/// Next step for the owner of the cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub(crate) enum Expiry {
    /// Call [`BufferCache::expire`] after [`EXPIRY_INTERVAL`].
    Schedule,
    Nothing,
}

impl BufferCache {
    /// Keeps memory that is no longer needed, in place of the memory that was kept before.
    pub(crate) fn keep(&self, mut memory: Vec<u8>) -> Expiry {
        if !(SMALLEST..=LARGEST).contains(&memory.capacity()) {
            return Expiry::Nothing;
        }
        memory.clear();
        let mut state = lock(&self.0);
        state.is_used = true;
        let was_scheduled = std::mem::replace(&mut state.is_scheduled, true);
        let earlier = state.memory.replace(memory);
        drop(state);
        drop(earlier); // not under the lock: freeing it is a system call
        if was_scheduled { Expiry::Nothing } else { Expiry::Schedule }
    }

    /// Takes the kept memory if it suits a buffer of `len` bytes. It has at most twice the
    /// capacity, since its new owner may keep it for long.
    pub(crate) fn take(&self, len: usize) -> Option<Vec<u8>> {
        if len < SMALLEST {
            return None;
        }
        let suits = len..=len.saturating_mul(2);
        lock(&self.0).memory.take_if(|memory| suits.contains(&memory.capacity()))
    }

    /// Frees memory that was kept before the last check and not replaced since.
    pub(crate) fn expire(&self) -> Expiry {
        let mut state = lock(&self.0);
        state.is_scheduled = std::mem::take(&mut state.is_used);
        if state.is_scheduled {
            return Expiry::Schedule;
        }
        let unused = state.memory.take();
        drop(state);
        drop(unused); // not under the lock: freeing it is a system call
        Expiry::Nothing
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    fn kept(buffer_cache: &BufferCache) -> Option<usize> {
        lock(&buffer_cache.0).memory.as_ref().map(Vec::capacity)
    }

    #[test]
    fn the_last_of_what_is_neither_small_nor_too_large_is_kept() {
        let buffer_cache = BufferCache::default();
        assert_eq!(buffer_cache.keep(Vec::with_capacity(SMALLEST - 1)), Expiry::Nothing);
        assert_eq!(buffer_cache.keep(Vec::with_capacity(LARGEST + 1)), Expiry::Nothing);
        assert_eq!(kept(&buffer_cache), None);
        assert_eq!(buffer_cache.keep(Vec::with_capacity(LARGEST)), Expiry::Schedule);
        assert_eq!(
            buffer_cache.keep(Vec::with_capacity(SMALLEST)),
            Expiry::Nothing,
            "it is watched already"
        );
        assert_eq!(kept(&buffer_cache), Some(SMALLEST));
    }

    #[test]
    fn it_is_taken_for_what_fills_half_of_it_at_least() {
        let buffer_cache = BufferCache::default();
        let _ = buffer_cache.keep(vec![1; 2 * MIB]);
        assert_eq!(buffer_cache.take(2 * MIB + 1), None);
        assert_eq!(buffer_cache.take(MIB - 1), None);
        let taken = buffer_cache.take(MIB).unwrap();
        assert_eq!((taken.len(), taken.capacity()), (0, 2 * MIB));
        assert_eq!(buffer_cache.take(MIB), None, "it was taken");
    }

    #[test]
    fn what_is_not_used_from_one_look_to_the_next_is_given_back() {
        let buffer_cache = BufferCache::default();
        assert_eq!(buffer_cache.keep(vec![1; MIB]), Expiry::Schedule);
        assert_eq!(buffer_cache.expire(), Expiry::Schedule);
        assert_eq!(kept(&buffer_cache), Some(MIB), "it came since the last look");
        assert_eq!(buffer_cache.expire(), Expiry::Nothing);
        assert_eq!(kept(&buffer_cache), None);
        assert_eq!(
            buffer_cache.keep(vec![1; MIB]),
            Expiry::Schedule,
            "no timer is left that would free it"
        );
    }
}
