//! Promises of the receiver about memory.

#![cfg(feature = "alloc")]

use pipeplug_wire::{Chunk, Format, IN_PLACE_MAX, Limits, Received, Receiver, Space};

const ROOM: usize = 64 << 10;

fn receiver() -> Receiver {
    Receiver::new(Some(Format::Standard), Limits::default().with_buffer(u64::MAX))
}

fn encode(format: Format, chunks: &[Chunk]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for chunk in chunks {
        chunk.header().encode_to(format, &mut bytes).expect("the format can carry the cmd");
        bytes.extend_from_slice(&chunk.buffer);
    }
    bytes
}

#[test]
fn it_begins_and_ends_with_nothing() {
    let mut receiver = receiver();
    assert_eq!(receiver.capacity(), 0);
    receiver.push(b"1\x001\x001\0a\x000\0");
    assert_eq!(receiver.capacity(), ROOM);
    receiver.release();
    assert_eq!(receiver.capacity(), ROOM, "something is in it");
    assert!(matches!(receiver.next(), Ok(Some(Received::Chunk(_)))));
    receiver.release();
    assert_eq!(receiver.capacity(), 0);
    receiver.push(b"1\x001\x001\0a\x000\0");
    assert!(matches!(receiver.next(), Ok(Some(Received::Chunk(_)))));
}

#[test]
fn a_promise_takes_no_memory() {
    let mut receiver = receiver();
    receiver.push(b"1\x002\x003\0put\x001000000000000000000\0");
    assert_eq!(receiver.next(), Ok(None));
    assert!(receiver.capacity() <= 2 * ROOM + 16, "{}", receiver.capacity());
    // From here on it follows what is received, at most doubled.
    let mut received = 0;
    for piece in [10, 100_000, 1_000_000] {
        receiver.push(&vec![b'x'; piece]);
        received += piece;
        assert_eq!(receiver.next(), Ok(None));
        assert!(
            receiver.capacity() <= 2 * received + 2 * ROOM + 16,
            "{} for {received}",
            receiver.capacity()
        );
    }
    let error = receiver.finish().unwrap_err();
    assert_eq!(error.offset, 30 + received as u64);
    assert!(error.to_string().contains("expected 999999999998899990 further bytes"), "{error}");
    assert_eq!(receiver.next(), Err(error));
}

#[test]
fn a_promised_cmd_takes_no_memory() {
    let mut receiver =
        Receiver::new(Some(Format::Standard), Limits::default().with_command(usize::MAX));
    receiver.push(b"1\x002\x00999999999999\0");
    assert_eq!(receiver.next(), Ok(None));
    assert_eq!(receiver.capacity(), ROOM);
    for _ in 0..20 {
        receiver.push(&[b'x'; 10_000]);
        assert_eq!(receiver.next(), Ok(None));
    }
    assert!(receiver.capacity() <= 400_000 + ROOM, "{}", receiver.capacity());
}

#[test]
fn a_large_body_is_received_into_its_own_memory() {
    let len = 1_000_000;
    let chunk = Chunk::new("put", vec![b'x'; len]);
    let mut stream = encode(Format::Standard, std::slice::from_ref(&chunk));
    stream.extend_from_slice(b"1\x001\x001\0a\x000\0");
    let mut receiver = receiver();
    let mut sent = 0;
    let mut straight = 0;
    while sent < stream.len() {
        let before = receiver.offset();
        let Space { into, max } = receiver.space();
        assert!(max >= 1 && into.capacity() - into.len() >= max);
        let piece = max.min(7_000).min(stream.len() - sent);
        if before > 0 && before < len as u64 {
            straight += piece;
        }
        let capacity = into.capacity();
        into.extend_from_slice(&stream[sent..sent + piece]);
        assert_eq!(into.capacity(), capacity, "room was made before");
        sent += piece;
        match receiver.next().unwrap() {
            Some(Received::Large(received)) => {
                assert_eq!(received, chunk);
                assert!(received.buffer.capacity() <= len + len / 8, "no more than it holds");
                assert_eq!(sent, stream.len() - 10, "nothing behind it was read into it");
            }
            Some(Received::Chunk(chunk)) => assert_eq!(chunk.command, "a"),
            Some(other) => panic!("{other:?}"),
            None => {}
        }
    }
    assert_eq!(receiver.offset(), stream.len() as u64);
    assert!(straight > len - 10_000, "{straight} bytes were not copied");
    assert_eq!(receiver.finish(), Ok(()));
}

