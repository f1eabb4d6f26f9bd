//! Outcomes of checks.

use serde::{Deserialize, Serialize};

/// Result of a function of a check: a check passes by returning `Ok`.
pub(super) type Checked<T = ()> = Result<T, Stop>;

/// Reason that a check ended before it passed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Stop {
    /// Something other than the expected came.
    Failed(String),
    /// The check does not apply, and why.
    NotApplicable(String),
}

/// Makes the failure of a check from a description of what came.
pub(super) fn came(what: impl Into<String>) -> Stop {
    Stop::Failed(what.into())
}

/// Makes the outcome of a check that does not apply.
pub(super) fn not_applicable(why: impl Into<String>) -> Stop {
    Stop::NotApplicable(why.into())
}

/// Outcome of a check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "result", rename_all = "kebab-case")]
pub(super) enum Outcome {
    Pass,
    Fail {
        /// Description of what came instead of the expected.
        came: String,
    },
    NotApplicable {
        reason: String,
    },
}

impl From<Checked> for Outcome {
    fn from(checked: Checked) -> Self {
        match checked {
            Ok(()) => Self::Pass,
            Err(Stop::Failed(came)) => Self::Fail { came },
            Err(Stop::NotApplicable(reason)) => Self::NotApplicable { reason },
        }
    }
}
