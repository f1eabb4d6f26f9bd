//! From what is demanded to what the child does.

use std::path::Path;

use super::Sandbox;
use crate::process::SpawnError;
use crate::sys::Walls;

#[cfg(not(all(target_os = "linux", not(pipeplug_portable))))]
impl Sandbox {
    /// Other systems have nothing of the kind.
    pub(crate) fn walls(&self, program: &Path, _copy: Option<&Path>) -> Result<Walls, SpawnError> {
        let problem = "that needs Linux".to_owned();
        Err(SpawnError::Sandbox { path: program.to_owned(), problem })
    }
}

#[cfg(all(target_os = "linux", not(pipeplug_portable)))]
mod linux {
    use nix::sys::resource::{Resource, getrlimit};

    use super::{Path, Sandbox, SpawnError, Walls};
    use crate::sandbox::seccomp::{self, Policy};
    use crate::sandbox::{Demand, Limits, Support, files};
    use crate::sys::{self, Limit};

    /// The first ABI of Landlock that keeps a file from being truncated: Linux 6.2.
    const ABI_OF_FILES: u32 = 3;
    /// The first one that knows TCP ports: Linux 6.7.
    const ABI_OF_PORTS: u32 = 4;

    impl Sandbox {
        /// All that the child needs to confine itself; what is looked at is the copy that is executed, if there is one, and
        /// nothing that has taken its place by now.
        pub(crate) fn walls(&self, program: &Path, copy: Option<&Path>) -> Result<Walls, SpawnError> {
            let failed = |problem| SpawnError::Sandbox { path: program.to_owned(), problem };
            let support = Support::of_system();
            let missing = self.missing(support);
            if !missing.is_empty() {
                let missing = missing.join("; ");
                match self.demand {
                    Demand::All => return Err(failed(format!("{missing}; a best effort goes without"))),
                    Demand::WhatThereIs => {
                        tracing::warn!(plugin = ?program, "the sandbox lacks something: {missing}");
                    }
                }
            }
            // Landlock 1 and 2 hold most of what is demanded, and a best effort takes that.
            let ruleset =
                if support.landlock_abi > 0 { files::ruleset(self, program, copy) } else { Ok(None) };
            let policy =
                Policy { level: self.level, ports: self.ports.as_ref(), namespaces: false, terminal: false };
            let filter = if support.seccomp { seccomp::filter(&policy) } else { Ok(Vec::new()) };
            let needs_network = self.ports.as_ref().is_none_or(|ports| !ports.is_empty());
            Ok(Walls {
                limits: self.limits.resolved(),
                network: if needs_network { None } else { sys::new_network() },
                ruleset: ruleset.map_err(failed)?,
                filter: filter.map_err(failed)?,
            })
        }

        /// What is demanded and cannot be had.
        fn missing(&self, support: Support) -> Vec<String> {
            let mut missing = Vec::new();
            let Support { landlock_abi: abi, .. } = support;
            let mut landlock = |what: &str, needed: u32, linux: &str| {
                if abi < needed {
                    let has = if abi == 0 { "none".to_owned() } else { format!("ABI {abi}") };
                    missing.push(format!(
                        "{what} need Landlock ABI {needed} (Linux {linux}, with `landlock` among the LSMs that it is booted \
                         with), and there is {has}"
                    ));
                }
            };
            if self.files.is_some() {
                landlock("walls around files", ABI_OF_FILES, "6.2");
            }
            if self.ports.as_ref().is_some_and(|ports| !ports.is_empty()) {
                landlock("TCP ports", ABI_OF_PORTS, "6.7");
            }
            if !support.seccomp {
                missing.push("filters of system calls need seccomp, which this kernel lacks".to_owned());
            } else if !seccomp::is_known_machine() {
                missing.push(format!("there is no filter of system calls for {}", std::env::consts::ARCH));
            }
            missing
        }
    }

    impl Limits {
        /// As the kernel takes them, none above what this process has to keep to itself.
        fn resolved(&self) -> Vec<Limit> {
            let seconds = self.cpu.map(|time| time.as_secs() + u64::from(time.subsec_nanos() > 0));
            let known = [
                (Resource::RLIMIT_AS, self.memory, 0),
                // The second between SIGXCPU and SIGKILL.
                (Resource::RLIMIT_CPU, seconds, 1),
                (Resource::RLIMIT_NOFILE, self.open_files, 0),
                (Resource::RLIMIT_NPROC, self.processes, 0),
                (Resource::RLIMIT_FSIZE, self.file_size, 0),
                // Not 0: a core dump that goes to a program (core(5), `|` in core_pattern) heeds no limit but this one,
                // and a file of one byte is never begun (fs/coredump.c).
                (Resource::RLIMIT_CORE, Some(1), 0),
            ];
            let asked = known.into_iter().filter_map(|(resource, soft, more)| Some((resource, soft?, more)));
            asked
                .map(|(resource, soft, more)| {
                    let most = getrlimit(resource).map_or(u64::MAX, |(_, hard)| hard);
                    Limit { resource, soft: soft.min(most), hard: soft.saturating_add(more).min(most) }
                })
                .collect()
        }
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn what_is_missing_is_said_and_only_what_is_demanded() {
            let none = Support { landlock_abi: 0, seccomp: false, network_namespace: false };
            let old = Support { landlock_abi: 3, seccomp: true, network_namespace: false };
            let missing = |sandbox: &Sandbox, support| sandbox.missing(support).join("; ");
            let basic = missing(&Sandbox::basic(), none);
            assert!(basic.contains("seccomp") && !basic.contains("Landlock"), "{basic}");
            let strict = missing(&Sandbox::strict(), none);
            assert!(strict.contains("ABI 3 (Linux 6.2") && strict.contains("there is none"), "{strict}");
            assert_eq!(missing(&Sandbox::strict(), old), "");
            let ports = missing(&Sandbox::strict().connect(80), old);
            assert!(ports.contains("ABI 4 (Linux 6.7") && ports.contains("there is ABI 3"), "{ports}");
        }

        #[test]
        fn seconds_are_rounded_up_and_limits_do_not_rise() {
            use std::time::Duration;
            let limits = Limits { cpu: Some(Duration::from_millis(1001)), ..Limits::default() }.resolved();
            let cpu = limits.iter().find(|limit| limit.resource == Resource::RLIMIT_CPU).unwrap();
            assert_eq!((cpu.soft, cpu.hard), (2, 3));
            let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
            let limits = Limits { open_files: Some(u64::MAX), ..Limits::default() }.resolved();
            let files = limits.iter().find(|limit| limit.resource == Resource::RLIMIT_NOFILE).unwrap();
            assert_eq!(files.hard, most);
        }
    }
}
