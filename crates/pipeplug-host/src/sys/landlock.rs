//! Landlock by its system calls, for what exists only in a child of fork: landlock(7).
//!
//! Rulesets are made with the landlock crate, in the host. A file system that the child makes gets
//! its rule there.

use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::ptr;

use nix::errno::Errno;
use nix::libc;

/// `LANDLOCK_CREATE_RULESET_VERSION` of `<linux/landlock.h>`.
const CREATE_RULESET_VERSION: libc::c_uint = 1;
/// `LANDLOCK_RULE_PATH_BENEATH` of the same.
const RULE_PATH_BENEATH: libc::c_int = 1;

/// A ruleset that a process confines itself with.
#[derive(Debug)]
pub(crate) struct Ruleset(OwnedFd);

/// Rights to a file, or to all below a directory: `LANDLOCK_ACCESS_FS_*`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PathRights(pub(crate) u64);

/// `struct landlock_path_beneath_attr` of `<linux/landlock.h>`.
#[repr(C, packed)]
struct PathBeneath {
    allowed_access: u64,
    parent_fd: i32,
}

impl Ruleset {
    /// The descriptor must be clear of the guest's numbers.
    pub(crate) fn new(fd: OwnedFd) -> Self {
        Self(fd)
    }

    /// Adds a rule. The ruleset has to handle all of these rights.
    pub(super) fn allow(&self, beneath: BorrowedFd<'_>, rights: PathRights) -> Result<(), Errno> {
        let rule = PathBeneath { allowed_access: rights.0, parent_fd: beneath.as_raw_fd() };
        // SAFETY: the rule is of the type that its number says, and is only read.
        let added = unsafe {
            libc::syscall(
                libc::SYS_landlock_add_rule,
                self.0.as_raw_fd(),
                RULE_PATH_BENEATH,
                &raw const rule,
                0,
            )
        };
        Errno::result(added).map(drop)
    }

    /// Confines the calling process, for good.
    pub(super) fn restrict_self(&self) -> Result<(), Errno> {
        // SAFETY: the call takes two integers and touches no memory.
        Errno::result(unsafe {
            libc::syscall(libc::SYS_landlock_restrict_self, self.0.as_raw_fd(), 0)
        })
        .map(drop)
    }
}

/// The version of Landlock that the kernel has; 0 for none.
pub(crate) fn landlock_abi() -> u32 {
    // SAFETY: asked for the version, the call takes no attributes and touches no memory.
    let version = unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            ptr::null::<u8>(),
            0,
            CREATE_RULESET_VERSION,
        )
    };
    u32::try_from(version).unwrap_or(0)
}
