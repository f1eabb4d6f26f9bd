//! The host.

use std::path::Path;

use anyhow::Result;
use pipeplug_host::Plugin;

use super::shared::WordsClient;

/// Starts the plugin.
pub(crate) fn start(program: &Path) -> Result<(Plugin, WordsClient)> {
    let plugin = Plugin::start(program)?;
    let words = plugin.client()?;
    Ok((plugin, words))
}
