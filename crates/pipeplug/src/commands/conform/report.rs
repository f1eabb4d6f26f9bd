//! Output of the results: text, JSON lines, and JUnit XML.

use std::fmt::Write as _;
use std::io;
use std::time::Duration;

use clap::ColorChoice;
use serde_json::{Value, json};

use super::catalog::Check;
use super::host::HostCheck;
use super::outcome::Outcome;
use crate::exit::CommandError;
use crate::output::report::print;
use crate::output::style::{Paint, Role};
use crate::output::text::{self, Escaped};

/// Width of the titles below a failed check, with what comes before them.
const INDENT: usize = 16;

/// Description of a check.
#[derive(Debug, Clone, Copy)]
pub(super) struct Subject {
    pub(super) name: &'static str,
    section: &'static str,
    sends: &'static str,
    expects: &'static str,
}

/// Check that is done.
#[derive(Debug)]
pub(super) struct Done {
    pub(super) subject: Subject,
    pub(super) outcome: Outcome,
    pub(super) took: Duration,
}

/// End of the run before all checks, since none can pass.
#[derive(Debug)]
pub(super) struct Hopeless {
    /// Description of what came.
    pub(super) came: String,
    /// Checks that were not run, or whose results count for nothing.
    pub(super) left: Vec<Subject>,
}

/// Writer of results.
#[derive(Debug)]
pub(super) struct Report {
    is_json: bool,
    paint: Paint,
    columns: Option<usize>,
}

impl Subject {
    pub(super) fn of_plugin(check: &Check) -> Self {
        let Check { name, section, sends, expects, .. } = *check;
        Self { name, section, sends, expects }
    }

    pub(super) fn of_host(check: &HostCheck) -> Self {
        let HostCheck { name, section, sends, expects, .. } = *check;
        Self { name, section, sends, expects }
    }

    fn rows(&self) -> [(&'static str, &'static str); 2] {
        [("sent", self.sends), ("expected", self.expects)]
    }

    #[cfg(test)]
    pub(super) fn row_of_docs(&self) -> String {
        format!("| `{}` | {} | {} | {} |", self.name, self.sends, self.expects, self.section)
    }

    #[cfg(test)]
    pub(super) fn section(&self) -> &'static str {
        self.section
    }
}

impl Report {
    pub(super) fn new(is_json: bool, color: ColorChoice) -> Self {
        let paint = Paint::choose(color, &io::stdout());
        Self { is_json, paint, columns: text::columns(io::stdout()) }
    }

    /// Writes a result.
    pub(super) fn show(&mut self, done: &Done) -> Result<(), CommandError> {
        if self.is_json {
            return print(&text::json_line(&done.to_json()));
        }
        let Done { subject, outcome, .. } = done;
        let mut lines = String::new();
        match outcome {
            Outcome::Pass => self.paragraph(&mut lines, "pass", Role::Aside, subject.name),
            Outcome::NotApplicable { reason } => {
                let line = format!("{}: {}", subject.name, Escaped(reason));
                self.paragraph(&mut lines, "n/a", Role::Note, &line);
            }
            Outcome::Fail { came } => {
                self.paragraph(&mut lines, "FAIL", Role::Error, subject.name);
                let came = Escaped(came).to_string();
                let section = format!("docs/protocol.md, {:?}", subject.section);
                let rows = subject.rows().into_iter();
                for (title, value) in
                    rows.chain([("came", came.as_str()), ("section", section.as_str())])
                {
                    self.wrapped(&mut lines, &format!("      {title:<9} "), None, INDENT, value);
                }
            }
        }
        print(&lines)
    }

    fn paragraph(&self, lines: &mut String, word: &str, role: Role, value: &str) {
        self.wrapped(lines, &format!("{word:<6}"), Some(role), 6, value);
    }

    fn wrapped(
        &self,
        out: &mut String,
        title: &str,
        role: Option<Role>,
        indent: usize,
        value: &str,
    ) {
        let lines = match self.columns {
            Some(columns) => text::wrap(value, columns.saturating_sub(indent).max(20)),
            None => vec![value.to_owned()],
        };
        for (index, line) in lines.iter().enumerate() {
            // Writing to a String does not fail.
            let _ = match (index, role) {
                (0, Some(role)) => writeln!(out, "{}{line}", self.paint.paint(role, title)),
                (0, None) => writeln!(out, "{title}{line}"),
                _ => writeln!(out, "{:indent$}{line}", ""),
            };
        }
    }

    /// Writes the sums.
    pub(super) fn end(
        &mut self,
        all: &[Done],
        hopeless: Option<&Hopeless>,
        took: Duration,
    ) -> Result<(), CommandError> {
        let Sums { passed, failed, not_applicable } = Sums::of(all);
        if self.is_json {
            let mut sums = json!({
                "passed": passed,
                "failed": failed,
                "not_applicable": not_applicable,
                "seconds": took.as_secs_f64(),
            });
            if let Some(Hopeless { came, left }) = hopeless {
                sums["error"] = json!(came);
                sums["not_run"] = json!(left.len());
            }
            return print(&text::json_line(&sums));
        }
        // The error says all.
        if hopeless.is_some() {
            return Ok(());
        }
        let took = text::took(took);
        print(&format!(
            "\n{passed} passed, {failed} failed, {not_applicable} not applicable, in {took}\n"
        ))
    }
}

