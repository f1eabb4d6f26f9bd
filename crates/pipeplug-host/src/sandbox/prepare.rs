//! From what is demanded to what the child does.

#[cfg(not(linux_native))]
use super::{Extent, Plugin, Prepared, Sandbox};
#[cfg(not(linux_native))]
use crate::process::SpawnErrorKind;

#[cfg(not(linux_native))]
impl Sandbox {
    /// Other systems have nothing of the kind.
    pub(crate) fn prepare(
        &self,
        _plugin: Plugin<'_>,
        _extent: Extent,
    ) -> Result<Prepared, SpawnErrorKind> {
        let problem = "that needs Linux".to_owned();
        Err(SpawnErrorKind::Sandbox { problem })
    }

    pub(crate) fn go_without(
        &self,
        _plugin: Plugin<'_>,
        missing: &str,
    ) -> Result<(), SpawnErrorKind> {
        let problem = missing.to_owned();
        Err(SpawnErrorKind::Sandbox { problem })
    }
}

#[cfg(linux_native)]
mod linux {
    use std::ffi::CString;
    use std::sync::OnceLock;
    use std::{fs, io};

    use nix::sys::resource::{Resource, getrlimit};

    use crate::process::{OnHostExit, SpawnErrorKind};
    use crate::sandbox::grants::OwnRoot;
    use crate::sandbox::seccomp::{self, Policy};
    use crate::sandbox::{
        Demand, Extent, ImageKind, Level, Limits, Plugin, Ports, Prepared, Sandbox, SandboxSupport,
        Terminal, grants, landlock, root,
    };
    use crate::sys::{self, IdMaps, Init, InitOnHostExit, Limit, Namespaces, Network, SandboxPlan};

    /// The first ABI of Landlock that keeps a file from being truncated: Linux 6.2.
    const ABI_OF_FILES: u32 = 3;
    /// The first one that knows TCP ports: Linux 6.7.
    const ABI_OF_PORTS: u32 = 4;

    /// Number of processes and threads that a plugin may have in its own namespaces.
    const PROCESSES_WITHIN: u64 = 1024;

    impl Sandbox {
        /// All that the child needs to confine itself.
        pub(crate) fn prepare(
            &self,
            plugin: Plugin<'_>,
            extent: Extent,
        ) -> Result<Prepared, SpawnErrorKind> {
            let failed = |problem| SpawnErrorKind::Sandbox { problem };
            let mut namespaces = self.level == Level::Strict && extent == Extent::Whole;
            // It is in memory, which memfd_create(2) may be kept from making.
            if namespaces && let Err(error) = sys::program::init() {
                self.go_without(plugin, &format!("the init of its pid namespace: {error}"))?;
                namespaces = false;
            }
            let missing = self.missing(SandboxSupport::of_kernel(), namespaces);
            if !missing.is_empty() {
                self.go_without(plugin, &missing.join("; "))?;
            }
            self.prepare_as_far(plugin, namespaces).map_err(|error| match error {
                Unprepared::Program(error) => SpawnErrorKind::of_exec(plugin.program, error),
                Unprepared::Grant(problem) => SpawnErrorKind::Grant { problem, is_permanent: true },
                Unprepared::Other(problem) => failed(problem),
            })
        }

        /// Goes on without something, where that was asked for.
        pub(crate) fn go_without(
            &self,
            plugin: Plugin<'_>,
            missing: &str,
        ) -> Result<(), SpawnErrorKind> {
            match self.demand {
                Demand::All => Err(SpawnErrorKind::Sandbox { problem: missing.to_owned() }),
                Demand::WhatThereIs => {
                    tracing::warn!(plugin = ?plugin.program, "the sandbox lacks something: \
                                                            {missing}");
                    Ok(())
                }
            }
        }

