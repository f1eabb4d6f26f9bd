//! Host and guest over real processes: what can be tested with other tests at work in the same
//! process.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod allow;
mod async_use;
mod attach;
#[cfg(linux_native)]
mod attacks;
mod by_hand;
mod cancel_handle;
mod config;
mod conform;
mod crash;
mod deadlines;
mod environment;
mod exported;
mod failures;
mod guest_end;
mod interface_versions;
mod killed;
mod kubectl;
mod metadata;
mod misbehaviours;
mod odd_hosts;
#[cfg(linux_native)]
mod older_landlock;
mod on_host_exit;
mod on_ready;
mod options;
#[cfg(linux_native)]
mod permissions;
mod pool;
mod progress;
mod raw;
mod recording;
mod replace;
#[cfg(linux_native)]
mod runtimes;
#[cfg(linux_native)]
mod sandbox;
#[cfg(linux_native)]
mod sandbox_host;
mod services;
mod ssh;
mod ssh_shells;
mod start;
mod start_errors;
mod start_hints;
mod stderr;
mod stdio;
mod stop;
mod supervisor;
#[cfg(linux_native)]
mod system_calls;
#[cfg(linux_native)]
mod verified;
mod via;

use pipeplug_host::{Plugin, PluginBuilder};

/// The plugin that misbehaves on command.
const MISBEHAVE: &str = env!("CARGO_BIN_EXE_misbehave");

/// The plugin that tries to break out.
const BURGLAR: &str = env!("CARGO_BIN_EXE_burglar");

/// The plugin that tries to outlive its host.
const FUGITIVE: &str = env!("CARGO_BIN_EXE_fugitive");

/// The host that ends without stopping its plugin.
const LONELY_HOST: &str = env!("CARGO_BIN_EXE_lonely-host");

/// The host that runs the one that tries to break out, as any user.
#[cfg(target_os = "linux")]
const SANDBOX_HOST: &str = env!("CARGO_BIN_EXE_sandbox-host");

/// The host that handles signals as it should not.
const ODD_HOST: &str = env!("CARGO_BIN_EXE_odd-host");

/// The plugin, told how to misbehave.
fn misbehave(how: &[&str]) -> PluginBuilder {
    Plugin::builder(MISBEHAVE).args(how)
}

/// The plugin with nothing but its commands.
fn plain() -> PluginBuilder {
    misbehave(&["plain"])
}

/// Starts it, and waits until it has left its start behind.
fn ready(builder: &PluginBuilder) -> Plugin {
    let plugin = builder.start().unwrap();
    plugin.call("echo", "").unwrap();
    plugin
}
