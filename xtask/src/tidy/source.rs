//! Rules for Rust sources: `unsafe`, processes, sizes, and what must not be left behind.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use super::scan::{code_of, line_at, lines_without_tests, test_files, without_test_modules, words};
use super::{Finding, TextFile};
use crate::project::{Package, Project};
use crate::steps::EXCLUDED;

/// The lines that a source file without its tests may have, and from where it is worth a thought.
const MAX_LINES: usize = 800;
const MANY_LINES: usize = 600;

/// The packages whose every target forbids `unsafe`.
const FORBID_UNSAFE: [&str; 2] = ["pipeplug-wire", "pipeplug"];

/// The only published package that starts processes.
const SPAWNS: &str = "pipeplug-host";

// Put together here, so that this file does not hold what it looks for.
const UNFINISHED: [&str; 3] = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X")];
const FORBIDDEN_CODE: [&str; 5] = [
    concat!("to", "do!"),
    concat!("unimplement", "ed!"),
    concat!("#[ig", "nore"),
    concat!("#[al", "low("),
    concat!("#![al", "low("),
];

pub(super) fn check(project: &Project, files: &[TextFile]) -> anyhow::Result<Vec<Finding>> {
    let mut findings = Vec::new();
    for file in files.iter().filter(|file| is_source(&file.path)) {
        findings.extend(unfinished(file));
    }
    let rust: Vec<(&TextFile, String)> = files
        .iter()
        .filter(|file| file.has_extension("rs"))
        .map(|file| (file, code_of(&file.text)))
        .collect();
    let only_tests = test_only(&rust);
    for (file, code) in &rust {
        findings.extend(forbidden_code(file, code));
        if EXCLUDED.iter().any(|dir| file.path.starts_with(dir)) {
            continue;
        }
        findings.extend(misplaced_unsafe(file, code));
        findings.extend(unexplained_unsafe(file, code));
        let in_crate =
            file.path.starts_with("crates") && file.path.iter().any(|part| part == "src");
        if !in_crate || only_tests.iter().any(|tests| file.path.starts_with(tests)) {
            continue;
        }
        findings.extend(length(file, code));
        let package = owner(project, &file.path);
        if package.is_some_and(|package| package.is_published() && package.name != SPAWNS) {
            findings.extend(spawns(file, code));
        }
    }
    for name in FORBID_UNSAFE {
        // That a layer is missing is the finding of another check.
        for target in project.package(name).into_iter().flat_map(|package| &package.targets) {
            if target.kind.iter().any(|kind| matches!(kind.as_str(), "lib" | "bin")) {
                let text = fs::read_to_string(&target.src_path)
                    .with_context(|| format!("cannot read {}", target.src_path.display()))?;
                let file = TextFile { path: project.relative(&target.src_path).to_owned(), text };
                findings.extend(does_not_forbid_unsafe(&file));
            }
        }
    }
    Ok(findings)
}

/// What is written for a machine; prose may name what sources may not hold.
fn is_source(path: &Path) -> bool {
    let extension = path.extension().map(|it| it.to_string_lossy().into_owned());
    match extension.as_deref() {
        Some(extension) => {
            ["rs", "toml", "sh", "yml", "yaml", "py", "go", "c", "h"].contains(&extension)
        }
        None => path.starts_with(".ci"),
    }
}

fn owner<'a>(project: &'a Project, path: &Path) -> Option<&'a Package> {
    let path = project.root.join(path);
    project
        .packages
        .iter()
        .filter(|package| path.starts_with(package.dir()))
        .max_by_key(|it| it.dir().iter().count())
}

/// The files, and folders of files, whose module stands below a `#[cfg(test)]`.
fn test_only(rust: &[(&TextFile, String)]) -> BTreeSet<PathBuf> {
    let mut paths = BTreeSet::new();
    for (file, code) in rust {
        let stem = file.path.file_stem().unwrap_or_default();
        let mut dir = file.path.parent().unwrap_or(Path::new("")).to_owned();
        if !["lib", "main", "mod"].iter().any(|root| stem == *root) {
            dir.push(stem);
        }
        for name in test_files(code) {
            paths.insert(dir.join(format!("{name}.rs")));
            paths.insert(dir.join(name));
        }
    }
    paths
}

fn unfinished(file: &TextFile) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (index, line) in file.text.lines().enumerate() {
        for word in words(line).into_iter().filter(|word| UNFINISHED.contains(&word.text)) {
            findings.push(
                file.finding(
                    index + 1,
                    format!("{} is left: do it, or say why it is so", word.text),
                ),
            );
        }
    }
    findings
}

fn forbidden_code(file: &TextFile, code: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    for needle in FORBIDDEN_CODE {
        for (at, _) in code.match_indices(needle) {
            let within_word = code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_');
            if !within_word {
                let message = format!(
                    "`{needle}` is not used here; an exception is #[expect(…, reason = …)]"
                );
                findings.push(file.finding(line_at(code, at), message));
            }
        }
    }
    findings
}

