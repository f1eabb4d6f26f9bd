//! The differential check: a stream in one piece, and the same stream cut.
//!
//! The first bytes of an input are the cuts and the limits, up to the first 0xff; the stream is
//! what follows.

use pipeplug_wire::{
    Chunk, DecodeError, Decoder, Format, Limits, Received, Receiver, Skipped, Step,
};

#[derive(Clone, Debug, PartialEq)]
enum Event {
    Chunk(Chunk),
    Skipped(Skipped),
}

type Decoded = (Vec<Event>, Result<(), DecodeError>, Option<Format>);

/// Reads the stream in several ways, which have to agree.
pub fn check(format: Option<Format>, data: &[u8]) {
    let Some(at) = data.iter().position(|&byte| byte == 0xff) else { return };
    let (plan, stream) = (&data[..at], &data[at + 1..]);
    let limits = match plan {
        [command, buffer, ..] if command % 2 == 1 => Limits::default()
            .with_command(usize::from(*command))
            .with_buffer(u64::from(*buffer) * 200),
        _ => Limits::default(),
    };
    let whole = receive(format, limits, [stream]);
    assert_eq!(receive(format, limits, cut(plan, stream)), whole, "received in pieces");
    assert_eq!(receive(format, limits, stream.chunks(1)), whole, "received byte by byte");
    assert_eq!(decode(format, limits, cut(plan, stream)), whole, "decoded in pieces");
    if whole.2 == Some(Format::Standard) {
        check_encoding(&whole, stream);
    }
}

/// The standard format has one way to write a chunk: what was read is written as it was.
fn check_encoding((events, end, _): &Decoded, stream: &[u8]) {
    let mut bytes = Vec::new();
    for event in events {
        // Of a skipped chunk nothing is known but its head.
        let Event::Chunk(chunk) = event else { return };
        let header = chunk.header();
        let start = bytes.len();
        header.encode_to(Format::Standard, &mut bytes).expect("this format carries any cmd");
        assert_eq!(bytes.len() - start, header.encoded_len(Format::Standard));
        bytes.extend_from_slice(&chunk.buffer);
    }
    assert!(stream.starts_with(&bytes));
    if end.is_ok() {
        assert_eq!(stream.len(), bytes.len());
    }
}

/// The stream in pieces whose lengths the plan says, over and over.
fn cut<'a>(plan: &'a [u8], stream: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
    let mut lengths = plan.iter().cycle();
    let mut rest = stream;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let len = lengths.next().map_or(7, |&len| usize::from(len) + 1);
        let (piece, later) = rest.split_at(len.min(rest.len()));
        rest = later;
        Some(piece)
    })
}

fn receive<'a>(
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
                Err(error) => return (events, Err(error), receiver.format()),
            }
        }
    }
    let end = receiver.finish();
    (events, end, receiver.format())
}

fn decode<'a>(
    format: Option<Format>,
    limits: Limits,
    pieces: impl IntoIterator<Item = &'a [u8]>,
) -> Decoded {
    let mut decoder = format.map_or(Decoder::detect(limits), |format| Decoder::new(format, limits));
    let mut events = Vec::new();
    let mut input = Vec::new();
    let mut body: Option<(Chunk, usize)> = None;
    for piece in pieces {
        input.extend_from_slice(piece);
        loop {
            if let Some((mut chunk, len)) = body.take() {
                let here = input.len().min(len - chunk.buffer.len());
                chunk.buffer.extend(input.drain(..here));
                if chunk.buffer.len() < len {
                    body = Some((chunk, len));
                    break;
                }
                decoder.body_taken();
                events.push(Event::Chunk(chunk));
            }
            let consumed = match decoder.decode(&input) {
                Ok(Step::Incomplete { consumed, needed }) => {
                    assert!(needed > 0);
                    input.drain(..consumed);
                    break;
                }
                Ok(Step::Chunk { chunk, consumed }) => {
                    events.push(Event::Chunk(chunk.to_chunk()));
                    consumed
                }
                Ok(Step::Head { header, consumed }) => {
                    let mut chunk = Chunk::new(header.command, []);
                    (chunk.thread_id, chunk.direction) = (header.thread_id, header.direction);
                    body = Some((chunk, header.buffer_len as usize));
                    consumed
                }
                Ok(Step::Skipped { skipped, consumed }) => {
                    events.push(Event::Skipped(skipped));
                    consumed
                }
                Err(error) => return (events, Err(error), decoder.format()),
            };
            input.drain(..consumed);
        }
    }
    let end = match &body {
        None => decoder.finish(&input),
        // The decoder cannot know how much of the body was read by now.
        Some((chunk, len)) => decoder.finish(&[]).map_err(|mut error| {
            error.offset += chunk.buffer.len() as u64;
            let missing = Some((len - chunk.buffer.len()) as u64);
            error.kind = pipeplug_wire::DecodeErrorKind::UnexpectedEnd { missing };
            error
        }),
    };
    (events, end, decoder.format())
}
