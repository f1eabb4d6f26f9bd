//! Two kinds of panels: dots with their spread, a row for each subject; and curves.

use super::svg::{Anchor, Canvas, Tone};
use crate::print::short;

/// A panel's width.
pub(super) const WIDTH: f64 = 430.0;

const TITLE: f64 = 20.0;

/// A value with its spread.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Value {
    pub(super) median: f64,
    pub(super) min: f64,
    pub(super) max: f64,
}

/// Subjects below each other, on one logarithmic axis.
#[derive(Debug)]
pub(super) struct Dots {
    pub(super) title: &'static str,
    pub(super) rows: Vec<(String, Tone, Value)>,
}

impl Dots {
    const ROW: f64 = 19.0;
    const NAMES: f64 = 156.0;
    const VALUES: f64 = 52.0;

    pub(super) fn height(&self) -> f64 {
        TITLE + Self::ROW * self.rows.len() as f64 + 24.0
    }

    pub(super) fn draw(&self) -> Canvas {
        let mut canvas = Canvas::default();
        canvas.text("title", Anchor::Start, (0.0, 12.0), self.title);
        let values = self.rows.iter().flat_map(|(_, _, value)| [value.min, value.max]);
        let axis = Axis::logarithmic(values, Self::NAMES, WIDTH - Self::VALUES);
        let bottom = TITLE + Self::ROW * self.rows.len() as f64 + 4.0;
        for tick in axis.ticks() {
            let x = axis.at(tick);
            canvas.line("grid", (x, TITLE), (x, bottom));
            canvas.text("faint", Anchor::Middle, (x, bottom + 13.0), &round(tick));
        }
        for (index, (name, tone, value)) in self.rows.iter().enumerate() {
            let y = TITLE + Self::ROW * (index as f64 + 0.5);
            let class = tone.class();
            let strong = if matches!(tone, Tone::Ours | Tone::OursToo) { "strong" } else { "" };
            canvas.text(strong, Anchor::End, (Self::NAMES - 8.0, y + 4.0), name);
            canvas.line(
                &format!("{class} spread"),
                (axis.at(value.min), y),
                (axis.at(value.max), y),
            );
            canvas.dot(&class, (axis.at(value.median), y));
            canvas.text(strong, Anchor::End, (WIDTH - 6.0, y + 4.0), &short(value.median));
        }
        canvas
    }
}

/// Curves over a logarithmic axis.
#[derive(Debug)]
pub(super) struct Curves {
    pub(super) title: &'static str,
    pub(super) across: &'static str,
    pub(super) series: Vec<Series>,
    /// How the numbers across are shown.
    pub(super) number: fn(f64) -> String,
}

/// One subject's curve.
#[derive(Debug)]
pub(super) struct Series {
    pub(super) name: String,
    pub(super) tone: Tone,
    pub(super) points: Vec<(f64, Value)>,
}

impl Curves {
    const HEIGHT: f64 = 300.0;
    const LEFT: f64 = 42.0;
    const NAMES: f64 = 108.0;

    pub(super) fn height(&self) -> f64 {
        Self::HEIGHT
    }

