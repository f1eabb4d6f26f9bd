//! Table of figures for people.

use std::fmt::Write as _;
use std::time::Duration;

use super::figures::{Figures, QUANTILES};
use super::versus::{Ratio, Versus};
use crate::output::style::{Paint, Role};
use crate::output::text::{self, Escaped};

/// Columns of the names of rows, and of figures.
const NAME: usize = 10;
const FIGURE: usize = 16;
/// Columns of the name of a plugin.
const PLUGIN: usize = FIGURE - 2;

/// Formats the figures of one plugin.
pub(super) fn one(title: &str, figures: &Figures, paint: Paint) -> String {
    let mut table = format!("{}\n\n", paint.paint(Role::Title, Escaped(title)));
    for (name, figure) in rows(figures) {
        line(&mut table, name, &[figure], "");
    }
    errors(&mut table, None, figures);
    table
}

/// Formats the figures of two plugins, and their ratio.
pub(super) fn two(title: &str, names: [&str; 2], versus: &Versus, paint: Paint) -> String {
    let mut table = format!("{}\n\n", paint.paint(Role::Title, Escaped(title)));
    let shown = names.map(|name| text::shortened(&Escaped(name).to_string(), PLUGIN));
    line(&mut table, "", &shown, "       ratio");
    let [first, second] = &versus.figures;
    for ((name, first), (_, second)) in rows(first).into_iter().zip(rows(second)) {
        let ratio = versus.ratio(name).map_or_else(String::new, |ratio| ratio_text(&ratio));
        line(&mut table, name, &[first, second], &ratio);
    }
    for (name, figures) in shown.iter().zip(&versus.figures) {
        errors(&mut table, Some(name), figures);
    }
    let rounds = versus.rounds();
    // Writing to a String does not fail.
    let _ = writeln!(
        table,
        "\n  ratio: {} to {}, median of {rounds} rounds (least to greatest)",
        shown[0], shown[1]
    );
    table
}

pub(super) fn ratio_text(Ratio { median, least, greatest }: &Ratio) -> String {
    format!("{median:>12.2} ({least:.2} to {greatest:.2})")
}

pub(super) fn rows(figures: &Figures) -> Vec<(&'static str, String)> {
    let mut rows = vec![
        ("calls", grouped(figures.calls())),
        ("errors", grouped(figures.failed())),
        ("rate", format!("{}/s", rate(figures.rate()))),
        ("data", format!("{} MB/s", rate(figures.bytes_rate() / 1e6))),
    ];
    if figures.calls() > 0 {
        rows.push(("min", time(figures.min())));
        rows.extend(QUANTILES.map(|(name, quantile)| (name, time(figures.quantile(quantile)))));
        rows.push(("max", time(figures.max())));
    }
    rows
}

fn line(table: &mut String, name: &str, figures: &[String], ratio: &str) {
    let _ = write!(table, "  {name:<NAME$}");
    for figure in figures {
        let pad = FIGURE.saturating_sub(text::width(figure));
        let _ = write!(table, "{}{figure}", " ".repeat(pad));
    }
    let end = table.trim_end().len().max(table.len() - table.trim_start().len());
    if ratio.is_empty() {
        table.truncate(end);
    }
    let _ = writeln!(table, "{ratio}");
}

fn errors(table: &mut String, plugin: Option<&str>, figures: &Figures) {
    if figures.errors.is_empty() {
        return;
    }
    match plugin {
        Some(plugin) => table.push_str(&format!("\n  errors of {plugin}:\n")),
        None => table.push_str("\n  errors:\n"),
    }
    for (code, errors) in &figures.errors {
        let first = errors.first.lines().next().unwrap_or_default();
        let (count, code) = (grouped(errors.count), Escaped(code));
        let _ = writeln!(table, "{count:>12}  {code}, such as: {}", Escaped(first));
    }
}

/// Formats a number with separators.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Formats a number with about three digits.
fn rate(rate: f64) -> String {
    match rate {
        // Rates of calls are far below 2^64.
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "see above")]
        100.0.. => grouped(rate.round() as u64),
        10.0.. => format!("{rate:.1}"),
        _ => format!("{rate:.2}"),
    }
}

/// Formats a latency with three digits.
pub(super) fn time(time: Duration) -> String {
    let nanos = time.as_secs_f64() * 1e9;
    let (number, unit) = match time.as_nanos() {
        0..1_000 => return format!("{nanos:.0} ns"),
        1_000..1_000_000 => (nanos / 1e3, "µs"),
        1_000_000..1_000_000_000 => (nanos / 1e6, "ms"),
        _ => (nanos / 1e9, "s"),
    };
    match number {
        100.0.. => format!("{number:.0} {unit}"),
        10.0.. => format!("{number:.1} {unit}"),
        _ => format!("{number:.2} {unit}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_few_digits() {
        let nanos = Duration::from_nanos;
        assert_eq!(time(nanos(0)), "0 ns");
        assert_eq!(time(nanos(999)), "999 ns");
        assert_eq!(time(nanos(1_234)), "1.23 µs");
        assert_eq!(time(nanos(12_340_000)), "12.3 ms");
        assert_eq!(time(nanos(123_400_000_000)), "123 s");
        assert_eq!(rate(0.0), "0.00");
        assert_eq!(rate(12.345), "12.3");
        assert_eq!(rate(1_234_567.8), "1,234,568");
        assert_eq!(grouped(100), "100");
        assert_eq!(grouped(1000), "1,000");
    }
}
