//! The table of plugins.

use std::time::Duration;

use pipeplug_host::status::{HostStatus, Hosts, PluginStatus};

use crate::output::style::{Paint, Role};
use crate::output::text::{self, Escaped, shortened, width};

/// Columns if stdout is no terminal.
const PLAIN: usize = 100;
/// Columns of all but the name, with a space before each.
const FIGURES: usize = 64;
const NAME_MIN: usize = 12;

const NOTHING: &str = "\
no host of yours publishes its plugins

A host in Rust opts in with .publish_status() on its PluginBuilder, and this \
program with PIPEPLUG_TOP=1 in its environment:

  PIPEPLUG_TOP=1 pipeplug shell ./plugin";

pub(super) struct Table<'a> {
    pub(super) hosts: &'a Hosts,
    pub(super) paint: Paint,
    /// Width of the terminal, if there is one.
    pub(super) columns: Option<usize>,
}

impl Table<'_> {
    /// The lines, without their ends. None is wider than the terminal.
    pub(super) fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        if self.hosts.hosts.is_empty() {
            lines.extend(NOTHING.lines().flat_map(|line| self.wrapped(line)));
        } else {
            let summary = self.fitting(self.summary());
            lines.push(self.paint.paint(Role::Aside, summary).to_string());
            lines.push(String::new());
            lines.push(self.paint.paint(Role::Title, self.heading()).to_string());
            for host in &self.hosts.hosts {
                lines.push(self.host(host));
                lines.extend(host.plugins.iter().map(|plugin| self.plugin(plugin)));
            }
        }
        for problem in &self.hosts.problems {
            // Of a long path the end tells more: all files are in one directory.
            let columns = self.columns.unwrap_or(usize::MAX).saturating_sub(":".len());
            let file = text::shortened_at_start(&text::short_path(&problem.file), columns);
            lines.push(String::new());
            lines.extend(self.wrapped(&format!("{file}: {}", Escaped(&problem.problem))));
        }
        lines
    }

    /// Lines of a text as wide as the terminal. A word that is wider is cut.
    fn wrapped(&self, text: &str) -> Vec<String> {
        let lines = text::wrap(text, self.columns.unwrap_or(PLAIN));
        lines.into_iter().map(|line| self.fitting(line)).collect()
    }

    fn fitting(&self, line: String) -> String {
        match self.columns {
            Some(columns) => shortened(&line, columns),
            None => line,
        }
    }

    fn summary(&self) -> String {
        let plugins = || self.hosts.hosts.iter().flat_map(|host| &host.plugins);
        let in_flight: u64 = plugins().fold(0, |sum, it| sum.saturating_add(it.in_flight));
        let rate: f64 = plugins().map(|it| it.calls_per_s).sum();
        format!(
            "{}, {}, {in_flight} in flight, {} calls/s",
            counted(self.hosts.hosts.len(), "host"),
            counted(plugins().count(), "plugin"),
            number(rate)
        )
    }

    fn name_columns(&self) -> usize {
        self.columns.unwrap_or(PLAIN).saturating_sub(FIGURES).max(NAME_MIN)
    }

    fn heading(&self) -> String {
        self.row(
            "HOST, PLUGIN",
            &["PID", "STATE", "OPEN", "CALL/S", "P50", "P99", "MEM", "RST", "UP"],
        )
    }

    fn host(&self, host: &HostStatus) -> String {
        let (pid, memory) = (host.pid.to_string(), host.memory.map_or("-".into(), bytes));
        let state = if host.is_silent { "silent" } else { "" };
        let row = self
            .row(&Escaped(&host.name).to_string(), &[&pid, state, "", "", "", "", &memory, "", ""]);
        let role = if host.is_silent { Role::Note } else { Role::Speaker };
        self.paint.paint(role, row.trim_end()).to_string()
    }

    fn plugin(&self, plugin: &PluginStatus) -> String {
        let unknown = || "-".to_owned();
        let time = |micros: Option<f64>| micros.map_or_else(unknown, short_time);
        let row = self.row(
            &format!("  {}", Escaped(&plugin.name)),
            &[
                &plugin.pid.map_or_else(unknown, |pid| pid.to_string()),
                &Escaped(&plugin.state).to_string(),
                &number(plugin.in_flight as f64),
                &number(plugin.calls_per_s),
                &time(plugin.p50_us),
                &time(plugin.p99_us),
                &plugin.memory.map_or_else(unknown, bytes),
                &number(plugin.restarts as f64),
                &plugin.pid.map_or_else(unknown, |_| long_time(plugin.uptime_s)),
            ],
        );
        match plugin.state.as_str() {
            "gave up" | "ended" => self.paint.paint(Role::Error, row).to_string(),
            "running" => row,
            _ => self.paint.paint(Role::Note, row).to_string(),
        }
    }

    fn row(&self, name: &str, cells: &[&str; 9]) -> String {
        let columns = self.name_columns();
        let name = shortened(name, columns);
        let padding = " ".repeat(columns.saturating_sub(width(&name)));
        let [pid, state, open, rate, p50, p99, memory, restarts, up] = cells;
        let state = shortened(state, 10);
        let row = format!(
            "{name}{padding} {pid:>7} {state:<10} {open:>4} {rate:>6} {p50:>6} {p99:>6} {memory:>6} \
             {restarts:>4} {up:>6}"
        );
        // A narrow terminal, or a process id of many digits.
        self.fitting(row)
    }
}

