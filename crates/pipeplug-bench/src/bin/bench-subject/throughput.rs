//! Many calls at once, and one-ways.

use std::collections::VecDeque;
use std::time::Instant;

use anyhow::{Result, ensure};
use bench_contract::{Driver, Figures, Latency};
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use pipeplug_host::{PendingCall, Plugin};

use crate::pid;

/// Tasks on one thread, each polled when it is woken.
pub(crate) fn tasks(
    plugin: &Plugin,
    driver: &mut Driver,
    tasks: u64,
    calls: u64,
    size: usize,
) -> Result<Figures> {
    let each = calls.div_ceil(tasks.max(1)).max(1);
    futures_executor::block_on(async {
        run_tasks(plugin, tasks, 1, size).await?;
        driver.begin(pid(plugin))?;
        let begun = Instant::now();
        let latency = run_tasks(plugin, tasks, each, size).await?;
        let seconds = begun.elapsed().as_secs_f64();
        Ok(Figures { seconds, count: each * tasks, more: latency.percentiles() })
    })
}

async fn run_tasks(plugin: &Plugin, tasks: u64, each: u64, size: usize) -> Result<Latency> {
    let mut set = FuturesUnordered::new();
    for _ in 0..tasks {
        set.push(async move {
            let message = vec![b'x'; size];
            let mut latency = Latency::coarse();
            let mut last = Instant::now();
            for _ in 0..each {
                let reply = plugin.request("echo", message.as_slice()).begin()?.await?;
                ensure!(reply == message, "the plugin answered something else");
                let now = Instant::now();
                latency.record(now - last);
                last = now;
            }
            anyhow::Ok(latency)
        });
    }
    let mut all = Latency::coarse();
    while let Some(latency) = set.next().await {
        all.add(&latency?);
    }
    Ok(all)
}

/// One thread: a new call for each that is answered, oldest first.
pub(crate) fn flight(
    plugin: &Plugin,
    driver: &mut Driver,
    window: u64,
    calls: u64,
    size: usize,
) -> Result<Figures> {
    let message = vec![b'x'; size];
    let mut open: VecDeque<PendingCall> =
        VecDeque::with_capacity(usize::try_from(window.min(calls))?);
    let mut fly = |calls: u64| -> Result<()> {
        for _ in 0..calls {
            if open.len() as u64 >= window
                && let Some(oldest) = open.pop_front()
            {
                check(oldest, &message)?;
            }
            open.push_back(plugin.request("echo", message.as_slice()).begin()?);
        }
        open.drain(..).try_for_each(|call| check(call, &message))
    };
    fly(window.min(calls))?;
    driver.begin(pid(plugin))?;
    let begun = Instant::now();
    fly(calls)?;
    Ok(Figures { seconds: begun.elapsed().as_secs_f64(), count: calls, ..Figures::default() })
}

fn check(call: PendingCall, message: &[u8]) -> Result<()> {
    let reply = call.wait()?;
    ensure!(reply == message, "the plugin answered something else");
    Ok(())
}

/// One-ways from one thread; the answer at the end says that all were handled.
pub(crate) fn one_ways(
    plugin: &Plugin,
    driver: &mut Driver,
    count: u64,
    size: usize,
) -> Result<Figures> {
    const WARM_UP: u64 = 1000;
    let message = vec![b'x'; size];
    let send = |times: u64, so_far: u64| -> Result<()> {
        for _ in 0..times {
            plugin.notify("one-way", message.as_slice())?;
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
