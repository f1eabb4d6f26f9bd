//! Signal dispositions for hosts that differ from those of the tests, and raw system calls.

mod attacks;
mod calls;
mod forks;
mod older_landlock;
mod probe;

pub(crate) use attacks::{
    duplicate, exit_at_once, fork_with_threads, in_child, lower_io_priority, lower_priority,
    refuse, set_attribute,
};
pub use calls::{apart_system_calls, strict_system_calls, system_call, system_calls};
pub use forks::{Relation, fork, fork_forkers, fork_relative};
pub use older_landlock::seem_to_have_landlock;
pub use probe::{ProbeOutcome, probe, probe_foreign};

use nix::libc;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

/// Makes SIGPIPE end the process: the default of C programs.
pub fn kill_by_sigpipe() {
    set(Signal::SIGPIPE, SigHandler::SigDfl);
}

/// Makes the system reap all children.
pub fn ignore_sigchld() {
    set(Signal::SIGCHLD, SigHandler::SigIgn);
}

/// Reaps every child that ends, in a handler of SIGCHLD, as old servers do.
pub fn handle_sigchld_by_reaping() {
    set(Signal::SIGCHLD, SigHandler::Handler(reap_all));
}

fn set(signal: Signal, handler: SigHandler) {
    let action = SigAction::new(handler, SaFlags::SA_RESTART, SigSet::empty());
    // SAFETY: the only handler of ours, `reap_all`, is async-signal-safe.
    unsafe { sigaction(signal, &action) }.expect("these signals can be handled");
}

extern "C" fn reap_all(_signal: libc::c_int) {
    // SAFETY: waitpid(2) is async-signal-safe, and a null status is not written to. That it may
    // change errno is one more of the habits of such hosts.
    while unsafe { libc::waitpid(-1, std::ptr::null_mut(), libc::WNOHANG) } > 0 {}
}
