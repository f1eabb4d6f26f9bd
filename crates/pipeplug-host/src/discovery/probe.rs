//! Asking a plugin what it is.

use std::time::Duration;

use nix::sys::signal::Signal;
use pipeplug_net::wire::Format;

use crate::plugin::{Metadata, Plugin, PluginBuilder, StartError, StartErrorKind};
use crate::process::{Channel, WaitStatus};

/// Answer of a plugin that was probed.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PluginInfo {
    /// Answer to `GetMetadata`.
    pub metadata: Metadata,
    /// The format that it speaks.
    pub format: Format,
    /// The descriptors that it talks over.
    pub transport: Transport,
}

/// The descriptors that a plugin talks over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Transport {
    /// The descriptors that its first two arguments name: the default.
    #[default]
    Descriptors,
    /// Standard input and output: a host starts the plugin with [`PluginBuilder::stdio`].
    Stdio,
}

/// Time to answer over another transport. The program is in memory already, so it starts fast.
const RETRY_TIMEOUT: Duration = Duration::from_secs(2);

/// Starts a plugin for a moment, in whichever way it speaks, to ask what it is.
pub(super) fn probe(builder: &PluginBuilder) -> Result<PluginInfo, StartError> {
    let format = builder.options.format.unwrap_or_default();
    let transport = match builder.launch.channel {
        Channel::Stdio => Transport::Stdio,
        Channel::Pipes { .. } => Transport::Descriptors,
    };
    let (plugin, format, transport) = match builder.start() {
        Ok(plugin) => (plugin, format, transport),
        Err(error) => match *error.kind() {
            StartErrorKind::WrongFormat { found, .. } => {
                (builder.clone().format(found).start()?, found, transport)
            }
            _ if transport == Transport::Descriptors && may_speak_otherwise(&error) => {
                // The first error is that of the way that was asked for.
                other_transport(builder, format).ok_or(error)?
            }
            _ => return Err(error),
        },
    };
    let metadata = plugin.metadata().clone();
    if let Err(error) = plugin.stop() {
        // It has answered, and that is what was asked for.
        tracing::warn!(plugin = %plugin.name(), %error, "a probed plugin did not end");
    }
    Ok(PluginInfo { metadata, format, transport })
}

/// Tries the other ways to talk, of which a plugin knows one and says nothing of it: what is on
/// stdin and stdout finds its input at its end, and what knows the other format waits for more.
fn other_transport(builder: &PluginBuilder, format: Format) -> Option<(Plugin, Format, Transport)> {
    let other = if format == Format::Standard { Format::Classic } else { Format::Standard };
    let ways =
        [(other, Transport::Descriptors), (format, Transport::Stdio), (other, Transport::Stdio)];
    ways.into_iter().find_map(|(format, transport)| {
        // Who allows much time for an answer knows of a plugin that is slow to start.
        let timeout = builder.handshake.min(RETRY_TIMEOUT.max(builder.handshake / 5));
        let builder = builder.clone().handshake_timeout(timeout).format(format);
        let builder = if transport == Transport::Stdio { builder.stdio() } else { builder };
        Some((builder.start().ok()?, format, transport))
    })
}

/// Looks for an end that a plugin may come to which was spoken to the wrong way.
fn may_speak_otherwise(error: &StartError) -> bool {
    let may = match error.kind() {
        StartErrorKind::Exited { status, .. } => !was_ended(*status) && !error.is_permanent(),
        StartErrorKind::ClosedPipe | StartErrorKind::HandshakeTimeout { .. } => true,
        _ => false,
    };
    may && error.launcher().is_none()
}

/// Tells whether an error is worth caching: finding it took a start, and another start will
/// probably fail the same way.
pub(super) fn is_about_the_plugin(error: &StartError) -> bool {
    match error.kind() {
        // What does not even start costs nothing to try.
        StartErrorKind::Spawn(_) => false,
        StartErrorKind::System { .. }
        | StartErrorKind::Connect { .. }
        | StartErrorKind::Launcher { .. }
        // None of these is part of a probe.
        | StartErrorKind::NoConfig { .. }
        | StartErrorKind::Recording { .. }
        | StartErrorKind::InterfaceVersions { .. }
        | StartErrorKind::Service { .. }
        | StartErrorKind::PinnedInterface { .. }
        | StartErrorKind::NotPermitted { .. }
        | StartErrorKind::MorePermissions { .. }
        | StartErrorKind::BadPermissions { .. }
        | StartErrorKind::NotReady { .. } => false,
        StartErrorKind::Exited { status, .. } => !was_ended(*status),
        StartErrorKind::ClosedPipe
        | StartErrorKind::HandshakeTimeout { .. }
        | StartErrorKind::WrongFormat { .. }
        | StartErrorKind::Garbage { .. }
        | StartErrorKind::BadMetadata { .. }
        | StartErrorKind::LargeMetadata { .. }
        | StartErrorKind::Terminal { .. }
        | StartErrorKind::Echo
        | StartErrorKind::Handshake { .. } => true,
    }
}

/// Tells whether the plugin was ended from outside, by a user or by the kernel for want of memory.
/// The next start may end otherwise.
fn was_ended(status: WaitStatus) -> bool {
    let enders = [Signal::SIGKILL, Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP];
    match status {
        WaitStatus::Exited(_) => false,
        WaitStatus::Signaled { signal, .. } => enders.iter().any(|ender| *ender as i32 == signal),
        WaitStatus::Unknown => true,
    }
}
