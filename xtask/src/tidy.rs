//! `cargo xtask tidy`: the rules of the project that neither rustc nor clippy can check.
//!
//! Each check is a function from text (or from what cargo says of the packages) to findings; this
//! file only reads the files and hands them out.

mod docs;
mod layers;
mod manifest;
mod private;
mod scan;
mod source;

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use clap::Args;

use crate::project::Project;

/// Check the rules that rustc and clippy do not know.
#[derive(Debug, Args)]
#[command(after_help = RULES)]
pub(crate) struct TidyArgs {}

const RULES: &str = "\
Rules:
  layers      wire <- net <- {host, guest} <- the CLI, guest <- testkit; only net names mio; wire depends on nothing
  unsafe      stands only in modules called sys, each block and impl below a SAFETY comment
  processes   only pipeplug-host starts them
  size        no source file over 800 lines without its tests (a warning from 600)
  marks       nothing is left to do, ignored or allowed
  privacy     no path of one machine, no host of a package registry
  documents   relative links and paths lead somewhere, README's Rust is compiled
  manifests   lints and version come from the workspace; CHANGELOG.md has an Unreleased section";

/// Something that a check found.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Finding {
    path: PathBuf,
    /// Counted from 1; 0 for the file as a whole.
    line: usize,
    message: String,
    severity: Severity,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Severity {
    Warning,
    Error,
}

/// A file of the repository, by its path from the root.
#[derive(Debug)]
struct TextFile {
    path: PathBuf,
    text: String,
}

pub(crate) fn run(project: &Project, _: &TidyArgs) -> anyhow::Result<()> {
    check(project)
}

/// Prints the findings.
///
/// # Errors
/// One of them is an error, or a file cannot be read.
pub(crate) fn check(project: &Project) -> anyhow::Result<()> {
    let files = read_tree(&project.root)?;
    let findings = find(project, &files)?;
    for finding in &findings {
        println!("{finding}");
    }
    let errors = findings.iter().filter(|finding| finding.severity == Severity::Error).count();
    let warnings = findings.len() - errors;
    println!("tidy: {} files, {errors} errors, {warnings} warnings", files.len());
    if errors > 0 {
        bail!("tidy found {errors} errors");
    }
    Ok(())
}

fn find(project: &Project, files: &[TextFile]) -> anyhow::Result<Vec<Finding>> {
    let mut findings = layers::check(project);
    findings.extend(source::check(project, files)?);
    findings.extend(private::check(files));
    findings.extend(manifest::check(files));
    findings.extend(docs::check(&project.root, files));
    findings.sort_by(|a, b| (&a.path, a.line).cmp(&(&b.path, b.line)));
    Ok(findings)
}

/// Every text file below the root, but for what is built.
///
/// Not what git lists, so that it works in an unpacked archive too.
fn read_tree(root: &Path) -> anyhow::Result<Vec<TextFile>> {
    let mut files = Vec::new();
    let mut dirs = vec![root.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(&dir).with_context(|| format!("cannot list {}", dir.display()))? {
            let entry = entry.with_context(|| format!("cannot list {}", dir.display()))?;
            let path = entry.path();
            let kind =
                entry.file_type().with_context(|| format!("cannot look at {}", path.display()))?;
            if kind.is_dir() && !is_generated(&path) {
                dirs.push(path);
            } else if kind.is_file() {
                let bytes =
                    fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
                // What is not UTF-8 is a picture or a fuzz seed.
                if let Ok(text) = String::from_utf8(bytes) {
                    files.push(TextFile {
                        path: path.strip_prefix(root).unwrap_or(&path).to_owned(),
                        text,
                    });
                }
            }
        }
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(files)
}

fn is_generated(dir: &Path) -> bool {
    let name = |path: &Path| {
        path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
    };
    match name(dir).as_str() {
        ".git" | "target" => true,
        "artifacts" | "corpus" | "coverage" => {
            dir.parent().is_some_and(|parent| name(parent) == "fuzz")
        }
        _ => false,
    }
}

impl TextFile {
    fn has_extension(&self, extension: &str) -> bool {
        self.path.extension().is_some_and(|it| it == extension)
    }

    fn finding(&self, line: usize, message: impl Into<String>) -> Finding {
        Finding {
            path: self.path.clone(),
            line,
            message: message.into(),
            severity: Severity::Error,
        }
    }

    fn warning(&self, line: usize, message: impl Into<String>) -> Finding {
        Finding { severity: Severity::Warning, ..self.finding(line, message) }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = match self.severity {
            Severity::Warning => "warning",
            Severity::Error => "error",
        };
        write!(f, "{severity}: {}", self.path.display())?;
        if self.line > 0 {
            write!(f, ":{}", self.line)?;
        }
        write!(f, ": {}", self.message)
    }
}

/// A file made of the text, for the tests of the checks.
#[cfg(test)]
fn file(path: &str, text: &str) -> TextFile {
    TextFile { path: PathBuf::from(path), text: text.to_owned() }
}

/// The lines of the findings, for the tests of the checks.
#[cfg(test)]
fn lines(findings: &[Finding]) -> Vec<usize> {
    findings.iter().map(|finding| finding.line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_is_shown_as_editors_understand_it() {
        let file = file("a/b.rs", "");
        assert_eq!(file.finding(3, "it is wrong").to_string(), "error: a/b.rs:3: it is wrong");
        assert_eq!(file.warning(0, "it is long").to_string(), "warning: a/b.rs: it is long");
    }

    #[test]
    fn only_what_is_built_is_left_out() {
        assert!(is_generated(Path::new("x/target")));
        assert!(is_generated(Path::new("wire/fuzz/corpus")));
        assert!(!is_generated(Path::new("docs/coverage")));
        assert!(!is_generated(Path::new(".github")));
    }
}
