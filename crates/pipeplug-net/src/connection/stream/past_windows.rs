//! Limit of what is received past the windows of streams.

use std::sync::Arc;

use crate::sync::atomic::{AtomicU64, Ordering};

/// Weight past the window of a stream that was received and not taken, as part of the total of all
/// streams. One part may go past each window, and parts may be large: the total is bounded too.
#[derive(Debug, Default)]
pub(crate) struct PastWindows {
    own: u64,
    limit: u64,
    total: Arc<AtomicU64>,
}

impl PastWindows {
    pub(super) fn new(total: &Arc<AtomicU64>, limit: u64) -> Self {
        Self { own: 0, limit, total: Arc::clone(total) }
    }

    /// Sets the weight of this stream. Returns the total and the limit if that is too much, and
    /// sets nothing then. A stream that is the only one past its window may be so.
    #[inline]
    pub(super) fn set(&mut self, past: u64) -> Result<(), (u64, u64)> {
        if past == self.own {
            return Ok(()); // nearly always
        }
        // Relaxed: a bound, which publishes nothing. The leader alone adds.
        let others = self.total.load(Ordering::Relaxed).saturating_sub(self.own);
        let total = others.saturating_add(past);
        if past > self.own && others > 0 && total > self.limit {
            return Err((total, self.limit));
        }
        if past > self.own {
            self.total.fetch_add(past - self.own, Ordering::Relaxed);
        } else {
            self.total.fetch_sub(self.own - past, Ordering::Relaxed);
        }
        self.own = past;
        Ok(())
    }
}

impl Drop for PastWindows {
    fn drop(&mut self) {
        // Less is never too much.
        let _ = self.set(0);
    }
}
