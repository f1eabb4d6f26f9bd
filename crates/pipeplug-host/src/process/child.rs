//! A guest's process, from its start until it is reaped.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::{kill, killpg};
use nix::unistd::{self, getpgid};

use super::Signal;
use super::descendants::Descendants;
use crate::process::WaitStatus;
use crate::sys::{
    Executed, ExitNotice, Group, KillOnHostExit, Look, PidNamespace, block_until_exit, exit_status,
    reap_group, stopped_by,
};

/// Time that a drop waits for a process after SIGKILL.
const DROP_TIMEOUT: Duration = Duration::from_secs(2);

/// Time for processes to end that got SIGKILL with the guest and that this process has to reap.
const SIBLINGS_TIMEOUT: Duration = Duration::from_millis(100);

/// A guest's process, which leads its own process group, or is in the host's
/// ([`Stdin::Inherit`](super::Stdin)).
///
/// All methods take `&self` and may be called from any thread. A signal and the reaping cannot
/// overtake each other, so no signal reaches a stranger that was given the same process id.
///
/// Dropping it kills the process group with `SIGKILL` and reaps the process. That blocks until the
/// kernel has taken the process down, usually well under a millisecond; after two seconds (a
/// process in an uninterruptible state) a thread of its own goes on to wait.
#[derive(Debug)]
pub struct Child {
    pid: unistd::Pid,
    group: Group,
    exit: ExitNotice,
    /// Has the kernel kill the guest if this process ends first.
    kill_on_host_exit: Option<KillOnHostExit>,
    /// All that it has started, where it has a pid namespace of its own; taken at the end.
    namespace: Mutex<Option<PidNamespace>>,
    state: Mutex<ChildState>,
    descendants: Mutex<Descendants>,
}

/// The number of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Pid(i32);

impl Pid {
    /// `None` where no process can have that number.
    #[must_use]
    pub fn new(raw: i32) -> Option<Self> {
        (raw > 0).then_some(Self(raw))
    }

    /// The number as the system functions take it; always positive.
    #[must_use]
    pub fn as_raw(self) -> i32 {
        self.0
    }
}

impl fmt::Display for Pid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Treatment of the processes that a guest leaves in its process group when it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leftovers {
    /// Send `SIGKILL` to them, right before the guest is reaped.
    Kill,
    /// Leave them running, out of reach.
    Leave,
}

/// Result of sending a signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Delivery {
    /// The signal was sent to every process of the group.
    Sent,
    /// The guest was reaped before, or its group is empty; nothing was sent.
    Gone,
    /// The plugin was started by other means: nothing was sent, and the host lets go of it.
    NotOurs,
}

#[derive(Debug, Clone, Copy)]
enum ChildState {
    /// Running or a zombie: the process id and the group id are ours.
    Ours,
    Reaped(WaitStatus),
}

impl Child {
    /// The descriptor is the end of a pipe whose closing ends the plugin's pid namespace, where it
    /// has one.
    pub(super) fn watch(
        executed: Executed,
        group: Group,
        kill_on_host_exit: Option<KillOnHostExit>,
        host_alive: Option<OwnedFd>,
    ) -> io::Result<Self> {
        let Executed { pid, init } = executed;
        let namespace = init.zip(host_alive).map(|(init, alive)| PidNamespace::new(init, alive));
        match ExitNotice::watch(pid) {
            Ok(exit) => Ok(Self {
                pid,
                group,
                exit,
                kill_on_host_exit,
                namespace: Mutex::new(namespace),
                state: Mutex::new(ChildState::Ours),
                descendants: Mutex::default(),
            }),
            Err(error) => {
                // Not reaped yet, so the group and the number are the child's.
                if group == Group::Own {
                    let _ = killpg(pid, Signal::Kill.to_nix());
                }
                let _ = kill(pid, Signal::Kill.to_nix());
                let _ = block_until_exit(pid);
                let _ = exit_status(pid, Look::Reap);
                if let Some(namespace) = namespace {
                    namespace.end(DROP_TIMEOUT);
                }
                Err(error)
            }
        }
    }

    /// The process id, which is the process group's id too where the guest leads one.
    ///
    /// Once the process is reaped the system may give the number to another one.
    #[must_use]
    pub fn pid(&self) -> Pid {
        Pid(self.pid.as_raw())
    }

