//! Sections of a manual page from the text that ends a help: paragraphs, and blocks with a heading.

use clap_mangen::roff::{Roff, bold, roman};

/// Width of the terminal that lines have to fit in.
const COLUMNS: usize = 80;
/// Indentation of text in a page: man(7).
const INDENT: usize = 7;

/// Makes the sections. A block is `Heading:` and indented lines: examples, or terms that are explained.
pub(super) fn sections(help: &str) -> Roff {
    let mut page = Roff::new();
    let blocks: Vec<&str> =
        help.split("\n\n").map(str::trim_end).filter(|it| !it.is_empty()).collect();
    let (headed, paragraphs): (Vec<_>, Vec<_>) =
        blocks.into_iter().partition(|it| heading(it).is_some());
    for (index, paragraph) in paragraphs.iter().enumerate() {
        if index == 0 {
            page.control("SH", ["NOTES"]);
        }
        page.control("PP", []);
        if paragraph.lines().any(|line| line.starts_with(' ')) {
            literal(&mut page, paragraph.lines());
        } else {
            page.text([roman(joined(paragraph.lines()))]);
        }
    }
    for block in headed {
        let (title, lines) = block.split_once('\n').unwrap_or((block, ""));
        let title = title.trim_end_matches(':').to_uppercase();
        page.control("SH", [title.as_str()]);
        match terms(lines) {
            Some(terms) => {
                for (term, text) in terms {
                    page.control("TP", ["8"]);
                    page.text([bold(term)]);
                    page.text([roman(text)]);
                }
            }
            None => literal(&mut page, lines.lines()),
        }
    }
    page
}

/// Heading of a block, if it has one.
fn heading(block: &str) -> Option<&str> {
    let (first, rest) = block.split_once('\n')?;
    let title = first.strip_suffix(':')?;
    (title.len() < 30 && rest.lines().all(|line| line.starts_with("  "))).then_some(title)
}

/// Terms and their explanations, if the lines are a table of them. Lines of an explanation after its
/// first one are indented as far as that.
fn terms(lines: &str) -> Option<Vec<(&str, String)>> {
    let mut terms: Vec<(&str, String)> = Vec::new();
    for line in lines.lines() {
        let own = line.strip_prefix("  ")?;
        if own.starts_with(' ') {
            let (_, text) = terms.last_mut()?;
            text.push(' ');
            text.push_str(own.trim());
        } else {
            let (term, text) = own.split_once("  ")?;
            terms.push((term, text.trim().to_owned()));
        }
    }
    Some(terms)
}

/// Lines that stay as they are, further to the left if a terminal of 80 columns needs it.
fn literal<'a>(page: &mut Roff, lines: impl Iterator<Item = &'a str>) {
    let lines: Vec<_> = lines.map(|line| line.strip_prefix("  ").unwrap_or(line)).collect();
    let widest = lines.iter().map(|line| line.chars().count()).max().unwrap_or(0);
    let left = widest.saturating_sub(COLUMNS - INDENT).min(INDENT);
    page.control("nf", []);
    page.control("in", [format!("-{left}n").as_str()]);
    for line in lines {
        page.text([roman(line)]);
    }
    page.control("in", [format!("+{left}n").as_str()]);
    page.control("fi", []);
}

fn joined<'a>(lines: impl Iterator<Item = &'a str>) -> String {
    lines.map(str::trim).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn examples_stay_lines_and_terms_are_explained() {
        let help = "Text that\ngoes on.\n\nExamples:\n  pipeplug list\n  pipeplug rm x\n\nExit status:\n  0    \
                    success\n  124  it took\n       too long";
        let page = sections(help).render();
        assert!(page.contains(".SH NOTES\n.PP\nText that goes on.\n"), "{page}");
        assert!(
            page.contains(
                ".SH EXAMPLES\n.nf\n.in -0n\npipeplug list\npipeplug rm x\n.in +0n\n.fi\n"
            ),
            "{page}"
        );
        assert!(page.contains(".TP 8\n\\fB124\\fR\nit took too long\n"), "{page}");
    }
}
