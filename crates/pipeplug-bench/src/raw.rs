//! The limit: two processes that read and write blocking pipes by hand, with no framing.

use std::env::current_exe;
use std::io::{Read, Write, stdin, stdout};
use std::process::{Child, Command, Stdio};

use anyhow::{Result, ensure};

use crate::measure::{self, Row};

pub(crate) struct Host {
    guest: Child,
    message: Vec<u8>,
    reply: Vec<u8>,
}

impl Host {
    pub(crate) fn start(size: usize) -> Result<Self> {
        let guest = Command::new(current_exe()?)
            .args(["raw-guest", &size.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        Ok(Self { guest, message: vec![b'x'; size], reply: vec![0; size] })
    }

    pub(crate) fn guest_pid(&self) -> u32 {
        self.guest.id()
    }

    pub(crate) fn round(&mut self, calls: u32) -> Result<Row> {
        let pids = [std::process::id(), self.guest_pid()];
        let (Some(to), Some(from)) = (&mut self.guest.stdin, &mut self.guest.stdout) else {
            unreachable!("the guest was started with both pipes");
        };
        let (message, reply) = (&self.message, &mut self.reply);
        measure::round(calls, &pids, || {
            to.write_all(message)?;
            from.read_exact(reply)?;
            ensure!(reply == message, "the guest answered something else");
            Ok(())
        })
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        drop(self.guest.stdin.take());
        // It ends at its end of file; nothing is left to do where it does not.
        let _ = self.guest.wait();
    }
}

/// Says back what it reads, until the end.
pub(crate) fn guest(size: usize) -> Result<()> {
    let mut buffer = vec![0; size];
    let (mut from, mut to) = (stdin().lock(), stdout().lock());
    while from.read_exact(&mut buffer).is_ok() {
        to.write_all(&buffer)?;
        to.flush()?;
    }
    Ok(())
}
