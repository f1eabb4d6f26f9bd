//! rmcp: MCP tools over the plugin's stdin and stdout.

mod host;
mod plugin;
mod shared;

use std::env;
use std::sync::Arc;

use anyhow::{Result, ensure};
use contract::process::Plugin;
use contract::{Mode, Role, Sum, role, tasks};

use self::host::WordsClient;

fn main() -> Result<()> {
    match role()? {
        Role::Host { mode } => tasks::host(&mode, start),
        Role::Plugin { .. } => plugin::main(),
    }
}

async fn start(_: &Mode) -> Result<(Plugin, Client)> {
    let (pid, words) = host::start(&env::current_exe()?).await?;
    let found = words.suggest("teh".into(), 2).await?;
    ensure!(found == ["ten", "the"], "the plugin suggested {found:?}");
    Ok((Plugin::owned(pid.unwrap_or_default(), ()), Client(Arc::new(words))))
}

#[derive(Clone)]
struct Client(Arc<WordsClient>);

impl tasks::Client for Client {
    type Payload = Sum;

    async fn call(&self, sum: &Sum) -> Result<Sum> {
        Ok(sum.answered(self.0.add(sum.a, sum.b).await?))
    }
}
