//! The host.

use std::path::Path;

use anyhow::{Context as _, Result};
use rmcp::ServiceExt as _;
use rmcp::model::CallToolRequestParams;
use rmcp::service::{RoleClient, RunningService};
use rmcp::transport::TokioChildProcess;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::process::Command;

use crate::shared::{Add, Suggest};

/// Client of the plugin.
pub struct WordsClient(RunningService<RoleClient, ()>);

/// Starts the plugin.
pub async fn start(program: &Path) -> Result<(Option<u32>, WordsClient)> {
    let mut command = Command::new(program);
    command.arg("plugin");
    let process = TokioChildProcess::new(command)?;
    let pid = process.id();
    Ok((pid, WordsClient(().serve(process).await?)))
}

impl WordsClient {
    pub async fn add(&self, a: i64, b: i64) -> Result<i64> {
        self.call("add", Add { a, b }).await
    }

    pub async fn suggest(&self, word: String, most: u32) -> Result<Vec<String>> {
        self.call("suggest", Suggest { word, most }).await
    }

    async fn call<A, T>(&self, tool: &'static str, arguments: A) -> Result<T>
    where
        A: Serialize,
        T: DeserializeOwned + 'static,
    {
        let arguments = serde_json::to_value(arguments)?;
        let arguments = arguments.as_object().context("arguments are an object")?.clone();
        let request = CallToolRequestParams::new(tool).with_arguments(arguments);
        Ok(self.0.call_tool(request).await?.into_typed()?)
    }
}