fn is_sys(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name == "sys.rs") || path.iter().any(|part| part == "sys")
}

fn misplaced_unsafe(file: &TextFile, code: &str) -> Vec<Finding> {
    if is_sys(&file.path) {
        return Vec::new();
    }
    let found = words(code).into_iter().filter(|word| word.text == "unsafe");
    found
        .map(|word| {
            file.finding(
                line_at(code, word.start),
                "`unsafe` stands outside of a module called sys",
            )
        })
        .collect()
}

fn unexplained_unsafe(file: &TextFile, code: &str) -> Vec<Finding> {
    let words = words(code);
    let code_lines: Vec<&str> = code.lines().collect();
    let text_lines: Vec<&str> = file.text.lines().collect();
    let mut findings = Vec::new();
    for (index, word) in words.iter().enumerate().filter(|(_, word)| word.text == "unsafe") {
        let what = match words.get(index + 1).map(|next| next.text) {
            Some("{") => "block",
            Some("impl") => "impl",
            // A declaration: what it asks of its callers stands in its docs.
            _ => continue,
        };
        let line = line_at(code, word.start);
        if !is_explained(&text_lines, &code_lines, line - 1) {
            findings.push(
                file.finding(
                    line,
                    format!("unsafe {what} without a `// SAFETY:` comment above it"),
                ),
            );
        }
    }
    findings
}

/// Whether a SAFETY comment stands above the statement that goes on in that line (counted from 0).
fn is_explained(text: &[&str], code: &[&str], line: usize) -> bool {
    let says_why = |line: usize| text[line].contains("// SAFETY:");
    let mut in_comment = false;
    for above in (0..line).rev() {
        let code = code[above].trim();
        let is_comment = code.is_empty() && !text[above].trim().is_empty();
        if is_comment {
            if says_why(above) {
                return true;
            }
            in_comment = true;
            continue;
        }
        let goes_on = !code.is_empty() && !code.ends_with([';', '{', '}', ',']);
        let is_attribute = code.starts_with("#[") && code.ends_with(']');
        // A comment belongs to the statement below it, so what is above one is another statement.
        if in_comment || !(goes_on || is_attribute) {
            return false;
        }
    }
    false
}

fn does_not_forbid_unsafe(file: &TextFile) -> Option<Finding> {
    let code: String = code_of(&file.text).split_whitespace().collect();
    let missing = !code.contains("#![forbid(unsafe_code)]");
    missing.then(|| file.finding(0, "lacks `#![forbid(unsafe_code)]`"))
}

/// Names of `std::process::Command`, by path or in a `use` with braces.
fn spawns(file: &TextFile, code: &str) -> Vec<Finding> {
    let code = without_test_modules(code);
    let words = words(&code);
    let mut findings = Vec::new();
    for index in 0..words.len() {
        let text = |ahead: usize| words.get(index + ahead).map_or("", |word| word.text);
        if [text(0), text(1), text(2)] != ["process", ":", ":"] {
            continue;
        }
        let named = match text(3) {
            "Command" => words.get(index + 3),
            "{" => words[index + 4..]
                .iter()
                .take_while(|word| word.text != "}")
                .find(|word| word.text == "Command"),
            _ => None,
        };
        if let Some(word) = named {
            let message = format!("only {SPAWNS} may start processes with std::process::Command");
            findings.push(file.finding(line_at(&code, word.start), message));
        }
    }
    findings
}

