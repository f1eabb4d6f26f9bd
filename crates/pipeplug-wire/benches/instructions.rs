//! Pieces of work whose instructions `cargo xtask instructions` counts, under callgrind.
//!
//! `instructions NAME ROUNDS` does one of them so many times; `instructions --list` names them.

use std::env;
use std::hint::black_box;

use pipeplug_wire::{
    Calls, Chunk, Completion, Decoder, Format, Limits, Received, Receiver, Step, ThreadId,
};

/// A piece of work, by its name in the file of budgets.
type Benchmark = (&'static str, fn(rounds: u32));

const BENCHMARKS: [Benchmark; 8] = [
    ("encode-standard", |rounds| encode(Format::Standard, rounds)),
    ("encode-classic", |rounds| encode(Format::Classic, rounds)),
    ("decode-standard", |rounds| decode(Format::Standard, rounds)),
    ("decode-classic", |rounds| decode(Format::Classic, rounds)),
    ("receive-64-standard", |rounds| receive_batch(Format::Standard, rounds)),
    ("receive-64-classic", |rounds| receive_batch(Format::Classic, rounds)),
    ("receive-in-two-pieces", receive_in_two_pieces),
    ("open-and-complete-64-calls", open_and_complete),
];

/// How many chunks or calls there are in a batch.
const BATCH: usize = 64;

fn main() {
    let args: Vec<String> = env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["--list"] => BENCHMARKS.iter().for_each(|(name, _)| println!("{name}")),
        [name, rounds] => {
            let (_, run) =
                BENCHMARKS.iter().find(|(found, _)| *found == name).expect("--list names them all");
            run(rounds.parse().expect("the second argument is a number of rounds"));
        }
        // `cargo bench` shows only that they run.
        _ => BENCHMARKS.iter().for_each(|(_, run)| run(1)),
    }
}

/// Callgrind counts while this runs, and knows it by its name.
#[inline(never)]
fn counted(rounds: u32, round: &mut dyn FnMut()) {
    for _ in 0..rounds {
        round();
    }
}

/// Code to count, after a first run that allocates its memory.
fn count(rounds: u32, mut round: impl FnMut()) {
    round();
    counted(rounds, &mut round);
}

fn chunk() -> Chunk {
    let mut chunk = Chunk::new("echo", [b'x'; 32]);
    chunk.thread_id = ThreadId::new(12_345);
    chunk
}

fn append(chunk: &Chunk, format: Format, bytes: &mut Vec<u8>) {
    chunk.header().encode_to(format, bytes).expect("the cmd has no space");
    bytes.extend_from_slice(&chunk.buffer);
}

fn encoded(format: Format) -> Vec<u8> {
    let mut bytes = Vec::new();
    append(&chunk(), format, &mut bytes);
    bytes
}

fn encode(format: Format, rounds: u32) {
    let chunk = chunk();
    let mut bytes = Vec::with_capacity(256);
    count(rounds, || {
        bytes.clear();
        append(black_box(&chunk), format, &mut bytes);
        black_box(&bytes);
    });
}

fn decode(format: Format, rounds: u32) {
    let bytes = encoded(format);
    let mut decoder = Decoder::new(format, Limits::default());
    count(rounds, || match &decoder.decode(black_box(&bytes)) {
        Ok(Step::Chunk { chunk, .. }) => drop(black_box(chunk)),
        other => panic!("{other:?}"),
    });
}

fn receive_batch(format: Format, rounds: u32) {
    let bytes = encoded(format).repeat(BATCH);
    let mut receiver = Receiver::new(Some(format), Limits::default());
    count(rounds, || {
        receiver.push(black_box(&bytes));
        assert_eq!(chunks_in(&mut receiver), BATCH);
    });
}

/// The way of a chunk that is not whole when it is first looked at.
fn receive_in_two_pieces(rounds: u32) {
    let bytes = encoded(Format::Standard);
    let (first, second) = bytes.split_at(7);
    let mut receiver = Receiver::new(Some(Format::Standard), Limits::default());
    count(rounds, || {
        receiver.push(black_box(first));
        assert_eq!(chunks_in(&mut receiver), 0);
        receiver.push(black_box(second));
        assert_eq!(chunks_in(&mut receiver), 1);
    });
}

fn chunks_in(receiver: &mut Receiver) -> usize {
    let mut chunks = 0;
    while let Some(received) = receiver.next().expect("the stream is as it should be") {
        match &received {
            Received::Chunk(chunk) => drop(black_box(chunk)),
            other => panic!("{other:?}"),
        }
        chunks += 1;
    }
    chunks
}

fn open_and_complete(rounds: u32) {
    let mut calls = Calls::new(1024);
    let mut ids = Vec::with_capacity(BATCH);
    count(rounds, || {
        ids.extend((0..BATCH).map(|waiter| calls.open(black_box(waiter)).expect("there is room")));
        for (waiter, id) in ids.drain(..).enumerate() {
            assert_eq!(calls.complete(id), Completion::Waiter(waiter));
        }
    });
}
