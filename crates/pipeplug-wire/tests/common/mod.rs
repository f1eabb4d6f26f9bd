//! Common parts of the tests of streams: the events in one, found in one piece or in many.

use pipeplug_wire::{
    Chunk, DecodeError, Decoder, Format, Limits, Received, Receiver, Skipped, Step,
};

/// Event in a stream.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Event {
    Chunk(Chunk),
    Skipped(Skipped),
}

/// The events of a stream, how it ended, and which format it turned out to have.
pub(crate) type Decoded = (Vec<Event>, Result<(), DecodeError>, Option<Format>);

/// Gives the pieces to a receiver one after the other.
pub(crate) fn receive<'a>(
    format: Option<Format>,
    limits: Limits,
    pieces: impl IntoIterator<Item = &'a [u8]>,
) -> Decoded {
    let mut receiver = Receiver::new(format, limits);
    let mut events = Vec::new();
    for piece in pieces {
        receiver.push(piece);
        loop {
            match receiver.next() {
                Ok(Some(Received::Chunk(chunk))) => events.push(Event::Chunk(chunk.to_chunk())),
                Ok(Some(Received::Large(chunk))) => events.push(Event::Chunk(chunk)),
                Ok(Some(Received::Skipped(skipped))) => events.push(Event::Skipped(skipped)),
                Ok(None) => break,
                Err(error) => {
                    assert_eq!(receiver.next(), Err(error));
                    assert_eq!(receiver.finish(), Err(error));
                    return (events, Err(error), receiver.format());
                }
            }
        }
    }
    let end = receiver.finish();
    assert_eq!(receiver.finish(), end);
    assert_eq!(receiver.next(), end.map(|()| None));
    (events, end, receiver.format())
}

/// The same with a decoder, whose input grows by a piece each time.
pub(crate) fn decode<'a>(
    format: Option<Format>,
    limits: Limits,
    pieces: impl IntoIterator<Item = &'a [u8]>,
) -> Decoded {
    let mut decoder = format.map_or(Decoder::detect(limits), |format| Decoder::new(format, limits));
    let mut events = Vec::new();
    let mut input = Vec::new();
    let mut body: Option<Chunk> = None;
    let mut missing = 0;
    let mut total = 0;
    for piece in pieces {
        total += piece.len() as u64;
        input.extend_from_slice(piece);
        loop {
            if let Some(chunk) = &mut body {
                let here = input.len().min(missing);
                chunk.buffer.extend(input.drain(..here));
                missing -= here;
                if missing > 0 {
                    break;
                }
                decoder.body_taken();
                events.extend(body.take().map(Event::Chunk));
            }
            let before = decoder.offset();
            let consumed = match decoder.decode(&input) {
                Ok(Step::Incomplete { consumed, needed }) => {
                    assert!(needed >= 1);
                    assert_eq!(decoder.offset(), before + consumed as u64);
                    input.drain(..consumed);
                    break;
                }
                Ok(Step::Chunk { chunk, consumed }) => {
                    events.push(Event::Chunk(chunk.to_chunk()));
                    consumed
                }
                Ok(Step::Head { header, consumed }) => {
                    missing = header.buffer_len as usize;
                    body = Some(Chunk {
                        thread_id: header.thread_id,
                        direction: header.direction,
                        command: header.command.into(),
                        buffer: Vec::new(),
                    });
                    consumed
                }
                Ok(Step::Skipped { skipped, consumed }) => {
                    events.push(Event::Skipped(skipped));
                    consumed
                }
                Err(error) => {
                    assert_eq!(decoder.decode(&input), Err(error));
                    assert_eq!(decoder.finish(&input), Err(error));
                    return (events, Err(error), decoder.format());
                }
            };
            assert_eq!(decoder.offset(), before + consumed as u64);
            input.drain(..consumed);
        }
    }
    let end = decoder.finish(&input);
    if end.is_ok() {
        assert_eq!(decoder.offset(), total);
    }
    (events, end, decoder.format())
}

/// The chunks as bytes, one after the other.
pub(crate) fn encode(format: Format, chunks: &[Chunk]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for chunk in chunks {
        chunk.header().encode_to(format, &mut bytes).expect("the format can carry the cmd");
        bytes.extend_from_slice(&chunk.buffer);
    }
    bytes
}
