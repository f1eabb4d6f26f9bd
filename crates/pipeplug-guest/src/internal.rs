//! Parts that only the command line uses.
//!
//! None of it is for users, and all of it may change with any version.

use std::io;
use std::os::fd::OwnedFd;

use crate::sys;

/// Copies a descriptor that came by its number, which stays open.
///
/// # Errors
/// There is no such descriptor, or there are too many.
pub fn copy_descriptor(number: i32) -> io::Result<OwnedFd> {
    sys::copy_up(number)
}
