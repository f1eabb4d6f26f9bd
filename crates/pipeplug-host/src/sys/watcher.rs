//! Watcher: a process that kills the plugins of this host once the host is gone.
//!
//! [`KillOnHostExit`](super::KillOnHostExit) acts within the end of the host, but only once, on the
//! process group as it is at that moment. A plugin that forks at that moment may have a child that
//! the signal does not reach: the kernel visits the members one by one and does not block fork(2)
//! meanwhile, as it does for kill(2) (seen with Linux 6.18). A plugin that moved to another group
//! of its session (setpgid(2)) is missed too. So each host has one small process, the watcher. It
//! waits for the end of a pipe that only the host can write to, and then calls kill(2) for each
//! group until none is left (`program.rs`):
//!
//! ```text
//!     host ---- pipe ----> watcher            end of file: the host is gone
//!       |                    |
//!       +--> shared table <--+              pairs of (-group, process), 0 for none
//! ```
//!
//! A plugin writes its own pair before its exec, and up to its exec it has the host's end of the
//! pipe too, so there is no moment in which it could be missed. The host clears the pair right
//! before it reaps the plugin: from then on the number may belong to another process.
//!
//! The host does not have to wait for the watcher. It is a grandchild whose parent has ended, and
//! that parent is a child without an exit signal, which neither `wait` nor a handler of SIGCHLD
//! sees (wait(2), `__WALL`). It has its own session and ignores the signals that end services, so
//! that it is there when all else is killed.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use nix::errno::Errno;
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, SigmaskHow};
use nix::unistd::{self, Pid};

use super::exec::exec_open;
use super::fork::{Child, fork_orphan};
use super::fork_exec::HIGHEST_SIGNAL;
use super::guest_descriptors::{close_on_exec_from, descriptor_limit, place};
use super::start_step::{ChildFailure, StartStep};
use super::{Group, descriptor, memfd, program};

/// Name of the watcher in lists of processes, which show at most 15 bytes.
const NAME: &CStr = c"pipeplug-watch";

/// Room for so many plugins at a time. The memory is taken as it is used.
const PAIRS: usize = 32 * 1024;
const TABLE_BYTES: usize = PAIRS * size_of::<Pair>();

/// Signals that end services and terminals. A watcher ignores them, and ends with its host.
const IGNORED: [libc::c_int; 4] = [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT, libc::SIGTERM];

/// The watcher of this process, if it has one.
static WATCHER: Mutex<Option<Arc<Watcher>>> = Mutex::new(None);

/// Entry of a plugin in the table.
#[derive(Debug)]
#[repr(C)]
struct Pair {
    group: AtomicI32,
    process: AtomicI32,
}

/// A watcher that runs, seen from its host.
#[derive(Debug)]
struct Watcher {
    /// Write end of the pipe. Only the host has it, so its end is the end of the host.
    pipe: OwnedFd,
    table: Table,
    /// The host: a child that it forked has a copy of all this, and is not meant.
    host: Pid,
    free: Mutex<Free>,
}

/// The pairs that no plugin has.
#[derive(Debug, Default)]
struct Free {
    returned: Vec<usize>,
    /// From here on, none has been given away yet.
    unused: usize,
}

/// A plugin's place in the table. It is cleared when it is dropped.
#[derive(Debug)]
pub(super) struct Entry {
    watcher: Arc<Watcher>,
    index: usize,
}

impl Entry {
    /// Takes a place in the table of this process's watcher, which is started if there is none.
    ///
    /// `None` where there can be none, which is logged the first time, and where this process needs
    /// none.
    pub(super) fn new() -> Option<Self> {
        static TOLD: AtomicBool = AtomicBool::new(false);
        // With process 1 the kernel kills all of its pid namespace: pid_namespaces(7).
        if unistd::getpid() == Pid::from_raw(1) {
            return None;
        }
        match Watcher::of_this_process().and_then(Self::of) {
            Ok(entry) => Some(entry),
            Err(error) => {
                if !TOLD.swap(true, Ordering::Relaxed) {
                    tracing::warn!(
                        %error,
                        "no process can be started that looks after plugins at the end of this one: one that forks at \
                         that moment, or that left its process group, may outlive it"
                    );
                }
                None
            }
        }
    }

    fn of(watcher: Arc<Watcher>) -> io::Result<Self> {
        let index = {
            // The list is valid after each step, whatever panicked.
            let mut free = watcher.free.lock().unwrap_or_else(PoisonError::into_inner);
            free.returned.pop().or_else(|| {
                let index = free.unused;
                (index < PAIRS).then(|| {
                    free.unused += 1;
                    index
                })
            })
        };
        let index =
            index.ok_or_else(|| io::Error::other("it has no room for more than 32768 plugins"))?;
        Ok(Self { watcher, index })
    }

    /// Enters the calling process, and with a group of its own all of that. For a child of fork in
    /// the host's pid namespace, elsewhere it does nothing; it makes one system call.
    pub(super) fn enter(&self, group: Group) {
        let own = unistd::getpid().as_raw();
        // Within a pid namespace the number would be another process here, and that of its process
        // 1 would be everything. This process is not process 1, so that no child of it has a number
        // up to 2.
        if own <= 2 {
            return;
        }
        let pair = self.watcher.table.pair(self.index);
        pair.process.store(own, Ordering::Relaxed);
        if group == Group::Own {
            pair.group.store(-own, Ordering::Relaxed);
        }
    }

