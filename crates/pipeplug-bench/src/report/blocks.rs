//! The parts of a document that are written by a program, in the midst of what people write.

use std::fmt::Write as _;

use anyhow::{Context as _, Result, bail, ensure};

const BEGIN: &str = "<!-- bench:";
const END: &str = "<!-- bench:end -->";

/// Replaces what stands in each block by what `content` says of its name.
pub(super) fn fill(text: &str, content: impl Fn(&str) -> Option<String>) -> Result<String> {
    let mut filled = String::with_capacity(text.len());
    let mut block: Option<&str> = None;
    for (index, line) in text.lines().enumerate() {
        let number = index + 1;
        if line.trim() == END {
            ensure!(block.take().is_some(), "line {number}: a block ends that did not begin");
        } else if let Some(name) = line.trim().strip_prefix(BEGIN) {
            let name = name
                .strip_suffix("-->")
                .with_context(|| format!("line {number}: no `-->`"))?
                .trim();
            if let Some(open) = block {
                bail!("line {number}: block {name} begins within block {open}");
            }
            let content = content(name)
                .with_context(|| format!("line {number}: no block is called {name}"))?;
            writeln!(filled, "{line}")?;
            if !content.trim_end().is_empty() {
                writeln!(filled, "{}", content.trim_end())?;
            }
            block = Some(name);
            continue;
        } else if block.is_some() {
            continue;
        }
        filled.push_str(line);
        filled.push('\n');
    }
    if let Some(open) = block {
        bail!("block {open} does not end: `{END}` is missing");
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# Title\n\n<!-- bench:a -->\nold\n<!-- bench:end -->\n\nby hand\n";

    fn named(name: &str) -> Option<String> {
        (name == "a").then(|| "new\n".to_owned())
    }

    #[test]
    fn only_what_is_in_blocks_changes() {
        let filled = fill(TEXT, named).unwrap();
        assert_eq!(filled, TEXT.replace("old", "new"));
        assert_eq!(fill(&filled, named).unwrap(), filled);
    }

    #[test]
    fn blocks_that_are_wrong_are_errors_with_their_line() {
        for (text, expected) in [
            ("x\n<!-- bench:b -->\n<!-- bench:end -->", "line 2: no block is called b"),
            ("<!-- bench:a -->\n<!-- bench:a -->", "line 2: block a begins within block a"),
            ("<!-- bench:a -->\n", "block a does not end"),
            ("<!-- bench:end -->", "line 1: a block ends"),
        ] {
            let error = fill(text, named).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
