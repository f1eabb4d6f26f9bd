//! Pictures: panels on a page, readable on light and on dark.

use std::fmt::Write as _;

/// Colour of a subject.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tone {
    Ours,
    /// Ours with other settings.
    OursToo,
    Raw,
    /// The peers have a few in turn.
    Peer(usize),
}

/// How many colours the peers have.
const PEERS: usize = 8;

impl Tone {
    pub(super) fn class(self) -> String {
        match self {
            Self::Ours => "ours".into(),
            Self::OursToo => "ours-too".into(),
            Self::Raw => "raw".into(),
            Self::Peer(index) => format!("peer{}", index % PEERS),
        }
    }
}

/// Elements of a picture, as they are added.
#[derive(Debug, Default)]
pub(super) struct Canvas {
    body: String,
}

/// Which end of a text its position is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Anchor {
    Start,
    Middle,
    End,
}

impl Canvas {
    pub(super) fn line(&mut self, class: &str, from: (f64, f64), to: (f64, f64)) {
        let ((x1, y1), (x2, y2)) = (from, to);
        self.put(format_args!(
            r#"<line class="{class}" x1="{x1:.1}" y1="{y1:.1}" x2="{x2:.1}" y2="{y2:.1}"/>"#
        ));
    }

    pub(super) fn polyline(&mut self, class: &str, points: &[(f64, f64)]) {
        let points: Vec<String> = points.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        self.put(format_args!(r#"<polyline class="{class}" points="{}"/>"#, points.join(" ")));
    }

    pub(super) fn dot(&mut self, class: &str, (x, y): (f64, f64)) {
        self.put(format_args!(r#"<circle class="{class}" cx="{x:.1}" cy="{y:.1}" r="3.5"/>"#));
    }

    pub(super) fn text(&mut self, class: &str, anchor: Anchor, (x, y): (f64, f64), text: &str) {
        let anchor = match anchor {
            Anchor::Start => "start",
            Anchor::Middle => "middle",
            Anchor::End => "end",
        };
        let text = text.replace('&', "&amp;").replace('<', "&lt;");
        self.put(format_args!(
            r#"<text class="{class}" text-anchor="{anchor}" x="{x:.1}" y="{y:.1}">{text}</text>"#
        ));
    }

    /// Puts another picture in, with its corner there.
    pub(super) fn place(&mut self, (x, y): (f64, f64), other: &Self) {
        self.put(format_args!("<g transform=\"translate({x:.1},{y:.1})\">\n{}</g>", other.body));
    }

    /// The file. It has a background of its own, so that it does not depend on the page's.
    pub(super) fn file(&self, title: &str, width: f64, height: f64) -> String {
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width:.0} {height:.0}\" \
             width=\"{width:.0}\" height=\"{height:.0}\" \
             role=\"img\">\n<title>{title}</title>\n<style>\n{}</style>\n\
             <rect class=\"page\" width=\"100%\" height=\"100%\" rx=\"6\"/>\n{}</svg>\n",
            style(),
            self.body
        )
    }

    fn put(&mut self, element: std::fmt::Arguments<'_>) {
        // Writing to a string does not fail.
        let _ = writeln!(self.body, "{element}");
    }
}

const STYLE: &str = "\
text { font: 12px system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif; }
text.title { font-weight: 600; font-size: 13px; }
text.faint { font-size: 11px; }
text.strong { font-weight: 600; }
line, polyline { fill: none; stroke-width: 1; }
polyline { stroke-width: 2; stroke-linejoin: round; }
line.spread { stroke-width: 2.5; stroke-opacity: 0.4; }
circle { stroke-width: 1; }
polyline.ours-too { stroke-dasharray: 2 3; }
polyline.raw { stroke-dasharray: 6 3; }
";

/// Colours of the subjects, on light and on dark.
const COLOURS: [(&str, [&str; 2]); 11] = [
    ("ours", ["#c2410c", "#fb923c"]),
    ("ours-too", ["#c2410c", "#fb923c"]),
    ("raw", ["#6e7781", "#9aa4af"]),
    ("peer0", ["#0550ae", "#79b8ff"]),
    ("peer1", ["#0f766e", "#2dd4bf"]),
    ("peer2", ["#7c3aed", "#c4b5fd"]),
    ("peer3", ["#be185d", "#f9a8d4"]),
    ("peer4", ["#4d7c0f", "#a3e635"]),
    ("peer5", ["#9a6700", "#e3b341"]),
    ("peer6", ["#0e7490", "#67e8f9"]),
    ("peer7", ["#a21caf", "#e879f9"]),
];

const PAGE: [&str; 2] = ["#ffffff", "#0d1117"];
const TEXT: [&str; 2] = ["#24292f", "#e6edf3"];
const FAINT: [&str; 2] = ["#57606a", "#9aa4af"];
const GRID: [&str; 2] = ["#d8dee4", "#30363d"];

/// The style sheet. Its colours stand there by value: not everything that draws SVG knows
/// variables.
fn style() -> String {
    let colours = |shade: usize| {
        let mut css = format!(
            ".page {{ fill: {page}; }}\ncircle {{ stroke: {page}; }}\ntext {{ fill: {}; }}\n\
             text.faint {{ fill: {}; }}\n.grid {{ stroke: {}; }}\n",
            TEXT[shade],
            FAINT[shade],
            GRID[shade],
            page = PAGE[shade],
        );
        for (class, colours) in COLOURS {
            let colour = colours[shade];
            // Writing to a string does not fail.
            let _ = writeln!(
                css,
                "line.{class}, polyline.{class} {{ stroke: {colour}; }}\n\
                 circle.{class}, text.{class} {{ fill: {colour}; }}"
            );
        }
        css
    };
    format!("{STYLE}{}@media (prefers-color-scheme: dark) {{\n{}}}\n", colours(0), colours(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_is_whole_and_escapes_its_texts() {
        let mut canvas = Canvas::default();
        canvas.text("faint", Anchor::End, (1.0, 2.0), "a < b & c");
        let file = canvas.file("t", 10.0, 20.0);
        assert!(file.contains(">a &lt; b &amp; c</text>"), "{file}");
        assert!(file.starts_with("<svg ") && file.ends_with("</svg>\n"), "{file}");
    }
}
