//! Progress of a request: its JSON, and when it is sent.

use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::escape::beginning;
use crate::sync::Instant;

/// Name of the feature in `pipeplug.features`.
pub(crate) const FEATURE: &str = "progress";

/// Time between two reports of a request that are sent.
#[cfg(not(all(test, shuttle)))]
pub(crate) const PAUSE: Duration = Duration::from_millis(50);
/// Some steps of a model, so that the event loop sends some of the reports.
#[cfg(all(test, shuttle))]
pub(crate) const PAUSE: Duration = Duration::from_micros(20);
/// Size past which a report is ignored, in bytes.
const PROGRESS_MAX: usize = 4096;
/// Size to which a message is cut. Each byte of it takes six in JSON at most.
const MESSAGE_MAX: usize = 512;

const KEY_DONE: &str = "done";
const KEY_TOTAL: &str = "total";
const KEY_MESSAGE: &str = "message";

/// Progress of a call, as its handler has reported it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Progress {
    /// Amount of work that is done, in any unit.
    pub done: u64,
    /// Amount of all work, in the same unit. `None` if it is not known.
    pub total: Option<u64>,
    /// Work that the handler does now, for people. Empty if it did not say.
    pub message: String,
}

impl Progress {
    /// Encodes a report. A message of more than 512 bytes is cut.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let Self { done, total, message } = self;
        let mut object = json!({ KEY_DONE: done });
        if let Some(total) = total {
            object[KEY_TOTAL] = (*total).into();
        }
        if !message.is_empty() {
            object[KEY_MESSAGE] = beginning(message, MESSAGE_MAX).into();
        }
        object.to_string().into_bytes()
    }

    /// Parses a report. `None` if it is none.
    pub(crate) fn parse(buffer: &[u8]) -> Option<Self> {
        if buffer.len() > PROGRESS_MAX {
            return None;
        }
        let mut object: Map<String, Value> = serde_json::from_slice(buffer).ok()?;
        let total = match object.remove(KEY_TOTAL) {
            None | Some(Value::Null) => None,
            Some(total) => Some(total.as_u64()?),
        };
        let message = match object.remove(KEY_MESSAGE) {
            None | Some(Value::Null) => String::new(),
            Some(Value::String(message)) => message,
            Some(_) => return None,
        };
        Some(Self { done: object.get(KEY_DONE)?.as_u64()?, total, message })
    }
}

/// Decides which reports of a request are sent: the first at once, and then the latest after each
/// [`PAUSE`].
#[derive(Debug, Default)]
pub(crate) struct Coalesce {
    pending: Progress,
    has_pending: bool,
    sent: Option<Instant>,
    /// True while the event loop is to look at it.
    is_scheduled: bool,
    is_closed: bool,
}

/// Next step for the pending report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// Send it.
    Send,
    /// Look at it after this time.
    Schedule(Duration),
    /// Nothing.
    Wait,
}

impl Coalesce {
    /// Takes a report, in place of the pending one.
    pub(crate) fn report(
        &mut self,
        done: u64,
        total: Option<u64>,
        message: &str,
        now: impl FnOnce() -> Instant,
    ) -> Step {
        if self.is_closed {
            return Step::Wait;
        }
        (self.pending.done, self.pending.total) = (done, total);
        // Its memory is used again, since most reports are never sent.
        self.pending.message.clear();
        self.pending.message.push_str(beginning(message, MESSAGE_MAX));
        self.has_pending = true;
        if self.is_scheduled { Step::Wait } else { self.step(now()) }
    }

    /// Tells what is to be done at the time that was scheduled.
    pub(crate) fn scheduled(&mut self, now: Instant) -> Step {
        self.is_scheduled = false;
        if self.is_closed || !self.has_pending { Step::Wait } else { self.step(now) }
    }

    fn step(&mut self, now: Instant) -> Step {
        let passed = self.sent.map(|sent| now.saturating_duration_since(sent));
        match passed.filter(|passed| *passed < PAUSE) {
            None => Step::Send,
            Some(passed) => {
                self.is_scheduled = true;
                Step::Schedule(PAUSE - passed)
            }
        }
    }

