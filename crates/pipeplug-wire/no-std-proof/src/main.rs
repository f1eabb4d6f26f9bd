//! Proof that the codec needs neither std nor an allocator: this program has none, and encodes and
//! decodes.
//!
//! `cargo xtask ci` runs it with `cargo run` and `cargo run --release` in this folder, which exit
//! with 0 only if all is right, and then looks at the program with `nm`: no symbol of it contains
//! `__rust_alloc`. An allocation anywhere in the codec would not even link, for there is no
//! allocator to link to.
//!
//! The C library is there for its start-up files, which call `main`, and for `memcpy` and the like.

#![no_std]
#![no_main]

use core::ffi::c_int;
use core::panic::PanicInfo;

use pipeplug_wire::{ChunkRef, Decoder, Direction, Format, Limits, SkipReason, Step, ThreadId};

#[link(name = "c")]
unsafe extern "C" {
    safe fn abort() -> !;
}

#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    abort()
}

/// Personality function of unwinding. The prebuilt `core` names it; nothing here unwinds.
// SAFETY: without std, nothing else in the program has this name.
#[unsafe(no_mangle)]
extern "C" fn rust_eh_personality() -> ! {
    abort()
}

// SAFETY: the start-up files of C look for exactly this name, and nothing else in the program has
// it.
#[unsafe(no_mangle)]
extern "C" fn main() -> c_int {
    let right = round_trip(Format::Standard)
        && round_trip(Format::Classic)
        && trickle(b"7\x002\x004\0echo\x005\0hello", Format::Standard)
        && trickle(b"7\x002\0echo 5\0hello", Format::Classic)
        && limits()
        && fault();
    c_int::from(!right)
}

/// Three chunks, encoded into an array and decoded from it.
fn round_trip(format: Format) -> bool {
    let chunks = [
        ChunkRef {
            thread_id: ThreadId::new(7),
            direction: Direction::Request,
            command: "echo",
            buffer: b"hello",
        },
        ChunkRef {
            thread_id: ThreadId::new(0),
            direction: Direction::OneWay,
            command: "",
            buffer: b"",
        },
        ChunkRef {
            thread_id: ThreadId::new(u64::MAX),
            direction: Direction::Response,
            command: "grüße",
            buffer: &[0; 300],
        },
    ];
    let mut bytes = [0; 512];
    let mut len = 0;
    for chunk in &chunks {
        let Ok(written) = chunk.header().encode(format, &mut bytes[len..]) else { return false };
        len += written;
        bytes[len..len + chunk.buffer.len()].copy_from_slice(chunk.buffer);
        len += chunk.buffer.len();
    }
    let mut decoder = Decoder::new(format, Limits::default());
    let mut rest = &bytes[..len];
    for expected in chunks {
        let Ok(Step::Chunk { chunk, consumed }) = decoder.decode(rest) else { return false };
        if chunk != expected {
            return false;
        }
        rest = &rest[consumed..];
    }
    rest.is_empty() && decoder.finish(rest).is_ok() && decoder.offset() == len as u64
}

/// A chunk that comes byte by byte, and tells its format.
fn trickle(bytes: &[u8], format: Format) -> bool {
    let mut decoder = Decoder::detect(Limits::default());
    for len in 0..bytes.len() {
        if !matches!(decoder.decode(&bytes[..len]), Ok(Step::Incomplete { consumed: 0, .. })) {
            return false;
        }
    }
    let Ok(Step::Chunk { chunk, .. }) = decoder.decode(bytes) else { return false };
    chunk.command == "echo" && chunk.buffer == b"hello" && decoder.format() == Some(format)
}

/// A chunk over the limit, and the one behind it.
fn limits() -> bool {
    let bytes = b"1\x002\x001\0a\x005\0hello2\x001\x001\0b\x000\0";
    let mut decoder = Decoder::new(Format::Standard, Limits::default().with_buffer(4));
    let Ok(Step::Skipped { skipped, consumed }) = decoder.decode(bytes) else { return false };
    skipped.reason == SkipReason::BufferTooLong { len: 5, limit: 4 }
        && matches!(decoder.decode(&bytes[consumed..]), Ok(Step::Chunk { chunk, .. }) if chunk.command == "b")
}

/// A broken stream, which stays broken.
fn fault() -> bool {
    let mut decoder = Decoder::new(Format::Standard, Limits::default());
    let error = decoder.decode(b"1\0x\0").err();
    error.is_some_and(|error| error.offset == 2)
        && decoder.decode(b"1\x001\x001\0a\x000\0").err() == error
}
