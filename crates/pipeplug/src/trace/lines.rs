//! Lines of a trace for people.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use pipeplug_host::recording::Travel;
use serde_json::{Map, Value};

use crate::output::style::{Paint, Role};
use crate::output::text::{self, Escaped, took};
use crate::trace::spans::{Content, Item, Outcome, Parts, Span, SpanKind};

/// Columns before the command.
const BEFORE: usize = 43;
/// Lines are at least so wide.
const NARROWEST: usize = 60;

/// Formats the items of a trace.
#[derive(Debug)]
pub(crate) struct Lines {
    paint: Paint,
    columns: Option<usize>,
    /// With the data of each call.
    shows_data: bool,
    /// Time of the first record, from which times are counted.
    first: Option<Duration>,
    names: BTreeMap<u32, String>,
}

impl Lines {
    pub(crate) fn new(paint: Paint, columns: Option<usize>, shows_data: bool) -> Self {
        let columns = columns.map(|columns| columns.max(NARROWEST));
        Self { paint, columns, shows_data, first: None, names: BTreeMap::new() }
    }

    /// Title of the columns.
    pub(crate) fn title(&self) -> String {
        let (begun, took, sent, got) = ("BEGUN", "TOOK", "SENT", "GOT");
        let title = format!("{begun:>10}  {took:>9}  {sent:>7}  {got:>7}    CALL");
        format!("{}\n", self.paint.paint(Role::Title, title))
    }

    /// Notes the time of a record. The first one is the begin.
    pub(crate) fn see(&mut self, time: Duration) {
        self.first.get_or_insert(time);
    }

    fn since(&self, time: Duration) -> Duration {
        time.saturating_sub(self.first.unwrap_or(time))
    }

    /// Lines of an item, each with its end.
    pub(crate) fn format(&mut self, item: &Item) -> String {
        match item {
            Item::Span(span) => self.span(span),
            Item::Began { connection, time, about } => {
                self.see(*time);
                let line = began(*connection, *time, about);
                self.names.insert(*connection, name(about, *connection));
                self.aside(&line)
            }
            Item::Ended { connection, time, reason } => {
                let name = self.names.get(connection).map_or("", String::as_str);
                let at = seconds(self.since(*time));
                self.aside(&format!("{at}  {name}: the connection has ended: {}", Escaped(reason)))
            }
            Item::Lost { time, chunks, bytes } => {
                let (at, bytes) = (seconds(self.since(*time)), size(*bytes));
                self.aside(&format!(
                    "{at}  {chunks} chunks ({bytes}) are missing: they came faster than the file could be written"
                ))
            }
        }
    }

    fn aside(&self, line: &str) -> String {
        format!("{}\n", self.paint.paint(Role::Aside, self.cut(line)))
    }

    fn cut(&self, line: &str) -> String {
        match self.columns {
            Some(columns) => text::shortened(line, columns),
            None => line.to_owned(),
        }
    }

    fn span(&self, span: &Span) -> String {
        let arrow = match span.travel {
            Travel::Sent => "→",
            Travel::Received => "←",
        };
        let duration = match (span.kind, span.took()) {
            (_, Some(duration)) => took(duration),
            (SpanKind::Call, None) => "open".to_owned(),
            (SpanKind::OneWay, None) => "one-way".to_owned(),
        };
        let sent = size(span.request.len);
        let got = span.reply.as_ref().map_or_else(|| "-".to_owned(), |reply| size(reply.len));
        let mut line = format!(
            "{}  {duration:>9}  {sent:>7}  {got:>7}  {arrow} ",
            seconds(self.since(span.begun))
        );
        let _ = write!(line, "{:1$}", "", 2 * span.depth.min(10));
        line.push_str(&Escaped(&span.command).to_string());
        if self.names.len() > 1 {
            let name = self.names.get(&span.connection).map_or("?", String::as_str);
            let _ = write!(line, " ({name})");
        }
        for (parts, which) in [(span.parts, "sent"), (span.reply_parts, "came")] {
            let Parts { count, bytes } = parts;
            if count > 0 {
                let s = if count == 1 { "" } else { "s" };
                let _ = write!(line, ", {count} part{s} ({}) {which}", size(bytes));
            }
        }
        let problem = problem(span);
        if let Some(problem) = &problem {
            let _ = write!(line, ": {problem}");
        }
        let line = self.cut(&line);
        let mut lines = match (&problem, span.is_open()) {
            (Some(_), false) => format!("{}\n", self.paint.paint(Role::Error, line)),
            (_, true) => format!("{}\n", self.paint.paint(Role::Note, line)),
            (None, false) => format!("{line}\n"),
        };
        if self.shows_data {
            self.data(&mut lines, "sent", &span.request);
            if let Some(reply) = &span.reply {
                self.data(&mut lines, "got", reply);
            }
        }
        lines
    }

