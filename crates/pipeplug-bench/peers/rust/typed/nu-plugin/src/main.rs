//! nu-plugin: a Nushell plugin, called by Nushell's own side of its plugins.

mod host;

use std::env;

use anyhow::{Result, bail, ensure};
use contract::process::Plugin;
use contract::{Mode, Role, Sum, role, threads};
use nu_protocol::RegisteredPlugin as _;

use self::host::WordsClient;

fn main() -> Result<()> {
    match role()? {
        Role::Host { mode } => threads::host(&mode, start),
        Role::Plugin { .. } => bail!("the plugin is nu_plugin_words"),
    }
}

fn start(_: &Mode) -> Result<(Plugin, Client)> {
    let (plugin, words) = host::start(&env::current_exe()?.with_file_name("nu_plugin_words"))?;
    let found = words.suggest("teh".into(), 2)?;
    ensure!(found == ["ten", "the"], "the plugin suggested {found:?}");
    let pid = plugin.pid().unwrap_or_default();
    Ok((Plugin::owned(pid, plugin), Client(words)))
}

struct Client(WordsClient);

impl threads::Client for Client {
    type Payload = Sum;

    fn call(&self, sum: &Sum) -> Result<Sum> {
        Ok(sum.answered(self.0.add(sum.a, sum.b)?))
    }
}
