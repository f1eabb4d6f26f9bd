//! Namespaces of a plugin's own, and the root file system in them.
//!
//! Three processes take part, as no single one can do it all:
//!
//! ```text
//!     host ──┬─ helper    makes the namespaces, builds the root, forks the other two, and ends
//!            ├─ init      pid 1 inside: the kernel kills everything inside when it ends
//!            └─ plugin    pid 2 inside: mounts /proc, confines itself, executes the program
//! ```
//!
//! The helper is outside of the new pid namespace, which holds its children only. So it can make
//! both of them children of the host (`CLONE_PARENT`, which pid 1 of a namespace may not use), and
//! the host gets the plugin's own exit status.
//!
//! Every path is resolved by the helper once, as a copy of the mount with all below it. It has to
//! be the file that the host opened before (device and inode): a path that leads elsewhere by then
//! ends the start.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd};
use std::ptr;
use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::libc;
use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::{FileStat, Mode, fstat};
use nix::unistd::{self, fchdir, mkdir, sethostname, symlinkat};

use super::exec::exec_open;
use super::fork::{Child, Forked, fork_sibling};
use super::guest_descriptors::{close_on_exec_from, place};
use super::landlock::{PathRights, Ruleset};
use super::mounts::{self, Attributes};
use super::privileges::give_up_privileges;
use super::start_step::{ChildFailure, StartStep};

/// The name of the machine inside.
const HOST_NAME: &str = "sandbox";

/// Files of `/proc` about the whole machine. A plugin that owns its root could read most of them
/// although it has no privilege. `interrupts` shows when keys are pressed.
const HIDDEN: [&CStr; 13] = [
    c"/proc/interrupts",
    c"/proc/kcore",
    c"/proc/key-users",
    c"/proc/keys",
    c"/proc/kpagecgroup",
    c"/proc/kpagecount",
    c"/proc/kpageflags",
    c"/proc/latency_stats",
    c"/proc/pagetypeinfo",
    c"/proc/sched_debug",
    c"/proc/slabinfo",
    c"/proc/timer_list",
    c"/proc/vmallocinfo",
];

/// The task of the helper, init and the plugin; ready in memory, since none of them may allocate.
#[derive(Debug)]
pub(crate) struct Namespaces {
    pub(crate) network: Network,
    pub(crate) ids: IdMaps,
    pub(crate) root: Root,
    pub(crate) init: Init,
    /// The number above the highest one that a process inside may have; `None` where the kernel has
    /// one for all namespaces.
    pub(crate) pid_max: Option<CString>,
}

/// The network of a plugin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Network {
    /// An empty one.
    Own,
    /// The host's.
    OfHost,
}

/// The user and the group that stay what they are within a user namespace.
#[derive(Debug)]
pub(crate) struct IdMaps {
    user: CString,
    group: CString,
}

/// The init of a pid namespace, before it runs.
#[derive(Debug)]
pub(crate) struct Init {
    pub(crate) program: &'static OwnedFd,
    /// Standard input of init. End of file means that the host is gone.
    pub(crate) host_alive: OwnedFd,
    pub(crate) on_host_exit: InitOnHostExit,
}

/// The behaviour of init once the host is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum InitOnHostExit {
    Ends,
    WaitsForPlugin,
}

/// A root file system to be built: nothing is in it but what is listed.
#[derive(Debug)]
pub(crate) struct Root {
    /// Entries in order: directories before their content.
    pub(crate) entries: Vec<Entry>,
    /// The plugin's rights to a directory of the root itself.
    pub(crate) rights: PathRights,
    /// The entry that the helper was at.
    at: AtomicUsize,
    /// The descriptors of the old and of the new root, for the plugin.
    old: AtomicI32,
    new: AtomicI32,
}

