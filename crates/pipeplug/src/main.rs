//! `pipeplug`: run, list, inspect and add plugins in a terminal.
#![forbid(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

mod add;
mod answers;
mod builtin;
mod cli;
mod container;
mod data;
mod event;
mod exit;
mod halt;
mod inspect;
mod kubectl;
mod list;
mod logging;
mod output;
mod pack;
mod pin;
mod place;
mod report;
mod rm;
mod run;
mod session;
mod start;
mod steps;
mod stopped;
mod style;
mod target;
mod text;
mod units;
mod walls;

fn main() -> std::process::ExitCode {
    cli::main()
}
