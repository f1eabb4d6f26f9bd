//! The host: makes 5,000 calls at once while its plugin makes 5,000 back.
//!
//! ```text
//! sample1-host [PATH OF THE PLUGIN]
//! ```

use std::env;
use std::path::PathBuf;
use std::sync::mpsc::{self, Sender};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use pipeplug_host::{HandlerError, Plugin, Reply, Request};

const DOCKER_HOST: &str = "unix:///var/run/docker.sock";
const CALLS: usize = 5000;
const THREADS: usize = 8;
/// Number of calls of each thread. The main thread makes the rest.
const CALLS_OF_A_THREAD: usize = 125;
/// Time limit of each call. It is reached only if something hangs.
const TIME_LIMIT: Duration = Duration::from_secs(50);

fn main() -> anyhow::Result<()> {
    let (done, wait_for_done) = mpsc::channel();
    let plugin = Plugin::builder(plugin_path()?)
        .on_line(|_, line| eprintln!("{line}"))
        .handler(move |_: &Plugin, request: &mut Request| answer(request, &done))
        .start()?;

    // From here on the plugin calls back, and is answered while this side makes its own calls.
    let started = plugin.request("Start", CALLS.to_string()).begin()?;
    thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|thread| {
                let first = thread * CALLS_OF_A_THREAD;
                let plugin = &plugin;
                scope.spawn(move || echo(plugin, first..first + CALLS_OF_A_THREAD))
            })
            .collect();
        echo(&plugin, THREADS * CALLS_OF_A_THREAD..CALLS)?;
        threads.into_iter().try_for_each(|thread| thread.join().expect("no thread panics"))
    })?;
    started.wait_timeout(TIME_LIMIT)?;

    // A one-way has no reply, so its handler signals the end.
    let repeats: usize =
        wait_for_done.recv_timeout(TIME_LIMIT).context("the plugin did not say that it is done")?;
    ensure!(repeats == CALLS, "the plugin had {repeats} replies to Repeat, not {CALLS}");
    let docker_host = plugin.call("DockerHost", "")?;
    ensure!(docker_host == DOCKER_HOST, "the plugin was told {DOCKER_HOST} and kept {docker_host}");

    let stopped = plugin.stop()?;
    ensure!(stopped.status.success(), "the plugin ended with {}", stopped.status);
    println!("sample1: {CALLS} Echo, {repeats} Repeat, docker host {docker_host}, done");
    Ok(())
}

/// Begins all calls before it waits for the first, so that they are all in flight together.
fn echo(plugin: &Plugin, numbers: impl IntoIterator<Item = usize>) -> anyhow::Result<()> {
    let mut pending = Vec::new();
    for number in numbers {
        let text = format!("echo {number}");
        pending.push((plugin.request("Echo", text.as_str()).begin()?, text));
    }
    for (call, text) in pending {
        let reply = call.wait_timeout(TIME_LIMIT)?;
        if reply != text.as_bytes() {
            bail!("Echo of {text:?} brought {:?}", String::from_utf8_lossy(&reply));
        }
    }
    Ok(())
}

/// Answers the plugin; runs on several threads at once.
fn answer(request: &mut Request, done: &Sender<usize>) -> Result<Reply, HandlerError> {
    match request.command() {
        "GetDockerHost" => Ok(DOCKER_HOST.into()),
        "Repeat" => Ok(request.text()?.repeat(2).into()),
        "Done" => Ok(done.send(request.text()?.parse()?)?.into()),
        _ => request.unknown(),
    }
}

/// Path of the plugin: the first argument, or the plugin in the directory of this program.
fn plugin_path() -> anyhow::Result<PathBuf> {
    match env::args_os().nth(1) {
        Some(path) => Ok(path.into()),
        None => Ok(env::current_exe()
            .context("cannot find this program")?
            .with_file_name("sample1-plugin")),
    }
}
