//! tonic with a typed interface: gRPC over a Unix socket.

mod host;
mod plugin;
mod shared;

use std::env;

use anyhow::{Result, ensure};
use contract::process::Plugin;
use contract::{Mode, Role, Sum, role, tasks};
use tonic::transport::Channel;

use self::shared::words_client::WordsClient;
use self::shared::{AddRequest, SuggestRequest};

fn main() -> Result<()> {
    match role()? {
        Role::Host { mode } => tasks::host(&mode, start),
        Role::Plugin { .. } => plugin::main(),
    }
}

async fn start(_: &Mode) -> Result<(Plugin, Client)> {
    let (child, mut words) = host::start(&env::current_exe()?).await?;
    let request = SuggestRequest { word: "teh".into(), most: 2 };
    let found = words.suggest(request).await?.into_inner().words;
    ensure!(found == ["ten", "the"], "the plugin suggested {found:?}");
    let pid = child.id().unwrap_or_default();
    Ok((Plugin::owned(pid, child), Client(words)))
}

#[derive(Clone)]
struct Client(WordsClient<Channel>);

impl tasks::Client for Client {
    type Payload = Sum;

    async fn call(&self, sum: &Sum) -> Result<Sum> {
        let request = AddRequest { a: sum.a, b: sum.b };
        Ok(sum.answered(self.0.clone().add(request).await?.into_inner().sum))
    }
}
