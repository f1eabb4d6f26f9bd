//! Steps of a start, and the failure of one of them.

use std::io;

use nix::errno::Errno;

/// Step at which a start failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StartStep {
    /// The fork itself.
    Fork,
    /// The process group of the guest.
    ProcessGroup,
    /// Tying the guest to the host.
    KillOnHostExit,
    /// The signal dispositions and mask of the guest.
    Signals,
    /// The descriptors of the guest.
    Descriptors,
    /// The working directory of the guest.
    WorkingDirectory,
    /// The limits of the guest's resources.
    Limits,
    /// The namespaces of the guest.
    Namespaces,
    /// The user and the group of a user namespace.
    IdMaps,
    /// A file or directory that is let into the root of the guest.
    Grant,
    /// The root file system of the guest.
    Root,
    /// The init of the guest's pid namespace.
    Init,
    /// The `/proc` of the guest.
    Processes,
    /// Taking privileges away from the guest.
    Privileges,
    /// The sandbox around files.
    Files,
    /// The filter of system calls.
    SystemCalls,
    /// The exec.
    Exec,
}

impl StartStep {
    /// The steps that the child can report.
    #[cfg(not(linux_native))]
    pub(super) const IN_CHILD: [Self; 16] = [
        Self::ProcessGroup,
        Self::KillOnHostExit,
        Self::Signals,
        Self::Descriptors,
        Self::WorkingDirectory,
        Self::Limits,
        Self::Namespaces,
        Self::IdMaps,
        Self::Grant,
        Self::Root,
        Self::Init,
        Self::Processes,
        Self::Privileges,
        Self::Files,
        Self::SystemCalls,
        Self::Exec,
    ];
}

/// Report of a child that failed.
#[derive(Debug, Clone, Copy)]
pub(super) struct ChildFailure {
    pub(super) step: StartStep,
    pub(super) errno: Errno,
}

/// A start that failed; no process is left of it.
#[derive(Debug)]
pub(crate) struct ForkExecError {
    pub(crate) step: StartStep,
    pub(crate) error: io::Error,
}
