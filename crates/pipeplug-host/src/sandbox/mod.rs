//! Sandbox: limits what a plugin may do to the machine that it runs on.

#[cfg(linux_native)]
mod grants;
mod in_words;
#[cfg(linux_native)]
mod landlock;
mod likely_limit;
mod prepare;
#[cfg(linux_native)]
mod refusal;
#[cfg(linux_native)]
mod root;
#[cfg(linux_native)]
mod seccomp;
mod start;
mod support;

use std::path::PathBuf;
use std::time::Duration;

#[cfg(linux_native)]
pub(crate) use grants::is_of_programs;
#[cfg(linux_native)]
pub(crate) use refusal::refusal;
pub(crate) use start::{Extent, ImageKind, Plugin, Prepared, Terminal};
pub use support::SandboxSupport;

/// Limits what a plugin may do to the machine that it runs on.
///
/// A process of its own protects against crashes, not against malice: a plugin may do whatever its
/// user may. The kernel takes that away before the plugin's first instruction. There are two
/// levels, which can be changed:
///
/// - [`basic`](Sandbox::basic) leaves the plugin in the host's world, without privileges and
///   without the system calls that no plugin needs.
/// - [`strict`](Sandbox::strict) gives it a world of its own. Files that were not granted are not
///   there: namespaces for files, processes, network, IPC and users, with Landlock and an allow list
///   of system calls as a second layer.
///
/// docs/security.md of the project says for each promise what enforces it, and which kernel that
/// needs.
///
/// ```no_run
/// use pipeplug_host::{Plugin, Sandbox};
///
/// let sandbox = Sandbox::strict().read("/usr/share/dict").write("/var/cache/spell");
/// let plugin = Plugin::builder("./spell").sandbox(sandbox).start()?;
/// # Ok::<(), pipeplug_host::StartError>(())
/// ```
///
/// A sandbox needs Linux. It holds for the plugin and for everything that the plugin starts. If the
/// kernel cannot do what was demanded, the plugin is not started, unless
/// [`best_effort`](Sandbox::best_effort) allows it.
///
/// In both levels the plugin
/// - has no capabilities, also where the host is root, and gains none by executing anything
///   (`no_new_privs`);
/// - has a session of its own, and no terminal as its standard output: where the host's is one,
///   [`Stdout::Inherit`](crate::Stdout::Inherit) is as [`Stdout::Log`](crate::Stdout::Log).
///   [`Stdin::Inherit`](crate::Stdin::Inherit) grants the terminal, which it needs;
/// - writes no core dumps;
/// - cannot make the system calls that no plugin needs, among them `ptrace`, `mount`, `bpf`,
///   `kexec_load`, `keyctl`, `unshare`, `io_uring_setup`, and sockets that are raw or for packets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sandbox {
    pub(crate) level: Level,
    pub(crate) limits: Limits,
    /// Every file, if there is none.
    pub(crate) files: Option<Files>,
    /// The host's network, if there is none.
    pub(crate) ports: Option<Ports>,
    /// The size of each file system in memory, in bytes.
    pub(crate) scratch: u64,
    pub(crate) demand: Demand,
}

/// The base of a sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Level {
    /// The host's world, less what no plugin needs.
    Basic,
    /// A world of its own, with what was granted in it.
    Strict,
}

/// Resource limits, as setrlimit(2) has them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Limits {
    pub(crate) memory: Option<u64>,
    pub(crate) cpu: Option<Duration>,
    pub(crate) open_files: Option<u64>,
    pub(crate) processes: Option<u64>,
    pub(crate) file_size: Option<u64>,
    /// Signals that wait, and timers, which have one each: the kernel counts those of all processes
    /// of a user, so that none would be left for the host's.
    pub(crate) pending_signals: Option<u64>,
}

/// The files that may be used, beside those that every program needs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Files {
    /// Files to read and execute.
    pub(crate) read: Vec<PathBuf>,
    /// Files to read only.
    pub(crate) look_at: Vec<PathBuf>,
    pub(crate) write: Vec<PathBuf>,
    /// Bounds of files that a plugin has asked for.
    pub(crate) declared: Vec<DeclaredFile>,
    /// Files that no grant may let be written to.
    pub(crate) not_writable: Vec<PathBuf>,
}

