//! The limits: two processes over a pipe with nothing between, each way as fast as the system
//! allows.
//!
//! They speak frames of 16 bytes and a body, so that they do the least that anything with calls has
//! to do. `bench-raw host MODE` takes its order from standard input; it starts itself as the
//! plugin.

#![forbid(unsafe_code)]

mod callers;
mod echo;
mod frame;
mod link;
mod poller;
mod stream;

use std::process::ExitCode;

use anyhow::{Context as _, Result, bail, ensure};
use bench_contract::{Driver, Figures, Latency, Order, one_at_a_time};

use crate::frame::{Kind, Message};
use crate::link::{Carrier, Plugin};

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &[String]) -> Result<()> {
    let [role, name, pairs @ ..] = args else {
        bail!("usage: bench-raw host MODE, and an order on standard input")
    };
    let mode = Mode::named(name).with_context(|| format!("no mode is called {name}"))?;
    match role.as_str() {
        "host" => {
            let mut driver = Driver::on_stdio();
            driver.order()?.map_or(Ok(()), |order| host(mode, order, &mut driver))
        }
        "plugin" => plugin(mode, pairs),
        _ => bail!("a mode is run as host or as plugin, not as {role}"),
    }
}

/// How the two wait for each other, and over what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// Blocking reads.
    Block,
    /// Reads in a loop for some microseconds, then a blocking poll(2).
    Spin,
    /// Edge-triggered epoll(7), one thread.
    Epoll,
    /// Reads and writes of 64 KiB, a thread each.
    Stream,
    /// Blocking, over pipes of 1 MiB.
    LargePipes,
    /// Blocking, over a pair of Unix sockets.
    Sockets,
    /// A program that does nothing else, linked statically, for its start.
    Static,
}

impl Mode {
    const ALL: [(&'static str, Self); 7] = [
        ("raw-block", Self::Block),
        ("raw-spin", Self::Spin),
        ("raw-epoll", Self::Epoll),
        ("raw-stream", Self::Stream),
        ("raw-pipe-1m", Self::LargePipes),
        ("raw-socket", Self::Sockets),
        ("raw-static", Self::Static),
    ];

    fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|(known, _)| *known == name).map(|(_, mode)| mode)
    }

    fn name(self) -> &'static str {
        Self::ALL.into_iter().find(|(_, mode)| *mode == self).map_or("", |(name, _)| name)
    }

    fn carrier(self) -> Carrier {
        match self {
            Self::LargePipes => Carrier::LargePipes,
            Self::Sockets => Carrier::Sockets,
            Self::Block | Self::Spin | Self::Epoll | Self::Stream | Self::Static => Carrier::Pipes,
        }
    }
}

/// The host's side.
fn host(mode: Mode, order: Order, driver: &mut Driver) -> Result<()> {
    use Mode::{Block, Epoll, LargePipes, Sockets, Spin, Static, Stream};
    match (order, mode) {
        (Order::Sequential { warm_up, calls, size }, Block | Spin | Epoll | Sockets) => {
            let plugin = Plugin::start(mode, 1)?;
            let figures = sequential(mode, &plugin, driver, [warm_up, calls], size)?;
            driver.end(&figures)
        }
        (Order::Bulk { calls, size }, Block | LargePipes | Sockets) => {
            let plugin = Plugin::start(mode, 1)?;
            let figures = sequential(mode, &plugin, driver, [1, calls], size)?;
            driver.end(&figures)
        }
        (Order::Callers { threads, calls, size }, Block) => {
            let plugin = Plugin::start(mode, usize::try_from(threads)?)?;
            let figures = callers::measure(&plugin, driver, calls, size)?;
            driver.end(&figures)
        }
        (
            Order::Tasks { tasks: window, calls, size } | Order::Flight { window, calls, size },
            Epoll,
        ) => {
            let plugin = Plugin::start(mode, 1)?;
            let figures = poller::flight(&plugin, driver, window, calls, size)?;
            driver.end(&figures)
        }
        (Order::Flight { window, calls, size } | Order::Stream { window, calls, size }, Stream) => {
            let plugin = Plugin::start(mode, 1)?;
            let figures = stream::flight(&plugin, driver, window, calls, size)?;
            driver.end(&figures)
        }
        (Order::OneWay { count, size }, Stream) => {
            let plugin = Plugin::start(mode, 1)?;
            let figures = stream::one_ways(&plugin, driver, count, size)?;
            driver.end(&figures)
        }
        (Order::Spawn { times }, Block | Static) => {
            let figures = spawn(mode, driver, times)?;
            driver.end(&figures)
        }
        _ => driver.not_here("not what this limit is for"),
    }
}

/// The plugin's side; `pairs` are the descriptors of every pair of pipes but the first,
/// `reader,writer`.
fn plugin(mode: Mode, pairs: &[String]) -> Result<()> {
    let delay = echo::delay_asked_for();
    let first = link::of_plugin()?;
    match mode {
        Mode::Spin => poller::answer_spinning(first, delay),
        Mode::Epoll => poller::answer_polling(first, delay),
        Mode::Block | Mode::Stream | Mode::LargePipes | Mode::Sockets | Mode::Static => {
            callers::answer(first, pairs, delay)
        }
    }
}

fn sequential(
    mode: Mode,
    plugin: &Plugin,
    driver: &mut Driver,
    counts: [u64; 2],
    size: usize,
) -> Result<Figures> {
    let message = Message::new(Kind::Request, size)?;
    let mut reply = vec![0; message.len()];
    let link = plugin.first()?;
    let mut wait = poller::Waiter::new(mode, link)?;
    one_at_a_time(driver, plugin.pid(), counts, || {
        wait.write_all(message.bytes())?;
        wait.read_exact(&mut reply)?;
        ensure!(reply == message.bytes(), "the plugin answered something else");
        Ok(())
    })
}

fn spawn(mode: Mode, driver: &mut Driver, times: u64) -> Result<Figures> {
    const SIZE: usize = 64;
    let message = Message::new(Kind::Request, SIZE)?;
    let mut reply = vec![0; message.len()];
    let mut latency = Latency::fine();
    let mut seconds = 0.0;
    driver.begin(0)?;
    for _ in 0..times {
        let begun = std::time::Instant::now();
        let plugin = Plugin::start(mode, 1)?;
        let mut wait = poller::Waiter::new(Mode::Block, plugin.first()?)?;
        wait.write_all(message.bytes())?;
        wait.read_exact(&mut reply)?;
        let took = begun.elapsed();
        ensure!(reply == message.bytes(), "the plugin answered something else");
        latency.record(took);
        seconds += took.as_secs_f64();
    }
    Ok(Figures { seconds, count: times, more: latency.percentiles() })
}
