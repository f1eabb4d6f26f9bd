//! Charts as SVG.

use std::fmt::{self, Write as _};
use std::time::Duration;

use super::Html;
use crate::commands::bench::table;

/// Size of a picture, and of the margins for its axes.
const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 264.0;
const LEFT: f64 = 76.0;
/// Room for the labels of the horizontal axis, below those of the vertical one: the first of them begin left of the axis.
const BOTTOM: f64 = 30.0;
const TOP: f64 = 10.0;
const RIGHT: f64 = 16.0;
/// Number of ticks of a linear axis, about.
const TICKS: f64 = 5.0;
/// Width of half a character. Labels of the horizontal axis must not touch.
const HALF_CHARACTER: f64 = 3.6;

/// A chart with its title.
pub(super) struct Chart<'a> {
    pub(super) id: &'static str,
    pub(super) title: String,
    pub(super) about: &'static str,
    pub(super) series: Vec<Series<'a>>,
    pub(super) x: Axis,
    pub(super) y: Axis,
}

/// Points with the same name and colour.
pub(super) struct Series<'a> {
    pub(super) name: &'a str,
    /// Number of the colour.
    pub(super) class: usize,
    pub(super) mark: Mark,
    pub(super) points: Vec<(f64, f64)>,
}

/// Drawing of the points.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Mark {
    Line,
    Dots,
    /// Bars, each from its point to `factor` times that.
    Bars {
        factor: f64,
    },
}

/// Scale of an axis.
pub(super) enum Axis {
    /// From 0, linear.
    Number,
    /// Nanoseconds, logarithmic.
    Time,
    /// These ticks up to the end, logarithmic.
    Named { ticks: Vec<(f64, String)>, end: f64 },
}

/// An axis for the points that are there.
struct Scale {
    from: f64,
    to: f64,
    is_log: bool,
    ticks: Vec<(f64, String)>,
}

impl Axis {
    fn scale(&self, values: impl Iterator<Item = f64>) -> Scale {
        let (mut least, mut most) = (f64::INFINITY, 0.0_f64);
        for value in values {
            (least, most) = (least.min(value), most.max(value));
        }
        match self {
            Self::Number => {
                let most = if most > 0.0 { most } else { 1.0 };
                let step = round_step(most / TICKS);
                let ticks = (0..=20).map(|tick| f64::from(tick) * step);
                let to = (most / step).ceil() * step;
                let ticks = ticks.take_while(|tick| *tick <= to * 1.0001);
                Scale {
                    from: 0.0,
                    to,
                    is_log: false,
                    ticks: ticks.map(|it| (it, number(it))).collect(),
                }
            }
            Self::Time => {
                let least = least.min(most).max(1.0);
                let (from, to) = (least / 1.25, most.max(least) * 1.25);
                let mut ticks = Vec::new();
                let factors: &[f64] = if to / from < 50.0 { &[1.0, 2.0, 5.0] } else { &[1.0] };
                for decade in 0..13 {
                    for factor in factors {
                        let nanos = 10_f64.powi(decade) * factor;
                        if (from..=to).contains(&nanos) {
                            ticks.push((nanos, time(nanos)));
                        }
                    }
                }
                Scale { from, to, is_log: true, ticks }
            }
            Self::Named { ticks, end } => {
                let ticks: Vec<_> = ticks.iter().filter(|(at, _)| at <= end).cloned().collect();
                Scale { from: 1.0, to: *end, is_log: true, ticks }
            }
        }
    }

    fn text(&self, value: f64) -> String {
        match self {
            Self::Number => number(value),
            Self::Time => time(value),
            Self::Named { .. } => format!("{:.4} %", 100.0 * (1.0 - 1.0 / value)),
        }
    }
}

impl Scale {
    /// Place of a value, from 0 to 1.
    fn at(&self, value: f64) -> f64 {
        let at = if self.is_log {
            (value.max(self.from) / self.from).ln() / (self.to / self.from).ln()
        } else {
            (value - self.from) / (self.to - self.from)
        };
        if at.is_finite() { at.clamp(0.0, 1.0) } else { 0.0 }
    }
}

