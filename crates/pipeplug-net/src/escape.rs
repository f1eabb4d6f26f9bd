//! Text from the other side, made safe for a terminal.

use std::fmt;

/// Shows text with those characters escaped that a terminal would obey, or that would change how it
/// shows other text: controls except for the tab, and marks that change the direction of text.
///
/// The errors of this crate, and of the crates above it, show text from the other side like this. A
/// host can use it for what it shows by itself, such as the lines that a plugin writes.
///
/// ```
/// use pipeplug_net::Escaped;
///
/// assert_eq!(Escaped("done\x1b[2J\n").to_string(), "done\\u{1b}[2J\\n");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Escaped<'a>(pub &'a str);

impl Escaped<'_> {
    /// Returns true for a character that is shown as it is.
    #[must_use]
    pub fn is_harmless(c: char) -> bool {
        !((c.is_control() && c != '\t')
            || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}'))
    }
}

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0;
        while let Some((at, c)) = rest.char_indices().find(|(_, c)| !Self::is_harmless(*c)) {
            f.write_str(&rest[..at])?;
            write!(f, "{}", c.escape_default())?;
            rest = &rest[at + c.len_utf8()..];
        }
        f.write_str(rest)
    }
}

/// As much of `text` as `most` bytes hold, cut between two characters.
pub(crate) fn beginning(text: &str, most: usize) -> &str {
    // `str::floor_char_boundary` needs Rust 1.91.
    let mut end = most.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_cut_between_characters() {
        for (most, cut) in [(0, ""), (1, "a"), (2, "a"), (3, "aü"), (9, "aü")] {
            assert_eq!(beginning("aü", most), cut, "{most}");
        }
    }

    #[test]
    fn what_a_terminal_obeys_is_escaped() {
        assert_eq!(Escaped("a\tb ü").to_string(), "a\tb ü");
        assert_eq!(
            Escaped("\x1b[2Ja\r\nb\u{9b}\x7f").to_string(),
            "\\u{1b}[2Ja\\r\\nb\\u{9b}\\u{7f}"
        );
        assert_eq!(Escaped("\u{202e}txt\u{2066}").to_string(), "\\u{202e}txt\\u{2066}");
    }
}
