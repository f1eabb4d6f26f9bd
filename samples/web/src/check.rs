//! Clients of the server, which show what it does.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use pipeplug_host::Pool;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::{CALLS, PROCESSES, TIMEOUT};

/// Attempts to overload the server.
const ROUNDS: usize = 20;

/// Runs each client and prints what became of it.
pub(crate) async fn run(server: SocketAddr, pool: &Pool) -> anyhow::Result<()> {
    let clients: Vec<_> = (0..100)
        .map(|number| tokio::spawn(async move { get(server, &format!("/shout/a{number}")).await }))
        .collect();
    let mut answered = 0;
    for (number, client) in clients.into_iter().enumerate() {
        answered += usize::from(client.await?? == (200, format!("A{number}")));
    }
    println!("100 requests at once: {answered} of 100 answered");

    let (status, text) = get(server, "/shout/").await?;
    println!("the plugin's own error: {status} {}", text.trim_end());

    let (status, text) = get(server, "/sleep/60000").await?;
    println!("too late: {status} {}", text.trim_end());

    // On a busy machine the first requests may be over before the last ones come.
    let mut refused = 0;
    for _ in 0..ROUNDS {
        refused += overload(server).await?;
        if refused > 0 {
            break;
        }
    }
    ensure!(refused > 0, "no request was refused");
    println!("overload: 503");

    let before = cancelled(pool).await?;
    let mut client = TcpStream::connect(server).await?;
    client.write_all(request("/sleep/60000").as_bytes()).await?;
    tokio::time::sleep(TIMEOUT / 10).await;
    drop(client);
    // The deadline would cancel it too.
    tokio::time::timeout(TIMEOUT * 4 / 5, async {
        while cancelled(pool).await? == before {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        anyhow::Ok(())
    })
    .await
    .context("the work of a client that left goes on")??;
    println!("a client that disconnects: its work was cancelled");
    Ok(())
}

/// Sends more requests at once than may be open. Returns how many were refused.
async fn overload(server: SocketAddr) -> anyhow::Result<usize> {
    let clients: Vec<_> = (0..CALLS * PROCESSES.get() + 50)
        .map(|_| tokio::spawn(async move { get(server, "/sleep/60000").await }))
        .collect();
    let mut refused = 0;
    for client in clients {
        let (status, _) = client.await??;
        ensure!(matches!(status, 503 | 504), "an overloaded server answered {status}");
        refused += usize::from(status == 503);
    }
    Ok(refused)
}

/// Number of requests that the plugins saw cancelled.
async fn cancelled(pool: &Pool) -> anyhow::Result<u64> {
    let mut all = 0;
    for member in pool.members() {
        all += member.call_async("cancelled", "").await?.parse::<u64>()?;
    }
    Ok(all)
}

/// Status and body of what the server answers.
async fn get(server: SocketAddr, path: &str) -> anyhow::Result<(u16, String)> {
    let mut stream = TcpStream::connect(server).await?;
    stream.write_all(request(path).as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
    let (_, body) = answer.split_once("\r\n\r\n").context("it is no HTTP")?;
    Ok((status.context("it has no status")?, body.to_owned()))
}

fn request(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
}
