//! The first request, and what its failure means.

#[cfg(feature = "sandbox")]
use std::path::Path;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use pipeplug_net::internal::handshake;
use pipeplug_net::wire::{Decoder, Format, Limits, Step, command};
use pipeplug_net::{CallError, CloseReason, Connection, OutgoingRequest, failure_code};

use crate::launcher::Diagnosis;
#[cfg(feature = "sandbox")]
use crate::permissions::{Permissions, PermissionsError};
use crate::plugin::metadata::{Metadata, offer};
use crate::plugin::start_hint::{self, End, StartPipe};
use crate::plugin::{Plugin, PluginBuilder, StartError, StartErrorKind, terminal};
use crate::process::WaitStatus;
use crate::services::Missing;
#[cfg(feature = "verify")]
use crate::services::check_pinned;

/// Bytes of garbage that an error shows, at most.
const SHOWN: usize = 64;
/// Time for a process that closed its pipe to end, so that the error has its status.
const EXIT_TIMEOUT: Duration = Duration::from_millis(500);

/// The most that a plugin says of itself, in bytes.
const METADATA_MAX: usize = 1 << 20;
/// Close reason for a program that sends the host's own request back.
pub(crate) const ECHO: &str = "it sent the host's own first request back";
/// Time for the connection to end.
const END_TIMEOUT: Duration = Duration::from_secs(1);

/// Reason why the handshake failed.
pub(crate) enum HandshakeFailure {
    Call(CallError),
    Metadata {
        bytes: Vec<u8>,
        error: serde_json::Error,
    },
    Large {
        len: usize,
    },
    /// The plugin takes no configuration, and the host has one.
    NoConfig {
        error: Option<CallError>,
    },
    InterfaceVersions {
        plugin: Vec<u32>,
        host: Vec<u32>,
    },
    Service(Missing),
    /// The plugin declares more than it is allowed.
    #[cfg(feature = "sandbox")]
    MorePermissions {
        more: Box<Permissions>,
        lock_file: Option<PathBuf>,
    },
    #[cfg(feature = "sandbox")]
    Permissions(PermissionsError),
    Pinned {
        lock_file: PathBuf,
        problem: String,
    },
}

/// The result of the exchange.
pub(crate) struct Introduced {
    pub(crate) metadata: Metadata,
    /// Chosen by both sides.
    pub(crate) interface_version: Option<u32>,
}

/// Ends the connection to a plugin that asks for metadata, which only hosts do: whatever it is, it
/// sends back what it gets, and the refusal of its request would come back as the answer to ours.
pub(crate) fn is_echo(connection: &Connection) {
    connection.end(ECHO);
    // Closed here, so that no answer goes out before the end.
    let _ = connection.wait_ended(END_TIMEOUT);
}

