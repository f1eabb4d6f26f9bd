//! The status of a supervised plugin, for `pipeplug top`.

use std::sync::Arc;

use super::state::{Job, Phase, Shared};
use crate::plugin::Plugin;
use crate::status::{PluginStatus, Published, Row, publish};

impl Shared {
    /// Publishes the plugin until the result is dropped.
    pub(super) fn publish(self: &Arc<Self>) -> Published {
        let weak = Arc::downgrade(self);
        publish(&self.events, move || Some(weak.upgrade()?.status()))
    }

    fn status(&self) -> PluginStatus {
        let state = self.lock();
        let row = |plugin: &Plugin| plugin.status_row().map(Arc::clone);
        let (phase, row): (_, Option<Arc<Row>>) = match &state.phase {
            Phase::Up(instance) => (None, row(&instance.plugin)),
            Phase::Starting { plugin, .. } => (Some("starting"), plugin.as_ref().and_then(row)),
            Phase::Ending { instance, .. } => (Some("stopping"), row(&instance.plugin)),
            Phase::Due(Job::End(instance, _)) => (Some("stopping"), row(&instance.plugin)),
            Phase::Due(Job::Start) => (Some("starting"), None),
            Phase::Down => (Some("down"), None),
            Phase::Backoff { .. } => (Some("restarting"), None),
            Phase::GaveUp(_) => (Some("gave up"), None),
            Phase::Stopped => (Some("stopped"), None),
        };
        let (name, restarts) = (state.name().to_owned(), state.starts.saturating_sub(1));
        // The look below takes locks of the connection.
        drop(state);
        let process = row.map(|row| row.look()).unwrap_or_default();
        let state = phase.map_or(process.state, str::to_owned);
        PluginStatus { name, restarts, state, ..process }
    }
}

#[cfg(test)]
mod tests {
    use crate::{Plugin, Supervisor};

    #[test]
    fn what_has_no_process_has_a_state() {
        let builder = Plugin::builder("/nonexistent/plugin").name("gone").publish_status();
        let supervisor = Supervisor::builder(builder).build().unwrap();
        let state = || {
            let status = supervisor.shared().status();
            assert_eq!((status.name.as_str(), status.pid, status.restarts), ("gone", None, 0));
            status.state
        };
        assert_eq!(state(), "down");
        supervisor.start().unwrap_err();
        assert_eq!(state(), "gave up");
        supervisor.reset();
        assert_eq!(state(), "down");
        supervisor.stop().unwrap();
        assert_eq!(state(), "stopped");
    }
}