    pub(super) fn draw(&self) -> Canvas {
        let mut canvas = Canvas::default();
        canvas.text("title", Anchor::Start, (0.0, 12.0), self.title);
        let (top, bottom, right) = (TITLE + 6.0, Self::HEIGHT - 40.0, WIDTH - Self::NAMES);
        let points = || self.series.iter().flat_map(|series| &series.points);
        let x_axis = Axis::of_counts(points().map(|(x, _)| *x), Self::LEFT + 8.0, right - 6.0);
        let values = points().flat_map(|(_, value)| [value.min, value.max]);
        let y_axis = Axis::of_values(values, bottom, top);
        for tick in y_axis.ticks() {
            let y = y_axis.at(tick);
            canvas.line("grid", (Self::LEFT, y), (right, y));
            canvas.text("faint", Anchor::End, (Self::LEFT - 5.0, y + 4.0), &round(tick));
        }
        let mut last_label = f64::NEG_INFINITY;
        for tick in x_axis.ticks() {
            let x = x_axis.at(tick);
            canvas.line("grid", (x, bottom), (x, bottom + 4.0));
            if x - last_label > 30.0 {
                canvas.text("faint", Anchor::Middle, (x, bottom + 16.0), &(self.number)(tick));
                last_label = x;
            }
        }
        canvas.text(
            "faint",
            Anchor::Middle,
            (f64::midpoint(Self::LEFT, right), Self::HEIGHT - 8.0),
            self.across,
        );
        let place = |(x, value): &(f64, Value)| (x_axis.at(*x), y_axis.at(value.median));
        for series in &self.series {
            let class = series.tone.class();
            for (x, value) in &series.points {
                let x = x_axis.at(*x);
                canvas.line(
                    &format!("{class} spread"),
                    (x, y_axis.at(value.min)),
                    (x, y_axis.at(value.max)),
                );
            }
            canvas.polyline(&class, &series.points.iter().map(place).collect::<Vec<_>>());
            series.points.iter().for_each(|point| canvas.dot(&class, place(point)));
        }
        // Each name stands at its curve's end, as near to it as the others let it.
        let mut ends: Vec<(f64, &Series)> = self
            .series
            .iter()
            .filter_map(|series| Some((place(series.points.last()?).1, series)))
            .collect();
        ends.sort_by(|(a, _), (b, _)| a.total_cmp(b));
        let heights = apart(&ends.iter().map(|(y, _)| *y).collect::<Vec<_>>(), 14.0, top, bottom);
        for ((_, series), y) in ends.iter().zip(heights) {
            let strong = if series.tone == Tone::Ours { " strong" } else { "" };
            let class = format!("{}{strong}", series.tone.class());
            canvas.text(&class, Anchor::Start, (right + 5.0, y + 4.0), &series.name);
        }
        canvas
    }
}

/// Moves sorted positions apart, so that each has `room`, and keeps them between the ends where
/// there is room for all.
fn apart(wanted: &[f64], room: f64, from: f64, to: f64) -> Vec<f64> {
    let mut placed: Vec<f64> = Vec::with_capacity(wanted.len());
    for position in wanted {
        let least = placed.last().map_or(from, |last| last + room);
        placed.push(position.max(least));
    }
    let mut most = to;
    for position in placed.iter_mut().rev() {
        *position = position.min(most);
        most = *position - room;
    }
    placed
}

/// From values to places.
#[derive(Debug)]
struct Axis {
    scale: Scale,
    low: f64,
    high: f64,
    /// Where the lowest and the highest stand.
    from: f64,
    to: f64,
    marks: Vec<f64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scale {
    Linear,
    Logarithmic,
}

impl Axis {
    /// Over whole decades, or halves of them where there are few.
    fn logarithmic(values: impl Iterator<Item = f64>, from: f64, to: f64) -> Self {
        let (low, high) = ends(values.filter(|value| *value > 0.0));
        let mut marks: Vec<f64> = Vec::new();
        let mut decade = 10_f64.powf(low.log10().floor());
        while decade <= high * 10.0 {
            marks.extend([decade, 3.0 * decade]);
            decade *= 10.0;
        }
        let first = marks.iter().rposition(|mark| *mark <= low).unwrap_or(0);
        let last =
            marks.iter().position(|mark| *mark >= high).unwrap_or(marks.len() - 1).max(first + 1);
        let mut marks = marks[first..=last].to_vec();
        let (low, high) = (marks[0], marks[marks.len() - 1]);
        if marks.len() > 6 {
            marks.retain(|mark| (mark.log10() - mark.log10().round()).abs() < 0.01);
        }
        Self { scale: Scale::Logarithmic, low, high, from, to, marks }
    }

