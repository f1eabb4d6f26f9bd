//! What a user of pipeplug would write, with every setting at its default.

use std::env::{args, current_exe};
use std::process::ExitCode;

use anyhow::{Result, ensure};
use pipeplug_guest::{Incoming, Main, register};
use pipeplug_host::Plugin;

use crate::measure::{self, Row};

const GUEST: &str = "pipeplug-guest";

pub(crate) struct Host {
    plugin: Plugin,
}

impl Host {
    pub(crate) fn start() -> Result<Self> {
        Ok(Self { plugin: Plugin::builder(current_exe()?).arg(GUEST).start()? })
    }

    pub(crate) fn guest_pid(&self) -> u32 {
        self.plugin.pid().as_raw().unsigned_abs()
    }

    pub(crate) fn round(&self, calls: u32, size: usize) -> Result<Row> {
        let message = vec![b'x'; size];
        let pids = [std::process::id(), self.guest_pid()];
        measure::round(calls, &pids, || {
            let reply = self.plugin.call_bytes("echo", message.as_slice())?;
            ensure!(reply == message, "the guest answered something else");
            Ok(())
        })
    }
}

/// Whether this process was started as the plugin: behind the descriptors' numbers.
pub(crate) fn is_guest() -> bool {
    args().nth(3).is_some_and(|arg| arg == GUEST)
}

/// The plugin.
pub(crate) fn guest() -> ExitCode {
    register((), |_main: &Main, incoming: &mut Incoming| Ok(incoming.take_buffer().into())).wait()
}