        fn prepare_as_far(
            &self,
            plugin: Plugin<'_>,
            namespaces: bool,
        ) -> Result<Prepared, Unprepared> {
            let support = SandboxSupport::of_kernel();
            let (mut system, mut granted, mut program) = (Vec::new(), Vec::new(), None);
            let own_root = if namespaces { OwnRoot::Yes } else { OwnRoot::No };
            if let Some(files) = &self.files {
                system = grants::of_system();
                if !namespaces {
                    system.extend(grants::of_proc());
                }
                granted = grants::of_host(files, own_root).map_err(Unprepared::Grant)?;
                if plugin.image == ImageKind::File {
                    let grant = grants::of_program(plugin.program, &granted);
                    program = Some(grant.map_err(Unprepared::Program)?);
                }
            }
            let mut limits = self.limits.resolved();
            let (namespaces, host_alive) = if namespaces {
                let (host_alive, writer) =
                    sys::pipe().map_err(|error| format!("making a pipe: {error}"))?;
                let program_of_init = sys::program::init()
                    .map_err(|error| format!("the init of its pid namespace: {error}"))?;
                limits.push_open_files();
                limits.push_processes();
                let on_host_exit = match plugin.on_host_exit {
                    OnHostExit::Kill => InitOnHostExit::Ends,
                    OnHostExit::EndOfFile => InitOnHostExit::WaitsForPlugin,
                };
                let namespaces = Namespaces {
                    network: self.network(),
                    ids: IdMaps::of_self(),
                    root: root::lay_out(&system, &granted, program.as_ref(), self.scratch),
                    init: Init { program: program_of_init, host_alive, on_host_exit },
                    pid_max: pid_max(self.limits.processes.unwrap_or(PROCESSES_WITHIN)),
                };
                (Some(namespaces), Some(writer))
            } else {
                (None, None)
            };
            let grants: Vec<_> = system.into_iter().chain(granted).chain(program).collect();
            // Landlock 1 and 2 hold most of what is demanded, and a best effort takes that.
            let ruleset = if support.landlock_abi > 0 {
                landlock::ruleset(
                    self.files.as_ref().map(|_| grants.as_slice()),
                    self.ports.as_ref(),
                )?
            } else {
                None
            };
            let policy = Policy {
                level: self.level,
                ports: self.ports.as_ref(),
                files: self.files.is_some(),
                namespaces: namespaces.is_some(),
                terminal: plugin.terminal == Terminal::Granted,
            };
            let filter = if support.seccomp { seccomp::filter(&policy)? } else { Vec::new() };
            Ok(Prepared {
                sandbox: SandboxPlan { namespaces, limits: limits.0, ruleset, filter },
                host_alive,
            })
        }

        fn network(&self) -> Network {
            if self.ports.as_ref().is_some_and(Ports::is_empty) {
                Network::Own
            } else {
                Network::OfHost
            }
        }

        /// Names the demands that this system cannot meet.
        fn missing(&self, support: SandboxSupport, namespaces: bool) -> Vec<String> {
            let mut missing = Vec::new();
            let SandboxSupport { landlock_abi: abi, .. } = support;
            let mut landlock = |what: &str, needed: u32, linux: &str| {
                if abi < needed {
                    let has = if abi == 0 { "none".to_owned() } else { format!("ABI {abi}") };
                    missing.push(format!(
                        "{what} need Landlock ABI {needed} (Linux {linux}, with `landlock` among \
                         the LSMs that it is booted with), and there is {has}"
                    ));
                }
            };
            // Within a root of its own it is the second layer.
            if self.files.is_some() && !namespaces {
                landlock("limits on files", ABI_OF_FILES, "6.2");
            }
            if self.ports.as_ref().is_some_and(|ports| !ports.is_empty()) {
                landlock("TCP ports", ABI_OF_PORTS, "6.7");
            }
            if !support.seccomp {
                missing.push(
                    "filters of system calls need seccomp, which this kernel lacks".to_owned(),
                );
            } else if !seccomp::is_known_machine() {
                missing.push(format!(
                    "there is no filter of system calls for {}",
                    std::env::consts::ARCH
                ));
            }
            missing
        }
    }

    /// The number that leaves room for so many processes and threads, where a pid namespace has one
    /// of its own: since Linux 6.14. Before, writing it would change that of the machine.
    fn pid_max(processes: u64) -> Option<CString> {
        /// Lower numbers are not given away a second time (RESERVED_PIDS of kernel/pid.c).
        const RESERVED: u64 = 300;
        static IS_OWN: OnceLock<bool> = OnceLock::new();
        let is_own = IS_OWN.get_or_init(|| {
            let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
            version(&release).is_some_and(|version| version >= (6, 14))
        });
        let highest = RESERVED.saturating_add(processes.max(1)).min(u64::from(u32::MAX >> 10));
        is_own.then(|| CString::new(highest.to_string()).expect("digits hold no NUL"))
    }

    /// The first two numbers of a kernel's release, as in `6.14.0-27-generic`.
    fn version(release: &str) -> Option<(u32, u32)> {
        let (major, rest) = release.split_once('.')?;
        let minor: String = rest.chars().take_while(char::is_ascii_digit).collect();
        Some((major.parse().ok()?, minor.parse().ok()?))
    }

    /// The reason for which a sandbox is not prepared.
    enum Unprepared {
        /// The program cannot be opened.
        Program(io::Error),
        /// A file or directory cannot be granted.
        Grant(String),
        /// Anything else, in words.
        Other(String),
    }

