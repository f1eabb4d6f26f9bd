//! Kernel features that a sandbox needs.

use std::fmt;
use std::sync::OnceLock;

use crate::sys;

/// The parts of a [`Sandbox`](super::Sandbox) that this kernel, and the confinement of this process
/// itself, can provide.
///
/// ```
/// println!("{}", pipeplug_host::SandboxSupport::of_system());
/// // say: Landlock ABI 7, seccomp, namespaces
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct SandboxSupport {
    /// The version of Landlock's interface: 3 confines files, 4 TCP ports, 6 signals; 0 where there
    /// is none.
    pub landlock_abi: u32,
    /// True if system calls can be filtered.
    pub seccomp: bool,
    /// True if this process can make the namespaces of a strict sandbox, with a root file system in
    /// them.
    pub namespaces: bool,
}

impl SandboxSupport {
    /// SandboxSupport of this system. Tested once, then cached.
    ///
    /// # Blocking
    /// The first time, until a child has tried to make namespaces: some milliseconds.
    #[must_use]
    pub fn of_system() -> Self {
        static SUPPORT: OnceLock<SandboxSupport> = OnceLock::new();
        *SUPPORT
            .get_or_init(|| Self { namespaces: tried::can_make_namespaces(), ..Self::of_kernel() })
    }

    /// The same, with no word about namespaces; costs nothing.
    pub(super) fn of_kernel() -> Self {
        static SUPPORT: OnceLock<SandboxSupport> = OnceLock::new();
        *SUPPORT.get_or_init(|| Self {
            landlock_abi: tried::landlock_abi(),
            seccomp: sys::has_seccomp(),
            namespaces: false,
        })
    }
}

impl fmt::Display for SandboxSupport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.landlock_abi {
            0 => f.write_str("no Landlock")?,
            abi => write!(f, "Landlock ABI {abi}")?,
        }
        f.write_str(if self.seccomp { ", seccomp" } else { ", no seccomp" })?;
        f.write_str(if self.namespaces { ", namespaces" } else { ", no namespaces" })
    }
}

#[cfg(linux_native)]
mod tried {
    use crate::sandbox::root;
    use crate::sys::{self, IdMaps, Init, InitOnHostExit, Namespaces, Network};

    pub(super) fn landlock_abi() -> u32 {
        sys::landlock_abi()
    }

    pub(super) fn can_make_namespaces() -> bool {
        let (Ok((host_alive, _writer)), Ok(program)) = (sys::pipe(), sys::program::init()) else {
            return false;
        };
        let namespaces = Namespaces {
            network: Network::Own,
            ids: IdMaps::of_self(),
            root: root::lay_out(&[], &[], None, 1 << 20),
            init: Init { program, host_alive, on_host_exit: InitOnHostExit::Ends },
            pid_max: None,
        };
        let tried = sys::try_namespaces(&namespaces);
        if let Err(failure) = &tried {
            tracing::debug!(step = ?failure.step, error = %failure.error, "this process can make \
                                                            no namespaces");
        }
        tried.is_ok()
    }
}

#[cfg(not(linux_native))]
mod tried {
    pub(super) fn landlock_abi() -> u32 {
        0
    }

    pub(super) fn can_make_namespaces() -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_says_what_there_is_and_what_is_not() {
        let all = SandboxSupport { landlock_abi: 7, seccomp: true, namespaces: true };
        assert_eq!(all.to_string(), "Landlock ABI 7, seccomp, namespaces");
        let none = SandboxSupport { landlock_abi: 0, seccomp: false, namespaces: false };
        assert_eq!(none.to_string(), "no Landlock, no seccomp, no namespaces");
    }
}
