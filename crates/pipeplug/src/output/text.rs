//! Text for terminals: escaping, wrapping, widths, durations.

use std::borrow::Cow;
use std::fmt::{self, Write as _};
use std::os::fd::AsFd;

pub(crate) use pipeplug_host::Escaped;
use unicode_width::UnicodeWidthStr as _;

/// Number of characters of data that are shown. For longer data the size follows.
const DATA_SHOWN: usize = 160;

/// Longest word of a message that is shown whole, in characters; longer than most paths.
const WORD_MAX: usize = 500;
/// Characters that are shown of the beginning of a longer one.
const WORD_START: usize = 100;
/// Characters that are shown of its end.
const WORD_END: usize = 40;

/// Formats a reply for a terminal: keeps its lines, and escapes control characters.
pub(crate) fn reply(data: &[u8]) -> String {
    let mut text = String::new();
    for chunk in data.utf8_chunks() {
        for line in chunk.valid().split_inclusive('\n') {
            let (line, end) = match line.strip_suffix('\n') {
                Some(line) => (line.strip_suffix('\r').unwrap_or(line), "\n"),
                None => (line, ""),
            };
            // Writing to a String does not fail.
            let _ = write!(text, "{}{end}", Escaped(line));
        }
        let _ = write!(text, "{}", chunk.invalid().escape_ascii());
    }
    text
}

/// Formats JSON in one line. Also escapes control characters that JSON allows unescaped.
pub(crate) fn json_line(value: &serde_json::Value) -> String {
    json(&value.to_string())
}

/// Formats JSON with indentation, as [`json_line`] does.
pub(crate) fn json_lines(value: &serde_json::Value) -> String {
    json(&format!("{value:#}"))
}

/// Formats a string as JSON, with its quotes and in one line, as [`json_line`] does.
pub(crate) fn json_string(text: &str) -> String {
    without_controls(&serde_json::Value::from(text).to_string())
}

fn json(text: &str) -> String {
    let mut lines = without_controls(text);
    lines.push('\n');
    lines
}

/// Escapes the control characters of JSON text.
fn without_controls(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for c in text.chars() {
        // Within a string a newline is escaped already.
        if Escaped::is_harmless(c) || c == '\n' {
            line.push(c);
        } else {
            // They occur in strings only, and none is above U+FFFF. Writing to a String does not
            // fail.
            let _ = write!(line, "\\u{:04x}", u32::from(c));
        }
    }
    line
}

/// Buffer of a chunk in a message: a space and the quoted content, or nothing if it is empty.
pub(crate) struct QuotedData<'a>(pub(crate) &'a [u8]);

impl fmt::Display for QuotedData<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return Ok(());
        }
        let Ok(text) = std::str::from_utf8(self.0) else {
            return write!(f, " ({} B, not UTF-8)", self.0.len());
        };
        match text.char_indices().nth(DATA_SHOWN) {
            None => write!(f, " \"{}\"", Escaped(text)),
            Some((end, _)) => write!(f, " \"{}…\" ({} B)", Escaped(&text[..end]), self.0.len()),
        }
    }
}

/// Text with an ellipsis in each word that no reader takes in, such as an argument that a shell has
/// inserted from a large file. Its beginning and its end stay.
pub(crate) fn without_long_words(text: &str) -> Cow<'_, str> {
    if text.split_whitespace().all(|word| word.len() <= WORD_MAX) {
        return text.into();
    }
    let words = text.split_inclusive(char::is_whitespace);
    let parts = words.map(|word| word.split_at(word.trim_end().len()));
    parts.flat_map(|(word, space)| [cut(word), space.into()]).collect::<String>().into()
}

/// Text in quotes as [`without_long_words`] shows it, also if it has spaces.
pub(crate) fn cut(text: &str) -> Cow<'_, str> {
    let Some((start, _)) = text.char_indices().nth(WORD_MAX) else { return text.into() };
    let shown = &text[..start];
    let begin = shown.char_indices().nth(WORD_START).map_or(shown.len(), |(at, _)| at);
    let end = text.char_indices().rev().nth(WORD_END - 1).map_or(0, |(at, _)| at);
    format!("{}…{}", &text[..begin], &text[end..]).into()
}

/// Width of text in columns of a terminal. A Chinese character has two columns, a combining accent
/// none.
pub(crate) fn width(text: &str) -> usize {
    text.width()
}

/// Text of at most `columns`, with an ellipsis in place of what does not fit.
pub(crate) fn shortened(text: &str, columns: usize) -> String {
    if width(text) <= columns {
        return text.to_owned();
    }
    let ends = text.char_indices().map(|(end, _)| end);
    let fits = |end: &usize| width(&text[..*end]) < columns;
    let end = ends.take_while(fits).last().unwrap_or(0);
    format!("{}…", &text[..end])
}

