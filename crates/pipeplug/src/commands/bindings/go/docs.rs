//! Comments in the form that gofmt leaves as they are.

use std::fmt::Write as _;

use super::super::names::wrapped;

/// Characters of a line of docs.
const WIDTH: usize = 96;

/// Lines of a comment within a declaration, of which gofmt changes the indent only.
pub(super) fn inner(docs: &str, indent: &str) -> Vec<String> {
    lines(docs).iter().map(|line| format!("{indent}// {line}").trim_end().to_owned()).collect()
}

/// The comment of a declaration. gofmt moves lists, links and indented lines there as its own markup
/// wants them: a paragraph that has such lines becomes a block that is shown as it is.
pub(super) fn outer(docs: &str) -> String {
    let mut lines = lines(docs);
    let mut paragraphs: Vec<&mut [String]> =
        lines.split_mut(|line| line.trim().is_empty()).filter(|it| !it.is_empty()).collect();
    // Lists are plain text, as long as no line of them is indented.
    for paragraph in paragraphs.iter_mut().filter(|it| begins_list(&it[0])) {
        for line in paragraph.iter_mut() {
            *line = line.trim_start().to_owned();
        }
    }
    let paragraphs: Vec<&[String]> = paragraphs.into_iter().map(|it| &*it).collect();
    let mut text = String::new();
    let mut at = 0;
    while at < paragraphs.len() {
        if at > 0 {
            text.push_str("//\n");
        }
        let rest = &paragraphs[at..];
        // Blocks that follow one another are one.
        let blocks = rest.iter().take_while(|it| it.iter().any(|line| is_special(line))).count();
        match (blocks, paragraphs[at]) {
            (0, [line]) if at > 0 && at + 1 < paragraphs.len() && is_heading(line) => {
                let _ = writeln!(text, "// # {}", plain(line));
            }
            (0, paragraph) => {
                for line in paragraph {
                    let _ = writeln!(text, "// {}", plain(line));
                }
            }
            (blocks, _) => block(&rest[..blocks], &mut text),
        }
        at += blocks.max(1);
    }
    text
}

/// Lines, of which none is a condition for the compiler.
fn lines(docs: &str) -> Vec<String> {
    let mut lines = wrapped(docs, WIDTH);
    for line in &mut lines {
        let start = line.len() - line.trim_start().len();
        if line[start..].starts_with("+build") {
            line.insert(start, '\\');
        }
    }
    lines
}

fn block(paragraphs: &[&[String]], text: &mut String) {
    let indent = |line: &String| line.len() - line.trim_start_matches(' ').len();
    let common = paragraphs.iter().copied().flatten().map(indent).min().unwrap_or(0);
    for (index, paragraph) in paragraphs.iter().enumerate() {
        if index > 0 {
            text.push_str("//\n");
        }
        for line in *paragraph {
            let _ = writeln!(text, "//\t{}", &line[common..]);
        }
    }
}

/// True if the line is no plain text to gofmt.
fn is_special(line: &str) -> bool {
    line.starts_with(|c: char| c.is_whitespace() || "#[".contains(c)) || line.contains("```")
}

fn begins_list(line: &str) -> bool {
    line.trim_start().starts_with(|c: char| c.is_ascii_digit() || "-*+•".contains(c))
}

/// True if gofmt may take the line for a heading, when it stands alone.
fn is_heading(line: &str) -> bool {
    line.starts_with(char::is_uppercase) && line.ends_with(char::is_alphanumeric)
}

/// gofmt has two quotes of a kind as typographic ones.
fn plain(line: &str) -> String {
    line.replace("''", "\"").replace("``", "\"")
}