    /// Logarithmic where the values differ much, else linear from 0.
    fn of_values(values: impl Iterator<Item = f64> + Clone, from: f64, to: f64) -> Self {
        let (low, high) = ends(values.clone());
        if low > 0.0 && high / low > 8.0 {
            return Self::logarithmic(values, from, to);
        }
        let high = if high > 0.0 { high } else { 1.0 };
        let decade = 10_f64.powf(high.log10().floor());
        let steps = [0.1, 0.2, 0.5, 1.0, 2.0, 5.0].map(|step| step * decade);
        let step = steps.into_iter().find(|step| high / step <= 6.0).unwrap_or(decade);
        let count = (high / step).ceil();
        let marks = (0..=count as u32).map(|index| f64::from(index) * step).collect();
        Self { scale: Scale::Linear, low: 0.0, high: count * step, from, to, marks }
    }

    /// Logarithmic, with a mark at each count; 0 stands a decade below the next.
    fn of_counts(counts: impl Iterator<Item = f64>, from: f64, to: f64) -> Self {
        let mut marks: Vec<f64> = counts.collect();
        marks.sort_by(f64::total_cmp);
        marks.dedup();
        let least = marks.iter().copied().find(|mark| *mark > 0.0).unwrap_or(1.0);
        let low = if marks.first() == Some(&0.0) { least / 10.0 } else { least };
        let high = marks.last().copied().unwrap_or(1.0).max(low * 2.0);
        Self { scale: Scale::Logarithmic, low, high, from, to, marks }
    }

    fn at(&self, value: f64) -> f64 {
        let part = match self.scale {
            Scale::Linear => (value - self.low) / (self.high - self.low),
            Scale::Logarithmic => {
                (value.max(self.low) / self.low).ln() / (self.high / self.low).ln()
            }
        };
        self.from + part.clamp(0.0, 1.0) * (self.to - self.from)
    }

    fn ticks(&self) -> impl Iterator<Item = f64> {
        self.marks.iter().copied()
    }
}

fn ends(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let (low, high) = values
        .fold((f64::INFINITY, 0.0_f64), |(low, high), value| (low.min(value), high.max(value)));
    if low > high { (1.0, 10.0) } else { (low, high) }
}

/// A number of few digits, as ticks are.
pub(super) fn round(value: f64) -> String {
    let (value, suffix) = match value {
        value if value >= 1e9 => (value / 1e9, "G"),
        value if value >= 1e6 => (value / 1e6, "M"),
        value if value >= 1e4 => (value / 1e3, "k"),
        value => (value, ""),
    };
    let digits = format!("{value:.3}");
    format!("{}{suffix}", digits.trim_end_matches('0').trim_end_matches('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_moved_apart_and_stay_between_the_ends() {
        assert_eq!(apart(&[10.0, 11.0, 50.0], 14.0, 0.0, 100.0), [10.0, 24.0, 50.0]);
        assert_eq!(apart(&[98.0, 99.0], 14.0, 0.0, 100.0), [86.0, 100.0]);
    }

    #[test]
    fn an_axis_holds_all_values_between_its_ends() {
        for values in [&[1.2, 130.0][..], &[4.0, 5.0], &[16e6, 20e6], &[0.004, 7.0]] {
            let axis = Axis::logarithmic(values.iter().copied(), 0.0, 100.0);
            assert!(axis.low <= values[0] && axis.high >= values[1], "{axis:?}");
            assert!(axis.marks.len() >= 2, "{axis:?}");
            assert_eq!((axis.at(axis.low), axis.at(axis.high)), (0.0, 100.0));
        }
        let axis = Axis::of_values([30.0, 45.0].into_iter(), 100.0, 0.0);
        assert_eq!((axis.low, axis.high, axis.at(0.0)), (0.0, 50.0, 100.0));
    }

    #[test]
    fn none_has_a_place_on_a_logarithmic_axis() {
        let axis = Axis::of_counts([0.0, 1.0, 1000.0].into_iter(), 0.0, 100.0);
        assert_eq!(axis.at(0.0), 0.0);
        assert!((axis.at(1.0) - 25.0).abs() < 0.1);
    }

    #[test]
    fn ticks_are_short() {
        for (value, shown) in
            [(0.3, "0.3"), (300.0, "300"), (1e4, "10k"), (3e7, "30M"), (1024.0, "1024")]
        {
            assert_eq!(round(value), shown);
        }
    }
}
