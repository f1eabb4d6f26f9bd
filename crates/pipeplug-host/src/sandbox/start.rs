//! A start, as a sandbox sees it.

use std::os::fd::OwnedFd;
use std::path::Path;

use crate::process::OnHostExit;
use crate::sys::SandboxPlan;

/// The facts about a start that a sandbox needs.
#[cfg_attr(not(linux_sandbox), expect(dead_code, reason = "only Linux has a sandbox"))]
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plugin<'a> {
    /// The file to execute, as an absolute path.
    pub(crate) program: &'a Path,
    /// The kind of image: the file itself, or a copy of it in memory.
    pub(crate) image: ImageKind,
    pub(crate) on_host_exit: OnHostExit,
    pub(crate) terminal: Terminal,
}

/// The image that is executed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ImageKind {
    File,
    Memory,
}

/// A plugin's share of the terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Terminal {
    /// The host's standard input.
    Granted,
    None,
}

/// Extent of the sandbox that a start tries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Extent {
    Whole,
    /// Without the namespaces, which this system has just refused.
    WithoutNamespaces,
}

/// A confinement that is ready for the child.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub(crate) sandbox: SandboxPlan,
    /// The end of a pipe whose closing ends the plugin's pid namespace, where it has one.
    pub(crate) host_alive: Option<OwnedFd>,
}
