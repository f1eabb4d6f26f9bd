//! Typed services: those of the host, and clients of those of plugins.

#[cfg(feature = "verify")]
use std::path::Path;
use std::time::Duration;

use pipeplug_net::{HandlerError, Reply, Request};
use pipeplug_service::{
    Body, CallOptions, Channel, Client, Description, GET_SERVICES, Interface, Json, KEY_SERVICES,
    NoService, Service, ServiceError, ServiceSet,
};
#[cfg(feature = "verify")]
use pipeplug_service::{compare, serde::Deserialize as _};

#[cfg(feature = "verify")]
use crate::integrity::LockFile;
use crate::plugin::{Metadata, Plugin, PluginBuilder};
#[cfg(feature = "verify")]
use crate::process::Launch;
#[cfg(feature = "supervisor")]
use crate::supervisor::{Pool, Supervisor};

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

    /// Checks that a plugin has the services that are needed.
    pub(crate) fn check(&self, plugin: &Plugin, metadata: &Metadata) -> Result<(), Missing> {
        self.required.iter().try_for_each(|interface| check(plugin, metadata, interface))
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
pub(crate) fn check_pinned(
    plugin: &Plugin,
    metadata: &Metadata,
    launch: &Launch,
    lock_file: &Path,
) -> Result<(), String> {
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
fn describe(plugin: &Plugin) -> Result<Description, ServiceError> {
    let options = CallOptions::new().timeout(DESCRIBE_TIMEOUT);
    // Weakly would do as well: the channel ends with this call.
    let channel = Channel::new(plugin.clone()).with(options);
    channel.call(GET_SERVICES, Json::new(()))
}

fn check(
    plugin: &Plugin,
    metadata: &Metadata,
    interface: &'static Interface,
) -> Result<(), NoService> {
    NoService::check(plugin.name(), interface, metadata.value(KEY_SERVICES), || {
        describe(plugin).ok()
    })
}

impl PluginBuilder {
    /// Adds a typed service that the plugin may call. Requests for its methods do not come to the
    /// [`handler`](Self::handler). An [`allow`](Self::allow) list counts for them too.
    ///
    /// # Panics
    /// There is one of that name.
    pub fn service(mut self, service: impl Service) -> Self {
        self.services.own.add(service);
        self
    }

    /// Requires that the plugin has the service of this client, in a version that serves it. The
    /// start fails otherwise ([`StartErrorKind::Service`](crate::StartErrorKind::Service)).
    ///
    /// ```no_run
    /// # use pipeplug_service::service;
    /// # #[service(version = 1)]
    /// # pub trait Spell { fn suggest(&self, word: String) -> Vec<String>; }
    /// use pipeplug_host::{Plugin, Supervisor};
    ///
    /// let plugin = Plugin::builder("./spell").requires::<SpellClient>();
    /// let supervisor = Supervisor::builder(plugin).build()?;
    /// let spell: SpellClient = supervisor.client();
    /// println!("{:?}", spell.suggest("teh".into())?);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn requires<T: Client>(mut self) -> Self {
        self.services.required.push(T::interface());
        self
    }
}

impl Plugin {
    /// Makes a client of a service of the plugin.
    ///
    /// # Errors
    /// The plugin does not have the service, or in a version that does not serve this client. The
    /// message names what differs.
    ///
    /// # Blocking
    /// Only if the versions do not fit: until the plugin has described its services, for at most 5
    /// seconds.
    pub fn client<T: Client>(&self) -> Result<T, NoService> {
        check(self, self.metadata(), T::interface())?;
        Ok(T::over(Channel::new(self.clone())))
    }
}

#[cfg(feature = "supervisor")]
impl Supervisor {
    /// Makes a client of a service of the plugin. [`PluginBuilder::requires`] has each start check
    /// that the plugin has it.
    #[must_use]
    pub fn client<T: Client>(&self) -> T {
        T::over(Channel::new(self.clone()))
    }
}

#[cfg(feature = "supervisor")]
impl Pool {
    /// Makes a client of a service of the plugin. [`PluginBuilder::requires`] has each start check
    /// that the plugin has it.
    #[must_use]
    pub fn client<T: Client>(&self) -> T {
        T::over(Channel::new(self.clone()))
    }
}
