//! The number that ties a response to its request.

use core::fmt;

/// The number that ties a response to its request.
///
/// Each side counts its own: request 5 of the host and request 5 of the guest are two things.
/// One-ways carry one too. The receiver looks it up only for `cmd.context` and `cmd.cancel`. 0 is
/// free for one-ways, for [`Calls`](crate::Calls) begins at 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ThreadId(u64);

impl ThreadId {
    /// The id with this number; any is valid.
    #[must_use]
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// The number, as it stands on the wire.
    #[must_use]
    pub const fn as_u64(self) -> u64 {
        self.0
    }
}

impl From<u64> for ThreadId {
    fn from(number: u64) -> Self {
        Self(number)
    }
}

impl From<ThreadId> for u64 {
    fn from(id: ThreadId) -> Self {
        id.0
    }
}

impl fmt::Display for ThreadId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
