//! Subjects: the programs that are measured.

use std::path::PathBuf;

use anyhow::{Context as _, Result};

use crate::figures::{About, Absent};
use crate::peers::{self, LeftOut, Peer};

/// Origin of a subject.
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
const OURS: [&str; 7] = [
    "pipeplug",
    "pipeplug-nospin",
    "pipeplug-streams",
    "pipeplug-static",
    "typed-bytes",
    "typed-json",
    "typed-postcard",
];

/// Subjects that can be measured here, those that cannot, and descriptions of the peers.
#[derive(Debug)]
pub(crate) struct Field {
    pub(crate) subjects: Vec<Subject>,
    pub(crate) absent: Vec<Absent>,
    pub(crate) peers: Vec<About>,
}

/// Those of these names; peers are built where they are not up to date.
///
/// # Blocking
/// Some minutes the first time.
pub(crate) fn wanted(patterns: &[impl AsRef<str>]) -> Result<Field> {
    let mut subjects = ours()?;
    subjects.retain(|subject| is_wanted(&subject.name, patterns));
    let peers = peers::all()?.into_iter().filter(|peer| is_wanted(peer.name, patterns)).collect();
    let (peers, left_out) = peers::build(peers)?;
    subjects.extend(peers.iter().map(|peer| Subject {
        name: peer.name.into(),
        kind: Kind::Peer,
        program: peer.program.clone(),
        args: peer.args.clone(),
    }));
    let about = |peer: Peer| About {
        subject: peer.name.into(),
        what: peer.what.into(),
        version: peer.version,
    };
    let absent = |peer: LeftOut| Absent { subject: peer.name.into(), why: peer.why };
    Ok(Field {
        subjects,
        absent: left_out.into_iter().map(absent).collect(),
        peers: peers.into_iter().map(about).collect(),
    })
}

/// Those that are built with this program.
fn ours() -> Result<Vec<Subject>> {
    let this = std::env::current_exe().context("where is this program?")?;
    let subject = |name: &str, kind, program: &str| Subject {
        name: name.into(),
        kind,
        program: this.with_file_name(program),
        args: vec!["host".into(), name.into()],
    };
    let raw = RAW.map(|name| subject(name, Kind::Raw, "bench-raw"));
    let ours = OURS.map(|name| subject(name, Kind::Ours, "bench-subject"));
    Ok(raw.into_iter().chain(ours).collect())
}

/// Returns true if a pattern matches the name. A pattern may end in `*`; an empty list matches all.
pub(crate) fn is_wanted(name: &str, patterns: &[impl AsRef<str>]) -> bool {
    patterns.is_empty()
        || patterns.iter().map(AsRef::as_ref).any(|pattern| match pattern.strip_suffix('*') {
            Some(start) => name.starts_with(start),
            None => name == pattern,
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_may_end_in_a_star() {
        let patterns = ["raw-*", "tarpc"];
        assert!(is_wanted("raw-block", &patterns) && is_wanted("tarpc", &patterns));
        assert!(!is_wanted("tarpc-stdio", &patterns) && is_wanted("anything", &[""; 0]));
    }
}
