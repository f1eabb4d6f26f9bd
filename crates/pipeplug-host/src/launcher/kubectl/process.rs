//! A plugin in a pod: kubectl stands for it.

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::{Mutex, PoisonError};

use crate::launcher::cleanup::Cleanup;
use crate::launcher::{Process, Started};
use crate::process::{Child, Delivery, Leftovers, Pid, Signal, Spawned, WaitStatus};

#[derive(Debug)]
pub(super) struct Pod {
    /// `None` once the pod is gone, or its deletion under way.
    cleanup: Mutex<Option<Cleanup>>,
    client: Child,
}

impl Pod {
    pub(super) fn started(spawned: Spawned, cleanup: Cleanup) -> Started {
        let Spawned { child, to_guest, from_guest, stderr, .. } = spawned;
        let process = Self { cleanup: Mutex::new(Some(cleanup)), client: child };
        let mut started = Started::new(process, to_guest, from_guest);
        started.stderr = Some(stderr);
        started
    }
}

impl Process for Pod {
    fn pid(&self) -> Pid {
        self.client.pid()
    }

    fn exit_fd(&self) -> BorrowedFd<'_> {
        self.client.exit_fd()
    }

    fn peek(&self) -> io::Result<Option<WaitStatus>> {
        self.client.peek()
    }

    fn reap(&self) -> io::Result<Option<WaitStatus>> {
        let status = self.client.reap(Leftovers::Kill)?;
        if let Some(status) = status
            && let Some(cleanup) =
                self.cleanup.lock().unwrap_or_else(PoisonError::into_inner).take()
        {
            // It deletes the pod when the plugin has ended. With any other status it may have lost
            // the cluster; a pod that is gone already is none to delete.
            if status.success() { cleanup.release() } else { drop(cleanup) }
        }
        Ok(status)
    }

    fn signal(&self, signal: Signal) -> io::Result<Delivery> {
        // kubectl passes none on. It ends of those that end, and the pod is deleted then.
        self.client.signal_group(signal)
    }
}
