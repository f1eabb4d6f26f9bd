//! Clients of the services of plugins, and services that a host serves.

use pipeplug_service::{Channel, Client, NoService, Service};

use super::check;
use crate::plugin::{Plugin, PluginBuilder};
#[cfg(feature = "supervisor")]
use crate::supervisor::{Pool, Supervisor};

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
        check(self, self.name(), self.metadata(), T::interface())?;
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
