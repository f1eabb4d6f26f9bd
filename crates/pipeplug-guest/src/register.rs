//! Registering with the host.

use std::io;
use std::path::PathBuf;

use pipeplug_net::{ConnectError, HandlerError};

use crate::guest::{Guest, Request, Start};
use crate::main_handle::Main;

/// The exit code of a plugin that was not started by a host, or could not use what it was given.
pub(crate) const EXIT_USAGE: i32 = 2;

/// Registers this process as a plugin: `request` is called for what the host asks, `start` once before; `()` for none.
///
/// Short for [`Guest::new`] with both. It gives the handle to the host at once; end `main` with [`Main::wait`].
///
/// A plugin that has no host cannot do anything: where it was started by hand, or the descriptors that it was told
/// cannot be used, this says so on standard error, with the command to type, and exits with 2; where `start` fails it
/// exits with 1. [`Guest::try_register`] gives these as errors.
///
/// # Blocking
/// While `start` runs.
pub fn register(start: impl Start, request: impl Request) -> Main {
    Guest::new().start(start).request(request).register()
}

/// Why a plugin has no host.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RegisterError {
    /// Neither descriptors were told nor is there a pipe: a person typed the command.
    #[error(
        "{name} is a plugin: a host starts it and talks to it over pipes. To try it in a terminal:\n\n    \
         pipeplug run {path} --call COMMAND [DATA]\n",
        path = .path.display()
    )]
    ByHand {
        /// The plugin's name.
        name: String,
        /// How it was started.
        path: PathBuf,
    },
    /// A descriptor that was told is not open.
    #[error(
        "descriptor {number}, which is to bring messages {half}, cannot be used: {error}; the first two arguments of a plugin are the numbers of its descriptors, which its host has to hand down"
    )]
    Descriptor {
        /// Its number.
        number: i32,
        /// "in" or "out".
        half: &'static str,
        /// What the system said.
        error: io::Error,
    },
    /// A descriptor is not open for what it is to do.
    #[error(
        "descriptor {number}, which is to bring messages {half}, cannot be {verb}; the first argument of a plugin is the descriptor to read from, the second the one to write to"
    )]
    WrongDirection {
        /// Its number.
        number: i32,
        /// "in" or "out".
        half: &'static str,
        /// What it should do.
        verb: &'static str,
    },
    /// One descriptor was told for both directions.
    #[error("descriptor {number} was given for both directions; hand down a copy of it under another number")]
    SameDescriptor {
        /// Its number.
        number: i32,
    },
    /// No thread or no epoll descriptor could be had.
    #[error("the event loop could not be started: {0}")]
    EventLoop(io::Error),
    /// The connection could not be made.
    #[error(transparent)]
    Connect(ConnectError),
    /// The plugin's own start call-back failed.
    #[error("the plugin's start failed: {0}")]
    Start(HandlerError),
}

impl RegisterError {
    /// What a process that cannot go on exits with.
    pub(crate) fn exit_code(&self) -> i32 {
        match self {
            Self::ByHand { .. }
            | Self::Descriptor { .. }
            | Self::WrongDirection { .. }
            | Self::SameDescriptor { .. } => EXIT_USAGE,
            Self::EventLoop(_) | Self::Connect(_) | Self::Start(_) => 1,
        }
    }
}
