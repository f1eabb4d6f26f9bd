//! Page with the figures of a measurement: one file, without scripts or anything from a network.

mod chart;

use std::fmt::{self, Write as _};
use std::fs::{self, OpenOptions};
use std::io;
use std::path::Path;
use std::time::Duration;

use self::chart::{Axis, Chart, Mark, Series};
use super::figures::{Figures, Point};
use super::table;
use super::versus::Versus;
use crate::exit::{CommandError, ExitReason};
use crate::output::text::Escaped;

const STYLE: &str = include_str!("style.css");
/// Quantiles of the curve: so many steps for each half of what is left above.
const STEPS_PER_HALF: u32 = 8;
/// Bars of a histogram for each factor of ten.
const BARS_PER_DECADE: f64 = 20.0;

/// Checks that a page can be written, before anything is measured.
pub(super) fn check(file: &Path) -> Result<(), CommandError> {
    let opened = OpenOptions::new().write(true).create(true).truncate(false).open(file);
    opened.map(drop).map_err(|error| unwritable(file, &error, ExitReason::Usage))
}

/// Writes the page.
pub(super) fn write(
    file: &Path,
    title: &str,
    plugins: &[(String, Figures)],
    versus: Option<&Versus>,
) -> Result<(), CommandError> {
    let page = page(title, plugins, versus);
    fs::write(file, page).map_err(|error| unwritable(file, &error, ExitReason::Failed))
}

fn unwritable(file: &Path, error: &io::Error, reason: ExitReason) -> CommandError {
    let file = file.to_string_lossy();
    CommandError::message(reason, format!("cannot write the page {}: {error}", Escaped(&file)))
}

fn page(title: &str, plugins: &[(String, Figures)], versus: Option<&Versus>) -> String {
    let title = Html(title);
    let mut page = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta \
         name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>{title}</title>\
         \n<style>\n{STYLE}</style>\n</head>\n<body>\n<h1>{title}</h1>\n"
    );
    figures(&mut page, plugins, versus);
    let some: Vec<_> = plugins.iter().filter(|(_, figures)| figures.calls() > 0).collect();
    if !some.is_empty() {
        // Writing to a String does not fail.
        let _ = write!(page, "{}", by_percentile(&some));
        let _ = write!(page, "{}", histogram(&some));
        let _ = write!(page, "{}", rates(&some));
        for (index, (name, figures)) in plugins.iter().enumerate() {
            if figures.calls() > 0 {
                let name = (plugins.len() > 1).then_some(name.as_str());
                let _ = write!(page, "{}", latencies(name, index, figures));
            }
        }
    }
    page.push_str("</body>\n</html>\n");
    page
}

/// Writes the table of figures, and the errors.
fn figures(page: &mut String, plugins: &[(String, Figures)], versus: Option<&Versus>) {
    page.push_str("<table id=\"figures\">\n<tr><th></th>");
    for (index, (name, _)) in plugins.iter().enumerate() {
        let _ = write!(page, "<th><i class=\"key s{index}\"></i>{}</th>", Html(name));
    }
    if let Some(versus) = versus {
        let _ = write!(page, "<th>ratio, median of {} rounds</th>", versus.rounds());
    }
    page.push_str("</tr>\n");
    let columns: Vec<_> = plugins.iter().map(|(_, figures)| table::rows(figures)).collect();
    let longest = columns.iter().max_by_key(|rows| rows.len());
    for (name, _) in longest.into_iter().flatten() {
        let _ = write!(page, "<tr><th>{name}</th>");
        for rows in &columns {
            let value = rows.iter().find(|(it, _)| it == name).map_or("", |(_, value)| value);
            let _ = write!(page, "<td>{value}</td>");
        }
        if let Some(ratio) = versus.and_then(|versus| versus.ratio(name)) {
            let _ = write!(page, "<td>{}</td>", table::ratio_text(&ratio).trim());
        }
        page.push_str("</tr>\n");
    }
    page.push_str("</table>\n");
    for (name, figures) in plugins {
        for (code, errors) in &figures.errors {
            let _ = writeln!(
                page,
                "<p class=\"error\">{}: {} errors with the code {}, such as: {}</p>",
                Html(name),
                errors.count,
                Html(code),
                Html(errors.first.lines().next().unwrap_or_default())
            );
        }
    }
}

