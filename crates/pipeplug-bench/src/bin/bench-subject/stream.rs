//! Streams: messages in flight on one, one-ways on one, and bulk in parts.

use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use bench_contract::{Driver, Figures, one_at_a_time};
use pipeplug_host::{PartSender, Plugin, ReplyParts};

use crate::pid;

/// Number of messages that are sent together.
const BATCH: usize = 1024;
/// Size of the parts of a large payload: what the pipe is given at a time.
const PART: usize = 128 << 10;

/// One thread: a new message for each that comes back.
pub(crate) fn in_flight(
    plugin: &Plugin,
    driver: &mut Driver,
    [window, count]: [u64; 2],
    size: usize,
) -> Result<Figures> {
    let message = vec![b'x'; size];
    let (mut sender, mut parts) = plugin.request("stream", "").stream()?.split();
    let mut fly = |count: u64| -> Result<()> {
        let first = window.min(count);
        for _ in 0..first {
            sender.send(message.as_slice())?;
        }
        let (mut sent, mut received) = (first, 0);
        let again = vec![message.as_slice(); BATCH];
        while received < count {
            let batch = parts.next_batch().context("the stream has ended")??;
            ensure!(
                batch.iter().all(|part| *part == message),
                "the plugin answered something else"
            );
            received += batch.len() as u64;
            let more = (count - sent).min(batch.len() as u64);
            sender.send_batch(&again[..usize::try_from(more)?])?;
            sent += more;
        }
        Ok(())
    };
    fly(window.min(count))?;
    driver.begin(pid(plugin))?;
    let begun = Instant::now();
    fly(count)?;
    Ok(Figures { seconds: begun.elapsed().as_secs_f64(), count, ..Figures::default() })
}

/// One-ways on one stream; the answer at the end says that all were handled.
pub(crate) fn one_ways(
    plugin: &Plugin,
    driver: &mut Driver,
    count: u64,
    size: usize,
) -> Result<Figures> {
    const WARM_UP: u64 = 1000;
    let message = vec![b'x'; size];
    let mut sender = plugin.notify_stream("one-way-stream", "")?;
    let mut send = |times: u64, so_far: u64| -> Result<()> {
        let batch = vec![message.as_slice(); BATCH];
        let mut left = usize::try_from(times)?;
        while left > 0 {
            let now = left.min(BATCH);
            sender.send_batch(&batch[..now])?;
            left -= now;
        }
        let handled = plugin.call("count", so_far.to_string())?;
        ensure!(handled == so_far.to_string(), "{handled} of {so_far} one-ways arrived");
        Ok(())
    };
    send(WARM_UP, WARM_UP)?;
    driver.begin(pid(plugin))?;
    let begun = Instant::now();
    send(count, WARM_UP + count)?;
    Ok(Figures { seconds: begun.elapsed().as_secs_f64(), count, ..Figures::default() })
}

/// The payload goes there and back in parts, which go again, so that nothing is copied here.
pub(crate) fn bulk(
    plugin: &Plugin,
    driver: &mut Driver,
    calls: u64,
    size: usize,
) -> Result<Figures> {
    let (mut sender, mut parts) = plugin.request("stream", "").stream()?.split();
    let mut spare: Vec<Vec<u8>> = Vec::new();
    one_at_a_time(driver, pid(plugin), [1, calls], || {
        round(&mut sender, &mut parts, &mut spare, size)
    })
}

fn round(
    sender: &mut PartSender,
    parts: &mut ReplyParts,
    spare: &mut Vec<Vec<u8>>,
    size: usize,
) -> Result<()> {
    // As much as both windows take without a reader.
    const AHEAD: usize = 8;
    let count = size.div_ceil(PART);
    for n in 0..count + AHEAD {
        if n < count {
            let len = PART.min(size - n * PART);
            let mut part = spare.pop().unwrap_or_default();
            part.resize(len, b'x');
            sender.send(part)?;
        }
        if n >= AHEAD {
            let part = parts.next().context("the stream has ended")??;
            ensure!(
                part.iter().take(64).all(|byte| *byte == b'x'),
                "the plugin answered something else"
            );
            spare.push(part.into_bytes());
        }
    }
    Ok(())
}
