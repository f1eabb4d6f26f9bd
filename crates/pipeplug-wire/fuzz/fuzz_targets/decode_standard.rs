//! A stream of the standard format, in one piece and cut.

#![no_main]

mod common;

use libfuzzer_sys::fuzz_target;
use pipeplug_wire::Format;

fuzz_target!(|data: &[u8]| common::check(Some(Format::Standard), data));
