//! Asking a plugin what it is.

use nix::sys::signal::Signal;
use pipeplug_net::wire::Format;

use crate::builder::Builder;
use crate::metadata::Metadata;
use crate::start_error::StartError;
use crate::wait_status::WaitStatus;

/// What a plugin said of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Said {
    /// Its answer to `GetMetadata`.
    pub metadata: Metadata,
    /// The format that it speaks.
    pub format: Format,
}

/// Starts a plugin for a moment, in whichever format it speaks, to ask what it is.
pub(super) fn ask(builder: &Builder) -> Result<Said, StartError> {
    let (plugin, format) = match builder.start() {
        Err(StartError::WrongFormat { found, .. }) => (builder.clone().format(found).start()?, found),
        started => (started?, builder.options.format.unwrap_or_default()),
    };
    let metadata = plugin.metadata().clone();
    if let Err(error) = plugin.stop() {
        // It has answered, and that is what was asked for.
        tracing::warn!(plugin = %plugin.name(), %error, "a plugin that was asked what it is did not end");
    }
    Ok(Said { metadata, format })
}

/// Whether an error is worth keeping as the answer of that file: it took a start to find out, and the same start will
/// probably end the same way.
pub(super) fn is_about_the_plugin(error: &StartError) -> bool {
    match error {
        // What does not even start costs nothing to try.
        StartError::Spawn(_) => false,
        StartError::System { .. } | StartError::Connect { .. } | StartError::Place { .. } => false,
        StartError::Exited { status, .. } => !was_ended(*status),
        StartError::ClosedPipe { .. }
        | StartError::HandshakeTimeout { .. }
        | StartError::WrongFormat { .. }
        | StartError::Garbage { .. }
        | StartError::BadMetadata { .. }
        | StartError::LargeMetadata { .. }
        | StartError::Echo { .. }
        | StartError::Handshake { .. } => true,
    }
}

/// Whether somebody ended it who may not do so the next time: a user, or the kernel for want of memory.
fn was_ended(status: WaitStatus) -> bool {
    let enders = [Signal::SIGKILL, Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP];
    match status {
        WaitStatus::Exited(_) => false,
        WaitStatus::Signaled { signal, .. } => enders.iter().any(|ender| *ender as i32 == signal),
        WaitStatus::Unknown => true,
    }
}
