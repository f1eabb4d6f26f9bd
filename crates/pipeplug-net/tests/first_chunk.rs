//! The first chunk tells the format, whatever becomes of it.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::{Raw, Way, bytes_in, raw_on, watchdog};
use pipeplug_net::wire::{Direction, Format, Limits};
use pipeplug_net::{EventLoop, Options, Reading, Refuse};

/// Both ways to read, and reads that leave the first chunk in pieces.
fn each_way(test: impl Fn(Format, &mut Raw)) {
    for format in [Format::Standard, Format::Classic] {
        for (reading, transfer) in
            [(Reading::Shared, 3), (Reading::Dedicated, 3), (Reading::Dedicated, 4096)]
        {
            let _watchdog = watchdog();
            let mut options = Options::default();
            (options.format, options.reading) = (None, reading);
            options.limits = Limits::default().with_command(50).with_buffer(10);
            let (_connection, raw) =
                raw_on(&EventLoop::new().unwrap(), &options, Way::short(transfer), Refuse);
            test(format, &mut Raw::new(raw.input.into_pipe(), raw.output, format));
        }
    }
}

#[test]
fn a_first_chunk_that_is_skipped_in_pieces_tells_the_format() {
    each_way(|format, raw| {
        // Of a direction that there is not, which is skipped from its command on.
        raw.send_raw(match format {
            Format::Classic => b"5\x009\0of-the-future 3\0abc",
            _ => b"5\x009\x0013\0of-the-future\x003\0abc",
        });
        raw.send(6, Direction::Request, "cmd.ping", b"");
        assert_eq!(raw.expect(Direction::Response, "cmd.ping").thread_id.as_u64(), 6);
    });
}

#[test]
fn a_first_request_that_is_too_large_is_answered_in_its_format() {
    each_way(|format, raw| {
        raw.send_raw(&bytes_in(format, 7, Direction::Request, &"long".repeat(100), &[0; 1000]));
        assert_eq!(raw.expect(Direction::Response, "cmd.error").thread_id.as_u64(), 7);
    });
}
