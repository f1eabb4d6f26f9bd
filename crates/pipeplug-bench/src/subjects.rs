//! Who is measured.

use std::path::PathBuf;

use anyhow::{Context as _, Result};

/// Whose it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A limit: nothing but the system.
    Raw,
    Ours,
    Peer,
}

/// A program that understands orders.
#[derive(Debug, Clone)]
pub(crate) struct Subject {
    pub(crate) name: String,
    pub(crate) kind: Kind,
    pub(crate) program: PathBuf,
    pub(crate) args: Vec<String>,
}

const RAW: [&str; 7] =
    ["raw-block", "raw-spin", "raw-epoll", "raw-stream", "raw-pipe-1m", "raw-socket", "raw-static"];
const OURS: [&str; 2] = ["pipeplug", "pipeplug-nospin"];

/// Those that are built with this program.
pub(crate) fn ours() -> Result<Vec<Subject>> {
    let program = std::env::current_exe().context("where is this program?")?.with_file_name("bench-subject");
    let subject = |name: &str, kind| Subject {
        name: name.into(),
        kind,
        program: program.clone(),
        args: vec!["host".into(), name.into()],
    };
    let raw = RAW.map(|name| subject(name, Kind::Raw));
    Ok(raw.into_iter().chain(OURS.map(|name| subject(name, Kind::Ours))).collect())
}

/// Whether the name is among the patterns, which may end in `*`; an empty list is no restriction.
pub(crate) fn is_wanted(name: &str, patterns: &[String]) -> bool {
    patterns.is_empty()
        || patterns.iter().any(|pattern| match pattern.strip_suffix('*') {
            Some(start) => name.starts_with(start),
            None => name == pattern,
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_may_end_in_a_star() {
        let patterns = ["raw-*".to_owned(), "tarpc".to_owned()];
        assert!(is_wanted("raw-block", &patterns) && is_wanted("tarpc", &patterns));
        assert!(!is_wanted("tarpc-stdio", &patterns) && is_wanted("anything", &[]));
    }
}
