//! What is measured: the host's side of each subject that is built from Rust in this workspace, and the plugins of the raw ones.
//!
//! `bench-subject host SUBJECT` reads one order from standard input (see `contract.rs`), starts its plugin and obeys.
//! By hand, for strace(1) and perf(1):
//!
//! ```sh
//! printf 'sequential 0 1000 64\ngo\nquit\n' | strace -f -c bench-subject host pipeplug
//! ```

#![forbid(unsafe_code)]

mod contract;
mod latency;
mod pipeplug;
mod raw;

use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};

use crate::contract::Driver;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &[String]) -> Result<()> {
    let role = args.first().map(String::as_str);
    let subject = args.get(1).map_or("pipeplug", String::as_str);
    match role {
        Some("host") => {
            let mut driver = Driver::on_stdio();
            let Some(order) = driver.order()? else { return Ok(()) };
            if let Some(mode) = raw::Mode::named(subject) {
                raw::host(mode, order, &mut driver)
            } else {
                let mode = pipeplug::Mode::named(subject).with_context(|| format!("no subject {subject}"))?;
                pipeplug::host(mode, order, &mut driver)
            }
        }
        Some("plugin") => {
            let mode = raw::Mode::named(subject).with_context(|| format!("no raw subject {subject}"))?;
            raw::plugin(mode, args.get(2..).unwrap_or_default())
        }
        _ => bail!("usage: bench-subject host SUBJECT, and an order on standard input"),
    }
}
