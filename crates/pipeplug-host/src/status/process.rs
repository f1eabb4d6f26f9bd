//! Processes as the system tells of them: proc(5). Other systems tell nothing here.

use std::fs;

use nix::errno::Errno;
use nix::sys::signal::kill;
use nix::unistd::{Pid, SysconfVar, sysconf};

use crate::process::Stat;

/// Limit of the processes whose memory is added up.
const SUMMED_AT_MOST: usize = 1024;

/// Time of the start of a process, in clock ticks since boot. `None` once it has ended.
pub(super) fn started(pid: i32) -> Option<u64> {
    Stat::of(pid).filter(|stat| !stat.has_ended).map(|stat| stat.begun)
}

/// Tells whether the process that began then still runs. A process id is used again.
pub(super) fn runs(pid: i32, begun: u64) -> bool {
    if cfg!(target_os = "linux") {
        return started(pid) == Some(begun);
    }
    pid > 0 && matches!(kill(Pid::from_raw(pid), None), Ok(()) | Err(Errno::EPERM))
}

/// Resident memory of a process, in bytes.
pub(super) fn memory(pid: i32) -> Option<u64> {
    // Field 2 of `statm` is the number of resident pages.
    let sizes = fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
    let pages: u64 = sizes.split_whitespace().nth(1)?.parse().ok()?;
    let page = u64::try_from(sysconf(SysconfVar::PAGE_SIZE).ok()??).ok()?;
    pages.checked_mul(page)
}

/// Resident memory of a process and its descendants, in bytes. Memory that they share counts for
/// each.
pub(super) fn memory_with_descendants(pid: i32) -> Option<u64> {
    let mut sum = memory(pid)?;
    let (mut parents, mut seen) = (vec![pid], 1);
    while let Some(parent) = parents.pop() {
        for child in crate::process::children(parent) {
            seen += 1;
            if seen > SUMMED_AT_MOST {
                return Some(sum);
            }
            sum = sum.saturating_add(memory(child).unwrap_or(0));
            parents.push(child);
        }
    }
    Some(sum)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_its_number_and_its_start() {
        let pid = std::process::id().cast_signed();
        let begun = started(pid).unwrap();
        assert!(runs(pid, begun));
        assert!(!runs(pid, begun - 1), "another process of that number");
        assert!(!runs(i32::MAX, begun) && !runs(-1, begun) && !runs(0, begun));
    }

    #[test]
    fn memory_is_that_of_all_processes() {
        let pid = std::process::id().cast_signed();
        let own = memory(pid).unwrap();
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let with_child = memory_with_descendants(pid).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(own > 1 << 20, "{own}");
        assert!(with_child > own / 2 && with_child < own * 100, "{own} {with_child}");
        assert_eq!(memory(i32::MAX), None);
    }
}
