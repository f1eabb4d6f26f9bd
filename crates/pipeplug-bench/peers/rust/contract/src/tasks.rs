//! The host of a peer whose callers are tasks, on the runtime that `#[tokio::main]` gives.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;

use crate::command::Command;
use crate::process::Plugin;
use crate::report::{self, Latencies, Measured, NotAvailable, share, warmup};
use crate::{Mode, Payload, threads};

/// A connection to a plugin whose calls are futures; clones share it.
pub trait Client: Clone + Send + Sync + 'static {
    /// Data of its calls.
    type Payload: Payload;

    /// Payloads have to be smaller than this.
    const LIMIT: usize = usize::MAX;

    /// Has `payload` echoed.
    fn call(&self, payload: &Self::Payload) -> impl Future<Output = Result<Self::Payload>> + Send;

    /// Has that many chunks echoed over one stream, at most `window` of them in flight.
    fn stream(
        &self,
        _window: usize,
        _chunks: usize,
        _payload: Self::Payload,
    ) -> impl Future<Output = Result<()>> + Send {
        async { bail!(NotAvailable::new("there are no streams")) }
    }

    /// Sends that many one-ways, and has the plugin confirm that all arrived.
    fn one_ways(
        &self,
        _count: usize,
        _payload: Self::Payload,
    ) -> impl Future<Output = Result<()>> + Send {
        async { bail!(NotAvailable::new("there are no one-ways")) }
    }
}

/// The runtime that peers are measured on: what `#[tokio::main]` starts, if the mode does not say
/// otherwise.
///
/// # Errors
/// It cannot start.
pub fn runtime(mode: &Mode) -> Result<Runtime> {
    let mut builder = Builder::new_multi_thread();
    if let Some(workers) = mode.workers()? {
        builder.worker_threads(workers.get());
    }
    builder.enable_all().build().context("cannot start the runtime")
}

/// Measures what the driver asks for.
///
/// # Errors
/// What `start` or the client's calls returned, or a reply that was not what was sent.
pub fn host<C: Client>(
    mode: &Mode,
    start: impl AsyncFn(&Mode) -> Result<(Plugin, C)>,
) -> Result<()> {
    let command = Command::read()?;
    if command.size() >= C::LIMIT {
        return report::conclude(Err(NotAvailable::too_large(command.size(), C::LIMIT).into()));
    }
    let runtime = runtime(mode)?;
    let start = async || start(mode).await;
    if let Command::Spawn { times } = command {
        return report::conclude(spawn(&runtime, start, times));
    }
    let (plugin, client) = runtime.block_on(start())?;
    let payload = C::Payload::of(command.size());
    let host = Host { runtime, pid: plugin.pid(), client, payload };
    report::conclude(match command {
        Command::Sequential { warmup, calls, .. } => host.one_by_one(warmup, calls),
        Command::Bulk { calls, .. } => host.one_by_one(warmup(calls), calls),
        Command::Callers { threads, calls, .. } => host.callers(threads, calls),
        Command::Tasks { tasks, calls, .. } => host.tasks(tasks, calls),
        Command::Flight { window, calls, .. } => host.flight(window, calls),
        Command::Stream { window, chunks, .. } => host.at_once(chunks, |chunks| {
            let (client, payload) = (host.client.clone(), host.payload.clone());
            async move { client.stream(window, chunks, payload).await }
        }),
        Command::OneWay { count, .. } => host.at_once(count, |count| {
            let (client, payload) = (host.client.clone(), host.payload.clone());
            async move { client.one_ways(count, payload).await }
        }),
        Command::Spawn { .. } => unreachable!("it was measured above"),
    })
}

fn spawn<C: Client>(
    runtime: &Runtime,
    start: impl AsyncFn() -> Result<(Plugin, C)>,
    times: usize,
) -> Result<Measured> {
    let payload = C::Payload::of(64);
    report::begin(0)?;
    let latencies = Latencies::new();
    let mut clock = latencies.clock();
    let mut time = Duration::ZERO;
    for _ in 0..times {
        clock.start();
        let from = Instant::now();
        let (plugin, client) = runtime.block_on(async {
            let (plugin, client) = start().await?;
            payload.check(&client.call(&payload).await?)?;
            anyhow::Ok((plugin, client))
        })?;
        time += from.elapsed();
        clock.lap();
        // What a client drops may need its runtime.
        runtime.block_on(async { drop(client) });
        drop(plugin);
    }
    drop(clock);
    Ok(Measured { time, count: times, latencies: Some(latencies) })
}

