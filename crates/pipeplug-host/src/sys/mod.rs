//! The seam to the kernel: descriptors, fork and exec, the end of a process.
//!
//! All unsafe code of the crate is here. Two builds share one interface: Linux with pidfds, and
//! everything else (also Linux under `--cfg pipeplug_portable`), where a thread waits.

mod descriptor;
#[cfg(linux_native)]
mod exec;
mod exit_notice;
mod fork;
mod fork_exec;
#[cfg(linux_sandbox)]
mod fork_within;
mod guest_descriptors;
mod kill_on_host_exit;
#[cfg(linux_sandbox)]
mod landlock;
#[cfg(linux_native)]
pub(crate) mod memfd;
#[cfg(linux_sandbox)]
mod mounts;
#[cfg(linux_sandbox)]
mod namespaces;
mod open_image;
mod pid_namespace;
#[cfg(linux_sandbox)]
mod privileges;
#[cfg(linux_native)]
pub(crate) mod program;
mod sandbox;
mod start_step;
mod wait;
#[cfg(linux_native)]
mod watcher;

pub(crate) use descriptor::{lift, pipe, set_nonblocking};
#[cfg(target_os = "linux")]
pub(crate) use exit_notice::pidfd_open;
pub(crate) use exit_notice::{ExitNotice, poll_readable};
pub(crate) use fork_exec::{Executed, Group, Image, WorkingDirectory, fork_exec};
#[cfg(linux_sandbox)]
pub(crate) use fork_within::try_namespaces;
pub(crate) use kill_on_host_exit::KillOnHostExit;
#[cfg(linux_sandbox)]
pub(crate) use landlock::{PathRights, Ruleset, landlock_abi};
#[cfg(linux_sandbox)]
pub(crate) use mounts::Attributes;
#[cfg(linux_sandbox)]
pub(crate) use namespaces::{
    Copied, Entry, IdMaps, Identity, Init, InitOnHostExit, Kind, Namespaces, Network, Root,
};
pub(crate) use open_image::OpenImage;
pub(crate) use pid_namespace::PidNamespace;
#[cfg(linux_sandbox)]
pub(crate) use sandbox::Limit;
pub(crate) use sandbox::SandboxPlan;
#[cfg(feature = "sandbox")]
pub(crate) use sandbox::has_seccomp;
pub(crate) use start_step::{ForkExecError, StartStep};
pub(crate) use wait::{Look, block_until_exit, exit_status, reap_group, stopped_by};
