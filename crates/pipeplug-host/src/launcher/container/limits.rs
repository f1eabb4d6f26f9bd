//! Limits that an engine may ignore.

use super::{Container, Engine};
use crate::launcher::Diagnosis;

/// A limit of a container.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Limit<T> {
    /// `None` is no limit.
    pub(super) value: Option<T>,
    by: LimitBy,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LimitBy {
    Default,
    Host,
}

impl<T> Limit<T> {
    pub(super) fn by_default(value: T) -> Self {
        Self { value: Some(value), by: LimitBy::Default }
    }

    pub(super) fn by_host(value: Option<T>) -> Self {
        Self { value, by: LimitBy::Host }
    }

    fn is_demanded(&self) -> bool {
        self.by == LimitBy::Host && self.value.is_some()
    }
}

/// A resource that is limited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Resource {
    Memory,
    Cpus,
    Pids,
}

impl Resource {
    const ALL: [Self; 3] = [Self::Memory, Self::Cpus, Self::Pids];

    fn in_words(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Cpus => "CPUs",
            Self::Pids => "processes",
        }
    }

    /// Options of the engines that set it.
    fn options(self) -> &'static [&'static str] {
        match self {
            Self::Memory => &["--memory", "-m"],
            Self::Cpus => &["--cpus", "--cpu-quota"],
            Self::Pids => &["--pids-limit"],
        }
    }

    /// Words of an engine that says that it ignores the limit.
    fn is_ignored(self, line: &str) -> bool {
        // Podman's, and of Podman and Docker where the kernel lacks something.
        line.contains("Resource limits are not supported and ignored")
            || match self {
                Self::Memory => {
                    line.contains("does not support memory limit")
                        && line.contains("Limitation discarded")
                }
                Self::Cpus => line.contains("CPU") && line.contains("uota discarded"),
                Self::Pids => line.contains("PIDs limit discarded"),
            }
    }
}

impl Container {
    /// The limits that the engine says it ignores: an error where the host has set one of them, and
    /// else a warning.
    pub(super) fn unmet(&self, stderr: &[String]) -> Option<Diagnosis> {
        let is_ignored = |resource: &Resource| stderr.iter().any(|line| resource.is_ignored(line));
        let ignored: Vec<_> = Resource::ALL.into_iter().filter(is_ignored).collect();
        let demanded: Vec<_> =
            ignored.iter().copied().filter(|resource| self.demands(*resource)).collect();
        let engine = self.engine;
        if ignored.is_empty() {
            return None;
        }
        if demanded.is_empty() {
            tracing::warn!(
                target: "pipeplug::limits",
                image = %self.image,
                "{engine} ignores the limits on {} here: the plugin may use as much as this user \
                 may",
                listed(&ignored)
            );
            return None;
        }
        let step = match engine {
            Engine::Docker => {
                "have the kernel's control group for it mounted where the daemon runs"
            }
            Engine::Podman => {
                "without root Podman needs cgroups v2 for it, so run it as root or with these"
            }
        };
        Some(Diagnosis::permanent(format!(
            "{engine} ignores the limit on {} that was set: {step}, or leave the limit out",
            listed(&demanded)
        )))
    }

    fn demands(&self, resource: Resource) -> bool {
        let is_set = match resource {
            Resource::Memory => self.memory.is_demanded(),
            Resource::Cpus => self.cpus.is_demanded(),
            Resource::Pids => self.pids.is_demanded(),
        };
        let of_resource = |arg: &String| {
            let name = arg.split('=').next().unwrap_or_default();
            resource.options().contains(&name)
        };
        is_set || self.engine_args.iter().any(of_resource)
    }
}

fn listed(resources: &[Resource]) -> String {
    let words: Vec<_> = resources.iter().map(|resource| resource.in_words()).collect();
    match words.split_last() {
        Some((last, rest @ [_, ..])) => format!("{} and {last}", rest.join(", ")),
        _ => words.concat(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Podman 4.3 without root, cgroups v1.
    const ROOTLESS: &str =
        "Resource limits are not supported and ignored on cgroups V1 rootless systems";

    fn unmet(container: &Container, line: &str) -> Option<String> {
        container.unmet(&["a line".to_owned(), line.to_owned()]).map(|diagnosis| {
            assert!(diagnosis.is_permanent);
            diagnosis.problem
        })
    }

    #[test]
    fn a_demanded_limit_that_is_ignored_is_an_error() {
        let container = || Container::podman("image");
        let told = unmet(&container().memory(64 << 20).pids(7), ROOTLESS).unwrap();
        assert!(
            told.starts_with("Podman ignores the limit on memory and processes that was set:"),
            "{told}"
        );
        let told = unmet(&container().cpus(0.5), ROOTLESS).unwrap();
        assert!(told.contains("the limit on CPUs that"), "{told}");
        for arg in ["--memory=64m", "-m=64m", "--memory"] {
            assert!(
                unmet(&container().engine_arg(arg), ROOTLESS).unwrap().contains("on memory that")
            );
        }
        assert_eq!(unmet(&container().memory(1 << 20), "all is well"), None);
    }

    #[test]
    fn a_default_and_no_limit_are_no_demands() {
        assert_eq!(unmet(&Container::podman("image"), ROOTLESS), None);
        assert_eq!(
            unmet(&Container::podman("image").memory(None).cpus(None).pids(None), ROOTLESS),
            None
        );
        assert_eq!(
            unmet(&Container::podman("image").engine_arg("--memory-swap=1g"), ROOTLESS),
            None
        );
    }

    #[test]
    fn a_kernel_that_lacks_one_limit_is_known_by_that() {
        let memory = "WARNING: Your kernel does not support memory limit capabilities or the \
                      cgroup is not mounted. Limitation discarded.";
        let pids = "WARNING: Your kernel does not support pids limit capabilities or the cgroup is \
                    not mounted. PIDs limit discarded.";
        let docker = || Container::docker("image");
        assert!(unmet(&docker().memory(1 << 26), memory).unwrap().contains("on memory that"));
        assert!(unmet(&docker().pids(7), pids).unwrap().contains("on processes that"));
        assert_eq!(unmet(&docker().memory(1 << 26), pids), None);
        assert_eq!(unmet(&docker().pids(7), memory), None);
    }
}
