//! The plugin's side of frames: what was read goes in, what is to be written comes out.

use std::io;
use std::time::{Duration, Instant};

use crate::frame::{HEADER, Header, Kind};

/// The most that is asked for by one read, but for frames that are larger.
pub(crate) const READ: usize = 64 << 10;

/// How long the handler is to take.
pub(crate) fn delay_asked_for() -> Duration {
    let micros = std::env::var("BENCH_HANDLER_US").ok().and_then(|micros| micros.parse().ok());
    Duration::from_micros(micros.unwrap_or(0))
}

/// Sends requests back and counts one-ways.
#[derive(Debug)]
pub(crate) struct Echo {
    buffer: Vec<u8>,
    /// How much of the buffer was read: less than a frame, between two reads.
    held: usize,
    one_ways: u64,
    delay: Duration,
}

impl Echo {
    pub(crate) fn new(delay: Duration) -> Self {
        Self { buffer: vec![0; READ], held: 0, one_ways: 0, delay }
    }

    /// Where to read to: to the end of the frame that has begun, where it is a large one.
    pub(crate) fn room(&mut self) -> &mut [u8] {
        let frame = Header::of(&self.buffer[..self.held]).map_or(0, Header::frame_len);
        let end = frame.max(READ);
        if self.buffer.len() < end {
            self.buffer.resize(end, 0);
        }
        &mut self.buffer[self.held..end]
    }

    /// Takes what was read there, and has what is whole written: neighbours together.
    pub(crate) fn take(
        &mut self,
        read: usize,
        mut write: impl FnMut(&[u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        let end = self.held + read;
        // What lies between these two is to be sent back.
        let (mut from, mut at) = (0, 0);
        while let Some(header) = Header::of(&self.buffer[at..end]) {
            let next = at + header.frame_len();
            if next > end {
                break;
            }
            match header.kind() {
                Kind::Request => self.handle(),
                Kind::OneWay => {
                    self.one_ways += 1;
                    if at > from {
                        write(&self.buffer[from..at])?;
                    }
                    from = next;
                }
                Kind::Count => {
                    let count = self.one_ways.to_le_bytes();
                    self.buffer[at + HEADER..][..count.len()].copy_from_slice(&count);
                }
            }
            at = next;
        }
        if at > from {
            write(&self.buffer[from..at])?;
        }
        self.buffer.copy_within(at..end, 0);
        self.held = end - at;
        Ok(())
    }

    fn handle(&self) {
        if !self.delay.is_zero() {
            let begun = Instant::now();
            while begun.elapsed() < self.delay {
                std::hint::spin_loop();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::Message;

    fn fed(echo: &mut Echo, bytes: &[u8], at_once: usize) -> Vec<u8> {
        let mut written = Vec::new();
        for part in bytes.chunks(at_once) {
            let mut part = part;
            while !part.is_empty() {
                let room = echo.room();
                let read = part.len().min(room.len());
                room[..read].copy_from_slice(&part[..read]);
                part = &part[read..];
                echo.take(read, |bytes| {
                    written.extend_from_slice(bytes);
                    Ok(())
                })
                .unwrap();
            }
        }
        written
    }

    #[test]
    fn requests_come_back_however_they_are_cut() {
        let sent = Message::filling(Kind::Request, 64, 400).unwrap();
        for at_once in [1, 7, 16, 80, 81, 400] {
            assert_eq!(
                fed(&mut Echo::new(Duration::ZERO), sent.bytes(), at_once),
                sent.bytes(),
                "{at_once}"
            );
        }
        let large = Message::new(Kind::Request, 3 * READ).unwrap();
        assert_eq!(fed(&mut Echo::new(Duration::ZERO), large.bytes(), READ), large.bytes());
    }

    #[test]
    fn one_ways_are_counted_and_do_not_come_back() {
        let mut echo = Echo::new(Duration::ZERO);
        let one_ways = Message::filling(Kind::OneWay, 64, 800).unwrap();
        assert!(fed(&mut echo, one_ways.bytes(), 800).is_empty());
        let answer = fed(&mut echo, Message::new(Kind::Count, 64).unwrap().bytes(), 80);
        assert_eq!(answer[HEADER..][..8], 10_u64.to_le_bytes());
    }
}