/// Entry of a root file system, by its absolute path there.
#[derive(Debug)]
pub(crate) enum Entry {
    Directory(CString),
    Link {
        path: CString,
        target: CString,
    },
    /// A file or directory outside.
    Copy(Copied),
    /// An empty file system of its own, in memory.
    Memory {
        path: CString,
        bytes: CString,
        files: CString,
        rights: PathRights,
    },
    /// The processes inside. Its mounting is left to the plugin, since procfs shows the namespace
    /// of its mounter.
    Processes {
        path: CString,
        rights: PathRights,
    },
}

/// A file or directory outside, to be mounted inside.
#[derive(Debug)]
pub(crate) struct Copied {
    pub(crate) source: CString,
    pub(crate) path: CString,
    pub(crate) identity: Identity,
    pub(crate) kind: Kind,
    pub(crate) attributes: Attributes,
    /// The detached mount, between two steps of the helper.
    tree: AtomicI32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Directory,
    File,
}

/// A file, whatever its path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Identity {
    device: libc::dev_t,
    inode: libc::ino_t,
}

impl Identity {
    pub(crate) fn of(file: impl AsFd) -> Result<Self, Errno> {
        fstat(file).map(|stat| Self::from(&stat))
    }
}

impl From<&FileStat> for Identity {
    fn from(stat: &FileStat) -> Self {
        Self { device: stat.st_dev, inode: stat.st_ino }
    }
}

impl IdMaps {
    /// Maps of this process: its effective user and group.
    pub(crate) fn of_self() -> Self {
        let map = |id: u32| {
            CString::new(format!("{id} {id} 1\n")).expect("digits and spaces hold no NUL")
        };
        Self { user: map(unistd::geteuid().as_raw()), group: map(unistd::getegid().as_raw()) }
    }

    fn write(&self) -> Result<(), Errno> {
        // Without privileges outside, the groups are to be given up first: user_namespaces(7).
        write_file(c"/proc/self/setgroups", c"deny")?;
        write_file(c"/proc/self/gid_map", &self.group)?;
        write_file(c"/proc/self/uid_map", &self.user)
    }
}

impl Copied {
    pub(crate) fn new(source: CString, path: CString, identity: Identity, kind: Kind) -> Self {
        let attributes =
            Attributes::READ_ONLY.and(Attributes::NO_SETUID).and(Attributes::NO_DEVICES);
        Self { source, path, identity, kind, attributes, tree: AtomicI32::new(-1) }
    }

    pub(crate) fn with(mut self, attributes: Attributes) -> Self {
        self.attributes = attributes;
        self
    }

    fn take_tree(&self) -> OwnedFd {
        let raw = self.tree.swap(-1, Ordering::Relaxed);
        // SAFETY: the helper has put it there, and takes it once.
        unsafe { OwnedFd::from_raw_fd(raw) }
    }
}

impl Root {
    pub(crate) fn new(entries: Vec<Entry>, rights: PathRights) -> Self {
        let none = || AtomicI32::new(-1);
        Self { entries, rights, at: AtomicUsize::new(0), old: none(), new: none() }
    }

    /// The path of the entry that a step failed at.
    pub(crate) fn failed_at(&self) -> Option<&CStr> {
        self.entries.get(self.at.load(Ordering::Relaxed)).map(Entry::path)
    }

