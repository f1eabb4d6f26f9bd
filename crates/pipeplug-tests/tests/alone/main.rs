//! What a host has left of its plugins, and what they cost it: tests that count what their own process has, so that
//! one runs at a time.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod leftovers;
mod many;
mod memory;

use std::sync::{Mutex, MutexGuard, PoisonError};

use pipeplug_host::{Builder, EventLoop, Plugin};
use pipeplug_tests::{children_of, eventually, threads};

/// The plugin that misbehaves on command.
const MISBEHAVE: &str = env!("CARGO_BIN_EXE_misbehave");

/// Held for the length of a test.
fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    // A test that failed has said so itself.
    let guard = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    // What this thread keeps for calls of its own is no plugin's.
    let plugin = misbehave(&["plain"]).event_loop(EventLoop::new().unwrap()).start().unwrap();
    plugin.call("echo", "").unwrap();
    drop(plugin);
    eventually("the last test's are gone", || {
        threads("pipeplug-") + threads("wait-") == 0 && children_of(std::process::id()).is_empty()
    });
    guard
}

/// The plugin, told how to misbehave.
fn misbehave(how: &[&str]) -> Builder {
    Plugin::builder(MISBEHAVE).args(how)
}
