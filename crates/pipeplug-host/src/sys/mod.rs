//! The seam to the kernel: descriptors, fork and exec, the end of a process.
//!
//! All unsafe code of the crate is here. Two builds share one interface: Linux with pidfds, and
//! everything else (also Linux under `--cfg pipeplug_portable`), where a thread waits.

mod descriptor;
#[cfg(all(target_os = "linux", not(pipeplug_portable)))]
mod exec;
mod exit_notice;
mod fork;
mod fork_exec;
#[cfg(all(target_os = "linux", not(pipeplug_portable)))]
mod fork_within;
mod guest_descriptors;
mod kill_on_host_exit;
#[cfg(all(target_os = "linux", not(pipeplug_portable)))]
mod landlock;
#[cfg(all(target_os = "linux", not(pipeplug_portable)))]
pub(crate) mod memfd;
#[cfg(all(target_os = "linux", not(pipeplug_portable)))]
mod mounts;
#[cfg(all(target_os = "linux", not(pipeplug_portable)))]
mod namespaces;
mod pid_namespace;
#[cfg(all(target_os = "linux", not(pipeplug_portable)))]
pub(crate) mod program;
mod sandbox;
mod wait;
#[cfg(all(target_os = "linux", not(pipeplug_portable)))]
mod watcher;

pub(crate) use descriptor::{lift, pipe, set_nonblocking};
#[cfg(target_os = "linux")]
pub(crate) use exit_notice::pidfd_open;
pub(crate) use exit_notice::{ExitNotice, poll_readable};
pub(crate) use fork_exec::{
    Executed, ForkExecError, Group, Image, StartStep, WorkingDirectory, fork_exec,
};
#[cfg(all(target_os = "linux", not(pipeplug_portable)))]
pub(crate) use fork_within::try_namespaces;
pub(crate) use kill_on_host_exit::KillOnHostExit;
#[cfg(all(target_os = "linux", not(pipeplug_portable)))]
pub(crate) use landlock::{PathRights, Ruleset, landlock_abi};
#[cfg(all(target_os = "linux", not(pipeplug_portable)))]
pub(crate) use mounts::Attributes;
#[cfg(all(target_os = "linux", not(pipeplug_portable)))]
pub(crate) use namespaces::{
    Copied, Entry, IdMaps, Identity, Init, InitOnHostExit, Kind, Namespaces, Network, Root,
};
pub(crate) use pid_namespace::PidNamespace;
#[cfg(all(target_os = "linux", not(pipeplug_portable)))]
pub(crate) use sandbox::Limit;
pub(crate) use sandbox::{OpenImage, SandboxPlan, has_seccomp};
pub(crate) use wait::{Look, block_until_exit, exit_status, reap_group, stopped_by};
