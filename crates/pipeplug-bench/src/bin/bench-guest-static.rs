//! `bench-guest` once more. `cargo xtask bench` links it statically, to have its start compared
//! with that of a program that is linked in the same way.

#![forbid(unsafe_code)]

#[path = "bench-guest.rs"]
mod guest;

use std::process::ExitCode;

fn main() -> ExitCode {
    guest::main()
}