    /// Opens all that is to be in it, makes it the root, and puts everything in place but the
    /// processes.
    fn build(&self, ruleset: Option<&Ruleset>) -> Result<(), ChildFailure> {
        let at = |step| move |errno| ChildFailure { step, errno };
        // Both this and the pivot below need a root that is the root of a mount.
        mounts::make_all_private().map_err(at(StartStep::Namespaces))?;
        // Absolute paths lead through the old root as long as it is the root.
        for copied in self.each().filter_map(Entry::copied) {
            copied.open()?;
        }
        let attributes = Attributes::NO_SETUID.and(Attributes::NO_DEVICES);
        let new = match self
            .entries
            .first()
            .and_then(Entry::copied)
            .filter(|it| it.path.as_bytes() == b"/")
        {
            Some(all) => all.take_tree(),
            None => memory(c"1m", c"4k", c"0755", attributes).map_err(at(StartStep::Root))?,
        };
        if let Some(ruleset) = ruleset {
            ruleset.allow(new.as_fd(), self.rights).map_err(at(StartStep::Files))?;
        }
        let old = open(c"/", OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())
            .map_err(at(StartStep::Root))?;
        mounts::attach(new.as_fd(), c"/").map_err(at(StartStep::Root))?;
        fchdir(&new).map_err(at(StartStep::Root))?;
        mounts::pivot_to_working_directory().map_err(at(StartStep::Namespaces))?;
        // The working directory is the new root now; its processes have no other.
        for entry in self.each() {
            entry.put(ruleset).map_err(at(StartStep::Root))?;
        }
        self.old.store(old.into_raw_fd(), Ordering::Relaxed);
        self.new.store(new.into_raw_fd(), Ordering::Relaxed);
        Ok(())
    }

    /// Does the plugin's share: mounts its own processes, and detaches the old root.
    fn finish(
        &self,
        ruleset: Option<&Ruleset>,
        pid_max: Option<&CStr>,
    ) -> Result<(), ChildFailure> {
        let at = |step| move |errno| ChildFailure { step, errno };
        for entry in self.each() {
            if let Entry::Processes { path, rights } = entry {
                // Before the old root is gone: a user namespace may mount procfs only where it sees
                // all of one already (mount_too_revealing in fs/namespace.c).
                let attributes =
                    Attributes::NO_SETUID.and(Attributes::NO_DEVICES).and(Attributes::NO_EXECUTION);
                let processes = mounts::new_file_system(c"proc", &[], attributes)
                    .map_err(at(StartStep::Processes))?;
                mounts::attach(processes.as_fd(), path).map_err(at(StartStep::Processes))?;
                if let Some(pid_max) = pid_max {
                    // The limit of processes does not hold for root, who may write this. Others
                    // need not: it holds for them.
                    let _ = write_file(c"/proc/sys/kernel/pid_max", pid_max);
                }
                mounts::restrict_mount(processes.as_fd(), Attributes::READ_ONLY)
                    .map_err(at(StartStep::Processes))?;
                for hidden in HIDDEN {
                    hide(hidden).map_err(at(StartStep::Processes))?;
                }
                if let Some(ruleset) = ruleset {
                    ruleset.allow(processes.as_fd(), *rights).map_err(at(StartStep::Files))?;
                }
            }
        }
        let [old, new] = [&self.old, &self.new].map(|it| {
            // SAFETY: the helper has opened it, and this copy of it is closed by the exec only.
            unsafe { BorrowedFd::borrow_raw(it.load(Ordering::Relaxed)) }
        });
        fchdir(old).map_err(at(StartStep::Root))?;
        mounts::detach_working_directory().map_err(at(StartStep::Root))?;
        unistd::chdir(c"/").map_err(at(StartStep::Root))?;
        mounts::restrict_mount(new, Attributes::READ_ONLY).map_err(at(StartStep::Root))
    }

    /// The entries, with a note of the one that is being worked on.
    fn each(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter().enumerate().map(|(index, entry)| {
            self.at.store(index, Ordering::Relaxed);
            entry
        })
    }
}

impl Entry {
    fn path(&self) -> &CStr {
        match self {
            Self::Directory(path)
            | Self::Link { path, .. }
            | Self::Copy(Copied { path, .. })
            | Self::Memory { path, .. }
            | Self::Processes { path, .. } => path,
        }
    }

    fn copied(&self) -> Option<&Copied> {
        match self {
            Self::Copy(copied) => Some(copied),
            Self::Directory(_)
            | Self::Link { .. }
            | Self::Memory { .. }
            | Self::Processes { .. } => None,
        }
    }

