//! Pinned plugins: SHA-256 sums, and the lock file that lists them.

mod lock_file;
mod sha256;

pub use lock_file::{LockFile, LockFileError, LockFileErrorKind};
pub use sha256::{ParseSha256Error, Sha256};
