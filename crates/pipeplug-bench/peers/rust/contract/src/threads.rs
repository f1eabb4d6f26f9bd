//! The host of a peer whose callers block: threads.

use std::sync::{Arc, PoisonError, RwLock, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::command::Command;
use crate::process::Plugin;
use crate::report::{self, Latencies, Measured, NotAvailable, share, warmup};
use crate::{Mode, Payload};

/// A connection to a plugin whose calls block.
pub trait Client: Send + Sync + 'static {
    /// Data of its calls.
    type Payload: Payload;

    /// Payloads have to be smaller than this.
    const LIMIT: usize = usize::MAX;

    /// Has `payload` echoed.
    fn call(&self, payload: &Self::Payload) -> Result<Self::Payload>;

    /// Makes that many calls from this thread, at most `window` of them in flight.
    fn flight(&self, _window: usize, _calls: usize, _payload: &Self::Payload) -> Result<()> {
        bail!(NotAvailable::new("a thread waits for each call that it makes"))
    }

    /// Sends that many one-ways, and has the plugin confirm that all arrived.
    fn one_ways(&self, _count: usize, _payload: &Self::Payload) -> Result<()> {
        bail!(NotAvailable::new("there are no one-ways"))
    }
}

/// Measures what the driver asks for.
///
/// # Errors
/// What `start` or the client's calls returned, or a reply that was not what was sent.
pub fn host<C: Client>(mode: &Mode, start: impl Fn(&Mode) -> Result<(Plugin, C)>) -> Result<()> {
    let start = || start(mode);
    let command = Command::read()?;
    if command.size() >= C::LIMIT {
        return report::conclude(Err(NotAvailable::too_large(command.size(), C::LIMIT).into()));
    }
    if let Command::Spawn { times } = command {
        return report::conclude(spawn(start, times));
    }
    let (plugin, client) = start()?;
    let client = Arc::new(client);
    let payload = C::Payload::of(command.size());
    let pid = plugin.pid();
    report::conclude(match command {
        Command::Sequential { warmup, calls, .. } => {
            one_by_one(pid, &*client, &payload, warmup, calls)
        }
        Command::Bulk { calls, .. } => one_by_one(pid, &*client, &payload, warmup(calls), calls),
        Command::Callers { threads, calls, .. } => callers(pid, &client, &payload, threads, calls),
        Command::Flight { window, calls, .. } => {
            at_once(pid, calls, |calls| client.flight(window, calls, &payload))
        }
        Command::OneWay { count, .. } => {
            at_once(pid, count, |count| client.one_ways(count, &payload))
        }
        Command::Stream { .. } => Err(NotAvailable::new("there are no streams").into()),
        Command::Tasks { .. } => Err(NotAvailable::new("calls block a thread").into()),
        Command::Spawn { .. } => unreachable!("it was measured above"),
    })
}

fn spawn<C: Client>(start: impl Fn() -> Result<(Plugin, C)>, times: usize) -> Result<Measured> {
    let payload = C::Payload::of(64);
    report::begin(0)?;
    let latencies = Latencies::new();
    let mut clock = latencies.clock();
    let mut time = Duration::ZERO;
    for _ in 0..times {
        clock.start();
        let from = Instant::now();
        let (_plugin, client) = start()?;
        payload.check(&client.call(&payload)?)?;
        time += from.elapsed();
        clock.lap();
    }
    drop(clock);
    Ok(Measured { time, count: times, latencies: Some(latencies) })
}

fn one_by_one<C: Client>(
    pid: u32,
    client: &C,
    payload: &C::Payload,
    warmup: usize,
    calls: usize,
) -> Result<Measured> {
    for _ in 0..warmup {
        payload.check(&client.call(payload)?)?;
    }
    let latencies = Latencies::new();
    let mut clock = latencies.clock();
    report::begin(pid)?;
    let from = Instant::now();
    clock.start();
    for _ in 0..calls {
        payload.check(&client.call(payload)?)?;
        clock.lap();
    }
    let time = from.elapsed();
    drop(clock);
    Ok(Measured { time, count: calls, latencies: Some(latencies) })
}

fn at_once(pid: u32, count: usize, run: impl Fn(usize) -> Result<()>) -> Result<Measured> {
    run(warmup(count))?;
    report::begin(pid)?;
    let from = Instant::now();
    run(count)?;
    Ok(Measured { time: from.elapsed(), count, latencies: None })
}

fn callers<C: Client>(
    pid: u32,
    client: &Arc<C>,
    payload: &C::Payload,
    threads: usize,
    calls: usize,
) -> Result<Measured> {
    blocking(pid, threads, calls, || {
        let (client, payload) = (client.clone(), payload.clone());
        move || payload.check(&client.call(&payload)?)
    })
}

/// Has threads make `calls` calls between them, each thread one at a time.
pub(crate) fn blocking<F>(
    pid: u32,
    threads: usize,
    calls: usize,
    caller: impl Fn() -> F,
) -> Result<Measured>
where
    F: Fn() -> Result<()> + Send + 'static,
{
    let latencies = Latencies::new();
    let gate = Arc::new(RwLock::new(()));
    let closed = gate.write().unwrap_or_else(PoisonError::into_inner);
    let (done, all_done) = mpsc::channel();
    for number in 0..threads {
        let (call, gate, done) = (caller(), gate.clone(), done.clone());
        let mut clock = latencies.clock();
        let (warm, calls) =
            (share(warmup(calls), threads, number).max(1), share(calls, threads, number));
        let caller = move || {
            let warmed = (0..warm).try_for_each(|_| call());
            // The host that is told is there, unless another caller failed.
            let _ = done.send(warmed);
            drop(gate.read().unwrap_or_else(PoisonError::into_inner));
            clock.start();
            let called = (0..calls).try_for_each(|_| {
                call()?;
                clock.lap();
                Ok(())
            });
            drop(clock);
            let _ = done.send(called);
        };
        thread::Builder::new().spawn(caller).context("cannot start a caller")?;
    }
    // Only callers are to hold it, so that none of them is waited for in vain.
    drop(done);
    let wait = || (0..threads).try_for_each(|_| all_done.recv().context("a caller panicked")?);
    wait()?;
    report::begin(pid)?;
    let from = Instant::now();
    drop(closed);
    wait()?;
    Ok(Measured { time: from.elapsed(), count: calls, latencies: Some(latencies) })
}