    fn put(&self, ruleset: Option<&Ruleset>) -> Result<(), Errno> {
        match self {
            Self::Directory(path) => {
                there_already(mkdir(path.as_c_str(), Mode::from_bits_retain(0o755)))
            }
            Self::Link { path, target } => {
                there_already(symlinkat(target.as_c_str(), nix::fcntl::AT_FDCWD, path.as_c_str()))
            }
            // It is the root itself.
            Self::Copy(Copied { path, .. }) if path.as_bytes() == b"/" => Ok(()),
            Self::Copy(copied) => copied.put(),
            Self::Memory { path, bytes, files, rights } => {
                let attributes =
                    Attributes::NO_SETUID.and(Attributes::NO_DEVICES).and(Attributes::NO_EXECUTION);
                let memory = memory(bytes, files, c"1777", attributes)?;
                mounts::attach(memory.as_fd(), path)?;
                ruleset.map_or(Ok(()), |ruleset| ruleset.allow(memory.as_fd(), *rights))
            }
            Self::Processes { .. } => Ok(()),
        }
    }
}

impl Copied {
    /// Takes hold of what is at the path outside, and checks that it is what the host has opened.
    fn open(&self) -> Result<(), ChildFailure> {
        let at = |step| move |errno| ChildFailure { step, errno };
        let tree = mounts::copy_tree(&self.source).map_err(at(StartStep::Grant))?;
        if Identity::of(&tree).map_err(at(StartStep::Grant))? != self.identity {
            return Err(at(StartStep::Grant)(Errno::ESTALE));
        }
        mounts::restrict_tree(tree.as_fd(), self.attributes).map_err(at(StartStep::Grant))?;
        self.tree.store(tree.into_raw_fd(), Ordering::Relaxed);
        Ok(())
    }

    fn put(&self) -> Result<(), Errno> {
        match self.kind {
            Kind::Directory => {
                there_already(mkdir(self.path.as_c_str(), Mode::from_bits_retain(0o755)))?
            }
            Kind::File => {
                let flags = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_WRONLY | OFlag::O_CLOEXEC;
                let mode = Mode::from_bits_retain(0o444);
                there_already(open(self.path.as_c_str(), flags, mode).map(drop))?;
            }
        }
        mounts::attach(self.take_tree().as_fd(), &self.path)
    }
}

/// Takes it for no error that a place for a mount is there, as within something that was mounted
/// before.
fn there_already(made: Result<(), Errno>) -> Result<(), Errno> {
    match made {
        Err(Errno::EEXIST | Errno::EROFS) => Ok(()),
        made => made,
    }
}

/// Puts the `/dev/null` of the new root in the place of a file, if both are there.
fn hide(path: &CStr) -> Result<(), Errno> {
    match mounts::copy_tree(c"/dev/null").and_then(|null| mounts::attach(null.as_fd(), path)) {
        Err(Errno::ENOENT) => Ok(()),
        hidden => hidden,
    }
}

fn memory(
    bytes: &CStr,
    files: &CStr,
    mode: &CStr,
    attributes: Attributes,
) -> Result<OwnedFd, Errno> {
    let options = [(c"size", bytes), (c"nr_inodes", files), (c"mode", mode)];
    mounts::new_file_system(c"tmpfs", &options, attributes)
}

/// The helper: makes the namespaces, and forks init and the plugin.
pub(super) struct Helper<'a, C> {
    pub(super) namespaces: &'a Namespaces,
    pub(super) ruleset: Option<&'a Ruleset>,
    pub(super) plugin: &'a C,
    pub(super) pids: &'a Pids,
}

/// The processes that a helper has forked.
#[derive(Debug, Default)]
pub(super) struct Pids {
    pub(super) init: Forked,
    pub(super) plugin: Forked,
}