struct Sums {
    passed: usize,
    failed: usize,
    not_applicable: usize,
}

impl Sums {
    fn of(all: &[Done]) -> Self {
        let count =
            |is_it: fn(&Outcome) -> bool| all.iter().filter(|done| is_it(&done.outcome)).count();
        Self {
            passed: count(|outcome| *outcome == Outcome::Pass),
            failed: count(|outcome| matches!(outcome, Outcome::Fail { .. })),
            not_applicable: count(|outcome| matches!(outcome, Outcome::NotApplicable { .. })),
        }
    }
}

impl Done {
    fn to_json(&self) -> Value {
        let Subject { name, section, sends, expects } = self.subject;
        let mut object = json!({
            "check": name,
            "section": section,
            "sends": sends,
            "expects": expects,
            "seconds": self.took.as_secs_f64(),
        });
        let result = serde_json::to_value(&self.outcome);
        if let (Value::Object(object), Ok(Value::Object(result))) = (&mut object, result) {
            object.extend(result);
        }
        object
    }
}

/// List of the checks.
pub(super) fn list(all: &[Subject], is_json: bool, color: ColorChoice) -> String {
    if is_json {
        let line = |subject: &Subject| {
            let Subject { name, section, sends, expects } = *subject;
            text::json_line(&json!({
                "check": name, "section": section, "sends": sends, "expects": expects,
            }))
        };
        return all.iter().map(line).collect();
    }
    let report = Report::new(false, color);
    let mut lines = String::new();
    for subject in all {
        // Writing to a String does not fail.
        let _ = writeln!(lines, "{}", report.paint.paint(Role::Title, subject.name));
        for (title, value) in [("sends", subject.sends), ("expects", subject.expects)] {
            report.wrapped(&mut lines, &format!("      {title:<9} "), None, INDENT, value);
        }
        let section = format!("docs/protocol.md, {:?}", subject.section);
        report.wrapped(&mut lines, "      section   ", None, INDENT, &section);
    }
    lines
}

/// Report in JUnit XML.
pub(super) fn junit(
    name: &str,
    all: &[Done],
    hopeless: Option<&Hopeless>,
    took: Duration,
) -> String {
    let Sums { failed, not_applicable, .. } = Sums::of(all);
    let left = hopeless.map_or(&[][..], |hopeless| &hopeless.left);
    let errors = usize::from(hopeless.is_some());
    let head = format!(
        "name=\"pipeplug conform {}\" tests=\"{}\" failures=\"{failed}\" errors=\"{errors}\" \
         skipped=\"{}\" time=\"{:.3}\"",
        xml(name),
        all.len() + left.len() + errors,
        not_applicable + left.len(),
        took.as_secs_f64()
    );
    let mut out = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    // Writing to a String does not fail.
    let _ = write!(out, "<testsuites {head}>\n  <testsuite {head}>\n");
    for Done { subject, outcome, took } in all {
        let (group, check) = subject.name.split_once('/').unwrap_or(("", subject.name));
        let _ = write!(
            out,
            "    <testcase classname=\"{}\" name=\"{}\" time=\"{:.3}\"",
            xml(group),
            xml(check),
            took.as_secs_f64()
        );
        let _ = match outcome {
            Outcome::Pass => writeln!(out, "/>"),
            Outcome::NotApplicable { reason } => {
                writeln!(out, ">\n      <skipped message=\"{}\"/>\n    </testcase>", xml(reason))
            }
            Outcome::Fail { came } => writeln!(
                out,
                ">\n      <failure message=\"{}\">sent: {}\nexpected: {}\ncame: {}\nsection: \
                 docs/protocol.md, {}</failure>\n    </testcase>",
                xml(came),
                xml(subject.sends),
                xml(subject.expects),
                xml(came),
                xml(subject.section)
            ),
        };
    }
    if let Some(Hopeless { came, .. }) = hopeless {
        let _ = writeln!(
            out,
            "    <testcase classname=\"conform\" name=\"start\" time=\"0.000\">\n      <error \
             message=\"{}\"/>\n    </testcase>",
            xml(came)
        );
    }
    for subject in left {
        let (group, check) = subject.name.split_once('/').unwrap_or(("", subject.name));
        let _ = writeln!(
            out,
            "    <testcase classname=\"{}\" name=\"{}\" time=\"0.000\">\n      <skipped \
             message=\"not run\"/>\n    </testcase>",
            xml(group),
            xml(check)
        );
    }
    out.push_str("  </testsuite>\n</testsuites>\n");
    out
}

/// Text of XML, without the characters that XML 1.0 does not have.
fn xml(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\n' | '\t' => out.push(' '),
            c if c < ' ' || ('\u{fffe}'..='\u{ffff}').contains(&c) => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn xml_has_no_markup_of_others() {
        assert_eq!(xml("<a b=\"c\">&\u{1}\n"), "&lt;a b=&quot;c&quot;&gt;&amp;\u{fffd} ");
    }
}
