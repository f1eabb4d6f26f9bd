//! The host's side of pipeplug, as its users would write it; the plugin is `bench-guest`.
//!
//! `bench-subject host pipeplug` reads one order from standard input and obeys. By hand, for
//! strace(1) and perf(1):
//!
//! ```sh
//! printf 'sequential 0 1000 64\ngo\nquit\n' | strace -f -c bench-subject host pipeplug
//! ```

#![forbid(unsafe_code)]

mod beside;
mod stream;
mod throughput;
mod typed;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use bench_contract::{Driver, Figures, Latency, Order, on_threads, one_at_a_time};
use pipeplug_host::{Options, Plugin, PluginBuilder};

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [role, name] = args.as_slice() else {
        bail!("usage: bench-subject host MODE, and an order on standard input")
    };
    ensure!(role == "host", "a mode is run as host, not as {role}");
    let mode = Mode::named(name).with_context(|| format!("no mode is called {name}"))?;
    let mut driver = Driver::on_stdio();
    driver.order()?.map_or(Ok(()), |order| host(mode, order, &mut driver))
}

/// The settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// Every setting at its default.
    Default,
    /// No spinning, on neither side.
    NoSpin,
    /// The default, with a stream in place of one-ways and of large calls.
    Streams,
    /// The default, with a plugin that is linked statically, for its start.
    Static,
    /// The default, with bytes as in the typed calls.
    TypedBytes,
    /// The default, with a typed service in JSON.
    TypedJson,
    /// The default, with a typed service in postcard.
    TypedPostcard,
}

impl Mode {
    fn named(name: &str) -> Option<Self> {
        match name {
            "pipeplug" => Some(Self::Default),
            "pipeplug-nospin" => Some(Self::NoSpin),
            "pipeplug-streams" => Some(Self::Streams),
            "pipeplug-static" => Some(Self::Static),
            "typed-bytes" => Some(Self::TypedBytes),
            "typed-json" => Some(Self::TypedJson),
            "typed-postcard" => Some(Self::TypedPostcard),
            _ => None,
        }
    }
}

/// More than the messages that are in flight on one stream.
const STREAM_WINDOW: usize = 8 << 20;

/// A plugin to start, with the mode's settings on both sides.
fn builder(mode: Mode) -> Result<PluginBuilder> {
    let mut options = Options::default();
    options.stream_window = STREAM_WINDOW;
    let builder = Plugin::builder(guest(mode)?).options(options);
    Ok(match mode {
        Mode::NoSpin => builder.spin(Duration::ZERO).env("BENCH_NO_SPIN", "1"),
        _ => builder,
    })
}

fn guest(mode: Mode) -> Result<PathBuf> {
    let name = match mode {
        Mode::Default | Mode::NoSpin | Mode::Streams | Mode::TypedBytes => "bench-guest",
        Mode::TypedJson | Mode::TypedPostcard => "bench-guest-typed",
        Mode::Static => "bench-guest-static",
    };
    Ok(std::env::current_exe()?.with_file_name(name))
}

/// The host's side.
fn host(mode: Mode, order: Order, driver: &mut Driver) -> Result<()> {
    if matches!(mode, Mode::TypedBytes | Mode::TypedJson | Mode::TypedPostcard) {
        return typed::host(mode, order, driver);
    }
    if let Order::Spawn { times } = order {
        let figures = spawn(mode, driver, times)?;
        return driver.end(&figures);
    }
    if mode == Mode::Static {
        return driver.not_here("it differs in its start alone");
    }
    let is_streamed = matches!(order, Order::OneWay { .. } | Order::Bulk { .. });
    if mode == Mode::Streams && !is_streamed {
        return driver.not_here("it differs in one-ways and in bulk alone");
    }
    if let Order::Idle { plugins, calls, size } = order {
        return beside::idle(mode, driver, plugins, calls, size);
    }
    let plugin = builder(mode)?.start()?;
    let figures = match order {
        Order::Sequential { warm_up, calls, size } => {
            sequential(&plugin, driver, [warm_up, calls], size)?
        }
        Order::Callers { threads, calls, size } => callers(&plugin, driver, threads, calls, size)?,
        Order::Tasks { tasks, calls, size } => {
            throughput::tasks(&plugin, driver, tasks, calls, size)?
        }
        Order::Flight { window, calls, size } => {
            throughput::flight(&plugin, driver, window, calls, size)?
        }
        Order::OneWay { count, size } if mode == Mode::Streams => {
            stream::one_ways(&plugin, driver, count, size)?
        }
        Order::OneWay { count, size } => throughput::one_ways(&plugin, driver, count, size)?,
        Order::Bulk { calls, size } if mode == Mode::Streams => {
            stream::bulk(&plugin, driver, calls, size)?
        }
        Order::Bulk { calls, size } => bulk(&plugin, driver, calls, size)?,
        Order::Open { open, calls, size } => {
            return beside::open(&plugin, driver, open, calls, size);
        }
        Order::Stream { window, calls, size } => {
            stream::in_flight(&plugin, driver, [window, calls], size)?
        }
        Order::Spawn { .. } | Order::Idle { .. } => {
            unreachable!("both start plugins of their own, above")
        }
    };
    driver.end(&figures)
}

fn pid(plugin: &Plugin) -> u32 {
    plugin.pid().as_raw().unsigned_abs()
}

fn echo(plugin: &Plugin, message: &[u8]) -> Result<()> {
    let reply = plugin.call_bytes("echo", message)?;
    ensure!(reply == message, "the plugin answered something else");
    Ok(())
}

fn sequential(
    plugin: &Plugin,
    driver: &mut Driver,
    counts: [u64; 2],
    size: usize,
) -> Result<Figures> {
    let message = vec![b'x'; size];
    one_at_a_time(driver, pid(plugin), counts, || echo(plugin, &message))
}

fn callers(
    plugin: &Plugin,
    driver: &mut Driver,
    threads: u64,
    calls: u64,
    size: usize,
) -> Result<Figures> {
    let message = vec![b'x'; size];
    let callers = (0..threads).map(|_| || echo(plugin, &message)).collect();
    on_threads(driver, pid(plugin), calls, callers)
}

/// The buffer goes there and back; what came back goes again, so that nothing is copied here.
fn bulk(plugin: &Plugin, driver: &mut Driver, calls: u64, size: usize) -> Result<Figures> {
    let mut buffer = vec![b'x'; size];
    let figures = one_at_a_time(driver, pid(plugin), [1, calls], || {
        buffer = plugin.call_bytes("echo", std::mem::take(&mut buffer))?;
        ensure!(buffer.len() == size, "the plugin answered {} bytes, not {size}", buffer.len());
        Ok(())
    })?;
    ensure!(buffer.iter().all(|byte| *byte == b'x'), "the plugin answered something else");
    Ok(figures)
}

fn spawn(mode: Mode, driver: &mut Driver, times: u64) -> Result<Figures> {
    const SIZE: usize = 64;
    let message = [b'x'; SIZE];
    let builder = builder(mode)?;
    let mut latency = Latency::fine();
    let mut seconds = 0.0;
    driver.begin(0)?;
    for _ in 0..times {
        let begun = Instant::now();
        let plugin = builder.start()?;
        echo(&plugin, &message)?;
        let took = begun.elapsed();
        plugin.stop()?;
        latency.record(took);
        seconds += took.as_secs_f64();
    }
    Ok(Figures { seconds, count: times, more: latency.percentiles() })
}