    /// Clears the entry, so that nothing is killed any more. Does nothing in a child that the host
    /// forked.
    pub(super) fn clear(&self) {
        if unistd::getpid() == self.watcher.host {
            let pair = self.watcher.table.pair(self.index);
            pair.group.store(0, Ordering::Relaxed);
            pair.process.store(0, Ordering::Relaxed);
        }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.clear();
        if unistd::getpid() == self.watcher.host {
            self.watcher
                .free
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .returned
                .push(self.index);
        }
    }
}

impl Watcher {
    fn of_this_process() -> io::Result<Arc<Self>> {
        // It is written last, and whole.
        let mut watcher = WATCHER.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(watcher) = &*watcher
            && watcher.host == unistd::getpid()
            && watcher.is_there()
        {
            return Ok(Arc::clone(watcher));
        }
        let started = Arc::new(Self::start()?);
        if let Some(old) = watcher.replace(Arc::clone(&started))
            && old.host != started.host
        {
            // The watcher of the process that forked this one. Its pipe stays open: its host has
            // ended once all have that hold its descriptors.
            std::mem::forget(old);
        }
        Ok(started)
    }

    fn start() -> io::Result<Self> {
        if is_subreaper()? {
            // The watcher would become its child, which it may wait for at its end.
            return Err(io::Error::other("orphans become its children (PR_SET_CHILD_SUBREAPER)"));
        }
        let image = program::watcher()?;
        let (reader, pipe) = descriptor::pipe()?;
        let file = memfd::zeros(c"pipeplug-plugins", TABLE_BYTES as u64)?;
        let table = Table::of(&file)?;
        let plan = Plan {
            image: image.as_raw_fd(),
            pipe: &reader,
            table: &file,
            limit: descriptor_limit(),
        };

        // With every signal blocked across the fork, no handler of the host runs in a child.
        let mask = SigSet::all().thread_swap_mask(SigmaskHow::SIG_SETMASK)?;
        let forked = fork_orphan(&plan);
        mask.thread_set_mask().expect("a mask that was in force can be set again");
        forked.map_err(|ChildFailure { step, errno }| {
            tracing::debug!(?step, %errno, "no watcher");
            errno
        })?;
        Ok(Self { pipe, table, host: unistd::getpid(), free: Mutex::default() })
    }

    /// Tells whether the watcher still runs: else the read end of its pipe is closed, poll(2).
    fn is_there(&self) -> bool {
        let mut fds = [PollFd::new(self.pipe.as_fd(), PollFlags::empty())];
        poll(&mut fds, PollTimeout::ZERO) == Ok(0)
    }
}

/// The table, in memory that the watcher reads as a file.
#[derive(Debug)]
struct Table(NonNull<Pair>);

// SAFETY: it is memory of atomics, which any thread may reach.
unsafe impl Send for Table {}
// SAFETY: as above.
unsafe impl Sync for Table {}

impl Table {
    fn of(file: &OwnedFd) -> io::Result<Self> {
        let access = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: the kernel chooses where, so that it is in the place of nothing else.
        let at = unsafe {
            libc::mmap(ptr::null_mut(), TABLE_BYTES, access, libc::MAP_SHARED, file.as_raw_fd(), 0)
        };
        if at == libc::MAP_FAILED {
            return Err(Errno::last().into());
        }
        Ok(Self(NonNull::new(at.cast()).ok_or(Errno::ENOMEM)?))
    }

    fn pair(&self, index: usize) -> &Pair {
        assert!(index < PAIRS, "a place in the table is within it");
        // SAFETY: the index is within the mapping, which is as long as all pairs together.
        let at = unsafe { self.0.add(index) };
        // SAFETY: the mapping is there as long as this, page-aligned, and zeros are a valid pair.
        unsafe { at.as_ref() }
    }
}

impl Drop for Table {
    fn drop(&mut self) {
        // SAFETY: this is the mapping that `of` made, and no reference into it outlives this.
        unsafe { libc::munmap(self.0.as_ptr().cast(), TABLE_BYTES) };
    }
}

/// The task of the child that becomes the watcher, as plain borrowed memory.
struct Plan<'a> {
    image: RawFd,
    pipe: &'a OwnedFd,
    table: &'a OwnedFd,
    limit: RawFd,
}

impl Child for Plan<'_> {
    fn run(&self) -> Result<(), ChildFailure> {
        let at = |step| move |errno| ChildFailure { step, errno };
        unistd::setsid().map_err(at(StartStep::ProcessGroup))?;
        reset_signals().map_err(at(StartStep::Signals))?;
        self.place_descriptors().map_err(at(StartStep::Descriptors))?;
        unistd::chdir(c"/").map_err(at(StartStep::WorkingDirectory))?;
        let argv = [NAME.as_ptr(), ptr::null()];
        Err(at(StartStep::Exec)(exec_open(self.image, &argv, &[ptr::null()])))
    }
}

impl Plan<'_> {
    fn place_descriptors(&self) -> Result<(), Errno> {
        place(self.pipe, 0)?;
        place(self.table, 1)?;
        close_on_exec_from(2, self.limit)
    }
}

fn reset_signals() -> Result<(), Errno> {
    for signal in 1..=HIGHEST_SIGNAL {
        // SAFETY: a sigaction is integers, a mask and a nullable pointer, for which zero is valid.
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        action.sa_sigaction = if IGNORED.contains(&signal) { libc::SIG_IGN } else { libc::SIG_DFL };
        // SAFETY: `action` is a valid disposition, and a null old action is not written to. Those
        // that cannot be set are as they are to be.
        unsafe { libc::sigaction(signal, &raw const action, ptr::null_mut()) };
    }
    SigSet::empty().thread_set_mask()
}

fn is_subreaper() -> Result<bool, Errno> {
    nix::sys::prctl::get_child_subreaper()
}
