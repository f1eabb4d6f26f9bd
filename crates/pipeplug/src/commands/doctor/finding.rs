//! Findings of the checks, and their table.

use std::fmt::{self, Write as _};

use serde_json::{Value, json};

use crate::output::style::{Paint, Role};
use crate::output::text::{self, Escaped};

/// Result of a check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Finding {
    pub(super) check: String,
    pub(super) state: State,
    /// The state that was found, for people.
    pub(super) detail: String,
    /// Meaning and next step, unless all is right.
    pub(super) next: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Ok,
    /// Works in part.
    Limited,
    /// Is not there, and can be done without.
    Missing,
    /// Prevents a start.
    Failed,
}

impl Finding {
    pub(super) fn ok(check: &str, detail: impl fmt::Display) -> Self {
        Self { check: check.to_owned(), state: State::Ok, detail: detail.to_string(), next: None }
    }

    pub(super) fn limited(check: &str, detail: impl fmt::Display, next: impl fmt::Display) -> Self {
        Self::of(State::Limited, check, detail, next)
    }

    pub(super) fn missing(check: &str, detail: impl fmt::Display, next: impl fmt::Display) -> Self {
        Self::of(State::Missing, check, detail, next)
    }

    pub(super) fn failed(check: &str, detail: impl fmt::Display, next: impl fmt::Display) -> Self {
        Self::of(State::Failed, check, detail, next)
    }

    pub(super) fn to_json(&self) -> Value {
        let Self { check, state, detail, next } = self;
        json!({ "check": check, "state": state.word(), "detail": detail, "next": next })
    }

    /// Turns a failure into a limit, since something else shows that it prevents nothing.
    pub(super) fn soften(&mut self) {
        if self.state == State::Failed {
            self.state = State::Limited;
        }
    }

    /// A failure whose detail says what to do, or that there is nothing.
    pub(super) fn broken(check: &str, detail: impl fmt::Display) -> Self {
        Self { state: State::Failed, ..Self::ok(check, detail) }
    }

    fn of(state: State, check: &str, detail: impl fmt::Display, next: impl fmt::Display) -> Self {
        Self { state, next: Some(next.to_string()), ..Self::ok(check, detail) }
    }
}

impl State {
    fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Limited => "limited",
            Self::Missing => "missing",
            Self::Failed => "failed",
        }
    }
}

/// Formats the findings: a line for each, wrapped to the width of the terminal.
pub(super) fn table(
    title: &str,
    findings: &[Finding],
    paint: Paint,
    columns: Option<usize>,
) -> String {
    const STATE: usize = 9;
    let widest = findings.iter().map(|finding| text::width(&finding.check)).max().unwrap_or(0);
    let indent = 2 + STATE + widest + 2;
    let mut table = format!("{}\n", paint.paint(Role::Title, Escaped(title)));
    for Finding { check, state, detail, next } in findings {
        let detail = Escaped(detail).to_string();
        let text = match next.as_deref().map(Escaped) {
            None => detail,
            Some(next) => format!("{detail}; {next}"),
        };
        let lines = match columns {
            Some(columns) => text::wrap(&text, columns.saturating_sub(indent).max(20)),
            None => vec![text],
        };
        let role = match state {
            State::Ok => Role::Aside,
            State::Limited | State::Missing => Role::Note,
            State::Failed => Role::Error,
        };
        let (word, gap) = (state.word(), STATE - state.word().len());
        let pad = widest + 2 - text::width(check);
        // Writing to a String does not fail.
        let _ = write!(table, "  {}{:gap$}{check}{:pad$}", paint.paint(role, word), "", "");
        let _ = writeln!(table, "{}", lines.join(&format!("\n{:indent$}", "")));
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_has_a_line_for_each_finding() {
        let findings = [
            Finding::ok("pidfd", "there is"),
            Finding::missing("Docker", "no program `docker`", "install it for --docker"),
        ];
        assert_eq!(
            table("system", &findings, Paint::Plain, None),
            "system\n  ok       pidfd   there is\n  missing  Docker  no program `docker`; install it for --docker\n"
        );
        let narrow = table("system", &findings, Paint::Plain, Some(45));
        assert!(narrow.lines().all(|line| line.len() <= 45), "{narrow}");
        assert!(narrow.contains("\n                   install it"), "{narrow}");
    }
}
