//! Kill on host exit: once this process is gone, the kernel kills the guest.
//!
//! This process alone has two connected sockets for each guest. One of them is *armed*: when the
//! other one is closed, the kernel sends a signal (`O_ASYNC`, fcntl(2)). The signal is SIGKILL
//! instead of SIGIO (`F_SETSIG`), and it goes to the guest's process group (`F_SETOWN`). When this
//! process ends, in any way, the kernel closes its descriptors. No thread or process has to run for
//! that. The kernel keeps the group itself and not its number, so a group that gets the number
//! later is not hit.
//!
//! The armed socket must not be closed first. So it is kept in the receive queue of the other one
//! (`SCM_RIGHTS`, unix(7)), which releases it only after its own close. It takes no descriptor
//! there:
//!
//! ```text
//!     descriptor ---> plain socket <--peers--> armed socket ---> signals the group
//!                       receive queue --holds--> ^
//! ```
//!
//! This acts at once, but can miss processes. The watcher (`watcher.rs`) kills those.
//!
//! The child ties itself before its exec, so there is no moment in which it could be missed. Its
//! copies of the sockets are closed by the exec, as are those of children that other threads fork
//! at the same time.

#[cfg(not(linux_native))]
pub(crate) use none::KillOnHostExit;
#[cfg(linux_native)]
pub(crate) use tied::KillOnHostExit;

#[cfg(linux_native)]
mod tied {
    use std::io;

    use nix::errno::Errno;

    use super::super::Group;
    use super::super::watcher::Entry;
    use super::asynchronous::Sockets;

    /// A new one has no guest.
    #[derive(Debug)]
    pub(crate) struct KillOnHostExit {
        sockets: Option<Sockets>,
        entry: Option<Entry>,
    }

    impl KillOnHostExit {
        /// `None` where the system has nothing of it: a sandbox may refuse it, or emulate Linux
        /// without it.
        pub(crate) fn new() -> io::Result<Option<Self>> {
            let (sockets, entry) = (Sockets::new()?, Entry::new());
            Ok((sockets.is_some() || entry.is_some()).then_some(Self { sockets, entry }))
        }

        /// Ties the calling process, and with a group of its own all of that. For a child of fork:
        /// it only makes system calls.
        pub(crate) fn tie(&self, group: Group) -> Result<(), Errno> {
            if let Some(entry) = &self.entry {
                entry.enter(group);
            }
            self.sockets.as_ref().map_or(Ok(()), |sockets| sockets.tie(group))
        }

        /// Closes what only a child needs to tie itself.
        pub(crate) fn is_tied(&mut self) {
            if let Some(sockets) = &mut self.sockets {
                sockets.is_tied();
            }
        }

        /// Forgets the number of a child that has ended, right before it is reaped: it may be
        /// another's then.
        pub(crate) fn is_ended(&self) {
            if let Some(entry) = &self.entry {
                entry.clear();
            }
        }

        /// Lets go of whatever is tied.
        pub(crate) fn cut(&self) {
            self.is_ended();
            if let Some(sockets) = &self.sockets {
                sockets.cut();
            }
        }
    }
}

#[cfg(linux_native)]
mod asynchronous {
    use std::io::{self, IoSlice, IoSliceMut};
    use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
    use std::os::unix::net::UnixStream;