/// Text of at most `columns`, with an ellipsis in place of a beginning that does not fit.
pub(crate) fn shortened_at_start(text: &str, columns: usize) -> String {
    if width(text) <= columns {
        return text.to_owned();
    }
    let mut starts = text.char_indices().map(|(start, _)| start);
    let fits = |start: &usize| width(&text[*start..]) < columns;
    format!("…{}", starts.find(fits).map_or("", |at| &text[at..]))
}

/// Breaks text at spaces into lines of at most `columns`. A longer word gets a line of its own.
pub(crate) fn wrap(text: &str, columns: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    let (mut used, mut is_first) = (0, true);
    for word in text.split(' ') {
        let len = width(word);
        if !is_first && used + 1 + len > columns {
            lines.push(String::new());
            (used, is_first) = (0, true);
        }
        if let Some(line) = lines.last_mut() {
            if !std::mem::replace(&mut is_first, false) {
                line.push(' ');
                used += 1;
            }
            line.push_str(word);
            used += len;
        }
    }
    lines
}

/// Width of the terminal of `stream`. `None` if it is no terminal: lines are not wrapped then.
pub(crate) fn columns(stream: impl AsFd) -> Option<usize> {
    terminal_size::terminal_size_of(stream).map(|(terminal_size::Width(columns), _)| columns.into())
}

/// Formats a path for people, with `~` for the home directory.
pub(crate) fn short_path(path: &std::path::Path) -> String {
    let home = std::env::home_dir().filter(|home| home.parent().is_some());
    let shown: Cow<'_, str> = match home.and_then(|home| path.strip_prefix(home).ok()) {
        Some(rest) => format!("~/{}", rest.display()).into(),
        None => path.to_string_lossy(),
    };
    Escaped(&shown).to_string()
}

/// Formats a duration with about three digits.
pub(crate) fn took(duration: std::time::Duration) -> String {
    let micros = duration.as_micros();
    match micros {
        0..1000 => format!("{micros} µs"),
        1000..1_000_000 => format!("{:.1} ms", duration.as_secs_f64() * 1e3),
        _ => format!("{:.1} s", duration.as_secs_f64()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_keep_their_lines_and_nothing_that_steers() {
        assert_eq!(reply(b"a\tb\r\nc\n\n"), "a\tb\nc\n\n");
        assert_eq!(
            reply(b"over\rwritten \x1b[2J\x9b1m \xff"),
            "over\\rwritten \\u{1b}[2J\\x9b1m \\xff"
        );
        assert_eq!(reply("\u{9b}31m".as_bytes()), "\\u{9b}31m");
    }

    #[test]
    fn json_means_the_same_and_steers_nothing() {
        let value = serde_json::json!({ "a\u{9b}": "\x1b[2J\x7f\u{202e}\t\n ü" });
        let line = json_line(&value);
        assert!(line.trim_end().chars().all(Escaped::is_harmless), "{line:?}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&line).unwrap(), value);
    }

    #[test]
    fn data_is_quoted_or_counted() {
        assert_eq!(QuotedData(b"").to_string(), "");
        assert_eq!(QuotedData(b"a\nb").to_string(), " \"a\\nb\"");
        assert_eq!(QuotedData(&[0xff, 0]).to_string(), " (2 B, not UTF-8)");
        let long = "ü".repeat(DATA_SHOWN + 1);
        assert_eq!(
            QuotedData(long.as_bytes()).to_string(),
            format!(" \"{}…\" (322 B)", "ü".repeat(DATA_SHOWN))
        );
        assert!(!QuotedData("x".repeat(DATA_SHOWN).as_bytes()).to_string().contains('…'));
    }

    #[test]
    fn long_words_are_cut_in_the_middle() {
        let long = format!("a{}z", "ü".repeat(WORD_MAX));
        let cut = format!("a{}…{}z", "ü".repeat(WORD_START - 1), "ü".repeat(WORD_END - 1));
        assert_eq!(without_long_words(&format!("no  \t{long} x")), format!("no  \t{cut} x"));
        let most = "x".repeat(WORD_MAX);
        assert_eq!(without_long_words(&most), most);
        let words = "some words ".repeat(WORD_MAX);
        assert_eq!(without_long_words(&words), words);
        assert!(super::cut(&words).len() < WORD_MAX);
    }

    #[test]
    fn lines_break_between_words() {
        assert_eq!(wrap("one two three", 7), ["one two", "three"]);
        assert_eq!(wrap("a incomprehensible b", 5), ["a", "incomprehensible", "b"]);
        assert_eq!(wrap("", 5), [""]);
        assert_eq!(wrap("插件 检查 拼写", 9), ["插件 检查", "拼写"], "two columns each");
        assert_eq!(wrap("a  b", 5), ["a  b"], "what is quoted keeps its spaces");
    }

    #[test]
    fn times_have_few_digits() {
        let micros = std::time::Duration::from_micros;
        assert_eq!(took(micros(999)), "999 µs");
        assert_eq!(took(micros(1500)), "1.5 ms");
        assert_eq!(took(micros(2_340_000)), "2.3 s");
    }
}
