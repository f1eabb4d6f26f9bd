//! Exit status of a process.

use std::fmt;

use nix::sys::signal::Signal;

/// Exit status of a guest's process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum WaitStatus {
    /// The process exited by itself with this status, 0 to 255.
    Exited(i32),
    /// A signal ended it.
    Signaled {
        /// The signal's number, as `kill -l` counts them on this system.
        signal: i32,
        /// True if the kernel wrote a core dump.
        core_dumped: bool,
    },
    /// The process has ended, but the kernel kept no status for the host.
    ///
    /// That is so where the host ignores `SIGCHLD`, or where some other code in the host waits for
    /// every child (`waitpid(-1)`) and was faster.
    Unknown,
}

impl WaitStatus {
    /// Tells whether the process exited with status 0.
    #[must_use]
    pub fn success(self) -> bool {
        self == Self::Exited(0)
    }

    /// Tells whether a shell found nothing to run: 126, found and not executable, or 127, not found
    /// (POSIX, sh(1p), EXIT STATUS).
    pub(crate) fn is_permanent(self) -> bool {
        matches!(self.code(), Some(126 | 127))
    }

    /// Tells whether a signal ended it that asks for an end, SIGTERM, SIGINT or SIGHUP: by itself,
    /// or as a shell reports it of what it ran (128 and the signal's number: bash(1), EXIT STATUS).
    pub(crate) fn is_request_to_end(self) -> bool {
        let signal = match self {
            Self::Exited(code) => code - 128,
            Self::Signaled { signal, .. } => signal,
            Self::Unknown => return false,
        };
        [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP].map(|asks| asks as i32).contains(&signal)
    }

    /// The exit status, if it exited by itself.
    #[must_use]
    pub fn code(self) -> Option<i32> {
        match self {
            Self::Exited(code) => Some(code),
            Self::Signaled { .. } | Self::Unknown => None,
        }
    }
}

impl fmt::Display for WaitStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Exited(code) => write!(f, "exit status {code}"),
            Self::Signaled { signal, core_dumped } => {
                write!(f, "killed by signal {signal}")?;
                // Real-time signals have a number only.
                if let Ok(known) = Signal::try_from(signal) {
                    write!(f, " ({})", known.as_str())?;
                }
                if core_dumped { f.write_str(" (core dumped)") } else { Ok(()) }
            }
            Self::Unknown => f.write_str("ended with a status that the system did not keep"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::WaitStatus;

    #[test]
    fn names_what_happened() {
        assert_eq!(WaitStatus::Exited(3).to_string(), "exit status 3");
        let killed = WaitStatus::Signaled { signal: 9, core_dumped: false };
        assert_eq!(killed.to_string(), "killed by signal 9 (SIGKILL)");
        let dumped = WaitStatus::Signaled { signal: 11, core_dumped: true };
        assert_eq!(dumped.to_string(), "killed by signal 11 (SIGSEGV) (core dumped)");
        let real_time = WaitStatus::Signaled { signal: 40, core_dumped: false };
        assert_eq!(real_time.to_string(), "killed by signal 40");
    }

    #[test]
    fn a_request_to_end_is_told_from_a_crash() {
        let signaled = |signal| WaitStatus::Signaled { signal, core_dumped: false };
        for asked in [signaled(1), signaled(2), signaled(15), WaitStatus::Exited(143)] {
            assert!(asked.is_request_to_end(), "{asked}");
        }
        for other in
            [signaled(9), signaled(6), signaled(3), WaitStatus::Exited(0), WaitStatus::Exited(15)]
        {
            assert!(!other.is_request_to_end(), "{other}");
        }
    }

    #[test]
    fn only_exit_status_zero_is_a_success() {
        assert!(WaitStatus::Exited(0).success());
        assert!(!WaitStatus::Exited(1).success());
        assert!(!WaitStatus::Signaled { signal: 15, core_dumped: false }.success());
        assert!(!WaitStatus::Unknown.success());
    }
}