struct Host<C: Client> {
    runtime: Runtime,
    pid: u32,
    client: C,
    payload: C::Payload,
}

impl<C: Client> Host<C> {
    /// A task that makes that many calls, one at a time.
    fn caller(
        &self,
        calls: usize,
        latencies: &Latencies,
    ) -> impl Future<Output = Result<()>> + Send + use<C> {
        let (client, payload) = (self.client.clone(), self.payload.clone());
        let mut clock = latencies.clock();
        async move {
            clock.start();
            for _ in 0..calls {
                payload.check(&client.call(&payload).await?)?;
                clock.lap();
            }
            Ok(())
        }
    }

    /// Runs it as a task: on the main thread, each wake-up would cross threads.
    fn run(&self, task: impl Future<Output = Result<()>> + Send + 'static) -> Result<()> {
        self.runtime.block_on(self.runtime.spawn(task)).context("a caller panicked")?
    }

    fn one_by_one(&self, warmup: usize, calls: usize) -> Result<Measured> {
        self.run(self.caller(warmup, &Latencies::new()))?;
        let latencies = Latencies::new();
        report::begin(self.pid)?;
        let from = Instant::now();
        self.run(self.caller(calls, &latencies))?;
        Ok(Measured { time: from.elapsed(), count: calls, latencies: Some(latencies) })
    }

    fn callers(&self, threads: usize, calls: usize) -> Result<Measured> {
        threads::blocking(self.pid, threads, calls, || {
            let (client, payload) = (self.client.clone(), self.payload.clone());
            let runtime = self.runtime.handle().clone();
            move || runtime.block_on(async { payload.check(&client.call(&payload).await?) })
        })
    }

    fn tasks(&self, tasks: usize, calls: usize) -> Result<Measured> {
        let run = |calls: usize, latencies: &Latencies| {
            self.runtime.block_on(async {
                let mut callers = JoinSet::new();
                for number in 0..tasks {
                    callers.spawn(self.caller(share(calls, tasks, number), latencies));
                }
                all(callers).await
            })
        };
        run(warmup(calls).max(tasks), &Latencies::new())?;
        let latencies = Latencies::new();
        report::begin(self.pid)?;
        let from = Instant::now();
        run(calls, &latencies)?;
        Ok(Measured { time: from.elapsed(), count: calls, latencies: Some(latencies) })
    }

    /// One task spawns the calls and waits when `window` of them are in flight.
    ///
    /// Polled in that same task (as with `FuturesUnordered`) they take several times as long.
    fn flight(&self, window: usize, calls: usize) -> Result<Measured> {
        self.at_once(calls, |calls| {
            let (client, payload) = (self.client.clone(), self.payload.clone());
            async move {
                let room = Arc::new(Semaphore::new(window));
                let (fail, mut failures) = mpsc::unbounded_channel();
                let all = async {
                    for _ in 0..calls {
                        let permit = room.clone().acquire_owned().await?;
                        let (client, payload, fail) =
                            (client.clone(), payload.clone(), fail.clone());
                        tokio::spawn(async move {
                            let reply = client.call(&payload).await;
                            if let Err(error) = reply.and_then(|reply| payload.check(&reply)) {
                                // Another may have failed first.
                                let _ = fail.send(error);
                                permit.semaphore().close();
                            }
                        });
                    }
                    room.acquire_many(u32::try_from(window)?).await.map(drop)?;
                    anyhow::Ok(())
                };
                tokio::select! {
                    biased;
                    Some(error) = failures.recv() => Err(error),
                    ended = all => ended,
                }
            }
        })
    }

    fn at_once<F>(&self, count: usize, run: impl Fn(usize) -> F) -> Result<Measured>
    where
        F: Future<Output = Result<()>> + Send + 'static,
    {
        self.run(run(warmup(count)))?;
        report::begin(self.pid)?;
        let from = Instant::now();
        self.run(run(count))?;
        Ok(Measured { time: from.elapsed(), count, latencies: None })
    }
}

/// Waits for all, or the first that fails.
async fn all(mut tasks: JoinSet<Result<()>>) -> Result<()> {
    while let Some(ended) = tasks.join_next().await {
        ended.context("a caller panicked")??;
    }
    Ok(())
}
