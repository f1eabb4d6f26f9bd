//! Links and paths in documents lead somewhere, and the README's Rust is compiled.

use std::path::Path;

use super::{Finding, TextFile};

const README: &str = "README.md";

pub(super) fn check(root: &Path, files: &[TextFile]) -> Vec<Finding> {
    let exists = |path: &Path| root.join(path).exists();
    let mut findings = Vec::new();
    for file in files.iter().filter(|file| file.is_a("md")) {
        findings.extend(dead_links(file, exists));
        findings.extend(dead_paths(file, exists));
    }
    if let Some(readme) = files.iter().find(|file| file.path == Path::new(README)) {
        let compiled = files.iter().any(|file| file.is_a("rs") && includes_readme(&file.text));
        findings.extend(uncompiled_rust(readme, compiled));
    }
    findings
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

/// Targets of `[text](target)` and `[label]: target` that are no file, from the document's folder.
pub(super) fn dead_links(file: &TextFile, exists: impl Fn(&Path) -> bool) -> Vec<Finding> {
    let dir = file.path.parent().unwrap_or(Path::new(""));
    let mut findings = Vec::new();
    for (number, line) in prose(&file.text) {
        let line = without_code(line);
        for target in inline_targets(&line).chain(label_target(&line)) {
            let path = target.split(['#', '?']).next().unwrap_or_default();
            // An empty path is a heading of the same document.
            if path.is_empty() || target.contains("://") || target.starts_with("mailto:") {
                continue;
            }
            if path.starts_with('/') || !exists(&dir.join(path)) {
                let message = format!("links to {target}, which is no file from here");
                findings.push(file.error(number, message));
            }
        }
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

/// Paths from the root in code spans, as in `crates/x/src/lib.rs`, that are no file.
pub(super) fn dead_paths(file: &TextFile, exists: impl Fn(&Path) -> bool) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (number, line) in prose(&file.text) {
        for span in code_spans(line) {
            let in_tree = ["crates/", "samples/", "xtask/", "docs/", ".github/", ".ci/"];
            let is_path = in_tree.iter().any(|dir| span.starts_with(dir));
            let is_pattern = span.contains(|c: char| c.is_whitespace() || "*<>{}$…".contains(c));
            if is_path && !is_pattern && !exists(Path::new(span.split(':').next().unwrap_or(span)))
            {
                let message = format!("names `{span}`, which is no file of the project");
                findings.push(file.error(number, message));
            }
        }
    }
    findings
}

fn code_spans(line: &str) -> impl Iterator<Item = &str> {
    line.split('`').skip(1).step_by(2)
}

fn without_code(line: &str) -> String {
    line.split('`').step_by(2).collect::<Vec<_>>().join("``")
}

/// Rust in the README that no crate compiles as its doctests.
pub(super) fn uncompiled_rust(readme: &TextFile, compiled: bool) -> Option<Finding> {
    let fence = readme.text.lines().position(|line| line.trim_start().starts_with("```rust"))?;
    let message = format!(
        "holds Rust, but no crate has it as doctests: #[doc = include_str!(\"…/{README}\")]"
    );
    (!compiled).then(|| readme.error(fence + 1, message))
}

fn includes_readme(source: &str) -> bool {
    source.lines().any(|line| {
        let line = line.trim_start();
        !line.starts_with("//")
            && line.contains("include_str!(\"../")
            && line.contains("/README.md\")")
    })
}