impl fmt::Display for Chart<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = || self.series.iter().flat_map(|series| &series.points);
        let bars = self.series.iter().find_map(|series| match series.mark {
            Mark::Bars { factor } => Some(factor),
            Mark::Line | Mark::Dots => None,
        });
        let ends = all()
            .map(|(x, _)| *x)
            .chain(bars.into_iter().flat_map(|factor| all().map(move |(x, _)| x * factor)));
        let (x, y) = (self.x.scale(ends), self.y.scale(all().map(|(_, y)| *y)));
        let place_x = |value| LEFT + x.at(value) * (WIDTH - LEFT - RIGHT);
        let place_y = |value| HEIGHT - BOTTOM - y.at(value) * (HEIGHT - BOTTOM - TOP);
        write!(f, "<h2>{}</h2>\n<p>{}", Html(&self.title), self.about)?;
        if self.series.len() > 1 {
            for series in &self.series {
                write!(f, "<i class=\"key s{}\"></i>{}", series.class, Html(series.name))?;
            }
        }
        writeln!(
            f,
            "</p>\n<svg id=\"{}\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{}\">",
            self.id,
            Html(&self.title)
        )?;
        for (value, label) in &y.ticks {
            let at = place_y(*value);
            let (left, text, end) = (LEFT - 8.0, at + 4.0, WIDTH - RIGHT);
            writeln!(
                f,
                "<path class=\"grid\" d=\"M{LEFT} {at:.1}H{end}\"/><text x=\"{left}\" \
                 y=\"{text:.1}\" text-anchor=\"end\">{label}</text>"
            )?;
        }
        let mut free_from = 0.0;
        for (value, label) in &x.ticks {
            let at = place_x(*value);
            let (top, bottom, text) = (TOP, HEIGHT - BOTTOM, HEIGHT - 8.0);
            writeln!(f, "<path class=\"grid\" d=\"M{at:.1} {top}V{bottom}\"/>")?;
            let half = HALF_CHARACTER * label.chars().count() as f64 + 4.0;
            // A label at the end of the axis stays inside the picture.
            let middle = at.min(WIDTH - half);
            if middle - half >= free_from {
                free_from = middle + half;
                writeln!(
                    f,
                    "<text x=\"{middle:.1}\" y=\"{text}\" text-anchor=\"middle\">{label}</text>"
                )?;
            }
        }
        for Series { name, class, mark, points } in &self.series {
            let tip = |x: f64, y: f64| {
                let (x, y) = (self.x.text(x), self.y.text(y));
                format!("<title>{}: {x}, {y}</title>", Html(name))
            };
            match mark {
                Mark::Line => {
                    let mut path = String::new();
                    for (index, (x, y)) in points.iter().enumerate() {
                        let verb = if index == 0 { 'M' } else { 'L' };
                        write!(path, "{verb}{:.1} {:.1}", place_x(*x), place_y(*y))?;
                    }
                    writeln!(f, "<path class=\"line s{class}\" d=\"{path}\"/>")?;
                    for (x, y) in points {
                        let (at_x, at_y) = (place_x(*x), place_y(*y));
                        let tip = tip(*x, *y);
                        writeln!(
                            f,
                            "<circle class=\"hover\" cx=\"{at_x:.1}\" cy=\"{at_y:.1}\" r=\"6\">{tip}\
                             </circle>"
                        )?;
                    }
                }
                Mark::Dots => {
                    for (x, y) in points {
                        let (at_x, at_y) = (place_x(*x), place_y(*y));
                        let tip = tip(*x, *y);
                        writeln!(
                            f,
                            "<circle class=\"dot s{class}\" cx=\"{at_x:.1}\" cy=\"{at_y:.1}\" \
                             r=\"3\">{tip}</circle>"
                        )?;
                    }
                }
                Mark::Bars { factor } => {
                    for (x, y) in points {
                        let (left, right) = (place_x(*x), place_x(*x * factor));
                        let (top, tip) = (place_y(*y), tip(*x, *y));
                        let (width, height) =
                            ((right - left - 0.6).max(0.6), HEIGHT - BOTTOM - top);
                        writeln!(
                            f,
                            "<rect class=\"bar s{class}\" x=\"{left:.1}\" y=\"{top:.1}\" \
                             width=\"{width:.1}\" height=\"{height:.1}\">{tip}</rect>"
                        )?;
                    }
                }
            }
        }
        f.write_str("</svg>\n")
    }
}

