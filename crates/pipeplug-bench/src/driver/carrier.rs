//! Carriers of pipeplug's bytes. The limit to compare with is the one with the same carrier.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::OpenOptionsExt as _;

use anyhow::{Context as _, Result};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::unistd::Pid;

/// The size of the pipe that the plugin reads from; 0 for a socket.
pub(super) fn of(plugin: Pid) -> Result<f64> {
    const READER: u32 = 3;
    let path = format!("/proc/{plugin}/fd/{READER}");
    let target = fs::read_link(&path).with_context(|| format!("cannot look at {path}"))?;
    if !target.to_string_lossy().starts_with("pipe:") {
        return Ok(0.0);
    }
    let pipe = OpenOptions::new().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(&path);
    let pipe = pipe.with_context(|| format!("cannot open {path}"))?;
    Ok(f64::from(fcntl(&pipe, FcntlArg::F_GETPIPE_SZ)?))
}
