//! Typed services of a host, and those that it needs of a plugin.

mod clients;

#[cfg(feature = "verify")]
use std::path::Path;
use std::time::Duration;

use pipeplug_net::{Caller, HandlerError, Reply, Request};
use pipeplug_service::{
    Body, CallOptions, Channel, Description, GET_SERVICES, Interface, Json, KEY_SERVICES,
    NoService, ServiceError, ServiceSet,
};
#[cfg(feature = "verify")]
use pipeplug_service::{compare, serde::Deserialize as _};

#[cfg(feature = "verify")]
use crate::integrity::LockFile;
use crate::plugin::metadata::Metadata;
#[cfg(feature = "verify")]
use crate::process::Launch;

/// Time in which a plugin describes its services, for the error that names what differs.
const DESCRIBE_TIMEOUT: Duration = Duration::from_secs(5);

/// Services of a host, and those that it needs of the plugin.
#[derive(Debug, Clone, Default)]
pub(crate) struct Services {
    own: ServiceSet,
    required: Vec<&'static Interface>,
}

/// The reason that a plugin does not have a service that is needed.
pub(crate) type Missing = NoService;

impl Services {
    /// Answers a request if it is for one of the services.
    pub(crate) fn handle(&self, request: &mut Request) -> Option<Result<Reply, HandlerError>> {
        if self.own.is_empty() { None } else { self.own.handle(request) }
    }

    /// Key and value of the list of services in the metadata.
    pub(crate) fn metadata(&self) -> Option<(&'static str, String)> {
        self.own.metadata().map(|value| (KEY_SERVICES, value))
    }

    /// Checks that a plugin of this name has the services that are needed.
    pub(crate) fn check<C>(
        &self,
        plugin: &C,
        name: &str,
        metadata: &Metadata,
    ) -> Result<(), Missing>
    where
        C: Caller + Clone + Send + Sync + 'static,
    {
        self.required.iter().try_for_each(|interface| check(plugin, name, metadata, interface))
    }
}

/// Checks that the services of a plugin serve callers of those that the lock file pins for it, if it
/// pins any.
///
/// # Errors
/// They do not: the methods, and what differs.
///
/// # Blocking
/// Until the plugin has described its services, for at most 5 seconds.
#[cfg(feature = "verify")]
pub(crate) fn check_pinned<C>(
    plugin: &C,
    metadata: &Metadata,
    launch: &Launch,
    lock_file: &Path,
) -> Result<(), String>
where
    C: Caller + Clone + Send + Sync + 'static,
{
    let lock = LockFile::open(lock_file).map_err(|error| error.to_string())?;
    let pinned = lock.interface_of(&launch.program).map_err(|error| error.to_string())?;
    let Some(pinned) = pinned else { return Ok(()) };
    let unread = |error: serde_json::Error| format!("what is pinned cannot be read: {error}");
    let pinned = Description::deserialize(pinned).map_err(unread)?;
    let found = if metadata.value(KEY_SERVICES).is_some() {
        describe(plugin).map_err(|error| format!("it does not describe its services: {error}"))?
    } else {
        Description::default()
    };
    let mut problems = Vec::new();
    for old in &pinned.services {
        let name = &old.name;
        match found.services.iter().find(|new| new.name == *name) {
            Some(new) => {
                let changes = compare(old, new);
                let broken = changes.iter().filter(|change| change.breaks_callers());
                problems.extend(broken.map(|change| match change.method {
                    Some(_) => format!("{name}.{change}"),
                    None => format!("{name}: {change}"),
                }));
            }
            None => problems.push(format!("{name}: the service is gone")),
        }
    }
    if problems.is_empty() { Ok(()) } else { Err(problems.join(", ")) }
}

/// Asks a plugin for the description of its services.
fn describe<C>(plugin: &C) -> Result<Description, ServiceError>
where
    C: Caller + Clone + Send + Sync + 'static,
{
    let options = CallOptions::new().timeout(DESCRIBE_TIMEOUT);
    // Weakly would do as well: the channel ends with this call.
    let channel = Channel::new(plugin.clone()).with(options);
    channel.call(GET_SERVICES, Json::new(()))
}

fn check<C>(
    plugin: &C,
    name: &str,
    metadata: &Metadata,
    interface: &'static Interface,
) -> Result<(), NoService>
where
    C: Caller + Clone + Send + Sync + 'static,
{
    NoService::check(name, interface, metadata.value(KEY_SERVICES), || describe(plugin).ok())
}
