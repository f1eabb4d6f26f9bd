//! Promises of the decoder beyond the events.

#![cfg(feature = "alloc")]

use pipeplug_wire::{
    Chunk, DecodeError, DecodeErrorKind, Decoder, EncodeError, Field, Format, IN_PLACE_MAX, Limits,
    SkipReason, Step,
};

fn standard() -> Decoder {
    Decoder::new(Format::Standard, Limits::default())
}

fn bytes(buffer_len: usize) -> Vec<u8> {
    let chunk = Chunk::new("put", vec![b'x'; buffer_len]);
    let mut bytes = Vec::new();
    chunk.header().encode_to(Format::Standard, &mut bytes).expect("this format carries any cmd");
    bytes.extend_from_slice(&chunk.buffer);
    bytes
}

#[test]
fn a_long_buffer_is_given_as_a_head() {
    let bytes = bytes(IN_PLACE_MAX + 1);
    let header_len = bytes.len() - IN_PLACE_MAX - 1;
    let mut decoder = standard();
    match decoder.decode(&bytes[..bytes.len() - 1]).unwrap() {
        Step::Head { header, consumed } => {
            assert_eq!((header.command, header.buffer_len), ("put", IN_PLACE_MAX as u64 + 1));
            assert_eq!(consumed, header_len);
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(decoder.offset(), header_len as u64);
    let end = decoder.finish(&[]).unwrap_err();
    assert_eq!(end.field, Field::Buffer);
    assert_eq!(end.kind, DecodeErrorKind::UnexpectedEnd { missing: Some(IN_PLACE_MAX as u64 + 1) });
    decoder.body_taken();
    assert_eq!(decoder.offset(), bytes.len() as u64);
    assert_eq!(decoder.finish(&[]), Ok(()));
    decoder.body_taken();
    assert_eq!(decoder.offset(), bytes.len() as u64, "there is no body to take a second time");
}

#[test]
fn a_long_buffer_that_is_not_taken_is_consumed() {
    let mut stream = bytes(IN_PLACE_MAX + 1);
    let mut decoder = standard();
    let Step::Head { consumed, .. } = decoder.decode(&stream[..100]).unwrap() else {
        panic!("no head")
    };
    assert_eq!(
        decoder.decode(&stream[consumed..100]),
        Ok(Step::Incomplete { consumed: 100 - consumed, needed: 1 })
    );
    let first = stream.len();
    stream.extend_from_slice(b"1\x001\x001\0a\x000\0");
    match decoder.decode(&stream[100..]).unwrap() {
        Step::Chunk { chunk, consumed } => {
            assert_eq!(chunk.command, "a");
            assert_eq!(consumed, first - 100 + 10);
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(decoder.offset(), stream.len() as u64);
}

#[test]
fn a_long_buffer_that_is_there_is_given_in_place() {
    let bytes = bytes(IN_PLACE_MAX + 1);
    assert!(
        matches!(standard().decode(&bytes), Ok(Step::Chunk { consumed, .. }) if consumed == bytes.len())
    );
}

#[test]
fn a_buffer_of_the_longest_in_place_is_waited_for() {
    let bytes = bytes(IN_PLACE_MAX);
    let mut decoder = standard();
    let needed = IN_PLACE_MAX - 1;
    let start = &bytes[..bytes.len() - needed];
    assert_eq!(decoder.decode(start), Ok(Step::Incomplete { consumed: 0, needed }));
    assert!(matches!(decoder.decode(&bytes), Ok(Step::Chunk { .. })));
}

#[test]
fn what_is_needed_is_what_is_missing_at_least() {
    let bytes = b"7\x002\x004\0echo\x005\0hello";
    let mut decoder = standard();
    for len in 0..bytes.len() {
        match decoder.decode(&bytes[..len]).unwrap() {
            Step::Incomplete { consumed: 0, needed } => {
                assert!((1..=bytes.len() - len).contains(&needed), "{needed} at {len}");
                // From the length of the cmd on it is known.
                let known = [(6, 7), (8, 5), (13, 5), (17, 1)];
                for (_, exact) in known.iter().filter(|(at, _)| *at == len) {
                    assert_eq!(needed, *exact, "at {len}");
                }
            }
            other => panic!("{other:?} at {len}"),
        }
    }
}

#[test]
fn a_skip_is_told_as_soon_as_the_header_is_known() {
    let limits = Limits::default().with_command(3).with_buffer(4);
    let cases: [(_, &[u8], _); 4] = [
        (Format::Standard, b"1\x009\x001\0a\x001\0", SkipReason::UnknownDirection),
        (
            Format::Standard,
            b"1\x002\x004\0echo\x009\0",
            SkipReason::CommandTooLong { len: 4, limit: 3 },
        ),
        (
            Format::Standard,
            b"1\x002\x001\0a\x005\0",
            SkipReason::BufferTooLong { len: 5, limit: 4 },
        ),
        (Format::Classic, b"1\x002\0abcdef \0", SkipReason::CommandTooLong { len: 6, limit: 3 }),
    ];
    for (format, input, reason) in cases {
        let mut decoder = Decoder::new(format, limits);
        let mut start = 0;
        for end in 0..input.len() {
            match decoder.decode(&input[start..end]).unwrap() {
                Step::Incomplete { consumed, .. } => start += consumed,
                other => panic!("{other:?} after {end} bytes"),
            }
        }
        match decoder.decode(&input[start..]).unwrap() {
            Step::Skipped { skipped, consumed } => {
                assert_eq!(skipped.reason, reason);
                assert_eq!(start + consumed, input.len());
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn an_endless_cmd_is_discarded_as_it_comes() {
    let limits = Limits::default().with_command(3);
    let mut decoder = Decoder::new(Format::Classic, limits);
    assert_eq!(
        decoder.decode(b"1\x002\0abcdefgh"),
        Ok(Step::Incomplete { consumed: 12, needed: 2 })
    );
    for _ in 0..3 {
        assert_eq!(decoder.decode(&[b'x'; 100]), Ok(Step::Incomplete { consumed: 100, needed: 2 }));
    }
    match decoder.decode(b"x 2\0y").unwrap() {
        Step::Skipped { skipped, consumed: 4 } => {
            assert_eq!(skipped.reason, SkipReason::CommandTooLong { len: 309, limit: 3 });
            assert_eq!(
                (skipped.command_len, skipped.buffer_len, skipped.reserved),
                (309, 2, false)
            );
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(decoder.decode(b"y"), Ok(Step::Incomplete { consumed: 1, needed: 1 }));
    assert_eq!(
        decoder.finish(b"").unwrap_err().kind,
        DecodeErrorKind::UnexpectedEnd { missing: Some(1) }
    );
    assert!(matches!(decoder.decode(b"z2\x001\0b \0"), Ok(Step::Chunk { consumed: 8, .. })));
}

#[test]
fn input_that_lost_bytes_does_no_harm() {
    let bytes = b"7\x002\x004\0echo\x0050\0hello";
    for len in 0..bytes.len() {
        for kept in 0..len {
            let mut decoder = Decoder::detect(Limits::default());
            decoder.decode(&bytes[..len]).unwrap();
            // Whatever it makes of it, it does not panic.
            let _ = decoder.decode(&bytes[..kept]);
            let _ = decoder.finish(&bytes[..kept]);
        }
    }
}

#[test]
fn the_other_format_is_guessed() {
    let other = |format, input: &[u8]| -> Option<Format> {
        Decoder::new(format, Limits::default()).decode(input).unwrap_err().other_format()
    };
    assert_eq!(other(Format::Standard, b"1\x003\0GetMetadata 2\0{}"), Some(Format::Classic));
    assert_eq!(other(Format::Standard, b"\x001\0note \0"), Some(Format::Classic));
    assert_eq!(
        other(Format::Classic, b"1\x003\x0011\0GetMetadata\x002\0{}"),
        Some(Format::Standard)
    );
    assert_eq!(other(Format::Standard, b"hello"), None);
}

#[test]
fn an_error_is_one_precise_line() {
    let broken = |format, input: &[u8]| {
        let mut decoder = Decoder::new(format, Limits::default());
        decoder
            .decode(input)
            .map(drop)
            .and_then(|()| decoder.finish(input))
            .unwrap_err()
            .to_string()
    };
    let start = "broken chunk at byte";
    let cases: [(Format, &[u8], &str); 9] = [
        (
            Format::Standard,
            b"7\0x\0",
            "2 of the stream, in its direction: expected digits up to a NUL, found 0x78 ('x')",
        ),
        (
            Format::Standard,
            b"7\0\0",
            "2 of the stream, in its direction: expected at least one digit, found NUL",
        ),
        (
            Format::Standard,
            b"07",
            "1 of the stream, in its threadID: expected NUL behind a leading zero, found 0x37 \
             ('7')",
        ),
        (
            Format::Standard,
            b"18446744073709551616",
            "19 of the stream, in its threadID: expected a number of at most 18446744073709551615, \
             found the further digit 0x36 ('6')",
        ),
        (
            Format::Standard,
            b"7\x002\x001\0ab",
            "7 of the stream, in its cmd: expected NUL behind the announced length, found 0x62 \
             ('b')",
        ),
        (
            Format::Standard,
            b"7\x002\x001\0\xff\0",
            "6 of the stream, in its cmd: expected UTF-8, found 0xff",
        ),
        (
            Format::Classic,
            b"7\x002\0a\0",
            "5 of the stream, in its cmd: expected a space behind the cmd, found NUL",
        ),
        (
            Format::Classic,
            b"7\x002\0a",
            "5 of the stream, in its cmd: expected the rest of the chunk, found the end of the \
             stream",
        ),
        (
            Format::Standard,
            b"7\x002\x001\0a\x005\0hel",
            "13 of the stream, in its buffer: expected 2 further bytes, found the end of the \
             stream",
        ),
    ];
    for (format, input, expected) in cases {
        assert_eq!(broken(format, input), format!("{start} {expected}"));
    }
}

#[test]
fn a_skip_says_both_numbers() {
    let limits = Limits::default().with_command(3).with_buffer(4);
    let told = |format, input: &[u8]| match Decoder::new(format, limits).decode(input) {
        Ok(Step::Skipped { skipped, .. }) => skipped.to_string(),
        other => panic!("{other:?}"),
    };
    assert_eq!(
        told(Format::Standard, b"1\x009\x000\0\x000\0"),
        "chunk with thread id 1 and direction 9 skipped: unknown direction, expected 1, 2 or 3"
    );
    assert_eq!(
        told(Format::Standard, b"1\x002\x0012\0abcdefghijkl\x000\0"),
        "chunk with thread id 1 and direction 2 skipped: the command is 12 bytes long, the limit \
         is 3"
    );
    assert_eq!(
        told(Format::Classic, b"1\x002\0abcd \0"),
        "chunk with thread id 1 and direction 2 skipped: the command is 4 bytes long, the limit is \
         3"
    );
    assert_eq!(
        told(Format::Classic, b"1\x002\0a 70\0"),
        "chunk with thread id 1 and direction 2 skipped: the buffer is 70 bytes long, the limit is \
         4"
    );
}

#[test]
fn classic_names_the_way_out_of_its_cmds() {
    for (command, expected) in [
        ("say hello", EncodeError::SpaceInCommand { at: 3 }),
        ("a\0b", EncodeError::NulInCommand { at: 1 }),
    ] {
        let chunk = Chunk::new(command, "");
        let mut out = b"kept".to_vec();
        let error = chunk.header().encode_to(Format::Classic, &mut out).unwrap_err();
        assert_eq!(error, expected);
        assert_eq!(out, b"kept");
        assert!(
            error
                .to_string()
                .ends_with("which the classic format cannot carry, use the standard format")
        );
        assert_eq!(chunk.header().encode(Format::Classic, &mut [0; 64]), Err(expected));
        assert!(chunk.header().encode(Format::Standard, &mut [0; 64]).is_ok());
    }
    let error = Chunk::new("a", "").header().encode(Format::Standard, &mut [0; 9]).unwrap_err();
    assert_eq!(error.to_string(), "the header takes 10 bytes, the output has 9");
}

#[test]
fn errors_are_errors() {
    fn is_error<E: std::error::Error + Send + Sync + 'static>() {}
    is_error::<DecodeError>();
    is_error::<EncodeError>();
    is_error::<pipeplug_wire::ParseFormatError>();
    assert_eq!("classic".parse(), Ok(Format::Classic));
    assert_eq!(Format::Classic.to_string(), "classic");
    assert!(
        "Classic"
            .parse::<Format>()
            .unwrap_err()
            .to_string()
            .contains("\"standard\" or \"classic\"")
    );
}
