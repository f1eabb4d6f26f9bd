//! Regular files, the right to execute one, replacing one as a whole, and JSON without double keys.

mod access;
#[cfg(feature = "verify")]
mod directory_lock;
pub(crate) mod json;
mod regular_file;
mod replace;

#[cfg(target_os = "linux")]
pub(crate) use access::is_unknown_call;
pub(crate) use access::{Obstacle, is_noexec, may_execute};
#[cfg(feature = "verify")]
pub(crate) use directory_lock::DirectoryLock;
#[cfg(feature = "verify")]
pub(crate) use regular_file::DIRECTORY;
pub(crate) use regular_file::{FileError, RegularFile, kind};
#[cfg(feature = "verify")]
pub(crate) use replace::replace;
#[cfg(feature = "discovery")]
pub(crate) use replace::{make_dir, replace_private, temporary};
