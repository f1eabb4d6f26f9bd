//! Lines of a script on stdin.

use std::io;
use std::sync::mpsc::{Receiver, TryRecvError, sync_channel};
use std::task::Poll;
use std::thread;

use crate::exit::{CommandError, ExitReason};
use crate::session::shutdown::Shutdown;

/// Lines of stdin, which are read on a thread of their own: a read cannot be interrupted.
pub(super) struct Script {
    lines: Receiver<io::Result<String>>,
    /// Number of the last line.
    pub(super) number: u64,
}

impl Script {
    pub(super) fn begin() -> Result<Self, CommandError> {
        let (sender, lines) = sync_channel(1);
        let shell = thread::current();
        let read = move || {
            for line in io::stdin().lines() {
                if sender.send(line).is_err() {
                    return;
                }
                shell.unpark();
            }
            // Before the wake-up: it shows the end.
            drop(sender);
            shell.unpark();
        };
        thread::Builder::new().name("script".into()).spawn(read).map_err(|error| {
            let message = format!("cannot start the thread that reads stdin: {error}");
            CommandError::message(ExitReason::Failed, message)
        })?;
        Ok(Self { lines, number: 0 })
    }

    /// Reads the next line. `None` at the end, and when a shutdown begins.
    ///
    /// # Errors
    /// Stdin cannot be read, or is no text.
    ///
    /// # Blocking
    /// Until the next line is there.
    pub(super) fn next(&mut self, shutdown: &Shutdown) -> Result<Option<String>, CommandError> {
        let next = std::future::poll_fn(|_| match self.lines.try_recv() {
            Ok(line) => Poll::Ready(Some(line)),
            Err(TryRecvError::Empty) => Poll::Pending,
            Err(TryRecvError::Disconnected) => Poll::Ready(None),
        });
        let line = shutdown.wait_for(next).flatten();
        self.number += u64::from(line.is_some());
        line.transpose().map_err(|error| {
            let message = match error.kind() {
                io::ErrorKind::InvalidData => {
                    "the line is not UTF-8; DATA that is no text comes from a file: @FILE"
                        .to_owned()
                }
                _ => format!("cannot read stdin: {error}"),
            };
            CommandError::message(ExitReason::Usage, message)
        })
    }
}
