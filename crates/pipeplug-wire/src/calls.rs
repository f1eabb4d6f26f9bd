//! The table of calls in flight.

use alloc::vec::Vec;
use core::error::Error;
use core::fmt;

use crate::ThreadId;

/// The calls that wait for their responses, and who waits for each.
///
/// `W` is whatever is to be told of the response. The table begins with no allocation.
#[derive(Debug)]
pub struct Calls<W> {
    /// A direct-mapped table: the call `id` is in `slots[id % slots.len()]` or nowhere. The length
    /// is a power of two (or 0), and at most half of the slots are taken.
    slots: Vec<Option<(u64, W)>>,
    len: usize,
    limit: usize,
    /// The first id that was not yet looked at.
    next: u64,
    closed: bool,
    late: u64,
    unknown: u64,
}

/// The smallest table.
const MIN_SLOTS: usize = 8;
/// A table above this size is given back when the last call in it ends: it was a burst's.
const KEPT_SLOTS: usize = 1024;

impl<W> Calls<W> {
    /// A table for at most `limit` calls at a time.
    #[must_use]
    pub const fn new(limit: usize) -> Self {
        Self { slots: Vec::new(), len: 0, limit, next: 1, closed: false, late: 0, unknown: 0 }
    }

    /// Takes a call in and gives it its id.
    ///
    /// Ids begin at 1 and rise; not every number is used.
    ///
    /// # Errors
    /// If the table is closed or full; the error gives the waiter back.
    pub fn open(&mut self, waiter: W) -> Result<ThreadId, OpenError<W>> {
        if self.closed {
            return Err(OpenError::Closed { waiter });
        }
        if self.len >= self.limit {
            return Err(OpenError::TooMany { limit: self.limit, waiter });
        }
        if (self.len + 1) * 2 > self.slots.len() {
            self.grow();
        }
        // At least half of the slots are free, and successive ids walk through all slots, so this
        // ends after at most half a round. A slow call costs each later round one step.
        loop {
            let id = self.next;
            self.next += 1;
            let slot = self.slot(id);
            if self.slots[slot].is_none() {
                self.slots[slot] = Some((id, waiter));
                self.len += 1;
                return Ok(ThreadId::new(id));
            }
        }
    }

    /// Returns an id that no call has or will have, for chunks that belong together and to no call.
    pub const fn reserve(&mut self) -> ThreadId {
        let id = self.next;
        self.next += 1;
        ThreadId::new(id)
    }

    /// Ends a call with its response, and says who waited for it.
    pub fn complete(&mut self, id: ThreadId) -> Completion<W> {
        match self.remove(id) {
            Some(waiter) => Completion::Waiter(waiter),
            None if (1..self.next).contains(&id.as_u64()) => {
                self.late += 1;
                Completion::Late
            }
            None => {
                self.unknown += 1;
                Completion::Unknown
            }
        }
    }

    /// Ends a call without a response, and says who waited for it; its response will be
    /// [`Completion::Late`].
    ///
    /// `None` if the call is not open.
    pub fn cancel(&mut self, id: ThreadId) -> Option<W> {
        self.remove(id)
    }

    /// Returns the waiter of the call. `None` if the call is not open.
    #[must_use]
    pub fn get(&self, id: ThreadId) -> Option<&W> {
        match self.slots.get(self.slot(id.as_u64()))? {
            Some((found, waiter)) if *found == id.as_u64() => Some(waiter),
            _ => None,
        }
    }

    /// How many calls are open.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Returns true if no call is open.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Returns true once [`close`](Self::close) was called.
    #[must_use]
    pub const fn is_closed(&self) -> bool {
        self.closed
    }

    /// How many calls may be open at a time.
    #[must_use]
    pub const fn limit(&self) -> usize {
        self.limit
    }

    /// How many responses came for calls that were no longer open.
    #[must_use]
    pub const fn late(&self) -> u64 {
        self.late
    }

    /// How many responses came for calls that never were.
    #[must_use]
    pub const fn unknown(&self) -> u64 {
        self.unknown
    }

    /// The open calls, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (ThreadId, &W)> {
        self.slots.iter().flatten().map(|(id, waiter)| (ThreadId::new(*id), waiter))
    }

    /// Ends the table: gives all open calls, oldest first, and takes no more.
    pub fn close(&mut self) -> Vec<(ThreadId, W)> {
        self.closed = true;
        self.len = 0;
        let slots = core::mem::take(&mut self.slots);
        let mut open: Vec<_> =
            slots.into_iter().flatten().map(|(id, waiter)| (ThreadId::new(id), waiter)).collect();
        open.sort_unstable_by_key(|(id, _)| *id);
        open
    }

    fn remove(&mut self, id: ThreadId) -> Option<W> {
        let slot = self.slot(id.as_u64());
        let (_, waiter) = self.slots.get_mut(slot)?.take_if(|(found, _)| *found == id.as_u64())?;
        self.len -= 1;
        if self.len == 0 && self.slots.len() > KEPT_SLOTS {
            self.slots = Vec::new();
        }
        Some(waiter)
    }

    /// The slot that the id belongs to; for an empty table, one that there is not.
    fn slot(&self, id: u64) -> usize {
        // The mask is below `slots.len()`, so the value fits.
        (id & (self.slots.len() as u64).wrapping_sub(1)) as usize
    }

    /// Doubles the table.
    ///
    /// No two calls can meet in one slot: two ids that differ modulo n also differ modulo 2n, since
    /// equality modulo 2n implies equality modulo n.
    fn grow(&mut self) {
        let doubled = (self.slots.len() * 2).max(MIN_SLOTS);
        let mut slots = Vec::new();
        slots.reserve_exact(doubled);
        slots.resize_with(doubled, || None);
        for call in core::mem::replace(&mut self.slots, slots).into_iter().flatten() {
            let slot = self.slot(call.0);
            self.slots[slot] = Some(call);
        }
    }
}

/// Result of completing a call with a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Completion<W> {
    /// The call was open, and this waited for it.
    Waiter(W),
    /// The call was open once; it was cancelled, answered already, or ended by [`Calls::close`].
    ///
    /// So are called the few numbers below the newest id that were passed over when ids were given
    /// out.
    Late,
    /// There was no such call.
    Unknown,
}

/// Why a call was not taken in.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum OpenError<W> {
    /// As many calls are open as may be.
    TooMany {
        /// How many may be.
        limit: usize,
        /// The waiter that was to be stored with the call.
        waiter: W,
    },
    /// The table is closed.
    Closed {
        /// The waiter that was to be stored with the call.
        waiter: W,
    },
}

impl<W> OpenError<W> {
    /// Returns the waiter that was to be stored with the call.
    pub fn into_waiter(self) -> W {
        match self {
            Self::TooMany { waiter, .. } | Self::Closed { waiter } => waiter,
        }
    }
}

impl<W> fmt::Debug for OpenError<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooMany { limit, .. } => {
                f.debug_struct("TooMany").field("limit", limit).finish_non_exhaustive()
            }
            Self::Closed { .. } => f.debug_struct("Closed").finish_non_exhaustive(),
        }
    }
}

impl<W> fmt::Display for OpenError<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // The table is full with exactly as many as it may hold.
            Self::TooMany { limit, .. } => {
                write!(f, "{limit} calls are in flight, the limit is {limit}")
            }
            Self::Closed { .. } => f.write_str("the connection takes no more calls"),
        }
    }
}

impl<W> Error for OpenError<W> {}
