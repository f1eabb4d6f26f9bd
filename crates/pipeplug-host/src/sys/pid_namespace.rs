//! A pid namespace with a plugin in it, from outside.

#[cfg(all(target_os = "linux", not(pipeplug_portable)))]
pub(crate) use linux::PidNamespace;
#[cfg(not(all(target_os = "linux", not(pipeplug_portable))))]
pub(crate) use none::PidNamespace;

#[cfg(all(target_os = "linux", not(pipeplug_portable)))]
mod linux {
    use std::os::fd::{AsFd as _, OwnedFd};
    use std::thread;
    use std::time::Duration;

    use nix::sys::signal::{Signal, kill};
    use nix::unistd::Pid;

    use super::super::exit_notice::poll_readable;
    use super::super::{Look, block_until_exit, exit_status, pidfd_open};

    /// A pid namespace. Its init is a child of this process, and is reaped by [`end`](Self::end) only: until then its number
    /// is no other process's.
    ///
    /// The kernel kills all that is inside when init ends, whatever session or process group it has moved to, and init ends
    /// when this process does: pid_namespaces(7).
    #[derive(Debug)]
    pub(crate) struct PidNamespace {
        init: Pid,
        /// Closing it tells init that this process has ended.
        _host_alive: OwnedFd,
    }

    impl PidNamespace {
        pub(crate) fn new(init: Pid, host_alive: OwnedFd) -> Self {
            Self { init, _host_alive: host_alive }
        }

        /// Kills all that is inside; returns before it is gone.
        pub(crate) fn kill(&self) {
            // It has no error for a child that has not been reaped.
            let _ = kill(self.init, Signal::SIGKILL);
        }

        /// Kills all that is inside, and waits until it is gone, for so long; then a thread goes on to wait.
        ///
        /// The plugin has to be reaped first: init does not end before everything inside has been waited for.
        pub(crate) fn end(self, patience: Duration) {
            self.kill();
            let init = self.init;
            let ended = match pidfd_open(init) {
                Ok(fd) => poll_readable(fd.as_fd(), patience).unwrap_or(true),
                // Without a descriptor left there is no wait with a limit.
                Err(_) => true,
            };
            if ended {
                reap(init);
                return;
            }
            tracing::warn!(%init, "what a plugin left in its pid namespace does not die of SIGKILL, still waiting");
            let waiting = thread::Builder::new().name(format!("reap-{init}")).spawn(move || reap(init));
            if let Err(error) = waiting {
                tracing::warn!(%init, %error, "the init of a pid namespace stays a zombie: no thread to reap it");
            }
        }
    }

    fn reap(init: Pid) {
        // However it ended, there is no more to be done.
        let _ = block_until_exit(init);
        let _ = exit_status(init, Look::Reap);
    }
}

#[cfg(not(all(target_os = "linux", not(pipeplug_portable))))]
mod none {
    use std::os::fd::OwnedFd;
    use std::time::Duration;

    use nix::unistd::Pid;

    /// Other systems have none.
    #[derive(Debug)]
    pub(crate) enum PidNamespace {}

    impl PidNamespace {
        pub(crate) fn new(_init: Pid, _host_alive: OwnedFd) -> Self {
            unreachable!("a process without namespaces has no init")
        }

        pub(crate) fn kill(&self) {
            match *self {}
        }

        pub(crate) fn end(self, _patience: Duration) {
            match self {}
        }
    }
}
