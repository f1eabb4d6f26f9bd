//! The host.

use std::path::Path;
use std::process::Stdio;

use anyhow::{Context as _, Result};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tonic::transport::{Channel, Endpoint};

use crate::shared::words_client::WordsClient;

/// Starts the plugin.
pub async fn start(program: &Path) -> Result<(Child, WordsClient<Channel>)> {
    let socket = std::env::temp_dir().join(format!("words-{}.sock", std::process::id()));
    let mut command = Command::new(program);
    command.arg("plugin").arg(&socket).stdout(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn()?;
    let stdout = child.stdout.take().context("stdout is piped")?;
    let ready = BufReader::new(stdout).lines().next_line().await?;
    ready.context("the plugin ended before it listened")?;
    let endpoint = Endpoint::try_from(format!("unix:{}", socket.display()))?;
    let channel = endpoint.connect().await;
    std::fs::remove_file(socket)?;
    Ok((child, WordsClient::new(channel?)))
}