    impl From<String> for Unprepared {
        fn from(problem: String) -> Self {
            Self::Other(problem)
        }
    }

    impl Limits {
        /// Limits as the kernel takes them, none above the limits of this process.
        fn resolved(&self) -> Resolved {
            let seconds = self.cpu.map(|time| time.as_secs() + u64::from(time.subsec_nanos() > 0));
            let known = [
                (Resource::RLIMIT_AS, self.memory, 0),
                // The second between SIGXCPU and SIGKILL.
                (Resource::RLIMIT_CPU, seconds, 1),
                (Resource::RLIMIT_NOFILE, self.open_files, 0),
                (Resource::RLIMIT_NPROC, self.processes, 0),
                (Resource::RLIMIT_FSIZE, self.file_size, 0),
                // Not 0: a core dump that goes to a program (core(5), `|` in core_pattern) heeds no
                // limit but this one, and a file of one byte is never begun (fs/coredump.c).
                (Resource::RLIMIT_CORE, Some(1), 0),
                (Resource::RLIMIT_SIGPENDING, self.pending_signals, 0),
            ];
            let asked = known
                .into_iter()
                .filter_map(|(resource, soft, more)| Some((resource, soft?, more)));
            let resolved = asked.map(|(resource, soft, more)| {
                let most = getrlimit(resource).map_or(u64::MAX, |(_, hard)| hard);
                Limit { resource, soft: soft.min(most), hard: soft.saturating_add(more).min(most) }
            });
            Resolved(resolved.collect())
        }
    }

    /// Limits as the kernel takes them.
    struct Resolved(Vec<Limit>);

    impl Resolved {
        /// Adds the host's own limit of open files, which is raised while namespaces are made,
        /// unless there is another.
        fn push_open_files(&mut self) {
            let resource = Resource::RLIMIT_NOFILE;
            if self.0.iter().all(|limit| limit.resource != resource)
                && let Ok((soft, hard)) = getrlimit(resource)
            {
                self.0.push(Limit { resource, soft, hard });
            }
        }

        /// Adds a limit of processes and threads, unless there is one. Within a user namespace it
        /// counts those of the plugin alone (Linux 5.14), so that none of the host's user has to be
        /// known; it does not hold for root.
        fn push_processes(&mut self) {
            let resource = Resource::RLIMIT_NPROC;
            if self.0.iter().all(|limit| limit.resource != resource)
                && let Ok((_, most)) = getrlimit(resource)
            {
                let limit = PROCESSES_WITHIN.min(most);
                self.0.push(Limit { resource, soft: limit, hard: limit });
            }
        }
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn what_is_missing_is_said_and_only_what_is_demanded() {
            let none = SandboxSupport { landlock_abi: 0, seccomp: false, namespaces: false };
            let old = SandboxSupport { landlock_abi: 3, seccomp: true, namespaces: false };
            let missing = |sandbox: &Sandbox, support| sandbox.missing(support, false).join("; ");
            let basic = missing(&Sandbox::basic(), none);
            assert!(basic.contains("seccomp") && !basic.contains("Landlock"), "{basic}");
            let strict = missing(&Sandbox::strict(), none);
            assert!(
                strict.contains("ABI 3 (Linux 6.2") && strict.contains("there is none"),
                "{strict}"
            );
            assert_eq!(missing(&Sandbox::strict(), old), "");
            let ports = missing(&Sandbox::strict().connect(80), old);
            assert!(
                ports.contains("ABI 4 (Linux 6.7") && ports.contains("there is ABI 3"),
                "{ports}"
            );
        }

        #[test]
        fn the_version_of_a_kernel_is_read_from_its_release() {
            assert_eq!(version("6.14.0-27-generic\n"), Some((6, 14)));
            assert_eq!(version("5.10-rc1"), Some((5, 10)));
            assert_eq!(version("unknown"), None);
            assert!((6, 9) < (6, 14) && (7, 0) > (6, 14));
        }

        #[test]
        fn seconds_are_rounded_up_and_limits_do_not_rise() {
            use std::time::Duration;
            let limits =
                Limits { cpu: Some(Duration::from_millis(1001)), ..Limits::default() }.resolved().0;
            let cpu = limits.iter().find(|limit| limit.resource == Resource::RLIMIT_CPU).unwrap();
            assert_eq!((cpu.soft, cpu.hard), (2, 3));
            let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
            let limits = Limits { open_files: Some(u64::MAX), ..Limits::default() }.resolved().0;
            let files =
                limits.iter().find(|limit| limit.resource == Resource::RLIMIT_NOFILE).unwrap();
            assert_eq!(files.hard, most);
        }
    }
}
