//! The system calls for mounts by descriptor: open_tree(2), move_mount(2), fsopen(2),
//! mount_setattr(2), Linux 5.12.
//!
//! The C library has no functions for them before glibc 2.36. Every function here is for a child of
//! fork as well: it only makes system calls.

use std::ffi::CStr;
use std::mem;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

use nix::errno::Errno;
use nix::libc;

/// The descriptor that stands for the working directory, or for none where the path is absolute.
// SAFETY: AT_FDCWD is not a descriptor that can be closed, and every call here takes it.
const NO_DIR: BorrowedFd<'static> = unsafe { BorrowedFd::borrow_raw(libc::AT_FDCWD) };

/// `MOUNT_ATTR_*` of mount_setattr(2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Attributes(u64);

impl Attributes {
    pub(crate) const READ_ONLY: Self = Self(libc::MOUNT_ATTR_RDONLY);
    pub(crate) const NO_SETUID: Self = Self(libc::MOUNT_ATTR_NOSUID);
    pub(crate) const NO_DEVICES: Self = Self(libc::MOUNT_ATTR_NODEV);
    pub(crate) const NO_EXECUTION: Self = Self(libc::MOUNT_ATTR_NOEXEC);

    pub(crate) const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// Copies what is mounted at an absolute path, with all mounts below it, as a tree that is attached
/// nowhere.
pub(super) fn copy_tree(path: &CStr) -> Result<OwnedFd, Errno> {
    let flags = libc::OPEN_TREE_CLONE
        | libc::OPEN_TREE_CLOEXEC as libc::c_uint
        | libc::AT_RECURSIVE as libc::c_uint;
    // SAFETY: the path is NUL-terminated and outlives the call.
    let fd =
        unsafe { libc::syscall(libc::SYS_open_tree, NO_DIR.as_raw_fd(), path.as_ptr(), flags) };
    owned(fd)
}

/// Attaches a tree at an absolute path.
pub(super) fn attach(tree: BorrowedFd<'_>, path: &CStr) -> Result<(), Errno> {
    // SAFETY: both paths are NUL-terminated and outlive the call.
    let moved = unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            tree.as_raw_fd(),
            c"".as_ptr(),
            NO_DIR.as_raw_fd(),
            path.as_ptr(),
            libc::MOVE_MOUNT_F_EMPTY_PATH,
        )
    };
    Errno::result(moved).map(drop)
}

/// Adds attributes to a tree and to all mounts below it.
pub(super) fn restrict_tree(tree: BorrowedFd<'_>, attributes: Attributes) -> Result<(), Errno> {
    set_attributes(tree, c"", libc::AT_EMPTY_PATH | libc::AT_RECURSIVE, attributes, 0)
}

/// Adds attributes to one mount.
pub(super) fn restrict_mount(mount: BorrowedFd<'_>, attributes: Attributes) -> Result<(), Errno> {
    set_attributes(mount, c"", libc::AT_EMPTY_PATH, attributes, 0)
}

/// Keeps every mount of this namespace from being passed on to others, and theirs from arriving
/// here.
pub(super) fn make_all_private() -> Result<(), Errno> {
    set_attributes(NO_DIR, c"/", libc::AT_RECURSIVE, Attributes(0), libc::MS_PRIVATE)
}

fn set_attributes(
    at: BorrowedFd<'_>,
    path: &CStr,
    flags: libc::c_int,
    attributes: Attributes,
    propagation: u64,
) -> Result<(), Errno> {
    let changes =
        libc::mount_attr { attr_set: attributes.0, attr_clr: 0, propagation, userns_fd: 0 };
    // SAFETY: the path is NUL-terminated, and the structure has the size that is given with it;
    // both are only read.
    let set = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            at.as_raw_fd(),
            path.as_ptr(),
            flags,
            &raw const changes,
            mem::size_of_val(&changes),
        )
    };
    Errno::result(set).map(drop)
}

/// Makes a file system that is attached nowhere, with these options.
pub(super) fn new_file_system(
    kind: &CStr,
    options: &[(&CStr, &CStr)],
    attributes: Attributes,
) -> Result<OwnedFd, Errno> {
    // SAFETY: the name is NUL-terminated and outlives the call.
    let context =
        owned(unsafe { libc::syscall(libc::SYS_fsopen, kind.as_ptr(), libc::FSOPEN_CLOEXEC) })?;
    for (key, value) in options {
        configure(&context, libc::FSCONFIG_SET_STRING, key.as_ptr(), value.as_ptr())?;
    }
    configure(&context, libc::FSCONFIG_CMD_CREATE, ptr::null(), ptr::null())?;
    // SAFETY: the call takes integers and touches no memory.
    owned(unsafe {
        libc::syscall(
            libc::SYS_fsmount,
            context.as_raw_fd(),
            libc::FSMOUNT_CLOEXEC,
            attributes.0 as libc::c_uint,
        )
    })
}

/// The strings must be NUL-terminated, or null where the command takes none.
fn configure(
    context: &OwnedFd,
    command: libc::c_uint,
    key: *const libc::c_char,
    value: *const libc::c_char,
) -> Result<(), Errno> {
    // SAFETY: the strings are NUL-terminated or null, and outlive the call.
    let set =
        unsafe { libc::syscall(libc::SYS_fsconfig, context.as_raw_fd(), command, key, value, 0) };
    Errno::result(set).map(drop)
}

/// Makes the file system of `root`, the working directory, the root of every process in this
/// namespace that has the old root. The old root is mounted above the new one then, until
/// [`detach_working_directory`].
pub(super) fn pivot_to_working_directory() -> Result<(), Errno> {
    // pivot_root(2), NOTES: `pivot_root(".", ".")` needs no directory for the old root.
    // SAFETY: the paths are NUL-terminated and outlive the call.
    let done = unsafe { libc::syscall(libc::SYS_pivot_root, c".".as_ptr(), c".".as_ptr()) };
    Errno::result(done).map(drop)
}

/// Detaches what is mounted at the working directory, with all mounts below it.
pub(super) fn detach_working_directory() -> Result<(), Errno> {
    // SAFETY: the path is NUL-terminated and outlives the call.
    Errno::result(unsafe { libc::umount2(c".".as_ptr(), libc::MNT_DETACH) }).map(drop)
}

/// The result of a call that makes a descriptor.
fn owned(result: libc::c_long) -> Result<OwnedFd, Errno> {
    let raw = RawFd::try_from(Errno::result(result)?).expect("a descriptor fits its own type");
    // SAFETY: the kernel has just made this descriptor, and nothing else knows of it.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}
