//! Fork within namespaces: the helper that makes them, their init, and the plugin.

use std::io;

use nix::sys::signal::{SigSet, SigmaskHow, Signal, kill};

use super::fork::{Child, HelperStack, fork_helper};
use super::namespaces::{Helper, Namespaces, Pids};
use super::start_step::{ChildFailure, ForkExecError, StartStep};
use super::{Look, block_until_exit, exit_status};
use crate::process::WaitStatus;
use nix::errno::Errno;

/// Forks init and `plugin` within namespaces; no process is left where that fails.
///
/// Every signal must be blocked.
pub(super) fn fork_within<C: Child>(
    namespaces: &Namespaces,
    ruleset: Option<&super::Ruleset>,
    plugin: &C,
) -> Result<Pids, ChildFailure> {
    let pids = Pids::default();
    let mut stack = HelperStack::new();
    let helper = Helper { namespaces, ruleset, plugin, pids: &pids };
    let (pid, failure) = fork_helper(&helper, &mut stack)
        .map_err(|errno| ChildFailure { step: StartStep::Fork, errno })?;
    // The helper has ended, or is about to: it executes no program, so `fork_helper` has returned
    // when it left the memory.
    let _ = block_until_exit(pid);
    let status = exit_status(pid, Look::Reap);
    let was_killed = matches!(status, Ok(Some(WaitStatus::Signaled { .. })));
    let failure = match (failure, was_killed) {
        (None, false) => return Ok(pids),
        (Some(failure), _) => failure,
        (None, true) => {
            // CLONE_VFORK had the helper wait for its child. A helper that is killed waits no more,
            // and the child may still run on its stack, which is part of this memory: it is leaked.
            std::mem::forget(stack);
            ChildFailure { step: StartStep::Fork, errno: Errno::EINTR }
        }
    };
    end(&pids);
    Err(failure)
}

/// Ends what was forked within namespaces.
fn end(pids: &Pids) {
    // The plugin first: init does not end before all that is inside has been waited for.
    for pid in [pids.plugin.pid(), pids.init.pid()].into_iter().flatten() {
        // It may have ended by itself.
        let _ = kill(pid, Signal::SIGKILL);
        let _ = block_until_exit(pid);
        let _ = exit_status(pid, Look::Reap);
    }
}

/// Tries, in a child, whether this process can make namespaces as these are.
pub(crate) fn try_namespaces(namespaces: &Namespaces) -> Result<(), ForkExecError> {
    struct Try<'a>(&'a Namespaces);

    impl Child for Try<'_> {
        fn run(&self) -> Result<(), ChildFailure> {
            self.0.finish(None)
        }
    }

    let failed = |step, error: io::Error| ForkExecError { step, error };
    let mask = SigSet::all()
        .thread_swap_mask(SigmaskHow::SIG_SETMASK)
        .map_err(|errno| failed(StartStep::Fork, errno.into()))?;
    let tried = fork_within(namespaces, None, &Try(namespaces));
    mask.thread_set_mask().expect("a mask that was in force can be set again");
    let pids = tried.map_err(|ChildFailure { step, errno }| failed(step, errno.into()))?;
    end(&pids);
    Ok(())
}
