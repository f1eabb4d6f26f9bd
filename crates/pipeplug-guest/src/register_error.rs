//! Errors of registering with the host.

use std::io;
use std::path::PathBuf;

use pipeplug_net::internal::handshake::Mismatch;
use pipeplug_net::{ConnectError, Escaped, HandlerError};

use crate::listen::ListenError;
use crate::shell_word::shell_word;

/// The exit code of a plugin that was not started by a host, or could not use what it was given.
pub(crate) const EXIT_USAGE: u8 = 2;

/// Error of registering with the host.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RegisterError {
    /// No host is there: no descriptors were told, and stdin or stdout is a terminal, or stdin another
    /// device such as `/dev/null`.
    #[error(
        "{} is a plugin: a host starts it and talks to it over pipes. To try it in a terminal:\n\n    \
         pipeplug run {path} --call COMMAND [DATA]\n",
        Escaped(name),
        path = Escaped(&shell_word(&.path.to_string_lossy()))
    )]
    ByHand {
        /// The plugin's name.
        name: String,
        /// Path of the program.
        path: PathBuf,
    },
    /// A descriptor that was told is not open: a program between host and plugin did not pass it
    /// on.
    #[error(
        "descriptor {number}, which is to bring messages {half}, is not open: the first two arguments of a plugin are the numbers of \
         its descriptors, which the program that starts it has to pass on (pass_fds=(3, 4) in Python, stdio: [0, 1, 2, 3, 4] in \
         Node); `pipeplug run --stdio` makes do with stdin and stdout"
    )]
    NotOpen {
        /// Number of the descriptor.
        number: i32,
        /// "in" or "out".
        half: &'static str,
    },
    /// A descriptor that was told cannot be used.
    #[error(
        "descriptor {number}, which is to bring messages {half}, cannot be used: {error}; the first two arguments of a plugin are the numbers of its descriptors, which its host has to hand down"
    )]
    Descriptor {
        /// Number of the descriptor.
        number: i32,
        /// "in" or "out".
        half: &'static str,
        /// Error of the system.
        error: io::Error,
    },
    /// A descriptor is not open for what it is to do.
    #[error(
        "descriptor {number}, which is to bring messages {half}, cannot be {verb}; the first argument of a plugin is the descriptor to read from, the second the one to write to"
    )]
    WrongDirection {
        /// Number of the descriptor.
        number: i32,
        /// "in" or "out".
        half: &'static str,
        /// Operation that it should allow.
        verb: &'static str,
    },
    /// A descriptor is open, and has no host at its other end.
    #[error(
        "descriptor {number}, which is to bring messages {half}, is {found}, neither a pipe nor a socket; its host has to \
         hand down one of these, and `pipeplug run PLUGIN` does for a plugin that is started by hand"
    )]
    NotAPipe {
        /// Number of the descriptor.
        number: i32,
        /// "in" or "out".
        half: &'static str,
        /// The kind of file that it is, in words.
        found: &'static str,
    },
    /// The same descriptor was given for both directions.
    #[error(
        "descriptor {number} was given for both directions; hand down a copy of it under another number"
    )]
    SameDescriptor {
        /// Number of the descriptor.
        number: i32,
    },
    /// `--pipeplug-listen` was given without a path.
    #[error(
        "--pipeplug-listen needs the path of the socket to make, as in `--pipeplug-listen /tmp/plugin.sock`"
    )]
    NoListenPath,
    /// The plugin cannot wait for a host.
    #[error("cannot wait for a host at {path:?}: {reason}")]
    Listen {
        /// The path of the socket.
        path: PathBuf,
        /// The reason.
        reason: ListenError,
    },
    /// No thread or epoll descriptor could be made.
    #[error("the event loop could not be started: {0}")]
    EventLoop(io::Error),
    /// The connection could not be made.
    #[error(transparent)]
    Connect(ConnectError),
    /// Host and plugin speak no common version of the application's interface.
    #[error("{}", Mismatch { plugin, host })]
    InterfaceVersions {
        /// Versions that the plugin speaks
        /// ([`Guest::interface_versions`](crate::Guest::interface_versions)).
        plugin: Vec<u32>,
        /// Versions that the host speaks.
        host: Vec<u32>,
    },
    /// The plugin's own start call-back failed.
    #[error("the plugin's start failed: {0}")]
    Start(HandlerError),
}

impl RegisterError {
    /// Exit status of a process that cannot go on.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::ByHand { .. }
            | Self::NotOpen { .. }
            | Self::Descriptor { .. }
            | Self::WrongDirection { .. }
            | Self::NotAPipe { .. }
            | Self::SameDescriptor { .. }
            | Self::NoListenPath
            | Self::Listen { .. } => EXIT_USAGE,
            Self::EventLoop(_)
            | Self::Connect(_)
            | Self::InterfaceVersions { .. }
            | Self::Start(_) => 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_to_type_is_one_that_a_shell_takes() {
        let told = |path: &str| {
            RegisterError::ByHand { name: "spell".into(), path: path.into() }.to_string()
        };
        assert!(told("/a/spell").contains("pipeplug run /a/spell --call COMMAND"));
        assert!(told("/a b/spell").contains("pipeplug run '/a b/spell' --call COMMAND"));
    }
}