    use nix::errno::Errno;
    use nix::libc;
    use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};

    use super::super::Group;
    use super::super::descriptor::lift;

    /// `F_SETSIG` of `<asm-generic/fcntl.h>`, which the libc crate lacks; all architectures that
    /// Rust knows have this one.
    const F_SETSIG: libc::c_int = 10;

    /// Owner of a descriptor that sends no signals.
    const NO_OWNER: libc::pid_t = 0;

    /// A new one has no guest.
    #[derive(Debug)]
    pub(crate) struct Sockets {
        pub(super) plain: OwnedFd,
        /// `None` once it is only in the queue.
        pub(super) armed: Option<OwnedFd>,
        keeping: Keeping,
    }

    /// Method to have the armed socket closed last.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(super) enum Keeping {
        Queue,
        /// The user has too many sockets in queues already (`RLIMIT_NOFILE`): nothing does, and
        /// both are armed.
        Nothing,
    }

    impl Sockets {
        /// `None` where the system does not have it: a sandbox may refuse it, or emulate Linux
        /// without it.
        pub(crate) fn new() -> io::Result<Option<Self>> {
            let (plain, armed) = UnixStream::pair()?;
            let (plain, armed) = (lift(plain.into())?, lift(armed.into())?);
            let keeping = if queue(&armed).is_ok() { Keeping::Queue } else { Keeping::Nothing };
            Ok(Self::armed(plain, armed, keeping)
                .inspect_err(|errno| {
                    tracing::warn!(%errno, "plugins cannot be tied to this process by a socket, and may outlive it");
                })
                .ok())
        }

        pub(super) fn armed(
            plain: OwnedFd,
            armed: OwnedFd,
            keeping: Keeping,
        ) -> Result<Self, Errno> {
            arm(&armed)?;
            if keeping == Keeping::Nothing {
                arm(&plain)?;
            }
            Ok(Self { plain, armed: Some(armed), keeping })
        }

        /// Ties the calling process, and with a group of its own all of that. For a child of fork:
        /// it only makes system calls.
        pub(crate) fn tie(&self, group: Group) -> Result<(), Errno> {
            let own = nix::unistd::getpid().as_raw();
            self.set_owner(match group {
                Group::Own => -own,
                Group::OfHost => own,
            })
        }

        /// Closes what only a child needs to tie itself.
        pub(crate) fn is_tied(&mut self) {
            if self.keeping == Keeping::Queue {
                self.armed = None;
            }
        }

        /// Lets go of whatever is tied.
        pub(crate) fn cut(&self) {
            // Setting no owner has no error. Where no descriptor is left for what is in the queue,
            // it is closed at once, which does nothing to one whose peer is not armed.
            let _ = self.set_owner(NO_OWNER);
            let _ = self.release_queued();
        }

        pub(super) fn set_owner(&self, owner: libc::pid_t) -> Result<(), Errno> {
            if let Some(armed) = &self.armed {
                set(armed, libc::F_SETOWN, owner)?;
            }
            match self.keeping {
                Keeping::Queue => Ok(()),
                Keeping::Nothing => set(&self.plain, libc::F_SETOWN, owner),
            }
        }

        /// Takes the armed socket out of the queue, if it is there, and releases it.
        fn release_queued(&self) -> Result<(), Errno> {
            let mut byte = [0];
            let mut bytes = [IoSliceMut::new(&mut byte)];
            let mut space = nix::cmsg_space!([RawFd; 1]);
            let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_CMSG_CLOEXEC;
            let message =
                recvmsg::<()>(self.plain.as_raw_fd(), &mut bytes, Some(&mut space), flags)?;
            for control in message.cmsgs()? {
                if let ControlMessageOwned::ScmRights(numbers) = control {
                    for number in numbers {
                        // SAFETY: the kernel has just made this descriptor, and nothing else knows
                        // of it.
                        set(&unsafe { OwnedFd::from_raw_fd(number) }, libc::F_SETOWN, NO_OWNER)?;
                    }
                }
            }
            Ok(())
        }
    }

    impl Drop for Sockets {
        fn drop(&mut self) {
            // Closing them must not be taken for the end of this process.
            self.cut();
        }
    }

    /// Puts a copy of the descriptor into the receive queue of its peer.
    pub(super) fn queue(socket: &OwnedFd) -> Result<(), Errno> {
        let itself = [socket.as_raw_fd()];
        let rights = [ControlMessage::ScmRights(&itself)];
        // A message has to have a byte.
        sendmsg::<()>(itself[0], &[IoSlice::new(&[0])], &rights, MsgFlags::MSG_DONTWAIT, None)
            .map(drop)
    }

    fn arm(socket: &OwnedFd) -> Result<(), Errno> {
        set(socket, F_SETSIG, libc::SIGKILL)?;
        // Of the flags that this sets anew, none is set on a new socket.
        set(socket, libc::F_SETFL, libc::O_ASYNC)
    }

    fn set(fd: &OwnedFd, command: libc::c_int, value: libc::c_int) -> Result<(), Errno> {
        // SAFETY: these commands of fcntl take an integer and touch no memory.
        Errno::result(unsafe { libc::fcntl(fd.as_raw_fd(), command, value) }).map(drop)
    }
}

