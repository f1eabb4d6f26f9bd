//! Parts of the sample that host and plugin share.

use std::fs;

use sha2::{Digest as _, Sha256};

/// SHA-256 of the bytes so far, as hexadecimal digits.
pub fn hex(hash: Sha256) -> String {
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Largest memory that this process has used, in KiB: `VmHWM` of proc(5). 0 on other systems.
pub fn peak_memory() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    peak.and_then(|peak| peak.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}
