//! Cost of a small chunk in nanoseconds: `cargo bench -p pipeplug-wire`.

use std::hint::black_box;
use std::time::Instant;

use pipeplug_wire::{
    Calls, Chunk, Completion, Decoder, Format, Limits, Received, Receiver, Step, ThreadId,
};

const ROUNDS: u32 = 2_000_000;

fn main() {
    for format in [Format::Standard, Format::Classic] {
        let mut chunk = Chunk::new("echo", [b'x'; 32]);
        chunk.thread_id = ThreadId::new(12_345);
        let mut bytes = Vec::with_capacity(256);
        report(format, "encode", || {
            bytes.clear();
            black_box(&chunk).header().encode_to(format, &mut bytes).expect("the cmd has no space");
            bytes.extend_from_slice(&chunk.buffer);
            black_box(&bytes);
        });
        let mut decoder = Decoder::new(format, Limits::default());
        report(format, "decode", || match &decoder.decode(black_box(&bytes)) {
            Ok(Step::Chunk { chunk, .. }) => drop(black_box(chunk)),
            other => panic!("{other:?}"),
        });
        let mut receiver = Receiver::new(Some(format), Limits::default());
        report(format, "receive", || {
            receiver.push(black_box(&bytes));
            match &receiver.next() {
                Ok(Some(Received::Chunk(chunk))) => drop(black_box(chunk)),
                other => panic!("{other:?}"),
            }
        });
    }
    let mut calls = Calls::new(1024);
    report("calls", "open and complete", || {
        let id = calls.open(black_box(7_u64)).expect("one call at a time");
        assert_eq!(calls.complete(id), Completion::Waiter(7));
    });
}

fn report(what: impl std::fmt::Display, operation: &str, mut run: impl FnMut()) {
    let best = (0..5).map(|_| {
        let start = Instant::now();
        (0..ROUNDS).for_each(|_| run());
        start.elapsed() / (ROUNDS / 1000)
    });
    // What is slower than the best round was disturbed.
    let best = best.min().expect("there are five rounds");
    println!("{what:8} {operation:17} {:6.1} ns", best.as_nanos() as f64 / 1000.0);
}
