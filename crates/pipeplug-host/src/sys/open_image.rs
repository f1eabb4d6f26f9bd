//! A program to execute that is open already.

/// A program that is executed as it was when it was opened, whatever is at its path by then.
#[cfg(linux_native)]
#[derive(Debug)]
pub(crate) enum OpenImage {
    /// The kernel reads it.
    Program(std::os::fd::OwnedFd),
    /// An interpreter opens it anew, by its number: the guest has it behind its other descriptors.
    Script(std::os::fd::OwnedFd),
}

/// Other systems execute files by their paths.
#[cfg(not(linux_native))]
#[derive(Debug)]
pub(crate) enum OpenImage {}
