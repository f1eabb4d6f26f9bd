//! What a child takes away from itself ahead of its exec.

#[cfg(all(target_os = "linux", not(pipeplug_portable)))]
pub(crate) use linux::{Limit, OpenImage, Walls, has_seccomp, landlock_abi, new_network};
#[cfg(not(all(target_os = "linux", not(pipeplug_portable))))]
pub(crate) use none::{OpenImage, Walls, has_seccomp, landlock_abi, new_network};

#[cfg(all(target_os = "linux", not(pipeplug_portable)))]
mod linux {
    use std::ffi::{CStr, CString};
    use std::os::fd::{AsRawFd, OwnedFd, RawFd};
    use std::path::PathBuf;
    use std::ptr;
    use std::sync::OnceLock;

    use nix::errno::Errno;
    use nix::fcntl::{OFlag, open};
    use nix::libc;
    use nix::sched::{CloneFlags, unshare};
    use nix::sys::prctl::set_no_new_privs;
    use nix::sys::resource::{Resource, setrlimit};
    use nix::sys::signal::{SigSet, SigmaskHow};
    use nix::sys::stat::Mode;
    use nix::unistd::{self, getegid, geteuid};

    use super::super::fork::{Child, Failure, fork};
    use super::super::fork_exec::Step;
    use super::super::{Look, block_until_exit, exit_status};

    /// More capabilities than any kernel has; asking for one that it does not have is EINVAL.
    const CAPABILITIES: libc::c_ulong = 64;
    /// `LANDLOCK_CREATE_RULESET_VERSION` of `<linux/landlock.h>`.
    const LANDLOCK_VERSION: libc::c_uint = 1;
    /// `_LINUX_CAPABILITY_VERSION_3` of `<linux/capability.h>`.
    const CAPABILITY_VERSION: u32 = 0x2008_0522;

    /// What a child takes away from itself; ready in memory, since a child of fork must not allocate.
    #[derive(Debug)]
    pub(crate) struct Walls {
        pub(crate) limits: Vec<Limit>,
        /// The way to a network namespace of its own, where it is to have one.
        pub(crate) network: Option<&'static NewNetwork>,
        /// A Landlock ruleset, clear of the guest's numbers.
        pub(crate) ruleset: Option<OwnedFd>,
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

    /// A program that is executed as it was when it was opened, whatever is at its path by then.
    #[derive(Debug)]
    pub(crate) enum OpenImage {
        /// The kernel reads it.
        Program(OwnedFd),
        /// An interpreter opens it anew, by its number: the guest has it behind its other descriptors.
        Script(OwnedFd),
    }

    impl OpenImage {
        /// A path that leads to it, in this process.
        pub(crate) fn path(&self) -> PathBuf {
            let (Self::Program(fd) | Self::Script(fd)) = self;
            format!("/proc/self/fd/{}", fd.as_raw_fd()).into()
        }
    }

    impl Walls {
        /// Raises all of them around the calling process, so that nothing but an exec is to follow. For a child of fork:
        /// it only makes system calls.
        pub(in crate::sys) fn raise(&self) -> Result<(), Failure> {
            let at = |step| move |errno| Failure { step, errno };
            // Ahead of the limits: it may open files, and all of the host's are open still.
            if let Some(network) = self.network {
                network.enter().map_err(at(Step::Namespace))?;
            }
            for Limit { resource, soft, hard } in &self.limits {
                setrlimit(*resource, *soft, *hard).map_err(at(Step::Limits))?;
            }
            drop_capabilities().map_err(at(Step::Privileges))?;
            // Without it, Landlock and seccomp are for root only.
            set_no_new_privs().map_err(at(Step::Privileges))?;
            if let Some(ruleset) = &self.ruleset {
                restrict_self(ruleset.as_raw_fd()).map_err(at(Step::Files))?;
            }
            if !self.filter.is_empty() {
                install(&self.filter).map_err(at(Step::SystemCalls))?;
            }
            Ok(())
        }
    }

    /// How a process here gets a network namespace of its own.
    #[derive(Debug)]
    pub(crate) enum NewNetwork {
        /// With the privileges that it has.
        Privileged,
        /// Within a user namespace, in which its ids stay what they are.
        WithUser { uid_map: CString, gid_map: CString },
    }

    impl NewNetwork {
        fn enter(&self) -> Result<(), Errno> {
            let Self::WithUser { uid_map, gid_map } = self else {
                return unshare(CloneFlags::CLONE_NEWNET);
            };
            unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNET)?;
            // Without privileges outside, the groups are to be given up first: user_namespaces(7).
            write_file(c"/proc/self/setgroups", c"deny")?;
            write_file(c"/proc/self/gid_map", gid_map)?;
            write_file(c"/proc/self/uid_map", uid_map)
        }
    }