/// Exchanges the metadata of both sides. From here on the features that both name are used.
pub(crate) fn exchange(
    plugin: &Plugin,
    builder: &PluginBuilder,
) -> Result<Introduced, HandshakeFailure> {
    let PluginBuilder {
        metadata: own,
        config,
        interface_versions,
        services,
        log_level,
        handshake: timeout,
        ..
    } = builder;
    let offered = handshake::offer(plugin.connection());
    let offered = offered.iter().map(|(key, value)| (*key, value.as_str()));
    let own = own.iter().map(|(key, value)| (key.as_str(), value.as_str()));
    let versions = interface_versions.to_offer();
    let versions = versions.as_deref().map(|list| (handshake::KEY_INTERFACE_VERSIONS, list));
    let config = config.as_ref().map(|config| (handshake::KEY_CONFIG, config.json()));
    let of_services = services.metadata();
    let of_services = of_services.as_ref().map(|(key, value)| (*key, value.as_str()));
    let log_level = log_level.map(|level| (handshake::KEY_LOG_LEVEL, level.name()));
    let buffer =
        offer(own.chain(offered).chain(versions).chain(of_services).chain(log_level), config);
    let reply = plugin
        .connection()
        .begin_by_protocol(OutgoingRequest::new(command::GET_METADATA, buffer.into()))
        .and_then(|call| call.wait_timeout(*timeout));
    let mut refusal = None;
    let bytes = match reply {
        Ok(reply) => reply.into_bytes(),
        // The plugin has not heard the question, and is unable to handle any other.
        Err(error @ CallError::Remote { .. }) if is_refused(&error) => {
            return Err(HandshakeFailure::Call(error));
        }
        // A plugin that does not know the question has no metadata.
        Err(error @ CallError::Remote { .. }) => {
            refusal = Some(error);
            b"{}".to_vec()
        }
        Err(error) => return Err(HandshakeFailure::Call(error)),
    };
    if bytes.len() > METADATA_MAX {
        return Err(HandshakeFailure::Large { len: bytes.len() });
    }
    let metadata =
        Metadata::parse(&bytes).map_err(|error| HandshakeFailure::Metadata { bytes, error })?;
    #[cfg(feature = "sandbox")]
    check_permissions(&metadata, builder)?;
    handshake::accept(plugin.connection(), |key| metadata.value(key));
    let names = |feature| handshake::names_feature(|key| metadata.value(key), feature);
    if config.is_some() && !names(handshake::FEATURE_CONFIG) {
        return Err(HandshakeFailure::NoConfig { error: refusal });
    }
    let of_plugin = metadata.value(handshake::KEY_INTERFACE_VERSIONS);
    let interface_version = interface_versions.choose(of_plugin).map_err(|of_plugin| {
        let (plugin, host) = (of_plugin.into_vec(), interface_versions.clone().into_vec());
        HandshakeFailure::InterfaceVersions { plugin, host }
    })?;
    services.check(plugin, plugin.name(), &metadata).map_err(HandshakeFailure::Service)?;
    #[cfg(feature = "verify")]
    if let Some(lock_file) = &builder.launch.lock_file {
        check_pinned(plugin, &metadata, &builder.launch, lock_file).map_err(|problem| {
            HandshakeFailure::Pinned { lock_file: lock_file.clone(), problem }
        })?;
    }
    Ok(Introduced { metadata, interface_version })
}

/// Compares what the plugin declares with what it is allowed, if it is confined to that.
#[cfg(feature = "sandbox")]
fn check_permissions(metadata: &Metadata, builder: &PluginBuilder) -> Result<(), HandshakeFailure> {
    let Some(allowed) = &builder.permissions else { return Ok(()) };
    let declared = Permissions::declared(metadata).map_err(HandshakeFailure::Permissions)?;
    let none = Permissions::default();
    let more = declared.unwrap_or_default().beyond(allowed.known().unwrap_or(&none));
    if more.is_empty() {
        return Ok(());
    }
    let lock_file = allowed.lock_file().map(Path::to_owned);
    Err(HandshakeFailure::MorePermissions { more: Box::new(more), lock_file })
}

/// Returns true for the answer of a connection that does not get to a handler, such as where the
/// system gives no thread.
fn is_refused(error: &CallError) -> bool {
    // A plugin does not know yet that this host takes codes.
    error.code() == Some(failure_code::OVERLOADED)
        || matches!(error, CallError::Remote { message, .. } if message.starts_with("not taken: "))
}

