//! `cargo xtask tidy`: the rules of the project that no tool checks. The others are lints (in
//! `Cargo.toml` and `clippy.toml`) and rules for dependencies (in `deny.toml`).
//!
//! Each check is a function from text to findings. None of them parses Rust.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use clap::Args;

use crate::project::Project;

mod docs;
#[cfg(test)]
mod tests;

/// Check the rules that no lint knows.
#[derive(Debug, Args)]
#[command(after_help = RULES)]
pub(crate) struct TidyArgs {}

const RULES: &str = "\
Rules:
  unsafe      only modules called sys lift the ban on it
  size        no source file over 600 lines without its tests
  marks       nothing is left to do, no test is ignored
  privacy     no path of one machine, no host of a package registry
  documents   relative links and paths lead somewhere
  manifests   each package takes its lints from the workspace";

/// The lines that a source file may have without its tests.
const MAX_LINES: usize = 600;

// In two parts, so that this file does not hold what it looks for.
const UNFINISHED: [&str; 3] = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X")];
const ROOTS: [&str; 3] = [concat!("/wo", "rk"), concat!("/ro", "ot"), concat!("/ho", "me")];
const REGISTRIES: [&str; 8] = [
    concat!("crates", ".io"),
    concat!("py", "pi.org"),
    concat!("python", "hosted.org"),
    concat!("npm", "js."),
    concat!("ruby", "gems.org"),
    concat!("proxy.go", "lang.org"),
    concat!("deb.deb", "ian.org"),
    concat!("repo.mav", "en"),
];
/// The only source that lock files may name; a mirror would be that of one machine. cargo-deny
/// checks the workspace's, not those of the packages that it excludes.
const INDEX: &str = concat!("https://github.com/rust-lang/crates", ".io-index");

/// A violation of a rule: the path, the line (counted from 1, or 0 for the whole file), the rule.
type Finding = (PathBuf, usize, String);

/// A text file, by its path from the root.
#[derive(Debug)]
struct TextFile {
    path: PathBuf,
    text: String,
}

/// Prints the findings.
///
/// # Errors
/// One of them is an error, or a file cannot be read.
pub(crate) fn check(project: &Project) -> anyhow::Result<()> {
    let mut files = Vec::new();
    read_tree(&project.root, &project.root, &mut files)?;
    files.sort_by(|a, b| a.path.cmp(&b.path));
    let mut findings: Vec<Finding> = files.iter().flat_map(findings_in).collect();
    findings.extend(docs::check(&project.root, &files));
    for (path, line, message) in &findings {
        println!("error: {}:{line}: {message}", path.display());
    }
    println!("tidy: {} files, {} errors", files.len(), findings.len());
    if !findings.is_empty() {
        bail!("tidy found {} errors", findings.len());
    }
    Ok(())
}

fn findings_in(file: &TextFile) -> Vec<Finding> {
    let mut findings = privacy(file);
    if file.is_a("rs") {
        findings.extend(lifted_unsafe(file));
        findings.extend(length(file));
    }
    // A document may name the marks.
    if !file.is_a("md") {
        findings.extend(marks(file));
    }
    findings.extend(own_lints(file));
    findings
}

/// Reads each text file below `dir` except for what is built. Git's index is no help: the check has
/// to work in an unpacked archive, too.
fn read_tree(root: &Path, dir: &Path, files: &mut Vec<TextFile>) -> anyhow::Result<()> {
    for entry in fs::read_dir(dir).with_context(|| format!("cannot list {}", dir.display()))? {
        let path = entry.with_context(|| format!("cannot list {}", dir.display()))?.path();
        let relative = path.strip_prefix(root).unwrap_or(&path);
        if is_generated(relative) {
            continue;
        }
        if path.is_dir() && !path.is_symlink() {
            read_tree(root, &path, files)?;
        } else if path.is_file() {
            let bytes =
                fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
            // Pictures and fuzz seeds are not UTF-8.
            if let Ok(text) = String::from_utf8(bytes) {
                files.push(TextFile { path: relative.to_owned(), text });
            }
        }
    }
    Ok(())
}