    /// The way to a network namespace, if there is one: a child has tried it, once for all.
    pub(crate) fn new_network() -> Option<&'static NewNetwork> {
        static WAY: OnceLock<Option<NewNetwork>> = OnceLock::new();
        WAY.get_or_init(|| {
            let map =
                |id: u32| CString::new(format!("{id} {id} 1\n")).expect("digits and spaces hold no NUL");
            let ways = [
                NewNetwork::Privileged,
                NewNetwork::WithUser { uid_map: map(geteuid().as_raw()), gid_map: map(getegid().as_raw()) },
            ];
            ways.into_iter().find(works)
        })
        .as_ref()
    }

    fn works(way: &NewNetwork) -> bool {
        struct Try<'a>(&'a NewNetwork);

        impl Child for Try<'_> {
            fn run(&self) -> Failure {
                // Having nothing to execute, it says so in either case.
                let errno = self.0.enter().err().unwrap_or(Errno::UnknownErrno);
                Failure { step: Step::Namespace, errno }
            }
        }

        // With every signal blocked across the fork, no handler of the host runs in the child.
        let Ok(mask) = SigSet::all().thread_swap_mask(SigmaskHow::SIG_SETMASK) else { return false };
        let tried = fork(&Try(way));
        mask.thread_set_mask().expect("a mask that was in force can be set again");
        match tried {
            Ok((pid, failure)) => {
                // It is about to exit. Where SIGCHLD is ignored it is gone already, which is as good.
                let _ = block_until_exit(pid);
                let _ = exit_status(pid, Look::Reap);
                failure.is_some_and(|failure| failure.errno == Errno::UnknownErrno)
            }
            Err(_) => false,
        }
    }

    /// The version of Landlock that the kernel has; 0 for none.
    pub(crate) fn landlock_abi() -> u32 {
        // SAFETY: asked for the version, the call takes no attributes and touches no memory.
        let version = unsafe {
            libc::syscall(libc::SYS_landlock_create_ruleset, ptr::null::<u8>(), 0, LANDLOCK_VERSION)
        };
        u32::try_from(version).unwrap_or(0)
    }

    /// Whether the kernel has seccomp, and lets this process ask.
    pub(crate) fn has_seccomp() -> bool {
        // SAFETY: the call takes integers and touches no memory.
        unsafe { libc::prctl(libc::PR_GET_SECCOMP, 0, 0, 0, 0) >= 0 }
    }

    fn restrict_self(ruleset: RawFd) -> Result<(), Errno> {
        // SAFETY: the call takes two integers and touches no memory.
        Errno::result(unsafe { libc::syscall(libc::SYS_landlock_restrict_self, ruleset, 0) }).map(drop)
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

    /// Gives up every capability, those of a root that executes something included: capabilities(7).
    fn drop_capabilities() -> Result<(), Errno> {
        #[repr(C)]
        struct Header {
            version: u32,
            pid: libc::c_int,
        }
        #[repr(C)]
        struct Data {
            effective: u32,
            permitted: u32,
            inheritable: u32,
        }
        for capability in 0..CAPABILITIES {
            // SAFETY: the call takes integers and touches no memory.
            let dropped = unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) };
            match Errno::result(dropped) {
                // EINVAL: the kernel has no more. EPERM: a process without privileges, which gets none of these either,
                // since it executes nothing with new ones.
                Ok(_) | Err(Errno::EINVAL | Errno::EPERM) => {}
                Err(errno) => return Err(errno),
            }
        }
        let header = Header { version: CAPABILITY_VERSION, pid: 0 };
        let none = || Data { effective: 0, permitted: 0, inheritable: 0 };
        let data = [none(), none()];
        // SAFETY: this version of the header goes with two elements of data, and both are only read. The ambient
        // capabilities go with the permitted ones.
        let set = unsafe { libc::syscall(libc::SYS_capset, &raw const header, data.as_ptr()) };
        Errno::result(set).map(drop)
    }

    fn write_file(path: &CStr, text: &CStr) -> Result<(), Errno> {
        let file = open(path, OFlag::O_WRONLY | OFlag::O_CLOEXEC, Mode::empty())?;
        unistd::write(&file, text.to_bytes()).map(drop)
    }
}

#[cfg(not(all(target_os = "linux", not(pipeplug_portable))))]
mod none {
    use std::path::PathBuf;

    use super::super::fork::Failure;

    /// Other systems have none of these.
    #[derive(Debug)]
    pub(crate) enum Walls {}

    impl Walls {
        pub(in crate::sys) fn raise(&self) -> Result<(), Failure> {
            match *self {}
        }
    }

    /// Other systems execute files by their paths.
    #[derive(Debug)]
    pub(crate) enum OpenImage {}

    impl OpenImage {
        pub(crate) fn path(&self) -> PathBuf {
            match *self {}
        }
    }

    /// There is no way to one.
    pub(crate) fn new_network() -> Option<&'static ()> {
        None
    }

    pub(crate) fn landlock_abi() -> u32 {
        0
    }

    pub(crate) fn has_seccomp() -> bool {
        false
    }
}
