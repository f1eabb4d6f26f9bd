//! Manifests and the change log.

use std::path::Path;

use super::{Finding, Severity, TextFile};

const CHANGELOG: &str = "CHANGELOG.md";

pub(super) fn check(files: &[TextFile]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in files.iter().filter(|file| is_crate_manifest(&file.path)) {
        findings.extend(inherits_lints(file));
        findings.extend(inherits_version(file));
    }
    findings.extend(match files.iter().find(|file| file.path == Path::new(CHANGELOG)) {
        Some(file) => changelog(file),
        None => Some(Finding {
            path: CHANGELOG.into(),
            line: 0,
            message: "is missing".to_owned(),
            severity: Severity::Error,
        }),
    });
    findings
}

/// `crates/<name>/Cargo.toml`, and none below it.
fn is_crate_manifest(path: &Path) -> bool {
    path.starts_with("crates") && path.ends_with("Cargo.toml") && path.iter().count() == 3
}

fn inherits_lints(file: &TextFile) -> Option<Finding> {
    let inherits = entries(&file.text, "lints").any(|entry| entry == "workspace=true");
    (!inherits).then(|| {
        file.finding(0, "does not inherit the workspace's lints: [lints] workspace = true")
    })
}

fn inherits_version(file: &TextFile) -> Option<Finding> {
    let inherits = entries(&file.text, "package")
        .any(|entry| entry == "version.workspace=true" || entry == "version={workspace=true}");
    (!inherits).then(|| {
        file.finding(0, "does not inherit the workspace's version: version.workspace = true")
    })
}

/// The lines of a table without their white space. Enough for entries that stand in one line, as
/// those that are looked for always do.
fn entries<'a>(toml: &'a str, table: &'a str) -> impl Iterator<Item = String> + 'a {
    let mut within = false;
    toml.lines().filter_map(move |line| {
        let line = line.split('#').next().unwrap_or_default();
        let entry: String = line.split_whitespace().collect();
        if entry.starts_with('[') {
            within = entry == format!("[{table}]");
            return None;
        }
        within.then_some(entry)
    })
}

fn changelog(file: &TextFile) -> Option<Finding> {
    let has_section = file.text.lines().any(|line| line.trim_end() == "## [Unreleased]");
    (!has_section).then(|| file.finding(0, "has no section `## [Unreleased]`"))
}

#[cfg(test)]
mod tests {
    use super::super::file;
    use super::*;

    const GOOD: &str = "[package]\nversion.workspace = true\n\n[lints]\nworkspace = true # all\n";

    #[test]
    fn a_manifest_that_inherits_passes() {
        for text in
            [GOOD, &GOOD.replace("version.workspace = true", "version = { workspace = true }")]
        {
            assert_eq!(inherits_lints(&file("Cargo.toml", text)), None);
            assert_eq!(inherits_version(&file("Cargo.toml", text)), None);
        }
    }

    #[test]
    fn a_version_of_its_own_is_found() {
        let text = GOOD.replace("version.workspace = true", "version = \"1.0.0\"");
        assert!(inherits_version(&file("Cargo.toml", &text)).is_some());
        assert!(
            inherits_version(&file("Cargo.toml", "[other]\nversion.workspace = true")).is_some()
        );
    }

    #[test]
    fn lints_of_its_own_are_found() {
        assert!(
            inherits_lints(&file("Cargo.toml", &GOOD.replace("workspace = true #", "#"))).is_some()
        );
        assert!(inherits_lints(&file("Cargo.toml", "[lints.rust]\nworkspace = true")).is_some());
    }

    #[test]
    fn only_the_manifests_of_crates_are_checked() {
        assert!(is_crate_manifest(Path::new("crates/a/Cargo.toml")));
        assert!(!is_crate_manifest(Path::new("crates/a/fuzz/Cargo.toml")));
        assert!(!is_crate_manifest(Path::new("xtask/Cargo.toml")));
    }

    #[test]
    fn a_change_log_without_the_section_is_found() {
        assert!(changelog(&file(CHANGELOG, "# Changelog\n\n## [Unreleased]\n")).is_none());
        assert!(changelog(&file(CHANGELOG, "## [0.1.0]\nnot ## [Unreleased]")).is_some());
        assert_eq!(check(&[]).len(), 1);
    }
}