/// The next round number: 1, 2 or 5, times a power of ten.
fn round_step(step: f64) -> f64 {
    let decade = 10_f64.powf(step.log10().floor());
    let factor = step / decade;
    let round = [1.0, 2.0, 5.0].into_iter().find(|round| factor <= *round + 1e-9);
    decade * round.unwrap_or(10.0)
}

fn number(value: f64) -> String {
    let plain = |value: f64| {
        let text = format!("{value:.3}");
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    };
    match value {
        1e6.. => format!("{} M", plain(value / 1e6)),
        1e3.. => format!("{} k", plain(value / 1e3)),
        _ => plain(value),
    }
}

fn time(nanos: f64) -> String {
    let text = table::time(Duration::from_secs_f64((nanos / 1e9).max(0.0)));
    // A tick is a round number.
    match text.split_once(' ') {
        Some((number, unit)) if number.contains('.') => {
            format!("{} {unit}", number.trim_end_matches('0').trim_end_matches('.'))
        }
        _ => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_numbers() {
        for (step, round) in [(0.9, 1.0), (1.1, 2.0), (3.0, 5.0), (7.0, 10.0), (0.03, 0.05)] {
            assert!((round_step(step) - round).abs() < 1e-9, "{step}");
        }
        assert_eq!(
            (number(0.0), number(1500.0), number(2e6)),
            ("0".into(), "1.5 k".into(), "2 M".into())
        );
        assert_eq!(
            (time(1e3), time(5e5), time(1e9)),
            ("1 µs".into(), "500 µs".into(), "1 s".into())
        );
    }

    #[test]
    fn every_point_is_inside() {
        let time = Axis::Time.scale([1e3, 5e6].into_iter());
        assert!(time.at(1e3) > 0.0 && time.at(5e6) < 1.0 && time.at(1e3) < time.at(2e3));
        for values in [vec![], vec![0.0], vec![7.0, 7.0]] {
            for axis in [Axis::Time, Axis::Number] {
                let scale = axis.scale(values.iter().copied());
                assert!((0.0..=1.0).contains(&scale.at(7.0)), "{values:?}");
            }
        }
    }

    #[test]
    fn the_first_labels_of_both_axes_do_not_touch() {
        // The first tick of the horizontal axis is as far to the left as one can be.
        let points = vec![(1.25e6, 0.0), (3e6, 9.0)];
        let chart = Chart {
            id: "histogram",
            title: String::new(),
            about: "",
            series: vec![Series { name: "", class: 0, mark: Mark::Line, points }],
            x: Axis::Time,
            y: Axis::Number,
        };
        let svg = chart.to_string();
        // Right or middle end of a label, and its baseline.
        let place = |label: &str| {
            let (label, _) = svg.split_once(&format!(">{label}</text>")).unwrap();
            let (_, label) = label.rsplit_once("<text x=\"").unwrap();
            let (x, label) = label.split_once("\" y=\"").unwrap();
            let (y, _) = label.split_once('"').unwrap();
            (x.parse::<f64>().unwrap(), y.parse::<f64>().unwrap())
        };
        let ((left, lowest), (middle, below)) = (place("0"), place("1 ms"));
        assert!(middle - 4.0 * HALF_CHARACTER < left, "they stand one above the other: {svg}");
        // A line of 12 pixels is up to 14 high, and a browser rounds to whole pixels of the screen.
        assert!(below - lowest >= 17.0, "{lowest} and {below}: {svg}");
    }

    #[test]
    fn a_label_at_the_end_of_the_axis_is_inside() {
        let chart = Chart {
            id: "percentiles",
            title: String::new(),
            about: "",
            series: vec![Series { name: "", class: 0, mark: Mark::Line, points: vec![(1.0, 1e6)] }],
            x: Axis::Named { ticks: vec![(1e4, "99.99 %".to_owned())], end: 1e4 },
            y: Axis::Time,
        };
        let svg = chart.to_string();
        let (label, _) = svg.split_once("\" y=\"256\" text-anchor=\"middle\">99.99 %").unwrap();
        let (_, middle) = label.rsplit_once("x=\"").unwrap();
        let half = 7.0 * HALF_CHARACTER;
        assert!(middle.parse::<f64>().unwrap() + half <= WIDTH, "{middle}");
    }
}
