//! Messages between the benchmark's driver and the programs that it measures, for all peers.
//!
//! The driver starts `PEER host [MODE]`, writes one command, and reads `BEGIN <plugin pid>` once
//! all is warm. Any line starts the timed part, which ends with `END {json}`. `NA <why>` in place
//! of `BEGIN` says that the peer has no such thing. The host ends at `quit` or the end of stdin.
//!
//! The host of a peer is [`threads::host`] or [`tasks::host`] and a way to start its plugin
//! ([`process`]).

mod command;
mod payload;
mod report;

pub mod process;
pub mod tasks;
pub mod threads;

use std::env;
use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

pub use payload::{Payload, Sum};

/// Role of this process.
pub enum Role {
    /// Takes a command, starts the plugin, makes the calls.
    Host { mode: Mode },
    /// Answers the calls. `socket` is where it is to listen, for those that do.
    Plugin { mode: Mode, socket: Option<String> },
}

/// Which of its ways a peer takes, as `NAME` or `NAME,WORKERS`: how many threads run its tasks.
pub struct Mode(String);

impl Mode {
    /// Its name; empty where the peer has one way only.
    pub fn name(&self) -> &str {
        self.0.split(',').next().unwrap_or_default()
    }

    /// How many threads run tasks; as many as there are CPUs, if it is not said.
    ///
    /// # Errors
    /// It is no number, or 0.
    pub fn workers(&self) -> Result<Option<NonZeroUsize>> {
        let Some((_, workers)) = self.0.split_once(',') else { return Ok(None) };
        let workers =
            workers.parse().with_context(|| format!("no number of workers: `{workers}`"))?;
        Ok(Some(workers))
    }
}

/// Reads what this process is to be from its arguments.
///
/// # Errors
/// They say neither `host` nor `plugin`.
pub fn role() -> Result<Role> {
    let mut args = env::args().skip(1);
    let role = args.next().unwrap_or_default();
    let mode = Mode(args.next().unwrap_or_default());
    match role.as_str() {
        "host" => Ok(Role::Host { mode }),
        "plugin" => Ok(Role::Plugin { mode, socket: args.next() }),
        other => anyhow::bail!("expected `host [MODE]`, got `{other}`"),
    }
}

/// The work of the plugin's handler: none, or a busy CPU.
#[derive(Clone, Copy)]
pub struct Handler {
    busy: Duration,
}

impl Handler {
    /// Busy for `BENCH_HANDLER_US` microseconds; not at all where it is not set.
    ///
    /// # Errors
    /// It is no number.
    pub fn from_env() -> Result<Self> {
        let micros = match env::var("BENCH_HANDLER_US") {
            Ok(text) => {
                text.parse().with_context(|| format!("BENCH_HANDLER_US is no number: `{text}`"))?
            }
            Err(_) => 0,
        };
        Ok(Self { busy: Duration::from_micros(micros) })
    }

    /// Does the work.
    pub fn run(self) {
        if self.busy.is_zero() {
            return;
        }
        let start = Instant::now();
        while start.elapsed() < self.busy {
            std::hint::spin_loop();
        }
    }
}
