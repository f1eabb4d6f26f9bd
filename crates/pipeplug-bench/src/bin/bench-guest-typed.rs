//! The plugin that typed calls are measured with: its service as a user would write it, and another
//! with postcard.

#![forbid(unsafe_code)]

#[path = "bench-subject/typed/fast.rs"]
mod fast;
#[path = "bench-subject/typed/plugin.rs"]
mod plugin;
#[path = "bench-subject/typed/shared.rs"]
mod shared;

use std::process::ExitCode;

use crate::fast::{FastWords, FastWordsServer};

struct Adds;

impl FastWords for Adds {
    fn add(&self, a: i64, b: i64) -> i64 {
        a + b
    }
}

fn main() -> ExitCode {
    if std::env::var_os("BENCH_POSTCARD").is_some() {
        return pipeplug_guest::serve(FastWordsServer::new(Adds));
    }
    plugin::main()
}
