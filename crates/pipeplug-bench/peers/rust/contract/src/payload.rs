//! Data of calls and replies.

use anyhow::{Result, bail};
use bytes::Bytes;

/// Up to here a reply is compared byte by byte; above, its length has to do.
const COMPARED: usize = 64 * 1024;

/// Data of a call, in the type that the peer's users have it in.
pub trait Payload: Clone + PartialEq + Send + Sync + 'static {
    /// A payload of that many bytes, all of them `x`, so that it can travel as JSON too.
    fn of(size: usize) -> Self;

    /// Its bytes.
    fn size(&self) -> usize;

    /// Checks that `reply` is what was sent.
    ///
    /// # Errors
    /// It is not.
    fn check(&self, reply: &Self) -> Result<()> {
        if reply.size() != self.size() {
            bail!("sent {} bytes, but {} came back", self.size(), reply.size());
        }
        if self.size() <= COMPARED && reply != self {
            bail!("{} other bytes came back than were sent", self.size());
        }
        Ok(())
    }
}

impl Payload for Bytes {
    fn of(size: usize) -> Self {
        vec![b'x'; size].into()
    }

    fn size(&self) -> usize {
        self.len()
    }
}

impl Payload for String {
    fn of(size: usize) -> Self {
        "x".repeat(size)
    }

    fn size(&self) -> usize {
        self.len()
    }
}

/// Two numbers to add, and their sum: the payload of peers with a typed interface, whatever size is
/// asked for.
#[derive(Clone, Copy, PartialEq)]
pub struct Sum {
    pub a: i64,
    pub b: i64,
    sum: i64,
}

impl Sum {
    /// The same with what the plugin answered.
    #[must_use]
    pub fn answered(self, sum: i64) -> Self {
        Self { sum, ..self }
    }
}

impl Payload for Sum {
    fn of(_: usize) -> Self {
        let (a, b) = (1_234_567, 7_654_321);
        Self { a, b, sum: a + b }
    }

    fn size(&self) -> usize {
        size_of::<[i64; 2]>()
    }
}
