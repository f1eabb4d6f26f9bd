//! Leftovers and costs of plugins. These tests count resources of their own process, so only one
//! runs at a time.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod hostile;
mod leftovers;
mod many;
mod memory;
mod supervisor;

use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use pipeplug_host::{EventLoop, Plugin, PluginBuilder};
use pipeplug_tests::{children_of, descriptors, eventually, threads};

/// The plugin that misbehaves on command.
const MISBEHAVE: &str = env!("CARGO_BIN_EXE_misbehave");

/// The plugin that tries to outlive its host.
const FUGITIVE: &str = env!("CARGO_BIN_EXE_fugitive");

/// Descriptors that stay open after the first plugin: a pipe that a thread keeps for its own calls,
/// and, with kill-on-host-exit, the pipe to its process.
const KEPT: usize = if cfg!(linux_native) { 3 } else { 2 };

/// Held for the length of a test, which begins with nothing left of the one before it.
fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    static AT_FIRST: OnceLock<usize> = OnceLock::new();
    // A test that failed has said so itself.
    let guard = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let at_first = *AT_FIRST.get_or_init(descriptors);
    let plugin = misbehave(&["plain"]).event_loop(EventLoop::new().unwrap()).start().unwrap();
    for _ in 0..20 {
        plugin.call("echo", "").unwrap();
    }
    drop(plugin);
    // A thread has its name only once it runs, so that
    // names alone do not tell whether a loop is gone.
    eventually("all that was before is gone", || {
        descriptors() == at_first + KEPT
            && threads("pipeplug-") + threads("wait-") == 0
            && children_of(std::process::id()).is_empty()
    });
    guard
}

/// The plugin, told how to misbehave.
fn misbehave(how: &[&str]) -> PluginBuilder {
    Plugin::builder(MISBEHAVE).args(how)
}
