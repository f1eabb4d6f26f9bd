//! Text around a mistake, with carets below it.

use std::ops::Range;

use crate::output::text::{Escaped, width};

/// Cuts the line out of a text in which a mistake begins, and puts carets below the mistake.
pub(super) fn excerpt(text: &str, at: Range<usize>, columns: usize) -> Vec<String> {
    let start = at.start.min(text.len());
    let from = text[..start].rfind('\n').map_or(0, |newline| newline + 1);
    let to = text[start..].find('\n').map_or(text.len(), |newline| start + newline);
    let end = at.end.clamp(start, to);
    // A tab has no fixed width, and the carets are to stay below.
    let escaped = |text: &str| Escaped(&text.replace('\t', " ")).to_string();
    let (before, marked) = (escaped(&text[from..start]), escaped(&text[start..end]));
    let after = escaped(&text[end..to]);
    // The mistake has a third of the line, and what comes before it another one.
    let marked =
        first(&marked, (columns / 3).max(columns.saturating_sub(width(&before) + width(&after))));
    let left = columns.saturating_sub(width(&marked));
    let before = last(&before, (left / 2).max(left.saturating_sub(width(&after))));
    let after = first(&after, left.saturating_sub(width(&before)));
    let carets = format!("{:1$}{2}", "", width(&before), "^".repeat(width(&marked).max(1)));
    vec![format!("{before}{marked}{after}"), carets]
}

/// Shortens a text to its first columns.
fn first(text: &str, columns: usize) -> String {
    if width(text) <= columns {
        return text.into();
    }
    let mut short = String::new();
    for c in text.chars() {
        short.push(c);
        if width(&short) >= columns {
            short.pop();
            break;
        }
    }
    short + "…"
}

/// Shortens a text to its last columns.
fn last(text: &str, columns: usize) -> String {
    if width(text) <= columns {
        return text.into();
    }
    let mut start = text.len();
    for (index, _) in text.char_indices().rev() {
        if width(&text[index..]) >= columns {
            break;
        }
        start = index;
    }
    format!("…{}", &text[start..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn shows(text: &str, marked: &str, columns: usize, expected: [&str; 2]) {
        let start = text.find(marked).unwrap();
        assert_eq!(excerpt(text, start..start + marked.len(), columns), expected);
    }

    #[test]
    fn carets_are_below_the_mistake() {
        shows(r#"{"a":"x"}"#, r#""x""#, 40, [r#"{"a":"x"}"#, "     ^^^"]);
        shows("{\n  \"字\": 1,\n}", "1", 40, ["  \"字\": 1,", "        ^"]);
        shows("{\"a\":\t\u{1b}}", "\u{1b}", 40, ["{\"a\": \\u{1b}}", "      ^^^^^^"]);
        assert_eq!(excerpt("{", 1..1, 40), ["{", " ^"]);
        assert_eq!(excerpt("", 0..0, 40), ["", "^"]);
    }

    #[test]
    fn long_lines_are_cut_on_both_sides() {
        let text = format!("{}XY{}", "a".repeat(100), "b".repeat(100));
        let lines = excerpt(&text, 100..102, 20);
        assert_eq!(lines, ["…aaaaaaaaXYbbbbbbbb…", "         ^^"]);
        let lines = excerpt(&text, 0..100, 20);
        assert_eq!(lines, ["aaaaa…XYbbbbbbbbbbb…", "^^^^^^"]);
        for start in 0..text.len() {
            let lines = excerpt(&text, start..text.len().min(start + 30), 20);
            assert!(lines.iter().all(|line| width(line) <= 20), "{lines:?}");
        }
    }
}
