//! The host: sends a file through its plugin, takes it back, and compares the hashes.
//!
//! ```text
//! large-file-host FILE       a file
//! large-file-host MIB        so many MiB that are made up on the way
//! ```

use std::env;
use std::fs::File;
use std::io::Read;
use std::thread;
use std::time::Instant;

use anyhow::{Context as _, ensure};
use large_file::{hex, peak_memory};
use pipeplug_host::{PartSender, Plugin};
use sha2::{Digest as _, Sha256};

/// Size of a part. Larger ones are not faster.
const PART: usize = 128 << 10;
/// Memory that host and plugin stay below, each, in KiB.
const MEMORY: u64 = 32 << 10;

fn main() -> anyhow::Result<()> {
    let source = env::args().nth(1).context("usage: large-file-host FILE|MIB")?;
    let source: Box<dyn Read + Send> = match source.parse::<u64>() {
        Ok(mib) => Box::new(MadeUp(0).take(mib << 20)),
        Err(_) => Box::new(File::open(&source).with_context(|| format!("cannot open {source}"))?),
    };
    let plugin =
        Plugin::builder(env::current_exe()?.with_file_name("large-file-plugin")).start()?;

    let begun = Instant::now();
    let (sender, mut parts) = plugin.request("copy", "").stream()?.split();
    // One thread sends and one receives: a single thread that sends all before it receives would
    // wait for itself once both windows are full.
    let sending = thread::spawn(move || send(source, sender));
    let (mut received, mut bytes) = (Sha256::new(), 0);
    for part in &mut parts {
        let part = part?;
        bytes += part.len();
        received.update(&part);
    }
    let reply = parts.reply()?.into_text()?;
    let seconds = begun.elapsed().as_secs_f64();
    let sent = sending.join().expect("the sender does not panic")?;
    let (of_plugin, memory) = reply.split_once(' ').context("the plugin's answer is too short")?;
    let memory: u64 = memory.parse()?;

    let received = hex(received);
    ensure!(sent == received && sent == of_plugin, "sent {sent}, plugin {of_plugin}, {received}");
    println!("{bytes} bytes in {seconds:.2} s, SHA-256 {sent}, the same at both ends");
    let largest = memory.max(peak_memory());
    ensure!(largest < MEMORY, "host {} KiB, plugin {memory} KiB", peak_memory());
    println!("host {} KiB, plugin {memory} KiB: both below 32 MiB", peak_memory());
    plugin.stop()?;
    Ok(())
}

/// Sends everything, and returns its hash.
fn send(mut source: impl Read, mut sender: PartSender) -> anyhow::Result<String> {
    let mut hash = Sha256::new();
    loop {
        let mut part = vec![0; PART];
        let len = source.read(&mut part)?;
        if len == 0 {
            sender.finish()?;
            return Ok(hex(hash));
        }
        part.truncate(len);
        hash.update(&part);
        // The part is not copied: its memory goes to the pipe.
        sender.send(part)?;
    }
}

/// Bytes without an end, each block other than the one before.
struct MadeUp(u64);

impl Read for MadeUp {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        for bytes in into.chunks_mut(8) {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            bytes.copy_from_slice(&self.0.to_le_bytes()[..bytes.len()]);
        }
        Ok(into.len())
    }
}
