//! A run of a container, and the ends that its engine can tell.

use std::path::PathBuf;

/// Exit status of an engine's client that failed itself. The state of the container is then
/// unknown.
pub(super) const CLIENT_FAILED: i32 = 125;

/// A run of a container.
#[derive(Debug)]
pub(super) struct Run {
    /// The container's.
    pub(super) name: String,
    /// The first of the words that stand in the place of the image's command (`CMD`), where there
    /// are some.
    pub(super) replaces_command: Option<String>,
    /// The working directory that was asked for.
    pub(super) directory: Option<PathBuf>,
}

/// The origin of the SIGKILL that ended a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum KilledBy {
    /// The kernel, as the memory limit was exceeded.
    Memory,
    /// A user of the engine: `docker kill`, `docker rm --force`.
    User,
    /// None of these, as the engine tells: a process killed it, or the plugin exited with that
    /// status.
    NeitherOfThese,
    /// The host itself.
    Host,
    /// The engine does not tell.
    Unknown,
}
