//! The host, with typed services: makes 5,000 calls at once while its plugin makes 5,000 back.

use std::env;
use std::sync::mpsc::{self, Sender};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use pipeplug_host::Plugin;
use sample1::{Desk, DeskServer, WorkAsyncClient};
use tokio::task::JoinSet;

const DOCKER_HOST: &str = "unix:///var/run/docker.sock";
const CALLS: usize = 5000;
/// Time limit of the last message. It is reached only if something hangs.
const TIME_LIMIT: Duration = Duration::from_secs(50);

/// The host's side; its methods run on several threads at once.
struct Host {
    done: Sender<usize>,
}

impl Desk for Host {
    fn docker_host(&self) -> String {
        DOCKER_HOST.into()
    }

    fn repeat(&self, text: String) -> String {
        text.repeat(2)
    }

    fn done(&self, replies: usize) {
        // The receiver is gone only if the host has failed.
        let _ = self.done.send(replies);
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let (done, wait_for_done) = mpsc::channel();
    let path = env::current_exe()?.with_file_name("sample1-typed-plugin");
    let plugin = Plugin::builder(path)
        .on_line(|_, line| eprintln!("{line}"))
        .service(DeskServer::new(Host { done }))
        .start_async()
        .await?;
    let work: WorkAsyncClient = plugin.client()?;

    // From here on the plugin calls back, and is answered while this side makes its own calls.
    let mut calls = JoinSet::new();
    for number in 0..CALLS {
        let work = work.clone();
        calls.spawn(async move {
            let text = format!("echo {number}");
            let reply = work.echo(text.clone()).await?;
            ensure!(reply == text, "echo of {text:?} brought {reply:?}");
            Ok(())
        });
    }
    work.start(CALLS).await?;
    calls.join_all().await.into_iter().collect::<anyhow::Result<()>>()?;

    // A one-way has no reply, so its handler signals the end.
    let repeats =
        wait_for_done.recv_timeout(TIME_LIMIT).context("the plugin did not say that it is done")?;
    ensure!(repeats == CALLS, "the plugin had {repeats} replies, not {CALLS}");
    let docker_host = work.docker_host().await?;

    let stopped = plugin.stop_async().await?;
    ensure!(stopped.status.success(), "the plugin ended with {}", stopped.status);
    println!("sample1: {CALLS} echo, {repeats} repeat, docker host {docker_host}, done");
    Ok(())
}