fn counted(count: usize, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

/// Formats a number in at most four columns.
fn number(value: f64) -> String {
    with_unit(value, 1000.0, ["", "k", "M", "G", "T", "P"])
}

/// Formats a size in at most five columns.
fn bytes(bytes: u64) -> String {
    with_unit(bytes as f64, 1024.0, ["", "K", "M", "G", "T", "P"])
}

fn with_unit(value: f64, step: f64, units: [&str; 6]) -> String {
    let value = if value.is_finite() { value.max(0.0) } else { 0.0 };
    let (mut value, mut unit) = (value, 0);
    while value >= step - 0.5 && unit + 1 < units.len() {
        value /= step;
        unit += 1;
    }
    match (value, units[unit]) {
        (value, _) if value >= step => ">1E".to_owned(),
        (value, "") if value == value.round() => format!("{value:.0}"),
        (value, unit) if value < 9.95 => format!("{value:.1}{unit}"),
        (value, unit) => format!("{value:.0}{unit}"),
    }
}

/// Formats the time of a call.
fn short_time(micros: f64) -> String {
    let micros = if micros.is_finite() { micros.max(0.0) } else { 0.0 };
    match micros {
        ..999.5 => format!("{micros:.0}µs"),
        ..9_950.0 => format!("{:.1}ms", micros / 1e3),
        ..999_500.0 => format!("{:.0}ms", micros / 1e3),
        ..59_950_000.0 => format!("{:.1}s", micros / 1e6),
        _ => long_time(micros / 1e6),
    }
}

/// Formats a time since the start in at most six columns.
fn long_time(seconds: f64) -> String {
    // A float that is too large is the largest number.
    let seconds = Duration::from_secs(seconds as u64).as_secs();
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86400);
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{minutes}m{:02}s", seconds % 60),
        3600..86400 => format!("{hours}h{:02}m", minutes % 60),
        86400..864_000 => format!("{days}d{:02}h", hours % 24),
        _ if days < 10_000 => format!("{days}d"),
        _ => ">9999d".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_short() {
        let numbers = [0.0, 0.26, 7.0, 99.4, 999.0, 999.7, 12_345.0, 1e9, 1e300, f64::NAN, -1.0];
        let shown: Vec<_> = numbers.map(number).into();
        let expected = ["0", "0.3", "7", "99", "999", "1.0k", "12k", "1.0G", ">1E", "0", "0"];
        assert_eq!(shown, expected);
        let sizes = [0, 1023, 1024, 12_900_000, 3 << 30, u64::MAX].map(bytes);
        assert_eq!(sizes, ["0", "1023", "1.0K", "12M", "3.0G", ">1E"]);
        let times = [0.4, 85.0, 1234.0, 99_000.0, 999_900.0, 75e6, f64::INFINITY].map(short_time);
        assert_eq!(times, ["0µs", "85µs", "1.2ms", "99ms", "1.0s", "1m15s", "0µs"]);
        let times = [59.9, 61.0, 3600.0, 90_000.0, 1e6, 1e300].map(long_time);
        assert_eq!(times, ["59s", "1m01s", "1h00m", "1d01h", "11d", ">9999d"]);
    }
}
