//! The host's side of pipeplug: finds plugins, starts them, and looks after their processes.

#![deny(unsafe_code)]

pub mod discovery;
pub mod process;
#[expect(unsafe_code, reason = "the one room of this crate that talks to the kernel by hand")]
mod sys;
mod wait_status;

pub use wait_status::WaitStatus;
