//! A call beside much that only lies there: idle plugins on the same loop, and calls that are
//! never answered.

use anyhow::{Context as _, Result, ensure};
use bench_contract::{Driver, allow_descriptors};
use pipeplug_host::{PendingCall, Plugin};

use crate::{Mode, builder, pid, sequential};

const WARM_UP: u64 = 1000;

/// One call at a time to one plugin, with that many others idle on the same loop; and what each of
/// these takes here.
pub(crate) fn idle(
    mode: Mode,
    driver: &mut Driver,
    plugins: u64,
    calls: u64,
    size: usize,
) -> Result<()> {
    allow_descriptors()?;
    let builder = builder(mode)?;
    let busy = builder.start()?;
    sequential_warm_up(&busy, size)?;
    let before = Held::now()?;
    let idle: Vec<Plugin> = (0..plugins).map(|_| builder.start()).collect::<Result<_, _>>()?;
    let after = Held::now()?;
    let mut figures = sequential(&busy, driver, [WARM_UP, calls], size)?;
    let each =
        |before: u64, after: u64| after.saturating_sub(before) as f64 / plugins.max(1) as f64;
    figures.more.insert("bytes_each", each(before.bytes, after.bytes));
    figures.more.insert("descriptors_each", each(before.descriptors, after.descriptors));
    figures.more.insert("threads", after.threads as f64);
    driver.end(&figures)?;
    // All at once: one after the other they would take as long as they took to start.
    let enders = idle
        .into_iter()
        .map(|plugin| std::thread::spawn(move || plugin.kill()))
        .collect::<Vec<_>>();
    for ender in enders {
        ender.join().ok().context("a thread panicked")??;
    }
    Ok(())
}

/// One call at a time, with that many others open to the same plugin; and what each of these takes
/// on both sides.
pub(crate) fn open(
    plugin: &Plugin,
    driver: &mut Driver,
    open: u64,
    calls: u64,
    size: usize,
) -> Result<()> {
    sequential_warm_up(plugin, size)?;
    let both = || Ok::<_, anyhow::Error>((resident("self")?, resident(&pid(plugin).to_string())?));
    let before = both()?;
    let parked: Vec<PendingCall> =
        (0..open).map(|_| plugin.request("park", Vec::new()).begin()).collect::<Result<_, _>>()?;
    while plugin.call("parked", "")? != open.to_string() {
        std::thread::yield_now();
    }
    let after = both()?;
    let mut figures = sequential(plugin, driver, [WARM_UP, calls], size)?;
    let each = |before: u64, after: u64| after.saturating_sub(before) as f64 / open.max(1) as f64;
    figures.more.insert("bytes_each", each(before.0, after.0));
    figures.more.insert("plugin_bytes_each", each(before.1, after.1));
    driver.end(&figures)?;
    drop(parked);
    Ok(())
}

fn sequential_warm_up(plugin: &Plugin, size: usize) -> Result<()> {
    let message = vec![b'x'; size];
    (0..WARM_UP).try_for_each(|_| crate::echo(plugin, &message))
}

/// Resources that this process holds.
struct Held {
    bytes: u64,
    descriptors: u64,
    threads: u64,
}

impl Held {
    fn now() -> Result<Self> {
        let entries = |dir| std::fs::read_dir(dir).map(|entries| entries.count() as u64);
        Ok(Self {
            bytes: resident("self")?,
            descriptors: entries("/proc/self/fd")?,
            threads: entries("/proc/self/task")?,
        })
    }
}

/// Resident memory of a process in bytes.
fn resident(pid: &str) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line =
        status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("VmRSS is missing")?;
    let kib: u64 = line.trim().trim_end_matches(" kB").parse()?;
    ensure!(kib > 0, "VmRSS is 0");
    Ok(kib << 10)
}