    /// The pending report.
    pub(crate) fn pending(&self) -> &Progress {
        &self.pending
    }

    /// Notes that the pending report was sent.
    pub(crate) fn sent(&mut self, now: Instant) {
        (self.has_pending, self.sent) = (false, Some(now));
    }

    /// Notes that there was no room for it: it is tried again after a pause.
    pub(crate) fn not_sent(&mut self) -> Step {
        self.is_scheduled = true;
        Step::Schedule(PAUSE)
    }

    /// Ends the reports, before the answer. Returns the last one if it was not sent.
    pub(crate) fn close(&mut self) -> Option<Progress> {
        let is_first = !std::mem::replace(&mut self.is_closed, true);
        (is_first && std::mem::take(&mut self.has_pending))
            .then(|| std::mem::take(&mut self.pending))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn progress(done: u64, total: Option<u64>, message: &str) -> Progress {
        Progress { done, total, message: message.into() }
    }

    #[test]
    fn what_was_encoded_is_parsed() {
        for report in [
            progress(0, None, ""),
            progress(u64::MAX, Some(0), "\u{0}\"é"),
            progress(3, Some(10), "parsing"),
        ] {
            assert_eq!(Progress::parse(&report.encode()), Some(report));
        }
        let long = progress(1, None, &"\u{1}".repeat(100_000));
        let sent = Progress::parse(&long.encode()).unwrap();
        assert_eq!(sent.message.len(), MESSAGE_MAX);
        assert_eq!(progress(3, None, "").encode(), b"{\"done\":3}");
    }

    #[test]
    fn what_is_no_progress_is_none() {
        let long = format!("{{\"done\":1{}}}", " ".repeat(PROGRESS_MAX));
        for text in [
            "",
            "{}",
            "1",
            "{\"total\":1}",
            "{\"done\":-1}",
            "{\"done\":0.5}",
            "{\"done\":\"1\"}",
            "{\"done\":1,\"total\":\"2\"}",
            "{\"done\":1,\"message\":2}",
            "{\"done\":1",
            long.as_str(),
        ] {
            assert_eq!(Progress::parse(text.as_bytes()), None, "{text}");
        }
        let more = b"{\"done\":1,\"total\":null,\"message\":null,\"more\":[]}";
        assert_eq!(Progress::parse(more), Some(progress(1, None, "")));
    }

    #[test]
    fn the_first_is_sent_and_then_the_latest_after_each_pause() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let mut reports = Coalesce::default();
        assert_eq!(reports.report(1, None, "a", || at(0)), Step::Send);
        assert_eq!(reports.pending(), &progress(1, None, "a"));
        reports.sent(at(0));
        assert_eq!(
            reports.report(2, None, "b", || at(10)),
            Step::Schedule(Duration::from_millis(40))
        );
        assert_eq!(reports.report(3, Some(9), "", || panic!("no clock")), Step::Wait);
        assert_eq!(reports.scheduled(at(50)), Step::Send);
        assert_eq!(reports.pending(), &progress(3, Some(9), ""));
        assert_eq!(reports.not_sent(), Step::Schedule(PAUSE));
        assert_eq!(reports.scheduled(at(100)), Step::Send);
        reports.sent(at(100));
        assert_eq!(reports.report(4, None, "", || at(200)), Step::Send);
        reports.sent(at(200));
        assert_eq!(reports.close(), None);
    }

    #[test]
    fn the_last_is_left_for_the_answer_and_none_follows() {
        let now = Instant::now();
        let mut reports = Coalesce::default();
        assert_eq!(reports.report(1, None, "", || now), Step::Send);
        reports.sent(now);
        assert_eq!(reports.report(2, None, "", || now), Step::Schedule(PAUSE));
        assert_eq!(reports.close(), Some(progress(2, None, "")));
        assert_eq!(reports.close(), None);
        assert_eq!(reports.report(3, None, "", || now), Step::Wait);
        assert_eq!(reports.scheduled(now + PAUSE), Step::Wait);
    }
}
