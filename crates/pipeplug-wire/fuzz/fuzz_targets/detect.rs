//! A stream whose format is not known, in one piece and cut.

#![no_main]

mod common;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| common::check(None, data));