/// A file that a plugin has asked for, which no symbolic link may lead away from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DeclaredFile {
    pub(crate) path: PathBuf,
    /// Path of the open file. `None` if it may be anywhere, since the path is the system's own.
    pub(crate) real: Option<PathBuf>,
}

/// The TCP ports that may be used.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Ports {
    pub(crate) connect: Vec<u16>,
    pub(crate) bind: Vec<u16>,
}

/// Other systems have no sandbox that a program could be out of.
#[cfg(not(linux_native))]
pub(crate) fn is_of_programs(_path: &std::path::Path) -> bool {
    true
}

/// Other systems are asked for no namespaces.
#[cfg(not(linux_native))]
pub(crate) fn refusal(_failure: &crate::sys::ForkExecError) -> Option<String> {
    None
}

impl Ports {
    #[cfg(linux_native)]
    pub(crate) fn is_empty(&self) -> bool {
        self.connect.is_empty() && self.bind.is_empty()
    }
}

/// Treatment of a kernel that cannot do all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Demand {
    All,
    WhatThereIs,
}

impl Sandbox {
    /// The size of `/tmp` and of `/dev/shm` in a strict sandbox, in bytes, unless
    /// [`scratch`](Self::scratch) says otherwise.
    pub const SCRATCH: u64 = 64 << 20;

    /// The level that every plugin can live with: the list above, and nothing else.
    ///
    /// Files, network and processes are the host's, and so is whatever is reached by them: a plugin
    /// may open the user's terminal by its path, talk to a session bus, or start a process that
    /// outlives it.
    ///
    /// Once [`read`](Self::read) or [`write`](Self::write) name files, it cannot change modes,
    /// owners, times and attributes, nor watch files: the kernel would let it do so with all
    /// others.
    #[must_use]
    pub fn basic() -> Self {
        Self {
            level: Level::Basic,
            limits: Limits::default(),
            files: None,
            ports: None,
            scratch: Self::SCRATCH,
            demand: Demand::All,
        }
    }

    /// The level for plugins that are not trusted: what was not granted is not there.
    ///
    /// Beside the list above, the plugin has
    /// - a root file system with its own file, the system's programs and libraries (`/usr`, `/lib`,
    ///   …, read only), a few files of `/etc` and `/sys` that programs look at when they start, and
    ///   what [`read`](Self::read) and [`write`](Self::write) grant. `/proc`, `/dev`, `/tmp` and
    ///   `/dev/shm` are its own, the last two in memory and of a limited size
    ///   ([`scratch`](Self::scratch));
    /// - its own processes and no others: the kernel kills all of them when the plugin ends, is
    ///   stopped, or its host ends, whatever session or process group they are in;
    /// - an empty network, and no sockets but pairs that are connected to each other;
    ///   [`connect`](Self::connect) and [`bind`](Self::bind) allow TCP ports, in the host's
    ///   network;
    /// - the system calls of an allow list: others fail with EPERM, or with ENOSYS where programs
    ///   then try another way;
    /// - 4 GiB of address space, 256 open files, 1024 signals that wait and timers, files of 1 GiB
    ///   at most, and 1024 processes and threads.
    ///
    /// The program's interpreter is not granted with it: one outside of the system's directories
    /// needs a [`read`](Self::read).
    ///
    /// It needs Linux 5.14 with user namespaces that this user may make (or the privileges of
    /// root), and 6.7 with Landlock for ports. Without namespaces it does not start; a
    /// [`best_effort`](Self::best_effort) then confines the plugin with Landlock (Linux 6.2) and
    /// the allow list, as far as those go.
    #[must_use]
    pub fn strict() -> Self {
        let limits = Limits {
            memory: Some(4 << 30),
            open_files: Some(256),
            file_size: Some(1 << 30),
            pending_signals: Some(1024),
            ..Limits::default()
        };
        Self {
            level: Level::Strict,
            limits,
            files: Some(Files::default()),
            ports: Some(Ports::default()),
            scratch: Self::SCRATCH,
            demand: Demand::All,
        }
    }

