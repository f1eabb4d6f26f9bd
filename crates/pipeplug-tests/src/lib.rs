//! Tests of host and guest together, over real processes.
//!
//! The tests are in `tests/`: `parallel` has tests that can run at the same time in one process,
//! `serial` has tests that count the descriptors, threads, children or memory of their own process.
//!
//! Nine programs help:
//! - `misbehave`: a plugin that breaks a rule on command;
//! - `captive`: a plugin in a container that tries what the container forbids;
//! - `burglar`: a plugin that tries to break out of its sandbox;
//! - `sandbox-host`: a host of `burglar` that can run as any user;
//! - `fugitive`: a plugin that tries to outlive its host;
//! - `lonely-host`: a host that ends without stopping its plugin;
//! - `odd-host`: a host that handles signals in unusual ways;
//! - `soak`: a host that calls a plugin in any language at random, gives calls up, and kills it;
//! - `typed`: a plugin with typed services.
//!
//! A program that does not know the protocol is a [`Script`].

#[cfg(target_os = "linux")]
mod attacks;
mod chunks;
mod containers;
mod processes;
mod raw;
mod script;
mod sshd;
#[expect(unsafe_code, reason = "system calls that no crate wraps")]
mod sys;
mod tools;
pub mod typed;

#[cfg(target_os = "linux")]
pub use attacks::{
    NEWER_CALLS, attack, refuse_landlock, refuse_namespaces, refuse_newer_call, time_that_is_set,
};
pub use chunks::{one_way, read_chunk, request};
pub use containers::Containers;
pub use pipeplug_testkit::{LONG, chunk, eventually};
pub use processes::{
    HostFootprint, children_of, command_lines_with, descriptors, forget_memory_peak, group_members,
    group_of, guards_of, is_running, is_stopped, is_zombie, memory_in_use, memory_peak,
    page_faults, send, threads, wait_exit, wake_ups,
};
pub use raw::misbehave_raw;
pub use script::Script;
pub use sshd::{Sshd, free_port};
pub use sys::{
    ProbeOutcome, Relation, apart_system_calls, fork, fork_forkers, fork_relative,
    handle_sigchld_by_reaping, ignore_sigchld, kill_by_sigpipe, probe, probe_foreign,
    seem_to_have_landlock, strict_system_calls, system_call, system_calls,
};
pub use tools::{missing, tool};

use std::time::Duration;

/// Time limit for something that happens soon, on a busy machine.
pub const SOON: Duration = Duration::from_secs(1);

/// The README's programs, which are compiled with the tests.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
pub struct Readme;

/// The programs of docs/supervision.md, likewise.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/supervision.md")]
pub struct Supervision;

/// The programs of docs/placement.md, likewise.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/placement.md")]
pub struct Placement;

/// The programs of docs/streams.md, likewise.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/streams.md")]
pub struct Streams;

/// The programs of docs/services.md, likewise.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/services.md")]
pub struct Services;

/// The programs of docs/plugins.md, likewise.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/plugins.md")]
pub struct Plugins;

/// The programs of docs/async.md, likewise.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/async.md")]
pub struct Async;

/// The programs of docs/security.md, likewise.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/security.md")]
pub struct Security;
