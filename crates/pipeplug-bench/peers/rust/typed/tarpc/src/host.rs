//! The host.

use std::path::Path;
use std::process::Stdio;

use anyhow::{Context as _, Result};
use tarpc::client::Config;
use tarpc::serde_transport;
use tarpc::tokio_serde::formats::Bincode;
use tarpc::tokio_util::codec::LengthDelimitedCodec;
use tokio::io::join;
use tokio::process::{Child, Command};

use crate::shared::WordsClient;

/// Starts the plugin.
pub async fn start(program: &Path) -> Result<(Child, WordsClient)> {
    let mut command = Command::new(program);
    command.arg("plugin").stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn()?;
    let stdin = child.stdin.take().context("stdin is piped")?;
    let stdout = child.stdout.take().context("stdout is piped")?;
    let framed = LengthDelimitedCodec::builder().new_framed(join(stdout, stdin));
    let transport = serde_transport::new(framed, Bincode::default());
    Ok((child, WordsClient::new(Config::default(), transport).spawn()))
}