    /// The files that were granted; `None` where every file may be used.
    pub(crate) fn granted(&self) -> Option<impl Iterator<Item = &PathBuf>> {
        self.files.as_ref().map(|files| files.read.iter().chain(&files.look_at).chain(&files.write))
    }

    /// Tells whether nothing of a strict sandbox is left out, on any system.
    pub(crate) fn is_strict_in_full(&self) -> bool {
        self.level == Level::Strict && self.demand == Demand::All
    }

    /// Tells whether a plugin has a root file system of its own in it.
    pub(crate) fn has_root(&self) -> bool {
        self.level == Level::Strict
    }

    /// Limits the address space of each process, in bytes. Allocations past it fail. Runtimes that
    /// reserve much more than they use (a JVM, Go with cgo, WebAssembly) need a lot.
    #[must_use]
    pub fn memory(mut self, bytes: u64) -> Self {
        self.limits.memory = Some(bytes);
        self
    }

    /// Limits the CPU time of each process, rounded up to seconds. SIGXCPU ends a process past it,
    /// and SIGKILL one second later.
    #[must_use]
    pub fn cpu(mut self, time: Duration) -> Self {
        self.limits.cpu = Some(time);
        self
    }

    /// Limits the open files of each process, its pipes included. About 16 is the least that works.
    #[must_use]
    pub fn open_files(mut self, count: u64) -> Self {
        self.limits.open_files = Some(count);
        self
    }

    /// Limits the processes and threads of the plugin. No more can be started past it. Without a
    /// user namespace, as in [`basic`](Self::basic), all processes of its user count, and it does
    /// not hold for root. For a plugin of root in a strict sandbox some 300 more may be there, and
    /// it needs Linux 6.14.
    #[must_use]
    pub fn processes(mut self, count: u64) -> Self {
        self.limits.processes = Some(count);
        self
    }

    /// Limits the size of each file that it writes, in bytes. SIGXFSZ ends a process past it.
    #[must_use]
    pub fn file_size(mut self, bytes: u64) -> Self {
        self.limits.file_size = Some(bytes);
        self
    }

    /// The size of `/tmp` and of `/dev/shm` each, in bytes: past it a write fails with ENOSPC. Both
    /// are the plugin's own, in memory, and gone with it. For [`strict`](Self::strict) only.
    #[must_use]
    pub fn scratch(mut self, bytes: u64) -> Self {
        self.scratch = bytes;
        self
    }

    /// Grants reading and executing a file, or all below a directory. Files that are not granted
    /// are then out of reach.
    #[must_use]
    pub fn read(mut self, path: impl Into<PathBuf>) -> Self {
        self.files.get_or_insert_default().read.push(path.into());
        self
    }

    /// Grants reading and writing a file, or making, reading, writing and removing all below a
    /// directory. An `execve` of a file there is refused; loading it in another way is not. Files
    /// that are not granted are then out of reach.
    #[must_use]
    pub fn write(mut self, path: impl Into<PathBuf>) -> Self {
        self.files.get_or_insert_default().write.push(path.into());
        self
    }

    /// Lets it connect to a TCP port, at any address. All else of the network is out of reach from
    /// then on, also what looks up names.
    #[must_use]
    pub fn connect(mut self, port: u16) -> Self {
        self.ports.get_or_insert_default().connect.push(port);
        self
    }

    /// Lets it listen on a TCP port; all else as for [`connect`](Self::connect).
    #[must_use]
    pub fn bind(mut self, port: u16) -> Self {
        self.ports.get_or_insert_default().bind.push(port);
        self
    }

    /// Leaves out what this kernel cannot do, with a warning in the log, in place of not starting
    /// the plugin.
    #[must_use]
    pub fn best_effort(mut self) -> Self {
        self.demand = Demand::WhatThereIs;
        self
    }
}
