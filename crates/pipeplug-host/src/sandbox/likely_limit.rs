//! The limit of a sandbox that a plugin ran into as it started, by how it ended.

use nix::sys::signal::Signal;

use super::{Limits, Sandbox};
use crate::process::WaitStatus;

/// Less address space than this is too little for most programs: libraries, stacks and the
/// allocator take it.
const LITTLE_MEMORY: u64 = 64 << 20;

/// Messages of programs, loaders and runtimes that get no memory.
const NO_MEMORY: [&str; 8] = [
    "failed to map segment",
    "annot allocate memory",
    "ut of memory",
    "emory allocation",
    "MemoryError",
    "ould not reserve",
    "failed to reserve",
    "ailed to allocate",
];
const NO_DESCRIPTORS: [&str; 3] = ["oo many open files", "Error 24", "EMFILE"];
const NO_PROCESSES: [&str; 3] = ["Resource temporarily unavailable", "annot fork", "EAGAIN"];
const TOO_LARGE: [&str; 3] = ["File too large", "ile size limit exceeded", "EFBIG"];

impl Sandbox {
    /// The limit that is the likely cause of that end, in words, with the next step; `None` where
    /// none is.
    pub(crate) fn likely_limit(&self, status: WaitStatus, stderr: &[String]) -> Option<String> {
        let Limits { memory, cpu, open_files, processes, file_size, pending_signals: _ } =
            self.limits;
        let says =
            |words: &[&str]| stderr.iter().any(|line| words.iter().any(|word| line.contains(word)));
        let by = |signals: &[Signal]| matches!(status, WaitStatus::Signaled { signal, .. } if signals.iter().any(|it| *it as i32 == signal));
        let crashes =
            [Signal::SIGSEGV, Signal::SIGBUS, Signal::SIGABRT, Signal::SIGKILL, Signal::SIGTRAP];
        if status.success() {
            return None;
        }
        if let Some(bytes) = memory
            && (says(&NO_MEMORY) || bytes < LITTLE_MEMORY && by(&crashes))
        {
            return Some(too_little(
                &format!("{bytes} bytes of address space"),
                "memory",
                "memory",
            ));
        }
        if let Some(time) = cpu
            && (by(&[Signal::SIGXCPU]))
        {
            return Some(too_little(&format!("{time:?} of CPU time"), "cpu", "cpu"));
        }
        if let Some(count) = open_files
            && says(&NO_DESCRIPTORS)
        {
            return Some(too_little(&format!("{count} open files"), "open-files", "open_files"));
        }
        if let Some(bytes) = file_size
            && (by(&[Signal::SIGXFSZ]) || says(&TOO_LARGE))
        {
            return Some(too_little(&format!("files of {bytes} bytes"), "file-size", "file_size"));
        }
        if let Some(count) = processes
            && says(&NO_PROCESSES)
        {
            return Some(too_little(
                &format!("{count} processes and threads"),
                "processes",
                "processes",
            ));
        }
        None
    }
}

fn too_little(what: &str, option: &str, method: &str) -> String {
    format!(
        "its sandbox allows it {what}, which is probably too little: allow more \
         (`--sandbox-{option}`, Sandbox::{method})"
    )
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const SEGV: WaitStatus = WaitStatus::Signaled { signal: 11, core_dumped: false };

    #[test]
    fn the_limit_that_fits_the_end_is_named() {
        let limit =
            |sandbox: Sandbox, status, line: &str| sandbox.likely_limit(status, &[line.to_owned()]);
        let memory = |bytes| Sandbox::basic().memory(bytes);
        let named = limit(memory(1024), SEGV, "").unwrap();
        assert_eq!(
            named,
            "its sandbox allows it 1024 bytes of address space, which is probably too little: \
             allow more (`--sandbox-memory`, Sandbox::memory)"
        );
        assert_eq!(limit(memory(4 << 30), SEGV, ""), None, "that is a bug of its own");
        assert_eq!(
            limit(Sandbox::basic(), SEGV, "Cannot allocate memory"),
            None,
            "there is no limit"
        );
        let loader = "libm.so.6: failed to map segment from shared object";
        assert!(limit(memory(16 << 20), WaitStatus::Exited(127), loader).is_some());
        assert_eq!(limit(memory(16 << 20), WaitStatus::Exited(3), "no such option"), None);
        assert_eq!(limit(memory(1024), WaitStatus::Exited(0), ""), None);

        let full =
            Sandbox::basic().open_files(3).processes(1).file_size(5).cpu(Duration::from_secs(1));
        let signaled = |signal| WaitStatus::Signaled { signal: signal as i32, core_dumped: false };
        for (status, line, part) in [
            (WaitStatus::Exited(1), "sh: 1: Cannot fork", "1 processes"),
            (
                WaitStatus::Exited(127),
                "libgcc_s.so.1: cannot open shared object file: Error 24",
                "3 open files",
            ),
            (signaled(Signal::SIGXFSZ), "", "files of 5 bytes"),
            (signaled(Signal::SIGXCPU), "", "1s of CPU time"),
        ] {
            let named = limit(full.clone(), status, line).unwrap();
            assert!(named.contains(part), "{named}");
        }
    }
}