/// Git has a file in place of its folder in a worktree.
fn is_generated(dir: &Path) -> bool {
    [
        ".git",
        "target",
        "fuzz/artifacts",
        "fuzz/corpus",
        "fuzz/coverage",
        "node_modules",
        "__pycache__",
        "sdk/c/build",
        "sdk/node/dist",
        "sdk/python/dist",
    ]
    .iter()
    .any(|generated| dir.ends_with(generated))
}

/// Attributes that allow `unsafe_code`, which the workspace denies, above anything but `mod sys`.
fn lifted_unsafe(file: &TextFile) -> Vec<Finding> {
    let lifts = |line: &str| {
        let line = line.trim_start();
        line.contains("unsafe_code") && !line.starts_with("//") && !line.contains("forbid(")
    };
    let lines: Vec<&str> = file.text.lines().collect();
    (0..lines.len())
        .filter(|&at| lifts(lines[at]) && !file.path.starts_with("xtask/src/tidy"))
        .filter(|&at| !lines[at + 1..].first().is_some_and(|next| next.ends_with("mod sys;")))
        .map(|at| file.error(at + 1, "only a module called sys may hold `unsafe`".to_owned()))
        .collect()
}

/// Lines without the tests, which clippy wants at the end of a file (`items_after_test_module`).
fn length(file: &TextFile) -> Option<Finding> {
    let lines: Vec<&str> = file.text.lines().collect();
    let tests = lines.windows(2).position(|two| two[0] == "#[cfg(test)]" && two[1].ends_with(" {"));
    let lines = tests.unwrap_or(lines.len());
    let is_source = file.path.iter().any(|part| part == "src");
    let message = || format!("{lines} lines without tests, {MAX_LINES} is the limit: split it");
    (is_source && lines > MAX_LINES).then(|| file.error(0, message()))
}

fn marks(file: &TextFile) -> Vec<Finding> {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    let left =
        |line: &str| line.split(|c| !is_part(c)).find(|word| UNFINISHED.contains(word)).is_some();
    file.lines_that(left, "is unfinished: do it, or say why it is so")
        .chain(file.lines_that(
            |line| line.trim_start().starts_with("#[ignore"),
            "ignores a test: have it skip itself and say so, or remove it",
        ))
        .collect()
}

fn privacy(file: &TextFile) -> Vec<Finding> {
    let is_lock = file.path.ends_with("Cargo.lock");
    let elsewhere = |line: &str| is_lock && line.starts_with("source") && !line.contains(INDEX);
    let machine = |line: &str| ROOTS.iter().any(|root| has_path(line, root));
    let registry = |line: &str| {
        let line = line.replace(INDEX, "");
        REGISTRIES.iter().any(|host| line.contains(host))
    };
    file.lines_that(elsewhere, "locks a package to a source of its own")
        .chain(file.lines_that(machine, "names a path that one machine has"))
        .chain(file.lines_that(registry, "names a package registry"))
        .collect()
}

/// Looks for the root where a path begins and where the name ends with it.
fn has_path(line: &str, root: &str) -> bool {
    let within_path = |c: char| c.is_alphanumeric() || "_-./}~".contains(c);
    let within_name = |c: char| c.is_alphanumeric() || "_-.".contains(c);
    line.match_indices(root).any(|(at, _)| {
        !line[..at].ends_with(within_path) && !line[at + root.len()..].starts_with(within_name)
    })
}

/// Manifests of the workspace without its lints.
fn own_lints(file: &TextFile) -> Option<Finding> {
    let is_member = file.path.ends_with("Cargo.toml")
        && (file.path.starts_with("xtask") || file.path.iter().count() == 3);
    let inherits = file.text.contains("[lints]\nworkspace = true\n");
    (is_member && !inherits).then(|| file.error(0, "lacks `[lints] workspace = true`".to_owned()))
}

impl TextFile {
    fn is_a(&self, extension: &str) -> bool {
        self.path.extension().is_some_and(|it| it == extension)
    }

    fn error(&self, line: usize, message: String) -> Finding {
        (self.path.clone(), line, message)
    }

    fn lines_that(
        &self,
        is_wrong: impl Fn(&str) -> bool,
        message: &str,
    ) -> impl Iterator<Item = Finding> {
        self.text
            .lines()
            .enumerate()
            .filter(move |(_, line)| is_wrong(line))
            .map(|(index, _)| self.error(index + 1, message.to_owned()))
    }
}
