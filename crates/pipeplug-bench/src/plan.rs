//! Cases to measure.

use crate::subjects::{Subject, is_wanted};
use crate::work::{MESSAGE, Work};

/// How much of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Size {
    /// Under two minutes.
    Quick,
    Full,
}

/// Where the two processes run. Left alone the scheduler changes its mind, and the figures with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Situation {
    /// Wherever the scheduler puts them.
    Free,
    /// The host on one CPU, the plugin on another.
    Split,
    /// Both on one CPU, and they know of no other.
    Same,
    /// Free, but the second CPU has something else to do all the time.
    Busy,
}

impl Situation {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Free => "free",
            Self::Split => "split",
            Self::Same => "same",
            Self::Busy => "busy",
        }
    }
}

/// One thing to measure of every subject that it fits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Case {
    pub(crate) work: Work,
    pub(crate) situation: Situation,
    pub(crate) of: Of,
    pub(crate) often: Often,
}

/// Peers that a case is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Of {
    /// All but the typed ones. One that has no such thing says so.
    All,
    /// Those of these names, which may end in `*`.
    These(&'static [&'static str]),
}

/// A curve of each peer would take the day; these are the fastest, and the one that is used most.
const CURVES: Of = Of::These(&["raw-*", DEFAULT, "tarpc", "tonic", "go-plugin-grpc"]);
const HANDLERS: Of = Of::These(&["raw-block", "raw-spin", "pipeplug*"]);
const CROWDS: Of = Of::These(&[DEFAULT]);

/// Subjects with a typed interface, which are measured with nothing else.
const TYPED: &str = "typed-*";

/// In which rounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Often {
    EachRound,
    /// The first that counts: it takes long, or does not vary.
    Once,
}

/// The name of ours with every setting at its default.
pub(crate) const DEFAULT: &str = "pipeplug";

impl Case {
    fn new(work: Work, situation: Situation, of: Of) -> Self {
        Self { work, situation, of, often: Often::EachRound }
    }

    fn once(work: Work, situation: Situation, of: Of) -> Self {
        Self { often: Often::Once, ..Self::new(work, situation, of) }
    }

    pub(crate) fn fits(&self, subject: &Subject) -> bool {
        match self.of {
            Of::All => !is_wanted(&subject.name, &[TYPED]),
            Of::These(names) => is_wanted(&subject.name, names),
        }
    }
}

/// Returns true if --quick measures the subject. Subjects that differ only in a setting are left
/// out.
pub(crate) fn is_in_quick(subject: &Subject) -> bool {
    !subject.name.ends_with("-one-worker") && !subject.name.ends_with("-pipes")
}

/// Everything, in the order in which it is measured.
pub(crate) fn cases(size: Size) -> Vec<Case> {
    use Situation::{Free, Same, Split};
    let sequential = |situation| Case::new(Work::Sequential { size: MESSAGE }, situation, Of::All);
    let mut cases = [Split, Same, Free].map(sequential).to_vec();
    cases.extend(
        [
            Work::Callers { callers: 64 },
            Work::Tasks { tasks: 64 },
            Work::Flight { window: 10_000 },
            Work::Stream { window: 10_000 },
            Work::OneWay,
            Work::Bulk { size: 1 << 20 },
            Work::Bulk { size: 64 << 20 },
            Work::Spawn,
        ]
        .map(|work| Case::new(work, Free, Of::All)),
    );
    cases.push(Case::new(Work::Typed, Split, Of::These(&[TYPED])));
    cases.push(Case::new(Work::TypedTasks { tasks: 64 }, Free, Of::These(&[TYPED])));
    let (quiet, of_quiet, handlers): (u64, Of, &[u64]) = match size {
        Size::Quick => (2, CROWDS, &[100]),
        Size::Full => (10, Of::All, &[0, 10, 100, 1000]),
    };
    cases.push(Case::once(Work::Quiet { seconds: quiet }, Free, of_quiet));
    cases.extend(
        handlers.iter().map(|&micros| Case::new(Work::Handler { micros }, Split, HANDLERS)),
    );
    if size == Size::Full {
        cases.extend(in_full());
    }
    cases
}

/// Cases that --quick leaves out.
fn in_full() -> Vec<Case> {
    use Situation::{Busy, Free, Split};
    let mut cases = vec![Case::new(Work::Sequential { size: MESSAGE }, Busy, Of::All)];
    cases.push(Case::new(Work::Callers { callers: 1000 }, Free, Of::All));
    cases.push(Case::new(Work::Tasks { tasks: 1000 }, Free, Of::All));
    for many in [1, 4, 16, 256] {
        cases.push(Case::new(Work::Callers { callers: many }, Free, CURVES));
        cases.push(Case::new(Work::Tasks { tasks: many }, Free, CURVES));
    }
    cases.extend(
        [1, 10, 100, 1000, 100_000].map(|window| Case::new(Work::Flight { window }, Free, CURVES)),
    );
    let sizes = [4, 8, 12, 14, 16, 18, 22, 24].map(|power| 1 << power);
    cases.extend(sizes.map(|size| Case::new(Work::Bulk { size }, Free, CURVES)));
    cases.extend(
        [0, 1, 10, 100, 1000].map(|plugins| Case::new(Work::Idle { plugins }, Split, CROWDS)),
    );
    let open = [0, 1000, 10_000, 100_000, 1_000_000];
    cases.extend(open.map(|open| Case::new(Work::Open { open }, Split, CROWDS)));
    cases.push(Case::once(Work::Syscalls, Split, Of::All));
    cases
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::subjects::Kind;

    #[test]
    fn no_case_stands_there_twice() {
        for size in [Size::Quick, Size::Full] {
            let cases = cases(size);
            let key = |case: &Case| (case.work.name(), case.work.parameter(), case.situation);
            let mut keys: Vec<_> = cases.iter().map(key).collect();
            keys.sort_unstable();
            keys.dedup();
            assert_eq!(keys.len(), cases.len());
        }
    }

    #[test]
    fn a_curve_is_of_few_peers() {
        let peer = |name: &str| Subject {
            name: name.into(),
            kind: Kind::Peer,
            program: PathBuf::new(),
            args: Vec::new(),
        };
        let curve = Case::new(Work::OneWay, Situation::Free, CURVES);
        assert!(curve.fits(&peer("tarpc")) && !curve.fits(&peer("lsp-server")));
    }
}
