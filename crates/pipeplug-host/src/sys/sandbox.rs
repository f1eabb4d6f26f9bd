//! Restrictions that a child puts on itself before its exec.

#[cfg(linux_sandbox)]
pub(crate) use linux::{Limit, SandboxPlan, has_seccomp};
#[cfg(not(linux_sandbox))]
pub(crate) use none::SandboxPlan;
#[cfg(all(feature = "sandbox", not(linux_sandbox)))]
pub(crate) use none::has_seccomp;

#[cfg(linux_sandbox)]
mod linux {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt as _;
    use std::path::PathBuf;

    use nix::errno::Errno;
    use nix::libc;
    use nix::sys::resource::{Resource, setrlimit};

    use super::super::landlock::Ruleset;
    use super::super::namespaces::Namespaces;
    use super::super::privileges::give_up_privileges;
    use super::super::start_step::{ChildFailure, StartStep};

    /// Restrictions that a child puts on itself. They are ready in memory, since a child of fork
    /// must not allocate.
    #[derive(Debug)]
    pub(crate) struct SandboxPlan {
        pub(crate) namespaces: Option<Namespaces>,
        pub(crate) limits: Vec<Limit>,
        pub(crate) ruleset: Option<Ruleset>,
        /// A program for seccomp; none if it is empty.
        pub(crate) filter: Vec<libc::sock_filter>,
    }

    /// A resource limit.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(crate) struct Limit {
        pub(crate) resource: Resource,
        pub(crate) soft: u64,
        pub(crate) hard: u64,
    }

    impl SandboxPlan {
        /// The path that a start failed at, if it was about one.
        pub(crate) fn failed_at(&self) -> Option<PathBuf> {
            let path = self.namespaces.as_ref()?.root.failed_at()?;
            Some(OsStr::from_bytes(path.to_bytes()).into())
        }

        /// Raises all of them around the calling process, so that nothing but an exec is to follow.
        /// For a child of fork: it only makes system calls.
        pub(in crate::sys) fn apply(&self) -> Result<(), ChildFailure> {
            let at = |step| move |errno| ChildFailure { step, errno };
            for Limit { resource, soft, hard } in &self.limits {
                setrlimit(*resource, *soft, *hard).map_err(at(StartStep::Limits))?;
            }
            give_up_privileges().map_err(at(StartStep::Privileges))?;
            if let Some(ruleset) = &self.ruleset {
                ruleset.restrict_self().map_err(at(StartStep::Files))?;
            }
            if !self.filter.is_empty() {
                install(&self.filter).map_err(at(StartStep::SystemCalls))?;
            }
            Ok(())
        }
    }

    /// Tells whether the kernel has seccomp, and lets this process ask.
    pub(crate) fn has_seccomp() -> bool {
        // SAFETY: the call takes integers and touches no memory.
        unsafe { libc::prctl(libc::PR_GET_SECCOMP, 0, 0, 0, 0) >= 0 }
    }

    fn install(filter: &[libc::sock_filter]) -> Result<(), Errno> {
        let len = libc::c_ushort::try_from(filter.len()).map_err(|_| Errno::E2BIG)?;
        let program = libc::sock_fprog { len, filter: filter.as_ptr().cast_mut() };
        // SAFETY: the kernel copies `len` instructions, which are there, and writes nothing.
        let set = unsafe {
            libc::prctl(
                libc::PR_SET_SECCOMP,
                libc::c_ulong::from(libc::SECCOMP_MODE_FILTER),
                &raw const program,
            )
        };
        Errno::result(set).map(drop)
    }
}

#[cfg(not(linux_sandbox))]
mod none {
    use std::path::PathBuf;

    use super::super::start_step::ChildFailure;

    /// Other systems have none of these, nor has a build without the feature.
    #[derive(Debug)]
    pub(crate) enum SandboxPlan {}

    impl SandboxPlan {
        pub(crate) fn failed_at(&self) -> Option<PathBuf> {
            match *self {}
        }

        pub(in crate::sys) fn apply(&self) -> Result<(), ChildFailure> {
            match *self {}
        }
    }

    #[cfg(feature = "sandbox")]
    pub(crate) fn has_seccomp() -> bool {
        false
    }
}
