//! The signals that a host sends to its guests.

use std::fmt;

use nix::sys::signal;

/// A signal for a guest's process group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Signal {
    /// `SIGTERM`: asks to end, and may be handled.
    Terminate,
    /// `SIGKILL`: ends whatever it reaches.
    Kill,
    /// `SIGINT`: what Ctrl-C sends.
    Interrupt,
    /// `SIGHUP`: the terminal is gone, or for daemons: read the configuration again.
    Hangup,
    /// `SIGQUIT`: asks to end with a core dump.
    Quit,
    /// `SIGUSR1`.
    User1,
    /// `SIGUSR2`.
    User2,
    /// `SIGSTOP`: stops whatever it reaches until [`Signal::Continue`].
    Stop,
    /// `SIGCONT`: goes on after a stop.
    Continue,
}

impl Signal {
    pub(super) fn to_nix(self) -> signal::Signal {
        match self {
            Self::Terminate => signal::Signal::SIGTERM,
            Self::Kill => signal::Signal::SIGKILL,
            Self::Interrupt => signal::Signal::SIGINT,
            Self::Hangup => signal::Signal::SIGHUP,
            Self::Quit => signal::Signal::SIGQUIT,
            Self::User1 => signal::Signal::SIGUSR1,
            Self::User2 => signal::Signal::SIGUSR2,
            Self::Stop => signal::Signal::SIGSTOP,
            Self::Continue => signal::Signal::SIGCONT,
        }
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.to_nix().as_str())
    }
}
