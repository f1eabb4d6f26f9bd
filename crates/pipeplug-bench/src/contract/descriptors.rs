//! How many descriptors there may be.

use anyhow::Result;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Allows as many descriptors as the system lets this process have; what it starts inherits that.
///
/// # Errors
/// What the system says; none is known for a process that asks for what it has.
pub fn allow_descriptors() -> Result<()> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    Ok(setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?)
}