fn by_percentile<'a>(plugins: &[&'a (String, Figures)]) -> Chart<'a> {
    let most = plugins.iter().map(|(_, figures)| figures.calls()).max().unwrap_or(1);
    let series = plugins.iter().enumerate().map(|(index, (name, figures))| {
        let points = figures.latency.iter_quantiles(STEPS_PER_HALF).map(|step| {
            let nanos = step.value_iterated_to();
            // The last step is the maximum, at 100 %: here at one call of all.
            let above = (1.0 - step.quantile_iterated_to()).max(1.0 / as_f64(figures.calls()));
            (1.0 / above, as_f64(nanos))
        });
        Series { name, class: index, mark: Mark::Line, points: points.collect() }
    });
    let mut axis = vec![(1.0, "0 %".to_owned())];
    let named = [(2.0, "50 %"), (10.0, "90 %"), (100.0, "99 %"), (1e3, "99.9 %"), (1e4, "99.99 %")];
    let named = named.into_iter().chain([(1e5, "99.999 %"), (1e6, "99.9999 %")]);
    axis.extend(named.map(|(at, name)| (at, name.to_owned())));
    Chart {
        id: "percentiles",
        title: "Latency by percentile".to_owned(),
        about: "Share of the calls that took at most this long.",
        series: series.collect(),
        x: Axis::Named { ticks: axis, end: as_f64(most.max(2)) },
        y: Axis::Time,
    }
}

fn histogram<'a>(plugins: &[&'a (String, Figures)]) -> Chart<'a> {
    let series = plugins.iter().enumerate().map(|(index, (name, figures))| {
        let mut bars: Vec<(f64, f64)> = Vec::new();
        for step in figures.latency.iter_recorded() {
            let bar = (as_f64(step.value_iterated_to().max(1)).log10() * BARS_PER_DECADE).floor();
            let (from, count) = (10_f64.powf(bar / BARS_PER_DECADE), step.count_at_value());
            let share = as_f64(count) / as_f64(figures.calls()) * 100.0;
            match bars.last_mut() {
                Some((at, all)) if (*at - from).abs() < 1e-9 * from => *all += share,
                _ => bars.push((from, share)),
            }
        }
        let mark = Mark::Bars { factor: 10_f64.powf(1.0 / BARS_PER_DECADE) };
        Series { name, class: index, mark, points: bars }
    });
    Chart {
        id: "histogram",
        title: "Calls by latency".to_owned(),
        about: "Share of the calls, in percent.",
        series: series.collect(),
        x: Axis::Time,
        y: Axis::Number,
    }
}

fn rates<'a>(plugins: &[&'a (String, Figures)]) -> Chart<'a> {
    let mut series = Vec::new();
    for (index, (name, figures)) in plugins.iter().enumerate() {
        let rate = |count: u64, time: Duration| as_f64(count) / time.as_secs_f64().max(1e-9);
        // The last one may be too short to have a rate.
        let longest = figures.timeline.iter().map(|point| point.time).max().unwrap_or_default();
        let whole = || figures.timeline.iter().filter(|point| point.time >= longest / 2);
        let at = |point: &Point| point.at.as_secs_f64();
        let points = whole().map(|point| (at(point), rate(point.calls, point.time))).collect();
        series.push(Series { name, class: index, mark: Mark::Line, points });
        let errors = figures.timeline.iter().filter(|point| point.errors > 0);
        let points: Vec<_> = errors.map(|it| (at(it), rate(it.errors, it.time))).collect();
        if !points.is_empty() {
            series.push(Series { name: "errors", class: 2, mark: Mark::Dots, points });
        }
    }
    Chart {
        id: "rate",
        title: "Calls a second".to_owned(),
        about: "In the course of the measurement, in seconds.",
        series,
        x: Axis::Number,
        y: Axis::Number,
    }
}

fn latencies(plugin: Option<&str>, index: usize, figures: &Figures) -> Chart<'static> {
    let of = |latency: fn(&Point) -> Duration| {
        let points = figures.timeline.iter().filter(|point| point.calls > 0);
        let nanos = |point: &Point| latency(point).as_secs_f64() * 1e9;
        points.map(|point| (point.at.as_secs_f64(), nanos(point))).collect()
    };
    let line = |name, class, points| Series { name, class, mark: Mark::Line, points };
    let series = vec![
        line("p50", 0, of(|point| point.p50)),
        line("p99", 1, of(|point| point.p99)),
        line("max", 2, of(|point| point.max)),
    ];
    let of_plugin = plugin.map_or_else(String::new, |name| format!(" of {name}"));
    Chart {
        id: ["timeline", "timeline-2"][index.min(1)],
        title: format!("Latency{of_plugin} in the course of the measurement"),
        about: "In seconds from its begin.",
        series,
        x: Axis::Number,
        y: Axis::Time,
    }
}

fn as_f64(count: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "a picture shows few digits")]
    let count = count as f64;
    count
}

/// Text in HTML.
struct Html<'a>(&'a str);

impl fmt::Display for Html<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in Escaped(self.0).to_string().chars() {
            match c {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                c => f.write_char(c)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_no_markup() {
        assert_eq!(
            Html("<a href=\"x\">&\x1b").to_string(),
            "&lt;a href=&quot;x&quot;&gt;&amp;\\u{1b}"
        );
    }
}
