//! ttrpc over a Unix socket: its blocking side (`sync`) and its async one (`async`).

mod blocking;
mod tasks;

use anyhow::{Result, bail};
use contract::{Role, role};

/// A message may have 4 MiB with all that is around the payload; ttrpc has no knob for it.
const LIMIT: usize = ttrpc::proto::MESSAGE_LENGTH_MAX - 1024;

fn main() -> Result<()> {
    match role()? {
        Role::Host { mode } => match mode.name() {
            "sync" => contract::threads::host(&mode, blocking::start),
            "async" => contract::tasks::host(&mode, tasks::start),
            other => bail!("expected mode sync or async, got `{other}`"),
        },
        Role::Plugin { mode, socket: Some(socket) } => match mode.name() {
            "sync" => blocking::serve(&address(&socket)),
            "async" => tasks::serve(&mode, &address(&socket)),
            other => bail!("expected mode sync or async, got `{other}`"),
        },
        Role::Plugin { socket: None, .. } => bail!("expected a socket"),
    }
}

fn address(socket: &impl std::fmt::Display) -> String {
    format!("unix://{socket}")
}