fn length(file: &TextFile, code: &str) -> Option<Finding> {
    let lines = lines_without_tests(code);
    if lines > MAX_LINES {
        Some(file.finding(
            0,
            format!("{lines} lines without tests, at most {MAX_LINES} may be in one file"),
        ))
    } else if lines > MANY_LINES {
        Some(file.warning(0, format!("{lines} lines without tests; over {MAX_LINES} is an error")))
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Severity, file, lines};
    use super::*;

    fn found(check: fn(&TextFile, &str) -> Vec<Finding>, source: &str) -> Vec<usize> {
        let file = file("crates/x/src/a.rs", source);
        lines(&check(&file, &code_of(source)))
    }

    #[test]
    fn what_is_unfinished_is_found_as_a_word() {
        for needle in UNFINISHED {
            assert_eq!(lines(&unfinished(&file("a.rs", &format!("x\n// {needle}: later")))), [2]);
            assert!(unfinished(&file("a.rs", &format!("mktemp {needle}Y"))).is_empty());
        }
    }

    #[test]
    fn forbidden_code_is_found_but_not_in_comments_and_strings() {
        for needle in FORBIDDEN_CODE {
            assert_eq!(
                found(forbidden_code, &format!("fn a() {{}}\n    {needle}")),
                [2],
                "{needle}"
            );
            assert!(found(forbidden_code, &format!("// {needle}\n\"{needle}\"")).is_empty());
        }
        assert!(found(forbidden_code, concat!("not_to", "do!()")).is_empty());
    }

    #[test]
    fn unsafe_outside_of_sys_is_found() {
        assert_eq!(found(misplaced_unsafe, "fn a() {\n    unsafe { b() }\n}"), [2]);
        assert_eq!(found(misplaced_unsafe, "unsafe impl Send for A {}"), [1]);
        assert!(
            found(misplaced_unsafe, "#![forbid(unsafe_code)] // unsafe\nlet a = \"unsafe\";")
                .is_empty()
        );
    }

    #[test]
    fn unsafe_in_sys_may_be() {
        for path in
            ["crates/x/src/sys.rs", "crates/x/src/sys/linux.rs", "crates/x/src/a/sys/mod.rs"]
        {
            assert!(misplaced_unsafe(&file(path, ""), "unsafe {}").is_empty(), "{path}");
        }
        assert_eq!(misplaced_unsafe(&file("crates/x/src/system.rs", ""), "unsafe {}").len(), 1);
    }

    #[test]
    fn unsafe_without_a_reason_is_found() {
        assert_eq!(found(unexplained_unsafe, "fn a() {\n    unsafe { b() }\n}"), [2]);
        assert_eq!(
            found(unexplained_unsafe, "// SAFETY: yes\nlet a = 1;\nlet b = unsafe { c() };"),
            [3]
        );
        assert_eq!(found(unexplained_unsafe, "// because\nunsafe impl Send for A {}"), [2]);
        assert_eq!(
            found(unexplained_unsafe, "// SAFETY: of another\nfoo(1,\n// x\nunsafe { c() });"),
            [4]
        );
    }

    #[test]
    fn a_reason_above_the_statement_counts() {
        for source in [
            "// SAFETY: yes\nunsafe { b() }",
            "// SAFETY: yes,\n// and more\nlet a =\n    unsafe { b() };",
            "// SAFETY: yes\n#[cfg(unix)]\nunsafe impl Send for A {}",
            "unsafe fn a() {}",
            "unsafe extern \"C\" fn a() {}",
        ] {
            assert!(found(unexplained_unsafe, source).is_empty(), "{source}");
        }
    }

    #[test]
    fn a_crate_that_does_not_forbid_unsafe_is_found() {
        assert!(
            does_not_forbid_unsafe(&file("lib.rs", "//! x\n#![forbid( unsafe_code )]")).is_none()
        );
        assert!(does_not_forbid_unsafe(&file("lib.rs", "// #![forbid(unsafe_code)]")).is_some());
    }

    #[test]
    fn a_process_is_found_however_it_is_named() {
        assert_eq!(found(spawns, "use std::process::Command;"), [1]);
        assert_eq!(found(spawns, "\nlet a = process::Command::new(b);"), [2]);
        assert_eq!(found(spawns, "use std::process::{\n    Child, Command,\n};"), [2]);
        assert_eq!(found(spawns, "use std::{io, process::{Command}};"), [1]);
    }

    #[test]
    fn other_commands_and_those_of_tests_pass() {
        for source in [
            "use std::process::ExitCode;",
            "use clap::Command;",
            "use std::process::{Child}; use x::Command;",
            "// std::process::Command",
            "#[cfg(test)]\nmod tests {\n    use std::process::Command;\n}",
        ] {
            assert!(found(spawns, source).is_empty(), "{source}");
        }
    }

    #[test]
    fn long_files_are_found_without_their_tests() {
        let severity =
            |source: &str| length(&file("a.rs", source), source).map(|finding| finding.severity);
        assert_eq!(severity(&"a;\n".repeat(MAX_LINES + 1)), Some(Severity::Error));
        assert_eq!(severity(&"a;\n".repeat(MAX_LINES)), Some(Severity::Warning));
        assert_eq!(severity(&"a;\n".repeat(MANY_LINES)), None);
        assert_eq!(
            severity(&format!("#[cfg(test)]\nmod tests {{\n{}}}\n", "a;\n".repeat(MAX_LINES))),
            None
        );
    }

    #[test]
    fn files_of_tests_are_known_by_who_declares_them() {
        let (root, child) = (file("src/lib.rs", ""), file("src/a.rs", ""));
        let declares = "#[cfg(test)] mod tests;".to_owned();
        let paths = test_only(&[(&root, declares.clone()), (&child, declares)]);
        for path in ["src/tests.rs", "src/a/tests.rs", "src/tests"] {
            assert!(paths.contains(Path::new(path)), "{path}");
        }
        assert!(!paths.contains(Path::new("src/a.rs")));
    }
}