#[cfg(not(linux_native))]
mod none {
    use std::io;

    use nix::errno::Errno;

    use super::super::Group;

    /// Other systems send no signal but SIGIO, which does nothing by default.
    #[derive(Debug)]
    pub(crate) enum KillOnHostExit {}

    impl KillOnHostExit {
        pub(crate) fn new() -> io::Result<Option<Self>> {
            Ok(None)
        }

        pub(crate) fn tie(&self, _group: Group) -> Result<(), Errno> {
            match *self {}
        }

        pub(crate) fn is_tied(&mut self) {
            match *self {}
        }

        pub(crate) fn is_ended(&self) {
            match *self {}
        }

        pub(crate) fn cut(&self) {
            match *self {}
        }
    }
}

#[cfg(test)]
#[cfg(linux_native)]
mod tests {
    use std::mem::ManuallyDrop;
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;
    use std::os::unix::process::{CommandExt, ExitStatusExt};
    use std::process::{Child, Command};
    use std::ptr;

    use nix::sys::signal::{Signal, kill};
    use nix::unistd::Pid;

    use super::asynchronous::{Keeping, Sockets, queue};

    fn child() -> Child {
        Command::new("sleep").arg("1000").process_group(0).spawn().unwrap()
    }

    fn line(keeping: Keeping, child: &Child) -> Sockets {
        let (plain, armed) = UnixStream::pair().unwrap();
        if keeping == Keeping::Queue {
            queue(&armed.as_fd().try_clone_to_owned().unwrap()).unwrap();
        }
        let line = Sockets::armed(plain.into(), armed.into(), keeping).unwrap();
        line.set_owner(-i32::try_from(child.id()).unwrap()).unwrap();
        line
    }

    /// Closes the descriptors as the kernel does at the end of the process.
    fn lose(line: Sockets, first: &str) {
        let line = ManuallyDrop::new(line);
        // SAFETY: each field is read once, and the whole is never dropped.
        let plain = unsafe { ptr::read(&raw const line.plain) };
        // SAFETY: as above.
        let armed = unsafe { ptr::read(&raw const line.armed) };
        if first == "plain" {
            drop(plain);
            drop(armed);
        } else {
            drop(armed);
            drop(plain);
        }
    }

    #[test]
    fn the_end_kills_in_whatever_order_it_comes() {
        for keeping in [Keeping::Queue, Keeping::Nothing] {
            for first in ["plain", "armed"] {
                let mut child = child();
                lose(line(keeping, &child), first);
                assert_eq!(child.wait().unwrap().signal(), Some(9), "{keeping:?}, {first} first");
            }
            let mut child = child();
            let mut line = line(keeping, &child);
            line.is_tied();
            lose(line, "plain");
            assert_eq!(child.wait().unwrap().signal(), Some(9), "{keeping:?}");
        }
    }

    #[test]
    fn cutting_and_dropping_do_not() {
        for keeping in [Keeping::Queue, Keeping::Nothing] {
            for tied in [false, true] {
                let mut child = child();
                let mut first = line(keeping, &child);
                if tied {
                    first.is_tied();
                }
                first.cut();
                lose(first, "plain");
                drop(line(keeping, &child));
                // The first signal is the one that counts.
                kill(Pid::from_raw(child.id().try_into().unwrap()), Signal::SIGTERM).unwrap();
                assert_eq!(child.wait().unwrap().signal(), Some(15), "{keeping:?}");
            }
        }
    }
}