/// Whatever is behind a large body that was not asked for yet waits in the input buffer.
#[test]
fn a_whole_body_is_kept_until_it_is_asked_for() {
    let large = Chunk::new("put", vec![b'x'; 100_000]);
    let small = Chunk::new("small", "");
    let stream = encode(Format::Standard, &[large.clone(), small.clone()]);
    let mut receiver = receiver();
    receiver.push(&stream[..50]);
    assert_eq!(receiver.next(), Ok(None));
    receiver.push(&stream[50..]);
    assert_eq!(receiver.next(), Ok(Some(Received::Large(large))));
    assert_eq!(receiver.next(), Ok(Some(Received::Chunk(small.as_ref()))));
    assert_eq!(receiver.next(), Ok(None));
}

/// Chunks that never end where the input buffer does: what is left of them is moved, and the buffer
/// stays as it is.
#[test]
fn the_input_buffer_does_not_grow_with_the_stream() {
    let chunk = Chunk::new("put", vec![b'x'; IN_PLACE_MAX]);
    let stream = encode(Format::Standard, &vec![chunk.clone(); 60]);
    let mut receiver = receiver();
    let mut count = 0;
    for piece in stream.chunks(5_003) {
        receiver.push(piece);
        while let Some(received) = receiver.next().unwrap() {
            assert_eq!(received, Received::Chunk(chunk.as_ref()));
            count += 1;
        }
        assert_eq!(receiver.capacity(), ROOM);
    }
    assert_eq!(count, 60);
}

/// All that is pushed before the first `next` is kept.
#[test]
fn much_may_wait() {
    let chunks = vec![Chunk::new("put", vec![b'x'; 1000]); 500];
    let stream = encode(Format::Classic, &chunks);
    let mut receiver = Receiver::new(None, Limits::default());
    receiver.push(&stream);
    for chunk in &chunks {
        assert_eq!(receiver.next(), Ok(Some(Received::Chunk(chunk.as_ref()))));
    }
    assert_eq!(receiver.next(), Ok(None));
    assert_eq!(receiver.format(), Some(Format::Classic));
}

#[test]
fn a_large_body_goes_into_the_memory_that_it_is_given() {
    let large = Chunk::new("put", vec![b'x'; 100_000]);
    let stream = encode(Format::Standard, std::slice::from_ref(&large));
    let mut receiver = receiver();
    assert_eq!(receiver.begun(), None);
    receiver.push(&stream[..50]);
    assert_eq!(receiver.next(), Ok(None));
    assert_eq!(receiver.begun(), Some(100_000));
    let memory = vec![b'y'; 150_000];
    let place = memory.as_ptr();
    receiver.receive_into(memory);
    receiver.push(&stream[50..70_000]);
    assert_eq!(receiver.begun(), None);
    receiver.receive_into(Vec::new()); // too late
    receiver.push(&stream[70_000..]);
    let Ok(Some(Received::Large(received))) = receiver.next() else { panic!("it is whole") };
    assert_eq!(received, large);
    assert_eq!(received.buffer.as_ptr(), place);
}

#[test]
fn memory_that_is_too_small_for_a_large_body_grows() {
    let large = Chunk::new("put", vec![b'x'; 100_000]);
    let stream = encode(Format::Standard, std::slice::from_ref(&large));
    let mut receiver = receiver();
    receiver.push(&stream[..20_000]);
    assert_eq!(receiver.next(), Ok(None));
    receiver.receive_into(Vec::with_capacity(10));
    receiver.push(&stream[20_000..]);
    assert_eq!(receiver.next(), Ok(Some(Received::Large(large))));
}
