//! Turn of a request or one-way that is handled in order.

use std::sync::Arc;

use crate::connection::cancellation::WorkerSlot;
use crate::connection::serve::lanes::LaneIndex;
use crate::connection::shared::Shared;

/// Turn of a request or one-way that is handled in order, kept after its handler has returned. The
/// next one starts when it is dropped. See [`Request::keep_turn`](crate::Request::keep_turn).
#[derive(Debug)]
#[must_use = "the next one starts when the turn is dropped"]
pub struct Turn {
    kept: Option<(Arc<Shared>, LaneIndex)>,
}

impl Turn {
    /// Keeps the turn of the handler in this slot, if it has one.
    pub(crate) fn keep(shared: &Arc<Shared>, slot: WorkerSlot) -> Self {
        Self { kept: shared.keep_turn(slot).map(|lane| (Arc::clone(shared), lane)) }
    }

    /// The turn of what is not handled in order.
    pub(crate) const fn none() -> Self {
        Self { kept: None }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if let Some((shared, lane)) = self.kept.take() {
            shared.end_turn(lane);
        }
    }
}
