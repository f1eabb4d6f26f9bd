//! Streams of any chunks, in any cut.

#![cfg(feature = "alloc")]

mod common;

use common::{Event, decode, encode, receive};
use pipeplug_wire::{Chunk, Direction, Format, IN_PLACE_MAX, Limits, ThreadId};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};

const DIRECTIONS: [Direction; 3] = [Direction::OneWay, Direction::Request, Direction::Response];
const FORMATS: [Format; 2] = [Format::Standard, Format::Classic];

fn number() -> impl Strategy<Value = u64> {
    prop_oneof![0_u64..20, any::<u64>(), (0_u32..64).prop_map(|bits| 1 << bits)]
}

fn buffer() -> impl Strategy<Value = Vec<u8>> {
    let long = (IN_PLACE_MAX - 1)..(IN_PLACE_MAX * 9);
    prop_oneof![
        8 => vec(any::<u8>(), 0..40),
        1 => (long, any::<u8>()).prop_map(|(len, start)| {
            // Not random, which would be slow, but no two neighbours are the same.
            (0..len).map(|at| start.wrapping_add((at % 251) as u8)).collect()
        }),
    ]
}

fn stream() -> impl Strategy<Value = (Format, Vec<Chunk>)> {
    select(&FORMATS[..]).prop_flat_map(|format| {
        let command = match format {
            Format::Standard => "[ -~\\x00ß本]{0,12}|[0-9]{1,25}",
            Format::Classic => "[!-~ß本]{0,12}|[0-9]{1,25}",
        };
        let chunk = (number(), select(&DIRECTIONS[..]), command, buffer()).prop_map(
            |(thread_id, direction, command, buffer)| Chunk {
                thread_id: ThreadId::new(thread_id),
                direction,
                command,
                buffer,
            },
        );
        (Just(format), vec(chunk, 0..6))
    })
}

/// The bytes in as many pieces as there are cuts, and one more.
fn pieces<'a>(bytes: &'a [u8], cuts: &[Index]) -> Vec<&'a [u8]> {
    let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
    cuts.sort_unstable();
    let starts = std::iter::once(0).chain(cuts.iter().copied());
    let ends = cuts.iter().copied().chain([bytes.len()]);
    starts.zip(ends).map(|(start, end)| &bytes[start..end]).collect()
}

proptest! {
    #[test]
    fn round_trip((format, chunks) in stream(), cuts in vec(any::<Index>(), 0..12)) {
        let bytes = encode(format, &chunks);
        let pieces = pieces(&bytes, &cuts);
        let empty = chunks.is_empty();
        let events: Vec<_> = chunks.into_iter().map(Event::Chunk).collect();
        let expected = (events.clone(), Ok(()), Some(format));
        prop_assert_eq!(receive(Some(format), Limits::default(), pieces.clone()), expected.clone());
        prop_assert_eq!(decode(Some(format), Limits::default(), pieces.clone()), expected);
        let expected = (events, Ok(()), (!empty).then_some(format));
        prop_assert_eq!(receive(None, Limits::default(), pieces.clone()), expected.clone());
        prop_assert_eq!(decode(None, Limits::default(), pieces), expected);
    }

    /// Whatever the bytes are: the cut makes no difference, and nothing panics.
    #[test]
    fn any_cut(
        bytes in vec(select(&b"0123 \x00\x00\x00ab\xff"[..]), 0..80),
        cuts in vec(any::<Index>(), 0..12),
        format in select(&[None, Some(Format::Standard), Some(Format::Classic)][..]),
        command in 0_usize..8,
        buffer in 0_u64..8,
    ) {
        let limits = Limits::default().with_command(command).with_buffer(buffer);
        let whole = receive(format, limits, [&bytes[..]]);
        prop_assert_eq!(&receive(format, limits, pieces(&bytes, &cuts)), &whole);
        prop_assert_eq!(&decode(format, limits, pieces(&bytes, &cuts)), &whole);
        prop_assert_eq!(&receive(format, limits, bytes.chunks(1)), &whole);
    }

    /// One byte of a good stream is replaced, so that faults deep in it are found too.
    #[test]
    fn any_fault(
        (format, chunks) in stream(),
        at in any::<Index>(),
        byte in any::<u8>(),
        cuts in vec(any::<Index>(), 0..12),
    ) {
        let mut bytes = encode(format, &chunks);
        prop_assume!(!bytes.is_empty());
        let at = at.index(bytes.len());
        bytes[at] = byte;
        for format in [None, Some(format)] {
            let whole = receive(format, Limits::default(), [&bytes[..]]);
            prop_assert_eq!(&receive(format, Limits::default(), pieces(&bytes, &cuts)), &whole);
            prop_assert_eq!(&decode(format, Limits::default(), pieces(&bytes, &cuts)), &whole);
        }
    }
}
