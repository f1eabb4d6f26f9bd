//! Calls of a typed service, beside a call of as many bytes.

#[allow(dead_code, clippy::allow_attributes, reason = "an expectation counts as unfulfilled here")]
mod fast;
mod host;
#[allow(dead_code, clippy::allow_attributes, reason = "as above")]
mod shared;

use std::time::Instant;

use anyhow::{Result, ensure};
use bench_contract::{Driver, Figures, Latency, Order, one_at_a_time};
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use pipeplug_host::Plugin;

use self::fast::{FastWordsAsyncClient, FastWordsClient};
use self::shared::WordsAsyncClient;
use crate::{Mode, guest, pid};

/// The bytes of the arguments as JSON.
const ARGUMENTS: &str = r#"{"a":1234567,"b":7654321}"#;
const A: i64 = 1_234_567;
const B: i64 = 7_654_321;

/// Measures sequential calls, or those of many tasks on one thread.
pub(crate) fn host(mode: Mode, order: Order, driver: &mut Driver) -> Result<()> {
    match mode {
        Mode::TypedJson => {
            let (plugin, words) = host::start(&guest(mode)?)?;
            let found = words.suggest("teh".into(), 2)?;
            ensure!(found == ["ten", "the"], "the plugin suggested {found:?}");
            let tasks: WordsAsyncClient = plugin.client()?;
            let call = || check(words.add(A, B)?);
            measure(&plugin, order, driver, call, async || check(tasks.add(A, B).await?))
        }
        Mode::TypedPostcard => {
            let plugin = Plugin::builder(guest(mode)?).env("BENCH_POSTCARD", "1").start()?;
            let words: FastWordsClient = plugin.client()?;
            let tasks: FastWordsAsyncClient = plugin.client()?;
            let call = || check(words.add(A, B)?);
            measure(&plugin, order, driver, call, async || check(tasks.add(A, B).await?))
        }
        _ => {
            let plugin = Plugin::start(guest(mode)?)?;
            let call = || is_same(&plugin.call_bytes("echo", ARGUMENTS)?);
            let task = async || is_same(&plugin.request("echo", ARGUMENTS).begin()?.await?);
            measure(&plugin, order, driver, call, task)
        }
    }
}

fn check(sum: i64) -> Result<()> {
    ensure!(sum == A + B, "the plugin answered {sum}");
    Ok(())
}

fn is_same(reply: &[u8]) -> Result<()> {
    ensure!(reply == ARGUMENTS.as_bytes(), "the plugin answered something else");
    Ok(())
}

fn measure(
    plugin: &Plugin,
    order: Order,
    driver: &mut Driver,
    call: impl FnMut() -> Result<()>,
    task: impl AsyncFn() -> Result<()>,
) -> Result<()> {
    let figures = match order {
        Order::Sequential { warm_up, calls, .. } => {
            one_at_a_time(driver, pid(plugin), [warm_up, calls], call)?
        }
        Order::Tasks { tasks, calls, .. } => {
            let each = calls.div_ceil(tasks.max(1)).max(1);
            futures_executor::block_on(async {
                run_tasks(tasks, 1, &task).await?;
                driver.begin(pid(plugin))?;
                let begun = Instant::now();
                let latency = run_tasks(tasks, each, &task).await?;
                let seconds = begun.elapsed().as_secs_f64();
                anyhow::Ok(Figures { seconds, count: each * tasks, more: latency.percentiles() })
            })?
        }
        _ => return driver.not_here("only one call at a time and tasks are measured"),
    };
    driver.end(&figures)?;
    // The clients have it, too.
    plugin.stop()?;
    Ok(())
}

async fn run_tasks(tasks: u64, each: u64, call: impl AsyncFn() -> Result<()>) -> Result<Latency> {
    let mut set = FuturesUnordered::new();
    for _ in 0..tasks {
        set.push(async {
            let mut latency = Latency::coarse();
            let mut last = Instant::now();
            for _ in 0..each {
                call().await?;
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