/// Turns a failed handshake into the error of the start.
pub(crate) fn explain(
    failure: HandshakeFailure,
    plugin: &Plugin,
    begun: Instant,
    builder: &PluginBuilder,
    pipe: &StartPipe,
) -> StartError {
    let pipe = pipe.look();
    let hint = |end, stderr: &[String]| {
        start_hint::find(end, plugin.pid(), builder, pipe, stderr).map(Box::from)
    };
    let launcher = builder.launcher.describe();
    let is_elsewhere = launcher.is_some();
    let failed = |kind| StartError::new(plugin.path(), launcher.clone(), kind);
    let error = match failure {
        HandshakeFailure::Metadata { mut bytes, error } => {
            bytes.truncate(SHOWN);
            let error = error.to_string();
            return failed(StartErrorKind::BadMetadata { shown: bytes, error });
        }
        HandshakeFailure::Large { len } => {
            return failed(StartErrorKind::LargeMetadata { len, limit: METADATA_MAX });
        }
        HandshakeFailure::NoConfig { error } => {
            return failed(StartErrorKind::NoConfig { error });
        }
        HandshakeFailure::InterfaceVersions { plugin, host } => {
            return failed(StartErrorKind::InterfaceVersions { plugin, host });
        }
        HandshakeFailure::Service(error) => {
            return failed(StartErrorKind::Service { problem: error.to_string() });
        }
        #[cfg(feature = "sandbox")]
        HandshakeFailure::MorePermissions { more, lock_file } => {
            return failed(StartErrorKind::MorePermissions { more, lock_file });
        }
        #[cfg(feature = "sandbox")]
        HandshakeFailure::Permissions(error) => {
            return failed(StartErrorKind::BadPermissions { error });
        }
        HandshakeFailure::Pinned { lock_file, problem } => {
            return failed(StartErrorKind::PinnedInterface { lock_file, problem });
        }
        HandshakeFailure::Call(error) => error,
    };
    match &error {
        CallError::TimedOut { .. } => {
            let stderr = plugin.stderr_tail();
            let (timeout, stopped_by) = (builder.handshake, plugin.stopped_by());
            return failed(StartErrorKind::HandshakeTimeout { timeout, stopped_by })
                .with_hint(hint(End::Silent, &stderr))
                .with_stderr(stderr);
        }
        CallError::Closed { reason, .. } => {
            if matches!(&**reason, CloseReason::Ended(why) if why == ECHO) {
                return failed(StartErrorKind::Echo);
            }
            if let CloseReason::Broken { error, first } = &**reason {
                // A command in between, such as `docker exec -t`, has made it.
                if terminal::shows_in(first) {
                    return failed(StartErrorKind::Terminal { shown: first.clone() });
                }
                if let Some(Diagnosis { problem, is_permanent }) =
                    builder.launcher.diagnose_output()
                {
                    // What carries it may run on: its status is no part of what went wrong.
                    let status = plugin.status().unwrap_or(WaitStatus::Unknown);
                    return failed(StartErrorKind::Launcher { problem, is_permanent, status })
                        .with_stderr(plugin.stderr_tail());
                }
                let spoken = builder.options.format.unwrap_or_default();
                let found =
                    if spoken == Format::Standard { Format::Classic } else { Format::Standard };
                if begins_as(found, first) {
                    return failed(StartErrorKind::WrongFormat { spoken, found });
                }
                // Programs that end lines so by themselves are few.
                if is_elsewhere && terminal::ends_lines_of(first) {
                    return failed(StartErrorKind::Terminal { shown: first.clone() });
                }
                let (first, reason) = (first.clone(), error.to_string());
                // It may be about to say more.
                let _ = plugin.wait(EXIT_TIMEOUT / 5);
                return failed(StartErrorKind::Garbage { first, reason })
                    .with_stderr(plugin.stderr_tail());
            }
        }
        _ => {
            return failed(StartErrorKind::Handshake { error }).with_stderr(plugin.stderr_tail());
        }
    }
    match plugin.wait(plugin.end_timeout().max(EXIT_TIMEOUT)) {
        Ok(Some(status)) => {
            let stderr = plugin.stderr_tail();
            if let Some(line) = terminal::missed_in(&stderr) {
                return failed(StartErrorKind::Terminal { shown: line.as_bytes().to_owned() });
            }
            match plugin.diagnose(status, &stderr) {
                Some(Diagnosis { mut problem, is_permanent }) => {
                    if problem.starts_with("which ") {
                        problem = format!("it ended with {status}, {problem}");
                    }
                    failed(StartErrorKind::Launcher { problem, is_permanent, status })
                        .with_stderr(stderr)
                }
                None => failed(StartErrorKind::Exited { status, after: begun.elapsed() })
                    .with_hint(hint(End::Exited(status), &stderr))
                    .with_stderr(stderr),
            }
        }
        Ok(None) => {
            let stderr = plugin.stderr_tail();
            failed(StartErrorKind::ClosedPipe)
                .with_hint(hint(End::ClosedPipe, &stderr))
                .with_stderr(stderr)
        }
        Err(error) => failed(StartErrorKind::System { error }),
    }
}

/// Tells whether the bytes begin with a header in that format.
fn begins_as(format: Format, first: &[u8]) -> bool {
    // With a buffer limit of 0 a whole header is enough, whatever follows it.
    let mut decoder = Decoder::new(format, Limits::default().with_buffer(0));
    matches!(
        decoder.decode(first),
        Ok(Step::Chunk { .. } | Step::Head { .. } | Step::Skipped { .. })
    )
}
