//! Errors of calls of a supervised plugin.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use pipeplug_net::{CallError, CallFailure, NotifyError, Retry, Sent, failure_code};
use serde_json::Value;

use super::event::PluginFailure;
use super::settings::Breaker;
use crate::plugin::StartError;

/// Error of a supervisor that has no plugin to call.
#[derive(Debug, Clone)]
pub struct Unavailable {
    plugin: String,
    kind: UnavailableKind,
}

/// Kind of an [`Unavailable`]. Its text continues a message that begins with the plugin's name.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum UnavailableKind {
    /// The start that was waited for failed; all who waited get the same error.
    #[error("{0}")]
    Start(Arc<StartError>),
    /// The plugin did not become ready within the wait.
    #[error("did not get ready within {after:?}{}", Last(.last))]
    NotReady {
        /// Maximum time waited
        /// ([`SupervisorBuilder::ready_timeout`](crate::SupervisorBuilder::ready_timeout), or the
        /// call's own time).
        after: Duration,
        /// Last failure; `None` if there was none.
        last: Option<PluginFailure>,
    },
    /// The plugin failed too often, or in a way that a restart cannot repair.
    #[error("is not started any more {}, reset the supervisor once that is mended: {last}", Why(*after))]
    GaveUp {
        /// Number of failures that was too many, and the time in which they came; `None` if a
        /// restart cannot repair the last failure.
        after: Option<(usize, Duration)>,
        /// The last failure.
        last: PluginFailure,
    },
    /// The supervisor was stopped.
    #[error("was stopped, start its supervisor again to call it")]
    Stopped,
}

impl Unavailable {
    pub(super) fn new(plugin: &str, kind: UnavailableKind) -> Self {
        Self { plugin: plugin.to_owned(), kind }
    }

    pub(super) fn gave_up(plugin: &str, breaker: Breaker, last: PluginFailure) -> Self {
        let after = (!last.is_permanent()).then_some((breaker.failures, breaker.within));
        Self::new(plugin, UnavailableKind::GaveUp { after, last })
    }

    /// Name of the plugin.
    #[must_use]
    pub fn plugin(&self) -> &str {
        &self.plugin
    }

    /// Kind of the error.
    #[must_use]
    pub fn kind(&self) -> &UnavailableKind {
        &self.kind
    }

    /// Names the whole time of a call, part of which was left to wait.
    pub(super) fn within(mut self, time: Duration) -> Self {
        if let UnavailableKind::NotReady { after, .. } = &mut self.kind {
            *after = time;
        }
        self
    }
}

impl fmt::Display for Unavailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            // The error of the start names the plugin by its path.
            UnavailableKind::Start(error) => error.fmt(f),
            kind => write!(f, "plugin {:?} {kind}", self.plugin),
        }
    }
}

impl std::error::Error for Unavailable {}

/// Error of a call of a supervised plugin.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum SupervisedCallError {
    /// No plugin to call; nothing was sent.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
    /// The call failed; whether the plugin has handled it is not known where the connection ended.
    #[error(transparent)]
    Call(#[from] CallError),
}

impl SupervisedCallError {
    /// The error of the call. `None` if there was no plugin to call.
    #[must_use]
    pub fn call_error(&self) -> Option<&CallError> {
        match self {
            Self::Unavailable(_) => None,
            Self::Call(error) => Some(error),
        }
    }

    /// Code of the error; see [`CallError::code`]. [`UNAVAILABLE`](failure_code::UNAVAILABLE) if
    /// there was no plugin to call.
    #[must_use]
    pub fn code(&self) -> Option<&str> {
        self.call_error().map_or(Some(failure_code::UNAVAILABLE), CallError::code)
    }

    /// Data of the plugin's answer.
    #[must_use]
    pub fn data(&self) -> Option<&Value> {
        self.call_error().and_then(CallError::data)
    }

    /// Returns true if the plugin has answered; see [`CallError::is_answer`].
    #[must_use]
    pub fn is_answer(&self) -> bool {
        self.call_error().is_some_and(CallError::is_answer)
    }

    /// Tells whether the request was sent.
    #[must_use]
    pub fn sent(&self) -> Sent {
        self.call_error().map_or(Sent::No, CallError::sent)
    }

    /// Tells whether the same call may be made again. If there was no plugin to call, it may unless
    /// the supervisor has given up or was stopped.
    #[must_use]
    pub fn retry(&self) -> Retry {
        match self {
            Self::Unavailable(error) => match error.kind() {
                UnavailableKind::Start(_) | UnavailableKind::NotReady { .. } => Retry::Yes,
                UnavailableKind::GaveUp { .. } | UnavailableKind::Stopped => Retry::No,
            },
            Self::Call(error) => error.retry(),
        }
    }
}

impl CallFailure for SupervisedCallError {
    fn call_error(&self) -> Option<&CallError> {
        self.call_error()
    }

    fn code(&self) -> Option<&str> {
        self.code()
    }

    fn sent(&self) -> Sent {
        self.sent()
    }

    fn retry(&self) -> Retry {
        self.retry()
    }
}

/// Error of a one-way to a supervised plugin.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum SupervisedNotifyError {
    /// No plugin to send it to.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
    /// The one-way was not sent.
    #[error(transparent)]
    Notify(#[from] NotifyError),
}

struct Last<'a>(&'a Option<PluginFailure>);

impl fmt::Display for Last<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0
            .as_ref()
            .map_or(Ok(()), |last| write!(f, ", it will be started anew; the last failure: {last}"))
    }
}

struct Why(Option<(usize, Duration)>);

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some((failures, within)) => write!(f, "after {failures} failures within {within:?}"),
            None => f.write_str("since that would not help"),
        }
    }
}