    fn data(&self, lines: &mut String, which: &str, content: &Content) {
        let shown = match &content.data {
            _ if content.is_redacted => "(redacted)".to_owned(),
            None => return,
            Some(data) if data.is_empty() => return,
            Some(data) => {
                let cut = if content.is_whole() { "" } else { "…" };
                match std::str::from_utf8(data) {
                    Ok(text) => format!("{}{cut}", Escaped(text)),
                    Err(_) => format!("{}{cut}", data.escape_ascii()),
                }
            }
        };
        let line = self.cut(&format!("{which:>0$}  {shown}", BEFORE - 2));
        lines.push_str(&format!("{}\n", self.paint.paint(Role::Aside, line)));
    }
}

/// Reason that a call did not succeed.
pub(crate) fn problem(span: &Span) -> Option<String> {
    Some(match &span.outcome {
        Outcome::Reply | Outcome::OneWay => return None,
        Outcome::Open if span.kind == SpanKind::OneWay => "its stream is open".to_owned(),
        Outcome::Open => "no response in the recording".to_owned(),
        Outcome::Error { code, message } => {
            let message = message.as_deref().map(|message| Escaped(message).to_string());
            let code = code.as_deref().map(|code| format!("{}: ", Escaped(code)));
            format!(
                "{}{}",
                code.unwrap_or_default(),
                message.unwrap_or_else(|| "failed, with an error that was not recorded".to_owned())
            )
        }
        Outcome::Cancelled => "given up by its caller".to_owned(),
        Outcome::Closed(reason) => format!("no response: {}", Escaped(reason)),
    })
}

/// Name of a connection.
pub(crate) fn name(about: &Map<String, Value>, connection: u32) -> String {
    let name = about.get("name").and_then(Value::as_str).unwrap_or("connection");
    format!("{} #{connection}", Escaped(name))
}

fn began(connection: u32, time: Duration, about: &Map<String, Value>) -> String {
    let mut line = format!("{} began at {}", name(about, connection), utc(time));
    if let Some(pid) = about.get("pid").and_then(Value::as_u64) {
        let _ = write!(line, ", process {pid}");
    }
    if let Some(launcher) = about.get("launcher").and_then(Value::as_str) {
        let _ = write!(line, ", {}", Escaped(launcher));
    }
    line
}

fn seconds(time: Duration) -> String {
    format!("{:>8.3} s", time.as_secs_f64())
}

/// A number of bytes, in at most seven columns.
pub(crate) fn size(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if bytes < 10_000 {
        return format!("{bytes} B");
    }
    let (mut value, mut unit) = (bytes as f64 / 1024.0, 0);
    while value >= 999.5 && unit + 1 < UNITS.len() {
        (value, unit) = (value / 1024.0, unit + 1);
    }
    format!("{value:.0} {}", UNITS[unit])
}

/// Date and time of day.
pub(crate) fn utc(time: Duration) -> String {
    let (days, second) = (time.as_secs() / 86_400, time.as_secs() % 86_400);
    // Howard Hinnant's `civil_from_days`, for days after 1970.
    let z = days + 719_468;
    let (era, day_of_era) = (z / 146_097, z % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!(
        "{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}.{:03} UTC",
        time.subsec_millis()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (seconds, date) in [
            (0, "1970-01-01 00:00:00.000 UTC"),
            (951_782_399, "2000-02-28 23:59:59.000 UTC"),
            (951_868_800, "2000-03-01 00:00:00.000 UTC"),
            (1_709_164_800, "2024-02-29 00:00:00.000 UTC"),
            (4_102_444_799, "2099-12-31 23:59:59.000 UTC"),
        ] {
            assert_eq!(utc(Duration::from_secs(seconds)), date);
        }
    }

    #[test]
    fn sizes_are_short() {
        for (bytes, shown) in [
            (0, "0 B"),
            (9999, "9999 B"),
            (10_000, "10 KiB"),
            (1 << 20, "1 MiB"),
            ((1 << 30) - 1, "1 GiB"),
            (u64::MAX, "16777216 TiB"),
        ] {
            assert_eq!(size(bytes), shown);
        }
    }
}
