//! The processes of guests: starting one, being told of its end, signalling and reaping it.
//!
//! [`spawn`] takes a [`Launch`] and gives a [`Spawned`]: the guest's [`Child`] and the host's ends
//! of its pipes. What holds for every guest:
//!
//! - It leads a process group of its own, and [`Child::signal_group`] reaches all of the group; but
//!   with [`Stdin::Inherit`] it stays in the host's, and is reached alone.
//! - It does not outlive the host, unless [`OnHostExit`] says so.
//! - It has the descriptors that it is told of, 0, 1 and 2, and no other, whatever the host has
//!   open; but a script whose sum was checked has one more, behind these, which it is read from.
//! - Of the host's environment it gets what its [`EnvPlan`] lets through.
//! - It starts with no signal blocked and none handled; `SIGPIPE` and `SIGCHLD` are not ignored.
//! - It is waited for by its own process id only, so the host's other children are left alone.
//! - A process in another session, which it started, is out of reach and goes on: [`Child::left`]
//!   names those.
//! - It is killed and reaped when its [`Child`] is dropped.

mod child;
mod descendants;
mod diagnose;
mod environment;
mod error;
mod examine;
mod executable;
pub(crate) mod exit_status;
pub(crate) mod launch;
mod libraries;
mod passed_on;
#[cfg(feature = "verify")]
mod sealed_copy;
mod signal;
mod spawn;

pub(crate) use crate::sys::poll_readable;
pub use child::{Child, Delivery, Leftovers, Pid};
pub(crate) use descendants::{Stat, children};
pub use diagnose::DESCRIPTORS_NEEDED;
pub(crate) use environment::dropped;
pub use error::{SpawnError, SpawnErrorKind};
pub use examine::{Examination, has_pidfd};
pub(crate) use executable::Executable;
#[cfg(feature = "pack")]
pub(crate) use executable::Machine;
pub(crate) use exit_status::WaitStatus;
pub use launch::{Channel, EnvPlan, Launch};
pub(crate) use launch::{OnHostExit, Stdin, Stdout};
pub use libraries::MissingLibrary;
pub(crate) use passed_on::started_without;
pub use signal::Signal;
pub use spawn::{Spawned, spawn};
pub(crate) use spawn::{check_names, spawn_with};
