//! Blocking callers: a thread and a pair of pipes for each, on both sides.

use std::io::{Read as _, Write as _};
use std::time::Duration;

use anyhow::{Result, anyhow, ensure};
use bench_contract::{Driver, Figures, on_threads};

use crate::echo::Echo;
use crate::frame::{Kind, Message};
use crate::link::{self, Link, Plugin};

pub(crate) fn measure(
    plugin: &Plugin,
    driver: &mut Driver,
    calls: u64,
    size: usize,
) -> Result<Figures> {
    let message = Message::new(Kind::Request, size)?;
    let callers = plugin.links().iter().map(|link| {
        let (mut reader, mut writer) = (&link.reader, &link.writer);
        let (message, mut reply) = (&message, vec![0; message.len()]);
        move || {
            writer.write_all(message.bytes())?;
            reader.read_exact(&mut reply)?;
            ensure!(reply == message.bytes(), "the plugin answered something else");
            Ok(())
        }
    });
    on_threads(driver, plugin.pid(), calls, callers.collect())
}

/// Answers the first link on this thread, and each further one on another.
pub(crate) fn answer(first: Link, further: &[String], delay: Duration) -> Result<()> {
    const STACK: usize = 64 << 10;
    let mut threads = Vec::new();
    for pair in further {
        let link = link::named(pair)?;
        let thread = std::thread::Builder::new().stack_size(STACK);
        threads.push(thread.spawn(move || answer_one(&link, delay))?);
    }
    answer_one(&first, delay)?;
    for thread in threads {
        thread.join().map_err(|_| anyhow!("a thread panicked"))??;
    }
    Ok(())
}

fn answer_one(link: &Link, delay: Duration) -> Result<()> {
    let mut echo = Echo::new(delay);
    let (mut reader, mut writer) = (&link.reader, &link.writer);
    loop {
        let read = reader.read(echo.room())?;
        if read == 0 {
            return Ok(());
        }
        echo.take(read, |bytes| writer.write_all(bytes))?;
    }
}
