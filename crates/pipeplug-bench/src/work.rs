//! The orders, and how many calls each makes.

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
    /// A connection that is not used.
    Quiet {
        seconds: u64,
    },
    /// The system calls of sequential calls.
    Syscalls,
    /// Sequential calls of a typed service: the sum of two numbers.
    Typed,
    /// The same with many tasks.
    TypedTasks {
        tasks: u64,
    },
}

/// The usual size of a message in bytes.
pub(crate) const MESSAGE: u64 = 64;

/// The calls whose system calls are counted.
const TRACED: u64 = 2000;

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
            Self::Quiet { .. } => "quiet",
            Self::Syscalls => "syscalls",
            Self::Typed => "typed",
            Self::TypedTasks { .. } => "typed-tasks",
        }
    }

    /// The figure that stands for the metric where there is none, and the reason is told.
    pub(crate) fn main_figure(self) -> &'static str {
        match self {
            Self::Sequential { .. }
            | Self::Handler { .. }
            | Self::Typed
            | Self::Spawn
            | Self::Idle { .. }
            | Self::Open { .. } => "p50",
            Self::Callers { .. }
            | Self::Tasks { .. }
            | Self::TypedTasks { .. }
            | Self::Flight { .. }
            | Self::Stream { .. }
            | Self::OneWay
            | Self::Bulk { .. } => "rate",
            Self::Quiet { .. } => "cpu",
            Self::Syscalls => "host",
        }
    }

    /// Quantity that the work grows with.
    pub(crate) fn parameter(self) -> u64 {
        match self {
            Self::Sequential { size } | Self::Bulk { size } => size,
            Self::Handler { micros } => micros,
            Self::Callers { callers: many }
            | Self::Tasks { tasks: many }
            | Self::TypedTasks { tasks: many } => many,
            Self::Flight { window } | Self::Stream { window } => window,
            Self::Idle { plugins: many } | Self::Open { open: many } => many,
            Self::OneWay | Self::Spawn | Self::Syscalls | Self::Typed => MESSAGE,
            // Quick or not, it is the same thing.
            Self::Quiet { .. } => 0,
        }
    }

    /// The order's line.
    pub(crate) fn line(self, count: u64) -> String {
        match self {
            Self::Sequential { size } => {
                format!("sequential {} {count} {size}", (count / 4).clamp(100, 2000))
            }
            Self::Typed => Self::Sequential { size: MESSAGE }.line(count),
            Self::Handler { .. } => {
                format!("sequential {} {count} {MESSAGE}", (count / 4).clamp(20, 1000))
            }
            Self::Callers { callers } => format!("callers {callers} {count} {MESSAGE}"),
            Self::Tasks { tasks } | Self::TypedTasks { tasks } => {
                format!("tasks {tasks} {count} {MESSAGE}")
            }
            Self::Flight { window } => format!("flight {window} {count} {MESSAGE}"),
            Self::Stream { window } => format!("stream {window} {count} {MESSAGE}"),
            Self::OneWay => format!("oneway {count} {MESSAGE}"),
            Self::Bulk { size } => format!("bulk {count} {size}"),
            Self::Spawn => format!("spawn {count}"),
            Self::Idle { plugins } => format!("idle {plugins} {count} {MESSAGE}"),
            Self::Open { open } => format!("open {open} {count} {MESSAGE}"),
            Self::Quiet { .. } => format!("sequential 1000 1 {MESSAGE}"),
            Self::Syscalls => format!("sequential 1000 {TRACED} {MESSAGE}"),
        }
    }

    /// The fewest and the most calls that one measurement makes. The fewest are what the pace is
    /// found with.
    pub(crate) fn counts(self) -> (u64, u64) {
        match self {
            Self::Sequential { .. } | Self::Typed => (500, 200_000),
            Self::Handler { .. } => (100, 200_000),
            Self::Callers { callers: many }
            | Self::Tasks { tasks: many }
            | Self::TypedTasks { tasks: many } => ((20 * many).max(2000), 2_000_000),
            Self::Flight { window } | Self::Stream { window } => {
                ((2 * window).max(4000), 20_000_000)
            }
            Self::OneWay => (20_000, 20_000_000),
            Self::Bulk { .. } => (1, 100_000),
            Self::Spawn => (3, 100),
            Self::Idle { .. } | Self::Open { .. } => (1000, 20_000),
            Self::Quiet { .. } => (1, 1),
            Self::Syscalls => (TRACED, TRACED),
        }
    }

    /// Returns true if the number of threads is worth a look.
    pub(crate) fn has_many_callers(self) -> bool {
        matches!(
            self,
            Self::Callers { .. }
                | Self::Tasks { .. }
                | Self::TypedTasks { .. }
                | Self::Flight { .. }
        )
    }

    /// Returns true if the rate says more than the inverse of the time of a call.
    pub(crate) fn has_rate(self) -> bool {
        self.main_figure() == "rate"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_an_order_and_its_numbers() {
        assert_eq!(Work::Sequential { size: 64 }.line(20_000), "sequential 2000 20000 64");
        assert_eq!(Work::Flight { window: 10 }.line(5), "flight 10 5 64");
        assert_eq!(Work::Bulk { size: 1024 }.line(3), "bulk 3 1024");
    }
}
