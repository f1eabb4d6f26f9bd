//! `pipeplug`: runs, lists, inspects and adds plugins in a terminal.
#![forbid(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

mod args;
mod builtin;
mod cli;
mod commands;
mod complete;
mod exit;
mod output;
mod session;
mod trace;
mod watch;

fn main() -> std::process::ExitCode {
    cli::main()
}
