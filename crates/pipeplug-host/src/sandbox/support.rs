//! What this kernel has of what a sandbox is made of.

use std::fmt;
use std::sync::OnceLock;

use crate::sys;

/// What this kernel, and whatever this process is confined by itself, can do of a [`Sandbox`](super::Sandbox).
///
/// ```
/// println!("{}", pipeplug_host::sandbox::Support::of_system());
/// // say: Landlock ABI 7, seccomp, network namespaces
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Support {
    /// The version of Landlock's interface: 3 confines files, 4 TCP ports, 6 signals; 0 where there is none.
    pub landlock_abi: u32,
    /// Whether system calls can be filtered.
    pub seccomp: bool,
    /// Whether a process without privileges, or this one with those that it has, can make a network namespace.
    pub network_namespace: bool,
}

impl Support {
    /// What there is here; asked for once.
    ///
    /// # Blocking
    /// The first time, until a child has tried to make a network namespace.
    #[must_use]
    pub fn of_system() -> Self {
        static SUPPORT: OnceLock<Support> = OnceLock::new();
        *SUPPORT.get_or_init(|| Self {
            landlock_abi: sys::landlock_abi(),
            seccomp: sys::has_seccomp(),
            network_namespace: sys::new_network().is_some(),
        })
    }
}

impl fmt::Display for Support {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.landlock_abi {
            0 => f.write_str("no Landlock")?,
            abi => write!(f, "Landlock ABI {abi}")?,
        }
        f.write_str(if self.seccomp { ", seccomp" } else { ", no seccomp" })?;
        f.write_str(if self.network_namespace { ", network namespaces" } else { ", no network namespaces" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_says_what_there_is_and_what_is_not() {
        let all = Support { landlock_abi: 7, seccomp: true, network_namespace: true };
        assert_eq!(all.to_string(), "Landlock ABI 7, seccomp, network namespaces");
        let none = Support { landlock_abi: 0, seccomp: false, network_namespace: false };
        assert_eq!(none.to_string(), "no Landlock, no seccomp, no network namespaces");
    }
}