impl<C: Child> Child for Helper<'_, C> {
    fn run(&self) -> Result<(), ChildFailure> {
        let at = |step| move |errno| ChildFailure { step, errno };
        // A copy of the host's descriptors, and some for each thing that is mounted: as many as
        // there may be.
        raise_descriptor_limit();
        self.namespaces.enter()?;
        self.namespaces.root.build(self.ruleset)?;
        let init = &self.namespaces.init;
        let failed = fork_sibling(init, &self.pids.init).map_err(at(StartStep::Init))?;
        failed.map_or(Ok(()), Err)?;
        let failed = fork_sibling(self.plugin, &self.pids.plugin).map_err(at(StartStep::Fork))?;
        failed.map_or(Ok(()), Err)
    }
}

impl Namespaces {
    fn enter(&self) -> Result<(), ChildFailure> {
        let at = |step| move |errno| ChildFailure { step, errno };
        let mut flags = CloneFlags::CLONE_NEWNS
            | CloneFlags::CLONE_NEWPID
            | CloneFlags::CLONE_NEWIPC
            | CloneFlags::CLONE_NEWUTS
            | CloneFlags::CLONE_NEWCGROUP;
        if self.network == Network::Own {
            flags |= CloneFlags::CLONE_NEWNET;
        }
        match unshare(flags | CloneFlags::CLONE_NEWUSER) {
            Ok(()) => {
                self.ids.write().map_err(at(StartStep::IdMaps))?;
                limit_watches();
            }
            // With the privileges that a host may have. If it has none, the reason is the first
            // one.
            Err(errno) => unshare(flags).map_err(|_| at(StartStep::Namespaces)(errno))?,
        }
        sethostname(HOST_NAME).map_err(at(StartStep::Namespaces))
    }

    /// The plugin's part; nothing of the host's files can be reached by a path from then on.
    pub(super) fn finish(&self, ruleset: Option<&Ruleset>) -> Result<(), ChildFailure> {
        self.root.finish(ruleset, self.pid_max.as_deref())
    }
}

impl Child for Init {
    fn run(&self) -> Result<(), ChildFailure> {
        let at = |step| move |errno| ChildFailure { step, errno };
        unistd::setsid().map_err(at(StartStep::Init))?;
        ignore_children().map_err(at(StartStep::Init))?;
        place(&self.host_alive, 0).map_err(at(StartStep::Init))?;
        close_on_exec_from(1, 0).map_err(at(StartStep::Init))?;
        give_up_privileges().map_err(at(StartStep::Init))?;
        let (name, end) = (c"pipeplug-init".as_ptr(), ptr::null());
        let arguments = match self.on_host_exit {
            InitOnHostExit::Ends => [name, end, end],
            InitOnHostExit::WaitsForPlugin => [name, c"wait".as_ptr(), end],
        };
        Err(at(StartStep::Init)(exec_open(self.program.as_raw_fd(), &arguments, &[end])))
    }
}

/// Has the kernel reap the children of this process, which init inherits: sigaction(2),
/// `SA_NOCLDWAIT`.
fn ignore_children() -> Result<(), Errno> {
    // SAFETY: SIG_IGN is no handler, so none is run.
    let set = unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
    if set == libc::SIG_ERR { Err(Errno::last()) } else { Ok(()) }
}

/// Without a failure of its own: where too few are left, opening one fails.
fn raise_descriptor_limit() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}

/// Keeps the processes of a new user namespace from using up what the user may have of inotify(7),
/// which counts there and for the user. Without a failure of its own: `/proc/sys` may be read-only.
fn limit_watches() {
    for (path, limit) in [
        (c"/proc/sys/user/max_inotify_instances", c"32"),
        (c"/proc/sys/user/max_inotify_watches", c"8192"),
    ] {
        let _ = write_file(path, limit);
    }
}

fn write_file(path: &CStr, text: &CStr) -> Result<(), Errno> {
    let file = open(path, OFlag::O_WRONLY | OFlag::O_CLOEXEC, Mode::empty())?;
    unistd::write(&file, text.to_bytes()).map(drop)
}
