//! The seam to the kernel: descriptors, fork and exec, the end of a process.
//!
//! All unsafe code of the crate is here. Two builds share one interface: Linux with pidfds, and
//! everything else (also Linux under `--cfg pipeplug_portable`), where a thread waits.

mod descriptor;
mod exit_notice;
mod fork;
mod fork_exec;
#[cfg(all(target_os = "linux", not(pipeplug_portable)))]
mod guard;
mod lifeline;
#[cfg(all(target_os = "linux", not(pipeplug_portable)))]
pub(crate) mod memfd;
#[cfg(all(target_os = "linux", not(pipeplug_portable)))]
#[cfg_attr(not(test), expect(dead_code, reason = "used by the guard and by namespaces"))]
pub(crate) mod program;
mod wait;
mod walls;

pub(crate) use descriptor::{lift, pipe, set_nonblocking};
#[cfg(target_os = "linux")]
pub(crate) use exit_notice::pidfd_open;
pub(crate) use exit_notice::{ExitNotice, poll_readable};
pub(crate) use fork_exec::{ForkExecError, Group, Image, Step, fork_exec};
pub(crate) use lifeline::Lifeline;
pub(crate) use wait::{Look, block_until_exit, exit_status, reap_group};
#[cfg(all(target_os = "linux", not(pipeplug_portable)))]
pub(crate) use walls::Limit;
pub(crate) use walls::{OpenImage, Walls, has_seccomp, landlock_abi, new_network};
