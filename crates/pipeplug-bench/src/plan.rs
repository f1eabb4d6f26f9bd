//! What is measured.

use crate::subjects::{Kind, Subject};

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

/// The kind of order, and what of it does not change with how long it is to take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Work {
    Sequential {
        size: u64,
    },
    /// Sequential calls to a handler that takes its time.
    Handler {
        micros: u64,
    },
    Callers {
        callers: u64,
    },
    Tasks {
        tasks: u64,
    },
    Flight {
        window: u64,
    },
    Stream {
        window: u64,
    },
    OneWay,
    Bulk {
        size: u64,
    },
    Spawn,
    /// A call beside idle plugins.
    Idle {
        plugins: u64,
    },
    /// A call beside open calls.
    Open {
        open: u64,
    },
}

/// The usual size of a message in bytes.
pub(crate) const MESSAGE: u64 = 64;

impl Work {
    /// The metric's first word.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Sequential { .. } => "sequential",
            Self::Handler { .. } => "handler",
            Self::Callers { .. } => "callers",
            Self::Tasks { .. } => "tasks",
            Self::Flight { .. } => "flight",
            Self::Stream { .. } => "stream",
            Self::OneWay => "oneway",
            Self::Bulk { .. } => "bulk",
            Self::Spawn => "spawn",
            Self::Idle { .. } => "idle",
            Self::Open { .. } => "open",
        }
    }

    /// What it grows with.
    pub(crate) fn parameter(self) -> u64 {
        match self {
            Self::Sequential { size } | Self::Bulk { size } => size,
            Self::Handler { micros } => micros,
            Self::Callers { callers: many } | Self::Tasks { tasks: many } => many,
            Self::Flight { window } | Self::Stream { window } => window,
            Self::Idle { plugins: many } | Self::Open { open: many } => many,
            Self::OneWay | Self::Spawn => MESSAGE,
        }
    }

    /// The order's line.
    pub(crate) fn line(self, count: u64) -> String {
        match self {
            Self::Sequential { size } => {
                format!("sequential {} {count} {size}", (count / 4).clamp(100, 2000))
            }
            Self::Handler { .. } => format!("sequential {} {count} {MESSAGE}", (count / 4).clamp(20, 1000)),
            Self::Callers { callers } => format!("callers {callers} {count} {MESSAGE}"),
            Self::Tasks { tasks } => format!("tasks {tasks} {count} {MESSAGE}"),
            Self::Flight { window } => format!("flight {window} {count} {MESSAGE}"),
            Self::Stream { window } => format!("stream {window} {count} {MESSAGE}"),
            Self::OneWay => format!("oneway {count} {MESSAGE}"),
            Self::Bulk { size } => format!("bulk {count} {size}"),
            Self::Spawn => format!("spawn {count}"),
            Self::Idle { plugins } => format!("idle {plugins} {count} {MESSAGE}"),
            Self::Open { open } => format!("open {open} {count} {MESSAGE}"),
        }
    }

    /// The fewest and the most that one measurement takes. The fewest are what the first round finds the pace with.
    pub(crate) fn counts(self) -> (u64, u64) {
        match self {
            Self::Sequential { .. } => (500, 200_000),
            Self::Handler { .. } => (100, 200_000),
            Self::Callers { callers: many } | Self::Tasks { tasks: many } => {
                ((20 * many).max(2000), 1_000_000)
            }
            Self::Flight { window } | Self::Stream { window } => ((4 * window).max(4000), 20_000_000),
            Self::OneWay => (20_000, 20_000_000),
            Self::Bulk { .. } => (2, 100_000),
            Self::Spawn => (3, 100),
            Self::Idle { .. } | Self::Open { .. } => (1000, 20_000),
        }
    }

    /// Whether the number of threads is worth a look.
    pub(crate) fn has_many_callers(self) -> bool {
        matches!(self, Self::Callers { .. } | Self::Tasks { .. } | Self::Flight { .. })
    }
}

/// One thing to measure of every subject that it fits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Case {
    pub(crate) work: Work,
    pub(crate) situation: Situation,
    pub(crate) of: Of,
}

/// Whom a case is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Of {
    /// Everybody; who has no such thing says so.
    All,
    /// Ours, the limits, and the fastest peers: a curve of each would take the day.
    Curve,
    /// Ours and the limits.
    NoPeer,
    /// Only ours.
    Ours,
}

/// Peers that are drawn as curves.
const IN_CURVES: [&str; 3] = ["tarpc", "tonic", "go-plugin-grpc"];

impl Case {
    pub(crate) fn fits(&self, subject: &Subject) -> bool {
        match (self.of, subject.kind) {
            (Of::All, _) | (Of::Curve | Of::NoPeer, Kind::Raw | Kind::Ours) | (Of::Ours, Kind::Ours) => true,
            (Of::Curve, Kind::Peer) => IN_CURVES.contains(&subject.name.as_str()),
            (Of::NoPeer, Kind::Peer) | (Of::Ours, Kind::Raw | Kind::Peer) => false,
        }
    }
}

/// Everything, in the order in which it is measured.
pub(crate) fn cases(size: Size) -> Vec<Case> {
    use Situation::{Busy, Free, Same, Split};
    let case = |work, situation, of| Case { work, situation, of };
    let mut cases: Vec<Case> = [Free, Split, Same, Busy]
        .map(|situation| case(Work::Sequential { size: MESSAGE }, situation, Of::All))
        .to_vec();
    cases.extend([
        case(Work::Callers { callers: 64 }, Free, Of::All),
        case(Work::Tasks { tasks: 64 }, Free, Of::All),
        case(Work::Flight { window: 10_000 }, Free, Of::All),
        case(Work::Stream { window: 10_000 }, Free, Of::All),
        case(Work::OneWay, Free, Of::All),
        case(Work::Bulk { size: 1 << 20 }, Free, Of::All),
        case(Work::Bulk { size: 64 << 20 }, Free, Of::All),
        case(Work::Spawn, Free, Of::All),
    ]);
    if size == Size::Full {
        cases.extend([
            case(Work::Callers { callers: 1000 }, Free, Of::All),
            case(Work::Tasks { tasks: 1000 }, Free, Of::All),
        ]);
    }
    cases
}