    /// The process as a descriptor, on Linux since 5.3.
    ///
    /// `None` on other systems, under `--cfg pipeplug_portable`, and where the kernel gave
    /// none.
    #[must_use]
    pub fn pidfd(&self) -> Option<BorrowedFd<'_>> {
        self.exit.pidfd()
    }

    /// A descriptor that becomes readable when the process has ended, and stays so.
    ///
    /// It is the pidfd where there is one, and else a pipe that a waiting thread writes to. Do not
    /// read from it.
    #[must_use]
    pub fn exit_fd(&self) -> BorrowedFd<'_> {
        self.exit.as_fd()
    }

    /// The status if the process has ended, without reaping it.
    ///
    /// Until it is reaped, [`signal_group`](Self::signal_group) still reaches what it left behind.
    ///
    /// # Errors
    /// What `poll` or `waitid` fail with; none is known for a child of this process.
    pub fn peek(&self) -> io::Result<Option<WaitStatus>> {
        match *self.lock() {
            ChildState::Reaped(status) => Ok(Some(status)),
            ChildState::Ours => self.status_if_ended(),
        }
    }

    /// Reaps the process if it has ended, and leaves what it left behind alone.
    ///
    /// The status is remembered: every later call gives the same.
    ///
    /// # Errors
    /// As [`peek`](Self::peek).
    pub fn try_wait(&self) -> io::Result<Option<WaitStatus>> {
        self.reap(Leftovers::Leave)
    }

    /// Reaps the process if it has ended, after dealing with what it left in its process group.
    ///
    /// A guest whose status the system did not keep ([`WaitStatus::Unknown`]) no longer owns its
    /// group id, so its leftovers are left alone in any case.
    ///
    /// # Errors
    /// As [`peek`](Self::peek).
    pub fn reap(&self, leftovers: Leftovers) -> io::Result<Option<WaitStatus>> {
        let mut state = self.lock();
        if let ChildState::Reaped(status) = *state {
            return Ok(Some(status));
        }
        let Some(seen) = self.status_if_ended()? else { return Ok(None) };
        if seen != WaitStatus::Unknown {
            // A zombie keeps its number, and with it the group's, from being given away.
            if leftovers == Leftovers::Kill && self.group == Group::Own {
                // Where a leftover may not be signalled (it changed its user), there is nothing
                // that could be done. One call is enough: kill(2) holds the lock that fork(2) needs
                // to add a member, and a fork that waits for it fails.
                let _ = killpg(self.pid, Signal::Kill.to_nix());
            }
            if let Some(kill_on_host_exit) = &self.kill_on_host_exit {
                kill_on_host_exit.is_ended();
            }
            exit_status(self.pid, Look::Reap)?;
            if self.group == Group::Own {
                let timeout = match leftovers {
                    Leftovers::Kill => SIBLINGS_TIMEOUT,
                    Leftovers::Leave => Duration::ZERO,
                };
                reap_group(self.pid, timeout);
            }
        }
        // Nothing of it can be left alone: the kernel kills it with the namespace.
        if let Some(namespace) = self.namespace().take() {
            namespace.end(DROP_TIMEOUT);
        }
        if let Some(kill_on_host_exit) = &self.kill_on_host_exit {
            kill_on_host_exit.cut();
        }
        *state = ChildState::Reaped(seen);
        Ok(Some(seen))
    }

    /// Waits for the process to end, and reaps it as [`reap`](Self::reap) does; `None` once the
    /// time is over.
    ///
    /// # Errors
    /// As [`peek`](Self::peek).
    ///
    /// # Blocking
    /// On the process, for `timeout` at most. Other threads may signal and wait meanwhile.
    pub fn wait_timeout(
        &self,
        timeout: Duration,
        leftovers: Leftovers,
    ) -> io::Result<Option<WaitStatus>> {
        if self.exit.wait(timeout)? { self.reap(leftovers) } else { Ok(None) }
    }

    /// Sends a signal to every process of the guest's group, and to the guest where it moved to
    /// another one, unless it is reaped.
    ///
    /// One that is in the host's group is sent it alone.
    ///
    /// # Errors
    /// `EPERM` if there is no process in the group that the host may signal.
    pub fn signal_group(&self, signal: Signal) -> io::Result<Delivery> {
        // Held across the kill, so that no other thread reaps in between.
        let state = self.lock();
        if let ChildState::Reaped(_) = *state {
            return Ok(Delivery::Gone);
        }
        if signal == Signal::Kill
            && let Some(namespace) = &*self.namespace()
        {
            namespace.kill();
        }
        match self.send(signal) {
            Ok(()) => Ok(Delivery::Sent),
            // No process is left: the kernel has reaped the child for a host that ignores SIGCHLD.
            Err(Errno::ESRCH) => Ok(Delivery::Gone),
            Err(errno) => Err(errno.into()),
        }
    }

    /// The number of the signal that has stopped the process, such as `SIGSTOP`, or `SIGTTIN` where
    /// it reads from the terminal and may not; `None` while it is not stopped.
    #[must_use]
    pub fn stopped_by(&self) -> Option<i32> {
        // Held, so that the number is the guest's.
        match *self.lock() {
            ChildState::Reaped(_) => None,
            ChildState::Ours => stopped_by(self.pid),
        }
    }

    /// Takes note of the processes that the guest has started, and these have, for
    /// [`left`](Self::left).
    ///
    /// Once the guest has ended, the system no longer tells which were its. On Linux; elsewhere
    /// this does nothing.
    pub fn note_descendants(&self) {
        // What is in a pid namespace of its own ends with it.
        if self.namespace().is_some() {
            return;
        }
        // Held, so that the number is the guest's.
        if let ChildState::Ours = *self.lock() {
            self.descendants.lock().unwrap_or_else(PoisonError::into_inner).note(self.pid);
        }
    }

    /// The processes that were noted before and still run, once the guest has ended and its group
    /// was killed: those that left the group and are out of reach, as by setsid(2), and those of
    /// another user.
    ///
    /// # Blocking
    /// For a moment where there are some, at most for 100 milliseconds.
    #[must_use]
    pub fn left(&self) -> Vec<Pid> {
        let descendants = self.descendants.lock().unwrap_or_else(PoisonError::into_inner);
        descendants.running(self.pid).into_iter().map(Pid).collect()
    }

    /// Sends a signal to a guest that has not been reaped, and to all of the group that it led at
    /// first. The state must be locked.
    fn send(&self, signal: Signal) -> nix::Result<()> {
        if self.group == Group::OfHost {
            return self.exit.send(self.pid, signal.to_nix());
        }
        // It may have moved to any other group of its session: setpgid(2). Twice the same signal is
        // harmless with SIGKILL alone.
        let has_moved = signal == Signal::Kill || getpgid(Some(self.pid)) != Ok(self.pid);
        let to_group = killpg(self.pid, signal.to_nix());
        if !has_moved && to_group != Err(Errno::ESRCH) {
            return to_group;
        }
        match (to_group, self.exit.send(self.pid, signal.to_nix())) {
            (Ok(()), _) | (_, Ok(())) => Ok(()),
            (Err(Errno::ESRCH), Err(errno)) | (Err(errno), Err(_)) => Err(errno),
        }
    }

    /// The status of a child that is ours, if it has ended; the state must be locked.
    ///
    /// The notice is asked first: a child that is reaped only after its notice came cannot be
    /// mistaken, by the thread that waits in portable builds, for a later child of the same number.
    fn status_if_ended(&self) -> io::Result<Option<WaitStatus>> {
        if self.exit.wait(Duration::ZERO)? { exit_status(self.pid, Look::Keep) } else { Ok(None) }
    }

    fn namespace(&self) -> MutexGuard<'_, Option<PidNamespace>> {
        // As for the state.
        self.namespace.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> MutexGuard<'_, ChildState> {
        // The state is one word that is written whole, so a panic elsewhere cannot have spoilt it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if let ChildState::Reaped(_) = *self.lock() {
            return;
        }
        let killed = self.signal_group(Signal::Kill);
        match self.wait_timeout(DROP_TIMEOUT, Leftovers::Kill) {
            Ok(Some(_)) => {}
            Ok(None) => {
                tracing::warn!(
                    pid = self.pid.as_raw(),
                    ?killed,
                    "guest has not ended after SIGKILL, still waiting"
                );
                let pid = self.pid;
                let waiting = thread::Builder::new().name(format!("reap-{pid}")).spawn(move || {
                    // The handle is dropped: no caller is left for a status or an error.
                    let _ = block_until_exit(pid);
                    let _ = exit_status(pid, Look::Reap);
                });
                if let Err(error) = waiting {
                    tracing::warn!(pid = self.pid.as_raw(), %error, "guest stays a zombie: no \
                                                            thread to reap it");
                }
            }
            Err(error) => tracing::warn!(pid = self.pid.as_raw(), %error, "guest stays a zombie"),
        }
    }
}
