//! A framed stream: one thread writes 64 KiB at once, another reads 64 KiB at once.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::Thread;
use std::time::Instant;

use anyhow::{Result, anyhow, ensure};
use bench_contract::{Driver, Figures};

use crate::echo::READ;
use crate::frame::{HEADER, Header, Kind, Message};
use crate::link::Plugin;

/// At most `window` frames in flight.
pub(crate) fn flight(
    plugin: &Plugin,
    driver: &mut Driver,
    window: u64,
    calls: u64,
    size: usize,
) -> Result<Figures> {
    let message = Message::filling(Kind::Request, size, READ)?;
    let link = plugin.first()?;
    let credit = Credit {
        answered: AtomicU64::new(0),
        asleep: AtomicBool::new(false),
        writer: std::thread::current(),
    };
    driver.begin(plugin.pid())?;
    let begun = Instant::now();
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| read_all(&link.reader, calls, message.one(), &credit));
        let mut sent = 0;
        while sent < calls {
            // A reader that failed grants all there is.
            let frames = credit.wait(sent, window).min(calls - sent).min(message.frames() as u64);
            let bytes = usize::try_from(frames)? * message.one();
            (&link.writer).write_all(&message.bytes()[..bytes])?;
            sent += frames;
        }
        reader.join().map_err(|_| anyhow!("the reader panicked"))?
    })?;
    Ok(Figures { seconds: begun.elapsed().as_secs_f64(), count: calls, ..Figures::default() })
}

/// Frames without answers, and a question at the end that shows how many arrived.
pub(crate) fn one_ways(
    plugin: &Plugin,
    driver: &mut Driver,
    count: u64,
    size: usize,
) -> Result<Figures> {
    let message = Message::filling(Kind::OneWay, size, READ)?;
    let question = Message::new(Kind::Count, size.max(8))?;
    let mut answer = vec![0; question.len()];
    let link = plugin.first()?;
    driver.begin(plugin.pid())?;
    let begun = Instant::now();
    let mut left = count;
    while left > 0 {
        let frames = left.min(message.frames() as u64);
        (&link.writer).write_all(&message.bytes()[..usize::try_from(frames)? * message.one()])?;
        left -= frames;
    }
    (&link.writer).write_all(question.bytes())?;
    (&link.reader).read_exact(&mut answer)?;
    let seconds = begun.elapsed().as_secs_f64();
    ensure!(answer[HEADER..][..8] == count.to_le_bytes(), "not all one-ways arrived");
    Ok(Figures { seconds, count, ..Figures::default() })
}

/// How many may be sent.
struct Credit {
    answered: AtomicU64,
    /// True while the writer waits. Waking it costs a system call.
    asleep: AtomicBool,
    writer: Thread,
}

impl Credit {
    /// Waits until fewer than `window` are in flight; how many fewer.
    fn wait(&self, sent: u64, window: u64) -> u64 {
        loop {
            self.asleep.store(true, Ordering::SeqCst);
            let in_flight = sent.saturating_sub(self.answered.load(Ordering::SeqCst));
            if in_flight < window {
                self.asleep.store(false, Ordering::Relaxed);
                return window - in_flight;
            }
            std::thread::park();
        }
    }

    fn grant(&self, frames: u64) {
        self.answered.fetch_add(frames, Ordering::SeqCst);
        if self.asleep.swap(false, Ordering::SeqCst) {
            self.writer.unpark();
        }
    }
}

fn read_all(reader: &File, calls: u64, frame: usize, credit: &Credit) -> Result<()> {
    let result = read_until(reader, calls, frame, credit);
    if result.is_err() {
        credit.grant(calls);
    }
    result
}

fn read_until(mut reader: &File, calls: u64, frame: usize, credit: &Credit) -> Result<()> {
    let mut buffer = vec![0; READ + frame];
    let (mut held, mut got) = (0, 0);
    while got < calls {
        let read = reader.read(&mut buffer[held..held + READ])?;
        ensure!(read > 0, "the plugin closed its pipe");
        let end = held + read;
        let (mut at, mut frames) = (0, 0);
        while let Some(header) =
            Header::of(&buffer[at..end]).filter(|header| at + header.frame_len() <= end)
        {
            ensure!(header.frame_len() == frame, "a reply has another length");
            at += frame;
            frames += 1;
        }
        buffer.copy_within(at..end, 0);
        held = end - at;
        got += frames;
        credit.grant(frames);
    }
    Ok(())
}
