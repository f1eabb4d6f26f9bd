//! Links and paths in documents lead somewhere.

use std::path::Path;

use super::{Finding, TextFile};

/// The folders that paths in code spans begin with.
const IN_TREE: [&str; 6] = ["crates/", "samples/", "xtask/", "docs/", ".github/", ".ci/"];

pub(super) fn check(root: &Path, files: &[TextFile]) -> Vec<Finding> {
    let exists = |path: &Path| root.join(path).exists();
    let documents = files.iter().filter(|file| file.is_a("md"));
    documents.flat_map(|file| dead(file, exists)).collect()
}

/// The lines that are prose, with their numbers: not those between fences.
fn prose(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut fenced = false;
    text.lines().enumerate().filter_map(move |(index, line)| {
        let fence = line.trim_start().starts_with("```");
        fenced ^= fence;
        (!fenced && !fence).then_some((index + 1, line))
    })
}

/// Targets of links, `[text](target)` and `[label]: target`, that are no file from the document's
/// folder; and paths in code spans, as in `crates/x/src/lib.rs`, that are none from the root.
pub(super) fn dead(file: &TextFile, exists: impl Fn(&Path) -> bool) -> Vec<Finding> {
    let dir = file.path.parent().unwrap_or(Path::new(""));
    let mut findings = Vec::new();
    for (number, line) in prose(&file.text) {
        let (text, code): (Vec<_>, Vec<_>) =
            line.split('`').enumerate().partition(|(index, _)| index % 2 == 0);
        let text = text.into_iter().map(|(_, text)| text).collect::<Vec<_>>().join("``");
        let links = inline_targets(&text).chain(label_target(&text));
        let is_dead = |target: &&str| {
            let path = target.split(['#', '?']).next().unwrap_or_default();
            // An empty path is a heading of the same document.
            let is_elsewhere = target.contains("://") || target.starts_with("mailto:");
            !path.is_empty() && !is_elsewhere && (path.starts_with('/') || !exists(&dir.join(path)))
        };
        findings.extend(links.filter(is_dead).map(|target| {
            file.error(number, format!("links to {target}, which is no file from here"))
        }));
        let is_gone = |span: &&str| {
            let is_pattern = span.contains(|c: char| c.is_whitespace() || "*<>{}$…".contains(c));
            let is_path = IN_TREE.iter().any(|dir| span.starts_with(dir)) && !is_pattern;
            is_path && !exists(Path::new(span.split(':').next().unwrap_or(span)))
        };
        findings.extend(code.into_iter().map(|(_, span)| span).filter(is_gone).map(|span| {
            file.error(number, format!("names `{span}`, which is no file of the project"))
        }));
    }
    findings
}

fn inline_targets(line: &str) -> impl Iterator<Item = &str> {
    line.match_indices("](").filter_map(|(at, open)| {
        let rest = &line[at + open.len()..];
        let target = &rest[..rest.find(')')?];
        // A title may follow the target.
        target.split_whitespace().next().map(|target| target.trim_matches(['<', '>']))
    })
}

fn label_target(line: &str) -> Option<&str> {
    let (label, target) = line.trim_start().strip_prefix('[')?.split_once("]: ")?;
    if label.contains(']') {
        return None;
    }
    target.split_whitespace().next()
}
