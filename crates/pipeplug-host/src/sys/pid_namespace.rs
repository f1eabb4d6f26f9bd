//! A pid namespace with a plugin in it, from outside.

#[cfg(linux_sandbox)]
pub(crate) use linux::PidNamespace;
#[cfg(not(linux_sandbox))]
pub(crate) use none::PidNamespace;

#[cfg(linux_sandbox)]
mod linux {
    use std::os::fd::OwnedFd;
    use std::thread;
    use std::time::Duration;

    use nix::sys::signal::{Signal, kill};
    use nix::unistd::Pid;

    use super::super::{ExitNotice, Look, block_until_exit, exit_status};

    /// A pid namespace, whose init is a child of this process.
    ///
    /// The kernel kills all that is inside when init ends, whatever session or process group it has
    /// moved to, and init ends when this process does: pid_namespaces(7).
    #[derive(Debug)]
    pub(crate) struct PidNamespace {
        init: Pid,
        /// `None` where the system had no descriptor left for it. A host that ignores SIGCHLD, or
        /// waits for all its children, reaps init by itself; without a pidfd its number could be
        /// another's then.
        exit: Option<ExitNotice>,
        /// Closing it tells init that this process has ended.
        _host_alive: OwnedFd,
    }

    impl PidNamespace {
        pub(crate) fn new(init: Pid, host_alive: OwnedFd) -> Self {
            Self { init, exit: ExitNotice::watch(init).ok(), _host_alive: host_alive }
        }

        /// Kills all that is inside; returns before it is gone.
        pub(crate) fn kill(&self) {
            // It fails only where init has ended, and with it all that is inside.
            let _ = match &self.exit {
                Some(exit) => exit.send(self.init, Signal::SIGKILL),
                None => kill(self.init, Signal::SIGKILL),
            };
        }

        /// Kills all that is inside, and waits until it is gone, for so long; then a thread goes on
        /// to wait.
        ///
        /// The plugin has to be reaped first: init does not end before everything inside has been
        /// waited for.
        pub(crate) fn end(self, timeout: Duration) {
            self.kill();
            let init = self.init;
            // Without a descriptor there is no wait with a limit.
            if self.exit.is_none_or(|exit| exit.wait(timeout).unwrap_or(true)) {
                reap(init);
                return;
            }
            tracing::warn!(%init, "what a plugin left in its pid namespace does not die of SIGKILL, still waiting");
            let waiting =
                thread::Builder::new().name(format!("reap-{init}")).spawn(move || reap(init));
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

#[cfg(not(linux_sandbox))]
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
