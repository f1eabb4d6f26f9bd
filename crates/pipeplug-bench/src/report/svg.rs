//! Pictures: panels on a page, readable on light and on dark.

use std::fmt::Write as _;

/// Which colour somebody has.
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
pub(super) const PEERS: usize = 6;

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
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width:.0} {height:.0}\" width=\"{width:.0}\" \
             height=\"{height:.0}\" role=\"img\">\n<title>{title}</title>\n<style>\n{STYLE}</style>\n\
             <rect class=\"page\" width=\"100%\" height=\"100%\" rx=\"6\"/>\n{}</svg>\n",
            self.body
        )
    }

    fn put(&mut self, element: std::fmt::Arguments<'_>) {
        // Writing to a string does not fail.
        let _ = writeln!(self.body, "{element}");
    }
}

const STYLE: &str = "\
svg { --page: #ffffff; --text: #24292f; --faint: #57606a; --grid: #d8dee4; --ours: #c2410c; --raw: #6e7781;
  --p0: #0550ae; --p1: #0f766e; --p2: #7c3aed; --p3: #be185d; --p4: #4d7c0f; --p5: #0e7490; }
@media (prefers-color-scheme: dark) {
  svg { --page: #0d1117; --text: #e6edf3; --faint: #9aa4af; --grid: #30363d; --ours: #fb923c; --raw: #9aa4af;
    --p0: #79b8ff; --p1: #2dd4bf; --p2: #c4b5fd; --p3: #f9a8d4; --p4: #a3e635; --p5: #67e8f9; }
}
.page { fill: var(--page); }
text { font: 12px system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif; fill: var(--text); }
text.title { font-weight: 600; font-size: 13px; }
text.faint { fill: var(--faint); font-size: 11px; }
text.strong { font-weight: 600; }
line, polyline { fill: none; stroke-width: 1; }
.grid { stroke: var(--grid); }
polyline { stroke-width: 2; stroke-linejoin: round; }
line.spread { stroke-width: 2.5; stroke-opacity: 0.4; }
circle { stroke: var(--page); stroke-width: 1; }
.ours { stroke: var(--ours); } circle.ours, text.ours { fill: var(--ours); stroke: none; }
.ours-too { stroke: var(--ours); } circle.ours-too, text.ours-too { fill: var(--ours); stroke: none; }
polyline.ours-too { stroke-dasharray: 2 3; }
.raw { stroke: var(--raw); } circle.raw, text.raw { fill: var(--raw); stroke: none; }
polyline.raw { stroke-dasharray: 6 3; }
.peer0 { stroke: var(--p0); } circle.peer0, text.peer0 { fill: var(--p0); stroke: none; }
.peer1 { stroke: var(--p1); } circle.peer1, text.peer1 { fill: var(--p1); stroke: none; }
.peer2 { stroke: var(--p2); } circle.peer2, text.peer2 { fill: var(--p2); stroke: none; }
.peer3 { stroke: var(--p3); } circle.peer3, text.peer3 { fill: var(--p3); stroke: none; }
.peer4 { stroke: var(--p4); } circle.peer4, text.peer4 { fill: var(--p4); stroke: none; }
.peer5 { stroke: var(--p5); } circle.peer5, text.peer5 { fill: var(--p5); stroke: none; }
";

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
