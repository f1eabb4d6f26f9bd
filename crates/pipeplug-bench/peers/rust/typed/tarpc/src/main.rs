//! tarpc with a typed interface, over the plugin's stdin and stdout, with bincode.

mod host;
mod plugin;
mod shared;

use std::env;

use anyhow::{Result, ensure};
use contract::process::Plugin;
use contract::{Mode, Role, Sum, role, tasks};
use tarpc::context;

use self::shared::WordsClient;

fn main() -> Result<()> {
    match role()? {
        Role::Host { mode } => tasks::host(&mode, start),
        Role::Plugin { .. } => plugin::main(),
    }
}

async fn start(_: &Mode) -> Result<(Plugin, Client)> {
    let (child, words) = host::start(&env::current_exe()?).await?;
    let found = words.suggest(context::current(), "teh".into(), 2).await?;
    ensure!(found == ["ten", "the"], "the plugin suggested {found:?}");
    let pid = child.id().unwrap_or_default();
    Ok((Plugin::owned(pid, child), Client(words)))
}

#[derive(Clone)]
struct Client(WordsClient);

impl tasks::Client for Client {
    type Payload = Sum;

    async fn call(&self, sum: &Sum) -> Result<Sum> {
        Ok(sum.answered(self.0.add(context::current(), sum.a, sum.b).await?))
    }
}
